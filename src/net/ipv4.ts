/**
 * IPv4 in and out (RFC 791, RFC 1122 section 3). Addresses are int32.
 *
 * - Received options are checked and never sent back; a source route is refused (RFC 7126).
 * - What we send has no options and "don't fragment", unless it is sent in pieces: a datagram of a protocol that does not
 *   cut itself (all but TCP), longer than the path carries.
 * - What is for ourselves (our address, 127.0.0.0/8) goes round inside (`Link.loop`), and only from there do such sources come.
 */
import type { Ipv4 } from '../base/address.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as wire from '../wire/ipv4.ts';
import type { ArpCache } from './arp.ts';
import { sendPieces } from './fragment.ts';
import { NET_LIMITS } from './limits.ts';
import type { Link } from './link.ts';
import type { Groups } from './multicast.ts';
import type { PathMtu } from './path-mtu.ts';
import { BROADCAST_ALL, NO_HOP, type Routes } from './routes.ts';

/** 127.0.0.1. */
export const LOOPBACK = 0x7f000001;
const LOOPBACK_NET = 127;
/** 127.255.255.255. */
const NOBODY = 0x7fffffff;
const HEADERS = ethernet.HEADER_LEN + wire.HEADER_LEN;

export const isGroup = (ip: number): boolean => ip >>> 28 === 14;
/** TCP makes its segments as long as they may be, and wants to hear when they are too long (RFC 1191). */
const cuts = (protocol: number): boolean => protocol !== wire.PROTOCOL_TCP;
const isLoopback = (ip: number): boolean => ip >>> 24 === LOOPBACK_NET;

/** What a sender says of a datagram to a group or a broadcast address; `defaults` are those of RFC 1112. */
export interface GroupOptions {
  /** Time to live of what goes to a group. */
  readonly ttl: number;
  /** Whether our own sockets in the group receive it too. */
  readonly loops: boolean;
}
const GROUP_DEFAULTS: GroupOptions = { ttl: 1, loops: true };

export class Ipv4Layer {
  readonly #link: Link;
  readonly #arp: ArpCache;
  readonly #routes: Routes;
  readonly #groups: Groups;
  readonly paths: PathMtu;
  /** Our address; 0 when it has none yet. */
  address = 0;
  /** What datagrams to us have as destination: `address`, or one that nothing from a device has. */
  #own = NOBODY;
  #broadcast = BROADCAST_ALL;
  #id = 0;
  /** Whether the datagram that `receive` accepted last was for our address, not for a broadcast one or a group. */
  isUnicast = false;
  /** Where the payload of that datagram starts. */
  payloadAt = 0;

  /** `firstId`: of fragmented datagrams, which a stranger should not be able to guess (RFC 6274, section 3.5.2). */
  constructor(
    link: Link,
    arp: ArpCache,
    parts: { routes: Routes; groups: Groups; paths: PathMtu },
    firstId: number,
  ) {
    this.#link = link;
    this.#arp = arp;
    this.#routes = parts.routes;
    this.#groups = parts.groups;
    this.paths = parts.paths;
    this.#id = firstId & 0xffff;
    this.#adopt();
  }

  #adopt(): void {
    this.address = this.#routes.address;
    this.#own = this.address === 0 ? NOBODY : this.address;
    this.#broadcast = this.#routes.broadcast;
  }

  /** Another address, subnet and gateway from now on. */
  configure(address: Ipv4, prefix: number, gateway: Ipv4): void {
    this.#routes.configure(address, prefix, gateway);
    this.#adopt();
  }

  /** Payload length of the datagram or fragment at `at` when it is well formed and for us; otherwise -1, and it is counted. */
  receive(at: number, end: number, isLinkUnicast: boolean): number {
    const { view, counters } = this.#link;
    const payloadLength = wire.check(view, at, end);
    if (payloadLength < 0) {
      if (payloadLength === wire.BAD_CHECKSUM) counters.badChecksum++;
      else counters.badIp++;
      return -1;
    }
    const dst = wire.dst(view, at);
    this.isUnicast = dst === this.#own;
    // RFC 1122, section 3.3.6: a link-layer broadcast carries nothing for a unicast address.
    const isForUs = this.isUnicast ? isLinkUnicast : this.#isAlsoForUs(dst, isLinkUnicast);
    if (!isForUs) {
      counters.notForUs++;
      return -1;
    }
    const src = wire.src(view, at);
    if (!this.#isSource(src) && !(this.#link.isLoop && this.isLocal(src))) {
      counters.badSource++;
      return -1;
    }
    const header = wire.headerLength(view, at);
    this.payloadAt = at + header;
    if (header > wire.HEADER_LEN && wire.checkOptions(view, at, header) < 0) {
      counters.badOptions++;
      return -1;
    }
    return payloadLength;
  }

  /** Broadcasts, groups that somebody here is in, and, from ourselves, loopback addresses. */
  #isAlsoForUs(dst: number, isLinkUnicast: boolean): boolean {
    if (this.#isBroadcast(dst)) return true;
    if (isGroup(dst)) return !isLinkUnicast && this.#groups.has(dst);
    this.isUnicast = this.#link.isLoop && isLoopback(dst);
    return this.isUnicast;
  }

  /**
   * Send `payloadLength` bytes of a received frame, from `payloadAt` on and finished, back to its sender: its Ethernet and
   * IPv4 headers are rewritten, options cut out. Takes the frame. False when it was dropped.
   */
  reply(
    frame: number,
    payloadAt: number,
    payloadLength: number,
    protocol: number,
    remote: number,
  ): boolean {
    const link = this.#link;
    const hi = ethernet.srcHi(link.view, frame);
    const lo = ethernet.srcLo(link.view, frame);
    const at = payloadAt - wire.HEADER_LEN;
    const start = at - ethernet.HEADER_LEN;
    const isLocal = this.isLocal(remote);
    const src = isLocal ? this.sourceFor(remote) : this.address;
    link.take(frame);
    link.emitEthernet(start, hi, lo);
    this.#emit(at, payloadLength, protocol, src, remote, NET_LIMITS.ttl);
    const length = HEADERS + payloadLength;
    if (isLocal) return link.loop(start, length);
    if (length - ethernet.HEADER_LEN > this.paths.smallest) {
      return this.#dispatchLong(start, length, remote);
    }
    return link.transmit(start, length);
  }

  #dispatchLong(frame: number, length: number, remote: number): boolean {
    const link = this.#link;
    if (length - ethernet.HEADER_LEN <= this.mtuTo(remote)) return link.transmit(frame, length);
    const protocol = wire.protocol(link.view, frame + ethernet.HEADER_LEN);
    const [at, bytes] = [frame + HEADERS, length - HEADERS];
    return this.#cut(frame, link.u8, at, bytes, protocol, remote, this.#toMac(frame));
  }

  /** Sends pieces to the MAC address that `frame` has now. */
  #toMac(frame: number): (piece: number, bytes: number) => boolean {
    const link = this.#link;
    const hi = ethernet.dstHi(link.view, frame);
    const lo = ethernet.dstLo(link.view, frame);
    return (piece, bytes) => {
      ethernet.setDst(link.view, piece, hi, lo);
      return link.transmit(piece, bytes);
    };
  }

  /**
   * Send `payloadLength` bytes that stand behind the room for both headers in `frame`, the last of them in the link's
   * burst if there is one. Takes the frame. False when it was dropped: no route, no neighbour, no room.
   */
  send(
    frame: number,
    payloadLength: number,
    protocol: number,
    dst: number,
    group: GroupOptions = GROUP_DEFAULTS,
  ): boolean {
    const link = this.#link;
    const length = HEADERS + payloadLength - link.burst.bytes;
    const isLong = length > link.frameLengthMax && !cuts(protocol);
    if (payloadLength < 0 || link.roomFrom(frame) < length || isLong) {
      link.counters.txTooLong++;
      link.free(frame);
      return false;
    }
    if (this.#isToMany(dst)) return this.#sendToMany(frame, payloadLength, protocol, dst, group);
    const isLocal = this.isLocal(dst);
    const nextHop = isLocal ? dst : this.#nextHop(dst);
    if (nextHop === NO_HOP) {
      link.counters.noRoute++;
      link.free(frame);
      return false;
    }
    if (!isLocal && length - ethernet.HEADER_LEN > this.mtuTo(dst) && cuts(protocol)) {
      const at = frame + HEADERS;
      return this.#cut(frame, link.u8, at, payloadLength, protocol, dst, (piece, bytes) =>
        this.#arp.deliver(nextHop, piece, bytes),
      );
    }
    link.emitEthernet(frame, 0xffff, -1);
    const src = this.sourceFor(dst);
    this.#emit(frame + ethernet.HEADER_LEN, payloadLength, protocol, src, dst, NET_LIMITS.ttl);
    return isLocal ? link.loop(frame, length) : this.#arp.deliver(nextHop, frame, length);
  }

  /**
   * Send `payload`, which fits in no frame, in pieces, the first of them built in `frame`. Takes the frame. False when it was
   * dropped. Not to ourselves: what goes round inside is not cut.
   */
  sendBytes(
    frame: number,
    payload: Uint8Array,
    protocol: number,
    dst: number,
    group: GroupOptions = GROUP_DEFAULTS,
  ): boolean {
    const { length } = payload;
    if (this.#isToMany(dst)) {
      this.#addressToMany(frame, dst);
      const deliver = this.#toMac(frame);
      return this.#cut(frame, payload, 0, length, protocol, dst, deliver, group.ttl);
    }
    const nextHop = this.#nextHop(dst);
    if (nextHop !== NO_HOP) {
      return this.#cut(frame, payload, 0, length, protocol, dst, (piece, bytes) =>
        this.#arp.deliver(nextHop, piece, bytes),
      );
    }
    this.#link.counters.noRoute++;
    this.#link.free(frame);
    return false;
  }

  #cut(
    frame: number,
    source: Uint8Array,
    from: number,
    length: number,
    protocol: number,
    dst: number,
    deliver: (piece: number, bytes: number) => boolean,
    ttl: number = NET_LIMITS.ttl,
  ): boolean {
    const [src, id] = [this.sourceFor(dst), this.nextId()];
    const datagram = { frame, source, from, length, id, ttl, protocol, src, dst };
    return sendPieces(this.#link, datagram, this.mtuTo(dst), deliver);
  }

  #isToMany(dst: number): boolean {
    return this.#isBroadcast(dst) || isGroup(dst);
  }

  /** Put the MAC address of a group or the broadcast one into a frame. RFC 1112, section 6.4: 01:00:5e and the lower 23 bits. */
  #addressToMany(frame: number, dst: number): void {
    const { view } = this.#link;
    if (isGroup(dst)) ethernet.setDst(view, frame, 0x0100, 0x5e000000 | (dst & 0x7fffff));
    else ethernet.setDst(view, frame, 0xffff, -1);
  }

  #sendToMany(
    frame: number,
    payloadLength: number,
    protocol: number,
    dst: number,
    group: GroupOptions,
  ): boolean {
    const link = this.#link;
    const length = HEADERS + payloadLength;
    const ttl = isGroup(dst) ? group.ttl : NET_LIMITS.ttl;
    link.emitEthernet(frame, 0xffff, -1);
    this.#addressToMany(frame, dst);
    this.#emit(frame + ethernet.HEADER_LEN, payloadLength, protocol, this.address, dst, ttl);
    if (isGroup(dst) && group.loops && this.#groups.has(dst)) link.loopCopy(frame, length);
    if (length <= link.frameLengthMax) return link.transmit(frame, length);
    const deliver = this.#toMac(frame);
    const at = frame + HEADERS;
    return this.#cut(frame, link.u8, at, payloadLength, protocol, dst, deliver, ttl);
  }

  /** Longest datagram to `dst`: the path's MTU, or the link's. */
  mtuTo(dst: number): number {
    return this.paths.getV4(dst, this.#link.nowMs);
  }

  /** The identification of the next datagram. */
  nextId(): number {
    this.#id = (this.#id + 1) & 0xffff;
    return this.#id;
  }

  /** The address to send to `dst` from. */
  sourceFor(dst: number): number {
    return isLoopback(dst) ? LOOPBACK : this.address;
  }

  /** Ours: what is sent there goes round inside. */
  isLocal(ip: number): boolean {
    return ip === this.#own || isLoopback(ip);
  }

  /** Whether a datagram to the host `ip` would leave, or go round: it can be one host's address, and there is a next hop. */
  hasRoute(ip: number): boolean {
    return this.isLocal(ip) || this.#nextHop(ip) !== NO_HOP;
  }

  #nextHop(ip: number): number {
    return this.#isSource(ip) ? this.#routes.nextHop(ip) : NO_HOP;
  }

  /** The address is shared with the kernel: remember where this datagram's sender, or the way to it, is. */
  learn(frame: number, src: number): void {
    const { view } = this.#link;
    const neighbour = this.#routes.nextHop(src);
    if (neighbour === NO_HOP) return;
    this.#arp.learnFromTraffic(neighbour, ethernet.srcHi(view, frame), ethernet.srcLo(view, frame));
  }

  isOnLink(ip: number): boolean {
    return this.#routes.isOnLink(ip);
  }

  #isBroadcast(ip: number): boolean {
    return ip === BROADCAST_ALL || ip === this.#broadcast;
  }

  /** An address that a single other host may have: not ours, network zero, loopback, a group or a broadcast. */
  #isSource(ip: number): boolean {
    const top = ip >>> 24;
    return (
      top !== 0 &&
      top !== LOOPBACK_NET &&
      top < 224 &&
      ip !== this.address &&
      ip !== this.#broadcast
    );
  }

  #emit(
    at: number,
    payloadLength: number,
    protocol: number,
    src: number,
    dst: number,
    ttl: number,
  ): void {
    const id = this.nextId();
    wire.emit(this.#link.view, at, payloadLength, id, ttl, protocol, src, dst);
  }
}
