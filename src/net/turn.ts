/** A poll loop's body for an interface, with the clock read seldom: reading it costs as much as handling a packet. */
import type { NetInterface } from './interface.ts';

/** Turns between two looks at the clock; a power of two. */
const CLOCK_STRIDE = 32;

export interface Turn {
  /** One poll; returns the amount of work. */
  readonly turn: () => number;
  /** Milliseconds until the interface must be polled although no frame came; -1: only frames count. */
  readonly timeoutMs: () => number;
}

/**
 * What `Vnic.poll` and `pollLoop` need to drive `net`. `nowMs` is a clock that never goes back; between two looks at it
 * the interface's time stands still, which its timers of a second do not notice.
 */
export function netTurn(net: NetInterface, nowMs: () => number): Turn {
  let polls = 0;
  let lastMs = nowMs();
  return {
    turn: () => {
      if ((polls++ & (CLOCK_STRIDE - 1)) === 0) lastMs = nowMs();
      return net.poll(lastMs);
    },
    timeoutMs: () => {
      const dueMs = net.nextTimerMs;
      // Asked for before a sleep: whatever time the last turn had is old after it.
      polls = 0;
      return dueMs === Number.POSITIVE_INFINITY ? -1 : Math.max(0, Math.ceil(dueMs - nowMs()));
    },
  };
}
