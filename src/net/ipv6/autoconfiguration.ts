/**
 * Addresses without a server (RFC 4862), and what else a router's message sets.
 *
 * - The lower half of an address is the MAC's (EUI-64), or, with a secret, a number that is stable for the network and
 *   says nothing of the MAC (RFC 7217). After a duplicate, the latter tries others; the former gives up.
 * - Lifetimes only shrink to two hours on the word of a router that nobody has checked (section 5.5.3 e).
 */

import { commonPrefix, copy, isGroup, isLinkLocal, set, setEui64 } from '../../base/ipv6.ts';
import { siphash } from '../../base/siphash.ts';
import { MTU_MIN } from '../../wire/ipv6.ts';
import * as wire from '../../wire/ndp.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import { type AddressTable, ORIGIN } from './addresses.ts';
import type { Ipv6Layer } from './layer.ts';
import type { Neighbours6 } from './neighbours.ts';
import type { Routes6 } from './routes.ts';

const FOREVER = 0xffffffff;
const TWO_HOURS_MS = 7_200_000;
const IID_PREFIX = 64;

const msOf = (seconds: number): number =>
  seconds === FOREVER ? Number.POSITIVE_INFINITY : seconds * 1000;

export interface AutoconfigurationParts {
  readonly addresses: AddressTable;
  readonly neighbours: Neighbours6;
  readonly routes: Routes6;
}

export class Autoconfiguration {
  /** False: routers are not listened to. */
  readonly isOn: boolean;
  readonly #link: Link;
  readonly #parts: AutoconfigurationParts;
  readonly #secret: Uint8Array | null;
  readonly #prefix = new Int32Array(4);
  readonly #hash = new Int32Array(2);
  readonly #input = new DataView(new ArrayBuffer(8 + 6 + 1));

  /** `secret`: SIPHASH_KEY_LEN bytes; null: EUI-64. */
  constructor(link: Link, parts: AutoconfigurationParts, isOn: boolean, secret: Uint8Array | null) {
    this.#link = link;
    this.#parts = parts;
    this.isOn = isOn;
    this.#secret = secret;
  }

  /** The link-local address, always of the MAC: whoever checks what we send can know it. */
  addLinkLocal(): number {
    const prefix = this.#prefix;
    set(prefix, 0, 0xfe800000 | 0, 0, 0, 0);
    setEui64(prefix, 0, this.#link.macHi, this.#link.macLo);
    return this.#parts.addresses.add(prefix, 0, IID_PREFIX, ORIGIN.linkLocal);
  }

  /** Take in the router advertisement from `at` to `end`, whose options are whole. */
  advertised(ip: Ipv6Layer, at: number, end: number): void {
    const { view } = this.#link;
    const { routes, neighbours, addresses } = this.#parts;
    routes.setRouter(ip.flow, 4, wire.routerLifetime(view, at) * 1000, wire.preference(view, at));
    const hops = wire.curHopLimit(view, at);
    if (hops >= NET_LIMITS.hopLimitMin) ip.hopLimit = hops;
    const reachableMs = wire.reachableTime(view, at);
    if (reachableMs > 0 && reachableMs <= NET_LIMITS.ndReachableMsMax) {
      neighbours.reachableMs = Math.max(reachableMs, NET_LIMITS.ndRetransMs);
    }
    const retransMs = wire.retransTimer(view, at);
    // A router may make us ask less often, and not more.
    if (retransMs >= NET_LIMITS.ndRetransMs && retransMs <= NET_LIMITS.ndRetransMsMax) {
      neighbours.retransMs = retransMs;
      addresses.options.retransMs = retransMs;
    }
    const type = wire.ROUTER_ADVERTISEMENT;
    const mtuAt = wire.findOption(view, at, end, type, wire.OPTION.mtu);
    const mtu = mtuAt < 0 ? 0 : wire.mtu(view, mtuAt);
    if (mtu >= MTU_MIN && mtu <= this.#link.mtu) ip.linkMtu = mtu;
    let option = wire.findOption(view, at, end, type, wire.OPTION.prefix);
    while (option >= 0) {
      this.#prefixed(option);
      option = wire.nextOption(view, wire.optionEnd(view, option), end, wire.OPTION.prefix);
    }
  }

  /** The address `index` is somebody else's: another one, where there can be others. False when there is none. */
  retry(index: number): boolean {
    const { addresses } = this.#parts;
    const attempt = addresses.attempt[index]! + 1;
    if (this.#secret === null || addresses.origin[index] !== ORIGIN.router) return false;
    if (attempt > NET_LIMITS.iidTriesMax) return false;
    const { nowMs } = this.#link;
    const validMs = addresses.validUntilMs[index]! - nowMs;
    const preferredMs = addresses.preferredUntilMs[index]! - nowMs;
    copy(addresses.words, index * 4, this.#prefix, 0);
    this.#add(attempt, validMs, preferredMs);
    return true;
  }

  /** A prefix information option (RFC 4861, section 6.3.4; RFC 4862, section 5.5.3). */
  #prefixed(option: number): void {
    const { view } = this.#link;
    const { routes } = this.#parts;
    const prefix = this.#prefix;
    const length = wire.prefixLength(view, option);
    const validMs = msOf(wire.validLifetime(view, option));
    const preferredMs = msOf(wire.preferredLifetime(view, option));
    wire.readPrefix(view, option, prefix, 0);
    if (length > 128 || isLinkLocal(prefix, 0) || isGroup(prefix, 0)) return;
    if (wire.isOnLink(view, option)) routes.setPrefix(prefix, 0, length, validMs);
    if (!wire.isAutonomous(view, option) || preferredMs > validMs || length !== IID_PREFIX) return;
    if (!this.#refresh(validMs, preferredMs) && validMs > 0) this.#add(0, validMs, preferredMs);
  }

  /** New lifetimes for the addresses that we have of this prefix. False when there are none. */
  #refresh(validMs: number, preferredMs: number): boolean {
    const { addresses } = this.#parts;
    const { nowMs } = this.#link;
    let isThere = false;
    for (const index of addresses.used()) {
      if (addresses.origin[index] !== ORIGIN.router) continue;
      if (commonPrefix(addresses.words, index * 4, this.#prefix, 0) < IID_PREFIX) continue;
      isThere = true;
      const leftMs = addresses.validUntilMs[index]! - nowMs;
      const isLonger = validMs > TWO_HOURS_MS || validMs > leftMs;
      const lastsMs = isLonger ? validMs : Math.min(leftMs, TWO_HOURS_MS);
      addresses.setLifetimes(index, lastsMs, preferredMs);
    }
    return isThere;
  }

  /** Make an address of the first half of `#prefix`. */
  #add(attempt: number, validMs: number, preferredMs: number): void {
    const { addresses } = this.#parts;
    const prefix = this.#prefix;
    if (this.#secret === null) setEui64(prefix, 0, this.#link.macHi, this.#link.macLo);
    else this.#setOpaque(this.#secret, attempt);
    const index = addresses.add(prefix, 0, IID_PREFIX, ORIGIN.router, attempt);
    if (index >= 0) addresses.setLifetimes(index, validMs, preferredMs);
  }

  /** RFC 7217, section 5: F(prefix, interface, DAD counter, secret). */
  #setOpaque(secret: Uint8Array, attempt: number): void {
    const input = this.#input;
    const { macHi, macLo } = this.#link;
    input.setInt32(0, this.#prefix[0]!);
    input.setInt32(4, this.#prefix[1]!);
    input.setUint16(8, macHi);
    input.setInt32(10, macLo);
    input.setUint8(14, attempt);
    siphash(secret, new Uint8Array(input.buffer), this.#hash);
    this.#prefix[2] = this.#hash[0]!;
    this.#prefix[3] = this.#hash[1]!;
  }
}
