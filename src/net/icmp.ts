/**
 * ICMP (RFC 792; RFC 1122, section 3.2.2): echo requests are answered in place, and a datagram that nobody here wants
 * gets "destination unreachable" in its own frame, at a limited rate. Neither ever answers a broadcast.
 */
import * as ethernet from '../wire/ethernet.ts';
import * as wire from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { Ipv4Layer } from './ipv4.ts';
import { NET_LIMITS } from './limits.ts';
import type { Link } from './link.ts';

export class IcmpLayer {
  readonly #link: Link;
  readonly #ip: Ipv4Layer;
  /** Token bucket of ICMP errors, and when it was last filled. */
  #tokens: number = NET_LIMITS.icmpErrorBurst;
  #filledMs = Number.NEGATIVE_INFINITY;

  constructor(link: Link, ip: Ipv4Layer) {
    this.#link = link;
    this.#ip = ip;
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
    const isEcho = wire.type(view, at) === wire.ECHO_REQUEST && wire.code(view, at) === 0;
    if (!isEcho || !this.#ip.isUnicast) {
      counters.rxIcmp++;
      return;
    }
    counters.rxEcho++;
    const remote = ipv4.src(view, frame + ethernet.HEADER_LEN);
    const reply = this.#ip.turnAround(frame, at, length, ipv4.PROTOCOL_ICMP, remote);
    wire.retype(view, at, wire.ECHO_REPLY, 0);
    this.#link.transmit(reply, at + length - reply);
  }

  /**
   * Turn the accepted datagram in `frame` into "destination unreachable" with `code` to its sender: its IPv4 header and
   * as much of its payload as the limit allows move back behind the new headers. Takes the frame when it is sent.
   */
  unreachable(frame: number, code: number): void {
    const link = this.#link;
    if (!this.#ip.isUnicast) return;
    const view = link.view;
    const at = frame + ethernet.HEADER_LEN;
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
    wire.emit(view, icmpAt, wire.DESTINATION_UNREACHABLE, code, 0, wire.HEADER_LEN + quote);
    const length = wire.HEADER_LEN + quote;
    const error = this.#ip.turnAround(frame, icmpAt, length, ipv4.PROTOCOL_ICMP, remote);
    link.counters.icmpErrors++;
    link.transmit(error, quoteAt + quote - error);
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
