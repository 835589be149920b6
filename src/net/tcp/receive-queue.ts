/**
 * Received bytes that cannot be handed over yet: the owner has paused, or something before them is missing. A record is a
 * piece of a frame where the card put it; records are in order of sequence numbers and do not overlap.
 *
 *   rcvNxt
 *     │  in order, paused   │ gap │  out of order  │ gap │ ...
 *
 * - A small piece that continues the last one is copied behind it into its frame: tiny segments cannot eat the pool.
 * - The frames of all queues of an interface together are bounded (`HeldFrames`); what finds no room is dropped, counted,
 *   and sent again by the peer.
 */
import { assert } from '../../base/assert.ts';
import type { NicQueue } from '../../device/nic.ts';
import type { SegmentStore } from './segment-store.ts';
import { seqDiff, seqLessThan, seqMax } from './seq.ts';

/** Words of a record. */
const STRIDE = 4;
const SEQ = 0;
const LENGTH = 1;
const FRAME = 2;
const AT = 3;
/** A record of the store is as long as two of ours. */
const RECORDS_PER_SEGMENT = 2;

/** Pieces up to this many bytes are copied when they fit behind the one before. */
const COALESCE_MAX = 1024;

/** As many as there may be SACK blocks. */
const RECENT_MAX = 4;

/** What `insert` did with a piece. */
export const INSERT = {
  /** The frame is kept. */
  kept: 0,
  /** Its bytes were copied: the frame is the caller's. */
  copied: 1,
  /** All of it was there already. */
  duplicate: 2,
  /** No room: too many pieces here, or too many frames in all. */
  full: 3,
} as const satisfies Record<string, number>;
export type Insert = (typeof INSERT)[keyof typeof INSERT];

/** Frames that receive queues and owners of connections keep, over a whole interface. */
export class HeldFrames {
  readonly queue: NicQueue;
  readonly store: SegmentStore;
  readonly max: number;
  /** Records of one connection. */
  readonly piecesMax: number;
  count = 0;

  constructor(queue: NicQueue, store: SegmentStore, max: number, piecesMax: number) {
    this.queue = queue;
    this.store = store;
    this.max = max;
    this.piecesMax = piecesMax;
  }
}

export class ReceiveQueue {
  readonly #held: HeldFrames;
  #records: Int32Array;
  #first = 0;
  /** Records. */
  count = 0;
  /** Bytes in all records. */
  bytes = 0;
  /** Sequence numbers that came out of order last, the newest first: the order of SACK blocks. */
  readonly recent = new Int32Array(RECENT_MAX);
  recentCount = 0;

  constructor(held: HeldFrames) {
    this.#held = held;
    this.#records = held.store.none;
  }

  seq(index: number): number {
    return this.#records[(this.#first + index) * STRIDE + SEQ]!;
  }
  length(index: number): number {
    return this.#records[(this.#first + index) * STRIDE + LENGTH]!;
  }
  frame(index: number): number {
    return this.#records[(this.#first + index) * STRIDE + FRAME]!;
  }
  at(index: number): number {
    return this.#records[(this.#first + index) * STRIDE + AT]!;
  }
  seqEnd(index: number): number {
    return (this.seq(index) + this.length(index)) | 0;
  }

  /** A piece that starts with `seq` came out of order. */
  noteRecent(seq: number): void {
    this.recentCount = Math.min(this.recentCount + 1, RECENT_MAX);
    for (let i = this.recentCount - 1; i > 0; i--) this.recent[i] = this.recent[i - 1]!;
    this.recent[0] = seq;
  }

  /** Where the bytes end that follow on from `from` without a gap. */
  contiguousEnd(from: number): number {
    let end = from;
    for (let i = 0; i < this.count && seqDiff(this.seq(i), end) <= 0; i++) end = this.seqEnd(i);
    return end;
  }

  /** Keep the `length` bytes at `at` of `frame`, which start with `seq`. Takes the frame when it returns `kept`. */
  insert(seq: number, at: number, length: number, frame: number): Insert {
    let i = this.count;
    while (i > 0 && seqLessThan(seq, this.seq(i - 1))) i--;
    // Records before `i` start at or before `seq`; what they have already is cut off.
    let from = seq;
    let bytes = length;
    if (i > 0) {
      from = seqMax(seq, this.seqEnd(i - 1));
      bytes -= seqDiff(from, seq);
      if (bytes <= 0) return INSERT.duplicate;
    }
    const end = (from + bytes) | 0;
    // Records that it covers whole go; one that it reaches into keeps what it has.
    let covered = i;
    while (covered < this.count && seqDiff(this.seqEnd(covered), end) <= 0) covered++;
    if (covered < this.count && seqLessThan(this.seq(covered), end)) {
      bytes = seqDiff(this.seq(covered), from);
      if (bytes <= 0) return INSERT.duplicate;
    }
    this.#drop(i, covered - i);
    const start = at + seqDiff(from, seq);
    if (this.#appendTo(i - 1, from, start, bytes)) return INSERT.copied;
    const held = this.#held;
    if (held.count >= held.max || this.count >= held.piecesMax) return INSERT.full;
    this.#open(i);
    const record = (this.#first + i) * STRIDE;
    this.#records[record + SEQ] = from;
    this.#records[record + LENGTH] = bytes;
    this.#records[record + FRAME] = frame;
    this.#records[record + AT] = start;
    this.bytes += bytes;
    held.count++;
    return INSERT.kept;
  }

  /** Take off the first record, whose frame is the caller's from now on. It no longer counts as held. */
  shift(): void {
    assert(this.count > 0, 'a queue that is shifted has a record');
    this.bytes -= this.length(0);
    this.#first++;
    this.#held.count--;
    if (--this.count === 0) this.#release();
  }

  /** Give all frames back. */
  clear(): void {
    this.#drop(0, this.count);
    this.#release();
  }

  /** Copy a small piece behind record `index`, if it continues it and its frame has the room. */
  #appendTo(index: number, seq: number, at: number, bytes: number): boolean {
    if (index < 0 || bytes > COALESCE_MAX || this.seqEnd(index) !== seq) return false;
    const { memory } = this.#held.queue;
    const frame = this.frame(index);
    const to = this.at(index) + this.length(index);
    const bufferEnd = (frame & ~(memory.frameSize - 1)) + memory.frameSize;
    if (to + bytes > bufferEnd || this.#held.queue.isShared(frame)) return false;
    memory.u8.copyWithin(to, at, at + bytes);
    this.#records[(this.#first + index) * STRIDE + LENGTH]! += bytes;
    this.bytes += bytes;
    return true;
  }

  /** Give back the frames of `count` records from `index` on, and close the gap. */
  #drop(index: number, count: number): void {
    if (count === 0) return;
    for (let i = index; i < index + count; i++) {
      this.bytes -= this.length(i);
      this.#held.queue.free(this.frame(i));
    }
    const to = (this.#first + index) * STRIDE;
    const end = (this.#first + this.count) * STRIDE;
    this.#records.copyWithin(to, to + count * STRIDE, end);
    this.count -= count;
    this.#held.count -= count;
  }

  /** Make room for a record at `index`. */
  #open(index: number): void {
    const end = this.#first + this.count;
    if ((end + 1) * STRIDE > this.#records.length) this.#makeRoom();
    const at = (this.#first + index) * STRIDE;
    this.#records.copyWithin(at + STRIDE, at, (this.#first + this.count) * STRIDE);
    this.count++;
  }

  /** Move to the front, or to twice the room when that brings little. */
  #makeRoom(): void {
    const old = this.#records;
    const from = this.#first * STRIDE;
    const words = this.count * STRIDE;
    this.#first = 0;
    if (from >= old.length / 2 && from > 0) {
      old.copyWithin(0, from, from + words);
      return;
    }
    const { store } = this.#held;
    this.#records = store.take(Math.ceil((this.count + 1) / RECORDS_PER_SEGMENT) * 2);
    for (let i = 0; i < words; i++) this.#records[i] = old[from + i]!;
    store.give(old);
  }

  #release(): void {
    this.#held.store.give(this.#records);
    this.#records = this.#held.store.none;
    this.#first = 0;
  }
}
