/** Endpoints: names where one domain listens and others connect. The daemon introduces them, then it is out of the way. */
import { z } from 'zod';
import { RING_BYTES_DEFAULT, RING_BYTES_MIN } from '../../message/layout.ts';
import { LIMITS } from '../limits.ts';
import { type EventTable, type OperationTable, objectId } from './schemas.ts';

export const pathArg = {
  path: z.string().describe('absolute, such as /app/kv'),
  at: objectId
    .min(1)
    .optional()
    .describe('a capability for a directory: the path begins there, and its rights count'),
};

/** Who is at the other end, as the kernel and the daemon know it. */
export const peerSchema = z.object({
  domain: objectId,
  name: z.string(),
  uid: z.int(),
  pid: z.int().describe('0: not known'),
});

const connection = { connection: objectId };
const halves = {
  ...connection,
  ringBytes: z.int().describe('of each of the two rings in the memory'),
  peer: peerSchema,
};
/** The memory, the reading end of the own bell, the writing end of the peer's. */
const HALF_FDS = ['memory', 'bell', 'peer bell'] as const;

export const ENDPOINT_OPERATIONS = {
  'endpoint.create': {
    doc: 'Listen at a name. It takes the right to bind there.',
    caller: 'domain',
    args: z.strictObject({
      ...pathArg,
      ringBytes: z
        .int()
        .min(RING_BYTES_MIN)
        .max(LIMITS.connectionRingBytesMax)
        .refine((n) => (n & (n - 1)) === 0, 'a power of two')
        .optional()
        .describe(`of each ring; half of it is the longest message; default ${RING_BYTES_DEFAULT}`),
      backlog: z.int().min(1).max(LIMITS.backlogMax).optional(),
    }),
    reply: z.object({ endpoint: objectId, cap: objectId }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_BAD_ARGUMENT', 'ARK_NOT_PERMITTED', 'ARK_NOT_FOUND', 'ARK_IN_USE', 'ARK_LIMIT'],
  },
  'endpoint.connect': {
    doc:
      'Connect to an endpoint by its name, or by a capability with the right `connect`. Both sides get one half of a ' +
      'link: two message rings in sealed memory, and a pipe each as a bell.',
    caller: 'domain',
    args: z
      .strictObject({
        path: pathArg.path.optional(),
        at: pathArg.at,
        cap: objectId.min(1).optional(),
      })
      .refine((a) => (a.path === undefined) !== (a.cap === undefined), 'give a path or a cap'),
    reply: z.object(halves),
    requestFds: [],
    replyFds: HALF_FDS,
    errors: [
      'ARK_BAD_ARGUMENT',
      'ARK_NOT_PERMITTED',
      'ARK_NOT_FOUND',
      'ARK_LIMIT',
      'ARK_GONE',
      'ARK_TIMEOUT',
    ],
  },
  'endpoint.accept': {
    doc: 'The listener has taken a connection: there is room for another in the backlog.',
    caller: 'domain',
    args: z.strictObject(connection),
    reply: z.object({}),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND'],
  },
  'endpoint.leave': {
    doc: 'One side is done with a connection. The other is told.',
    caller: 'domain',
    args: z.strictObject(connection),
    reply: z.object({}),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND'],
  },
  'endpoint.close': {
    doc: 'Stop listening. Connections stay.',
    caller: 'domain',
    args: z.strictObject({ endpoint: objectId }),
    reply: z.object({}),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND'],
  },
} as const satisfies OperationTable;

export const ENDPOINT_EVENTS = {
  'endpoint.connected': {
    doc: 'Somebody connected to an endpoint of this domain.',
    fields: z.object({ endpoint: objectId, ...halves }),
    fds: HALF_FDS,
  },
  'endpoint.closed': {
    doc: 'The other side of a connection has left or ended.',
    fields: z.object({ ...connection, reason: z.string() }),
    fds: [],
  },
  'endpoint.ended': {
    doc: 'An endpoint of this domain lost its name or its capability: nobody can connect any more.',
    fields: z.object({ endpoint: objectId, reason: z.string() }),
    fds: [],
  },
} as const satisfies EventTable;
