/**
 * Which connection a segment belongs to: a hash table in typed arrays. A flow is a small number, its id; addresses and
 * ports stand in one array, so that a flow costs some tens of bytes, whatever its state keeps elsewhere.
 *
 *   words of an id:  0..3 local address   4..7 remote address   8 ports (local << 16 | remote)   9 hash
 *
 * Chains hang on buckets that double with the number of ids. The hash is keyed: nobody can aim at one bucket.
 */
import { assert } from '../../base/assert.ts';
import { FLOW_WORDS, isMappedIpv4 } from '../ip-output.ts';
import { type KeyedHash, PURPOSE } from './keyed-hash.ts';

export const NO_FLOW = -1;
const STRIDE = FLOW_WORDS + 2;
const PORTS = FLOW_WORDS;
const HASH = FLOW_WORDS + 1;
const SIZE_MIN = 64;

export class FlowTable {
  /** Addresses of all flows; that of `id` starts at `at(id)`. Replaced when the table grows: read it anew each time. */
  words: Int32Array;
  /** Flows now. */
  count = 0;
  readonly #keyed: KeyedHash;
  readonly #max: number;
  #buckets: Int32Array;
  #next: Int32Array;
  #free: number = NO_FLOW;
  /** Ids that were ever used. */
  #used = 0;

  /** At most `max` flows. */
  constructor(keyed: KeyedHash, max: number) {
    this.#keyed = keyed;
    this.#max = max;
    this.words = new Int32Array(SIZE_MIN * STRIDE);
    this.#next = new Int32Array(SIZE_MIN).fill(NO_FLOW);
    this.#buckets = new Int32Array(SIZE_MIN).fill(NO_FLOW);
  }

  /** Ids are below this; it only grows. */
  get size(): number {
    return this.#next.length;
  }

  at(id: number): number {
    return id * STRIDE;
  }

  ports(id: number): number {
    return this.words[id * STRIDE + PORTS]!;
  }

  localPort(id: number): number {
    return this.ports(id) >>> 16;
  }

  remotePort(id: number): number {
    return this.ports(id) & 0xffff;
  }

  /** The flow between the addresses at `flow` of `words`, and these ports; NO_FLOW when there is none. */
  find(words: Int32Array, flow: number, ports: number): number {
    const hash = this.#hash(words, flow, ports);
    let id = this.#buckets[hash & (this.#buckets.length - 1)]!;
    while (id !== NO_FLOW && !this.#is(id, words, flow, ports, hash)) id = this.#next[id]!;
    return id;
  }

  /** A new flow, which is not there yet: its id, or NO_FLOW when the table is full. */
  insert(words: Int32Array, flow: number, ports: number): number {
    let id = this.#free;
    if (id !== NO_FLOW) {
      this.#free = this.#next[id]!;
    } else {
      if (this.#used === this.#max) return NO_FLOW;
      id = this.#used++;
      if (id === this.#next.length) this.#grow();
    }
    const at = id * STRIDE;
    for (let i = 0; i < FLOW_WORDS; i++) this.words[at + i] = words[flow + i]!;
    this.words[at + PORTS] = ports;
    this.words[at + HASH] = this.#hash(words, flow, ports);
    this.#link(id);
    this.count++;
    return id;
  }

  /** Forget a flow; its id may be used again. */
  remove(id: number): void {
    const bucket = this.words[id * STRIDE + HASH]! & (this.#buckets.length - 1);
    let other = this.#buckets[bucket]!;
    if (other === id) {
      this.#buckets[bucket] = this.#next[id]!;
    } else {
      while (this.#next[other] !== id) {
        other = this.#next[other]!;
        assert(other !== NO_FLOW, 'a flow is in its chain');
      }
      this.#next[other] = this.#next[id]!;
    }
    this.#next[id] = this.#free;
    this.#free = id;
    this.count--;
  }

  #is(id: number, words: Int32Array, flow: number, ports: number, hash: number): boolean {
    const ours = this.words;
    const at = id * STRIDE;
    if (ours[at + HASH] !== hash || ours[at + PORTS] !== ports) return false;
    for (let i = 0; i < FLOW_WORDS; i++) if (ours[at + i] !== words[flow + i]) return false;
    return true;
  }

  /** Of an IPv4 flow, two words are all that differs between peers. */
  #hash(words: Int32Array, flow: number, ports: number): number {
    if (isMappedIpv4(words, flow + 4)) {
      return this.#keyed.hash(words, flow + 7, 1, words[flow + 3]!, ports, PURPOSE.table);
    }
    return this.#keyed.hash(words, flow, FLOW_WORDS, 0, ports, PURPOSE.table);
  }

  #link(id: number): void {
    const bucket = this.words[id * STRIDE + HASH]! & (this.#buckets.length - 1);
    this.#next[id] = this.#buckets[bucket]!;
    this.#buckets[bucket] = id;
  }

  /** Twice the size. Only when every id so far is in use: all chains are made anew. */
  #grow(): void {
    const size = this.#next.length * 2;
    const words = new Int32Array(size * STRIDE);
    words.set(this.words);
    this.words = words;
    this.#buckets = new Int32Array(size).fill(NO_FLOW);
    const used = this.#next.length;
    this.#next = new Int32Array(size).fill(NO_FLOW);
    for (let id = 0; id < used; id++) this.#link(id);
  }
}
