/** Operations on domains. */
import { z } from 'zod';
import { LIMITS } from '../limits.ts';
import { nameSchema, vnicSpecSchema } from '../vnic-spec.ts';
import { type OperationTable, objectId, uint32 } from './schemas.ts';

export const DOMAIN_OPERATIONS = {
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
      program: z
        .string()
        .max(LIMITS.programPathLengthMax)
        .regex(/^\/[^\0]*$/)
        .optional()
        .describe('absolute path of what the holder will run, for the policy'),
      vnics: z.array(vnicSpecSchema).max(LIMITS.vnicsPerDomainMax),
    }),
    reply: z.object({ domain: objectId, vnics: z.array(z.string()) }),
    requestFds: [],
    replyFds: ['channel'],
    errors: ['ARK_NOT_PERMITTED', 'ARK_NOT_FOUND', 'ARK_IN_USE', 'ARK_BAD_ARGUMENT', 'ARK_LIMIT'],
  },
} as const satisfies OperationTable;
