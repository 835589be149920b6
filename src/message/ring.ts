/**
 * A ring of messages between one producer and one consumer that do not trust each other (layout.ts draws it).
 *
 *   reserve ─► write in place ─► commit ... publish ═══► receive ─► read in place ... release
 *              └────────── a batch ────────┘                └───────── a batch ────────┘
 *   empty: tail == head     full: tail - head > capacity - record     (counters of bytes, modulo 2^32)
 *
 * - `publish` and `release` are the only atomic stores, once a batch. Each side keeps a copy of the other's counter and
 *   looks again only when that copy says full, or empty.
 * - What the peer may write is read once, checked, then used. A counter out of bounds or a length that does not fit
 *   stops the ring for good, and `fault` says why. Payloads may change while they are read: copy before you trust.
 * - Nothing here allocates after the constructor, except the text of a fault. One thread owns one end.
 */
import { assert } from '../base/assert.ts';
import { ArrakisError } from '../base/errors.ts';
import {
  CLOSED,
  CONSUMER_ARMED,
  DATA,
  HEAD,
  isRingCapacity,
  type LinkMemory,
  messageBytesMax,
  PRODUCER_ARMED,
  RECORD_ALIGN,
  RECORD_HEADER,
  SKIP,
  TAIL,
} from './layout.ts';

/** What `receive` returns when there is nothing, and what `reserve` returns when there is no room. */
export const NONE = -1;

const padded = (bytes: number): number => (bytes + RECORD_ALIGN - 1) & -RECORD_ALIGN;

/** The producer's end of the ring at byte `at` of `memory`. */
export class RingSender {
  /** Longest message, bytes. */
  readonly lengthMax: number;
  /** What the consumer did wrong; null while it behaves. Afterwards nothing is sent. */
  fault: string | null = null;
  readonly #words: Int32Array;
  readonly #bytes: Buffer;
  readonly #capacity: number;
  readonly #mask: number;
  readonly #data: number;
  readonly #tailWord: number;
  readonly #headWord: number;
  readonly #armedWord: number;
  readonly #waitWord: number;
  /** Where the next record goes, what is published, and how far the consumer was when last looked at. */
  #write = 0;
  #published = 0;
  #head = 0;
  /** Record under construction: its word, and the room that was reserved for it. */
  #recordWord = 0;
  #reserved = NONE;

  constructor(memory: LinkMemory, at: number, capacity: number) {
    assert(isRingCapacity(capacity) && at % 8 === 0, 'a ring is a power of two and aligned');
    assert(at + DATA + capacity <= memory.bytes.length, 'the ring lies in its memory');
    this.lengthMax = messageBytesMax(capacity);
    this.#words = memory.words;
    this.#bytes = memory.bytes;
    this.#capacity = capacity;
    this.#mask = capacity - 1;
    this.#data = at + DATA;
    this.#tailWord = (at + TAIL) / 4;
    this.#headWord = (at + HEAD) / 4;
    this.#armedWord = (at + CONSUMER_ARMED) / 4;
    this.#waitWord = (at + PRODUCER_ARMED) / 4;
  }

  /**
   * Room for a message of up to `length` bytes: the offset in the memory to write it at, or NONE while the ring is full.
   * ARK_LIMIT when it is longer than `lengthMax`: messages are not cut in pieces. A new reservation replaces the last.
   */
  reserve(length: number): number {
    requireFits(length, this.lengthMax);
    const need = padded(RECORD_HEADER + length);
    let place = this.#write & this.#mask;
    const toEnd = this.#capacity - place;
    const total = need > toEnd ? toEnd + need : need;
    if (total > this.#capacity - ((this.#write - this.#head) | 0) && !this.#hasRoom(total)) {
      return NONE;
    }
    if (need > toEnd) {
      this.#words[(this.#data + place) >> 2] = SKIP;
      this.#write = (this.#write + toEnd) | 0;
      place = 0;
    }
    this.#recordWord = (this.#data + place) >> 2;
    this.#reserved = length;
    return this.#data + place + RECORD_HEADER;
  }

  /** The reserved message is complete with `length` bytes, at most what was reserved. `tag`: any int32 for the reader. */
  commit(length: number, tag = 0): void {
    assert(length >= 0 && length <= this.#reserved, 'commit what was reserved');
    this.#reserved = NONE;
    this.#words[this.#recordWord] = length;
    this.#words[this.#recordWord + 1] = tag;
    this.#write = (this.#write + padded(RECORD_HEADER + length)) | 0;
  }

  /** Copy `length` bytes of `source` in. False while the ring is full. ARK_LIMIT as `reserve`. */
  send(source: Uint8Array, length = source.length, tag = 0): boolean {
    const at = this.reserve(length);
    if (at < 0) return false;
    if (length === source.length) this.#bytes.set(source, at);
    else for (let i = 0; i < length; i++) this.#bytes[at + i] = source[i]!;
    this.commit(length, tag);
    return true;
  }

  /** Let the consumer see everything committed; once a batch. True when it sleeps: ring its bell. */
  publish(): boolean {
    if (this.#write === this.#published) return false;
    this.#published = this.#write;
    // Both sequentially consistent: either we see its flag, or it sees this tail when it looks after arming.
    Atomics.store(this.#words, this.#tailWord, this.#write);
    if (Atomics.load(this.#words, this.#armedWord) === 0) return false;
    return Atomics.exchange(this.#words, this.#armedWord, 0) !== 0;
  }

  /** Ask for the bell when there is more room. False when there is already: look again. */
  arm(): boolean {
    const head = this.#head;
    Atomics.store(this.#words, this.#waitWord, 1);
    if (Atomics.load(this.#words, this.#headWord) === head) return true;
    this.disarm();
    return false;
  }

  disarm(): void {
    Atomics.store(this.#words, this.#waitWord, 0);
  }

  /** The consumer has said that it will read no more. */
  get peerClosed(): boolean {
    return Atomics.load(this.#words, this.#headWord + CLOSED / 4) !== 0;
  }

  /** Say that nothing more will come. */
  close(): void {
    Atomics.store(this.#words, this.#tailWord + CLOSED / 4, 1);
  }

  /** Look where the consumer is. */
  #hasRoom(total: number): boolean {
    if (this.fault !== null) return false;
    const head = Atomics.load(this.#words, this.#headWord);
    // It lies between where it was and what is published when neither difference is negative.
    const moved = (head - this.#head) | 0;
    const left = (this.#published - head) | 0;
    if (moved < 0 || left < 0 || (head & (RECORD_ALIGN - 1)) !== 0) {
      this.fault = `the reader's position ${head >>> 0} is not between where it was and what was sent`;
      return false;
    }
    this.#head = head;
    return total <= this.#capacity - ((this.#write - head) | 0);
  }
}

/** The consumer's end of the ring at byte `at` of `memory`. */
export class RingReceiver {
  readonly lengthMax: number;
  /** What the producer did wrong; null while it behaves. Afterwards nothing is received. */
  fault: string | null = null;
  /** Of the last message received: where its payload starts in the memory, and its tag. */
  offset = 0;
  tag = 0;
  readonly #words: Int32Array;
  readonly #capacity: number;
  readonly #mask: number;
  readonly #data: number;
  readonly #tailWord: number;
  readonly #headWord: number;
  readonly #armedWord: number;
  readonly #waitWord: number;
  /** Next record to read, how far the producer was when last looked at, and what was given back. */
  #read = 0;
  #tail = 0;
  #released = 0;

  constructor(memory: LinkMemory, at: number, capacity: number) {
    assert(isRingCapacity(capacity) && at % 8 === 0, 'a ring is a power of two and aligned');
    assert(at + DATA + capacity <= memory.bytes.length, 'the ring lies in its memory');
    this.lengthMax = messageBytesMax(capacity);
    this.#words = memory.words;
    this.#capacity = capacity;
    this.#mask = capacity - 1;
    this.#data = at + DATA;
    this.#tailWord = (at + TAIL) / 4;
    this.#headWord = (at + HEAD) / 4;
    this.#armedWord = (at + CONSUMER_ARMED) / 4;
    this.#waitWord = (at + PRODUCER_ARMED) / 4;
  }

  /**
   * The length of the next message, whose payload stands at `offset` until `release`; NONE when there is none. NONE also
   * when the producer broke the ring: look at `fault` before going to sleep.
   */
  receive(): number {
    if (this.#read === this.#tail && !this.#look()) return NONE;
    let place = this.#read & this.#mask;
    let word = (this.#data + place) >> 2;
    let length = this.#words[word]!;
    if (length === SKIP) {
      const toEnd = this.#capacity - place;
      // A whole record follows a skip, except when its writer was stopped between the two.
      if (toEnd > ((this.#tail - this.#read) | 0)) return this.#broken('a skip', toEnd);
      this.#read = (this.#read + toEnd) | 0;
      if (this.#read === this.#tail) return NONE;
      place = 0;
      word = this.#data >> 2;
      length = this.#words[word]!;
    }
    if (length < 0 || length > this.lengthMax) return this.#broken('a message', length);
    const size = padded(RECORD_HEADER + length);
    if (size > this.#capacity - place || size > ((this.#tail - this.#read) | 0)) {
      return this.#broken('a message', length);
    }
    this.tag = this.#words[word + 1]!;
    this.offset = this.#data + place + RECORD_HEADER;
    this.#read = (this.#read + size) | 0;
    return length;
  }

  /** Give back everything received; once a batch. True when the producer waits for room: ring its bell. */
  release(): boolean {
    if (this.#read === this.#released) return false;
    this.#released = this.#read;
    Atomics.store(this.#words, this.#headWord, this.#read);
    if (Atomics.load(this.#words, this.#waitWord) === 0) return false;
    return Atomics.exchange(this.#words, this.#waitWord, 0) !== 0;
  }

  /** Ask for the bell with the next message. False when there is one already, or the ring is broken: look again. */
  arm(): boolean {
    if (this.fault !== null || this.#read !== this.#tail) return false;
    Atomics.store(this.#words, this.#armedWord, 1);
    if (Atomics.load(this.#words, this.#tailWord) === this.#tail) return true;
    this.disarm();
    return false;
  }

  disarm(): void {
    Atomics.store(this.#words, this.#armedWord, 0);
  }

  /** The producer has said that nothing more will come; what it sent before is still to be received. */
  get peerClosed(): boolean {
    return Atomics.load(this.#words, this.#tailWord + CLOSED / 4) !== 0;
  }

  /** Say that nothing more will be read. */
  close(): void {
    Atomics.store(this.#words, this.#headWord + CLOSED / 4, 1);
  }

  /** True when the producer has published more. */
  #look(): boolean {
    const tail = Atomics.load(this.#words, this.#tailWord);
    if (tail === this.#tail || this.fault !== null) return false;
    const ready = (tail - this.#read) | 0;
    if (ready < 0 || ready > this.#capacity || (tail & (RECORD_ALIGN - 1)) !== 0) {
      this.fault = `the writer's position ${tail >>> 0} is further than its ring is long`;
      return false;
    }
    this.#tail = tail;
    return ready > 0;
  }

  #broken(what: string, length: number): number {
    this.fault = `the writer announced ${what} of ${length >>> 0} bytes, which does not fit`;
    this.#tail = this.#read;
    return NONE;
  }
}

/** Throws ARK_LIMIT for a message of `length` bytes where `most` fit. */
export function requireFits(length: number, most: number): void {
  if (length >= 0 && length <= most) return;
  throw new ArrakisError('ARK_LIMIT', `a message of ${length} bytes; at most ${most} fit`, {
    hint: 'have the listener offer larger rings, or put the bytes in a region and send where they are',
  });
}
