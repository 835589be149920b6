/**
 * The embedded switch: which port, or the uplink, gets a frame.
 *
 * - A frame from a port is checked against the port's filters before anybody sees it: a VNIC sends as itself only.
 * - Unicast goes to the port with that MAC, anything else to the uplink; never back to where it came from.
 * - An ARP request goes to the port that owns the address, and to the uplink. Other broadcast and multicast goes to
 *   the uplink and to the ports whose filters match. Nothing is flooded or learned.
 * - IPv6: a question who has an address goes to the port that has it, other groups to every port with IPv6 (ipv6.ts).
 * - Every delivery passes the receiver's filters.
 */
import { MAC_BROADCAST, macHi, macLo } from '../base/address.ts';
import { DROP, DROP_REASONS } from '../device/drops.ts';
import { Prefixes6 } from './ipv6.ts';
import { ETH_HEADER_LEN, FrameFields, KIND } from './match.ts';
import { type FrameWindow, GSO_FRAME_MAX, type Offload } from './offload.ts';
import type { FrameSink, Port } from './port.ts';
import type { Uplink } from './uplink.ts';

const TABLE_SIZE = 256;
const BROADCAST_HI = macHi(MAC_BROADCAST);
const BROADCAST_LO = macLo(MAC_BROADCAST);

/** Ports at most, so that the table stays at most a quarter full. */
export const PORTS_MAX = TABLE_SIZE / 4;

export class Switch implements FrameSink {
  uplink: Uplink | null = null;
  /** Frames from the uplink that nobody got, by reason. */
  readonly uplinkDrops = new Float64Array(DROP_REASONS.length);
  readonly #window: FrameWindow;
  readonly #frame = new FrameFields();
  readonly #prefixes = new Prefixes6();
  #ports: readonly Port[] = [];
  // Open addressing by MAC; 0 is empty, otherwise index of the port plus 1.
  readonly #slots = new Uint8Array(TABLE_SIZE);

  /** Frames are read from `window`, which is private memory of the device. */
  constructor(window: FrameWindow) {
    this.#window = window;
  }

  /** Put these ports, of different MACs, into the table. */
  setPorts(ports: readonly Port[]): void {
    this.#ports = ports;
    this.#slots.fill(0);
    ports.forEach((port, i) => {
      let slot = hash(port.filters.hi, port.filters.lo);
      while (this.#slots[slot] !== 0) slot = (slot + 1) % TABLE_SIZE;
      this.#slots[slot] = i + 1;
    });
  }

  /** A frame that `port` sends. */
  fromPort(port: Port, at: number, length: number, offload: Offload): void {
    const frame = this.#frame;
    const { view, base } = this.#window;
    const parsed = frame.parse(view, at - base, length);
    if (parsed < 0) {
      port.drops[-1 - parsed]!++;
      return;
    }
    const reason = port.filters.checkSent(frame, this.#window.view, this.#prefixes);
    if (reason >= 0) {
      port.drops[reason]!++;
      return;
    }
    if (offload.isSet && !this.#prepare(offload, at, length, port.frameLengthMax)) {
      port.drops[DROP.badOffload]!++;
      return;
    }
    port.txPackets += offload.segments(length);
    port.txBytes += length;
    if (frame.isToGroup) {
      this.#toMany(port, at, length, offload);
      this.uplink?.send(at, length, offload);
      return;
    }
    const to = this.find(frame.dstHi, frame.dstLo);
    if (to !== null) this.#toPort(to, at, length, offload);
    else if (this.uplink?.accepts(frame.dstHi, frame.dstLo)) {
      this.uplink.send(at, length, offload);
    } else port.drops[DROP.noDestination]!++;
  }

  /** A frame that came in by the uplink. */
  fromUplink(at: number, length: number, offload: Offload): void {
    const frame = this.#frame;
    const { view, base } = this.#window;
    const parsed = frame.parse(view, at - base, length);
    if (parsed < 0) {
      this.uplinkDrops[-1 - parsed]!++;
      return;
    }
    if (offload.isSet && !this.#prepare(offload, at, length, GSO_FRAME_MAX)) {
      this.uplinkDrops[DROP.badOffload]!++;
      return;
    }
    if (frame.kind === KIND.ipv6) {
      const packetAt = at - this.#window.base + ETH_HEADER_LEN;
      frame.ipv6.learnPrefixes(this.#window.view, packetAt, this.#prefixes);
    }
    if (frame.isToGroup) {
      this.#toMany(null, at, length, offload);
      return;
    }
    const to = this.find(frame.dstHi, frame.dstLo);
    if (to !== null) this.#toPort(to, at, length, offload);
    else this.uplinkDrops[DROP.noDestination]!++;
  }

  /** Hold the offloads against the frame, and finish what no receiver is to do. False when they lie. */
  #prepare(offload: Offload, at: number, length: number, frameLengthMax: number): boolean {
    if (!offload.check(this.#frame, at, length, frameLengthMax)) {
      offload.header.clear();
      return false;
    }
    offload.finishUdp(this.#frame, at, length);
    return true;
  }

  #toPort(port: Port, at: number, length: number, offload: Offload): void {
    const isWanted = port.filters.receives(this.#frame, this.#prefixes);
    if (isWanted) port.deliver(at, length, this.#frame, offload);
    else port.drops[DROP.filterMiss]!++;
  }

  #toMany(from: Port | null, at: number, length: number, offload: Offload): void {
    const frame = this.#frame;
    const broadcast = frame.dstHi === BROADCAST_HI && frame.dstLo === BROADCAST_LO;
    const isArp = frame.kind !== KIND.ipv4 && frame.kind !== KIND.ipv6;
    if (isArp && !broadcast) return;
    for (const port of this.#ports) {
      const isWanted = port !== from && port.filters.receives(frame, this.#prefixes);
      if (isWanted) port.deliver(at, length, frame, offload);
    }
  }

  /** The port with that MAC address. */
  protected find(hi: number, lo: number): Port | null {
    for (let slot = hash(hi, lo); ; slot = (slot + 1) % TABLE_SIZE) {
      const index = this.#slots[slot]!;
      if (index === 0) return null;
      const port = this.#ports[index - 1]!;
      if (port.filters.lo === lo && port.filters.hi === hi) return port;
    }
  }
}

/** The low bytes differ between the VNICs of one machine. */
const hash = (hi: number, lo: number): number => (lo ^ (lo >>> 8) ^ hi) & (TABLE_SIZE - 1);
