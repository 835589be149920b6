/** Operations on capabilities, and what holders are told. */
import { z } from 'zod';
import { rangeSchema } from '../caps/range.ts';
import { CAP_KINDS } from '../caps/rights.ts';
import { LIMITS } from '../limits.ts';
import { type EventTable, type OperationTable, objectId, page } from './schemas.ts';

const RIGHTS_MAX = 16;
const OBJECT_LENGTH_MAX = 64;

const capArg = { cap: objectId.min(1) };
const kindSchema = z.enum(CAP_KINDS);
const rightsSchema = z.array(z.string().max(16)).max(RIGHTS_MAX);
const narrowing = {
  rights: rightsSchema.optional().describe('default: all that the capability has'),
  range: rangeSchema.optional().describe('default: that of the capability'),
};
const domainArg = objectId.min(1).describe('the domain that gets it');
const graceArg = {
  graceMs: z
    .int()
    .min(0)
    .max(LIMITS.revokeGraceMsMax)
    .optional()
    .describe('how long its holders may keep it after they were told'),
};

export const capSchema = z.object({
  ...capArg,
  holder: objectId.describe('domain; 0 is the daemon itself'),
  kind: kindSchema,
  object: z.string().describe('what it is for, such as soft0 or vnic:12; * is any'),
  rights: rightsSchema,
  range: rangeSchema.describe('null: no bound'),
  parent: objectId.describe('what it was derived from; 0: given by the control plane'),
});

export const CAP_OPERATIONS = {
  'cap.list': {
    doc: "The caller's capabilities; for the daemon's user and root those of everybody.",
    caller: 'domain',
    args: z.strictObject({ ...page, holder: objectId.optional().describe('only those of it') }),
    reply: z.object({ capabilities: z.array(capSchema), omitted: z.int() }),
    requestFds: [],
    replyFds: [],
    errors: [],
  },
  'cap.derive': {
    doc: 'Make a capability with fewer rights or a smaller range out of one, for its holder.',
    caller: 'domain',
    args: z.strictObject({ ...capArg, ...narrowing }),
    reply: capSchema,
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND', 'ARK_NOT_PERMITTED', 'ARK_BAD_ARGUMENT', 'ARK_LIMIT'],
  },
  'cap.copy': {
    doc:
      'Another capability of the same rights for the same holder, derived from the same one; the copy of a root is ' +
      'derived from it.',
    caller: 'domain',
    args: z.strictObject(capArg),
    reply: capSchema,
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND', 'ARK_NOT_PERMITTED', 'ARK_LIMIT'],
  },
  'cap.grant': {
    doc: 'Derive a capability for another domain, which is told of it. Takes the right `grant`.',
    caller: 'domain',
    args: z.strictObject({ ...capArg, to: domainArg, ...narrowing }),
    reply: capSchema,
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND', 'ARK_NOT_PERMITTED', 'ARK_BAD_ARGUMENT', 'ARK_LIMIT'],
  },
  'cap.mint': {
    doc: "Give a domain a new root capability: the control plane's own authority.",
    caller: 'privileged',
    args: z.strictObject({
      to: domainArg,
      kind: kindSchema.exclude(['vnic', 'region', 'endpoint', 'directory']),
      object: z.string().min(1).max(OBJECT_LENGTH_MAX).describe('name of a device, or *'),
      rights: rightsSchema.optional().describe('default: all of the kind'),
      range: rangeSchema.optional().describe('default: no bound'),
    }),
    reply: capSchema,
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND', 'ARK_NOT_PERMITTED', 'ARK_BAD_ARGUMENT'],
  },
  'cap.revoke': {
    doc:
      'Take away everything that was derived from a capability; it stays itself. Its holders are told and have ' +
      '`graceMs` to finish. The reply comes when it has happened, on the data plane too.',
    caller: 'domain',
    args: z.strictObject({ ...capArg, ...graceArg }),
    reply: z.object({ removed: z.int() }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND'],
  },
  'cap.delete': {
    doc:
      'Take a capability away with everything derived from it: one of the caller, or one derived from those. Other ' +
      'holders are told and have `graceMs` to finish.',
    caller: 'domain',
    args: z.strictObject({ ...capArg, ...graceArg }),
    reply: z.object({ removed: z.int() }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND'],
  },
} as const satisfies OperationTable;

const capIds = z.array(objectId).max(LIMITS.capsPerEventMax);

export const CAP_EVENTS = {
  'cap.granted': {
    doc: 'This domain was given a capability.',
    fields: z.object({ capability: capSchema, by: objectId.describe('domain; 0 is the daemon') }),
    fds: [],
  },
  'cap.revoking': {
    doc:
      'Capabilities of this domain go in `graceMs`, with what exists by their authority. It may finish, and delete them ' +
      'itself, which ends the wait.',
    fields: z.object({ caps: capIds, graceMs: z.int() }),
    fds: [],
  },
  'cap.revoked': {
    doc: 'Capabilities of this domain are gone.',
    fields: z.object({ caps: capIds }),
    fds: [],
  },
} as const satisfies EventTable;
