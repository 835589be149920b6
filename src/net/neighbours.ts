/**
 * ARP among the threads of one address. The device brings all ARP to the first queue pair: its thread answers, and
 * passes on what it hears to each other thread by a ring of its own. The others ask by their own pair and hear by the ring.
 *
 *   word   0 written   1 read   2.. 4 words an entry: IPv4, MAC high 16, MAC low 32, HEARD
 *
 * One thread writes a ring, one reads it. A full ring loses what is new: who waits for an answer asks again.
 */
import { assert } from '../base/assert.ts';

/** What an ARP packet was: an answer to us, a request to us, or something between others. */
export const HEARD = { reply: 0, request: 1, other: 2 } as const;

/** A power of two. */
const ENTRIES = 64;
const WORDS = 4;
const WRITTEN = 0;
const READ = 1;
const FIRST = 2;

/** What one thread gets: the rings that it writes (the first thread), or the one that it reads. Can be cloned. */
export type NeighbourShare =
  | { readonly tells: readonly SharedArrayBuffer[] }
  | { readonly hears: SharedArrayBuffer };

/** Shares for `threads` threads, the first of which is the one that ARP comes to. */
export function shareNeighbours(threads: number): NeighbourShare[] {
  const rings = Array.from(
    { length: threads - 1 },
    () => new SharedArrayBuffer((FIRST + ENTRIES * WORDS) * Int32Array.BYTES_PER_ELEMENT),
  );
  return [{ tells: rings }, ...rings.map((hears) => ({ hears }))];
}

/** One end of a ring. */
export class NeighbourRing {
  /** The entry that `take` found. */
  ip = 0;
  macHi = 0;
  macLo = 0;
  heard = 0;
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
    assert(this.#words.length === FIRST + ENTRIES * WORDS, 'a neighbour ring has its size');
  }

  /** False when the reader is a whole ring behind. */
  put(ip: number, macHi: number, macLo: number, heard: number): boolean {
    const words = this.#words;
    const written = words[WRITTEN]!;
    if (((written - Atomics.load(words, READ)) | 0) >= ENTRIES) return false;
    const at = FIRST + (written & (ENTRIES - 1)) * WORDS;
    words[at] = ip;
    words[at + 1] = macHi;
    words[at + 2] = macLo;
    words[at + 3] = heard;
    Atomics.store(words, WRITTEN, (written + 1) | 0);
    return true;
  }

  /** Move the oldest entry into the fields. False when there is none. */
  take(): boolean {
    const words = this.#words;
    const read = words[READ]!;
    if (Atomics.load(words, WRITTEN) === read) return false;
    const at = FIRST + (read & (ENTRIES - 1)) * WORDS;
    this.ip = words[at]!;
    this.macHi = words[at + 1]!;
    this.macLo = words[at + 2]!;
    this.heard = words[at + 3]!;
    Atomics.store(words, READ, (read + 1) | 0);
    return true;
  }
}
