/**
 * Where datagrams of one interface go next: the subnet itself, then routes by longest prefix (RFC 1812, section 5.2.4.3),
 * of which the gateway is the shortest. A few dozen entries, walked in order: it is asked once a datagram, and most are
 * on the subnet. Addresses are int32.
 */
import { type Ipv4, netmask } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import { NET_LIMITS } from './limits.ts';

export interface NetRoute {
  readonly dst: Ipv4;
  readonly prefix: number;
  /** 0: the destination is on the link. */
  readonly gateway: Ipv4;
}

/** 255.255.255.255. */
export const BROADCAST_ALL = -1;
/** What `nextHop` returns when there is no way. */
export const NO_HOP = 0;

export class Routes {
  address = 0;
  #mask = 0;
  #network = 0;
  /** The subnet's broadcast address; BROADCAST_ALL where it has none (RFC 3021). */
  broadcast = BROADCAST_ALL;
  #gateway = 0;
  readonly #words = new Int32Array(NET_LIMITS.routesMax * 3);
  #count = 0;

  /** Our address (0: none yet), its subnet, and the next hop off it (0: none). Routes stay. */
  configure(address: Ipv4, prefix: number, gateway: Ipv4): void {
    this.address = address | 0;
    this.#mask = netmask(prefix) | 0;
    this.#network = this.address & this.#mask;
    this.#gateway = gateway | 0;
    this.broadcast = prefix < 31 && address !== 0 ? this.address | ~this.#mask : BROADCAST_ALL;
  }

  get mask(): number {
    return this.#mask;
  }

  /** More ways than the gateway, in place of those before. ARK_LIMIT, ARK_BAD_ARGUMENT; then the old ones stay. */
  replace(routes: readonly NetRoute[]): void {
    if (routes.length > NET_LIMITS.routesMax) {
      throw new ArrakisError(
        'ARK_LIMIT',
        `${routes.length} routes; at most ${NET_LIMITS.routesMax}`,
      );
    }
    for (const { prefix } of routes) {
      if (!Number.isInteger(prefix) || prefix < 0 || prefix > 32) {
        throw new ArrakisError('ARK_BAD_ARGUMENT', `${prefix} is not a prefix length`);
      }
    }
    const sorted = [...routes].sort((a, b) => b.prefix - a.prefix);
    sorted.forEach(({ dst, prefix, gateway }, i) => {
      const mask = netmask(prefix) | 0;
      this.#words.set([dst & mask, mask, gateway | 0], i * 3);
    });
    this.#count = sorted.length;
  }

  isOnLink(ip: number): boolean {
    return (ip & this.#mask) === this.#network && this.address !== 0;
  }

  /** Whose MAC address a datagram to the host `ip` needs: its own, a router's, or NO_HOP. */
  nextHop(ip: number): number {
    if (this.isOnLink(ip)) return ip;
    const words = this.#words;
    for (let i = 0; i < this.#count; i++) {
      if ((ip & words[i * 3 + 1]!) !== words[i * 3]) continue;
      const gateway = words[i * 3 + 2]!;
      return gateway === 0 ? ip : gateway;
    }
    return this.#gateway;
  }
}
