/**
 * Where IPv6 packets go next (RFC 4861, section 5.2): to their destination when it is on the link, otherwise to a router.
 *
 * - On the link is what is link-local, the prefixes of configured addresses, and what routers said is (section 6.3.4).
 * - Both lists are short; when they are full, what is new is not taken (RFC 6583; a flood of advertisements).
 * - Of the routers, those of the highest preference (RFC 4191) that answer, in the order in which they came.
 */

import { commonPrefix, copy, isLinkLocal, isSame } from '../../base/ipv6.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import type { Neighbours6 } from './neighbours.ts';

const ROUTERS = NET_LIMITS.routersMax;
const PREFIXES = NET_LIMITS.prefixesMax;
/** An entry that is not in use ended long ago. */
const NEVER = Number.NEGATIVE_INFINITY;

export class Routes6 {
  /** Where `nextHop` leaves its answer: four words. */
  readonly hop = new Int32Array(4);
  readonly #link: Link;
  readonly #neighbours: Neighbours6;
  readonly #routers = new Int32Array(ROUTERS * 4);
  readonly #routerEndsMs = new Float64Array(ROUTERS).fill(NEVER);
  readonly #preference = new Int8Array(ROUTERS);
  readonly #prefixes = new Int32Array(PREFIXES * 4);
  readonly #lengths = new Uint8Array(PREFIXES);
  readonly #prefixEndsMs = new Float64Array(PREFIXES).fill(NEVER);

  constructor(link: Link, neighbours: Neighbours6) {
    this.#link = link;
    this.#neighbours = neighbours;
  }

  /** Write whose MAC a packet to `w` needs into `hop`. False when there is no way. */
  nextHop(w: Int32Array, i: number): boolean {
    if (this.isOnLink(w, i)) {
      copy(w, i, this.hop, 0);
      return true;
    }
    const { nowMs } = this.#link;
    let best = -1;
    let bestRank = NEVER;
    for (let router = 0; router < ROUTERS; router++) {
      if (this.#routerEndsMs[router]! <= nowMs) continue;
      const isKnown = this.#neighbours.isKnown(this.#routers, router * 4);
      const rank = this.#preference[router]! + (isKnown ? 4 : 0);
      if (rank > bestRank) [best, bestRank] = [router, rank];
    }
    if (best < 0) return false;
    copy(this.#routers, best * 4, this.hop, 0);
    return true;
  }

  isOnLink(w: Int32Array, i: number): boolean {
    if (isLinkLocal(w, i)) return true;
    const { nowMs } = this.#link;
    for (let entry = 0; entry < PREFIXES; entry++) {
      if (this.#prefixEndsMs[entry]! <= nowMs) continue;
      if (commonPrefix(this.#prefixes, entry * 4, w, i) >= this.#lengths[entry]!) return true;
    }
    return false;
  }

  /** Routers that have not ended. */
  get routerCount(): number {
    return this.#routerEndsMs.reduce((count, ends) => count + (ends > this.#link.nowMs ? 1 : 0), 0);
  }

  /** The router at `i` of `w` serves for `lifetimeMs` from now; 0: no longer. */
  setRouter(w: Int32Array, i: number, lifetimeMs: number, preference: number): void {
    const { nowMs } = this.#link;
    let free = -1;
    for (let router = 0; router < ROUTERS; router++) {
      if (this.#routerEndsMs[router]! <= nowMs) {
        if (free < 0) free = router;
      } else if (isSame(this.#routers, router * 4, w, i)) {
        this.#routerEndsMs[router] = nowMs + lifetimeMs;
        this.#preference[router] = preference;
        return;
      }
    }
    if (free < 0 || lifetimeMs === 0) return;
    copy(w, i, this.#routers, free * 4);
    this.#routerEndsMs[free] = nowMs + lifetimeMs;
    this.#preference[free] = preference;
  }

  /** The first `length` bits at `i` of `w` are on the link for `lifetimeMs` from now; 0: no longer. */
  setPrefix(w: Int32Array, i: number, length: number, lifetimeMs: number): void {
    const { nowMs } = this.#link;
    let free = -1;
    for (let entry = 0; entry < PREFIXES; entry++) {
      if (this.#prefixEndsMs[entry]! <= nowMs) free = entry;
      else if (
        this.#lengths[entry] === length &&
        commonPrefix(this.#prefixes, entry * 4, w, i) >= length
      ) {
        this.#prefixEndsMs[entry] = nowMs + lifetimeMs;
        return;
      }
    }
    if (free < 0 || lifetimeMs === 0) return;
    copy(w, i, this.#prefixes, free * 4);
    this.#lengths[free] = length;
    this.#prefixEndsMs[free] = nowMs + lifetimeMs;
  }
}
