/**
 * Memory for what is received. A program may keep a chunk for as long as it likes, so received bytes are copied out of
 * the frames; many small chunks share one allocation, as the small ones of `Buffer.allocUnsafe` do.
 */

const SLAB_BYTES = 64 * 1024;
/** From this size on a chunk has memory of its own: it would waste the rest of a slab. */
const OWN_BYTES = SLAB_BYTES / 2;

export class Slab {
  /** The memory of the last `take`, and where in it the chunk begins. */
  buffer: ArrayBuffer;
  bytes: Buffer;
  at = 0;
  #end = 0;

  constructor() {
    this.bytes = Buffer.allocUnsafeSlow(SLAB_BYTES);
    this.buffer = this.bytes.buffer as ArrayBuffer;
  }

  /** Room for `length` bytes, at `at` of `buffer` (which `bytes` shows); it is the caller's. */
  take(length: number): void {
    if (this.#end + length > this.bytes.length) {
      this.bytes = Buffer.allocUnsafeSlow(length >= OWN_BYTES ? length : SLAB_BYTES);
      this.buffer = this.bytes.buffer as ArrayBuffer;
      this.#end = 0;
    }
    this.at = this.#end;
    this.#end += length;
  }
}
