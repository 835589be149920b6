/** When the next packet of `arrakis bench doorbell` is sent: long enough after the last for a receiver to sleep. */

const PAUSE_MS = 1.5;
const SPREAD_MS = 1;
/** Steps of a low-discrepancy sequence: pauses fill the spread evenly, and in step with no timer. */
const GOLDEN = 0.6180339887498949;

/** The pause before packet `index`. */
export const nextPauseMs = (index: number): number => PAUSE_MS + SPREAD_MS * ((index * GOLDEN) % 1);
