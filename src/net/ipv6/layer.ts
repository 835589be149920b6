/**
 * IPv6 in and out (RFC 8200). Addresses are four words; a flow is eight, ours and then the other.
 *
 * - What is received is for one of our addresses, or a group that we are in; from one host, or, for ICMPv6, from none.
 * - Extension headers are walked (wire/extensions.ts) and never sent back. Pieces of packets are put together
 *   (reassembly.ts), except neighbour discovery, which may not come in pieces (RFC 6980).
 * - What is for ourselves (our addresses, ::1) goes round inside (`Link.loop`), and only from there do such sources come.
 * - What we send has no extension headers but the router alert of MLD, and a fragment header where it is longer than its
 *   path carries and its protocol does not cut itself (all but TCP).
 */

import { copy, GROUP_MAC_HI, isGroup, isHost, isLoopback, isUnspecified } from '../../base/ipv6.ts';
import * as ethernet from '../../wire/ethernet.ts';
import * as extensions from '../../wire/extensions.ts';
import { HeaderWalk, WALK } from '../../wire/extensions.ts';
import { PROTOCOL_TCP } from '../../wire/ipv4.ts';
import * as wire from '../../wire/ipv6.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import type { PathMtu } from '../path-mtu.ts';
import { FRAGMENT, KEY, KEY_IPV6, type Reassembly } from '../reassembly.ts';
import type { AddressTable } from './addresses.ts';
import { sendPieces6 } from './fragment.ts';
import type { Groups6 } from './groups.ts';
import type { Neighbours6 } from './neighbours.ts';
import type { Routes6 } from './routes.ts';

const HEADERS = ethernet.HEADER_LEN + wire.HEADER_LEN;
const REMOTE = 4;

export interface Ipv6Parts {
  readonly addresses: AddressTable;
  readonly groups: Groups6;
  readonly neighbours: Neighbours6;
  readonly routes: Routes6;
  readonly paths: PathMtu;
  readonly reassembly: Reassembly;
  /** Integers from 0 to 2^32 - 1: identifications that a stranger cannot guess (RFC 7739). */
  readonly random: () => number;
}

export class Ipv6Layer {
  /** Of the packet that `receive` accepted last: its destination, then its source. */
  readonly flow = new Int32Array(8);
  /** Where its payload is: in `frame`, from `payloadAt` to `payloadEnd`. */
  frame = 0;
  protocol = 0;
  payloadAt = 0;
  payloadEnd = 0;
  /** True when its destination is one of our addresses, false for a group. */
  isUnicast = false;
  /** It came with a fragment header. */
  wasFragmented = false;
  /** Its extension headers; of a WALK.problem, what to tell the sender. */
  readonly walk = new HeaderWalk();
  /** What a router may change. */
  hopLimit: number = NET_LIMITS.ttl;
  linkMtu: number;
  readonly #link: Link;
  readonly #parts: Ipv6Parts;
  readonly #reply = new Int32Array(8);

  constructor(link: Link, parts: Ipv6Parts) {
    this.#link = link;
    this.#parts = parts;
    this.linkMtu = link.mtu;
  }

  /**
   * Take in the packet at `at`: WALK.payload when it is whole and for us; WALK.problem when its sender is to be told so;
   * otherwise it was kept, or dropped and counted.
   */
  receive(frame: number, at: number, end: number, isLinkUnicast: boolean): number {
    const { view, counters } = this.#link;
    const length = wire.check(view, at, end);
    if (length < 0) {
      counters.badIp++;
      return WALK.malformed;
    }
    if (!this.#isForUs(at, isLinkUnicast)) return WALK.discard;
    this.frame = frame;
    this.payloadEnd = at + wire.HEADER_LEN + length;
    const first = at + wire.HEADER_LEN;
    const next = wire.nextHeader(view, at);
    return this.#pass(this.walk.run(view, first, this.payloadEnd, next, at + 6, true));
  }

  /**
   * The same for a packet of several pieces that is `length` bytes long, of which no more than its first piece stands in
   * `frame`, up to `end`. True when it is for one of our addresses, and has no headers that would have to be walked.
   */
  receivePieces(frame: number, at: number, end: number, length: number): boolean {
    const { view, counters } = this.#link;
    if (
      end - at < wire.HEADER_LEN ||
      wire.check(view, at, at + length) !== length - wire.HEADER_LEN
    ) {
      counters.badIp++;
      return false;
    }
    if (!this.#isForUs(at, true)) return false;
    this.protocol = wire.nextHeader(view, at);
    if (this.protocol !== PROTOCOL_TCP || isUnspecified(this.flow, REMOTE) || !this.isUnicast) {
      counters.noProtocol++;
      return false;
    }
    this.frame = frame;
    this.payloadAt = at + wire.HEADER_LEN;
    this.payloadEnd = end;
    return true;
  }

  /** Check the addresses of the packet at `at`, and leave them in `flow`. */
  #isForUs(at: number, isLinkUnicast: boolean): boolean {
    const { view, counters } = this.#link;
    const { flow } = this;
    const { addresses, groups } = this.#parts;
    wire.readDst(view, at, flow, 0);
    wire.readSrc(view, at, flow, REMOTE);
    this.isUnicast = !isGroup(flow, 0);
    // A frame to many carries nothing for one (as in IPv4: RFC 1122, section 3.3.6); the other way round is RFC 6085.
    const isOurs = this.isUnicast ? isLinkUnicast && this.#isHere(flow, 0) : groups.has(flow, 0);
    if (!isOurs) {
      counters.notForUs++;
      return false;
    }
    const isFromNobody = isUnspecified(flow, REMOTE);
    const isSource =
      isFromNobody ||
      (this.#link.isLoop
        ? this.isLocal(flow, REMOTE)
        : isHost(flow, REMOTE) && !addresses.has(flow, REMOTE));
    if (!isSource) counters.badSource++;
    return isSource;
  }

  /** Whether a packet that was received is for us: ::1 only when we sent it. */
  #isHere(w: Int32Array, i: number): boolean {
    return this.#parts.addresses.has(w, i) || (this.#link.isLoop && isLoopback(w, i));
  }

  /** Ours: what is sent there goes round inside. */
  isLocal(w: Int32Array, i: number): boolean {
    return this.#parts.addresses.has(w, i) || isLoopback(w, i);
  }

  /** What a walk over the headers came to, and what that is for us. */
  #pass(outcome: number): number {
    const { counters } = this.#link;
    const { walk } = this;
    if (outcome === WALK.fragment) return this.#collect();
    if (outcome < 0) counters.badExtension++;
    if (outcome !== WALK.payload) return outcome;
    this.protocol = walk.protocol;
    this.payloadAt = walk.payloadAt;
    this.wasFragmented = walk.hasFragment;
    // Only neighbour discovery and MLD speak before they have an address.
    if (isUnspecified(this.flow, REMOTE) && walk.protocol !== wire.PROTOCOL_ICMPV6) {
      counters.badSource++;
      return WALK.discard;
    }
    return outcome;
  }

  /** A piece of a packet (RFC 8200, section 4.5). The last one that was missing goes on as the whole. */
  #collect(): number {
    const { view, counters } = this.#link;
    const { walk, flow } = this;
    const { reassembly } = this.#parts;
    const at = walk.fragmentAt;
    const offset = extensions.fragmentOffset(view, at);
    const more = extensions.moreFragments(view, at);
    if (isUnspecified(flow, REMOTE) || !this.#isWholeChain(offset)) {
      counters.badFragment++;
      return WALK.discard;
    }
    const { key } = reassembly;
    copy(flow, REMOTE, key, KEY.source);
    copy(flow, 0, key, KEY.destination);
    key[KEY.id] = extensions.fragmentId(view, at);
    // The protocol of later pieces is not to be believed: all pieces of a packet are one by addresses and identification.
    key[KEY.protocol] = KEY_IPV6;
    const length = this.payloadEnd - walk.payloadAt;
    const outcome = reassembly.add(this.frame, walk.payloadAt, offset, length, more);
    if (outcome === FRAGMENT.kept) return WALK.discard;
    if (outcome === FRAGMENT.gathered) {
      counters.tooLarge++;
      return WALK.discard;
    }
    return this.#goOn();
  }

  /** The first piece has all headers up to that of the transport (RFC 7112): so that all of them can be judged. */
  #isWholeChain(offset: number): boolean {
    if (offset !== 0) return true;
    const { walk } = this;
    const { payloadAt, protocol, nextAt, fragmentAt } = walk;
    const { view } = this.#link;
    const outcome = walk.run(view, payloadAt, this.payloadEnd, protocol, nextAt, false);
    const isWhole = outcome === WALK.payload && this.payloadEnd - walk.payloadAt >= 8;
    walk.payloadAt = payloadAt;
    walk.protocol = protocol;
    walk.nextAt = nextAt;
    walk.fragmentAt = fragmentAt;
    return isWhole;
  }

  /** The packet is whole in the frame of its first piece: walk on behind the fragment header. */
  #goOn(): number {
    const { reassembly } = this.#parts;
    const { view } = this.#link;
    const at = reassembly.payloadAt;
    const fragmentAt = at - extensions.FRAGMENT_LEN;
    this.frame = reassembly.frame;
    this.payloadEnd = at + reassembly.length;
    const first = view.getUint8(fragmentAt);
    const outcome = this.walk.run(view, at, this.payloadEnd, first, fragmentAt, false);
    const passed = this.#pass(outcome === WALK.fragment ? WALK.malformed : outcome);
    this.wasFragmented = true;
    return passed;
  }

  /**
   * Rewrite the Ethernet and IPv6 headers of a received frame whose payload stands at `payloadAt` to send `length` bytes of
   * it back to its sender. Extension headers are cut out. Returns the frame's handle from now on, and takes it; -1, and the
   * frame is not taken, when there is no address to send from.
   */
  turnAround(frame: number, payloadAt: number, length: number, protocol: number): number {
    const link = this.#link;
    const { addresses } = this.#parts;
    const flow = this.#reply;
    const ip = frame + ethernet.HEADER_LEN;
    wire.readDst(link.view, ip, flow, 0);
    wire.readSrc(link.view, ip, flow, REMOTE);
    if (!this.isLocal(flow, 0)) {
      const source = addresses.sourceFor(flow, REMOTE);
      if (source < 0) return -1;
      copy(addresses.words, source * 4, flow, 0);
    }
    const hi = ethernet.srcHi(link.view, frame);
    const lo = ethernet.srcLo(link.view, frame);
    const at = payloadAt - wire.HEADER_LEN;
    const moved = at - ethernet.HEADER_LEN;
    link.take(frame);
    this.#emitEthernet(moved, hi, lo);
    wire.emit(link.view, at, length, protocol, this.hopLimit, flow, 0);
    return moved;
  }

  /** Send a frame of `turnAround`, `length` bytes in all. Takes it. False when it was dropped. */
  sendBack(frame: number, length: number): boolean {
    const link = this.#link;
    const remote = this.#reply;
    wire.readDst(link.view, frame + ethernet.HEADER_LEN, remote, REMOTE);
    if (this.isLocal(remote, REMOTE)) return link.loop(frame, length);
    const mtu = this.mtuTo(remote, REMOTE);
    if (length - ethernet.HEADER_LEN <= mtu) return link.transmit(frame, length);
    return sendPieces6(link, frame, length, mtu, this.#parts.random() | 0, (piece, bytes) =>
      link.transmit(piece, bytes),
    );
  }

  /**
   * Fill in where a flow is sent from, when its first four words are 0. False when there is no way, or what is there is not
   * one of our addresses.
   */
  route(words: Int32Array, flow: number): boolean {
    const { addresses, routes } = this.#parts;
    const to = flow + REMOTE;
    const isLocal = this.isLocal(words, to);
    if (!isLocal && !isGroup(words, to)) {
      if (!isHost(words, to) || !routes.nextHop(words, to)) return false;
    }
    if (!isUnspecified(words, flow)) {
      return addresses.has(words, flow) || (isLocal && isLoopback(words, flow));
    }
    if (isLocal) {
      copy(words, to, words, flow);
      return true;
    }
    const source = addresses.sourceFor(words, to);
    if (source < 0) return false;
    copy(addresses.words, source * 4, words, flow);
    return true;
  }

  /** Longest packet, header included, that reaches the address at `i` of `w` as far as is known. */
  mtuTo(w: Int32Array, i: number): number {
    const { paths } = this.#parts;
    const path = paths.get(w[i]!, w[i + 1]!, w[i + 2]!, w[i + 3]!, this.#link.nowMs);
    return Math.min(path, this.linkMtu);
  }

  /**
   * Write the headers of `length` payload bytes that stand behind the room for them in `frame`, the last of them in the
   * link's burst if there is one, from a flow that `route` has said yes to. What covers the addresses in the payload can be written then. False when it is too long.
   */
  prepare(
    frame: number,
    length: number,
    protocol: number,
    words: Int32Array,
    flow: number,
  ): boolean {
    const link = this.#link;
    const first = length - link.burst.bytes;
    const isLong = first + wire.HEADER_LEN > this.mtuTo(words, flow + REMOTE);
    if (first < 0 || length > 0xffff || link.roomFrom(frame) < HEADERS + first) return false;
    if (isLong && protocol === PROTOCOL_TCP) return false;
    const isToGroup = isGroup(words, flow + REMOTE);
    this.#emitEthernet(frame, isToGroup ? GROUP_MAC_HI : 0, words[flow + 7]!);
    // A group beyond the link is for who says so (RFC 3493, section 5.2: the default is 1).
    const hops = isToGroup ? 1 : this.hopLimit;
    wire.emit(link.view, frame + ethernet.HEADER_LEN, length, protocol, hops, words, flow);
    return true;
  }

  /** Send what `prepare` made and the caller finished. Takes the frame. False when it was dropped. */
  dispatch(frame: number, length: number, words: Int32Array, flow: number): boolean {
    const link = this.#link;
    const first = length - link.burst.bytes;
    const total = HEADERS + first;
    const remote = flow + REMOTE;
    if (this.isLocal(words, remote)) return link.loop(frame, total);
    const isToGroup = isGroup(words, remote);
    if (!isToGroup && !this.#parts.routes.nextHop(words, remote)) {
      link.counters.noRoute++;
      link.free(frame);
      return false;
    }
    const mtu = this.mtuTo(words, remote);
    if (first + wire.HEADER_LEN <= mtu) return this.#leave(frame, total, isToGroup);
    return sendPieces6(link, frame, total, mtu, this.#parts.random() | 0, (piece, bytes) =>
      this.#leave(piece, bytes, isToGroup),
    );
  }

  /** To the group whose MAC it has already, or to the next hop that `routes` has found. */
  #leave(frame: number, length: number, isToGroup: boolean): boolean {
    const { routes, neighbours } = this.#parts;
    if (isToGroup) return this.#link.transmit(frame, length);
    return neighbours.deliver(routes.hop, 0, frame, length);
  }

  /** Bytes of the headers that `send` writes before a segment. */
  headerLength(): number {
    return HEADERS;
  }

  /** Longest packet, header included, that reaches the remote address of a flow. */
  mtu(words: Int32Array, flow: number): number {
    return this.mtuTo(words, flow + REMOTE);
  }

  /**
   * Send the `length` bytes that stand at `at` in a frame of the pool, a whole segment of `protocol`, from a flow that `route`
   * has said yes to. Takes one reference to the frame. False when it was dropped, and counted.
   */
  send(at: number, length: number, protocol: number, words: Int32Array, flow: number): boolean {
    const frame = at - HEADERS;
    if (this.prepare(frame, length, protocol, words, flow)) {
      return this.dispatch(frame, length, words, flow);
    }
    this.#link.counters.txTooLong++;
    this.#link.free(frame);
    return false;
  }

  /** Who has the remote address of a flow, or the way to it, has let something through. */
  confirm(words: Int32Array, flow: number): void {
    const { routes, neighbours } = this.#parts;
    const remote = flow + REMOTE;
    if (this.isLocal(words, remote) || !routes.nextHop(words, remote)) return;
    neighbours.confirmReachable(routes.hop, 0);
  }

  /** The address is shared with the kernel: remember where this packet's sender, or the way to it, is. */
  learn(frame: number): void {
    const { view } = this.#link;
    const { routes, neighbours } = this.#parts;
    if (isUnspecified(this.flow, REMOTE) || !routes.nextHop(this.flow, REMOTE)) return;
    const hi = ethernet.srcHi(view, frame);
    neighbours.learnFromTraffic(routes.hop, 0, hi, ethernet.srcLo(view, frame));
  }

  #emitEthernet(frame: number, hi: number, lo: number): void {
    this.#link.emitEthernet(frame, hi, lo);
    ethernet.setType(this.#link.view, frame, ethernet.TYPE_IPV6);
  }
}
