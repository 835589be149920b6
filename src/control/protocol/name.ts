/** Names: one tree, in which domains find what others offer. */
import { z } from 'zod';
import { LIMITS } from '../limits.ts';
import { capSchema } from './cap.ts';
import { pathArg, peerSchema } from './endpoint.ts';
import { type EventTable, type OperationTable, objectId } from './schemas.ts';

const entryKind = z.enum(['directory', 'capability', 'endpoint']);
const mode = z.int().min(0).max(0o777).describe('as of a file: r lists, w binds, x looks up');
const rights = z.array(z.string().max(16)).max(16);

export const entrySchema = z.object({
  name: z.string(),
  kind: entryKind,
  owner: objectId.describe('domain with which it ends; 0: it stays'),
  uid: z.int(),
  gid: z.int().nullable(),
  mode: mode.nullable().describe('of a directory'),
  server: objectId.nullable().describe('of a directory: domain that answers for what is in it'),
  object: z.string().describe('what it is a name for'),
  rights: rights.describe('that a lookup gives'),
});

const PATH_ERRORS = [
  'ARK_BAD_ARGUMENT',
  'ARK_NOT_PERMITTED',
  'ARK_NOT_FOUND',
  'ARK_UNSUPPORTED',
] as const;
const none = { requestFds: [], replyFds: [] } as const;

export const NAME_OPERATIONS = {
  'name.make': {
    doc:
      'Make a directory. It ends with its domain, with all that is in it. The capability of the reply carries every ' +
      'right in it, to be granted to others.',
    caller: 'domain',
    args: z.strictObject({
      ...pathArg,
      mode: mode.optional().describe('default 0755'),
      keep: z.boolean().optional().describe('privileged: it does not end with the domain'),
    }),
    reply: z.object({ directory: objectId, cap: objectId }),
    ...none,
    errors: [...PATH_ERRORS, 'ARK_IN_USE', 'ARK_LIMIT'],
  },
  'name.bind': {
    doc: 'Name a capability that may be granted. Whoever looks it up gets one derived from it. It ends with it.',
    caller: 'domain',
    args: z.strictObject({
      ...pathArg,
      cap: objectId.min(1),
      rights: rights.optional().describe('that a lookup gives; default: all it has but grant'),
    }),
    reply: z.object({}),
    ...none,
    errors: [...PATH_ERRORS, 'ARK_IN_USE', 'ARK_LIMIT'],
  },
  'name.lookup': {
    doc:
      'What a name stands for. A capability is derived for the caller, the same one each time while it has it. Below a ' +
      'served directory its server is asked.',
    caller: 'domain',
    args: z.strictObject(pathArg),
    reply: z.object({ kind: entryKind, capability: capSchema.nullable() }),
    ...none,
    errors: [...PATH_ERRORS, 'ARK_LIMIT', 'ARK_TIMEOUT', 'ARK_GONE'],
  },
  'name.list': {
    doc: 'What is in a directory, in order of names.',
    caller: 'domain',
    args: z.strictObject({
      ...pathArg,
      after: z.string().max(LIMITS.namePartBytesMax).optional().describe('only later names'),
    }),
    reply: z.object({ entries: z.array(entrySchema), omitted: z.int() }),
    ...none,
    errors: PATH_ERRORS,
  },
  'name.remove': {
    doc: 'Take a name away; a directory when it is empty. Who has looked it up keeps what it got.',
    caller: 'domain',
    args: z.strictObject(pathArg),
    reply: z.object({}),
    ...none,
    errors: [...PATH_ERRORS, 'ARK_IN_USE'],
  },
  'name.watch': {
    doc: 'Be told of changes in a directory by `name.changed`.',
    caller: 'domain',
    args: z.strictObject(pathArg),
    reply: z.object({ watch: objectId }),
    ...none,
    errors: [...PATH_ERRORS, 'ARK_LIMIT'],
  },
  'name.unwatch': {
    doc: 'End a watch.',
    caller: 'domain',
    args: z.strictObject({ watch: objectId }),
    reply: z.object({}),
    ...none,
    errors: ['ARK_NOT_FOUND'],
  },
  'name.serve': {
    doc: 'Answer for everything below a directory of this user, which is empty: `name.asked` comes for each lookup.',
    caller: 'domain',
    args: z.strictObject(pathArg),
    reply: z.object({}),
    ...none,
    errors: [...PATH_ERRORS, 'ARK_IN_USE'],
  },
  'name.answer': {
    doc: 'Answer `name.asked`: with a capability that may be granted, or with why there is none.',
    caller: 'domain',
    args: z
      .strictObject({
        question: objectId,
        cap: objectId.min(1).optional(),
        rights: rights.optional().describe('default: all it has but grant'),
        refusal: z.string().max(200).optional(),
      })
      .refine(
        (a) => (a.cap === undefined) !== (a.refusal === undefined),
        'give a cap or a refusal',
      ),
    reply: z.object({}),
    ...none,
    errors: ['ARK_NOT_FOUND', 'ARK_NOT_PERMITTED', 'ARK_BAD_ARGUMENT', 'ARK_LIMIT', 'ARK_GONE'],
  },
} as const satisfies OperationTable;

export const NAME_EVENTS = {
  'name.changed': {
    doc: 'Names came or went in a watched directory.',
    fields: z.object({
      watch: objectId,
      changes: z.array(
        z.object({
          name: z.string().describe('empty: the directory itself, and the watch has ended'),
          change: z.enum(['made', 'bound', 'removed']),
        }),
      ),
      more: z.boolean().describe('there were more changes than are told: list the directory again'),
    }),
    fds: [],
  },
  'name.asked': {
    doc: `Somebody looks a name up in a directory that this domain serves; answer within ${LIMITS.nameAnswerMsMax} ms.`,
    fields: z.object({
      question: objectId,
      directory: objectId,
      path: z.string().describe('below the directory, beginning with /'),
      peer: peerSchema,
    }),
    fds: [],
  },
} as const satisfies EventTable;
