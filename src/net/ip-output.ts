/**
 * What a transport protocol needs of IP, without knowing which one it is.
 *
 * - An address is four int32 words; an IPv4 address a.b.c.d is ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2).
 * - The two ends of a flow are eight words of an Int32Array from index `flow` on: four local ones, then four remote ones.
 *   So a table of connections holds its addresses in one array, and nothing is allocated or copied to send.
 * - A segment is sent where it stands: IP and Ethernet headers are written backwards before it.
 */
import { isGroup } from '../base/ipv6.ts';
import * as ethernet from '../wire/ethernet.ts';
import { HEADER_LEN as IPV4_HEADER_LEN } from '../wire/ipv4.ts';
import type { Ipv4Layer } from './ipv4.ts';
import type { Ipv6Layer } from './ipv6/layer.ts';

/** Words of a flow, and where its remote address starts. */
export const FLOW_WORDS = 8;
export const FLOW_REMOTE = 4;
/** The third word of an IPv4 address; the first two are 0. */
export const MAPPED_IPV4 = 0xffff;

export interface IpOutput {
  /** Bytes of the Ethernet and IP headers that `send` writes before a segment, without a tunnel or options. */
  headerLength(words: Int32Array, flow: number): number;
  /**
   * Is there a way to the remote address? When the local one is all zeros, fill in the one to send from; otherwise it
   * must be ours.
   */
  route(words: Int32Array, flow: number): boolean;
  /** Is the address at `at` one of ours? */
  isLocal(words: Int32Array, at: number): boolean;
  /** Longest IP datagram, its header included, that reaches the remote address as far as is known (path MTU). */
  mtu(words: Int32Array, flow: number): number;
  /**
   * Send the `length` bytes that stand at `at` in a frame of the pool, a whole segment of `protocol`. Takes one reference
   * to the frame; with headers moved before `at`, its handle is another. False when it was dropped, and counted.
   */
  send(at: number, length: number, protocol: number, words: Int32Array, flow: number): boolean;
  /** The other end has said that something new of ours arrived: the way there works (RFC 4861, section 7.3.1). */
  confirm(words: Int32Array, flow: number): void;
}

export const isMappedIpv4 = (words: Int32Array, at: number): boolean =>
  words[at] === 0 && words[at + 1] === 0 && words[at + 2] === MAPPED_IPV4;

export const isUnspecified = (words: Int32Array, at: number): boolean =>
  words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0 && words[at + 3] === 0;

/** Write the IPv4 address `ip` (int32) as four words. */
export function setMappedIpv4(words: Int32Array, at: number, ip: number): void {
  words[at] = 0;
  words[at + 1] = 0;
  words[at + 2] = MAPPED_IPV4;
  words[at + 3] = ip;
}

/** IPv4 below a transport protocol. */
export class Ipv4Output implements IpOutput {
  readonly #ip: Ipv4Layer;

  constructor(ip: Ipv4Layer) {
    this.#ip = ip;
  }

  headerLength(): number {
    return ethernet.HEADER_LEN + IPV4_HEADER_LEN;
  }

  route(words: Int32Array, flow: number): boolean {
    if (!isMappedIpv4(words, flow + FLOW_REMOTE)) return false;
    const remote = words[flow + FLOW_REMOTE + 3]!;
    if (!this.#ip.hasRoute(remote)) return false;
    if (isUnspecified(words, flow)) setMappedIpv4(words, flow, this.#ip.sourceFor(remote));
    return this.isLocal(words, flow);
  }

  isLocal(words: Int32Array, at: number): boolean {
    return isMappedIpv4(words, at) && this.#ip.isLocal(words[at + 3]!);
  }

  mtu(words: Int32Array, flow: number): number {
    return this.#ip.mtuTo(words[flow + FLOW_REMOTE + 3]!);
  }

  send(at: number, length: number, protocol: number, words: Int32Array, flow: number): boolean {
    const frame = at - IPV4_HEADER_LEN - ethernet.HEADER_LEN;
    return this.#ip.send(frame, length, protocol, words[flow + FLOW_REMOTE + 3]!);
  }

  /** ARP asks again by its own clock (RFC 1122, section 2.3.2.1). */
  confirm(): void {}
}

/** Both families below a transport protocol: the remote address says which. */
export class DualOutput implements IpOutput {
  readonly #ipv4: Ipv4Output;
  readonly #ipv6: Ipv6Layer;

  constructor(ipv4: Ipv4Output, ipv6: Ipv6Layer) {
    this.#ipv4 = ipv4;
    this.#ipv6 = ipv6;
  }

  headerLength(words: Int32Array, flow: number): number {
    const isIpv4 = isMappedIpv4(words, flow + FLOW_REMOTE);
    return isIpv4 ? this.#ipv4.headerLength() : this.#ipv6.headerLength();
  }

  route(words: Int32Array, flow: number): boolean {
    if (isMappedIpv4(words, flow + FLOW_REMOTE)) return this.#ipv4.route(words, flow);
    return !isGroup(words, flow + FLOW_REMOTE) && this.#ipv6.route(words, flow);
  }

  isLocal(words: Int32Array, at: number): boolean {
    return isMappedIpv4(words, at) ? this.#ipv4.isLocal(words, at) : this.#ipv6.isLocal(words, at);
  }

  mtu(words: Int32Array, flow: number): number {
    const isIpv4 = isMappedIpv4(words, flow + FLOW_REMOTE);
    return isIpv4 ? this.#ipv4.mtu(words, flow) : this.#ipv6.mtu(words, flow);
  }

  send(at: number, length: number, protocol: number, words: Int32Array, flow: number): boolean {
    return isMappedIpv4(words, flow + FLOW_REMOTE)
      ? this.#ipv4.send(at, length, protocol, words, flow)
      : this.#ipv6.send(at, length, protocol, words, flow);
  }

  confirm(words: Int32Array, flow: number): void {
    if (!isMappedIpv4(words, flow + FLOW_REMOTE)) this.#ipv6.confirm(words, flow);
  }
}
