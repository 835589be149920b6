/**
 * Flow filters: what a VNIC may receive, and, mirrored, what it may send.
 *
 * - A frame that is received matches when it is IPv4, its destination is `address`, its protocol is `protocol`
 *   (or `protocol` is 'any') and, for UDP and TCP, its destination port lies in [portFirst, portLast].
 * - A frame that is sent matches when the same holds for its source address and source port.
 * - Fragments after the first have no ports: they match only a filter of protocol 'any'.
 * - A VNIC with an 'any' filter owns that address: it also receives ARP requests for it and replies to it, and may
 *   send ARP with it as sender. Otherwise the address belongs to the host's kernel, which answers ARP and ICMP.
 */
import { z } from 'zod';
import { formatIpv4, type Ipv4 } from '../base/address.ts';

export type FlowProtocol = 'any' | 'udp' | 'tcp' | 'icmp';

export interface FlowFilter {
  readonly protocol: FlowProtocol;
  readonly address: Ipv4;
  /** Inclusive; 0 and 65535 where ports do not apply or all are meant. */
  readonly portFirst: number;
  readonly portLast: number;
}

const port = z.int().min(0).max(65535);

/** The gate for filters that come from another process. */
export const filterSchema = z
  .strictObject({
    protocol: z.enum(['any', 'udp', 'tcp', 'icmp']),
    address: z.int().min(0).max(0xffffffff),
    portFirst: port,
    portLast: port,
  })
  .refine(
    (filter) => filter.portFirst <= filter.portLast,
    'portFirst is not above portLast',
  ) satisfies z.ZodType<FlowFilter>;

/** IP protocol numbers (IANA); 'any' is 0, which is not used on the wire for IPv4 payloads. */
export const FLOW_PROTOCOL = { any: 0, icmp: 1, tcp: 6, udp: 17 } as const satisfies Record<
  FlowProtocol,
  number
>;

/** True when some packet would match both: two owners may not have such filters. */
export function overlaps(a: FlowFilter, b: FlowFilter): boolean {
  if (a.address !== b.address) return false;
  if (a.protocol === 'any' || b.protocol === 'any') return true;
  if (a.protocol !== b.protocol) return false;
  if (a.protocol === 'icmp') return true;
  return a.portFirst <= b.portLast && b.portFirst <= a.portLast;
}

/** `udp 10.0.0.2:7`, `any 10.0.0.2`, `tcp 10.0.0.2:80-90`. */
export function formatFilter(f: FlowFilter): string {
  const address = formatIpv4(f.address);
  if (f.protocol === 'any' || f.protocol === 'icmp') return `${f.protocol} ${address}`;
  const ports = f.portFirst === f.portLast ? `${f.portFirst}` : `${f.portFirst}-${f.portLast}`;
  return `${f.protocol} ${address}:${ports}`;
}
