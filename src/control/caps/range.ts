/**
 * How far a capability goes: addresses and ports, processors, a rate, bytes. `null` is no bound, and the only range of
 * the other kinds.
 */
import { z } from 'zod';
import { formatIpv4, type Ipv4 } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import { formatRate } from '../../device/rate.ts';
import type { CapKind } from './rights.ts';

const uint32 = z.int().min(0).max(0xffffffff);
const port = z.int().min(0).max(65535);
const CPUS_MAX = 1024;
const positive = z.int().min(1).max(Number.MAX_SAFE_INTEGER);

/** Addresses first..last; the ports are those of UDP and TCP, and all of them (0 to 65535) for 'any' and 'icmp'. */
export interface AddressRange {
  readonly protocol: 'any' | 'udp' | 'tcp' | 'icmp';
  readonly first: Ipv4;
  readonly last: Ipv4;
  readonly portFirst: number;
  readonly portLast: number;
}

export interface CoreRange {
  readonly cpus: readonly number[];
}

/** Upper bounds; null: none. */
export interface RateRange {
  readonly bitsPerSecond: number | null;
  readonly packetsPerSecond: number | null;
  /** Share of the device among those that compete for it. */
  readonly weight: number | null;
}

export interface PoolRange {
  readonly bytes: number;
}

export type Range = AddressRange | CoreRange | RateRange | PoolRange | null;

const addressSchema = z
  .strictObject({
    protocol: z.enum(['any', 'udp', 'tcp', 'icmp']),
    first: uint32,
    last: uint32,
    portFirst: port,
    portLast: port,
  })
  .refine((r) => r.first <= r.last, 'first is not above last')
  .refine((r) => r.portFirst <= r.portLast, 'portFirst is not above portLast')
  .refine(
    (r) => r.protocol === 'udp' || r.protocol === 'tcp' || allPorts(r),
    'only udp and tcp have ports: portFirst 0, portLast 65535',
  ) satisfies z.ZodType<AddressRange>;

const coreSchema = z.strictObject({
  cpus: z
    .array(
      z
        .int()
        .min(0)
        .max(CPUS_MAX - 1),
    )
    .max(CPUS_MAX),
}) satisfies z.ZodType<CoreRange>;

const rateSchema = z.strictObject({
  bitsPerSecond: positive.nullable(),
  packetsPerSecond: positive.nullable(),
  weight: positive.nullable(),
}) satisfies z.ZodType<RateRange>;

const poolSchema = z.strictObject({
  bytes: z.int().min(0).max(Number.MAX_SAFE_INTEGER),
}) satisfies z.ZodType<PoolRange>;

/** The gate for ranges from another process; `checkRange` then says whether it fits the kind. */
export const rangeSchema = z
  .union([addressSchema, coreSchema, rateSchema, poolSchema])
  .nullable() satisfies z.ZodType<Range>;

const SCHEMAS: Partial<Record<CapKind, z.ZodType<Range>>> = {
  addresses: addressSchema,
  cores: coreSchema,
  rate: rateSchema,
  pool: poolSchema,
};

/** Throws ARK_BAD_ARGUMENT unless `range` is one of `kind`. */
export function checkRange(kind: CapKind, range: Range): void {
  if (range === null) return;
  const schema = SCHEMAS[kind];
  const checked = schema?.safeParse(range);
  if (checked?.success) return;
  const why = checked?.error.issues[0]?.message ?? 'its only range is null';
  throw new ArrakisError('ARK_BAD_ARGUMENT', `no range of a capability of kind ${kind}: ${why}`, {
    hint: 'docs/capabilities.md lists the ranges of every kind',
  });
}

/** True when everything in `narrow` is in `wide`. Both are ranges of `kind`. */
export function rangeCovers(kind: CapKind, wide: Range, narrow: Range): boolean {
  if (wide === null) return true;
  if (narrow === null) return false;
  if (kind === 'addresses') return addressCovers(wide as AddressRange, narrow as AddressRange);
  if (kind === 'cores') {
    const { cpus } = wide as CoreRange;
    return (narrow as CoreRange).cpus.every((cpu) => cpus.includes(cpu));
  }
  if (kind === 'rate') return rateCovers(wide as RateRange, narrow as RateRange);
  return kind === 'pool' && (narrow as PoolRange).bytes <= (wide as PoolRange).bytes;
}

function allPorts({ portFirst, portLast }: AddressRange): boolean {
  return portFirst === 0 && portLast === 65535;
}

function addressCovers(wide: AddressRange, narrow: AddressRange): boolean {
  return (
    (wide.protocol === 'any' || wide.protocol === narrow.protocol) &&
    wide.first <= narrow.first &&
    narrow.last <= wide.last &&
    wide.portFirst <= narrow.portFirst &&
    narrow.portLast <= wide.portLast
  );
}

function rateCovers(wide: RateRange, narrow: RateRange): boolean {
  const within = (most: number | null, asked: number | null): boolean =>
    most === null || (asked !== null && asked <= most);
  return (
    within(wide.bitsPerSecond, narrow.bitsPerSecond) &&
    within(wide.packetsPerSecond, narrow.packetsPerSecond) &&
    within(wide.weight, narrow.weight)
  );
}

/** `udp 10.0.0.2-10.0.0.9:7-9`, `cpus 0,1`, `1M bit/s weight 2`, `4096 bytes`, `everything`. */
export function formatRange(range: Range): string {
  if (range === null) return 'everything';
  if ('cpus' in range) return `cpus ${range.cpus.join(',')}`;
  if ('bytes' in range) return `${range.bytes} bytes`;
  if ('weight' in range) {
    const { bitsPerSecond, packetsPerSecond, weight } = range;
    const parts = [
      bitsPerSecond === null ? '' : `${formatRate(bitsPerSecond)} bit/s`,
      packetsPerSecond === null ? '' : `${formatRate(packetsPerSecond)} packets/s`,
      weight === null ? '' : `weight ${weight}`,
    ].filter((part) => part !== '');
    return parts.length === 0 ? 'any rate' : parts.join(' ');
  }
  const { protocol, first, last, portFirst, portLast } = range;
  const hosts = first === last ? formatIpv4(first) : `${formatIpv4(first)}-${formatIpv4(last)}`;
  if (allPorts(range)) return `${protocol} ${hosts}`;
  return `${protocol} ${hosts}:${portFirst === portLast ? portFirst : `${portFirst}-${portLast}`}`;
}
