/**
 * The segments of one connection that the application has given and the peer has not acknowledged, in order of their
 * sequence numbers: those that were sent, then those that wait. A segment is a record in a ring, not an object, and is
 * named by its position, 0 being the oldest; a position is good until the next acknowledgement or split.
 *
 *      una                          nxt                    end
 *       │ sent: in flight, sacked    │ never sent           │
 *       │ or lost                    │                      │
 *       0 ────────────────────────── unsent ─────────────── count
 *
 * - Each byte sent is in exactly one of `inFlight`, `sacked` and `lost`: a lost segment is in flight again once it is
 *   retransmitted. SYN and FIN count as a byte.
 * - The queue has one reference to each segment's frame, and gives it up when the segment is acknowledged.
 * - The frame of a segment may be written (headers) while `isShared` is false; its payload never, but for `growTail`.
 */
import { assert } from '../../base/assert.ts';
import type { FrameMemory } from '../../memory/frame-memory.ts';
import type { SegmentStore } from './segment-store.ts';

/** What the queue needs of the device's queue. */
export interface SendFrames {
  readonly memory: FrameMemory;
  alloc(): number;
  free(frame: number): void;
  retain(frame: number): void;
  isShared(frame: number): boolean;
}

/** Bits of a segment's flags. */
export const SEG = {
  sacked: 1,
  /** Thought to be lost and not retransmitted since. */
  lost: 2,
  /** Sent more than once. */
  retransmitted: 4,
  syn: 8,
  fin: 16,
  /** More bytes may be written behind its payload, into its frame (`growTail`), as long as it was not sent. */
  open: 32,
  /** `push`: the application had no more to say after it. For the header's PSH. */
  push: 64,
} as const satisfies Record<string, number>;

/** The frame of a segment that carries no bytes. */
export const NO_SEGMENT_FRAME = -1;

export class SendQueue {
  /** Oldest sequence number that is not acknowledged, first that was never sent, and first that is not queued. Int32. */
  una = 0;
  nxt = 0;
  end = 0;
  /** Bytes (with SYN and FIN) in flight: sent, neither sacked nor thought lost. "Pipe" in RFC 6675. */
  inFlight = 0;
  sacked = 0;
  lost = 0;
  /** Segments in the queue, and the position of the first that was never sent (`count` when there is none). */
  count = 0;
  unsent = 0;

  constructor(frames: SendFrames, store: SegmentStore) {
    assert(frames.memory.frameSize > 0, 'there are frames');
    void store;
  }

  /** The first sequence number to use (that of the SYN). Only while the queue is empty. */
  start(seq: number): void {
    throw new Error(`later ${seq}`);
  }

  /** Bytes that were never sent, and bytes sent and not acknowledged ("FlightSize"). */
  get queued(): number {
    return (this.end - this.nxt) | 0;
  }
  get outstanding(): number {
    return (this.nxt - this.una) | 0;
  }

  /** Queue a SYN, or a FIN (on the last segment when that was not sent yet). Each at most once. */
  appendSyn(): void {}
  appendFin(): void {}
  /**
   * Queue the `length` payload bytes at byte `at` of the region in `frame`. Takes a reference that the caller has.
   * `flags`: SEG.open, SEG.push.
   */
  append(frame: number, at: number, length: number, flags: number): void {
    throw new Error(`later ${frame} ${at} ${length} ${flags}`);
  }
  /** Where the next byte of the tail segment goes while it has room for one (see `tailRoom`). */
  get tailAt(): number {
    return 0;
  }
  /** Bytes that may be added to the tail segment so that it has `payloadMax`; 0 when it was sent or is not open. */
  tailRoom(payloadMax: number): number {
    return payloadMax;
  }
  /** `bytes` more were written at `tailAt`. `flags` are added (SEG.push). */
  growTail(bytes: number, flags: number): void {
    throw new Error(`later ${bytes} ${flags}`);
  }

  /** Of the segment at a position. */
  frame(index: number): number {
    return index;
  }
  /** Byte of the region where its payload starts. */
  at(index: number): number {
    return index;
  }
  /** Payload bytes. */
  length(index: number): number {
    return index;
  }
  seq(index: number): number {
    return index;
  }
  /** Sequence number after it. */
  seqEnd(index: number): number {
    return index;
  }
  flags(index: number): number {
    return index;
  }
  sentUs(index: number): number {
    return index;
  }
  firstSentUs(index: number): number {
    return index;
  }
  sends(index: number): number {
    return index;
  }
  /** True while somebody else (the device) has a reference to its frame: headers must not be written into it. */
  isShared(index: number): boolean {
    return index < 0;
  }

  /** Position of the segment that holds `seq`, for una <= seq < end. */
  find(seq: number): number {
    return seq;
  }

  /** The segment was handed to the device now. It is the first unsent one, or one that was sent before. */
  markSent(index: number, nowUs: number): void {
    throw new Error(`later ${index} ${nowUs}`);
  }
  /** It arrived out of order (SACK). False when that was known. */
  markSacked(index: number): boolean {
    return index < 0;
  }
  /** It is thought lost. Nothing happens to a sacked one, or one that is lost already. */
  markLost(index: number): void {
    throw new Error(`later ${index}`);
  }
  /** It is not lost after all: in flight as before. */
  clearLost(index: number): void {
    throw new Error(`later ${index}`);
  }
  /** The peer may have dropped what it sacked (RFC 2018, section 8). */
  forgetSacks(): void {}

  /** Everything before `seq` arrived, for una <= seq <= nxt: frees it. Returns the segments that left. */
  ackTo(seq: number): number {
    return seq;
  }

  /**
   * Cut the segment so that it has `bytes` of payload; the rest is copied into a new frame, `headroom` bytes into its
   * buffer's free part. False when there is no frame. Positions behind it grow by one.
   */
  split(index: number, bytes: number, headroom: number): boolean {
    return index + bytes + headroom < 0;
  }

  /** Free every frame and forget everything. */
  clear(): void {}
}
