/**
 * What a domain that is not privileged may do by its capabilities: open a VNIC, and widen its filters. All of it
 * decides and changes nothing; a refusal names what is missing and how to get it.
 */
import type { Ipv4 } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import { WEIGHT_MAX } from '../../device/rate.ts';
import { type Filter, overlaps } from '../../filter/boxes.ts';
import { coveredBy, filterOfRange } from '../../filter/coverage.ts';
import { formatFilter } from '../../filter/format.ts';
import type { Domain } from '../objects/domain.ts';
import type { ControlPlane } from '../plane.ts';
import type { VnicSpec } from '../vnic-spec.ts';
import { type AddressRange, type Range, type RateRange, rangeCovers } from './range.ts';
import { type CapKind, RIGHTS, rightNames } from './rights.ts';
import type { Capability } from './space.ts';

/** The capabilities by which a VNIC exists: it goes with any of them. */
export interface VnicAuthority {
  /** What its own capability is derived from; null: from nothing but the control plane. */
  readonly device: Capability | null;
  readonly needs: readonly Capability[];
  /** The most that it may send and receive; null: no bound. */
  readonly rate: Range;
}

/** Addresses first..last. */
export interface AddressInterval {
  readonly first: Ipv4;
  readonly last: Ipv4;
}

/** `spec` with the limits of `rate`, where it has none. */
export const withRate = (
  spec: VnicSpec,
  { bitsPerSecond, packetsPerSecond, weight }: RateRange,
): VnicSpec => ({
  ...spec,
  ...(bitsPerSecond === null ? {} : { bitsPerSecond }),
  ...(packetsPerSecond === null ? {} : { packetsPerSecond }),
  ...(weight === null ? {} : { weight: Math.min(weight, WEIGHT_MAX) }),
});

/** Whoever is privileged needs no capability. */
export const IMPLICIT: VnicAuthority = { device: null, needs: [], rate: null };

const ANY_OBJECT = '*';
const HOW_TO_GET =
  "the daemon's policy file gives capabilities to users and programs; or have root start the program: " +
  '`sudo arrakis run --vnic SPEC -- ...`';

/** Capabilities of `domain` that are for `object` and have all of `rights`. */
function* usable(
  plane: ControlPlane,
  domain: Domain,
  kind: CapKind,
  object: string,
  rights: number,
): Generator<Capability> {
  for (const cap of plane.caps.of(domain.id)) {
    const fits = cap.object === object || cap.object === ANY_OBJECT;
    if (cap.kind === kind && fits && (cap.rights & rights) === rights) yield cap;
  }
}

function missing(domain: Domain, what: string): ArrakisError {
  return new ArrakisError('ARK_NOT_PERMITTED', `domain ${domain.name} has no capability ${what}`, {
    hint: HOW_TO_GET,
  });
}

/** Comes first: a domain without it does not even learn whether there is such a device. */
export function requireDevice(plane: ControlPlane, domain: Domain, spec: VnicSpec): Capability {
  const rights = RIGHTS.device.open | (spec.mode === 'direct' ? RIGHTS.device.direct : 0);
  for (const cap of usable(plane, domain, 'device', spec.device, rights)) return cap;
  const names = rightNames('device', rights).join(' and ');
  throw missing(domain, `for device ${spec.device} with the right ${names}`);
}

/**
 * Capabilities of `domain` that together cover everything that matches `filter` on `device`; one where one is enough.
 * Null when they do not.
 */
export function coveringAddresses(
  plane: ControlPlane,
  domain: Domain,
  device: string,
  filter: Filter,
): Capability[] | null {
  const part: Capability[] = [];
  const ranges: AddressRange[] = [];
  for (const cap of usable(plane, domain, 'addresses', device, RIGHTS.addresses.use)) {
    const range = cap.range as AddressRange | null;
    if (range === null || coveredBy(filter, [range])) return [cap];
    if (!overlaps(filter, filterOfRange(range))) continue;
    part.push(cap);
    ranges.push(range);
  }
  return coveredBy(filter, ranges) ? part : null;
}

/** Capabilities for each of `filters`; ARK_NOT_PERMITTED names the first that they do not cover. */
export function requireAddresses(
  plane: ControlPlane,
  domain: Domain,
  device: string,
  filters: readonly Filter[],
): Capability[] {
  return filters.flatMap((filter) => {
    const caps = coveringAddresses(plane, domain, device, filter);
    if (caps === null) throw missing(domain, `for ${formatFilter(filter)} on ${device}`);
    return caps;
  });
}

/** Whole addresses on `device` that `domain` may have, for the daemon to choose from. */
export function wholeAddresses(
  plane: ControlPlane,
  domain: Domain,
  device: string,
): AddressInterval[] {
  const intervals: AddressInterval[] = [];
  for (const { range } of usable(plane, domain, 'addresses', device, RIGHTS.addresses.use)) {
    if (range === null) intervals.push({ first: 0, last: 0xffffffff });
    else if ('protocol' in range && range.protocol === 'any') intervals.push(range);
  }
  if (intervals.length === 0) throw missing(domain, `for a whole address on ${device}`);
  return intervals.sort((a, b) => a.first - b.first);
}

/** A capability for a rate on `device` that covers `asked`, and the rate: what `asked` leaves open is as it allows. */
export function requireRate(
  plane: ControlPlane,
  domain: Domain,
  device: string,
  asked: Partial<RateRange>,
): { cap: Capability; rate: RateRange } {
  let any = false;
  for (const cap of usable(plane, domain, 'rate', device, RIGHTS.rate.use)) {
    any = true;
    const most = cap.range as RateRange | null;
    const rate = {
      bitsPerSecond: asked.bitsPerSecond ?? most?.bitsPerSecond ?? null,
      packetsPerSecond: asked.packetsPerSecond ?? most?.packetsPerSecond ?? null,
      weight: asked.weight ?? most?.weight ?? null,
    };
    if (rangeCovers('rate', most, rate)) return { cap, rate };
  }
  throw missing(domain, any ? `for such a rate on ${device}` : `for a rate on ${device}`);
}

/** Decode: everything that a VNIC with these filters depends on. `device` and `rate` are from the functions above. */
export function authorizeVnic(
  plane: ControlPlane,
  domain: Domain,
  device: Capability,
  rate: Capability,
  name: string,
  filters: readonly Filter[],
): VnicAuthority {
  const needs = new Set([...requireAddresses(plane, domain, name, filters), rate]);
  return { device, needs: [...needs], rate: rate.range };
}

/**
 * The first address of `intervals` from `first` to `last` that is in none of `taken`; null when there is none. Both lists
 * are by ascending first. In time of their lengths, not of the addresses that they have.
 */
export function firstFree(
  intervals: readonly AddressInterval[],
  first: Ipv4,
  last: Ipv4,
  taken: readonly AddressInterval[],
): Ipv4 | null {
  let at = first;
  let next = 0;
  for (const interval of intervals) {
    at = Math.max(at, interval.first);
    // What begins further on leaves `at` free, and nothing of what was passed over reaches it.
    for (; next < taken.length && taken[next]!.first <= at; next++) {
      at = Math.max(at, taken[next]!.last + 1);
    }
    if (at <= Math.min(interval.last, last)) return at;
  }
  return null;
}
