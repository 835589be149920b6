/**
 * The driver's side of a split virtqueue (virtio 1.2, section 2.7) over the shared views of a region.
 *
 *            #outstanding
 *   add() ──► avail.ring ──► device ──► used.ring ──► get()      ids go round: free stack, outstanding, free stack
 *   publish() moves avail.idx               peek() reads used.idx
 *
 * - One buffer is one descriptor, with its id free, or outstanding (the device has it). `append` chains buffers to the one
 *   before; no indirect tables.
 * - What the device may write is never read back as truth: addresses and lengths are kept in private arrays, and
 *   `used` entries are checked against them. A device that lies breaks its queue, and only that.
 * - Indices run free modulo 2^16 and are masked on access. `publish` is the one atomic store of a batch, `peek` the
 *   one atomic load.
 * - Nothing here allocates after the constructor. One thread owns one object.
 */
import { assert } from '../base/assert.ts';
import {
  DESC_F_NEXT,
  DESC_F_WRITE,
  isRingSize,
  needsEvent,
  RING_ENTRIES,
  RING_FLAGS,
  RING_IDX,
  USED_ENTRY_SIZE,
} from './split-layout.ts';

/** VIRTQ_AVAIL_F_NO_INTERRUPT and VIRTQ_USED_F_NO_NOTIFY (sections 2.7.6, 2.7.8): the peer need not be woken. */
const F_NO_WAKE = 1;
/** Half of the index space ahead: an event that does not come until 32,768 more entries have been used. */
const EVENT_FAR = 0x8000;

/** What `get` returns when the device broke the protocol. */
export const RING_BROKEN = -1;
/** What `getMore` returns at the end of a chain. */
export const CHAIN_END = -1;

/** States of an id: free; given to the device as the head of a chain, or as a buffer behind one. */
const FREE = 0;
const HEAD = 1;
const BEHIND = 2;

/** The views of a region that a ring needs, both from its byte 0. */
export interface RingViews {
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
}

export interface SplitDriverOptions {
  /** Byte offsets of the three parts in the region, as `splitLayout` gives them. */
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  /** Entries; a power of two. */
  readonly size: number;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  readonly eventIdx: boolean;
  /** The device writes into the buffers (receive), or reads them (transmit). */
  readonly deviceWrites: boolean;
}

export class SplitDriver {
  readonly size: number;
  /** Protocol violations of the device; the first one breaks the queue for good. */
  violations = 0;
  /** Bytes that the device wrote into the buffer of the last `get`. Meaningless where the device only reads. */
  length = 0;

  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;
  readonly #mask: number;
  readonly #eventIdx: boolean;
  readonly #deviceWrites: boolean;
  readonly #descWord: number;
  readonly #availFlags: number;
  readonly #availIdx: number;
  readonly #availRing: number;
  readonly #usedEvent: number;
  readonly #usedFlags: number;
  readonly #usedIdx: number;
  readonly #usedRingWord: number;
  readonly #availEvent: number;

  readonly #freeIds: Uint16Array;
  #freeDepth: number;
  readonly #idState: Uint8Array;
  /** The id behind each in its chain; -1: it is the last. */
  readonly #behind: Int32Array;
  /** The id of the last `add` or `append`; the next one of the chain that `get` took from. */
  #last = -1;
  #chain = -1;
  readonly #addresses: Uint32Array;
  readonly #lengths: Uint32Array;

  /** Next entry of avail.ring to write; avail.idx as last published; avail.idx when `needsKick` last looked. */
  #availNext = 0;
  #availPublished = 0;
  #availNotified = 0;
  /** Next entry of used.ring to read, and entries known to be ready from there. */
  #usedNext = 0;
  #usedReady = 0;

  /** Takes over the (zeroed) ring memory and writes its initial state. Nothing is outstanding. */
  constructor(views: RingViews, options: SplitDriverOptions) {
    const { desc, avail, used, size } = options;
    assert(isRingSize(size), 'ring size is a power of two within bounds');
    assert(desc % 16 === 0 && avail % 2 === 0 && used % 4 === 0, 'ring parts are aligned');
    this.size = size;
    this.#u16 = views.u16;
    this.#u32 = views.u32;
    this.#mask = size - 1;
    this.#eventIdx = options.eventIdx;
    this.#deviceWrites = options.deviceWrites;
    this.#descWord = desc / 4;
    this.#availFlags = (avail + RING_FLAGS) / 2;
    this.#availIdx = (avail + RING_IDX) / 2;
    this.#availRing = (avail + RING_ENTRIES) / 2;
    this.#usedEvent = (avail + RING_ENTRIES) / 2 + size;
    this.#usedFlags = (used + RING_FLAGS) / 2;
    this.#usedIdx = (used + RING_IDX) / 2;
    this.#usedRingWord = (used + RING_ENTRIES) / 4;
    this.#availEvent = (used + RING_ENTRIES + USED_ENTRY_SIZE * size) / 2;
    this.#freeIds = new Uint16Array(size);
    for (let i = 0; i < size; i++) this.#freeIds[i] = size - 1 - i;
    this.#freeDepth = size;
    this.#idState = new Uint8Array(size);
    this.#behind = new Int32Array(size).fill(-1);
    this.#addresses = new Uint32Array(size);
    this.#lengths = new Uint32Array(size);
    this.disarm();
  }

  get broken(): boolean {
    return this.violations > 0;
  }

  /** Descriptors free for `add`. */
  get free(): number {
    return this.#freeDepth;
  }

  /** Buffers that the device has, those not yet published included. */
  get outstanding(): number {
    return this.size - this.#freeDepth;
  }

  /**
   * The device is no more: the address of every buffer that it had goes to `give`, and whether it began a chain. This
   * object is of no use afterwards; another takes over the ring, zeroed.
   */
  takeBack(give: (address: number, isHead: boolean) => void): void {
    for (let id = 0; id < this.size; id++) {
      const state = this.#idState[id];
      if (state !== FREE) give(this.#addresses[id]!, state === HEAD);
    }
    this.#idState.fill(FREE);
    this.#freeDepth = 0;
  }

  /** Give the device `length` bytes at `address` of the region, from the next `publish` on. False when the ring is full. */
  add(address: number, length: number): boolean {
    if (this.#freeDepth === 0) return false;
    const id = this.#describe(address, length, HEAD);
    this.#u16[this.#availRing + (this.#availNext & this.#mask)] = id;
    this.#availNext = (this.#availNext + 1) & 0xffff;
    return true;
  }

  /** The same, as a part of the chain that the last `add` began, which is not yet published. The ring has room. */
  append(address: number, length: number): void {
    assert(this.#freeDepth > 0 && this.#availNext !== this.#availPublished, 'a chain is begun');
    const before = this.#last;
    const id = this.#describe(address, length, BEHIND);
    this.#behind[before] = id;
    const at = this.#descWord + (before << 2) + 3;
    this.#u32[at] = (this.#u32[at]! & 0xffff) | DESC_F_NEXT | (id << 16);
  }

  #describe(address: number, length: number, state: number): number {
    const id = this.#freeIds[--this.#freeDepth]!;
    this.#last = id;
    this.#idState[id] = state;
    this.#behind[id] = -1;
    this.#addresses[id] = address;
    this.#lengths[id] = length;
    const u32 = this.#u32;
    const at = this.#descWord + (id << 2);
    u32[at] = address;
    u32[at + 1] = 0;
    u32[at + 2] = length;
    u32[at + 3] = this.#deviceWrites ? DESC_F_WRITE : 0;
    return id;
  }

  /** Let the device see everything added. Once per batch. */
  publish(): void {
    if (this.#availNext === this.#availPublished) return;
    this.#availPublished = this.#availNext;
    Atomics.store(this.#u16, this.#availIdx, this.#availNext);
  }

  /**
   * Whether the device asked to be woken for what was published since the last call (sections 2.7.7.2, 2.7.10).
   * The store of `publish` and the load here are sequentially consistent, which is the barrier of section 2.7.13.4.1.
   */
  needsKick(): boolean {
    const before = this.#availNotified;
    const now = this.#availPublished;
    if (before === now) return false;
    this.#availNotified = now;
    if (this.#eventIdx) {
      return needsEvent(Atomics.load(this.#u16, this.#availEvent), now, before);
    }
    return (Atomics.load(this.#u16, this.#usedFlags) & F_NO_WAKE) === 0;
  }

  /** Used entries ready for `get`; 0 as well when the ring is broken. */
  peek(): number {
    if (this.violations > 0) return 0;
    const ready = (Atomics.load(this.#u16, this.#usedIdx) - this.#usedNext) & 0xffff;
    if (ready > this.size - this.#freeDepth) {
      // More than the device was given: also an index that jumped, or ran backwards.
      this.violations++;
      return 0;
    }
    this.#usedReady = ready;
    return ready;
  }

  /**
   * Take the next of the entries that `peek` promised: the address it was added with, and in `length` what the device
   * wrote. The buffer is the caller's again. RING_BROKEN when the entry is not one that the device was given.
   */
  get(): number {
    assert(this.#usedReady > 0, 'get only what peek promised');
    const at = this.#usedRingWord + ((this.#usedNext & this.#mask) << 1);
    const id = this.#u32[at]!;
    const length = this.#u32[at + 1]!;
    // Section 2.7.8: `len` counts bytes written, so it says nothing (and older devices put anything) where we send.
    if (
      id >= this.size ||
      this.#idState[id] !== HEAD ||
      (this.#deviceWrites && length > this.#lengths[id]!)
    ) {
      this.violations++;
      this.#usedReady = 0;
      return RING_BROKEN;
    }
    this.#usedNext = (this.#usedNext + 1) & 0xffff;
    this.#usedReady--;
    this.#chain = this.#behind[id]!;
    this.length = length;
    return this.#release(id);
  }

  /** The address of the next buffer of the chain that `get` took from, which is the caller's again, or CHAIN_END. */
  getMore(): number {
    const id = this.#chain;
    if (id < 0) return CHAIN_END;
    this.#chain = this.#behind[id]!;
    return this.#release(id);
  }

  /**
   * Of the entry that is `ahead` further on than the one that `get` would take, of those that `peek` promised: the address
   * that it was added with, or RING_BROKEN.
   */
  addressAhead(ahead: number): number {
    assert(ahead < this.#usedReady, 'look only at what peek promised');
    const at = this.#usedRingWord + (((this.#usedNext + ahead) & this.#mask) << 1);
    const id = this.#u32[at]!;
    if (id < this.size && this.#idState[id] === HEAD) return this.#addresses[id]!;
    this.violations++;
    this.#usedReady = 0;
    return RING_BROKEN;
  }

  #release(id: number): number {
    this.#idState[id] = FREE;
    this.#freeIds[this.#freeDepth++] = id;
    return this.#addresses[id]!;
  }

  /** Ask to be called with the next used entry. False when there is one already, or the ring is broken. */
  arm(): boolean {
    if (this.violations > 0) return false;
    if (this.#eventIdx) Atomics.store(this.#u16, this.#usedEvent, this.#usedNext);
    else Atomics.store(this.#u16, this.#availFlags, 0);
    return Atomics.load(this.#u16, this.#usedIdx) === this.#usedNext;
  }

  /** Ask not to be called. With VIRTIO_F_EVENT_IDX a call may still come once in 65,536 entries. */
  disarm(): void {
    if (this.#eventIdx) this.#u16[this.#usedEvent] = (this.#usedNext + EVENT_FAR) & 0xffff;
    else this.#u16[this.#availFlags] = F_NO_WAKE;
  }
}
