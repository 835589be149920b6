/**
 * The sender's half of one connection: what may be sent now, what was lost, when to look again. Pure logic: it owns the
 * send queue, the estimate of the round trip, the congestion window and the timers, and never sends itself.
 *
 * The connection's part, each time it may send (after an acknowledgement, a timer, new data):
 *
 *     while ((i = recovery.nextToRetransmit(now)) >= 0 || (i = recovery.nextToSend(now, windowEnd)) >= 0) {
 *       if (it is a short unsent segment that Nagle holds back) break;
 *       write the header before queue.at(i), retain the frame, transmit it; on failure break;
 *       recovery.onSent(i, now);
 *     }
 *
 * and then it arms its timer for `recovery.deadlineUs` while `recovery.isArmed`. Times are wrapping int32 microseconds.
 */
import type { AckScratch } from './ack.ts';
import type { CongestionControl } from './congestion.ts';
import { type RtoLimits, RttEstimator } from './rtt.ts';
import type { SegmentStore } from './segment-store.ts';
import { type SendFrames, SendQueue } from './send-queue.ts';

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
  readonly limits: RtoLimits;
  readonly counters: RecoveryCounters;
  /** Where a segment's payload starts in a new frame when one is split: TCP_PAYLOAD_OFFSET. */
  readonly payloadOffset: number;
  /** Length of a tick of the timestamps that we send. */
  readonly timestampTickUs: number;
}

export class Recovery {
  readonly queue: SendQueue;
  readonly rtt = new RttEstimator();
  readonly congestion: CongestionControl;
  /** Payload bytes of a full segment, options taken off. Set by `open` and `setMss`. */
  mss = 536;
  /** Retransmissions of this connection. */
  retransmits = 0;
  /** Retransmission timeouts since the last progress. */
  timeouts = 0;
  /** Send no faster than this; 0: no limit. */
  pacingBytesPerSecond = 0;
  /** A deadline is set: call `onTimer` then. */
  isArmed = false;
  deadlineUs = 0;

  constructor(shared: RecoveryShared, congestion: CongestionControl) {
    this.queue = new SendQueue(shared.frames, shared.store);
    this.congestion = congestion;
  }

  /** Before the SYN: its sequence number. */
  start(iss: number): void {
    this.queue.start(iss);
  }

  /** The handshake is done: what the peer can (RFC 2018), and the segment size. Sets the initial window. */
  open(mss: number, hasSack: boolean, nowUs: number): void {
    throw new Error(`later ${mss} ${hasSack} ${nowUs}`);
  }

  /** The path takes only (or again) `mss` bytes: what is larger is split, and sent again when it is under way (RFC 1191, 8201). */
  setMss(mss: number, nowUs: number): void {
    throw new Error(`later ${mss} ${nowUs}`);
  }

  /** Bytes that the congestion window has room for now. */
  get room(): number {
    return 0;
  }

  /** Position of the lost segment (or the probe) that is to go out now, already cut to `mss`; -1: none, or not now. */
  nextToRetransmit(nowUs: number): number {
    return nowUs;
  }

  /**
   * Position of the first unsent segment when congestion window, pacing and the peer's window (first sequence number
   * beyond it) let it go as a whole; -1 otherwise. A SYN goes whatever the windows.
   */
  nextToSend(nowUs: number, windowEnd: number): number {
    return nowUs + windowEnd;
  }

  /** True when only pacing holds back what `nextToSend` would give: then come again at `nextSendUs`. */
  get isPaced(): boolean {
    return false;
  }
  get nextSendUs(): number {
    return 0;
  }

  /** The device took the segment at `index`. */
  onSent(index: number, nowUs: number): void {
    throw new Error(`later ${index} ${nowUs}`);
  }

  /**
   * An acknowledgement that passed the checks of RFC 9293, section 3.10.7.4, as the parser found it. Returns the bytes
   * (with SYN and FIN) newly acknowledged: 0 for a duplicate or an old one, -1 when it acknowledges what was never sent.
   * Frees what is acknowledged. Send afterwards.
   */
  onAck(ack: AckScratch, nowUs: number): number {
    return ack.seq + nowUs;
  }

  /** The deadline has come (or not: then nothing happens). Send afterwards. */
  onTimer(nowUs: number): Timer {
    return nowUs === 0 ? TIMER.none : TIMER.rto;
  }

  /** Free everything. The connection is over. */
  close(): void {
    this.queue.clear();
  }
}
