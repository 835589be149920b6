/**
 * Messages of the control plane to the software NIC: JSON, one a packet of the SOCK_SEQPACKET control channel, with
 * descriptors beside it. Every request `{id, op, ...}` is answered `{id, ok: true, ...}` or
 * `{id, ok: false, code, message}`; events come unasked, without an id.
 */
import { z } from 'zod';
import { MAC_BROADCAST, parseIpv6 } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import { coalescingSchema } from '../device/coalescing.ts';
import { limitSchema, rateSettingSchema } from '../device/rate.ts';
import { FILTER_LIMITS } from '../filter/limits.ts';
import { parseFilter } from '../filter/parse.ts';

export const MESSAGE_LEN_MAX = 64 * 1024;
export const FILTERS_MAX = 64;
const ADDRESSES6_MAX = 16;
const MTU_MIN = 68;
/** The largest packet that IPv4 and a 16-bit frame length carry. */
const MTU_MAX = 65_521;
export const SPIN_US_MAX = 1_000_000;
const CPUS_MAX = 1024;
const PAIRS_MAX = 8;
/** Each queue and the whole, in both directions. */
const RATES_MAX = 2 * (PAIRS_MAX + 1);

const id = z.number().int().min(0);
const port = id;
const queue = z
  .int()
  .min(0)
  .max(PAIRS_MAX - 1);
const mac = z
  .number()
  .int()
  .min(0)
  .lt(MAC_BROADCAST)
  .refine((value) => Math.floor(value / 2 ** 40) % 2 === 0, 'a group address');
/** Text; an expression that is wrong throws by itself. */
const filters = z
  .array(z.string().max(FILTER_LIMITS.textMax).transform(parseFilter))
  .max(FILTERS_MAX);
/** IPv6 addresses of the port besides those of its MAC. */
const addresses6 = z.array(z.string().max(64).transform(parseIpv6)).max(ADDRESSES6_MAX).default([]);
/** What the port may send; null: the mirror of what it receives. */
const transmit = filters.nullable().default(null);

/** The scheduler charges the link bytes, several frames at once: it could not keep a limit of frames. */
const linkLimit = limitSchema.refine(
  ({ packetsPerSecond }) => packetsPerSecond === null,
  'a link is limited in bits',
);

const coalescing = z.strictObject({ queue: queue.nullable(), ...coalescingSchema.shape });

const request = z.discriminatedUnion('op', [
  z.strictObject({
    op: z.literal('addPort'),
    id,
    port,
    mac,
    filters,
    transmit,
    addresses6,
    mtu: z.number().int().min(MTU_MIN).max(MTU_MAX).default(1500),
    /** Queue pairs that the client may run. */
    pairs: z.number().int().min(1).max(PAIRS_MAX).default(1),
    /** Map client memory that is not sealed: DPDK and QEMU do not seal. Such a client can end the device. */
    allowUnsealed: z.boolean().default(false),
    /** Bytes of memory that the client may map, all its regions together. */
    regionBytes: z.number().int().min(1).max(Number.MAX_SAFE_INTEGER).optional(),
    /** Listen here. Without it, the message carries a connected socket. */
    listen: z
      .string()
      .regex(/^[^\0]+$/)
      .optional(),
    /** Permissions of the listening socket's file. */
    mode: z.number().int().min(0).max(0o777).default(0o600),
    /** In force before the first frame. */
    rates: z.array(rateSettingSchema).max(RATES_MAX).default([]),
    coalescing: z
      .array(coalescing)
      .max(PAIRS_MAX + 1)
      .default([]),
  }),
  z.strictObject({ op: z.literal('setFilters'), id, port, filters, transmit }),
  z.strictObject({ op: z.literal('setRate'), id, port, rate: rateSettingSchema }),
  z.strictObject({ op: z.literal('setCoalescing'), id, port, coalescing }),
  /** What all ports together may send. */
  z.strictObject({ op: z.literal('linkRate'), id, limit: linkLimit }),
  z.strictObject({ op: z.literal('removePort'), id, port }),
  /** Carries the descriptor of a TAP interface; without one, the uplink is taken away. */
  z.strictObject({ op: z.literal('uplink'), id, mac: mac.optional() }),
  z.strictObject({ op: z.literal('stats'), id }),
  z.strictObject({ op: z.literal('spin'), id, us: z.number().min(0).max(SPIN_US_MAX) }),
  z.strictObject({
    op: z.literal('affinity'),
    id,
    cpus: z
      .array(
        z
          .number()
          .int()
          .min(0)
          .max(CPUS_MAX - 1),
      )
      .min(1),
  }),
]);

export type Request = z.infer<typeof request>;
export type AddPort = Extract<Request, { op: 'addPort' }>;
export type SetCoalescing = Extract<Request, { op: 'setCoalescing' }>['coalescing'];

/** The request in `text`, checked. Throws ARK_BAD_MESSAGE, ARK_UNKNOWN_OPERATION or ARK_BAD_ARGUMENT. */
export function parseRequest(text: string): Request {
  const value = parseJson(text);
  const op = field(value, 'op');
  if (!OPERATIONS.has(op)) {
    throw new ArrakisError('ARK_UNKNOWN_OPERATION', `the software NIC has no operation "${op}"`);
  }
  const parsed = request.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new ArrakisError('ARK_BAD_ARGUMENT', `${op}: ${issue!.path.join('.')}: ${issue!.message}`);
}

const OPERATIONS: ReadonlySet<unknown> = new Set(request.options.map((o) => o.shape.op.value));

/** The id to answer with, as far as the message has one. */
export function requestId(text: string): number | null {
  try {
    const value = field(JSON.parse(text), 'id');
    return typeof value === 'number' ? value : null;
  } catch {
    return null;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ArrakisError('ARK_BAD_MESSAGE', 'a control message is not JSON', { cause });
  }
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null
    ? (value as Record<string, unknown>)[name]
    : undefined;
}
