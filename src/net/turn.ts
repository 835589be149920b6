/** A poll loop's body for an interface, with the clock read only where it counts: reading it costs as much as a packet. */
import type { NetInterface } from './interface.ts';

/** Turns between two looks at the clock when nothing comes; a power of two. */
const CLOCK_STRIDE = 32;
const US_PER_MS = 1000;

export interface Turn {
  /** One poll; returns the amount of work. */
  readonly turn: () => number;
  /** Milliseconds until the interface must be polled although no frame came; -1: only frames count. */
  readonly timeoutMs: () => number;
  /** Send now what was queued or written outside of a turn. Returns how many frames the device accepted. */
  readonly flush: () => number;
}

/**
 * What `Vnic.poll` and `pollLoop` need to drive `net`. `nowMs` is a clock that never goes back. `nowUs`, when given, is a
 * finer one (an int32 that wraps), and read for every batch of frames: TCP measures round trips by it. Without it, time
 * passes in steps of up to 32 turns.
 */
export function netTurn(
  net: NetInterface,
  nowMs: () => number,
  nowUs: (() => number) | null = null,
): Turn {
  return nowUs === null ? coarseTurn(net, nowMs) : fineTurn(net, nowMs, nowUs);
}

function coarseTurn(net: NetInterface, nowMs: () => number): Turn {
  let polls = 0;
  let lastMs = nowMs();
  return {
    turn: () => {
      if ((polls++ & (CLOCK_STRIDE - 1)) === 0) lastMs = nowMs();
      return net.poll(lastMs);
    },
    timeoutMs: () => {
      // Asked for before a sleep: whatever time the last turn had is old after it.
      polls = 0;
      return timeoutOf(net, nowMs());
    },
    flush: () => {
      lastMs = nowMs();
      return net.flush(lastMs);
    },
  };
}

/** Milliseconds are counted on from the microseconds: one clock is read where two are wanted. */
function fineTurn(net: NetInterface, nowMs: () => number, nowUs: () => number): Turn {
  let polls = 0;
  let isStale = true;
  let ms = 0;
  let us = 0;
  let usOfMs = 0;
  const look = (): void => {
    const now = nowUs();
    if (isStale) {
      // After a sleep of any length the microseconds may have wrapped.
      isStale = false;
      ms = Math.max(ms, Math.floor(nowMs()));
      usOfMs = 0;
    } else {
      usOfMs += (now - us) | 0;
      ms += Math.floor(usOfMs / US_PER_MS);
      usOfMs %= US_PER_MS;
    }
    us = now;
  };
  return {
    turn: () => {
      const count = net.gather();
      if (count > 0 || (polls & (CLOCK_STRIDE - 1)) === 0) look();
      polls = count > 0 ? 1 : polls + 1;
      return net.poll(ms, us);
    },
    timeoutMs: () => {
      polls = 0;
      isStale = true;
      return timeoutOf(net, nowMs());
    },
    flush: () => {
      look();
      return net.flush(ms, us);
    },
  };
}

function timeoutOf(net: NetInterface, nowMs: number): number {
  const dueMs = net.nextTimerMs;
  return dueMs === Number.POSITIVE_INFINITY ? -1 : Math.max(0, Math.ceil(dueMs - nowMs));
}
