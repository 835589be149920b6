/**
 * The control protocol: one table of operations and one of events, by kind in protocol/. Types, validation and
 * docs/protocol.md come from it.
 *
 * - One JSON object per SOCK_SEQPACKET message; descriptors ride along by SCM_RIGHTS.
 * - Request `{id, op, ...args}`; reply `{id, ok: true, ...}` or `{id, ok: false, error: {code, message, hint?}}`;
 *   event `{event, ...}`. A message that cannot be read is answered with id 0.
 * - A request with a field that the table does not have is refused. A reply may gain fields in a later version.
 */
import { z } from 'zod';
import { ArrakisError, ERROR_CODES, type ErrorCode } from '../base/errors.ts';
import { CAP_EVENTS, CAP_OPERATIONS, type capSchema } from './protocol/cap.ts';
import { CAPTURE_EVENTS, CAPTURE_OPERATIONS } from './protocol/capture.ts';
import { DEVICE_OPERATIONS } from './protocol/device.ts';
import { DOMAIN_OPERATIONS } from './protocol/domain.ts';
import { ENDPOINT_EVENTS, ENDPOINT_OPERATIONS } from './protocol/endpoint.ts';
import { FILTER_OPERATIONS } from './protocol/filter.ts';
import { NAME_EVENTS, NAME_OPERATIONS } from './protocol/name.ts';
import { NETWORK_EVENTS, NETWORK_OPERATIONS } from './protocol/network.ts';
import { PLACEMENT_EVENTS, PLACEMENT_OPERATIONS } from './protocol/placement.ts';
import { POLICY_OPERATIONS } from './protocol/policy.ts';
import { RATE_OPERATIONS } from './protocol/rate.ts';
import { REGION_EVENTS, REGION_OPERATIONS } from './protocol/region.ts';
import type { deviceSchema, objectSchema, vnicSchema } from './protocol/schemas.ts';
import { VIEW_EVENTS, VIEW_OPERATIONS } from './protocol/view.ts';
import { VNIC_EVENTS, VNIC_OPERATIONS } from './protocol/vnic.ts';

export const PROTOCOL_VERSION = 1;

export const OPERATIONS = {
  ...DOMAIN_OPERATIONS,
  ...VNIC_OPERATIONS,
  ...FILTER_OPERATIONS,
  ...DEVICE_OPERATIONS,
  ...RATE_OPERATIONS,
  ...CAPTURE_OPERATIONS,
  ...CAP_OPERATIONS,
  ...REGION_OPERATIONS,
  ...ENDPOINT_OPERATIONS,
  ...NAME_OPERATIONS,
  ...NETWORK_OPERATIONS,
  ...POLICY_OPERATIONS,
  ...PLACEMENT_OPERATIONS,
  ...VIEW_OPERATIONS,
} as const;

export const EVENTS = {
  ...VNIC_EVENTS,
  ...CAPTURE_EVENTS,
  ...CAP_EVENTS,
  ...REGION_EVENTS,
  ...ENDPOINT_EVENTS,
  ...NAME_EVENTS,
  ...NETWORK_EVENTS,
  ...VIEW_EVENTS,
  ...PLACEMENT_EVENTS,
} as const;

export type Operation = keyof typeof OPERATIONS;
export type ArgsOf<O extends Operation> = z.infer<(typeof OPERATIONS)[O]['args']>;
export type ReplyOf<O extends Operation> = z.infer<(typeof OPERATIONS)[O]['reply']>;
export type EventName = keyof typeof EVENTS;
export type EventOf<E extends EventName> = z.infer<(typeof EVENTS)[E]['fields']>;
export type ObjectInfo = z.infer<typeof objectSchema>;
export type DeviceInfo = z.infer<typeof deviceSchema>;
export type CapInfo = z.infer<typeof capSchema>;
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
