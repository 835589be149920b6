/**
 * IPv6 at the software NIC: what it reads of a packet, and which a VNIC may send and receive. Filters know IPv4 only: a VNIC
 * with a whole IPv4 address has IPv6, under its MAC.
 *
 * - Its addresses are those whose lower half comes of its MAC (EUI-64), link-local or of a prefix that a router on the
 *   uplink has announced, and those that the control plane gave it. It sends from these only, and from none what has to be.
 * - It does not speak for others (RFC 6105, RFC 6620): no router's messages, no redirects, neighbour discovery about itself.
 *   What could hide such a message (RFC 7113) is refused: pieces without all headers, and discovery in pieces.
 * - A question goes to whoever has the address that it asks for; what else is for a group, to every VNIC with IPv6.
 */
import { macHi, macLo } from '../base/address.ts';
import { copy, GROUP_MAC_HI, isLinkLocal, isSame, isUnspecified, setEui64 } from '../base/ipv6.ts';
import { DROP } from '../device/drops.ts';
import { fragmentOffset, HeaderWalk, WALK } from '../wire/extensions.ts';
import * as wire from '../wire/ipv6.ts';
import { REPORT as MLD_REPORT } from '../wire/mld.ts';
import * as ndp from '../wire/ndp.ts';

/** The type where there is none: another protocol, a later piece. */
const NO_TYPE = -1;
const PREFIXES_MAX = 8;
const IID_PREFIX = 64;

/** Prefixes that routers on the uplink let hosts make addresses of. The newest displaces the oldest. */
export class Prefixes6 {
  readonly #words = new Int32Array(PREFIXES_MAX * 4);
  #count = 0;
  #next = 0;

  has(w: Int32Array, i: number): boolean {
    for (let at = 0; at < this.#count * 4; at += 4) {
      if (this.#words[at] === w[i] && this.#words[at + 1] === w[i + 1]) return true;
    }
    return false;
  }

  add(w: Int32Array, i: number): void {
    if (this.has(w, i)) return;
    copy(w, i, this.#words, this.#next * 4);
    this.#count = Math.max(this.#count, this.#next + 1);
    this.#next = (this.#next + 1) % PREFIXES_MAX;
  }
}

/** The IPv6 fields of one frame. One object for all frames: `parse` overwrites it. */
export class Fields6 {
  readonly source = new Int32Array(4);
  /** What neighbour discovery is about. */
  readonly target = new Int32Array(4);
  /** ICMPv6 type, or NO_TYPE. */
  type = NO_TYPE;
  isPiece = false;
  /** The upper layer's protocol, and where its header begins in the view; 0 in a piece, whose protocol is not known. */
  protocol = wire.NO_NEXT_HEADER;
  payloadAt = 0;
  readonly #walk = new HeaderWalk(true);
  readonly #prefix = new Int32Array(4);
  #at = 0;
  #end = 0;

  /** Read the packet from `at` to `end`. 0, or minus (1 + the drop reason) for what the NIC does not carry. */
  parse(view: DataView, at: number, end: number): number {
    const length = wire.check(view, at, end);
    if (length < 0) return -1 - DROP.truncated;
    const first = at + wire.HEADER_LEN;
    const last = first + length;
    wire.readSrc(view, at, this.source, 0);
    this.type = NO_TYPE;
    this.isPiece = false;
    this.protocol = wire.NO_NEXT_HEADER;
    this.payloadAt = 0;
    const walk = this.#walk;
    let outcome = walk.run(view, first, last, wire.nextHeader(view, at), at + 6, true);
    if (outcome === WALK.fragment) {
      this.isPiece = true;
      if (fragmentOffset(view, walk.fragmentAt) !== 0) return 0;
      outcome = walk.run(view, walk.payloadAt, last, walk.protocol, walk.nextAt, false);
    }
    if (outcome !== WALK.payload) return -1 - DROP.truncated;
    this.protocol = walk.protocol;
    if (!this.isPiece) this.payloadAt = walk.payloadAt;
    if (walk.protocol !== wire.PROTOCOL_ICMPV6) return 0;
    if (last - walk.payloadAt < 4) return -1 - DROP.truncated;
    this.type = view.getUint8(walk.payloadAt);
    // An atomic fragment is a piece, too (RFC 6980).
    if (walk.hasFragment) this.isPiece = true;
    if (!ndp.isNdp(this.type) || this.isPiece) return 0;
    if (!ndp.check(view, walk.payloadAt, last, this.type)) return -1 - DROP.truncated;
    this.#at = walk.payloadAt;
    this.#end = last;
    if (this.#hasTarget()) ndp.readTarget(view, walk.payloadAt, this.target, 0);
    return 0;
  }

  #hasTarget(): boolean {
    return this.type === ndp.NEIGHBOUR_SOLICITATION || this.type === ndp.NEIGHBOUR_ADVERTISEMENT;
  }

  /** A question who has `target`. */
  get isQuestion(): boolean {
    return this.type === ndp.NEIGHBOUR_SOLICITATION && !this.isPiece;
  }

  /** After `parse` of neighbour discovery: every MAC that it tells is this one. */
  tellsOnly(view: DataView, hi: number, lo: number): boolean {
    for (const kind of MAC_OPTIONS) {
      let option = ndp.findOption(view, this.#at, this.#end, this.type, kind);
      while (option >= 0) {
        if (ndp.macHi(view, option) !== hi || ndp.macLo(view, option) !== lo) return false;
        option = ndp.nextOption(view, ndp.optionEnd(view, option), this.#end, kind);
      }
    }
    return true;
  }

  /** After `parse`, at `at`: note what a router says that addresses may be made of. */
  learnPrefixes(view: DataView, at: number, prefixes: Prefixes6): void {
    if (this.type !== ndp.ROUTER_ADVERTISEMENT || this.isPiece) return;
    if (wire.hopLimit(view, at) !== ndp.HOP_LIMIT || !isLinkLocal(this.source, 0)) return;
    const { prefix } = ndp.OPTION;
    let option = ndp.findOption(view, this.#at, this.#end, this.type, prefix);
    while (option >= 0) {
      const isUsable =
        ndp.prefixLength(view, option) === IID_PREFIX && ndp.isAutonomous(view, option);
      ndp.readPrefix(view, option, this.#prefix, 0);
      if (isUsable && !isLinkLocal(this.#prefix, 0)) prefixes.add(this.#prefix, 0);
      option = ndp.nextOption(view, ndp.optionEnd(view, option), this.#end, prefix);
    }
  }
}

const MAC_OPTIONS = [ndp.OPTION.sourceMac, ndp.OPTION.targetMac] as const;

/** What one VNIC may send and receive of IPv6. Immutable. */
export class Guard6 {
  readonly #hi: number;
  readonly #lo: number;
  readonly #isOn: boolean;
  /** The lower half of it is what the MAC makes. */
  readonly #eui64 = new Int32Array(4);
  readonly #addresses: readonly Int32Array[];

  /** `isOn`: the VNIC has a whole IPv4 address, and sends by it. `addresses`: besides those of the MAC. */
  constructor(mac: number, isOn: boolean, addresses: readonly Int32Array[]) {
    this.#hi = macHi(mac);
    this.#lo = macLo(mac) | 0;
    this.#isOn = isOn;
    this.#addresses = addresses;
    setEui64(this.#eui64, 0, this.#hi, this.#lo);
  }

  #owns(w: Int32Array, prefixes: Prefixes6): boolean {
    const isOfMac = w[2] === this.#eui64[2] && w[3] === this.#eui64[3];
    if (isOfMac && ((isLinkLocal(w, 0) && w[1] === 0) || prefixes.has(w, 0))) return true;
    return this.#addresses.some((address) => isSame(address, 0, w, 0));
  }

  /** Why the VNIC may not send the packet of `fields`, as an index of DROP_REASONS; -1 when it may. */
  checkSent(fields: Fields6, view: DataView, prefixes: Prefixes6): number {
    const { type, source } = fields;
    if (!this.#isOn) return DROP.spoofedAddress;
    const isFromNobody = isUnspecified(source, 0);
    if (!isFromNobody && !this.#owns(source, prefixes)) return DROP.spoofedAddress;
    if (!ndp.isNdp(type)) return isFromNobody && type !== MLD_REPORT ? DROP.spoofedAddress : -1;
    if (fields.isPiece || type === ndp.ROUTER_ADVERTISEMENT || type === ndp.REDIRECT) {
      return DROP.spoofedArp;
    }
    if (!fields.tellsOnly(view, this.#hi, this.#lo)) return DROP.spoofedArp;
    const isAboutItself = isFromNobody
      ? type !== ndp.NEIGHBOUR_ADVERTISEMENT
      : type !== ndp.NEIGHBOUR_ADVERTISEMENT || this.#owns(fields.target, prefixes);
    return isAboutItself ? -1 : DROP.spoofedArp;
  }

  /** Whether the VNIC receives the packet, given that it was addressed to its MAC (`isUnicast`) or to a group of MACs. */
  receives(fields: Fields6, dstHi: number, isUnicast: boolean, prefixes: Prefixes6): boolean {
    if (!this.#isOn) return false;
    if (isUnicast) return true;
    if (dstHi !== GROUP_MAC_HI) return false;
    return !fields.isQuestion || this.#owns(fields.target, prefixes);
  }
}
