/** A network device without a network: tests inject received frames, and read what was sent. */

import { assert } from '../../src/base/assert.ts';
import {
  FRAME_FLAG,
  type FrameMemory,
  NIC_STATE,
  type NicCounters,
  type NicQueue,
  type NicState,
  NO_FRAME,
  newNicCounters,
} from '../../src/device/nic.ts';
import { isSendable } from '../../src/device/sendable.ts';
import { frameMemory } from '../../src/memory/frame-memory.ts';
import { FramePool } from '../../src/memory/frame-pool.ts';

export interface FakeQueueOptions {
  readonly frameCount?: number;
  readonly frameSize?: number;
  readonly headroom?: number;
  readonly frameLengthMax?: number;
  /** NIC_OFFLOAD. */
  readonly offloads?: number;
}

export class FakeQueue implements NicQueue {
  readonly driver = 'fake';
  readonly offloads: number;
  readonly memory: FrameMemory;
  readonly frameLengthMax: number;
  readonly counters: NicCounters = newNicCounters();
  readonly doorbellFd = -1;
  state: NicState = NIC_STATE.up;
  /** Frames that the transmit ring accepts in all until `reclaim`; a test lowers it to make the ring full. */
  txRoom = Number.POSITIVE_INFINITY;
  kicks = 0;
  /** Copies of what was sent, in order, and the flags of each. */
  readonly sent: Uint8Array[] = [];
  readonly sentFlags: number[] = [];
  readonly #pool: FramePool;
  readonly #received: { frame: number; length: number; flags: number }[] = [];
  readonly #transmitted: number[] = [];

  constructor(options: FakeQueueOptions = {}) {
    const { frameCount = 256, frameSize = 2048, headroom = 64 } = options;
    this.offloads = options.offloads ?? 0;
    this.frameLengthMax = options.frameLengthMax ?? 1514;
    const buffer = new ArrayBuffer(frameCount * frameSize);
    this.memory = frameMemory(buffer, { frameSize, headroom, frameCount });
    this.#pool = new FramePool(this.memory, 0);
  }

  get framesAvailable(): number {
    return this.#pool.available;
  }

  /** Put `bytes` on the receive ring. They start `shift` bytes further on in the buffer than usual. */
  inject(bytes: Uint8Array, shift = 0, flags = 0): void {
    const frame = this.#pool.alloc();
    assert(frame !== NO_FRAME, 'the fake queue has a frame to receive into');
    this.memory.u8.set(bytes, frame + shift);
    this.#received.push({ frame: frame + shift, length: bytes.length, flags });
  }

  /** The same for one packet in pieces, the first of which has `flags`. */
  injectPieces(pieces: readonly Uint8Array[], flags: number = FRAME_FLAG.checksum): void {
    for (const [i, piece] of pieces.entries()) {
      const more = i + 1 < pieces.length ? FRAME_FLAG.more : 0;
      this.inject(piece, 0, (i === 0 ? flags : 0) | more);
    }
  }

  /** The frames sent since the last call. */
  takeSent(): Uint8Array[] {
    this.sentFlags.length = 0;
    return this.sent.splice(0);
  }

  rxBatch(frames: Uint32Array, lengths: Uint16Array, max: number, flags?: Uint8Array): number {
    if (this.state !== NIC_STATE.up) return 0;
    const batch = this.#received.splice(0, max);
    batch.forEach(({ frame, length, flags: bits }, i) => {
      frames[i] = frame;
      lengths[i] = length;
      if (flags !== undefined) flags[i] = bits;
    });
    return batch.length;
  }

  txBatch(frames: Uint32Array, lengths: Uint16Array, count: number, flags?: Uint8Array): number {
    if (this.state !== NIC_STATE.up) return 0;
    const taken = Math.min(count, this.txRoom - this.#transmitted.length);
    for (let i = 0; i < taken; i++) {
      const [frame, length] = [frames[i]!, lengths[i]!];
      assert(this.#pool.owns(frame), 'a sent frame is of the pool and not free');
      assert(isSendable(this.memory, frame, length, this.frameLengthMax), 'a frame is sendable');
      this.sent.push(this.memory.u8.slice(frame, frame + length));
      this.sentFlags.push(flags?.[i] ?? 0);
      this.#transmitted.push(frame);
    }
    return taken;
  }

  reclaim(max: number): number {
    const done = this.#transmitted.splice(0, max);
    for (const frame of done) this.#pool.free(frame);
    return done.length;
  }

  kick(): void {
    this.kicks++;
  }

  alloc(): number {
    return this.#pool.alloc();
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
    return this.#received.length === 0;
  }

  disarm(): void {}

  close(): void {
    this.state = NIC_STATE.closed;
  }
}
