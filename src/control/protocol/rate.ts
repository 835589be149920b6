/** Limits and weights of VNICs and their queues, and how their doorbells are coalesced. */
import { z } from 'zod';
import { coalescingSchema } from '../../device/coalescing.ts';
import { DIRECTIONS, limitSchema, weightSchema } from '../../device/rate.ts';
import { LIMITS } from '../limits.ts';
import { type OperationTable, vnicArg } from './schemas.ts';

const queueArg = {
  queue: z
    .int()
    .min(0)
    .max(LIMITS.queuesPerVnicMax - 1)
    .optional()
    .describe('queue pair; default: the VNIC, all its pairs together'),
};

export const RATE_OPERATIONS = {
  'rate.set': {
    doc:
      'Limit what a VNIC, or one of its queues, sends or receives, while it runs; null is no limit. A domain may set ' +
      "less than the VNIC was given; more, as far as its `rate` capabilities go. A privileged caller's setting is what " +
      'the VNIC is given from then on.',
    caller: 'domain',
    args: z.strictObject({
      ...vnicArg,
      ...queueArg,
      direction: z.enum(DIRECTIONS),
      ...limitSchema.shape,
      weight: weightSchema
        .optional()
        .describe('share of what senders contend for; default: as it is'),
    }),
    reply: z.object({
      enforcedBy: z.string().describe('who sees to it, or NOTHING'),
    }),
    requestFds: [],
    replyFds: [],
    errors: [
      'ARK_NOT_FOUND',
      'ARK_NOT_PERMITTED',
      'ARK_BAD_ARGUMENT',
      'ARK_UNSUPPORTED',
      'ARK_DEVICE',
    ],
  },
  'doorbell.set': {
    doc:
      'Coalesce the doorbell of a VNIC, or of one of its queues: a frame waits at most `usecs` for its ring (0: not at ' +
      'all), and not for more than `frames` others (0: however many).',
    caller: 'domain',
    args: z.strictObject({ ...vnicArg, ...queueArg, ...coalescingSchema.shape }),
    reply: z.object({}),
    requestFds: [],
    replyFds: [],
    errors: [
      'ARK_NOT_FOUND',
      'ARK_NOT_PERMITTED',
      'ARK_BAD_ARGUMENT',
      'ARK_UNSUPPORTED',
      'ARK_DEVICE',
    ],
  },
} as const satisfies OperationTable;
