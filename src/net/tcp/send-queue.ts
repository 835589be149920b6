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
import { type FrameMemory, NO_FRAME } from '../../memory/frame-memory.ts';
import { SEGMENT as S, SEGMENT_WORDS, type SegmentStore } from './segment-store.ts';
import { isBefore } from './seq.ts';

/** What the queue needs of the device's queue. */
export interface SendFrames {
  readonly memory: FrameMemory;
  alloc(): number;
  free(frame: number): void;
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

const SYN_BIT = 3;
const FIN_BIT = 4;

/** The frame of a segment that carries no bytes. */
export const NO_SEGMENT_FRAME = -1;

export class SendQueue {
  /** Oldest sequence number that is not acknowledged, first that was never sent, and first that is not queued. Int32. */
  una = 0;
  nxt = 0;
  end = 0;
  /** Bytes (with SYN and FIN) in flight: sent, neither sacked nor thought lost. */
  inFlight = 0;
  sacked = 0;
  lost = 0;
  sackedSegments = 0;
  /** Segments in the queue, and the position of the first that was never sent (`count` when there is none). */
  count = 0;
  unsent = 0;
  readonly #frames: SendFrames;
  readonly #store: SegmentStore;
  #ring: Int32Array;
  /** Record of position 0. */
  #head = 0;
  #mask = -1;
  /** Segments that the last ring had room for, while there is none: half of it is asked for again. */
  #lastCapacity = 0;
  /** No lost segment is before this. */
  #lostFloor = 0;

  constructor(frames: SendFrames, store: SegmentStore) {
    this.#frames = frames;
    this.#store = store;
    this.#ring = store.none;
  }

  /** The first sequence number to use (that of the SYN). Only while the queue is empty. */
  start(seq: number): void {
    assert(this.count === 0, 'a sequence starts with an empty queue');
    this.una = this.nxt = this.end = this.#lostFloor = seq | 0;
  }

  /** Bytes that were never sent. */
  get queued(): number {
    return (this.end - this.nxt) | 0;
  }

  /** Bytes sent and not acknowledged: FlightSize in RFC 5681. */
  get outstanding(): number {
    return (this.nxt - this.una) | 0;
  }

  /** Queue a SYN. Before anything else. */
  appendSyn(): void {
    assert(this.count === 0, 'a SYN comes first');
    this.#push(NO_SEGMENT_FRAME, 0, 0, SEG.syn);
  }

  /** Queue a FIN, on the last segment when that was not sent yet. Nothing comes after it. */
  appendFin(): void {
    const tail = this.count - 1;
    if (tail < this.unsent || this.flags(tail) & SEG.syn) {
      this.#push(NO_SEGMENT_FRAME, 0, 0, SEG.fin);
      return;
    }
    const o = this.#offset(tail);
    assert((this.#ring[o + S.flags]! & SEG.fin) === 0, 'one FIN');
    this.#ring[o + S.flags] = (this.#ring[o + S.flags]! & ~SEG.open) | SEG.fin;
    this.end = (this.end + 1) | 0;
  }

  /**
   * Queue the `length` payload bytes at byte `at` of the region in `frame`. Takes a reference that the caller has.
   * `flags`: SEG.open, SEG.push.
   */
  append(frame: number, at: number, length: number, flags: number): void {
    assert(length > 0, 'a segment has bytes');
    assert(this.count === 0 || (this.flags(this.count - 1) & SEG.fin) === 0, 'nothing after FIN');
    this.#push(frame, at, length, flags & (SEG.open | SEG.push));
  }

  /** Byte of the region where the next byte of the tail segment goes, while `tailRoom` is not 0. */
  get tailAt(): number {
    const o = this.#offset(this.count - 1);
    return this.#ring[o + S.at]! + this.#ring[o + S.length]!;
  }

  /** Bytes that may be added to the tail segment so that it has `payloadMax`; 0 when it was sent or is not open. */
  tailRoom(payloadMax: number): number {
    const tail = this.count - 1;
    if (tail < this.unsent || (this.flags(tail) & SEG.open) === 0) return 0;
    const { frameSize } = this.#frames.memory;
    const at = this.at(tail);
    const length = this.length(tail);
    const room = frameSize - (at & (frameSize - 1)) - length;
    return Math.max(0, Math.min(payloadMax - length, room));
  }

  /** `bytes` more were written at `tailAt`. `flags` are added (SEG.push). */
  growTail(bytes: number, flags: number): void {
    const o = this.#offset(this.count - 1);
    assert((this.#ring[o + S.flags]! & SEG.open) !== 0, 'the tail takes more');
    this.#ring[o + S.length]! += bytes;
    this.#ring[o + S.flags]! |= flags & SEG.push;
    this.end = (this.end + bytes) | 0;
  }

  /** Of the segment at a position: its frame, or NO_SEGMENT_FRAME. */
  frame(index: number): number {
    return this.#ring[this.#offset(index) + S.frame]!;
  }
  /** Byte of the region where its payload starts. */
  at(index: number): number {
    return this.#ring[this.#offset(index) + S.at]!;
  }
  /** Payload bytes. */
  length(index: number): number {
    return this.#ring[this.#offset(index) + S.length]!;
  }
  seq(index: number): number {
    return this.#ring[this.#offset(index) + S.seq]!;
  }
  /** Bytes of sequence space: with SYN and FIN. */
  seqLength(index: number): number {
    return this.#seqLength(this.#offset(index));
  }
  /** Sequence number after it. */
  seqEnd(index: number): number {
    const o = this.#offset(index);
    return (this.#ring[o + S.seq]! + this.#seqLength(o)) | 0;
  }
  flags(index: number): number {
    return this.#ring[this.#offset(index) + S.flags]!;
  }
  sentUs(index: number): number {
    return this.#ring[this.#offset(index) + S.sentUs]!;
  }
  firstSentUs(index: number): number {
    return this.#ring[this.#offset(index) + S.firstSentUs]!;
  }
  sends(index: number): number {
    return this.#ring[this.#offset(index) + S.sends]!;
  }
  /** True while somebody else (the device) has a reference to its frame: headers must not be written into it. */
  isShared(index: number): boolean {
    const frame = this.frame(index);
    return frame !== NO_SEGMENT_FRAME && this.#frames.isShared(frame);
  }

  /** Position of the segment that holds `seq`; `count` when it is `end`. For una <= seq <= end. */
  find(seq: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (isBefore(seq, this.seqEnd(middle))) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** The segment is handed to the device now. It is the first unsent one, or one that was sent before. */
  markSent(index: number, nowUs: number): void {
    assert(index <= this.unsent && index < this.count, 'segments are sent in order');
    const o = this.#offset(index);
    const ring = this.#ring;
    const bytes = this.#seqLength(o);
    if (index === this.unsent) {
      this.unsent++;
      this.nxt = (this.nxt + bytes) | 0;
      this.inFlight += bytes;
      ring[o + S.flags]! &= ~SEG.open;
      ring[o + S.firstSentUs] = nowUs;
    } else {
      const flags = ring[o + S.flags]!;
      if (flags & SEG.lost) {
        this.lost -= bytes;
        this.inFlight += bytes;
      }
      ring[o + S.flags] = (flags & ~SEG.lost) | SEG.retransmitted;
    }
    ring[o + S.sentUs] = nowUs;
    ring[o + S.sends]!++;
  }

  /** It arrived out of order. False when that was known. */
  markSacked(index: number): boolean {
    const o = this.#offset(index);
    const flags = this.#ring[o + S.flags]!;
    assert(index < this.unsent, 'what arrived was sent');
    if (flags & SEG.sacked) return false;
    const bytes = this.#seqLength(o);
    if (flags & SEG.lost) this.lost -= bytes;
    else this.inFlight -= bytes;
    this.sacked += bytes;
    this.sackedSegments++;
    this.#ring[o + S.flags] = (flags & ~SEG.lost) | SEG.sacked;
    return true;
  }

  /** It is thought lost. False for a sacked one, or when that was known. */
  markLost(index: number): boolean {
    const o = this.#offset(index);
    const flags = this.#ring[o + S.flags]!;
    assert(index < this.unsent, 'what is lost was sent');
    if (flags & (SEG.sacked | SEG.lost)) return false;
    const bytes = this.#seqLength(o);
    this.inFlight -= bytes;
    this.lost += bytes;
    this.#ring[o + S.flags] = flags | SEG.lost;
    const seq = this.#ring[o + S.seq]!;
    if (isBefore(seq, this.#lostFloor)) this.#lostFloor = seq;
    return true;
  }

  /** Position of the oldest segment that is lost and not retransmitted since, or -1. */
  firstLost(): number {
    if (this.lost === 0) return -1;
    let i = isBefore(this.una, this.#lostFloor) ? this.find(this.#lostFloor) : 0;
    while ((this.flags(i) & SEG.lost) === 0) i++;
    this.#lostFloor = this.seq(i);
    return i;
  }

  /** Nothing was lost after all: what counts as lost is in flight again. */
  forgetLosses(): void {
    this.#clearFlag(SEG.lost);
    this.inFlight += this.lost;
    this.lost = 0;
  }

  /** The peer dropped what it had sacked (RFC 2018, section 8): that is in flight again. */
  forgetSacks(): void {
    this.#clearFlag(SEG.sacked);
    this.inFlight += this.sacked;
    this.sacked = this.sackedSegments = 0;
  }

  /** Everything before `seq` arrived, for una <= seq <= nxt: free it. Returns how many segments left. */
  ackTo(seq: number): number {
    assert(!isBefore(this.nxt, seq) && !isBefore(seq, this.una), 'an ack is within what was sent');
    let left = 0;
    while (left < this.unsent && !isBefore(seq, this.seqEnd(left))) {
      this.#leave(this.#offset(left), this.seqLength(left));
      this.#freeFrame(this.#offset(left));
      left++;
    }
    this.count -= left;
    this.unsent -= left;
    this.#head = (this.#head + left) & this.#mask;
    if (this.unsent > 0 && isBefore(this.seq(0), seq)) this.#trim(seq);
    this.una = seq;
    if (this.lost === 0) this.#lostFloor = this.nxt;
    if (this.count === 0) this.#dropRing();
    return left;
  }

  /**
   * Cut the segment so that it has `bytes` of payload; the rest is copied into a new frame, `payloadOffset` bytes after
   * the frame's start. False when there is no frame, or no room in one. Positions behind it grow by one.
   */
  split(index: number, bytes: number, payloadOffset: number): boolean {
    const rest = this.length(index) - bytes;
    assert(bytes > 0 && rest > 0, 'both parts have bytes');
    const { memory } = this.#frames;
    const frame = this.#frames.alloc();
    if (frame === NO_FRAME) return false;
    const at = frame + payloadOffset;
    if ((at & (memory.frameSize - 1)) + rest > memory.frameSize) {
      this.#frames.free(frame);
      return false;
    }
    const from = this.at(index) + bytes;
    memory.u8.copyWithin(at, from, from + rest);
    this.#insertAfter(index);
    const o = this.#offset(index);
    const n = this.#offset(index + 1);
    const ring = this.#ring;
    for (let word = 0; word < SEGMENT_WORDS; word++) ring[n + word] = ring[o + word]!;
    ring[o + S.length] = bytes;
    ring[o + S.flags]! &= ~(SEG.fin | SEG.push | SEG.open);
    ring[n + S.frame] = frame;
    ring[n + S.at] = at;
    ring[n + S.length] = rest;
    ring[n + S.seq] = (ring[n + S.seq]! + bytes) | 0;
    if (ring[n + S.flags]! & SEG.sacked) this.sackedSegments++;
    return true;
  }

  /** Free every frame and forget everything. */
  clear(): void {
    for (let i = 0; i < this.count; i++) this.#freeFrame(this.#offset(i));
    this.count = this.unsent = 0;
    this.inFlight = this.sacked = this.lost = this.sackedSegments = 0;
    this.una = this.nxt = this.end;
    this.#dropRing();
  }

  #offset(index: number): number {
    return ((this.#head + index) & this.#mask) * SEGMENT_WORDS;
  }

  #seqLength(o: number): number {
    const flags = this.#ring[o + S.flags]!;
    return this.#ring[o + S.length]! + ((flags >> SYN_BIT) & 1) + ((flags >> FIN_BIT) & 1);
  }

  #push(frame: number, at: number, length: number, flags: number): void {
    if (this.count > this.#mask) this.#grow();
    const o = this.#offset(this.count++);
    const ring = this.#ring;
    ring[o + S.frame] = frame;
    ring[o + S.at] = at;
    ring[o + S.length] = length;
    ring[o + S.seq] = this.end;
    ring[o + S.flags] = flags;
    ring[o + S.sends] = 0;
    this.end = (this.end + this.#seqLength(o)) | 0;
  }

  /** `bytes` of a segment are acknowledged: they leave the counter that has them. */
  #leave(o: number, bytes: number): void {
    const flags = this.#ring[o + S.flags]!;
    if (flags & SEG.sacked) this.sacked -= bytes;
    else if (flags & SEG.lost) this.lost -= bytes;
    else this.inFlight -= bytes;
    if (flags & SEG.sacked && bytes === this.#seqLength(o)) this.sackedSegments--;
  }

  /** The first part of the oldest segment was acknowledged. A SYN or FIN has no parts. */
  #trim(seq: number): void {
    const o = this.#offset(0);
    const ring = this.#ring;
    const bytes = (seq - ring[o + S.seq]!) | 0;
    assert(bytes > 0 && bytes <= ring[o + S.length]!, 'a part of a segment is of its payload');
    this.#leave(o, bytes);
    ring[o + S.at]! += bytes;
    ring[o + S.length]! -= bytes;
    ring[o + S.seq] = seq;
    if (ring[o + S.length] === 0) this.#freeFrame(o);
  }

  #freeFrame(o: number): void {
    const frame = this.#ring[o + S.frame]!;
    if (frame === NO_SEGMENT_FRAME) return;
    this.#frames.free(frame);
    this.#ring[o + S.frame] = NO_SEGMENT_FRAME;
  }

  #clearFlag(flag: number): void {
    for (let i = 0; i < this.unsent; i++) this.#ring[this.#offset(i) + S.flags]! &= ~flag;
  }

  /** Make room for a record at `index + 1`, by moving the shorter side. */
  #insertAfter(index: number): void {
    if (this.count > this.#mask) this.#grow();
    if (index < this.count >> 1) {
      this.#head = (this.#head - 1) & this.#mask;
      for (let i = 0; i <= index; i++) this.#move(i + 1, i);
    } else {
      for (let i = this.count; i > index + 1; i--) this.#move(i - 1, i);
    }
    this.count++;
    if (index < this.unsent) this.unsent++;
  }

  #move(from: number, to: number): void {
    const start = this.#offset(from);
    this.#ring.copyWithin(this.#offset(to), start, start + SEGMENT_WORDS);
  }

  #grow(): void {
    const old = this.#ring;
    const wider = this.#store.take(Math.max(this.count + 1, this.#lastCapacity >> 1));
    this.#lastCapacity = 0;
    for (let i = 0; i < this.count; i++) {
      const o = this.#offset(i);
      for (let word = 0; word < SEGMENT_WORDS; word++) {
        wider[i * SEGMENT_WORDS + word] = old[o + word]!;
      }
    }
    this.#store.give(old);
    this.#ring = wider;
    this.#head = 0;
    this.#mask = wider.length / SEGMENT_WORDS - 1;
  }

  #dropRing(): void {
    this.#lastCapacity = this.#mask + 1;
    this.#store.give(this.#ring);
    this.#ring = this.#store.none;
    this.#head = 0;
    this.#mask = -1;
  }
}
