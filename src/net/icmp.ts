/**
 * ICMP (RFC 792; RFC 1122, section 3.2.2): echo requests are answered in place, a datagram that nobody here wants gets
 * an error in its own frame, at a limited rate, and errors about what we sent go to whoever sent it (icmp-errors.ts).
 * Nothing here ever answers a broadcast, a group, or another error.
 */
import * as ethernet from '../wire/ethernet.ts';
import * as wire from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { ICMP_ERROR, type IcmpErrorKind, type IcmpErrors } from './icmp-errors.ts';
import type { Ipv4Layer } from './ipv4.ts';
import { NET_LIMITS } from './limits.ts';
import type { Link } from './link.ts';
import { MAPPED } from './path-mtu.ts';

/** Bytes of the quoted payload that say whose packet it was (RFC 792). */
const QUOTED_MIN = 8;
/** MTUs of links, where a router does not tell its own (RFC 1191, section 7.1). */
const PLATEAUS = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296] as const;

export class IcmpLayer {
  readonly #link: Link;
  readonly #ip: Ipv4Layer;
  readonly #errors: IcmpErrors;
  /** False when the kernel has the address, too, and answers: then only errors are heard. */
  readonly #answers: boolean;
  /** Token bucket of ICMP errors, and when it was last filled. */
  #tokens: number = NET_LIMITS.icmpErrorBurst;
  #filledMs = Number.NEGATIVE_INFINITY;

  constructor(link: Link, ip: Ipv4Layer, errors: IcmpErrors, answers: boolean) {
    this.#link = link;
    this.#ip = ip;
    this.#errors = errors;
    this.#answers = answers;
  }

  /** Handle the ICMP message of `length` bytes at `at`. Counts its outcome; takes the frame when it becomes the reply. */
  receive(frame: number, at: number, length: number): void {
    const { view, counters } = this.#link;
    const bodyLength = wire.check(view, at, at + length);
    if (bodyLength < 0) {
      if (bodyLength === wire.BAD_CHECKSUM) counters.badChecksum++;
      else counters.badIcmp++;
      return;
    }
    const type = wire.type(view, at);
    if (isError(type)) {
      this.#receiveError(at, type, bodyLength);
      return;
    }
    if (!this.#answers) {
      counters.notForUs++;
      return;
    }
    const isEcho = type === wire.ECHO_REQUEST && wire.code(view, at) === 0;
    if (!isEcho || !this.#ip.isUnicast) {
      counters.rxIcmp++;
      return;
    }
    counters.rxEcho++;
    const remote = ipv4.src(view, frame + ethernet.HEADER_LEN);
    wire.retype(view, at, wire.ECHO_REPLY, 0);
    this.#ip.reply(frame, at, length, ipv4.PROTOCOL_ICMP, remote);
  }

  /** An error with `bodyLength` bytes of a packet that we are said to have sent. Never answered. */
  #receiveError(at: number, type: number, bodyLength: number): void {
    const { view, counters, nowMs } = this.#link;
    const quoteAt = at + wire.HEADER_LEN;
    const header = this.#quotedHeader(quoteAt, bodyLength);
    const kind = header < 0 ? -1 : kindOf(type, wire.code(view, at));
    const isOurs = kind >= 0 && this.#ip.isUnicast && this.#ip.isLocal(ipv4.src(view, quoteAt));
    if (!isOurs) {
      counters.badQuote++;
      return;
    }
    const { error } = this.#errors;
    const inner = quoteAt + header;
    error.kind = kind as IcmpErrorKind;
    error.isIpv6 = false;
    error.protocol = ipv4.protocol(view, quoteAt);
    setMapped(error.local, ipv4.src(view, quoteAt));
    setMapped(error.remote, ipv4.dst(view, quoteAt));
    error.localPort = view.getUint16(inner);
    error.remotePort = view.getUint16(inner + 2);
    error.quotedWord = view.getInt32(inner + 4);
    error.mtu = kind === ICMP_ERROR.tooBig ? this.#mtuOf(at, quoteAt) : 0;
    if (this.#errors.deliver(nowMs)) counters.rxIcmpError++;
    else counters.badQuote++;
  }

  /** Bytes of the quoted IPv4 header when it and QUOTED_MIN bytes behind it are there, and it is a first piece; otherwise -1. */
  #quotedHeader(at: number, length: number): number {
    const { view } = this.#link;
    if (length < ipv4.HEADER_LEN + QUOTED_MIN) return -1;
    const header = ipv4.headerLength(view, at);
    const isWhole = header >= ipv4.HEADER_LEN && header + QUOTED_MIN <= length;
    if (!isWhole || view.getUint8(at) >>> 4 !== 4) return -1;
    return ipv4.fragmentOffset(view, at) === 0 ? header : -1;
  }

  /** MTU that a router tells, or the next plateau below the packet's length. No packet of ours is longer than it was. */
  #mtuOf(at: number, quoteAt: number): number {
    const { view } = this.#link;
    const sent = ipv4.totalLength(view, quoteAt);
    const told = wire.nextHopMtu(view, at);
    if (told !== 0) return told < sent ? told : this.#link.mtu;
    return PLATEAUS.find((plateau) => plateau < sent) ?? 0;
  }

  /** "Destination unreachable" with `code` for the accepted datagram in `frame`. Takes the frame when it is sent. */
  unreachable(frame: number, code: number): void {
    this.error(frame, wire.DESTINATION_UNREACHABLE, code);
  }

  /**
   * Turn the accepted datagram in `frame` into an ICMP error to its sender: its IPv4 header and as much of its payload as
   * the limit allows move back behind the new headers. Takes the frame when it is sent.
   */
  error(frame: number, type: number, code: number): void {
    const link = this.#link;
    const view = link.view;
    const at = frame + ethernet.HEADER_LEN;
    if (!this.#answers || !this.#ip.isLocal(ipv4.dst(view, at))) return;
    const icmpAt = at + ipv4.HEADER_LEN;
    const quoteAt = icmpAt + wire.HEADER_LEN;
    const lengthMax = Math.min(NET_LIMITS.icmpErrorLengthMax, link.mtu);
    const quote = Math.min(ipv4.totalLength(view, at), lengthMax - (quoteAt - at));
    if (!link.fits(frame, quoteAt + quote - frame)) {
      link.counters.txTooLong++;
      return;
    }
    if (!this.#spend()) {
      link.counters.icmpLimited++;
      return;
    }
    const remote = ipv4.src(view, at);
    link.u8.copyWithin(quoteAt, at, at + quote);
    wire.emit(view, icmpAt, type, code, 0, wire.HEADER_LEN + quote);
    const length = wire.HEADER_LEN + quote;
    link.counters.icmpErrors++;
    this.#ip.reply(frame, icmpAt, length, ipv4.PROTOCOL_ICMP, remote);
  }

  /** Take a token if there is one. A clock that steps back fills nothing. */
  #spend(): boolean {
    const elapsedMs = Math.max(0, this.#link.nowMs - this.#filledMs);
    const fresh = (elapsedMs * NET_LIMITS.icmpErrorsPerSecond) / 1000;
    this.#tokens = Math.min(NET_LIMITS.icmpErrorBurst, this.#tokens + fresh);
    this.#filledMs = this.#link.nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}

const isError = (type: number): boolean =>
  type === wire.DESTINATION_UNREACHABLE ||
  type === wire.TIME_EXCEEDED ||
  type === wire.PARAMETER_PROBLEM;

/** What type and code mean to a sender (RFC 1122, sections 3.2.2.1 and 4.2.3.9); -1 for what nobody has defined. */
function kindOf(type: number, code: number): IcmpErrorKind | -1 {
  if (type === wire.TIME_EXCEEDED) {
    if (code > wire.REASSEMBLY_TIME) return -1;
    return code === wire.REASSEMBLY_TIME ? ICMP_ERROR.reassembly : ICMP_ERROR.hopLimit;
  }
  if (type === wire.PARAMETER_PROBLEM) return code <= 2 ? ICMP_ERROR.badHeader : -1;
  switch (code) {
    case wire.PROTOCOL_UNREACHABLE:
    case wire.PORT_UNREACHABLE:
      return ICMP_ERROR.refused;
    case wire.FRAGMENTATION_NEEDED:
      return ICMP_ERROR.tooBig;
    case wire.NETWORK_PROHIBITED:
    case wire.HOST_PROHIBITED:
    case wire.COMMUNICATION_PROHIBITED:
      return ICMP_ERROR.prohibited;
    default:
      return code <= wire.CODE_MAX ? ICMP_ERROR.unreachable : -1;
  }
}

function setMapped(words: Int32Array, ip: number): void {
  words[0] = 0;
  words[1] = 0;
  words[2] = MAPPED;
  words[3] = ip;
}
