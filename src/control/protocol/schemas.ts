/** What the tables of the control protocol are made of: the schemas that several messages share, and their shape. */
import { z } from 'zod';
import type { ErrorCode } from '../../base/errors.ts';
import { FILTER_LIMITS } from '../../filter/limits.ts';
import { LIMITS } from '../limits.ts';

export const objectId = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
export const uint32 = z.int().min(0).max(0xffffffff);
export const mac = z.int().min(0).max(0xffffffffffff);
export const scalar = z.union([z.string(), z.number(), z.boolean(), z.null()]);
export const count = z.number().min(0);

/** A filter as text (filter/parse.ts). What it says is checked by who decodes the request. */
export const filterText = z.string().max(FILTER_LIMITS.textMax);
export const filtersSchema = z.array(filterText).max(LIMITS.filtersPerVnicMax);

const grantSchema = z.record(z.string(), z.unknown());

export const vnicSchema = z.object({
  vnic: objectId,
  name: z.string(),
  device: z.string(),
  driver: z.string().describe("'virtio' or 'af-xdp': which queue to open with the grant"),
  grant: grantSchema.describe("the driver's geometry, for its queue"),
  mac,
  mtu: z.int().min(68),
  address: uint32,
  prefix: z.int().min(0).max(32),
  gateway: uint32.describe('0: none'),
  ownsAddress: z.boolean().describe('false: the kernel answers ARP and ICMP for it'),
  filters: filtersSchema.describe('what it receives, canonical'),
  transmit: filtersSchema.nullable().describe('what it may send; null: the mirror of that'),
});

export const objectSchema = z.object({
  kind: z.enum([
    'domain',
    'vnic',
    'queue',
    'filter',
    'doorbell',
    'rate',
    'region',
    'endpoint',
    'capture',
  ]),
  id: objectId,
  owner: objectId.describe('domain; 0 is the daemon itself'),
  createdMs: z.number().describe('Unix time'),
  name: z.string(),
  detail: z.record(z.string(), z.union([scalar, z.array(scalar)])),
});

export const deviceSchema = z.object({
  name: z.string(),
  kind: z.enum(['softnic', 'interface']),
  state: z.string(),
  mac,
  mtu: z.int(),
  address: uint32,
  prefix: z.int(),
  pid: z.int().describe('of the device process; 0: none'),
  restarts: z.int(),
  vnics: z.int(),
  detail: z.string(),
});

/** Who may call: anybody connected, a domain that said hello, or uid 0 and the daemon's own user. */
export type Caller = 'anyone' | 'domain' | 'privileged';

export interface OperationTable {
  [op: string]: {
    readonly doc: string;
    readonly caller: Caller;
    readonly args: z.ZodObject;
    readonly reply: z.ZodObject;
    /** Descriptors that come with the request and with the reply, in this order; `x...` is one or more. */
    readonly requestFds: readonly string[];
    readonly replyFds: readonly string[];
    readonly errors: readonly ErrorCode[];
  };
}

export const vnicArg = { vnic: objectId };
/** Lists that may outgrow a message come in pages by ascending id; `omitted` says how many are left. */
export const page = { after: objectId.optional().describe('only objects with a higher id') };

export interface EventTable {
  [event: string]: {
    readonly doc: string;
    readonly fields: z.ZodObject;
    readonly fds: readonly string[];
  };
}
