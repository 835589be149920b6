/**
 * A network device with a long and slow link: what is sent passes a queue that drains at a fixed rate, then is on its way
 * for a fixed time and a random one. The clock and the random numbers are arguments, so that a simulation can run it.
 *
 *   txBatch ─ copy ─► queue (bytes per second, queueBytesMax) ─► on its way (delayMs + jitterMs) ─► the wrapped queue
 *
 * - Only the sending direction is delayed; received frames are the wrapped queue's. Wrap both ends for both ways.
 * - A frame is copied when it is accepted, and its buffer goes back to the pool at once.
 * - What is due goes on at the next call of any kind; `nextDueMs` says when one is needed although nothing else happens.
 * - A frame that finds the queue full is lost, as in a router. What is due needs a buffer of the pool for a moment: it is
 *   lost, too, when the pool is empty, unless some buffers are the link's own (`ownFrames`).
 */
import { assert } from '../base/assert.ts';
import { NIC_STATE, type NicQueue, NO_FRAME } from './nic.ts';
import { isSendable } from './sendable.ts';
import { WrappedNic } from './wrapped-nic.ts';

export interface DelayOptions {
  /** Never goes back. */
  readonly nowMs: () => number;
  /** One way. */
  readonly delayMs: number;
  /** Added to it, uniformly from 0 to this. Needs `random`. Default 0. */
  readonly jitterMs?: number;
  /** Uniform in [0, 1). */
  readonly random?: () => number;
  /** Default false: jitter makes frames late, and those behind them. True: they overtake each other. */
  readonly reorder?: boolean;
  /** Default: no limit. */
  readonly bytesPerSecond?: number;
  /** Bytes that wait for the rate. Default: no limit but `framesMax`. */
  readonly queueBytesMax?: number;
  /** Frames on their way at once. Default 1,024. */
  readonly framesMax?: number;
  /** Buffers that the link takes from the pool for itself and keeps: a sender that uses up the pool is still heard. */
  readonly ownFrames?: number;
}

export interface DelayCounters {
  /** Accepted, and since then handed to the wrapped queue or lost. */
  accepted: number;
  delivered: number;
  /** Lost because the queue was full, because too many were on their way, because no buffer was free. */
  queueFull: number;
  linkFull: number;
  noFrame: number;
}

const MS_PER_S = 1000;
/** Sent frames that are looked for when no buffer is at hand. */
const RECLAIM_MAX = 64;

/** Frames on their way, by when they are due and among equals by when they came: a binary heap of slots. */
class DueHeap {
  count = 0;
  readonly dueMs: Float64Array;
  readonly #order: Float64Array;
  readonly #heap: Uint32Array;

  constructor(size: number) {
    this.dueMs = new Float64Array(size);
    this.#order = new Float64Array(size);
    this.#heap = new Uint32Array(size);
  }

  get first(): number {
    return this.#heap[0]!;
  }

  push(slot: number, dueMs: number, order: number): void {
    this.dueMs[slot] = dueMs;
    this.#order[slot] = order;
    let at = this.count++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#isBefore(slot, this.#heap[parent]!)) break;
      this.#heap[at] = this.#heap[parent]!;
      at = parent;
    }
    this.#heap[at] = slot;
  }

  shift(): number {
    assert(this.count > 0, 'shift from a heap with entries');
    const first = this.#heap[0]!;
    const moved = this.#heap[--this.count]!;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.count) break;
      const right = child + 1;
      if (right < this.count && this.#isBefore(this.#heap[right]!, this.#heap[child]!))
        child = right;
      if (!this.#isBefore(this.#heap[child]!, moved)) break;
      this.#heap[at] = this.#heap[child]!;
      at = child;
    }
    this.#heap[at] = moved;
    return first;
  }

  #isBefore(a: number, b: number): boolean {
    const difference = this.dueMs[a]! - this.dueMs[b]!;
    return difference < 0 || (difference === 0 && this.#order[a]! < this.#order[b]!);
  }
}

export class DelayQueue extends WrappedNic {
  readonly delays: DelayCounters = {
    accepted: 0,
    delivered: 0,
    queueFull: 0,
    linkFull: 0,
    noFrame: 0,
  };
  readonly #options: DelayOptions;
  readonly #slotBytes: number;
  readonly #bytes: Uint8Array;
  readonly #lengths: Uint16Array;
  readonly #freeSlots: Uint32Array;
  #freeCount: number;
  readonly #heap: DueHeap;
  /** When the last frame that was accepted leaves the queue, and when it arrives. */
  #departMs = Number.NEGATIVE_INFINITY;
  #arriveMs = Number.NEGATIVE_INFINITY;
  /** Accepted frames that the next reclaim tells of. They are in the pool already: what is on its way is a copy. */
  #done = 0;
  /** Frames that the wrapped queue will give back although the caller never sent them. */
  #extra = 0;
  readonly #own: readonly number[];
  #ownNext = 0;
  readonly #one = { frame: new Uint32Array(1), length: new Uint16Array(1) };

  /** Owns `inner`. */
  constructor(inner: NicQueue, options: DelayOptions) {
    super(inner, 'delay');
    const framesMax = options.framesMax ?? 1024;
    this.#options = options;
    this.#slotBytes = inner.frameLengthMax;
    this.#bytes = new Uint8Array(framesMax * this.#slotBytes);
    this.#lengths = new Uint16Array(framesMax);
    this.#freeSlots = Uint32Array.from({ length: framesMax }, (_, i) => framesMax - 1 - i);
    this.#freeCount = framesMax;
    this.#heap = new DueHeap(framesMax);
    this.#own = Array.from({ length: options.ownFrames ?? 0 }, () => inner.alloc());
    assert(!this.#own.includes(NO_FRAME), 'the pool has frames for the link');
  }

  /** When something must be called so that the next frame goes on; Infinity when none is on its way. */
  get nextDueMs(): number {
    return this.#heap.count === 0 ? Number.POSITIVE_INFINITY : this.#heap.dueMs[this.#heap.first]!;
  }

  /** Frames that wait or are on their way. */
  get underWay(): number {
    return this.#heap.count;
  }

  override rxBatch(frames: Uint32Array, lengths: Uint16Array, max: number): number {
    this.pass();
    return this.inner.rxBatch(frames, lengths, max);
  }

  override txBatch(frames: Uint32Array, lengths: Uint16Array, count: number): number {
    if (this.state !== NIC_STATE.up) return 0;
    this.pass();
    for (let i = 0; i < count; i++) this.#accept(frames[i]!, lengths[i]!);
    return count;
  }

  override kick(): void {
    this.pass();
    this.inner.kick();
  }

  override reclaim(max: number): number {
    if (this.state !== NIC_STATE.up) return 0;
    this.pass();
    const own = Math.min(max, this.#done);
    this.#done -= own;
    return own + this.#reclaimInner(max);
  }

  /** How many of the frames that came back were the caller's. */
  #reclaimInner(max: number): number {
    const sent = this.inner.reclaim(max);
    const extra = Math.min(sent, this.#extra);
    this.#extra -= extra;
    return sent - extra;
  }

  /** Hand on what is due. */
  pass(): void {
    const nowMs = this.#options.nowMs();
    let passed = 0;
    while (this.#heap.count > 0 && this.#heap.dueMs[this.#heap.first]! <= nowMs) {
      const slot = this.#heap.shift();
      if (this.#deliver(slot)) passed++;
      this.#freeSlots[this.#freeCount++] = slot;
    }
    if (passed > 0) this.inner.kick();
  }

  #accept(frame: number, length: number): void {
    if (!isSendable(this.memory, frame, length, this.frameLengthMax)) {
      // The wrapped queue refuses and counts it, and gives it back itself.
      this.#one.frame[0] = frame;
      this.#one.length[0] = length;
      this.inner.txBatch(this.#one.frame, this.#one.length, 1);
      return;
    }
    this.delays.accepted++;
    this.#done++;
    this.#put(frame, length);
    this.inner.free(frame);
  }

  /** A copy of the frame goes into the queue, unless it is lost there. */
  #put(frame: number, length: number): void {
    const nowMs = this.#options.nowMs();
    const { bytesPerSecond = 0, queueBytesMax = Number.POSITIVE_INFINITY } = this.#options;
    if (bytesPerSecond > 0) {
      const waitingMs = Math.max(0, this.#departMs - nowMs);
      if ((waitingMs * bytesPerSecond) / MS_PER_S + length > queueBytesMax) {
        this.delays.queueFull++;
        return;
      }
    }
    if (this.#freeCount === 0) {
      this.delays.linkFull++;
      return;
    }
    const sendingMs = bytesPerSecond > 0 ? (length * MS_PER_S) / bytesPerSecond : 0;
    this.#departMs = Math.max(this.#departMs, nowMs) + sendingMs;
    const slot = this.#freeSlots[--this.#freeCount]!;
    const at = slot * this.#slotBytes;
    const { u8 } = this.memory;
    for (let i = 0; i < length; i++) this.#bytes[at + i] = u8[frame + i]!;
    this.#lengths[slot] = length;
    this.#heap.push(slot, this.#arrival(), this.delays.accepted);
  }

  #arrival(): number {
    const { delayMs, jitterMs = 0, random, reorder = false } = this.#options;
    const lateMs = jitterMs > 0 && random !== undefined ? random() * jitterMs : 0;
    const dueMs = this.#departMs + delayMs + lateMs;
    if (reorder) return dueMs;
    this.#arriveMs = Math.max(this.#arriveMs, dueMs);
    return this.#arriveMs;
  }

  #deliver(slot: number): boolean {
    const { inner } = this;
    const frame = this.#buffer();
    if (frame === NO_FRAME) {
      this.delays.noFrame++;
      return false;
    }
    const length = this.#lengths[slot]!;
    const at = slot * this.#slotBytes;
    const { u8 } = this.memory;
    for (let i = 0; i < length; i++) u8[frame + i] = this.#bytes[at + i]!;
    this.#one.frame[0] = frame;
    this.#one.length[0] = length;
    if (inner.txBatch(this.#one.frame, this.#one.length, 1) === 0) {
      inner.free(frame);
      this.delays.noFrame++;
      return false;
    }
    this.#extra++;
    this.delays.delivered++;
    return true;
  }

  /** A buffer for one frame, with a reference to give away: one of ours that the wrapped queue is done with, or another. */
  #buffer(): number {
    const { inner } = this;
    if (this.#own.length === 0) return inner.alloc();
    const own = this.#own[this.#ownNext]!;
    if (inner.isShared(own)) this.#reclaimInner(RECLAIM_MAX);
    if (inner.isShared(own)) return inner.alloc();
    this.#ownNext = (this.#ownNext + 1) % this.#own.length;
    inner.retain(own);
    return own;
  }
}

/** `queue` behind a long and slow link. Owns `queue`. */
export function withDelay(queue: NicQueue, options: DelayOptions): DelayQueue {
  return new DelayQueue(queue, options);
}
