/**
 * Neighbour discovery messages that are received (RFC 4861, sections 6 and 7), and the search for routers.
 *
 * - A message is one of ours only with hop limit 255, code 0, whole options, and not in pieces (RFC 6980).
 * - Somebody who asks from an address learns ours, and we learn his. Somebody who asks from none is looking for duplicates.
 * - A router's message says which prefixes are on the link and which addresses to make of them (autoconfiguration.ts).
 * - Redirects are checked and not followed: the router forwards as well.
 */

import {
  copy,
  GROUP_MAC_HI,
  isGroup,
  isLinkLocal,
  isSame,
  isUnspecified,
  set,
  solicitedNode,
} from '../../base/ipv6.ts';
import * as ethernet from '../../wire/ethernet.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import * as wire from '../../wire/ndp.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import type { AddressTable } from './addresses.ts';
import type { Autoconfiguration } from './autoconfiguration.ts';
import { type ControlOutput, MESSAGE } from './control.ts';
import type { Ipv6Layer } from './layer.ts';
import type { Neighbours6 } from './neighbours.ts';
import type { Routes6 } from './routes.ts';

const REMOTE = 4;

export interface DiscoveryParts {
  readonly control: ControlOutput;
  readonly addresses: AddressTable;
  readonly neighbours: Neighbours6;
  readonly routes: Routes6;
  readonly autoconfiguration: Autoconfiguration;
}

export class Discovery {
  /** When to ask for routers again. */
  nextDueMs = Number.POSITIVE_INFINITY;
  readonly #link: Link;
  readonly #ip: Ipv6Layer;
  readonly #parts: DiscoveryParts;
  readonly #target = new Int32Array(4);
  readonly #group = new Int32Array(4);
  #asked = 0;

  constructor(link: Link, ip: Ipv6Layer, parts: DiscoveryParts) {
    this.#link = link;
    this.#ip = ip;
    this.#parts = parts;
  }

  /** Handle the message of type `type` from `at` to `end`, the packet of `ip`. Counts its outcome; takes the frame when it becomes the answer. */
  receive(frame: number, at: number, end: number, type: number): void {
    const { view, counters } = this.#link;
    const ip = this.#ip;
    const hops = ipv6.hopLimit(view, frame + ethernet.HEADER_LEN);
    if (hops !== wire.HOP_LIMIT || ip.wasFragmented || !wire.check(view, at, end, type)) {
      counters.badNd++;
      return;
    }
    const isGood =
      type === wire.NEIGHBOUR_SOLICITATION
        ? this.#solicited(frame, at, end)
        : type === wire.NEIGHBOUR_ADVERTISEMENT
          ? this.#advertised(at, end)
          : type === wire.ROUTER_ADVERTISEMENT
            ? this.#routed(at, end)
            : true;
    if (!isGood) counters.badNd++;
  }

  /** The link-local address is ours: look for routers (section 6.3.7). */
  start(): void {
    this.#asked = 0;
    this.nextDueMs = Number.NEGATIVE_INFINITY;
  }

  tick(): number {
    const { nowMs } = this.#link;
    if (nowMs < this.nextDueMs) return 0;
    const { control, addresses } = this.#parts;
    set(control.flow, REMOTE, 0xff020000 | 0, 0, 0, 2);
    const source = addresses.sourceFor(control.flow, REMOTE);
    if (source < 0 || this.#asked === NET_LIMITS.routerSolicitsMax) {
      this.nextDueMs = Number.POSITIVE_INFINITY;
      return 0;
    }
    copy(addresses.words, source * 4, control.flow, 0);
    control.solicitRouters();
    this.#asked++;
    this.nextDueMs = nowMs + NET_LIMITS.routerSolicitIntervalMs;
    return 1;
  }

  /** Section 7.2.3, and RFC 4862, section 5.4.3. False when it is not valid. */
  #solicited(frame: number, at: number, end: number): boolean {
    const { view, counters } = this.#link;
    const { addresses, neighbours } = this.#parts;
    const { flow } = this.#ip;
    const target = this.#target;
    wire.readTarget(view, at, target, 0);
    const option = this.#option(at, end, wire.NEIGHBOUR_SOLICITATION, wire.OPTION.sourceMac);
    if (isGroup(target, 0) || option === BAD_MAC) return false;
    const isFromNobody = isUnspecified(flow, REMOTE);
    if (isFromNobody) {
      solicitedNode(target, 0, this.#group, 0);
      if (!isSame(flow, 0, this.#group, 0) || option >= 0) return false;
    }
    const index = addresses.find(target, 0);
    if (index < 0 || (!addresses.isAssigned(index) && !addresses.isTentative(index))) {
      counters.notForUs++;
      return true;
    }
    if (addresses.isTentative(index)) {
      // Both are looking for duplicates: then neither may have it. Who asks from an address is not.
      if (isFromNobody && !this.#isOurFrame(frame)) this.#conflict(index);
      else counters.notForUs++;
      return true;
    }
    counters.rxNd++;
    if (option >= 0) {
      neighbours.learn(flow, REMOTE, wire.macHi(view, option), wire.macLo(view, option));
    }
    this.#answer(frame, isFromNobody);
    return true;
  }

  /** Answer a question about `#target` in its frame. */
  #answer(frame: number, isFromNobody: boolean): void {
    const link = this.#link;
    const { view } = link;
    const { control } = this.#parts;
    const length = MESSAGE + wire.SOLICITATION_LEN + wire.MAC_OPTION_LEN;
    if (!link.fits(frame, length)) return;
    copy(this.#target, 0, control.flow, 0);
    const hi = ethernet.srcHi(view, frame);
    const lo = ethernet.srcLo(view, frame);
    const { override, solicited } = wire.FLAG;
    if (isFromNobody) {
      set(control.flow, REMOTE, 0xff020000 | 0, 0, 0, 1);
      control.advertise(frame, this.#target, 0, override, GROUP_MAC_HI, 1);
      return;
    }
    copy(this.#ip.flow, REMOTE, control.flow, REMOTE);
    control.advertise(frame, this.#target, 0, override | solicited, hi, lo);
  }

  /** Section 7.2.5. False when it is not valid. */
  #advertised(at: number, end: number): boolean {
    const { view, counters } = this.#link;
    const { addresses, neighbours, routes } = this.#parts;
    const target = this.#target;
    wire.readTarget(view, at, target, 0);
    const flags = wire.flags(view, at);
    const isSolicited = (flags & wire.FLAG.solicited) !== 0;
    const option = this.#option(at, end, wire.NEIGHBOUR_ADVERTISEMENT, wire.OPTION.targetMac);
    if (isGroup(target, 0) || option === BAD_MAC) return false;
    if (isUnspecified(this.#ip.flow, REMOTE) || (isSolicited && !this.#ip.isUnicast)) return false;
    const index = addresses.find(target, 0);
    if (index >= 0 && (addresses.isTentative(index) || addresses.isAssigned(index))) {
      if (addresses.isTentative(index)) this.#conflict(index);
      else counters.ndConflict++;
      return true;
    }
    counters.rxNd++;
    // Without a MAC, it only says that the neighbour is there: we ask with one, and get one.
    if (option < 0) return true;
    const [hi, lo] = [wire.macHi(view, option), wire.macLo(view, option)];
    const isBelieved = neighbours.advertised(target, 0, hi, lo, isSolicited);
    if (isBelieved && (flags & wire.FLAG.router) === 0) routes.setRouter(target, 0, 0, 0);
    return true;
  }

  /** Section 6.3.4. False when it is not valid. */
  #routed(at: number, end: number): boolean {
    const { view, counters } = this.#link;
    const { neighbours, autoconfiguration } = this.#parts;
    const { flow } = this.#ip;
    const option = this.#option(at, end, wire.ROUTER_ADVERTISEMENT, wire.OPTION.sourceMac);
    if (!isLinkLocal(flow, REMOTE) || option === BAD_MAC) return false;
    counters.rxNd++;
    if (!autoconfiguration.isOn) return true;
    if (option >= 0) {
      neighbours.learn(flow, REMOTE, wire.macHi(view, option), wire.macLo(view, option));
    }
    autoconfiguration.advertised(this.#ip, at, end);
    if (wire.routerLifetime(view, at) > 0) this.nextDueMs = Number.POSITIVE_INFINITY;
    return true;
  }

  /** Where a MAC option stands; -1: there is none; BAD_MAC: it names a group. */
  #option(at: number, end: number, type: number, kind: number): number {
    const { view } = this.#link;
    const option = wire.findOption(view, at, end, type, kind);
    if (option >= 0 && ethernet.isGroup(wire.macHi(view, option))) return BAD_MAC;
    return option;
  }

  #isOurFrame(frame: number): boolean {
    const { view, macHi, macLo } = this.#link;
    return ethernet.srcHi(view, frame) === macHi && ethernet.srcLo(view, frame) === macLo;
  }

  #conflict(index: number): void {
    this.#link.counters.ndConflict++;
    this.#parts.addresses.conflict(index);
  }
}

const BAD_MAC = -2;
