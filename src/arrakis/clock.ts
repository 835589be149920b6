/** The time of day, for what is written down. */

const NS_PER_MS = 1e6;

/** The wall clock in nanoseconds, to the microsecond: `Date.now` counts whole milliseconds. In any thread. */
export const wallClockNs = (): number => (performance.timeOrigin + performance.now()) * NS_PER_MS;
