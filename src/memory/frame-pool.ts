/**
 * The free frames of one region: a stack of handles in a typed array, so the warmest buffer is used first.
 * A frame that is out has as many references as it has users; with the last one it comes back.
 * One thread owns a pool. A free too many or a foreign handle is a defect of the caller and asserted.
 */
import { assert } from '../base/assert.ts';
import { type FrameMemory, NO_FRAME } from './frame-memory.ts';

export class FramePool {
  readonly #memory: FrameMemory;
  readonly #firstByte: number;
  readonly #stack: Uint32Array;
  /** References to each frame; 0 when it is in the pool. */
  readonly #references: Uint8Array;
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
    this.#references = new Uint8Array(memory.frameCount).fill(1);
    for (let i = memory.frameCount - 1; i >= 0; i--) {
      this.free(firstByte + i * memory.frameSize + memory.headroom);
    }
  }

  /** Frames in the pool now. */
  get available(): number {
    return this.#depth;
  }

  /** A frame that starts `headroom` bytes into its buffer, or NO_FRAME. The caller has its one reference. */
  alloc(): number {
    if (this.#depth === 0) return NO_FRAME;
    const index = this.#stack[--this.#depth]!;
    this.#references[index] = 1;
    return this.#firstByte + (index << this.#frameSizeLog2) + this.#memory.headroom;
  }

  /** Give back one reference, under any handle within the frame's buffer. */
  free(frame: number): void {
    const index = this.#indexOf(frame);
    const left = this.#references[index]! - 1;
    this.#references[index] = left;
    if (left === 0) this.#stack[this.#depth++] = index;
  }

  /** One more reference to a frame that is out: it takes one more `free`. At most 255 of them. */
  retain(frame: number): void {
    const index = this.#indexOf(frame);
    assert(this.#references[index]! < 255, 'a frame has few users');
    this.#references[index]!++;
  }

  /** True while a frame that is out has more than one reference. */
  isShared(frame: number): boolean {
    return this.#references[this.#indexOf(frame)]! > 1;
  }

  #indexOf(frame: number): number {
    const index = (frame - this.#firstByte) >>> this.#frameSizeLog2;
    assert(index < this.#memory.frameCount, 'a frame is of this pool');
    assert(this.#references[index] !== 0, 'a frame is out');
    return index;
  }

  /** True when `handle` lies in a buffer of this pool that is not free: what a device hands back is checked so. */
  owns(handle: number): boolean {
    const index = (handle - this.#firstByte) >>> this.#frameSizeLog2;
    return (
      handle >= this.#firstByte && index < this.#memory.frameCount && this.#references[index] !== 0
    );
  }
}
