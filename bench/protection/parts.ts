/**
 * The software NIC with one mechanism of protection taken out, for measuring what it costs. Only the device processes of
 * this benchmark (device.ts) are made of these parts: the product's has no way to choose them.
 */
import { ARENA_BYTES, type Arena } from '../../src/ffi/arena.ts';
import {
  type GuestMemory,
  SplitDevice,
  type SplitDeviceOptions,
} from '../../src/ring/split-device.ts';
import { DESC_F_WRITE, NET_HEADER_LEN, needsEvent } from '../../src/ring/split-layout.ts';
import { FilterSet, FrameFields } from '../../src/softnic/match.ts';
import type { FrameWindow, Offload, Staging } from '../../src/softnic/offload.ts';
import type { Pace } from '../../src/softnic/pace.ts';
import { QueuePair } from '../../src/softnic/pair.ts';
import { NIC_PARTS, type NicParts } from '../../src/softnic/parts.ts';
import type { FrameSink, Port } from '../../src/softnic/port.ts';
import { Switch } from '../../src/softnic/switch.ts';

/**
 * A ring whose driver is believed: no index and no address is compared with anything, and a chain is one descriptor in
 * the first region of the memory. Event indices are in use.
 */
export class TrustingRing extends SplitDevice {
  readonly #arena: Arena;
  readonly #mask: number;
  readonly #delta: number;
  readonly #desc32: number;
  readonly #avail16: number;
  readonly #used16: number;
  readonly #used32: number;
  #next: number;
  #seen: number;
  #head = 0;
  #used: number;
  #published: number;

  constructor(arena: Arena, memory: GuestMemory, options: SplitDeviceOptions) {
    super(arena, memory, options);
    const [region] = memory.regions;
    this.#arena = arena;
    this.#mask = options.size - 1;
    this.#delta = region!.at - region!.guestAddress;
    this.#desc32 = options.desc / 4;
    this.#avail16 = options.avail / 2;
    this.#used16 = options.used / 2;
    this.#used32 = options.used / 4;
    this.#next = this.#seen = this.#used = this.#published = options.base & 0xffff;
  }

  override get base(): number {
    return this.#next;
  }

  override get violation(): number {
    return 0;
  }

  override available(): number {
    this.#seen = Atomics.load(this.#arena.u16, this.#avail16 + 1);
    return (this.#seen - this.#next) & 0xffff;
  }

  override ready(): number {
    const known = (this.#seen - this.#next) & 0xffff;
    return known > 0 ? known : this.available();
  }

  override take(): number {
    const { u16, u32 } = this.#arena;
    this.#head = u16[this.#avail16 + 2 + (this.#next & this.#mask)]!;
    const at = this.#desc32 + this.#head * 4;
    const length = u32[at + 2]!;
    this.segmentAt[0] = u32[at]! + this.#delta;
    this.segmentLength[0] = length;
    this.segmentCount = 1;
    this.readableCount = (u32[at + 3]! & DESC_F_WRITE) === 0 ? 1 : 0;
    this.#next = (this.#next + 1) & 0xffff;
    return length;
  }

  override untake(): void {
    this.#next = (this.#next - 1) & 0xffff;
  }

  override complete(written: number): void {
    const { u32 } = this.#arena;
    const at = this.#used32 + 1 + (this.#used & this.#mask) * 2;
    u32[at] = this.#head;
    u32[at + 1] = written;
    this.#used = (this.#used + 1) & 0xffff;
  }

  override publish(): boolean {
    const before = this.#published;
    const now = this.#used;
    if (now === before) return false;
    const { u16 } = this.#arena;
    Atomics.store(u16, this.#used16 + 1, now);
    this.#published = now;
    return needsEvent(u16[this.#avail16 + 2 + this.size]!, now, before);
  }

  override arm(): boolean {
    Atomics.store(this.#arena.u16, this.#used16 + 2 + 4 * this.size, this.#next);
    return this.available() === 0;
  }

  /** Called by the constructor of the class above as well, before there is anything to disarm. */
  override disarm(): void {
    if (!(#next in this)) return;
    this.#arena.u16[this.#used16 + 2 + 4 * this.size] = (this.#next - 1) & 0xffff;
  }
}

/** Leaves frames where the application may still change them: what is checked need not be what is delivered. */
export class SharingPair extends QueuePair {
  readonly #port: Port;

  constructor(port: Port, index: number, arena: Arena, staging: Staging, pace: Pace) {
    super(port, index, arena, staging, pace);
    this.#port = port;
  }

  protected override takeFrame(tx: SplitDevice, total: number, sink: FrameSink): void {
    // Bounds as in the class above; frames of several pieces are not what this benchmark sends.
    const length = total - NET_HEADER_LEN;
    if (length < 14 || length > this.#port.frameLengthMax || tx.segmentCount !== 1) return;
    sink.fromPort(this.#port, tx.segmentAt[0]! + NET_HEADER_LEN, length, this.offload);
  }
}

/** Frames are read anywhere in the memory of all. */
const everywhere = (arena: Arena): FrameWindow => ({
  base: 0,
  view: new DataView(arena.u8.buffer, 0, ARENA_BYTES),
});

/** A VNIC sends as whom it likes. */
class SpoofingFilters extends FilterSet {
  override checkSent(): number {
    return -1;
  }
}

/** A VNIC receives all that has its MAC address. */
class PromiscuousFilters extends FilterSet {
  override receives(): boolean {
    return true;
  }
}

/** A wire with addresses: of a frame for one port it reads the destination's MAC address, and nothing else. */
class AddressSwitch extends Switch {
  readonly #window: FrameWindow;
  readonly #unread = new FrameFields();

  constructor(window: FrameWindow) {
    super(window);
    this.#window = window;
  }

  override fromPort(port: Port, at: number, length: number, offload: Offload): void {
    const { view, base } = this.#window;
    const to = this.find(view.getUint16(at - base), view.getUint32(at - base + 2));
    if (to === null) {
      super.fromPort(port, at, length, offload);
      return;
    }
    port.txPackets++;
    port.txBytes += length;
    to.deliver(at, length, this.#unread, offload);
  }
}

/** The parts of a device without the mechanism, by its name. */
export const PARTS_WITHOUT = {
  nothing: NIC_PARTS,
  'descriptor checks': { ...NIC_PARTS, Ring: TrustingRing },
  'private copy': { ...NIC_PARTS, Pair: SharingPair, window: everywhere },
  'send check': { ...NIC_PARTS, Filters: SpoofingFilters },
  'receive filter': { ...NIC_PARTS, Filters: PromiscuousFilters },
  'reading headers': { ...NIC_PARTS, Switch: AddressSwitch },
  everything: {
    ...NIC_PARTS,
    Ring: TrustingRing,
    Pair: SharingPair,
    Switch: AddressSwitch,
    window: everywhere,
  },
} as const satisfies Record<string, NicParts>;

export type PartsName = keyof typeof PARTS_WITHOUT;
