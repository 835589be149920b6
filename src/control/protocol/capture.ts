/** Recording the packets of a VNIC. */
import { z } from 'zod';
import { LIMITS } from '../limits.ts';
import { type EventTable, type OperationTable, objectId, vnicArg } from './schemas.ts';

export const CAPTURE_OPERATIONS = {
  'capture.start': {
    doc:
      'Have the domain that owns a VNIC record its packets, as pcapng, into a descriptor that is open for writing ' +
      'only (file, pipe or character device, no terminal). Each queue pair is an interface of the recording.',
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
} as const satisfies OperationTable;

export const CAPTURE_EVENTS = {
  capture: {
    doc: "Record this VNIC's packets into the descriptor until `capture.stop`.",
    fields: z.object({ ...vnicArg, snaplen: z.int() }),
    fds: ['sink'],
  },
  'capture.stop': { doc: 'Stop recording this VNIC.', fields: z.object(vnicArg), fds: [] },
} as const satisfies EventTable;
