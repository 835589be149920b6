/**
 * UDP over IPv6, the native zero-copy interface: as udp.ts has it for IPv4, whose datagrams never come here. An address
 * is four words; a handler is told both ends as one flow.
 *
 * - A handler runs to completion. It replies in place, or holds the frame (and owns it then), or does nothing: what it
 *   leaves goes back to the pool when it returns. It must not touch the frame afterwards.
 * - A datagram has a checksum, always (RFC 8200, section 8.1).
 */
import type { Ipv6 } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import { copy, set } from '../../base/ipv6.ts';
import * as ethernet from '../../wire/ethernet.ts';
import * as icmp from '../../wire/icmpv6.ts';
import { PROTOCOL_UDP } from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import * as wire from '../../wire/udp.ts';
import type { IcmpError } from '../icmp-errors.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import type { Icmp6Layer } from './icmp.ts';
import type { Ipv6Layer } from './layer.ts';

/**
 * `flow` has eight words: the address that the datagram was sent to (ours, or a group's), then its sender's. They are the
 * stack's: whoever wants them after the handler has returned copies them.
 */
export type Udp6Handler = (
  frame: number,
  payloadAt: number,
  payloadLength: number,
  flow: Int32Array,
  srcPort: number,
) => void;
/** Something that we sent from the port did not arrive. The error is overwritten by the next. */
export type Udp6ErrorHandler = (error: Readonly<IcmpError>) => void;

/** Where the payload stands in a frame that is built with `alloc` and `sendTo`, relative to the frame. */
export const UDP6_PAYLOAD_OFFSET = ethernet.HEADER_LEN + ipv6.HEADER_LEN + wire.HEADER_LEN;
const PORTS = 65536;

interface Socket {
  readonly handler: Udp6Handler;
  readonly onError: Udp6ErrorHandler | null;
}

export class Udp6Layer {
  readonly #link: Link;
  readonly #ip: Ipv6Layer;
  /** Null when the address is shared with the kernel, which then answers for closed ports. */
  readonly #icmp: Icmp6Layer | null;
  /** Index into `#sockets` for each port; 0 when nobody has bound it. */
  readonly #slots = new Uint16Array(PORTS);
  readonly #sockets: (Socket | null)[] = [null];
  readonly #flow = new Int32Array(8);

  constructor(link: Link, ip: Ipv6Layer, icmpErrors: Icmp6Layer | null) {
    this.#link = link;
    this.#ip = ip;
    this.#icmp = icmpErrors;
  }

  /** Give every datagram to `port` to `handler`. ARK_BAD_ARGUMENT, ARK_IN_USE, ARK_LIMIT. */
  bind(port: number, handler: Udp6Handler, onError: Udp6ErrorHandler | null = null): void {
    if (!Number.isInteger(port) || port < 1 || port >= PORTS) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `${port} is not a UDP port`, {
        hint: 'a port is a whole number from 1 to 65535',
      });
    }
    if (this.#slots[port] !== 0) {
      throw new ArrakisError('ARK_IN_USE', `UDP port ${port} is bound already`);
    }
    let slot = this.#sockets.indexOf(null, 1);
    if (slot < 0) slot = this.#sockets.length;
    if (slot > NET_LIMITS.udpSocketsMax) {
      throw new ArrakisError('ARK_LIMIT', `${NET_LIMITS.udpSocketsMax} UDP ports are bound`);
    }
    this.#sockets[slot] = { handler, onError };
    this.#slots[port] = slot;
  }

  /** Stop delivering to `port`. Idempotent. */
  unbind(port: number): void {
    const slot = this.#slots[port] ?? 0;
    if (slot === 0) return;
    this.#sockets[slot] = null;
    this.#slots[port] = 0;
  }

  /** Handle the UDP datagram that `ip` has just taken in. Counts its outcome. */
  receive(): void {
    const { view, counters } = this.#link;
    const { frame, payloadAt: at, payloadEnd, flow } = this.#ip;
    const payloadLength = wire.check(view, at, payloadEnd);
    if (payloadLength < 0) {
      counters.badUdp++;
      return;
    }
    if (!wire.checksumIsValid6(view, at, payloadLength, frame + ethernet.HEADER_LEN)) {
      counters.badChecksum++;
      return;
    }
    const socket = this.#sockets[this.#slots[wire.dstPort(view, at)]!];
    if (socket === null || socket === undefined) {
      counters.noSocket++;
      const { DESTINATION_UNREACHABLE, PORT_UNREACHABLE } = icmp;
      this.#icmp?.tell(frame, payloadEnd, DESTINATION_UNREACHABLE, PORT_UNREACHABLE, 0, false);
      return;
    }
    counters.rxUdp++;
    socket.handler(frame, at + wire.HEADER_LEN, payloadLength, flow, wire.srcPort(view, at));
  }

  /** Something about a datagram that we sent. Whether a port here could have sent it. */
  failed(error: Readonly<IcmpError>): boolean {
    const socket = this.#sockets[this.#slots[error.localPort] ?? 0];
    if (socket === null || socket === undefined) return false;
    socket.onError?.(error);
    return true;
  }

  /**
   * Send `payloadLength` bytes at `payloadAt`, the place where the handler was told that the payload is, back to the
   * sender. Takes the frame. False when it was dropped.
   */
  replyInPlace(frame: number, payloadAt: number, payloadLength: number): boolean {
    return this.#reply(frame, payloadAt, payloadLength, false);
  }

  /**
   * Send the datagram back as it is. The checksum covers the same words in another order, and stays (RFC 1071, section
   * 2(A)), unless it was sent to a group. Takes the frame. False when it was dropped.
   */
  echoInPlace(frame: number, payloadAt: number, payloadLength: number): boolean {
    const isSameSum = !ipv6.isToGroup(this.#link.view, frame + ethernet.HEADER_LEN);
    return this.#reply(frame, payloadAt, payloadLength, isSameSum);
  }

  #reply(frame: number, payloadAt: number, payloadLength: number, isSameSum: boolean): boolean {
    const link = this.#link;
    const { view } = link;
    const at = payloadAt - wire.HEADER_LEN;
    const length = wire.HEADER_LEN + payloadLength;
    const room = link.roomFrom(payloadAt);
    if (payloadLength < 0 || payloadLength > room) return this.#tooLong(frame);
    const source = wire.dstPort(view, at);
    const destination = wire.srcPort(view, at);
    const reply = this.#ip.turnAround(frame, at, length, PROTOCOL_UDP);
    if (reply < 0) return this.#noRoute(frame);
    if (isSameSum) wire.setPorts(view, at, source, destination);
    else wire.emit6(view, at, source, destination, payloadLength, at - ipv6.HEADER_LEN);
    return this.#ip.sendBack(reply, at + length - reply);
  }

  /** Keep the received frame after the handler returns. The caller owns it, and replies in it or frees it later. */
  hold(frame: number): void {
    this.#link.take(frame);
  }

  /** Give back a frame that was held or allocated. */
  free(frame: number): void {
    this.#link.free(frame);
  }

  /** A frame to write a payload into, from `frame + UDP6_PAYLOAD_OFFSET` on, or NO_FRAME. The caller owns it. */
  alloc(): number {
    return this.#link.alloc();
  }

  /**
   * Send `payloadLength` bytes that stand at `frame + UDP6_PAYLOAD_OFFSET` to `dst`, from `src` or the address that suits
   * it. Takes the frame. It leaves with this turn's batch, or when the neighbour has answered. False when it was dropped.
   */
  sendTo(
    frame: number,
    payloadLength: number,
    srcPort: number,
    dst: Ipv6,
    dstPort: number,
    src: Ipv6 | null = null,
  ): boolean {
    const { view } = this.#link;
    const flow = this.#flow;
    copy(dst, 0, flow, 4);
    if (src === null) set(flow, 0, 0, 0, 0, 0);
    else copy(src, 0, flow, 0);
    if (!this.#ip.route(flow, 0)) return this.#noRoute(frame);
    const length = wire.HEADER_LEN + payloadLength;
    if (!this.#ip.prepare(frame, length, PROTOCOL_UDP, flow, 0)) return this.#tooLong(frame);
    const at = frame + UDP6_PAYLOAD_OFFSET - wire.HEADER_LEN;
    wire.emit6(view, at, srcPort, dstPort, payloadLength, frame + ethernet.HEADER_LEN);
    return this.#ip.dispatch(frame, length, flow, 0);
  }

  #tooLong(frame: number): boolean {
    this.#link.counters.txTooLong++;
    this.#link.free(frame);
    return false;
  }

  #noRoute(frame: number): boolean {
    this.#link.counters.noRoute++;
    this.#link.free(frame);
    return false;
  }
}
