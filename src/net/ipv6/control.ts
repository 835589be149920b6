/**
 * The stack's own ICMPv6 messages on their way out: neighbour and router solicitations, advertisements, reports. Each is
 * built in a frame of the pool, or in that which it answers, and goes to a MAC address that is known already.
 */

import { GROUP_MAC_HI, isGroup, set, solicitedNode } from '../../base/ipv6.ts';
import { NO_FRAME } from '../../device/nic.ts';
import * as ethernet from '../../wire/ethernet.ts';
import * as extensions from '../../wire/extensions.ts';
import * as icmp from '../../wire/icmpv6.ts';
import * as wire from '../../wire/ipv6.ts';
import * as mld from '../../wire/mld.ts';
import * as ndp from '../../wire/ndp.ts';
import type { Link } from '../link.ts';

const IP = ethernet.HEADER_LEN;
/** Where the message of one that we build begins, and of one behind a router alert. */
export const MESSAGE = IP + wire.HEADER_LEN;
export const ALERTED_MESSAGE = MESSAGE + extensions.ROUTER_ALERT_LEN;
const REMOTE = 4;

export class ControlOutput {
  readonly #link: Link;
  /** Source and destination of the message that is being built. */
  readonly flow = new Int32Array(8);

  constructor(link: Link) {
    this.#link = link;
  }

  /** A frame to build in, or NO_FRAME, which is counted. */
  alloc(): number {
    const frame = this.#link.alloc();
    if (frame === NO_FRAME) this.#link.counters.noFrame++;
    return frame;
  }

  /** Ask who has the address at `i` of `words`: by its group, or `to` its MAC. From `flow`, whose source is set. */
  solicit(words: Int32Array, i: number, isProbe: boolean, hi: number, lo: number): boolean {
    const frame = this.alloc();
    if (frame === NO_FRAME) return false;
    const { view, macHi, macLo, counters } = this.#link;
    const { flow } = this;
    if (isProbe) for (let k = 0; k < 4; k++) flow[REMOTE + k] = words[i + k]!;
    else solicitedNode(words, i, flow, REMOTE);
    ndp.emitTarget(view, frame + MESSAGE, 0, words, i);
    let length = ndp.SOLICITATION_LEN;
    // From no address, there is nobody whose MAC it could be (section 4.3).
    if ((flow[0]! | flow[1]! | flow[2]! | flow[3]!) !== 0) {
      ndp.emitMac(view, frame + MESSAGE + length, ndp.OPTION.sourceMac, macHi, macLo);
      length += ndp.MAC_OPTION_LEN;
    }
    counters.ndSolicits++;
    return this.send(frame, ndp.NEIGHBOUR_SOLICITATION, length, isProbe ? hi : GROUP_MAC_HI, lo);
  }

  /** Say in `frame`, which is taken, that the address at `i` of `words` is ours. To the destination of `flow`, at hi, lo. */
  advertise(
    frame: number,
    words: Int32Array,
    i: number,
    flags: number,
    hi: number,
    lo: number,
  ): boolean {
    const { view, macHi, macLo, counters } = this.#link;
    ndp.emitTarget(view, frame + MESSAGE, flags, words, i);
    const option = frame + MESSAGE + ndp.SOLICITATION_LEN;
    ndp.emitMac(view, option, ndp.OPTION.targetMac, macHi, macLo);
    counters.ndAdverts++;
    const length = ndp.SOLICITATION_LEN + ndp.MAC_OPTION_LEN;
    return this.send(frame, ndp.NEIGHBOUR_ADVERTISEMENT, length, hi, lo);
  }

  /** Ask for routers, from the source of `flow`. */
  solicitRouters(): boolean {
    const frame = this.alloc();
    if (frame === NO_FRAME) return false;
    const { view, macHi, macLo, counters } = this.#link;
    set(this.flow, REMOTE, 0xff020000 | 0, 0, 0, 2);
    view.setInt32(frame + MESSAGE + 4, 0);
    const option = frame + MESSAGE + ndp.ROUTER_SOLICITATION_LEN;
    ndp.emitMac(view, option, ndp.OPTION.sourceMac, macHi, macLo);
    counters.routerSolicits++;
    const length = ndp.ROUTER_SOLICITATION_LEN + ndp.MAC_OPTION_LEN;
    return this.send(frame, ndp.ROUTER_SOLICITATION, length, GROUP_MAC_HI, 0);
  }

  /** Send a report of `length` bytes at ALERTED_MESSAGE of `frame`, from the source of `flow`, to all MLD routers. */
  report(frame: number, length: number): boolean {
    const { view, counters } = this.#link;
    set(this.flow, REMOTE, 0xff020000 | 0, 0, 0, 0x16);
    counters.mldReports++;
    const options = frame + MESSAGE;
    extensions.emitRouterAlert(view, options, wire.PROTOCOL_ICMPV6);
    this.#emit(frame, ALERTED_MESSAGE, mld.REPORT, length, mld.HOP_LIMIT, 0);
    return this.#transmit(frame, ALERTED_MESSAGE + length, GROUP_MAC_HI, 0);
  }

  /** Send the ND message of `length` bytes at MESSAGE of `frame`, which is taken. */
  send(frame: number, type: number, length: number, hi: number, lo: number): boolean {
    this.#emit(frame, MESSAGE, type, length, ndp.HOP_LIMIT, wire.PROTOCOL_ICMPV6);
    return this.#transmit(frame, MESSAGE + length, hi, lo);
  }

  #emit(frame: number, at: number, type: number, length: number, hops: number, next: number): void {
    const { view } = this.#link;
    const ip = frame + IP;
    wire.emit(view, ip, at - MESSAGE + length, next, hops, this.flow, 0);
    icmp.finish(view, frame + at, type, 0, length, ip);
  }

  #transmit(frame: number, length: number, hi: number, lo: number): boolean {
    const link = this.#link;
    link.emitEthernet(frame, hi, isGroup(this.flow, REMOTE) ? this.flow[REMOTE + 3]! : lo);
    ethernet.setType(link.view, frame, ethernet.TYPE_IPV6);
    return link.transmit(frame, length);
  }
}
