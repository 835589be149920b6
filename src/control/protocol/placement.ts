/** Operations on where applications run, and what a domain is told of it. */
import { z } from 'zod';
import { LIMITS } from '../limits.ts';
import { type EventTable, type OperationTable, objectId } from './schemas.ts';

const cpu = z
  .int()
  .min(0)
  .max(LIMITS.cpusMax - 1);
const cpus = z.array(cpu).min(1).max(LIMITS.cpusMax);

export const PLACEMENT_OPERATIONS = {
  'placement.place': {
    doc:
      'Choose processors for a domain, one for each queue pair of its VNICs, out of a core set: those that the same ' +
      'user had for the same program before, then the least loaded. None when it has no core set: it runs anywhere.',
    caller: 'privileged',
    args: z.strictObject({
      domain: objectId,
      cpus: cpus.optional().describe('core set; default: of its `cores` capabilities'),
    }),
    reply: z.object({ cpus: z.array(cpu).describe('in the order in which threads take them') }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND', 'ARK_BAD_ARGUMENT'],
  },
  'placement.move': {
    doc: 'Move a domain to these processors. It is told by `placement`, and comes back to them when it is run again.',
    caller: 'privileged',
    args: z.strictObject({ domain: objectId, cpus }),
    reply: z.object({ cpus: z.array(cpu) }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND', 'ARK_BAD_ARGUMENT'],
  },
} as const satisfies OperationTable;

export const PLACEMENT_EVENTS = {
  placement: {
    doc: 'The domain is to run on these processors: thread i on the i-th, from the start again when there are fewer.',
    fields: z.object({ cpus: z.array(cpu) }),
    fds: [],
  },
} as const satisfies EventTable;
