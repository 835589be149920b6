/**
 * UDP (RFC 768), the native zero-copy interface: a handler sees the received frame where it lies and answers in it.
 *
 * - A handler gets numbers: the frame, where its payload starts and how long it is, and who sent it. The address is an
 *   int32 (`srcIp >>> 0` is the Ipv4): half of all addresses would be a heap number per packet otherwise.
 * - A handler runs to completion. It replies in place, or holds the frame (and owns it then), or does nothing: what it
 *   leaves goes back to the pool when it returns. It must not touch the frame afterwards.
 */
import { NO_FRAME } from '../device/nic.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as wire from '../wire/udp.ts';
import type { IcmpLayer } from './icmp.ts';
import { ICMP_ERROR, type IcmpError } from './icmp-errors.ts';
import type { GroupOptions, Ipv4Layer } from './ipv4.ts';
import type { Link } from './link.ts';
import { type UdpBindOptions, type UdpHandler, type UdpSocket, UdpSockets } from './udp-sockets.ts';

export type {
  UdpBindOptions,
  UdpErrorHandler,
  UdpHandler,
  UdpLargeHandler,
} from './udp-sockets.ts';

/** Where the payload stands in a frame that is built with `alloc` and `sendTo`, relative to the frame. */
export const UDP_PAYLOAD_OFFSET = ethernet.HEADER_LEN + ipv4.HEADER_LEN + wire.HEADER_LEN;
/** Longest payload of a datagram (RFC 768 in an IPv4 datagram without options). */
export const UDP_PAYLOAD_MAX = ipv4.LENGTH_MAX - ipv4.HEADER_LEN - wire.HEADER_LEN;

export class UdpLayer {
  readonly #link: Link;
  readonly #ip: Ipv4Layer;
  readonly #icmp: IcmpLayer;
  readonly #sockets = new UdpSockets();
  readonly #slots = this.#sockets.slots;
  readonly #plain = this.#sockets.plain;

  constructor(link: Link, ip: Ipv4Layer, icmpErrors: IcmpLayer) {
    this.#link = link;
    this.#ip = ip;
    this.#icmp = icmpErrors;
  }

  /** Sockets that are open. */
  get socketCount(): number {
    return this.#sockets.count;
  }

  /**
   * Give every datagram to `port`, as far as `options` say, to `handler`. Several sockets may have one port; the most
   * specific one gets a datagram. ARK_BAD_ARGUMENT, ARK_IN_USE, ARK_LIMIT.
   */
  bind(port: number, handler: UdpHandler, options: UdpBindOptions = {}): UdpSocket {
    return this.#sockets.open(port, handler, options);
  }

  /** Stop delivering to one socket. Idempotent. */
  close(socket: UdpSocket): void {
    this.#sockets.close(socket);
  }

  /** Close every socket of `port`. Idempotent. */
  unbind(port: number): void {
    for (const socket of this.#sockets.chainOf(port)) this.#sockets.close(socket);
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
    const handler =
      this.#plain[this.#slots[wire.dstPort(view, at)]!] ?? this.#choose(frame, ipAt, at);
    if (handler === null) return;
    counters.rxUdp++;
    handler(frame, at + wire.HEADER_LEN, payloadLength, src, wire.srcPort(view, at));
  }

  /** The handler of a port that has no or several sockets, or one that does not take everything. Null: it was counted. */
  #choose(frame: number, ipAt: number, at: number): UdpHandler | null {
    const { view, counters } = this.#link;
    const [dst, src] = [ipv4.dst(view, ipAt), ipv4.src(view, ipAt)];
    const socket = this.#sockets.find(wire.dstPort(view, at), dst, src, wire.srcPort(view, at));
    if (socket === null) {
      counters.noSocket++;
      this.#icmp.unreachable(frame, icmp.PORT_UNREACHABLE);
      return null;
    }
    if (!socket.needsChecksum || wire.checksumField(view, at) !== 0) return socket.handler;
    counters.badChecksum++;
    return null;
  }

  /**
   * A datagram from `src` to `dst` that fits in no frame: its `length` bytes, header included, stand at the start of
   * `bytes`. Counts its outcome.
   */
  receiveLarge(bytes: Uint8Array, length: number, src: number, dst: number): void {
    const { counters } = this.#link;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const payloadLength = wire.check(view, 0, length);
    if (payloadLength < 0) {
      counters.badUdp++;
      return;
    }
    const [port, srcPort] = [wire.dstPort(view, 0), wire.srcPort(view, 0)];
    const socket = this.#sockets.find(port, dst, src, srcPort);
    const isMissing = wire.checksumField(view, 0) === 0 && socket?.needsChecksum === true;
    if (isMissing || !wire.checksumIsValid(view, 0, payloadLength, src, dst)) {
      counters.badChecksum++;
    } else if (socket === null) counters.noSocket++;
    else if (socket.onLarge === null) counters.tooLarge++;
    else {
      counters.rxUdp++;
      const payload = bytes.subarray(wire.HEADER_LEN, wire.HEADER_LEN + payloadLength);
      socket.onLarge(payload, src, srcPort);
    }
  }

  /** The network says something of a datagram that a socket may have sent. True when there is such a socket. */
  onIcmpError(error: Readonly<IcmpError>): boolean {
    if (error.isIpv6) return false;
    const [local, remote] = [error.local[3]!, error.remote[3]!];
    const socket = this.#sockets.find(error.localPort, local, remote, error.remotePort);
    if (socket === null) return false;
    const room = ipv4.HEADER_LEN + wire.HEADER_LEN;
    const mtu = error.kind === ICMP_ERROR.tooBig ? error.mtu - room : 0;
    socket.onError?.(error.kind, remote, error.remotePort, mtu);
    return true;
  }

  /** The address (int32) that a received datagram was sent to: ours, a group or a broadcast. */
  destinationOf(frame: number): number {
    return ipv4.dst(this.#link.view, frame + ethernet.HEADER_LEN);
  }

  /**
   * Send `payloadLength` bytes at `payloadAt`, the place where the handler was told that the payload is, back to the
   * sender. Takes the frame. False when it was dropped.
   */
  replyInPlace(frame: number, payloadAt: number, payloadLength: number): boolean {
    const view = this.#link.view;
    const at = payloadAt - wire.HEADER_LEN;
    const remote = ipv4.src(view, frame + ethernet.HEADER_LEN);
    if (!this.#hasRoom(payloadAt, payloadLength)) return this.#tooLong(frame);
    const source = wire.dstPort(view, at);
    const destination = wire.srcPort(view, at);
    const length = wire.HEADER_LEN + payloadLength;
    wire.emit(view, at, source, destination, payloadLength, this.#ip.sourceFor(remote), remote);
    return this.#ip.reply(frame, at, length, ipv4.PROTOCOL_UDP, remote);
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
    if (!this.#hasRoom(payloadAt, payloadLength)) return this.#tooLong(frame);
    wire.setPorts(view, at, wire.dstPort(view, at), wire.srcPort(view, at));
    return this.#ip.reply(frame, at, length, ipv4.PROTOCOL_UDP, remote);
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
    return this.#link.alloc();
  }

  /**
   * Send `payloadLength` bytes that stand at `frame + UDP_PAYLOAD_OFFSET`. Takes the frame. It leaves with this turn's
   * batch, or when the neighbour has answered; in pieces when it is longer than the path carries. To a group or a broadcast
   * address: as `group` says. False when it was dropped.
   */
  sendTo(
    frame: number,
    payloadLength: number,
    srcPort: number,
    dstIp: number,
    dstPort: number,
    group?: GroupOptions,
  ): boolean {
    const link = this.#link;
    if (!this.#hasRoom(frame + UDP_PAYLOAD_OFFSET, payloadLength)) return this.#tooLong(frame);
    const at = frame + UDP_PAYLOAD_OFFSET - wire.HEADER_LEN;
    const dst = dstIp | 0;
    wire.emit(link.view, at, srcPort, dstPort, payloadLength, this.#ip.sourceFor(dst), dst);
    const length = wire.HEADER_LEN + payloadLength;
    return this.#ip.send(frame, length, ipv4.PROTOCOL_UDP, dst, group);
  }

  /**
   * Send a copy of `payload`, up to UDP_PAYLOAD_MAX bytes, in as many pieces as the path needs. False when it was dropped:
   * too long, no frames, or as by `sendTo`.
   */
  sendBytes(
    payload: Uint8Array,
    srcPort: number,
    dstIp: number,
    dstPort: number,
    group?: GroupOptions,
  ): boolean {
    const link = this.#link;
    const frame = payload.length <= UDP_PAYLOAD_MAX ? link.alloc() : NO_FRAME;
    if (frame === NO_FRAME) {
      if (payload.length > UDP_PAYLOAD_MAX) link.counters.txTooLong++;
      else link.counters.noFrame++;
      return false;
    }
    if (this.#hasRoom(frame + UDP_PAYLOAD_OFFSET, payload.length)) {
      link.u8.set(payload, frame + UDP_PAYLOAD_OFFSET);
      return this.sendTo(frame, payload.length, srcPort, dstIp, dstPort, group);
    }
    const dst = dstIp | 0;
    const datagram = new Uint8Array(wire.HEADER_LEN + payload.length);
    datagram.set(payload, wire.HEADER_LEN);
    const view = new DataView(datagram.buffer);
    wire.emit(view, 0, srcPort, dstPort, payload.length, this.#ip.sourceFor(dst), dst);
    return this.#ip.sendBytes(frame, datagram, ipv4.PROTOCOL_UDP, dst, group);
  }

  #hasRoom(payloadAt: number, payloadLength: number): boolean {
    return payloadLength >= 0 && payloadLength <= this.#link.roomFrom(payloadAt);
  }

  #tooLong(frame: number): boolean {
    this.#link.counters.txTooLong++;
    this.#link.free(frame);
    return false;
  }
}
