/**
 * Which addresses are the VNIC's and which the kernel's.
 *
 *   to 127.0.0.0/8, ::1, localhost      a listener of this program, else the kernel
 *   to the VNIC's own address           a listener of this program, else refused
 *   to the VNIC's subnet, its groups    the VNIC
 *   to a subnet of the kernel's         the kernel
 *   to anything else                    the VNIC if it has a gateway, else the kernel
 *
 * Bound to the VNIC's address a socket is the VNIC's wherever it goes; bound to another one, the kernel's.
 */
import { isIPv6 } from 'node:net';
import os from 'node:os';
import { formatIpv4, type Ipv4, netmask, tryParseIpv4 } from '../base/address.ts';

export type Way = 'vnic' | 'self' | 'loopback' | 'kernel';

/** What a socket may be bound to: every address, the VNIC's, or one of the kernel's. */
export type Place = 'any' | 'vnic' | 'kernel';

export interface RouteConfig {
  readonly address: Ipv4;
  readonly prefix: number;
  /** 0: none. */
  readonly gateway: Ipv4;
}

interface Subnet {
  readonly address: Ipv4;
  readonly mask: number;
}

const MAPPED = '::ffff:';
const isMulticast = (ip: Ipv4): boolean => ip >>> 28 === 14;
const BROADCAST = 0xffffffff;
/** A subnet of two addresses has no broadcast address (RFC 3021). */
const SUBNET_MASK_MAX = netmask(31);

/** The IPv4 address in `text`, which may be one mapped into IPv6 (RFC 4291, section 2.5.5.2); -1: none. */
export function ipv4In(text: string): Ipv4 | -1 {
  const inner = text.toLowerCase().startsWith(MAPPED) ? text.slice(MAPPED.length) : text;
  return tryParseIpv4(inner);
}

/** `address` as a socket of IPv6 (`isIpv6`) or IPv4 shows it. */
export function shown(address: string, isIpv6: boolean): string {
  return isIpv6 && !address.includes(':') ? MAPPED + address : address;
}

export class Routes {
  /** The VNIC's address. */
  readonly text: string;
  readonly #own: Ipv4;
  readonly #mask: number;
  readonly #hasGateway: boolean;
  readonly #kernel: readonly Subnet[];

  /** `kernel`: the subnets of the kernel's interfaces; default: as they are now. */
  constructor(config: RouteConfig, kernel: readonly Subnet[] = kernelSubnets()) {
    this.#own = config.address >>> 0;
    this.#mask = netmask(config.prefix);
    this.#hasGateway = config.gateway !== 0;
    this.#kernel = kernel;
    this.text = formatIpv4(config.address);
  }

  /** Where a connection or datagram to `address` goes. */
  toward(address: string): Way {
    const ip = ipv4In(address);
    if (ip === -1) return address === '::1' || address === '::' ? 'loopback' : 'kernel';
    // The unspecified address as a destination means this host (RFC 1122, section 3.2.1.3).
    if (ip >>> 24 === 127 || ip === 0) return 'loopback';
    if (ip === this.#own) return 'self';
    if (isMulticast(ip) || ip === BROADCAST) return 'vnic';
    if (isWithin(ip, this.#own, this.#mask)) return 'vnic';
    if (!this.#hasGateway) return 'kernel';
    return this.#kernel.some((subnet) => isWithin(ip, subnet.address, subnet.mask))
      ? 'kernel'
      : 'vnic';
  }

  get own(): Ipv4 {
    return this.#own;
  }

  isOnLink(address: string): boolean {
    return isWithin(ipv4In(address), this.#own, this.#mask);
  }

  isGroup(ip: Ipv4): boolean {
    return isMulticast(ip);
  }

  isBroadcast(ip: Ipv4): boolean {
    return ip === BROADCAST || (this.#mask < SUBNET_MASK_MAX && ip === this.#subnetBroadcast);
  }

  get #subnetBroadcast(): Ipv4 {
    return (this.#own | ~this.#mask) >>> 0;
  }

  /** Whose a socket is that is bound to `address`. */
  placeOf(address: string): Place {
    const ip = ipv4In(address);
    if (ip === 0 || (ip === -1 && isUnspecified(address))) return 'any';
    return ip === this.#own ? 'vnic' : 'kernel';
  }
}

const isWithin = (ip: Ipv4, address: Ipv4, mask: number): boolean => ((ip ^ address) & mask) === 0;

const isUnspecified = (text: string): boolean => isIPv6(text) && /^[0:]+$/.test(text);

function kernelSubnets(): Subnet[] {
  const subnets: Subnet[] = [];
  for (const addresses of Object.values(os.networkInterfaces())) {
    for (const { family, address, netmask: mask } of addresses ?? []) {
      if (family !== 'IPv4') continue;
      subnets.push({ address: tryParseIpv4(address), mask: tryParseIpv4(mask) });
    }
  }
  return subnets;
}
