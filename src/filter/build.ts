/**
 * Filters by function calls, for programs: `filter.udp().dstPort(11211).and(filter.host('10.9.0.2'))`.
 *
 * A builder is a `Filter` and immutable: each call gives another one. A call on a builder narrows it, so the calls
 * read as a conjunction. Addresses are text or numbers. ARK_BAD_ARGUMENT for what is no address, port or protocol;
 * ARK_LIMIT when the filter gets too large.
 */
import { type Ipv4, netmask, parseCidr, parseIpv4 } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import {
  type Box,
  complement,
  EVERYTHING,
  type Filter,
  intersect,
  isEmpty,
  PROTOCOL,
  type Range,
  type Ranges,
  union,
  within,
} from './boxes.ts';
import { formatFilter } from './format.ts';
import { FILTER_LIMITS } from './limits.ts';

export type Side = 'source' | 'destination' | 'either';

/** Packets whose address on `side` lies in `range`. */
export const addressIn = (side: Side, range: Range): Filter =>
  onSide(side, { source: range }, { destination: range });

/** UDP and TCP packets that show their ports, with that on `side` in `range`. */
export const portIn = (side: Side, range: Range): Filter =>
  onSide(side, { sourcePort: range }, { destinationPort: range });

export const protocolIn = (range: Range): Filter => within({ protocol: range });

function onSide(side: Side, source: Ranges, destination: Ranges): Filter {
  if (side === 'source') return within(source);
  if (side === 'destination') return within(destination);
  return union(within(source), within(destination));
}

/** Range of a network, `10.0.0.0/8`. Throws ARK_BAD_ARGUMENT when it has host bits: that is more often a mistake. */
export function networkRange(text: string): Range {
  const { address, prefix } = parseCidr(text);
  const mask = netmask(prefix);
  if ((address & ~mask) !== 0) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `"${text}" has bits beyond its prefix`, {
      hint: 'write the network with zeros there, as 10.0.0.0/8',
    });
  }
  return [address, (address | ~mask) >>> 0];
}

/** `filter` itself. Throws ARK_LIMIT when it is too large for a VNIC and ARK_BAD_ARGUMENT when nothing matches it. */
export function requireUsable<F extends Filter>(filter: F): F {
  if (isEmpty(filter)) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', 'no packet matches the filter', {
      hint: 'its parts contradict each other; `arrakis filter check` shows what each part takes',
    });
  }
  if (filter.boxes.length <= FILTER_LIMITS.boxesMax) return filter;
  const text = `the filter has ${filter.boxes.length} boxes; ${FILTER_LIMITS.boxesMax} are the most`;
  throw new ArrakisError('ARK_LIMIT', text, {
    hint: 'say src or dst where it says host, net or port, or make several filters of it',
  });
}

const addressOf = (host: string | Ipv4): Ipv4 =>
  typeof host === 'number' ? host : parseIpv4(host);

export class FilterBuilder implements Filter {
  readonly boxes: readonly Box[];

  constructor(filter: Filter) {
    this.boxes = filter.boxes;
  }

  and(other: Filter): FilterBuilder {
    return new FilterBuilder(intersect(this, other));
  }

  or(other: Filter): FilterBuilder {
    return new FilterBuilder(union(this, other));
  }

  not(): FilterBuilder {
    return new FilterBuilder(complement(this));
  }

  udp = (): FilterBuilder => this.protocol(PROTOCOL.udp);
  tcp = (): FilterBuilder => this.protocol(PROTOCOL.tcp);
  icmp = (): FilterBuilder => this.protocol(PROTOCOL.icmp);

  /** IP protocols by number (IANA). */
  protocol(first: number, last = first): FilterBuilder {
    return this.and(protocolIn([first, last]));
  }

  /** `host`: source or destination, as in tcpdump. */
  host = (host: string | Ipv4): FilterBuilder => this.#host('either', host);
  srcHost = (host: string | Ipv4): FilterBuilder => this.#host('source', host);
  dstHost = (host: string | Ipv4): FilterBuilder => this.#host('destination', host);

  /** `10.0.0.0/8`. */
  net = (network: string): FilterBuilder => this.and(addressIn('either', networkRange(network)));
  srcNet = (network: string): FilterBuilder => this.and(addressIn('source', networkRange(network)));
  dstNet = (network: string): FilterBuilder =>
    this.and(addressIn('destination', networkRange(network)));

  /** One port, or a range; of UDP and TCP. */
  port = (first: number, last = first): FilterBuilder => this.and(portIn('either', [first, last]));
  srcPort = (first: number, last = first): FilterBuilder =>
    this.and(portIn('source', [first, last]));
  dstPort = (first: number, last = first): FilterBuilder =>
    this.and(portIn('destination', [first, last]));

  #host(side: Side, host: string | Ipv4): FilterBuilder {
    const address = addressOf(host);
    return this.and(addressIn(side, [address, address]));
  }

  /** The canonical text. */
  toString(): string {
    return formatFilter(this);
  }

  toJSON(): string {
    return this.toString();
  }
}

/** Where filters begin: every packet. */
export const filter = new FilterBuilder(EVERYTHING);
