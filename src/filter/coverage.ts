/** What the control plane asks of filters: are they within what somebody was given, and whose are they already. */
import type { Ipv4 } from '../base/address.ts';
import { covers, type Filter, PROTOCOL, type Ranges, within } from './boxes.ts';

/** Addresses that somebody was given to receive at, with their ports: the `range` of a capability for addresses. */
export interface AddressRange {
  readonly protocol: 'any' | 'udp' | 'tcp' | 'icmp';
  readonly first: Ipv4;
  readonly last: Ipv4;
  /** Of UDP and TCP. All ports, 0 to 65535, include the fragments that show none. */
  readonly portFirst: number;
  readonly portLast: number;
}

/** Every packet that has its destination in `range`. */
export function filterOfRange(range: AddressRange): Filter {
  const { protocol, first, last, portFirst, portLast } = range;
  const ranges: Ranges = { destination: [first, last] };
  if (protocol === 'any') return within(ranges);
  const number = PROTOCOL[protocol];
  const all = protocol === 'icmp' || (portFirst === 0 && portLast === 65535);
  const ports: Ranges = all ? {} : { destinationPort: [portFirst, portLast] };
  return within({ ...ranges, protocol: [number, number], ...ports });
}

/**
 * True when every packet of `filter`, a filter to receive by, has its destination in one of `ranges`. For a filter to
 * send by, ask for its mirror.
 */
export const coveredBy = (filter: Filter, ranges: readonly AddressRange[]): boolean =>
  covers(ranges.map(filterOfRange), filter);
