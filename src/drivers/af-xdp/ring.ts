/**
 * One ring of an AF_XDP socket in this process's memory.
 *
 *   producer u32, consumer u32, flags u32 at the kernel's offsets; then `size` entries
 *   rx, tx            { addr u64, len u32, options u32 }      4 words each
 *   fill, completion  { addr u64 }                            2 words each
 *
 * We produce into fill and tx, the kernel into rx and completion. Indices run free (mod 2^32) and are masked on
 * access; empty: producer = consumer, full: producer - consumer = size. `local` is our index as we go, shown to the
 * kernel by `publish`; `cached` is what we last saw of the kernel's, refreshed by `refresh`.
 */
import { assert } from '../../base/assert.ts';
import type { Mapping } from '../../ffi/memory.ts';
import {
  mapXskRing,
  XDP_RING_NEED_WAKEUP,
  type XskRing,
  type XskRingOffsets,
} from '../../ffi/xsk.ts';

export class Ring {
  readonly words: Uint32Array;
  readonly mask: number;
  /** Word index of entry 0. */
  readonly base: number;
  /** Our index. */
  local: number;
  /** The kernel's index. */
  cached: number;
  readonly #shared: Int32Array;
  readonly #ours: number;
  readonly #kernels: number;
  readonly #flags: number;
  readonly #mapping: Mapping;

  /** Map ring `kind` of socket `fd` with `size` entries. */
  constructor(fd: number, kind: XskRing, size: number, offsets: XskRingOffsets) {
    assert(size > 0 && (size & (size - 1)) === 0, 'ring size is a power of two');
    this.#mapping = mapXskRing(fd, kind, size, offsets);
    const isProducer = kind === 'fill' || kind === 'tx';
    this.words = new Uint32Array(this.#mapping.buffer);
    this.#shared = new Int32Array(this.#mapping.buffer);
    this.mask = size - 1;
    this.base = offsets.desc >>> 2;
    this.#ours = (isProducer ? offsets.producer : offsets.consumer) >>> 2;
    this.#kernels = (isProducer ? offsets.consumer : offsets.producer) >>> 2;
    this.#flags = offsets.flags >>> 2;
    this.local = Atomics.load(this.#shared, this.#ours);
    this.cached = Atomics.load(this.#shared, this.#kernels);
  }

  /** Look at the kernel's index. */
  refresh(): number {
    this.cached = Atomics.load(this.#shared, this.#kernels);
    return this.cached;
  }

  /** Show the kernel our index: once per batch. */
  publish(): void {
    Atomics.store(this.#shared, this.#ours, this.local);
  }

  /** The kernel looks at this ring only when called. */
  needsWakeup(): boolean {
    return (Atomics.load(this.#shared, this.#flags) & XDP_RING_NEED_WAKEUP) !== 0;
  }

  /** Nobody has used the ring yet. */
  get isUnused(): boolean {
    return this.local === 0 && this.cached === 0;
  }

  release(): void {
    this.#mapping.release();
  }
}
