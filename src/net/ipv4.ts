/**
 * IPv4 in and out (RFC 791, RFC 1122 section 3). Addresses are int32.
 *
 * - Received options are tolerated and never sent back. Fragments are dropped and counted.
 * - What we send has no options, "don't fragment", and a fresh identification.
 */
import type { Ipv4 } from '../base/address.ts';
import { netmask } from '../base/address.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as wire from '../wire/ipv4.ts';
import type { ArpCache } from './arp.ts';
import { NET_LIMITS } from './limits.ts';
import type { Link } from './link.ts';

export interface Ipv4Config {
  readonly address: Ipv4;
  readonly prefix: number;
  /** Next hop to everything off the subnet; 0 when there is none. */
  readonly gateway: Ipv4;
}

/** 255.255.255.255. */
const BROADCAST_ALL = -1;

export class Ipv4Layer {
  readonly #link: Link;
  readonly #arp: ArpCache;
  readonly address: number;
  readonly #mask: number;
  readonly #gateway: number;
  /** The subnet's broadcast address; BROADCAST_ALL where it has none (RFC 3021). */
  readonly #broadcast: number;
  #id = 0;
  /** Whether the datagram that `receive` accepted last was for our address, not for a broadcast one. */
  isUnicast = false;

  constructor(link: Link, arp: ArpCache, config: Ipv4Config) {
    this.#link = link;
    this.#arp = arp;
    this.address = config.address | 0;
    this.#mask = netmask(config.prefix) | 0;
    this.#gateway = config.gateway | 0;
    this.#broadcast = config.prefix < 31 ? this.address | ~this.#mask : BROADCAST_ALL;
  }

  /** Payload length of the datagram at `at` when it is whole and for us; otherwise -1, and it is counted. */
  receive(at: number, end: number, isLinkUnicast: boolean): number {
    const { view, counters } = this.#link;
    const payloadLength = wire.check(view, at, end);
    if (payloadLength < 0) {
      if (payloadLength === wire.BAD_CHECKSUM) counters.badChecksum++;
      else counters.badIp++;
      return -1;
    }
    const dst = wire.dst(view, at);
    this.isUnicast = dst === this.address;
    // RFC 1122, section 3.3.6: a link-layer broadcast carries nothing for a unicast address.
    const isForUs = this.isUnicast ? isLinkUnicast : this.#isBroadcast(dst);
    if (!isForUs) {
      counters.notForUs++;
      return -1;
    }
    if (!this.#isSource(wire.src(view, at))) {
      counters.badSource++;
      return -1;
    }
    if (wire.isFragment(view, at)) {
      counters.fragment++;
      return -1;
    }
    return payloadLength;
  }

  /**
   * Rewrite the Ethernet and IPv4 headers of a received frame whose payload stands at `payloadAt` to send `payloadLength`
   * bytes of it back to its sender. Options are cut out. Returns the frame's handle from now on, and takes it.
   */
  turnAround(
    frame: number,
    payloadAt: number,
    payloadLength: number,
    protocol: number,
    remote: number,
  ): number {
    const link = this.#link;
    const hi = ethernet.srcHi(link.view, frame);
    const lo = ethernet.srcLo(link.view, frame);
    const at = payloadAt - wire.HEADER_LEN;
    link.take(frame);
    link.emitEthernet(at - ethernet.HEADER_LEN, hi, lo);
    this.#emit(at, payloadLength, protocol, remote);
    return at - ethernet.HEADER_LEN;
  }

  /**
   * Send `payloadLength` bytes that stand behind the room for both headers in `frame`, the last of them in the link's
   * burst if there is one. Takes the frame. False when it was dropped: no route, no neighbour, no room.
   */
  send(frame: number, payloadLength: number, protocol: number, dst: number): boolean {
    const link = this.#link;
    const length = ethernet.HEADER_LEN + wire.HEADER_LEN + payloadLength - link.burst.bytes;
    if (!link.fits(frame, length)) {
      link.counters.txTooLong++;
      link.free(frame);
      return false;
    }
    const isBroadcast = this.#isBroadcast(dst);
    const nextHop = isBroadcast || this.isOnLink(dst) ? dst : this.#gateway;
    if (nextHop === 0 || (!isBroadcast && !this.#isSource(dst))) {
      link.counters.noRoute++;
      link.free(frame);
      return false;
    }
    link.emitEthernet(frame, 0xffff, -1);
    this.#emit(frame + ethernet.HEADER_LEN, payloadLength, protocol, dst);
    return isBroadcast ? link.transmit(frame, length) : this.#arp.deliver(nextHop, frame, length);
  }

  /** The address is shared with the kernel: remember where this datagram's sender, or the way to it, is. */
  learn(frame: number, src: number): void {
    const { view } = this.#link;
    const neighbour = this.isOnLink(src) ? src : this.#gateway;
    if (neighbour === 0) return;
    this.#arp.learnFromTraffic(neighbour, ethernet.srcHi(view, frame), ethernet.srcLo(view, frame));
  }

  /** Whether a datagram to the host `ip` would leave: it can be one host's address, and there is a next hop. */
  hasRoute(ip: number): boolean {
    return this.#isSource(ip) && (this.isOnLink(ip) || this.#gateway !== 0);
  }

  isOnLink(ip: number): boolean {
    return ((ip ^ this.address) & this.#mask) === 0;
  }

  #isBroadcast(ip: number): boolean {
    return ip === BROADCAST_ALL || ip === this.#broadcast;
  }

  /** An address that a single other host may have: not ours, network zero, loopback, a group or a broadcast. */
  #isSource(ip: number): boolean {
    const top = ip >>> 24;
    return top !== 0 && top !== 127 && top < 224 && ip !== this.address && ip !== this.#broadcast;
  }

  #emit(at: number, payloadLength: number, protocol: number, dst: number): void {
    this.#id = (this.#id + 1) & 0xffff;
    wire.emit(
      this.#link.view,
      at,
      payloadLength,
      this.#id,
      NET_LIMITS.ttl,
      protocol,
      this.address,
      dst,
    );
  }
}
