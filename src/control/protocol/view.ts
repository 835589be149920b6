/** What a caller may see of the daemon, and its end. */
import { z } from 'zod';
import {
  count,
  type EventTable,
  type OperationTable,
  objectId,
  objectSchema,
  page,
  scalar,
  vnicArg,
} from './schemas.ts';

export const VIEW_OPERATIONS = {
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

export const VIEW_EVENTS = {
  resumed: {
    doc:
      'The daemon was killed, and another one has taken over: all that this domain has is as it was. `vnics` are the ' +
      'VNICs that it has opened; one that is not among them is gone, and one that the domain does not know is to be ' +
      'closed. A request that was under way is lost unless it is answered before the next one.',
    fields: z.object({ pid: z.int(), version: z.string(), vnics: z.array(objectId) }),
    fds: [],
  },
  shutdown: { doc: 'The daemon is about to end.', fields: z.object({}), fds: [] },
} as const satisfies EventTable;
