/** Operations on VNICs, and what a domain is told of them. */
import { z } from 'zod';
import { LIMITS } from '../limits.ts';
import { nameSchema, vnicSpecSchema } from '../vnic-spec.ts';
import {
  type EventTable,
  mac,
  type OperationTable,
  objectId,
  uint32,
  vnicArg,
  vnicSchema,
} from './schemas.ts';

export const VNIC_OPERATIONS = {
  'vnic.open': {
    doc:
      'Open a prepared VNIC by name (default: the first that is not open); a new one by spec, as far as the ' +
      "caller's capabilities go; or the one of another domain, by a capability. A prepared one that was closed or " +
      'went away may be opened again.',
    caller: 'domain',
    args: z
      .strictObject({
        name: nameSchema.optional(),
        spec: vnicSpecSchema.optional(),
        cap: objectId.optional().describe('capability for a VNIC with the right `open`'),
      })
      .refine(
        ({ name, spec, cap }) =>
          [name, spec, cap].filter((given) => given !== undefined).length <= 1,
        'give a name, a spec or a capability',
      ),
    reply: vnicSchema,
    requestFds: [],
    replyFds: ['region', 'socket...'],
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
    args: z.strictObject({
      ...vnicArg,
      keep: z
        .boolean()
        .optional()
        .describe('it may be opened again, and nobody else gets its filters'),
    }),
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
} as const satisfies OperationTable;

export const VNIC_EVENTS = {
  'vnic.gone': {
    doc: 'A VNIC of this domain stopped for good: its device died, its interface vanished, it was closed by root.',
    fields: z.object({ ...vnicArg, reason: z.string() }),
    fds: [],
  },
  'vnic.queue-broken': {
    doc: 'One queue pair of a VNIC broke the protocol of its device, which serves it no more. The other pairs go on.',
    fields: z.object({ ...vnicArg, queue: z.int(), reason: z.string() }),
    fds: [],
  },
  'vnic.reattach': {
    doc:
      'The device of a VNIC was restarted and serves it behind a new socket: start the rings anew on the same region ' +
      'and go on. Frames that were with the device are lost.',
    fields: z.object(vnicArg),
    fds: ['socket'],
  },
} as const satisfies EventTable;
