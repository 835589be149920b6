/**
 * ICMPv6 (RFC 4443): echo requests are answered in place, a packet that nobody here can use is answered by an error in its
 * own frame, at a limited rate, and errors about what we sent go to whoever sent it (icmp-errors.ts).
 *
 * No error ever answers an error, a packet from no single host, or, with two exceptions, one to a group (section 2.4).
 */

import { isUnspecified } from '../../base/ipv6.ts';
import * as ethernet from '../../wire/ethernet.ts';
import { HeaderWalk, WALK } from '../../wire/extensions.ts';
import * as wire from '../../wire/icmpv6.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import { ICMP_ERROR, type IcmpErrorKind, type IcmpErrors } from '../icmp-errors.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import { TokenBucket } from '../token-bucket.ts';
import type { AddressTable } from './addresses.ts';
import type { Ipv6Layer } from './layer.ts';

/** Bytes of the transport that an error has to quote, for us to know whose packet it was. */
const QUOTED_MIN = 8;
/** ICMP_ERROR of a "destination unreachable", by its code (RFC 4443, section 3.1). */
const UNREACHABLE_KINDS: readonly IcmpErrorKind[] = [
  ICMP_ERROR.unreachable,
  ICMP_ERROR.prohibited,
  ICMP_ERROR.unreachable,
  ICMP_ERROR.unreachable,
  ICMP_ERROR.refused,
  ICMP_ERROR.prohibited,
  ICMP_ERROR.unreachable,
];

export class Icmp6Layer {
  readonly #link: Link;
  readonly #ip: Ipv6Layer;
  readonly #addresses: AddressTable;
  readonly #errors: IcmpErrors;
  readonly #walk = new HeaderWalk(true);
  readonly #bucket = new TokenBucket(NET_LIMITS.icmpErrorsPerSecond, NET_LIMITS.icmpErrorBurst);

  constructor(link: Link, ip: Ipv6Layer, addresses: AddressTable, errors: IcmpErrors) {
    this.#link = link;
    this.#ip = ip;
    this.#addresses = addresses;
    this.#errors = errors;
  }

  /** An echo request at `at`, `length` bytes in all: its answer, in its frame. A request to a group is answered, too. */
  echo(frame: number, at: number, length: number): void {
    const link = this.#link;
    link.counters.rxEcho++;
    const { view } = link;
    if (isUnspecified(this.#ip.flow, 4)) return;
    const reply = this.#ip.turnAround(frame, at, length, ipv6.PROTOCOL_ICMPV6);
    if (reply < 0) return;
    wire.emit(view, at, wire.ECHO_REPLY, 0, wire.rest(view, at), length, at - ipv6.HEADER_LEN);
    this.#ip.sendBack(reply, at + length - reply);
  }

  /** An error of type `type` at `at`, up to `end`, about something that we sent (RFC 4443, section 2.4 (d)). */
  error(at: number, end: number, type: number): void {
    const { counters, nowMs } = this.#link;
    if (this.#describe(at, end, type) && this.#errors.deliver(nowMs)) counters.rxIcmpError++;
    else counters.badQuote++;
  }

  /** Put into words what an error says. False when it cannot be about a packet of ours. */
  #describe(at: number, end: number, type: number): boolean {
    const { view } = this.#link;
    const { error } = this.#errors;
    const kind = kindOf(type, wire.code(view, at));
    const quoted = at + wire.HEADER_LEN;
    if (kind < 0 || !this.#ip.isUnicast || end - quoted < ipv6.HEADER_LEN) return false;
    ipv6.readSrc(view, quoted, error.local, 0);
    ipv6.readDst(view, quoted, error.remote, 0);
    if (!this.#addresses.has(error.local, 0)) return false;
    const walk = this.#walk;
    const first = ipv6.nextHeader(view, quoted);
    const outcome = walk.run(view, quoted + ipv6.HEADER_LEN, end, first, quoted + 6, true);
    if (outcome !== WALK.payload || end - walk.payloadAt < QUOTED_MIN) return false;
    error.kind = kind as IcmpErrorKind;
    error.isIpv6 = true;
    error.protocol = walk.protocol;
    error.localPort = view.getUint16(walk.payloadAt);
    error.remotePort = view.getUint16(walk.payloadAt + 2);
    error.quotedWord = view.getInt32(walk.payloadAt + 4);
    error.mtu = 0;
    if (kind !== ICMP_ERROR.tooBig) return true;
    // What was sent was longer than what the path carries, or it is a lie.
    error.mtu = wire.rest(view, at) >>> 0;
    return error.mtu < ipv6.HEADER_LEN + ipv6.payloadLength(view, quoted);
  }

  /**
   * Turn the packet in `frame`, which ends at `end`, into an error to its sender: as much of it as the limit allows moves
   * back behind the new headers. `rest` is the error's own word. `tellsGroup`: also when it was sent to a group. Takes
   * the frame when it is sent.
   */
  tell(
    frame: number,
    end: number,
    type: number,
    code: number,
    rest: number,
    tellsGroup: boolean,
  ): void {
    const link = this.#link;
    const { view } = link;
    if (!(this.#ip.isUnicast || tellsGroup) || isUnspecified(this.#ip.flow, 4)) return;
    const at = frame + ethernet.HEADER_LEN;
    if (this.#isAnswerToError(at, end)) return;
    const messageAt = at + ipv6.HEADER_LEN;
    const quoteAt = messageAt + wire.HEADER_LEN;
    const quote = Math.min(end - at, ipv6.MTU_MIN - (quoteAt - at));
    if (!link.fits(frame, quoteAt + quote - frame)) {
      link.counters.txTooLong++;
      return;
    }
    if (!this.#bucket.take(link.nowMs)) {
      link.counters.icmpLimited++;
      return;
    }
    link.u8.copyWithin(quoteAt, at, at + quote);
    const length = wire.HEADER_LEN + quote;
    const error = this.#ip.turnAround(frame, messageAt, length, ipv6.PROTOCOL_ICMPV6);
    if (error < 0) return;
    wire.emit(view, messageAt, type, code, rest, length, at);
    link.counters.icmpErrors++;
    this.#ip.sendBack(error, quoteAt + quote - error);
  }

  /** True for a packet that is an ICMPv6 error, behind whatever headers. */
  #isAnswerToError(at: number, end: number): boolean {
    const { view } = this.#link;
    const walk = this.#walk;
    const next = ipv6.nextHeader(view, at);
    walk.run(view, at + ipv6.HEADER_LEN, end, next, at + 6, true);
    if (walk.protocol !== ipv6.PROTOCOL_ICMPV6) return false;
    // A redirect counts as one (section 2.4 (e.2)).
    const type = walk.payloadAt < end ? view.getUint8(walk.payloadAt) : 0;
    return wire.isError(type) || type === REDIRECT;
  }
}

const REDIRECT = 137;

/** One of ICMP_ERROR, or -1 for an error that says nothing to us. */
function kindOf(type: number, code: number): number {
  switch (type) {
    case wire.DESTINATION_UNREACHABLE:
      return UNREACHABLE_KINDS[code] ?? -1;
    case wire.PACKET_TOO_BIG:
      return ICMP_ERROR.tooBig;
    case wire.TIME_EXCEEDED:
      return code === wire.REASSEMBLY_TIMEOUT ? ICMP_ERROR.reassembly : ICMP_ERROR.hopLimit;
    case wire.PARAMETER_PROBLEM:
      return ICMP_ERROR.badHeader;
    default:
      return -1;
  }
}
