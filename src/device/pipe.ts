/**
 * Two network devices joined by a wire in memory: for tests and simulations.
 *
 *   a.txBatch ─► a's transmit ring ─ kick ─► copy into a posted frame of b ─► b's receive ring ─► b.rxBatch
 *
 * - Each end has a region of its own on a plain ArrayBuffer; frames are copied, as a device would.
 * - Each end keeps up to `ringSize` frames of its pool posted to receive into, and refills in rxBatch. A frame that
 *   arrives when none is posted is dropped and counted in `noFrame` of the receiver.
 * - Nothing happens by itself: `kick` moves frames, in order, at once. No clock, no thread.
 */
import { assert } from '../base/assert.ts';
import { closeFd, eventfd, eventfdSignal, readFd } from '../ffi/fd.ts';
import { frameMemory } from '../memory/frame-memory.ts';
import { FramePool } from '../memory/frame-pool.ts';
import {
  type FrameMemory,
  NIC_STATE,
  type NicCounters,
  type NicQueue,
  type NicState,
  NO_FRAME,
  newNicCounters,
} from './nic.ts';
import { isSendable } from './sendable.ts';

export interface PipeOptions {
  /** Entries of each ring, a power of two. Default 256. */
  readonly ringSize?: number;
  /** Bytes of a buffer, a power of two. Default 2048. */
  readonly frameSize?: number;
  /** Default 64. */
  readonly headroom?: number;
  /** Buffers of each end. Default four rings' worth. */
  readonly frameCount?: number;
  /** Longest frame, Ethernet header included. Default 1514. */
  readonly frameLengthMax?: number;
  /** Give each end an eventfd as doorbell, so that an event loop can wait for it. Default false: doorbellFd is -1. */
  readonly doorbells?: boolean;
}

/** A joined pair. Each end is closed on its own; the other is then `gone`. */
export function createPipe(options: PipeOptions = {}): { a: PipeQueue; b: PipeQueue } {
  const a = new PipeQueue(options);
  const b = new PipeQueue(options);
  a.join(b);
  b.join(a);
  return { a, b };
}

/** A FIFO of frames and lengths in typed arrays; indices run free and are masked on access. */
class FrameRing {
  readonly frames: Uint32Array;
  readonly lengths: Uint16Array;
  readonly mask: number;
  head = 0;
  tail = 0;

  constructor(size: number) {
    assert(size > 0 && (size & (size - 1)) === 0, 'ring size is a power of two');
    this.frames = new Uint32Array(size);
    this.lengths = new Uint16Array(size);
    this.mask = size - 1;
  }

  get used(): number {
    return (this.tail - this.head) | 0;
  }

  get room(): number {
    return this.mask + 1 - this.used;
  }

  push(frame: number, length: number): void {
    assert(this.room > 0, 'push into a ring with room');
    const slot = this.tail & this.mask;
    this.frames[slot] = frame;
    this.lengths[slot] = length;
    this.tail = (this.tail + 1) | 0;
  }

  /** Slot of the oldest entry, which is taken off. */
  shift(): number {
    assert(this.used > 0, 'shift from a ring with entries');
    const slot = this.head & this.mask;
    this.head = (this.head + 1) | 0;
    return slot;
  }
}

/** One end of a pipe. */
export class PipeQueue implements NicQueue {
  readonly driver = 'pipe';
  readonly offloads = 0;
  readonly memory: FrameMemory;
  readonly frameLengthMax: number;
  readonly counters: NicCounters = newNicCounters();
  readonly doorbellFd: number;

  readonly #pool: FramePool;
  /** Frames given to receive into, frames that arrived, frames to send, frames sent. */
  readonly #posted: FrameRing;
  readonly #received: FrameRing;
  readonly #sending: FrameRing;
  readonly #sent: FrameRing;
  readonly #wakeCount = Buffer.alloc(8);
  #peer: PipeQueue | null = null;
  #armed = false;
  #state: NicState = NIC_STATE.up;

  constructor(options: PipeOptions) {
    const ringSize = options.ringSize ?? 256;
    const frameSize = options.frameSize ?? 2048;
    const headroom = options.headroom ?? 64;
    const frameCount = options.frameCount ?? 4 * ringSize;
    this.frameLengthMax = options.frameLengthMax ?? 1514;
    assert(headroom + this.frameLengthMax <= frameSize, 'the longest frame fits in a buffer');
    const buffer = new ArrayBuffer(frameSize * frameCount);
    this.memory = frameMemory(buffer, { frameSize, headroom, frameCount });
    this.#pool = new FramePool(this.memory, 0);
    this.#posted = new FrameRing(ringSize);
    this.#received = new FrameRing(ringSize);
    this.#sending = new FrameRing(ringSize);
    this.#sent = new FrameRing(ringSize);
    this.doorbellFd = options.doorbells === true ? eventfd() : -1;
    this.#post();
  }

  /** Connect this end to `peer`, once. */
  join(peer: PipeQueue): void {
    assert(this.#peer === null, 'an end is joined once');
    this.#peer = peer;
  }

  get state(): NicState {
    return this.#state;
  }

  get framesAvailable(): number {
    return this.#pool.available;
  }

  rxBatch(frames: Uint32Array, lengths: Uint16Array, max: number): number {
    if (this.#state !== NIC_STATE.up) return 0;
    const received = this.#received;
    const count = Math.min(max, received.used);
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      const slot = received.shift();
      frames[i] = received.frames[slot]!;
      lengths[i] = received.lengths[slot]!;
      bytes += lengths[i]!;
    }
    this.counters.rxPackets += count;
    this.counters.rxBytes += bytes;
    this.#post();
    return count;
  }

  txBatch(frames: Uint32Array, lengths: Uint16Array, count: number): number {
    if (this.#state !== NIC_STATE.up) return 0;
    let taken = 0;
    for (; taken < count; taken++) {
      if (this.#sending.used + this.#sent.used > this.#sending.mask) break;
      const frame = frames[taken]!;
      const length = lengths[taken]!;
      const owned = this.#pool.owns(frame);
      if (owned && isSendable(this.memory, frame, length, this.frameLengthMax)) {
        this.#sending.push(frame, length);
      } else {
        this.counters.txDropped++;
        if (owned) this.#pool.free(frame);
      }
    }
    return taken;
  }

  kick(): void {
    if (this.#state !== NIC_STATE.up) return;
    const sending = this.#sending;
    const peer = this.#peer;
    assert(peer !== null, 'a pipe has two ends');
    for (let left = sending.used; left > 0; left--) {
      const slot = sending.shift();
      const frame = sending.frames[slot]!;
      const length = sending.lengths[slot]!;
      peer.#deliver(this.memory, frame, length);
      this.#sent.push(frame, length);
      this.counters.txPackets++;
      this.counters.txBytes += length;
    }
    peer.#wake();
  }

  reclaim(max: number): number {
    if (this.#state !== NIC_STATE.up) return 0;
    const count = Math.min(max, this.#sent.used);
    for (let i = 0; i < count; i++) {
      this.#pool.free(this.#sent.frames[this.#sent.shift()]!);
    }
    return count;
  }

  alloc(): number {
    if (this.#state !== NIC_STATE.up) return NO_FRAME;
    const frame = this.#pool.alloc();
    if (frame === NO_FRAME) this.counters.noFrame++;
    return frame;
  }

  free(frame: number): void {
    this.#pool.free(frame);
  }

  retain(frame: number): void {
    this.#pool.retain(frame);
  }

  isShared(frame: number): boolean {
    return this.#pool.isShared(frame);
  }

  arm(): boolean {
    if (this.#state !== NIC_STATE.up || this.#received.used > 0) return false;
    this.#armed = true;
    return true;
  }

  disarm(): void {
    this.#armed = false;
    if (this.doorbellFd === -1 || this.#state === NIC_STATE.closed) return;
    if (readFd(this.doorbellFd, this.#wakeCount) === 8) this.counters.wakeups++;
  }

  close(): void {
    if (this.#state === NIC_STATE.closed) return;
    this.#state = NIC_STATE.closed;
    if (this.doorbellFd !== -1) closeFd(this.doorbellFd);
    const peer = this.#peer;
    if (peer !== null && peer.#state === NIC_STATE.up) {
      peer.#state = NIC_STATE.gone;
      // Whoever sleeps on the other end should see that it has gone.
      if (peer.doorbellFd !== -1) eventfdSignal(peer.doorbellFd);
    }
  }

  /** Give the wire as many frames to receive into as the ring takes, not counting what waits to be received. */
  #post(): void {
    let room = this.#posted.room - this.#received.used;
    for (; room > 0 && this.#pool.available > 0; room--) {
      this.#posted.push(this.#pool.alloc(), 0);
    }
  }

  /** Called by the peer: `length` bytes at `from` of its `memory` arrive. */
  #deliver(memory: FrameMemory, from: number, length: number): void {
    if (this.#state !== NIC_STATE.up) return;
    if (length > this.frameLengthMax) {
      this.counters.rxDropped++;
      return;
    }
    if (this.#posted.used === 0) {
      this.counters.noFrame++;
      return;
    }
    const frame = this.#posted.frames[this.#posted.shift()]!;
    const to = this.memory;
    let done = 0;
    if (((frame | from) & 3) === 0) {
      // By words while both are aligned: TypedArray.set would need a subarray for every frame.
      const words = length >>> 2;
      for (let i = 0; i < words; i++) to.u32[(frame >>> 2) + i] = memory.u32[(from >>> 2) + i]!;
      done = words << 2;
    }
    for (let i = done; i < length; i++) to.u8[frame + i] = memory.u8[from + i]!;
    this.#received.push(frame, length);
  }

  #wake(): void {
    if (!this.#armed || this.#received.used === 0) return;
    this.#armed = false;
    if (this.doorbellFd !== -1) eventfdSignal(this.doorbellFd);
  }
}
