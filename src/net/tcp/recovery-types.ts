/** What `recovery.ts` and its users share: names for phases and timers, counters, and what a stack gives its connections. */
import type { RtoLimits } from './rtt.ts';
import type { SackReader } from './sack.ts';
import type { SegmentStore } from './segment-store.ts';
import type { SendFrames } from './send-queue.ts';

/** Why `onTimer` had something to do. */
export const TIMER = {
  /** Nothing was due (or only pacing). */
  none: 0,
  /** The retransmission timeout: `timeouts` has risen. The connection decides whether to give up. */
  rto: 1,
  /** A tail loss probe may be sent, whatever the window (RFC 8985, section 7). */
  probe: 2,
  /** Reordering was waited for long enough, and something counts as lost. */
  reorder: 3,
} as const satisfies Record<string, number>;
export type Timer = (typeof TIMER)[keyof typeof TIMER];

/** Counted over all connections of a stack. */
export interface RecoveryCounters {
  retransmits: number;
  timeouts: number;
  probes: number;
  recoveries: number;
  /** Recoveries or timeouts that turned out unfounded, and were undone. */
  undone: number;
  dsacks: number;
  /** SACK blocks that were refused: beyond what was sent, empty, or far behind. */
  badSacks: number;
  /** Peers that took back what they had sacked. */
  reneged: number;
}

/** What the connections of a stack share. */
export interface RecoveryShared {
  readonly frames: SendFrames;
  readonly store: SegmentStore;
  readonly sacks: SackReader;
  readonly limits: RtoLimits;
  readonly counters: RecoveryCounters;
  /** Where a segment's payload starts in a new frame when one is split: TCP_PAYLOAD_OFFSET. */
  readonly payloadOffset: number;
  /** Length of a tick of the timestamps that we send. */
  readonly timestampTickUs: number;
}

/** What the sender is about. */
export const PHASE = {
  open: 0,
  /** Something was found lost (RFC 6675, 6582): the window is PRR's. */
  recovery: 1,
  /** The retransmission timer has expired: slow start from one segment. */
  loss: 2,
} as const satisfies Record<string, number>;
export type Phase = (typeof PHASE)[keyof typeof PHASE];

export function newRecoveryCounters(): RecoveryCounters {
  return {
    retransmits: 0,
    timeouts: 0,
    probes: 0,
    recoveries: 0,
    undone: 0,
    dsacks: 0,
    badSacks: 0,
    reneged: 0,
  };
}
