/** Operations on what the host's kernel knows of a network that VNICs share with it, and what their domains are told. */
import { z } from 'zod';
import { LIMITS } from '../limits.ts';
import { type EventTable, mac, type OperationTable, uint32, vnicArg } from './schemas.ts';

const prefix = z.int().min(0).max(32);

export const networkSchema = z.object({
  mtu: z.int().min(0),
  addresses: z.array(z.object({ address: uint32, prefix })).max(LIMITS.hostAddressesMax),
  routes: z
    .array(z.object({ dst: uint32, prefix, gateway: uint32.describe('0: on the link') }))
    .max(LIMITS.hostRoutesMax),
  neighbours: z
    .array(z.object({ address: uint32, mac, reachable: z.boolean() }))
    .max(LIMITS.hostNeighboursMax),
});

export const NETWORK_OPERATIONS = {
  'network.read': {
    doc:
      "What the kernel knows of the network of a VNIC that shares the interface's address, and from now on what changes " +
      '(`network.changed`), until the VNIC is closed.',
    caller: 'domain',
    args: z.strictObject(vnicArg),
    reply: networkSchema,
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND', 'ARK_GONE', 'ARK_UNSUPPORTED'],
  },
  'network.resolve': {
    doc:
      'Have the kernel find a neighbour of a shared address, as if it had a packet for it. What comes of it is told by ' +
      '`network.changed`. Limited for each VNIC.',
    caller: 'domain',
    args: z.strictObject({ ...vnicArg, address: uint32.describe('on the link of the interface') }),
    reply: z.object({}),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_FOUND', 'ARK_GONE', 'ARK_UNSUPPORTED', 'ARK_BAD_ARGUMENT', 'ARK_LIMIT'],
  },
} as const satisfies OperationTable;

export const NETWORK_EVENTS = {
  'network.changed': {
    doc: 'What the kernel knows of the network of a VNIC is this now. Only for who has asked by `network.read`.',
    fields: z.object({ ...vnicArg, ...networkSchema.shape }),
    fds: [],
  },
} as const satisfies EventTable;
