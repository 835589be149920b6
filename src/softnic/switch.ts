/**
 * The embedded switch: which port, or the uplink, gets a frame.
 *
 * - A frame from a port is checked against the port's filters before anybody sees it: a VNIC sends as itself only.
 * - Unicast goes to the port with that MAC, anything else to the uplink; never back to where it came from.
 * - An ARP request goes to the port that owns the address, and to the uplink. Other broadcast and multicast goes to
 *   the uplink and to the ports whose filters match. Nothing is flooded or learned.
 * - Every delivery passes the receiver's filters.
 */
import { MAC_BROADCAST, macHi, macLo } from '../base/address.ts';
import { DROP, DROP_REASONS } from '../device/drops.ts';
import type { Arena } from '../ffi/arena.ts';
import { FrameFields, KIND } from './match.ts';
import type { FrameSink, Port } from './port.ts';
import type { Uplink } from './uplink.ts';

const TABLE_SIZE = 256;
/** First byte of a MAC address, bit 0: group address (IEEE 802). In the upper 16 bits it is this. */
const GROUP_BIT = 0x0100;
const BROADCAST_HI = macHi(MAC_BROADCAST);
const BROADCAST_LO = macLo(MAC_BROADCAST);

/** Ports at most, so that the table stays at most a quarter full. */
export const PORTS_MAX = TABLE_SIZE / 4;

export class Switch implements FrameSink {
  uplink: Uplink | null = null;
  /** Frames from the uplink that nobody got, by reason. */
  readonly uplinkDrops = new Float64Array(DROP_REASONS.length);
  readonly #view: DataView;
  readonly #stagingStart: number;
  readonly #frame = new FrameFields();
  #ports: readonly Port[] = [];
  // Open addressing by MAC; 0 is empty, otherwise index of the port plus 1.
  readonly #slots = new Uint8Array(TABLE_SIZE);

  /** Frames are read from the `stagingLength` private bytes at `staging`. */
  constructor(arena: Arena, staging: number, stagingLength: number) {
    this.#view = new DataView(arena.u8.buffer, staging, stagingLength);
    this.#stagingStart = staging;
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
  fromPort(port: Port, at: number, length: number): void {
    const frame = this.#frame;
    const parsed = frame.parse(this.#view, at - this.#stagingStart, length);
    if (parsed < 0) {
      port.drops[-1 - parsed]!++;
      return;
    }
    const reason = port.filters.checkSent(frame);
    if (reason >= 0) {
      port.drops[reason]!++;
      return;
    }
    port.txPackets++;
    port.txBytes += length;
    if ((frame.dstHi & GROUP_BIT) !== 0) {
      this.#toMany(port, at, length);
      this.uplink?.send(at, length);
      return;
    }
    const to = this.find(frame.dstHi, frame.dstLo);
    if (to !== null) this.#toPort(to, at, length);
    else if (this.uplink?.accepts(frame.dstHi, frame.dstLo)) this.uplink.send(at, length);
    else port.drops[DROP.noDestination]!++;
  }

  /** A frame that came in by the uplink. */
  fromUplink(at: number, length: number): void {
    const frame = this.#frame;
    const parsed = frame.parse(this.#view, at - this.#stagingStart, length);
    if (parsed < 0) {
      this.uplinkDrops[-1 - parsed]!++;
      return;
    }
    if ((frame.dstHi & GROUP_BIT) !== 0) {
      this.#toMany(null, at, length);
      return;
    }
    const to = this.find(frame.dstHi, frame.dstLo);
    if (to !== null) this.#toPort(to, at, length);
    else this.uplinkDrops[DROP.noDestination]!++;
  }

  #toPort(port: Port, at: number, length: number): void {
    if (port.filters.receives(this.#frame)) port.deliver(at, length, this.#frame);
    else port.drops[DROP.filterMiss]!++;
  }

  #toMany(from: Port | null, at: number, length: number): void {
    const frame = this.#frame;
    const broadcast = frame.dstHi === BROADCAST_HI && frame.dstLo === BROADCAST_LO;
    if (frame.kind !== KIND.ipv4 && !broadcast) return;
    for (const port of this.#ports) {
      if (port !== from && port.filters.receives(frame)) port.deliver(at, length, frame);
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
