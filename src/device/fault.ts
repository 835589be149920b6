/**
 * A network device with a bad link: loses, corrupts, truncates, duplicates and reorders frames, each direction by its
 * own probabilities, from the caller's random numbers (one seed, one run).
 *
 * - A frame that is reordered is held back and goes after the next batch; a duplicate goes the same way. The next
 *   `txBatch` or `reclaim` sends what is held, the next `rxBatch` delivers it: nothing is held for ever.
 * - Ownership is that of any NicQueue. A lost frame that was to be sent comes back by `reclaim`, as if it had been.
 * - With all probabilities 0 in a direction, that direction is the wrapped queue's.
 */
import { NIC_STATE, type NicQueue, NO_FRAME } from './nic.ts';
import { FRAME_LENGTH_MIN, isSendable } from './sendable.ts';
import { WrappedNic } from './wrapped-nic.ts';

/** Probabilities, 0 to 1, for each frame. */
export interface FaultRates {
  readonly drop?: number;
  /** One bit is flipped. */
  readonly corrupt?: number;
  readonly duplicate?: number;
  readonly reorder?: number;
  /** The end is cut off; an Ethernet header is left. */
  readonly truncate?: number;
}

export interface FaultOptions extends FaultRates {
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** For received and for sent frames, in place of the common rates. */
  readonly rx?: FaultRates;
  readonly tx?: FaultRates;
}

/** What was done to the frames of one direction. */
export interface FaultCounters {
  dropped: number;
  corrupted: number;
  duplicated: number;
  reordered: number;
  truncated: number;
}

/** Frames that are worked on in one call, and frames that may be held back. */
const STAGE_MAX = 256;
const HELD_MAX = 64;

/** Frames with their lengths, oldest first. */
class FrameList {
  readonly frames: Uint32Array;
  readonly lengths: Uint16Array;
  count = 0;

  constructor(size: number) {
    this.frames = new Uint32Array(size);
    this.lengths = new Uint16Array(size);
  }

  get full(): boolean {
    return this.count === this.frames.length;
  }

  push(frame: number, length: number): void {
    this.frames[this.count] = frame;
    this.lengths[this.count++] = length;
  }

  /** Forget the first `count`. */
  shift(count: number): void {
    this.frames.copyWithin(0, count, this.count);
    this.lengths.copyWithin(0, count, this.count);
    this.count -= count;
  }
}

/** The faults of one direction. */
class FaultyLink {
  readonly counters: FaultCounters = {
    dropped: 0,
    corrupted: 0,
    duplicated: 0,
    reordered: 0,
    truncated: 0,
  };
  /** Frames held back: reordered ones and duplicates. */
  readonly held = new FrameList(HELD_MAX);
  readonly faulty: boolean;
  readonly #rates: Required<FaultRates>;
  readonly #random: () => number;
  /** The frame that `damage` was last given, or the copy that it damaged instead. */
  frame = NO_FRAME;
  readonly #queue: NicQueue;

  constructor(queue: NicQueue, random: () => number, rates: FaultRates) {
    this.#queue = queue;
    this.#random = random;
    const { drop = 0, corrupt = 0, duplicate = 0, reorder = 0, truncate = 0 } = rates;
    this.#rates = { drop, corrupt, duplicate, reorder, truncate };
    this.faulty = drop + corrupt + duplicate + reorder + truncate > 0;
  }

  isLost(): boolean {
    if (!this.#happens(this.#rates.drop)) return false;
    this.counters.dropped++;
    return true;
  }

  /**
   * Damage the bytes of a frame; its length afterwards. A frame that its sender retained stays whole: a copy takes its
   * place, which is then `frame`, unless the pool has none.
   */
  damage(frame: number, length: number): number {
    let left = length;
    this.frame = frame;
    if (length > FRAME_LENGTH_MIN && this.#happens(this.#rates.truncate)) {
      left = FRAME_LENGTH_MIN + this.#below(length - FRAME_LENGTH_MIN);
      this.counters.truncated++;
    }
    if (this.#happens(this.#rates.corrupt) && this.#makeOwn(frame, left)) {
      this.#queue.memory.u8[this.frame + this.#below(left)]! ^= 1 << this.#below(8);
      this.counters.corrupted++;
    }
    return left;
  }

  #makeOwn(frame: number, length: number): boolean {
    const queue = this.#queue;
    if (!queue.isShared(frame)) return true;
    const copy = queue.alloc();
    if (copy === NO_FRAME) return false;
    queue.memory.u8.copyWithin(copy, frame, frame + length);
    queue.free(frame);
    this.frame = copy;
    return true;
  }

  /** Hold a copy back, if a frame is free for it. True when one was made. */
  duplicate(frame: number, length: number): boolean {
    if (this.held.full || !this.#happens(this.#rates.duplicate)) return false;
    const copy = this.#queue.alloc();
    if (copy === NO_FRAME) return false;
    this.#queue.memory.u8.copyWithin(copy, frame, frame + length);
    this.held.push(copy, length);
    this.counters.duplicated++;
    return true;
  }

  /** Hold the frame itself back. False when it stays where it is. */
  reorder(frame: number, length: number): boolean {
    if (this.held.full || !this.#happens(this.#rates.reorder)) return false;
    this.held.push(frame, length);
    this.counters.reordered++;
    return true;
  }

  /** A fault that is off draws no random number. */
  #happens(rate: number): boolean {
    return rate > 0 && this.#random() < rate;
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }
}

export class FaultQueue extends WrappedNic {
  readonly #rx: FaultyLink;
  readonly #tx: FaultyLink;
  readonly #arrived = new FrameList(STAGE_MAX);
  /** Accepted frames on their way to the wrapped queue; frames lost, for the next reclaim. */
  readonly #stage = new FrameList(STAGE_MAX + HELD_MAX);
  readonly #lost = new FrameList(STAGE_MAX);
  /** Duplicates that the wrapped queue will give back although the caller never sent them. */
  #extra = 0;

  /** Owns `inner`. */
  constructor(inner: NicQueue, options: FaultOptions) {
    super(inner, 'fault');
    this.#rx = new FaultyLink(inner, options.random, options.rx ?? options);
    this.#tx = new FaultyLink(inner, options.random, options.tx ?? options);
  }

  get rxFaults(): Readonly<FaultCounters> {
    return this.#rx.counters;
  }

  get txFaults(): Readonly<FaultCounters> {
    return this.#tx.counters;
  }

  override rxBatch(frames: Uint32Array, lengths: Uint16Array, max: number): number {
    const link = this.#rx;
    if (!link.faulty) return this.inner.rxBatch(frames, lengths, max);
    if (this.state !== NIC_STATE.up) return 0;
    const { held } = link;
    const heldCount = Math.min(held.count, max);
    const arrived = this.#arrived;
    const room = Math.min(max - heldCount, STAGE_MAX);
    arrived.count = this.inner.rxBatch(arrived.frames, arrived.lengths, room);
    let count = 0;
    for (let i = 0; i < arrived.count; i++) {
      const frame = arrived.frames[i]!;
      if (link.isLost()) {
        this.inner.free(frame);
        continue;
      }
      const length = link.damage(frame, arrived.lengths[i]!);
      if (link.reorder(frame, length)) continue;
      link.duplicate(frame, length);
      frames[count] = frame;
      lengths[count++] = length;
    }
    // What was held back before this call comes behind what arrived in it.
    for (let i = 0; i < heldCount; i++) {
      frames[count] = held.frames[i]!;
      lengths[count++] = held.lengths[i]!;
    }
    held.shift(heldCount);
    return count;
  }

  override txBatch(frames: Uint32Array, lengths: Uint16Array, count: number): number {
    const link = this.#tx;
    if (!link.faulty) return this.inner.txBatch(frames, lengths, count);
    if (this.state !== NIC_STATE.up) return 0;
    this.#push();
    const heldCount = link.held.count;
    let taken = 0;
    for (; taken < count; taken++) {
      if (this.#stage.count >= STAGE_MAX || this.#lost.full) break;
      const frame = frames[taken]!;
      const length = lengths[taken]!;
      if (!isSendable(this.memory, frame, length, this.frameLengthMax)) {
        // The wrapped queue refuses and counts it.
        this.#stage.push(frame, length);
      } else if (link.isLost()) {
        this.#lost.push(frame, length);
      } else {
        const left = link.damage(frame, length);
        if (link.reorder(link.frame, left)) continue;
        if (link.duplicate(link.frame, left)) this.#extra++;
        this.#stage.push(link.frame, left);
      }
    }
    this.#release(heldCount);
    this.#push();
    return taken;
  }

  override kick(): void {
    if (this.#tx.faulty) this.#push();
    this.inner.kick();
  }

  override reclaim(max: number): number {
    if (!this.#tx.faulty) return this.inner.reclaim(max);
    if (this.state !== NIC_STATE.up) return 0;
    const lost = Math.min(max, this.#lost.count);
    for (let i = 0; i < lost; i++) this.inner.free(this.#lost.frames[i]!);
    this.#lost.shift(lost);
    const sent = this.inner.reclaim(max - lost);
    const extra = Math.min(sent, this.#extra);
    this.#extra -= extra;
    if (this.#tx.held.count + this.#stage.count > 0) {
      // The caller may never send again: what is held goes out now.
      this.#release(this.#tx.held.count);
      this.#push();
      this.inner.kick();
    }
    return lost + sent - extra;
  }

  override arm(): boolean {
    if (this.#rx.held.count > 0) return false;
    return this.inner.arm();
  }

  /** Move the first `count` held frames to the stage. */
  #release(count: number): void {
    const { held } = this.#tx;
    const moved = Math.min(count, STAGE_MAX + HELD_MAX - this.#stage.count);
    for (let i = 0; i < moved; i++) this.#stage.push(held.frames[i]!, held.lengths[i]!);
    held.shift(moved);
  }

  /** Hand the wrapped queue as much of the stage as it takes. */
  #push(): void {
    const stage = this.#stage;
    if (stage.count === 0) return;
    stage.shift(this.inner.txBatch(stage.frames, stage.lengths, stage.count));
  }
}

/** `queue` behind a bad link. Owns `queue`. */
export function withFault(queue: NicQueue, options: FaultOptions): FaultQueue {
  return new FaultQueue(queue, options);
}
