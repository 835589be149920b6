/**
 * The device's side of a split virtqueue (virtio 1.2, section 2.7), in memory that a hostile driver may change at
 * any time.
 *
 * - Every field of the driver's is read once into a local, checked, then used. What is checked is never read again.
 * - An address is trusted only as the arena offset that `GuestMemory.translate` made of it.
 * - A violation is a negative code. The queue then stays broken: every call returns it, and nothing more is written.
 * - Chains are completed in the order in which they were taken, several at a time where one frame fills several. One
 *   thread owns the object.
 *
 *        used        next       avail
 *   ------|-----------|-----------|------>     completed < `used` <= taken < `next` <= made available
 */
import { assert } from '../base/assert.ts';
import type { Arena } from '../ffi/arena.ts';
import {
  AVAIL_ALIGN,
  availBytes,
  DESC_ALIGN,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  descBytes,
  isRingSize,
  needsEvent,
  USED_ALIGN,
  usedBytes,
} from './split-layout.ts';
import { type MemRegion, REGIONS_MAX } from './vhost-user.ts';

/** What a driver did wrong. Codes are negative so that a count and a violation share a return value. */
export const VIOLATION = {
  /** avail.idx moved further than the ring is long. */
  indexJump: -1,
  /** A head or a `next` is not an index of the table. */
  outOfTable: -2,
  /** More descriptors in a chain than in the table: it loops. */
  loop: -3,
  /** An indirect descriptor, which was not negotiated. */
  indirect: -4,
  /** A buffer that lies in no registered region. */
  outsideMemory: -5,
  /** A device-readable descriptor after a writable one, or a whole chain in the wrong direction. */
  direction: -6,
  /** A chain of more descriptors than this device takes. */
  longChain: -7,
} as const satisfies Record<string, number>;
export type Violation = (typeof VIOLATION)[keyof typeof VIOLATION];

/** Name of a violation code, for events and logs. */
export function violationName(code: number): string {
  return Object.entries(VIOLATION).find(([, value]) => value === code)?.[0] ?? `code ${code}`;
}

/** A region of the driver's memory and where the arena has it. */
export interface MappedRegion extends MemRegion {
  readonly at: number;
}

/** The memory that one driver registered: the device's IOMMU table. */
export class GuestMemory {
  readonly regions: readonly MappedRegion[];
  readonly #first = new Float64Array(REGIONS_MAX);
  readonly #end = new Float64Array(REGIONS_MAX);
  readonly #delta = new Float64Array(REGIONS_MAX);
  readonly #count: number;

  constructor(regions: readonly MappedRegion[]) {
    assert(regions.length <= REGIONS_MAX, 'no more regions than the protocol has');
    this.regions = regions;
    this.#count = regions.length;
    regions.forEach((region, i) => {
      this.#first[i] = region.guestAddress;
      this.#end[i] = region.guestAddress + region.size;
      this.#delta[i] = region.at - region.guestAddress;
    });
  }

  /**
   * Arena offset of the guest range [lo + hi * 2^32, + length), or -1 when no single region holds all of it.
   * An address of 2^53 or more is rounded here, but stays above the end of every region.
   */
  translate(lo: number, hi: number, length: number): number {
    const address = hi * 0x1_0000_0000 + lo;
    for (let i = 0; i < this.#count; i++) {
      if (address >= this.#first[i]! && address + length <= this.#end[i]!) {
        return address + this.#delta[i]!;
      }
    }
    return -1;
  }

  /** The same for an address of the front-end's own address space, in which ring addresses are given. */
  translateUser(address: number, length: number): number {
    for (const region of this.regions) {
      const offset = address - region.userAddress;
      if (offset >= 0 && offset + length <= region.size) return region.at + offset;
    }
    return -1;
  }
}

/** Where a ring lies, as arena offsets, and how it is run. */
export interface SplitDeviceOptions {
  size: number;
  desc: number;
  avail: number;
  used: number;
  /** First entry of the available ring to take; the used ring goes on from the same count. */
  base: number;
  /** Descriptors that a chain may have; without it, as many as the ring. */
  segmentsMax?: number;
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. */
  eventIdx: boolean;
}

/** Arena offsets of a ring's parts from its user addresses; null when one is misaligned or outside the memory. */
export function locateRing(
  memory: GuestMemory,
  size: number,
  addr: { desc: number; avail: number; used: number },
): { desc: number; avail: number; used: number } | null {
  if (!isRingSize(size)) return null;
  const desc = memory.translateUser(addr.desc, descBytes(size));
  const avail = memory.translateUser(addr.avail, availBytes(size));
  const used = memory.translateUser(addr.used, usedBytes(size));
  if (desc < 0 || avail < 0 || used < 0) return null;
  if (desc % DESC_ALIGN !== 0 || avail % AVAIL_ALIGN !== 0 || used % USED_ALIGN !== 0) return null;
  return { desc, avail, used };
}

const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;

export class SplitDevice {
  readonly size: number;
  /** The chain that `take` found: `segmentCount` pieces, the first `readableCount` of them for the device to read. */
  readonly segmentAt: Uint32Array;
  readonly segmentLength: Uint32Array;
  segmentCount = 0;
  readableCount = 0;

  readonly #arena: Arena;
  readonly #memory: GuestMemory;
  readonly #segmentsMax: number;
  readonly #eventIdx: boolean;
  readonly #mask: number;
  // Indices into the arena's u16 and u32 views.
  readonly #desc32: number;
  readonly #avail16: number;
  readonly #used16: number;
  readonly #used32: number;
  #next: number;
  #seen: number;
  #head = 0;
  #used: number;
  #published: number;
  #violation = 0;

  constructor(arena: Arena, memory: GuestMemory, options: SplitDeviceOptions) {
    assert(isRingSize(options.size), 'a ring size is a power of two');
    assert(options.desc % DESC_ALIGN === 0 && options.used % USED_ALIGN === 0, 'a ring is aligned');
    this.size = options.size;
    this.#segmentsMax = Math.min(options.segmentsMax ?? options.size, options.size);
    this.segmentAt = new Uint32Array(this.#segmentsMax);
    this.segmentLength = new Uint32Array(this.#segmentsMax);
    this.#arena = arena;
    this.#memory = memory;
    this.#eventIdx = options.eventIdx;
    this.#mask = options.size - 1;
    this.#desc32 = options.desc / 4;
    this.#avail16 = options.avail / 2;
    this.#used16 = options.used / 2;
    this.#used32 = options.used / 4;
    this.#next = options.base & 0xffff;
    this.#seen = this.#next;
    this.#used = this.#next;
    this.#published = this.#next;
    this.disarm();
  }

  /** Next entry of the available ring that would be taken: the vring base. */
  get base(): number {
    return this.#next;
  }

  /** 0, or why this queue is broken. */
  get violation(): number {
    return this.#violation;
  }

  /** Look at the driver's index once. Chains that wait to be taken, or a violation. */
  available(): number {
    if (this.#violation !== 0) return this.#violation;
    const index = Atomics.load(this.#arena.u16, this.#avail16 + 1);
    const pending = (index - this.#next) & 0xffff;
    if (pending > this.size) return this.broken(VIOLATION.indexJump);
    this.#seen = index;
    return pending;
  }

  /** Chains known from the last `available` and not yet taken; looks again only when there are none. */
  ready(): number {
    const known = (this.#seen - this.#next) & 0xffff;
    return known > 0 && this.#violation === 0 ? known : this.available();
  }

  /**
   * Take the next chain. The caller has seen that one is ready. Total bytes of its segments, or a violation. The
   * chain is to be ended by `complete` or put back by `untake` before the next is taken, or later by its `head`.
   */
  take(): number {
    if (this.#violation !== 0) return this.#violation;
    assert(this.#next !== this.#seen, 'a chain is taken only when one is ready');
    const { u16, u32 } = this.#arena;
    const head = u16[this.#avail16 + 2 + (this.#next & this.#mask)]!;
    if (head >= this.size) return this.broken(VIOLATION.outOfTable);
    this.#head = head;
    const at = this.#desc32 + head * 4;
    const length = u32[at + 2]!;
    const flags = u32[at + 3]!;
    if ((flags & (DESC_F_NEXT | DESC_F_INDIRECT)) !== 0) return this.#walk(head);
    const segment = this.#memory.translate(u32[at]!, u32[at + 1]!, length);
    if (segment < 0) return this.broken(VIOLATION.outsideMemory);
    this.segmentAt[0] = segment;
    this.segmentLength[0] = length;
    this.segmentCount = 1;
    this.readableCount = (flags & DESC_F_WRITE) === 0 ? 1 : 0;
    this.#next = (this.#next + 1) & 0xffff;
    return length;
  }

  /** Chains of more than one descriptor. */
  #walk(head: number): number {
    const { u32 } = this.#arena;
    let index = head;
    let count = 0;
    let readable = 0;
    let total = 0;
    for (;;) {
      if (count === this.#segmentsMax) {
        return this.broken(count === this.size ? VIOLATION.loop : VIOLATION.longChain);
      }
      const at = this.#desc32 + index * 4;
      const length = u32[at + 2]!;
      const flagsNext = u32[at + 3]!;
      if ((flagsNext & DESC_F_INDIRECT) !== 0) return this.broken(VIOLATION.indirect);
      const segment = this.#memory.translate(u32[at]!, u32[at + 1]!, length);
      if (segment < 0) return this.broken(VIOLATION.outsideMemory);
      if ((flagsNext & DESC_F_WRITE) === 0) {
        if (readable !== count) return this.broken(VIOLATION.direction);
        readable++;
      }
      this.segmentAt[count] = segment;
      this.segmentLength[count] = length;
      count++;
      total += length;
      if ((flagsNext & DESC_F_NEXT) === 0) break;
      index = flagsNext >>> 16;
      if (index >= this.size) return this.broken(VIOLATION.outOfTable);
    }
    this.segmentCount = count;
    this.readableCount = readable;
    this.#next = (this.#next + 1) & 0xffff;
    return total;
  }

  /** Put the chain that was just taken back: it will be taken again. */
  untake(): void {
    this.rewind(1);
  }

  /** Put the last `count` chains back, which were taken and not ended. */
  rewind(count: number): void {
    assert(((this.#next - this.#used) & 0xffff) >= count, 'so many chains are out');
    this.#next = (this.#next - count) & 0xffff;
  }

  /** The chain that was just taken, for `completeHead`: whoever takes several before ending them keeps it. */
  get head(): number {
    return this.#head;
  }

  /** End the chain that was just taken, with `written` bytes written into it. Seen by the driver after `publish`. */
  complete(written: number): void {
    this.completeHead(this.#head, written);
  }

  /** The same for a chain that was taken before, in the order of taking. */
  completeHead(head: number, written: number): void {
    assert(this.#next !== this.#used, 'a chain is out');
    const { u32 } = this.#arena;
    const at = this.#used32 + 1 + (this.#used & this.#mask) * 2;
    u32[at] = head;
    u32[at + 1] = written;
    this.#used = (this.#used + 1) & 0xffff;
  }

  /** Show the completed chains to the driver, once per batch. True when it wants to be called for them. */
  publish(): boolean {
    const before = this.#published;
    const now = this.#used;
    if (now === before || this.#violation !== 0) return false;
    const { u16 } = this.#arena;
    // The store is a full barrier: the driver's wish below is read after it.
    Atomics.store(u16, this.#used16 + 1, now);
    this.#published = now;
    if (this.#eventIdx) return needsEvent(u16[this.#avail16 + 2 + this.size]!, now, before);
    return (u16[this.#avail16]! & NO_INTERRUPT) === 0;
  }

  /** Ask the driver to kick for its next chain. False when one has come in between (or the queue is broken). */
  arm(): boolean {
    if (this.#violation !== 0) return true;
    if (this.#eventIdx) Atomics.store(this.#arena.u16, this.#availEvent, this.#next);
    else Atomics.store(this.#arena.u16, this.#used16, 0);
    return this.available() === 0;
  }

  /** The device polls: kicks are not needed. With an event index, one is still due every 2^16 chains. */
  disarm(): void {
    const { u16 } = this.#arena;
    if (this.#eventIdx) u16[this.#availEvent] = (this.#next - 1) & 0xffff;
    else u16[this.#used16] = NO_NOTIFY;
  }

  /** Stop for good. Also for what the device above finds wrong, such as a chain in the wrong direction. */
  broken(violation: Violation): Violation {
    this.#violation = violation;
    return violation;
  }

  get #availEvent(): number {
    return this.#used16 + 2 + 4 * this.size;
  }
}
