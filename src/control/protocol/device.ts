/** Operations on devices. */
import { z } from 'zod';
import { nameSchema } from '../vnic-spec.ts';
import { deviceSchema, type OperationTable } from './schemas.ts';

export const DEVICE_OPERATIONS = {
  'device.list': {
    doc: 'The devices that the daemon serves.',
    caller: 'domain',
    args: z.strictObject({}),
    reply: z.object({ devices: z.array(deviceSchema) }),
    requestFds: [],
    replyFds: [],
    errors: [],
  },
  'device.add': {
    doc: 'Take a network interface as a device. Interfaces that a VNIC spec names are taken by themselves.',
    caller: 'privileged',
    args: z.strictObject({ name: nameSchema }),
    reply: z.object({ device: deviceSchema }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_PERMITTED', 'ARK_NOT_FOUND', 'ARK_IN_USE', 'ARK_UNSUPPORTED', 'ARK_LIMIT'],
  },
} as const satisfies OperationTable;
