/** What a DHCP server grants: checked before anything is configured by it. Times are seconds; Infinity: for ever. */
import { type Ipv4, netmask } from '../../base/address.ts';
import {
  addressesOf,
  type DhcpRoute,
  numberOf,
  OPTION,
  routesOf,
  type ServerMessage,
} from './message.ts';

export interface Lease {
  readonly address: Ipv4;
  readonly prefix: number;
  /** 0: none. */
  readonly gateway: Ipv4;
  readonly routes: readonly DhcpRoute[];
  readonly dns: readonly Ipv4[];
  /** 0: not told. */
  readonly mtu: number;
  readonly server: Ipv4;
  readonly seconds: number;
  readonly renewSeconds: number;
  readonly rebindSeconds: number;
}

const FOR_EVER = 0xffffffff;
/** A shorter lease would have us do nothing but renew it. */
const SECONDS_MIN = 10;
const ROUTES_MAX = 32;
const DNS_MAX = 8;

/** The lease in an offer or an acknowledgement, or null when it is not one that we can use. */
export function leaseOf(message: ServerMessage): Lease | null {
  const { address } = message;
  const server = numberOf(message, OPTION.server, 4) ?? 0;
  const granted = numberOf(message, OPTION.leaseSeconds, 4);
  const prefix = prefixOf(numberOf(message, OPTION.subnetMask, 4) ?? classMask(address));
  if (!isHost(address) || !isHost(server) || prefix < 0) return null;
  if (granted === null || granted < SECONDS_MIN) return null;
  const seconds = granted === FOR_EVER ? Number.POSITIVE_INFINITY : granted;
  // RFC 2131, section 4.4.5: half of it, and seven eighths, unless the server says; and always in this order.
  const renewal = numberOf(message, OPTION.renewalSeconds, 4) ?? seconds / 2;
  const rebinding = numberOf(message, OPTION.rebindingSeconds, 4) ?? (seconds * 7) / 8;
  const isOrdered = renewal > 0 && renewal < rebinding && rebinding < seconds;
  const told = routesOf(message);
  // A server that sends routes means them in place of the router (RFC 3442).
  const router = told?.find((route) => route.prefix === 0)?.gateway;
  const gateway = told === null ? (addressesOf(message, OPTION.router)[0] ?? 0) : (router ?? 0);
  return {
    address,
    prefix,
    gateway: isHost(gateway) ? gateway : 0,
    routes: (told ?? []).filter((route) => route.prefix > 0).slice(0, ROUTES_MAX),
    dns: addressesOf(message, OPTION.dns).filter(isHost).slice(0, DNS_MAX),
    mtu: numberOf(message, OPTION.mtu, 2) ?? 0,
    server,
    seconds,
    renewSeconds: isOrdered ? renewal : seconds / 2,
    rebindSeconds: isOrdered ? rebinding : (seconds * 7) / 8,
  };
}

const isHost = (address: Ipv4): boolean => {
  const top = address >>> 24;
  return top !== 0 && top !== 127 && top < 224;
};

/** Length of a contiguous mask; -1 for what is none. */
function prefixOf(mask: number): number {
  const prefix = Math.clz32(~mask);
  return prefix > 0 && netmask(prefix) === mask >>> 0 ? prefix : -1;
}

/** Of a server that tells none (RFC 2131 leaves it out for classes). */
function classMask(address: Ipv4): number {
  if (address >>> 31 === 0) return netmask(8);
  return address >>> 30 === 2 ? netmask(16) : netmask(24);
}
