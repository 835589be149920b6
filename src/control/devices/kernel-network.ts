/**
 * What the kernel knows of the network of one interface, for the domains that share its address: MTU, addresses, routes,
 * neighbours. Read whole at every change, and told when it differs: nothing is lost, only steps in between.
 */
import type { Ipv4, Mac } from '../../base/address.ts';
import { SystemError } from '../../base/errors.ts';
import {
  linkByIndex,
  listAddresses,
  listNeighbours,
  listRoutes,
  NUD_NOARP,
  NUD_PERMANENT,
  NUD_REACHABLE,
  RTMGRP_IPV4_IFADDR,
  RTMGRP_IPV4_ROUTE,
  RTMGRP_LINK,
  RTMGRP_NEIGH,
  resolveNeighbour,
  watchChanges,
} from '../../ffi/netlink/index.ts';
import { LIMITS } from '../limits.ts';

export interface HostNetwork {
  readonly mtu: number;
  readonly addresses: readonly { readonly address: Ipv4; readonly prefix: number }[];
  /** Gateway 0: on the link. The default route has prefix 0. */
  readonly routes: readonly {
    readonly dst: Ipv4;
    readonly prefix: number;
    readonly gateway: Ipv4;
  }[];
  /** `reachable`: the kernel vouches for it now; otherwise it was so a while ago. */
  readonly neighbours: readonly {
    readonly address: Ipv4;
    readonly mac: Mac;
    readonly reachable: boolean;
  }[];
}

const GROUPS = RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE;
const SURE = NUD_REACHABLE | NUD_PERMANENT | NUD_NOARP;

/** Of interface `index` now, as far as the limits go. */
export function readHostNetwork(index: number): HostNetwork {
  const mine = <T extends { index: number }>(all: T[], max: number): T[] =>
    all.filter((one) => one.index === index).slice(0, max);
  const neighbours = mine(listNeighbours(), Number.POSITIVE_INFINITY)
    .sort((a, b) => Number((b.state & SURE) !== 0) - Number((a.state & SURE) !== 0))
    .slice(0, LIMITS.hostNeighboursMax);
  return {
    mtu: linkByIndex(index)?.mtu ?? 0,
    addresses: mine(listAddresses(), LIMITS.hostAddressesMax).map(({ address, prefix }) => ({
      address,
      prefix,
    })),
    routes: mine(listRoutes(), LIMITS.hostRoutesMax).map(({ dst, prefix, gateway }) => ({
      dst,
      prefix,
      gateway: gateway ?? 0,
    })),
    neighbours: neighbours.map(({ address, mac, state }) => ({
      address,
      mac,
      reachable: (state & SURE) !== 0,
    })),
  };
}

export class KernelNetwork {
  readonly #index: number;
  readonly #onChange: () => void;
  readonly #watch: { close(): void };
  #current: HostNetwork;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;

  /** Calls `onChange` when `current` differs, at most once in LIMITS.hostNetworkMs. Synchronous, in the thread's namespace. */
  constructor(index: number, onChange: () => void) {
    this.#index = index;
    this.#onChange = onChange;
    // Before it is read the first time: no change falls between.
    this.#watch = watchChanges(GROUPS, () => this.#later());
    try {
      this.#current = readHostNetwork(index);
    } catch (error) {
      this.#watch.close();
      throw error;
    }
  }

  get current(): HostNetwork {
    return this.#current;
  }

  /** Have the kernel look for a neighbour. What comes of it is told as a change. */
  resolve(address: Ipv4): void {
    resolveNeighbour(this.#index, address);
  }

  close(): void {
    this.#closed = true;
    this.#watch.close();
    if (this.#timer !== null) clearTimeout(this.#timer);
  }

  #later(): void {
    if (this.#timer !== null || this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#read();
    }, LIMITS.hostNetworkMs);
    this.#timer.unref();
  }

  #read(): void {
    let now: HostNetwork;
    try {
      now = readHostNetwork(this.#index);
    } catch (error) {
      // The table changed faster than it could be read: the next change, or another try, will do.
      if (error instanceof SystemError) this.#later();
      else throw error;
      return;
    }
    if (JSON.stringify(now) === JSON.stringify(this.#current)) return;
    this.#current = now;
    this.#onChange();
  }
}
