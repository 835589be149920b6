/**
 * The control protocol: one table of operations and one of events. Types, validation and docs/protocol.md come from it.
 *
 * - One JSON object per SOCK_SEQPACKET message; descriptors ride along by SCM_RIGHTS.
 * - Request `{id, op, ...args}`; reply `{id, ok: true, ...}` or `{id, ok: false, error: {code, message, hint?}}`;
 *   event `{event, ...}`. A message that cannot be read is answered with id 0.
 * - A request with a field that the table does not have is refused. A reply may gain fields in a later version.
 */
import { z } from 'zod';
import { ArrakisError, ERROR_CODES, type ErrorCode } from '../base/errors.ts';
import { filterSchema } from '../device/filter.ts';
import { LIMITS } from './limits.ts';
import { nameSchema, vnicSpecSchema } from './vnic-spec.ts';

export const PROTOCOL_VERSION = 1;

const objectId = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const uint32 = z.int().min(0).max(0xffffffff);
const mac = z.int().min(0).max(0xffffffffffff);
const scalar = z.union([z.string(), z.number(), z.boolean(), z.null()]);
const count = z.number().min(0);

const filtersSchema = z.array(filterSchema).min(1).max(LIMITS.filtersPerVnicMax);

const grantSchema = z.record(z.string(), z.unknown());

const vnicSchema = z.object({
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
  filters: filtersSchema,
});

export const objectSchema = z.object({
  kind: z.enum(['domain', 'vnic', 'queue', 'filter', 'doorbell', 'region', 'capture']),
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

interface OperationTable {
  [op: string]: {
    readonly doc: string;
    readonly caller: Caller;
    readonly args: z.ZodObject;
    readonly reply: z.ZodObject;
    /** Descriptors that come with the request and with the reply, in this order. */
    readonly requestFds: readonly string[];
    readonly replyFds: readonly string[];
    readonly errors: readonly ErrorCode[];
  };
}

const vnicArg = { vnic: objectId };
/** Lists that may outgrow a message come in pages by ascending id; `omitted` says how many are left. */
const page = { after: objectId.optional().describe('only objects with a higher id') };

export const OPERATIONS = {
  hello: {
    doc: 'First message of every connection: agree on the version and learn which domain this is.',
    caller: 'anyone',
    args: z.strictObject({ protocol: z.int(), name: nameSchema.optional() }),
    reply: z.object({
      domain: objectId,
      protocol: z.int(),
      version: z.string(),
      pid: z.int(),
      uid: z.int(),
      privileged: z.boolean(),
      prepared: z.array(z.string()).describe('names of the VNICs that wait for vnic.open'),
    }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_UNSUPPORTED'],
  },
  'domain.prepare': {
    doc:
      'Make a domain with VNICs that its holder may open. The descriptor of the reply is its control channel: ' +
      'whoever holds it and runs as `uid` is the domain. It ends when the last copy is closed.',
    caller: 'privileged',
    args: z.strictObject({
      name: nameSchema,
      uid: uint32.describe('user that the holder will run as; others are refused'),
      gid: uint32.optional().describe('its group, for `list`'),
      vnics: z.array(vnicSpecSchema).max(LIMITS.vnicsPerDomainMax),
    }),
    reply: z.object({ domain: objectId, vnics: z.array(z.string()) }),
    requestFds: [],
    replyFds: ['channel'],
    errors: ['ARK_NOT_PERMITTED', 'ARK_NOT_FOUND', 'ARK_IN_USE', 'ARK_BAD_ARGUMENT', 'ARK_LIMIT'],
  },
  'vnic.open': {
    doc:
      'Open a prepared VNIC by name (default: the first that is not open), or, privileged, a new one by spec. ' +
      'A prepared one that was closed or went away may be opened again.',
    caller: 'domain',
    args: z
      .strictObject({ name: nameSchema.optional(), spec: vnicSpecSchema.optional() })
      .refine((a) => a.name === undefined || a.spec === undefined, 'give a name or a spec'),
    reply: vnicSchema,
    requestFds: [],
    replyFds: ['region', 'socket'],
    errors: [
      'ARK_NOT_PERMITTED',
      'ARK_NOT_FOUND',
      'ARK_IN_USE',
      'ARK_BAD_ARGUMENT',
      'ARK_LIMIT',
      'ARK_DEVICE',
      'ARK_GONE',
      'ARK_UNSUPPORTED',
    ],
  },
  'vnic.close': {
    doc: 'Close a VNIC. The device stops serving it before the reply.',
    caller: 'domain',
    args: z.strictObject(vnicArg),
    reply: z.object({}),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND'],
  },
  'vnic.listen': {
    doc:
      'Make a VNIC of the software NIC for a program that is not ours (DPDK, QEMU): it connects to a vhost-user ' +
      "socket, a name in the run directory's `ports/` or an absolute path that the device process may write.",
    caller: 'privileged',
    args: z.strictObject({
      path: z
        .string()
        .min(1)
        .max(LIMITS.pathLengthMax)
        .regex(/^[^\0]+$/),
      spec: vnicSpecSchema.optional(),
      keep: z.boolean().optional().describe('outlives the connection; ends by vnic.close'),
    }),
    reply: z.object({ vnic: objectId, name: z.string(), path: z.string(), mac, address: uint32 }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_PERMITTED', 'ARK_IN_USE', 'ARK_BAD_ARGUMENT', 'ARK_LIMIT', 'ARK_DEVICE'],
  },
  'filter.set': {
    doc: 'Replace the filters of a VNIC. A domain may only narrow what it was given.',
    caller: 'domain',
    args: z.strictObject({ ...vnicArg, filters: filtersSchema }),
    reply: z.object({}),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND', 'ARK_NOT_PERMITTED', 'ARK_IN_USE', 'ARK_GONE', 'ARK_DEVICE'],
  },
  list: {
    doc: "Every object that the caller may see: its own; the daemon's user and root see all.",
    caller: 'domain',
    args: z.strictObject(page),
    reply: z.object({ objects: z.array(objectSchema), omitted: z.int() }),
    requestFds: [],
    replyFds: [],
    errors: [],
  },
  stats: {
    doc: 'Counters of the VNICs that the caller may see, as the devices count them, and of the daemon.',
    caller: 'domain',
    args: z.strictObject(page),
    reply: z.object({
      daemon: z.record(z.string(), z.number()),
      vnics: z.array(
        z.object({
          ...vnicArg,
          name: z.string(),
          counters: z.record(z.string(), z.union([scalar, z.record(z.string(), count)])),
        }),
      ),
      omitted: z.int(),
    }),
    requestFds: [],
    replyFds: [],
    errors: [],
  },
  'device.list': {
    doc: 'The devices that the daemon serves.',
    caller: 'domain',
    args: z.strictObject({}),
    reply: z.object({ devices: z.array(deviceSchema) }),
    requestFds: [],
    replyFds: [],
    errors: [],
  },
  'device.add': {
    doc: 'Take a network interface as a device. Interfaces that a VNIC spec names are taken by themselves.',
    caller: 'privileged',
    args: z.strictObject({ name: nameSchema }),
    reply: z.object({ device: deviceSchema }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_PERMITTED', 'ARK_NOT_FOUND', 'ARK_IN_USE', 'ARK_UNSUPPORTED', 'ARK_LIMIT'],
  },
  'capture.start': {
    doc:
      'Have the domain that owns a VNIC record its packets, as pcapng, into a descriptor that is open for writing ' +
      'only (file, pipe or character device, no terminal).',
    caller: 'privileged',
    args: z.strictObject({
      ...vnicArg,
      snaplen: z.int().min(64).max(LIMITS.snaplenMax).optional(),
    }),
    reply: z.object({ capture: objectId }),
    requestFds: ['sink'],
    replyFds: [],
    errors: ['ARK_NOT_FOUND', 'ARK_BAD_ARGUMENT', 'ARK_IN_USE', 'ARK_GONE'],
  },
  'capture.stop': {
    doc: 'End the recording of a VNIC. It also ends with the connection that started it.',
    caller: 'domain',
    args: z.strictObject(vnicArg),
    reply: z.object({}),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND'],
  },
  shutdown: {
    doc: 'End the daemon in order. Its device processes end with it.',
    caller: 'privileged',
    args: z.strictObject({}),
    reply: z.object({}),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_PERMITTED'],
  },
} as const satisfies OperationTable;

export const EVENTS = {
  'vnic.gone': {
    doc: 'A VNIC of this domain stopped for good: its device died, its interface vanished, it was closed by root.',
    fields: z.object({ ...vnicArg, reason: z.string() }),
    fds: [],
  },
  capture: {
    doc: "Record this VNIC's packets into the descriptor until `capture.stop`.",
    fields: z.object({ ...vnicArg, snaplen: z.int() }),
    fds: ['sink'],
  },
  'capture.stop': { doc: 'Stop recording this VNIC.', fields: z.object(vnicArg), fds: [] },
  shutdown: { doc: 'The daemon is about to end.', fields: z.object({}), fds: [] },
} as const;

export type Operation = keyof typeof OPERATIONS;
export type ArgsOf<O extends Operation> = z.infer<(typeof OPERATIONS)[O]['args']>;
export type ReplyOf<O extends Operation> = z.infer<(typeof OPERATIONS)[O]['reply']>;
export type EventName = keyof typeof EVENTS;
export type EventOf<E extends EventName> = z.infer<(typeof EVENTS)[E]['fields']>;
export type ObjectInfo = z.infer<typeof objectSchema>;
export type DeviceInfo = z.infer<typeof deviceSchema>;
export type VnicInfo = z.infer<typeof vnicSchema>;

const envelopeSchema = z.looseObject({ id: z.int().min(1), op: z.string().max(32) });
const errorSchema = z.object({
  code: z.string(),
  message: z.string(),
  hint: z.string().optional(),
});
const replySchema = z.looseObject({
  id: z.int().min(0),
  ok: z.boolean(),
  error: errorSchema.optional(),
});

/** What a client sent, checked against the table. */
export interface Request<O extends Operation = Operation> {
  readonly id: number;
  readonly op: O;
  readonly args: ArgsOf<O>;
}

/** A refused request still has its id, when that could be read, so that the answer finds its question. */
export class BadRequest extends ArrakisError {
  readonly id: number;

  constructor(id: number, code: ErrorCode, message: string) {
    super(code, message, { hint: 'docs/protocol.md has every operation and its fields' });
    this.id = id;
  }
}

function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0]!;
  const path = issue.path.join('.');
  return path === '' ? issue.message : `${path}: ${issue.message}`;
}

/** Reviver of JSON.parse: this one name is special to objects, and validation would pass over it. */
function refuseProto(key: string, value: unknown): unknown {
  if (key === '__proto__') throw new SyntaxError('__proto__ is no field');
  return value;
}

/** The request in `text`; throws BadRequest. The only gate from bytes to a request. */
export function parseRequest(text: string, fdCount: number): Request {
  let value: unknown;
  try {
    value = JSON.parse(text, refuseProto);
  } catch {
    throw new BadRequest(0, 'ARK_BAD_MESSAGE', 'the message is not JSON that we take');
  }
  const envelope = envelopeSchema.safeParse(value);
  if (!envelope.success) {
    throw new BadRequest(0, 'ARK_BAD_MESSAGE', `not a request: ${firstIssue(envelope.error)}`);
  }
  const { id, op, ...rest } = envelope.data;
  if (!Object.hasOwn(OPERATIONS, op)) {
    throw new BadRequest(id, 'ARK_UNKNOWN_OPERATION', `there is no operation "${op}"`);
  }
  const operation = OPERATIONS[op as Operation];
  const args = operation.args.safeParse(rest);
  if (!args.success) {
    throw new BadRequest(id, 'ARK_BAD_MESSAGE', `${op}: ${firstIssue(args.error)}`);
  }
  if (fdCount !== operation.requestFds.length) {
    throw new BadRequest(
      id,
      'ARK_BAD_MESSAGE',
      `${op} takes ${operation.requestFds.length} descriptors, not ${fdCount}`,
    );
  }
  return { id, op: op as Operation, args: args.data } as Request;
}

/** What a daemon sent: a reply to request `id`, an error for it, or an event. */
export type FromDaemon =
  | { kind: 'reply'; id: number; body: unknown }
  | { kind: 'error'; id: number; error: ArrakisError }
  | { kind: 'event'; name: EventName; body: unknown };

/** The daemon's message in `text`; null for an event that this version does not know. Throws ARK_BAD_MESSAGE. */
export function parseFromDaemon(text: string): FromDaemon | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ArrakisError('ARK_BAD_MESSAGE', 'the daemon sent something that is not JSON');
  }
  const name = (value as { event?: unknown } | null)?.event;
  if (typeof name === 'string') {
    if (!Object.hasOwn(EVENTS, name)) return null;
    const fields = EVENTS[name as EventName].fields.safeParse(value);
    if (!fields.success) throw badReply(name, fields.error);
    return { kind: 'event', name: name as EventName, body: fields.data };
  }
  const reply = replySchema.safeParse(value);
  if (!reply.success) throw badReply('reply', reply.error);
  const { id, ok, error } = reply.data;
  if (ok) return { kind: 'reply', id, body: value };
  return { kind: 'error', id, error: errorFromWire(error) };
}

/** The body of a reply to `op`, checked. */
export function parseReply<O extends Operation>(op: O, body: unknown): ReplyOf<O> {
  const reply = OPERATIONS[op].reply.safeParse(body);
  if (!reply.success) throw badReply(op, reply.error);
  return reply.data as ReplyOf<O>;
}

function badReply(what: string, error: z.ZodError): ArrakisError {
  return new ArrakisError('ARK_BAD_MESSAGE', `${what} of the daemon: ${firstIssue(error)}`, {
    hint: 'the daemon and this program may be of different versions',
  });
}

function errorFromWire(error: z.infer<typeof errorSchema> | undefined): ArrakisError {
  const code = error !== undefined && Object.hasOwn(ERROR_CODES, error.code) ? error.code : null;
  return new ArrakisError(
    (code as ErrorCode | null) ?? 'ARK_INTERNAL',
    error?.message ?? 'the daemon refused without a reason',
    error?.hint === undefined ? {} : { hint: error.hint },
  );
}

/** An error as it travels. What is not an ArrakisError is a defect of the daemon: its text stays in the log. */
export function errorToWire(error: unknown): z.infer<typeof errorSchema> {
  if (error instanceof ArrakisError) {
    const wire = { code: error.code, message: error.message.slice(0, 2000) };
    return error.hint === undefined ? wire : { ...wire, hint: error.hint };
  }
  return { code: 'ARK_INTERNAL', message: 'the daemon failed; its log says how' };
}
