/**
 * One reserved range of addresses into which a device maps the memory of everybody that it serves.
 *
 * - A byte of any peer, and of the device's own staging memory, is one uint32 offset into one set of views. So the
 *   hot path has a single shape of typed array, and `copyWithin` (a memmove without an object) copies between peers.
 * - The range never goes away: what is unmapped becomes empty private pages, and stale offsets read zeros.
 * - Everything is mapped at 2 MiB boundaries, so huge pages fit. Offsets below 2^31 stay small integers in V8; the
 *   lowest free place is used first.
 */
import { assert } from '../base/assert.ts';
import { ArrakisError } from '../base/errors.ts';
import { viewOf } from './libc.ts';
import { mapSharedAt, mapZeroAt, reserve } from './memory.ts';

const ALIGN = 2 * 1024 * 1024;
/** Size of an arena: the largest typed array of Node 20. */
export const ARENA_BYTES = 4 * 1024 * 1024 * 1024;
const PAGE = 4096;
/** Up to here a word loop is faster than the call of `copyWithin` (11 ns against 22 ns for 64 bytes). */
const WORD_LOOP_MAX = 192;

interface Extent {
  at: number;
  length: number;
}

export class Arena {
  /** Machine address of offset 0, for system calls. */
  readonly address: number;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  /** What is mapped, by offset. */
  readonly #extents: Extent[] = [];

  constructor() {
    const start = reserve(ARENA_BYTES + ALIGN);
    this.address = Math.ceil(start / ALIGN) * ALIGN;
    const buffer = viewOf(this.address, ARENA_BYTES);
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.u32 = new Uint32Array(buffer);
  }

  /** What every mapping begins at a multiple of: no page can be larger. */
  get alignBytes(): number {
    return ALIGN;
  }

  /** Map `length` bytes of `fd` from `fileOffset` (a multiple of 4096), shared. Their offset. `fd` may be closed. */
  mapShared(fd: number, length: number, fileOffset: number): number {
    const { at, index } = this.#find(length);
    mapSharedAt(this.address + at, fd, length, fileOffset);
    this.#extents.splice(index, 0, { at, length });
    return at;
  }

  /** Private zeroed memory of `length` bytes. Its offset. */
  mapPrivate(length: number): number {
    const { at, index } = this.#find(length);
    mapZeroAt(this.address + at, length);
    this.#extents.splice(index, 0, { at, length });
    return at;
  }

  /** Give back what was mapped at `at`. */
  unmap(at: number): void {
    const index = this.#extents.findIndex((extent) => extent.at === at);
    assert(index >= 0, 'an extent is unmapped once');
    mapZeroAt(this.address + at, this.#extents[index]!.length);
    this.#extents.splice(index, 1);
  }

  /** Bytes that are mapped; for leak tests. */
  get mappedBytes(): number {
    return this.#extents.reduce((sum, extent) => sum + extent.length, 0);
  }

  /** Copy `length` bytes between offsets that do not overlap. Writes no byte outside [to, to + length). */
  copy(to: number, from: number, length: number): void {
    if (length > WORD_LOOP_MAX || ((to ^ from) & 3) !== 0) {
      this.u8.copyWithin(to, from, from + length);
      return;
    }
    const { u8, u32 } = this;
    let t = to;
    let f = from;
    const end = from + length;
    while ((f & 3) !== 0 && f < end) u8[t++] = u8[f++]!;
    let tw = t >>> 2;
    let fw = f >>> 2;
    const endWord = end >>> 2;
    for (; fw + 4 <= endWord; fw += 4, tw += 4) {
      u32[tw] = u32[fw]!;
      u32[tw + 1] = u32[fw + 1]!;
      u32[tw + 2] = u32[fw + 2]!;
      u32[tw + 3] = u32[fw + 3]!;
    }
    for (; fw < endWord; fw++, tw++) u32[tw] = u32[fw]!;
    t += Math.max(0, endWord * 4 - f);
    f = Math.max(f, endWord * 4);
    while (f < end) u8[t++] = u8[f++]!;
  }

  /** The lowest gap of `length` bytes, and where its extent belongs in the list. */
  #find(length: number): { at: number; index: number } {
    assert(Number.isSafeInteger(length) && length > 0, 'an extent is not empty');
    const wanted = Math.ceil(length / PAGE) * PAGE;
    let at = 0;
    for (const [index, { at: next, length: taken }] of this.#extents.entries()) {
      if (at + wanted <= next) return { at, index };
      at = Math.ceil((next + taken) / ALIGN) * ALIGN;
    }
    if (at + wanted <= ARENA_BYTES) return { at, index: this.#extents.length };
    throw new ArrakisError('ARK_LIMIT', `no room to map ${length} bytes`, {
      hint: `a device maps at most ${ARENA_BYTES} bytes of all its clients together`,
    });
  }
}
