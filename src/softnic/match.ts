/**
 * What the software NIC reads of a frame, and the filters it holds against it. The meaning of a filter is in
 * device/filter.ts. Frames are read from the NIC's own staging memory only: nobody can change them meanwhile.
 * Sources: RFC 791 (IPv4), RFC 826 (ARP), IEEE 802.3.
 */
import { macHi, macLo } from '../base/address.ts';
import { DROP } from '../device/drops.ts';
import { FLOW_PROTOCOL, type FlowFilter } from '../device/filter.ts';
import { flowHash } from '../device/flow-hash.ts';

export const ETH_HEADER_LEN = 14;
const ETHERTYPE = 12;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const IPV4 = ETH_HEADER_LEN;
const IPV4_HEADER_MIN = 20;
const FRAGMENT_OFFSET_MASK = 0x1fff;
/** The offset, and "more fragments": set in every piece of a datagram. */
const FRAGMENT_MASK = 0x3fff;
const ARP = ETH_HEADER_LEN;
const ARP_LEN = 28;
/** Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4. */
const ARP_ETHERNET_IPV4 = 0x0001_0800;
const ARP_LENGTHS = 0x0604;
const ARP_REQUEST = 1;
const { tcp: TCP, udp: UDP } = FLOW_PROTOCOL;

/** Kind of a frame, of those that the NIC carries. */
export const KIND = { ipv4: 0, arpRequest: 1, arpReply: 2 } as const;

/** The fields of one frame. One object for all frames: `parse` overwrites it. */
export class FrameFields {
  dstHi = 0;
  dstLo = 0;
  srcHi = 0;
  srcLo = 0;
  kind = 0;
  /** IPv4 source and destination; for ARP, sender and target protocol address. */
  source = 0;
  target = 0;
  protocol = 0;
  /** Of UDP and TCP; -1 for fragments after the first, which have none. Other protocols: 0. */
  srcPort = 0;
  dstPort = 0;
  /** IPv4 flags and fragment offset, of UDP and TCP. */
  fragment = 0;
  /** ARP: hardware address of the sender. */
  senderHi = 0;
  senderLo = 0;

  /** Read the frame of `length` bytes at `at`. 0, or minus (1 + the drop reason) for what the NIC does not carry. */
  parse(view: DataView, at: number, length: number): number {
    if (length < ETH_HEADER_LEN) return refused(DROP.truncated);
    this.dstHi = view.getUint16(at);
    this.dstLo = view.getUint32(at + 2);
    this.srcHi = view.getUint16(at + 6);
    this.srcLo = view.getUint32(at + 8);
    const type = view.getUint16(at + ETHERTYPE);
    if (type === ETHERTYPE_IPV4) return this.#parseIpv4(view, at + IPV4, length - IPV4);
    if (type === ETHERTYPE_ARP) return this.#parseArp(view, at + ARP, length - ARP);
    return refused(DROP.otherProtocol);
  }

  /** What chooses the queue pair (device/flow-hash.ts): 0, the first pair's, for what has no ports. */
  hash(): number {
    if (this.kind !== KIND.ipv4 || (this.protocol !== UDP && this.protocol !== TCP)) return 0;
    const whole = (this.fragment & FRAGMENT_MASK) === 0;
    const { source, target } = this;
    return flowHash(source, target, whole ? this.srcPort : 0, whole ? this.dstPort : 0);
  }

  #parseIpv4(view: DataView, at: number, length: number): number {
    if (length < IPV4_HEADER_MIN) return refused(DROP.truncated);
    const versionIhl = view.getUint8(at);
    const headerLength = (versionIhl & 15) * 4;
    const totalLength = view.getUint16(at + 2);
    if (versionIhl >>> 4 !== 4 || headerLength < IPV4_HEADER_MIN) return refused(DROP.truncated);
    if (totalLength < headerLength || totalLength > length) return refused(DROP.truncated);
    this.kind = KIND.ipv4;
    this.protocol = view.getUint8(at + 9);
    this.source = view.getUint32(at + 12);
    this.target = view.getUint32(at + 16);
    this.srcPort = 0;
    this.dstPort = 0;
    if (this.protocol !== UDP && this.protocol !== TCP) return 0;
    this.fragment = view.getUint16(at + 6);
    if ((this.fragment & FRAGMENT_OFFSET_MASK) !== 0) {
      this.srcPort = -1;
      this.dstPort = -1;
      return 0;
    }
    if (totalLength < headerLength + 4) return refused(DROP.truncated);
    this.srcPort = view.getUint16(at + headerLength);
    this.dstPort = view.getUint16(at + headerLength + 2);
    return 0;
  }

  #parseArp(view: DataView, at: number, length: number): number {
    if (length < ARP_LEN) return refused(DROP.truncated);
    if (view.getUint32(at) !== ARP_ETHERNET_IPV4 || view.getUint16(at + 4) !== ARP_LENGTHS) {
      return refused(DROP.otherProtocol);
    }
    this.kind = view.getUint16(at + 6) === ARP_REQUEST ? KIND.arpRequest : KIND.arpReply;
    this.senderHi = view.getUint16(at + 8);
    this.senderLo = view.getUint32(at + 10);
    this.source = view.getUint32(at + 14);
    this.target = view.getUint32(at + 24);
    return 0;
  }
}

const refused = (reason: number): number => -1 - reason;

/** The filters of one VNIC, compiled. Immutable: new filters are a new set. */
export class FilterSet {
  readonly hi: number;
  readonly lo: number;
  readonly filters: readonly FlowFilter[];
  readonly #count: number;
  readonly #address: Uint32Array;
  readonly #protocol: Uint8Array;
  readonly #portFirst: Uint16Array;
  readonly #portLast: Uint16Array;

  constructor(mac: number, filters: readonly FlowFilter[]) {
    this.hi = macHi(mac);
    this.lo = macLo(mac);
    this.filters = filters;
    this.#count = filters.length;
    this.#address = Uint32Array.from(filters, (f) => f.address);
    this.#protocol = Uint8Array.from(filters, (f) => FLOW_PROTOCOL[f.protocol]);
    this.#portFirst = Uint16Array.from(filters, (f) => f.portFirst);
    this.#portLast = Uint16Array.from(filters, (f) => f.portLast);
  }

  /** Why a VNIC with these filters may not send the frame, as an index of DROP_REASONS; -1 when it may. */
  checkSent(frame: FrameFields): number {
    if (frame.srcHi !== this.hi || frame.srcLo !== this.lo) return DROP.spoofedMac;
    if (frame.kind !== KIND.ipv4) {
      const own = frame.senderHi === this.hi && frame.senderLo === this.lo;
      return own && this.owns(frame.source) ? -1 : DROP.spoofedArp;
    }
    if (this.#match(frame.source, frame.protocol, frame.srcPort)) return -1;
    return this.#covers(frame.source) ? DROP.spoofedPort : DROP.spoofedAddress;
  }

  /** Whether the VNIC receives the frame, given that it was addressed to its MAC or to everybody. */
  receives(frame: FrameFields): boolean {
    if (frame.kind !== KIND.ipv4) return this.owns(frame.target);
    return this.#match(frame.target, frame.protocol, frame.dstPort);
  }

  /** True when `address` is the VNIC's whole, ARP included. */
  owns(address: number): boolean {
    for (let i = 0; i < this.#count; i++) {
      if (this.#address[i] === address && this.#protocol[i] === FLOW_PROTOCOL.any) return true;
    }
    return false;
  }

  #covers(address: number): boolean {
    for (let i = 0; i < this.#count; i++) if (this.#address[i] === address) return true;
    return false;
  }

  /** `port` is -1 for a fragment without ports, and 0 for protocols that have none. */
  #match(address: number, protocol: number, port: number): boolean {
    for (let i = 0; i < this.#count; i++) {
      if (this.#address[i] !== address) continue;
      const wanted = this.#protocol[i]!;
      if (wanted === FLOW_PROTOCOL.any) return true;
      if (wanted !== protocol) continue;
      if (protocol !== UDP && protocol !== TCP) return true;
      if (port >= this.#portFirst[i]! && port <= this.#portLast[i]!) return true;
    }
    return false;
  }
}
