/**
 * What the software NIC reads of a frame, and the filters it holds against it. The meaning of a filter is in
 * filter/boxes.ts. Frames are read from the NIC's own staging memory only: nobody can change them meanwhile.
 * Sources: RFC 791 (IPv4), RFC 826 (ARP), IEEE 802.3. IPv6 is in ipv6.ts.
 */
import { macHi, macLo } from '../base/address.ts';
import { DROP } from '../device/drops.ts';
import { flowHash } from '../device/flow-hash.ts';
import { type Filter, hasPorts, mirrorBoxes, wholeDestinations } from '../filter/boxes.ts';
import { Matcher, RangeSet } from '../filter/match.ts';
import { Fields6, Guard6, Prefixes6 } from './ipv6.ts';

export const ETH_HEADER_LEN = 14;
const ETHERTYPE = 12;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_IPV6 = 0x86dd;
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

/** Kind of a frame, of those that the NIC carries. */
export const KIND = { ipv4: 0, arpRequest: 1, arpReply: 2, ipv6: 3 } as const;

/** First byte of a MAC address, bit 0: group address (IEEE 802). In the upper 16 bits it is this. */
export const GROUP_BIT = 0x0100;

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
  /** Of UDP and TCP; -1, both, where there are none: other protocols, and fragments after the first. */
  srcPort = 0;
  dstPort = 0;
  /** Where the header of UDP or TCP begins in the frame; 0 in a fragment, and for everything else. */
  transportAt = 0;
  /** IPv4 flags and fragment offset, of UDP and TCP. */
  fragment = 0;
  /** ARP: hardware address of the sender. */
  senderHi = 0;
  senderLo = 0;
  readonly ipv6 = new Fields6();

  /** Read the frame of `length` bytes at `at`. 0, or minus (1 + the drop reason) for what the NIC does not carry. */
  parse(view: DataView, at: number, length: number): number {
    if (length < ETH_HEADER_LEN) return refused(DROP.truncated);
    this.dstHi = view.getUint16(at);
    this.dstLo = view.getUint32(at + 2);
    this.srcHi = view.getUint16(at + 6);
    this.srcLo = view.getUint32(at + 8);
    this.transportAt = 0;
    const type = view.getUint16(at + ETHERTYPE);
    if (type === ETHERTYPE_IPV4) return this.#parseIpv4(view, at + IPV4, length - IPV4);
    if (type === ETHERTYPE_ARP) return this.#parseArp(view, at + ARP, length - ARP);
    if (type !== ETHERTYPE_IPV6) return refused(DROP.otherProtocol);
    return this.#parseIpv6(view, at, length);
  }

  #parseIpv6(view: DataView, at: number, length: number): number {
    const { ipv6 } = this;
    this.kind = KIND.ipv6;
    this.srcPort = -1;
    this.dstPort = -1;
    const parsed = ipv6.parse(view, at + ETH_HEADER_LEN, at + length);
    this.protocol = ipv6.protocol;
    if (parsed < 0 || ipv6.payloadAt === 0 || !hasPorts(ipv6.protocol)) return parsed;
    if (at + length - ipv6.payloadAt < 4) return refused(DROP.truncated);
    this.transportAt = ipv6.payloadAt - at;
    this.srcPort = view.getUint16(ipv6.payloadAt);
    this.dstPort = view.getUint16(ipv6.payloadAt + 2);
    return 0;
  }

  get isToGroup(): boolean {
    return (this.dstHi & GROUP_BIT) !== 0;
  }

  /** What chooses the queue pair (device/flow-hash.ts): 0, the first pair's, for what has no ports. */
  hash(): number {
    if (this.kind !== KIND.ipv4 || !hasPorts(this.protocol)) return 0;
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
    this.srcPort = -1;
    this.dstPort = -1;
    if (!hasPorts(this.protocol)) return 0;
    this.fragment = view.getUint16(at + 6);
    if ((this.fragment & FRAGMENT_OFFSET_MASK) !== 0) return 0;
    if (totalLength < headerLength + 4) return refused(DROP.truncated);
    if ((this.fragment & FRAGMENT_MASK) === 0) this.transportAt = IPV4 + headerLength;
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

/**
 * The filters of one VNIC, compiled. Immutable: new filters are a new set.
 *
 * - What it may send mirrors what it receives, unless there are filters of their own for that.
 * - It has ARP for the addresses of which it receives every packet, and for no other.
 */
export class FilterSet {
  readonly hi: number;
  readonly lo: number;
  readonly #receive: Matcher;
  readonly #transmit: Matcher;
  readonly #owned: RangeSet;
  readonly #ipv6: Guard6;
  readonly addresses6: readonly Int32Array[];

  /** `transmit`: null for the mirror of `receive`. `addresses6`: IPv6 addresses besides those of the MAC. */
  constructor(
    mac: number,
    receive: readonly Filter[],
    transmit: readonly Filter[] | null = null,
    addresses6: readonly Int32Array[] = [],
  ) {
    this.hi = macHi(mac);
    this.lo = macLo(mac);
    this.#receive = new Matcher(receive);
    this.#transmit = new Matcher(transmit ?? receive.map(mirrorBoxes));
    this.addresses6 = addresses6;
    const owned = wholeDestinations(receive);
    this.#owned = new RangeSet(owned);
    // Filters to send by are for IPv4: who has such has been given less than everything.
    this.#ipv6 = new Guard6(mac, owned.length > 0 && transmit === null, addresses6);
  }

  /**
   * Why a VNIC with these filters may not send the frame, as an index of DROP_REASONS; -1 when it may. `view` is what the
   * frame was parsed in, `prefixes` what routers have announced.
   */
  checkSent(frame: FrameFields, view: DataView = NOTHING, prefixes = NO_PREFIXES): number {
    if (frame.srcHi !== this.hi || frame.srcLo !== this.lo) return DROP.spoofedMac;
    if (frame.kind === KIND.ipv6) return this.#ipv6.checkSent(frame.ipv6, view, prefixes);
    if (frame.kind !== KIND.ipv4) {
      const own = frame.senderHi === this.hi && frame.senderLo === this.lo;
      return own && this.#owned.has(frame.source) ? -1 : DROP.spoofedArp;
    }
    const { target, protocol, source, dstPort, srcPort } = frame;
    if (this.#transmit.match(target, protocol, source, dstPort, srcPort)) return -1;
    return this.#transmit.hasSource(source) ? DROP.spoofedPort : DROP.spoofedAddress;
  }

  /** Whether the VNIC receives the frame, given that it was addressed to its MAC or to everybody. */
  receives(frame: FrameFields, prefixes = NO_PREFIXES): boolean {
    const { kind, target, protocol, source, dstPort, srcPort } = frame;
    if (kind === KIND.ipv6) {
      return this.#ipv6.receives(frame.ipv6, frame.dstHi, !frame.isToGroup, prefixes);
    }
    if (kind !== KIND.ipv4) return this.#owned.has(target);
    return this.#receive.match(target, protocol, source, dstPort, srcPort);
  }
}

const NO_PREFIXES = new Prefixes6();
const NOTHING = new DataView(new ArrayBuffer(0));
