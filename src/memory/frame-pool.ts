/**
 * The free frames of one region: a stack of handles in a typed array, so the warmest buffer is used first.
 * One thread owns a pool. A double free or a foreign handle is a defect of the caller and asserted.
 */
import { assert } from '../base/assert.ts';
import { type FrameMemory, NO_FRAME } from './frame-memory.ts';

export class FramePool {
  readonly #memory: FrameMemory;
  readonly #firstByte: number;
  readonly #stack: Uint32Array;
  /** 1 for a frame that is in the pool. */
  readonly #isFree: Uint8Array;
  readonly #frameSizeLog2: number;
  #depth = 0;

  /** Manages `memory.frameCount` frames from byte `firstByte` (a multiple of the frame size) on; all start free. */
  constructor(memory: FrameMemory, firstByte: number) {
    assert((firstByte & (memory.frameSize - 1)) === 0, 'frames start on a frame boundary');
    this.#memory = memory;
    this.#firstByte = firstByte;
    this.#frameSizeLog2 = Math.log2(memory.frameSize);
    assert(Number.isInteger(this.#frameSizeLog2), 'frame size is a power of two');
    const end = firstByte + memory.frameCount * memory.frameSize;
    assert(end <= 2 ** 31, 'offsets of frames stay positive under bit operations');
    this.#stack = new Uint32Array(memory.frameCount);
    this.#isFree = new Uint8Array(memory.frameCount);
    for (let i = memory.frameCount - 1; i >= 0; i--) {
      this.free(firstByte + i * memory.frameSize + memory.headroom);
    }
  }

  /** Frames in the pool now. */
  get available(): number {
    return this.#depth;
  }

  /** A frame that starts `headroom` bytes into its buffer, or NO_FRAME. The caller owns it. */
  alloc(): number {
    if (this.#depth === 0) return NO_FRAME;
    const index = this.#stack[--this.#depth]!;
    this.#isFree[index] = 0;
    return this.#firstByte + (index << this.#frameSizeLog2) + this.#memory.headroom;
  }

  /** Give back a frame under any handle within its buffer. */
  free(frame: number): void {
    const index = (frame - this.#firstByte) >>> this.#frameSizeLog2;
    assert(index < this.#memory.frameCount, 'freed frame is of this pool');
    assert(this.#isFree[index] === 0, 'frame freed once');
    this.#isFree[index] = 1;
    this.#stack[this.#depth++] = index;
  }

  /** True when `handle` lies in a buffer of this pool that is not free: what a device hands back is checked so. */
  owns(handle: number): boolean {
    const index = (handle - this.#firstByte) >>> this.#frameSizeLog2;
    return (
      handle >= this.#firstByte && index < this.#memory.frameCount && this.#isFree[index] === 0
    );
  }
}
