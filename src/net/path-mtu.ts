/**
 * What paths carry: the MTU of each way that is smaller than the link's, as routers tell (RFC 1191, RFC 8201) or probes
 * find out (RFC 4821). Addresses are four int32 words; an IPv4 address is IPv4-mapped (`0, 0, 0xffff, address`).
 *
 * - Bounded: sets of a few entries, the oldest displaced. Entries age, and the path is tried with the link's MTU again.
 * - Never below a floor: whoever can make us believe ICMP must not make us send crumbs.
 * - `version` counts changes: who keeps an MTU of his own asks again only when it has moved.
 */
import { NET_LIMITS } from './limits.ts';

const WAYS = NET_LIMITS.pathMtuWays;
const ENTRIES = NET_LIMITS.pathMtuSets * WAYS;
/** Third word of an IPv4-mapped address (RFC 4291, section 2.5.5.2). */
export const MAPPED = 0xffff;

export class PathMtu {
  /** What the link itself carries. */
  linkMtu: number;
  /** No path carries less, as far as is known: most datagrams need ask no further. */
  smallest: number;
  /** Changes with every `learn` that changed something, and when an entry ends. */
  version = 0;
  readonly #words = new Int32Array(ENTRIES * 4);
  readonly #mtu = new Uint16Array(ENTRIES);
  readonly #endsMs = new Float64Array(ENTRIES);
  #count = 0;

  constructor(linkMtu: number) {
    this.linkMtu = linkMtu;
    this.smallest = linkMtu;
  }

  /** Paths that carry less than the link. */
  get size(): number {
    return this.#count;
  }

  /** Longest packet, IP header included, to this address at `nowMs`. */
  get(w0: number, w1: number, w2: number, w3: number, nowMs: number): number {
    if (this.#count === 0) return this.linkMtu;
    const entry = this.#find(w0, w1, w2, w3);
    if (entry < 0) return this.linkMtu;
    if (nowMs < this.#endsMs[entry]!) return Math.min(this.#mtu[entry]!, this.linkMtu);
    this.#forget(entry);
    return this.linkMtu;
  }

  getV4(address: number, nowMs: number): number {
    return this.#count === 0 ? this.linkMtu : this.get(0, 0, MAPPED, address, nowMs);
  }

  /** A router says, or a probe shows, that this path carries `mtu`. False when that is no news: paths only shrink here. */
  learn(w0: number, w1: number, w2: number, w3: number, mtu: number, nowMs: number): boolean {
    const value = this.clamp(mtu, !(w0 === 0 && w1 === 0 && w2 === MAPPED));
    if (value >= this.get(w0, w1, w2, w3, nowMs)) return false;
    let entry = this.#find(w0, w1, w2, w3);
    if (entry < 0) entry = this.#claim(w0, w1, w2, w3);
    this.#mtu[entry] = value;
    this.#endsMs[entry] = nowMs + NET_LIMITS.pathMtuMs;
    this.smallest = Math.min(this.smallest, value);
    this.version++;
    return true;
  }

  /** The link carries `mtu` from now on: no path carries more. */
  setLinkMtu(mtu: number): void {
    this.linkMtu = mtu;
    this.smallest = this.#count === 0 ? mtu : Math.min(this.smallest, mtu);
    this.version++;
  }

  /** `mtu` as we believe it: not below the floor, not above the link. */
  clamp(mtu: number, isIpv6: boolean): number {
    const floor = isIpv6 ? NET_LIMITS.pathMtuV6Min : NET_LIMITS.pathMtuV4Min;
    return Math.min(Math.max(floor, mtu), this.linkMtu);
  }

  learnV4(address: number, mtu: number, nowMs: number): boolean {
    return this.learn(0, 0, MAPPED, address, mtu, nowMs);
  }

  /** First entry of the address's set. */
  #set(w0: number, w1: number, w2: number, w3: number): number {
    const mixed = Math.imul(w0 ^ Math.imul(w1 ^ Math.imul(w2 ^ w3, 31), 31), 0x9e3779b1);
    return ((mixed >>> 16) & (NET_LIMITS.pathMtuSets - 1)) * WAYS;
  }

  #find(w0: number, w1: number, w2: number, w3: number): number {
    const words = this.#words;
    const first = this.#set(w0, w1, w2, w3);
    for (let entry = first; entry < first + WAYS; entry++) {
      const at = entry * 4;
      const isIt =
        words[at + 3] === w3 && words[at] === w0 && words[at + 1] === w1 && words[at + 2] === w2;
      if (isIt && this.#mtu[entry] !== 0) return entry;
    }
    return -1;
  }

  #claim(w0: number, w1: number, w2: number, w3: number): number {
    const first = this.#set(w0, w1, w2, w3);
    let best = first;
    for (let entry = first; entry < first + WAYS; entry++) {
      if (this.#mtu[entry] === 0) {
        best = entry;
        break;
      }
      if (this.#endsMs[entry]! < this.#endsMs[best]!) best = entry;
    }
    if (this.#mtu[best] === 0) this.#count++;
    const at = best * 4;
    this.#words[at] = w0;
    this.#words[at + 1] = w1;
    this.#words[at + 2] = w2;
    this.#words[at + 3] = w3;
    return best;
  }

  #forget(entry: number): void {
    this.#mtu[entry] = 0;
    if (--this.#count === 0) this.smallest = this.linkMtu;
    this.version++;
  }
}
