/**
 * UDP (RFC 768), the native zero-copy interface: a handler sees the received frame where it lies and answers in it.
 *
 * - A handler gets numbers: the frame, where its payload starts and how long it is, and who sent it. The address is an
 *   int32 (`srcIp >>> 0` is the Ipv4): half of all addresses would be a heap number per packet otherwise.
 * - A handler runs to completion. It replies in place, or holds the frame (and owns it then), or does nothing: what it
 *   leaves goes back to the pool when it returns. It must not touch the frame afterwards.
 */
import { ArrakisError } from '../base/errors.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as wire from '../wire/udp.ts';
import type { IcmpLayer } from './icmp.ts';
import type { Ipv4Layer } from './ipv4.ts';
import { NET_LIMITS } from './limits.ts';
import type { Link } from './link.ts';

export type UdpHandler = (
  frame: number,
  payloadAt: number,
  payloadLength: number,
  srcIp: number,
  srcPort: number,
) => void;

/** Where the payload stands in a frame that is built with `alloc` and `sendTo`, relative to the frame. */
export const UDP_PAYLOAD_OFFSET = ethernet.HEADER_LEN + ipv4.HEADER_LEN + wire.HEADER_LEN;

export class UdpLayer {
  readonly #link: Link;
  readonly #ip: Ipv4Layer;
  /** Null when the address is shared with the kernel, which then answers for closed ports. */
  readonly #icmp: IcmpLayer | null;
  /** Index into `#handlers` for each port; 0 when nobody has bound it. */
  readonly #slots = new Uint8Array(65536);
  readonly #handlers: (UdpHandler | null)[] = [null];

  constructor(link: Link, ip: Ipv4Layer, icmpErrors: IcmpLayer | null) {
    this.#link = link;
    this.#ip = ip;
    this.#icmp = icmpErrors;
  }

  /** Give every datagram to `port` to `handler`. ARK_BAD_ARGUMENT, ARK_IN_USE, ARK_LIMIT. */
  bind(port: number, handler: UdpHandler): void {
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `${port} is not a UDP port`, {
        hint: 'a port is a whole number from 1 to 65535',
      });
    }
    if (this.#slots[port] !== 0) {
      throw new ArrakisError('ARK_IN_USE', `UDP port ${port} is bound already`);
    }
    let slot = this.#handlers.indexOf(null, 1);
    if (slot < 0) slot = this.#handlers.length;
    if (slot > NET_LIMITS.udpSocketsMax) {
      throw new ArrakisError('ARK_LIMIT', `${NET_LIMITS.udpSocketsMax} UDP ports are bound`);
    }
    this.#handlers[slot] = handler;
    this.#slots[port] = slot;
  }

  /** Stop delivering to `port`. Idempotent. */
  unbind(port: number): void {
    const slot = this.#slots[port] ?? 0;
    if (slot === 0) return;
    this.#handlers[slot] = null;
    this.#slots[port] = 0;
  }

  /** Handle the UDP datagram at `at` in an IPv4 payload of `length` bytes. Counts its outcome. */
  receive(frame: number, at: number, length: number): void {
    const { view, counters } = this.#link;
    const payloadLength = wire.check(view, at, at + length);
    if (payloadLength < 0) {
      counters.badUdp++;
      return;
    }
    const ipAt = frame + ethernet.HEADER_LEN;
    const src = ipv4.src(view, ipAt);
    if (!wire.checksumIsValid(view, at, payloadLength, src, ipv4.dst(view, ipAt))) {
      counters.badChecksum++;
      return;
    }
    const handler = this.#handlers[this.#slots[wire.dstPort(view, at)]!];
    if (handler === null || handler === undefined) {
      counters.noSocket++;
      this.#icmp?.unreachable(frame, icmp.PORT_UNREACHABLE);
      return;
    }
    counters.rxUdp++;
    handler(frame, at + wire.HEADER_LEN, payloadLength, src, wire.srcPort(view, at));
  }

  /**
   * Send `payloadLength` bytes at `payloadAt`, the place where the handler was told that the payload is, back to the
   * sender. Takes the frame. False when it was dropped.
   */
  replyInPlace(frame: number, payloadAt: number, payloadLength: number): boolean {
    const view = this.#link.view;
    const at = payloadAt - wire.HEADER_LEN;
    const remote = ipv4.src(view, frame + ethernet.HEADER_LEN);
    if (!this.#link.fits(frame, payloadAt + payloadLength - frame)) return this.#tooLong(frame);
    const source = wire.dstPort(view, at);
    const destination = wire.srcPort(view, at);
    const length = wire.HEADER_LEN + payloadLength;
    const reply = this.#ip.turnAround(frame, at, length, ipv4.PROTOCOL_UDP, remote);
    wire.emit(view, at, source, destination, payloadLength, this.#ip.address, remote);
    return this.#link.transmit(reply, at + length - reply);
  }

  /**
   * Send the datagram back as it is. The checksum covers the same words in another order, and stays (RFC 1071, section
   * 2(A)), unless there was none or the datagram was broadcast. Takes the frame. False when it was dropped.
   */
  echoInPlace(frame: number, payloadAt: number, payloadLength: number): boolean {
    const view = this.#link.view;
    const at = payloadAt - wire.HEADER_LEN;
    const ipAt = frame + ethernet.HEADER_LEN;
    const isSameSum =
      wire.checksumField(view, at) !== 0 && ipv4.dst(view, ipAt) === this.#ip.address;
    if (!isSameSum) return this.replyInPlace(frame, payloadAt, payloadLength);
    const length = wire.HEADER_LEN + payloadLength;
    const remote = ipv4.src(view, ipAt);
    if (!this.#link.fits(frame, payloadAt + payloadLength - frame)) return this.#tooLong(frame);
    const reply = this.#ip.turnAround(frame, at, length, ipv4.PROTOCOL_UDP, remote);
    wire.setPorts(view, at, wire.dstPort(view, at), wire.srcPort(view, at));
    return this.#link.transmit(reply, at + length - reply);
  }

  /** Keep the received frame after the handler returns. The caller owns it, and replies in it or frees it later. */
  hold(frame: number): void {
    this.#link.take(frame);
  }

  /** Give back a frame that was held or allocated. */
  free(frame: number): void {
    this.#link.free(frame);
  }

  /** A frame to write a payload into, from `frame + UDP_PAYLOAD_OFFSET` on, or NO_FRAME. The caller owns it. */
  alloc(): number {
    return this.#link.queue.alloc();
  }

  /**
   * Send `payloadLength` bytes that stand at `frame + UDP_PAYLOAD_OFFSET`. Takes the frame. It leaves with this turn's
   * batch, or when the neighbour has answered. False when it was dropped.
   */
  sendTo(
    frame: number,
    payloadLength: number,
    srcPort: number,
    dstIp: number,
    dstPort: number,
  ): boolean {
    const link = this.#link;
    if (!link.fits(frame, UDP_PAYLOAD_OFFSET + payloadLength)) return this.#tooLong(frame);
    const at = frame + UDP_PAYLOAD_OFFSET - wire.HEADER_LEN;
    const dst = dstIp | 0;
    wire.emit(link.view, at, srcPort, dstPort, payloadLength, this.#ip.address, dst);
    return this.#ip.send(frame, wire.HEADER_LEN + payloadLength, ipv4.PROTOCOL_UDP, dst);
  }

  #tooLong(frame: number): boolean {
    this.#link.counters.txTooLong++;
    this.#link.free(frame);
    return false;
  }
}
