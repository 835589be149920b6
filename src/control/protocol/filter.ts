/** Operations on the filters of a VNIC. */
import { z } from 'zod';
import { filtersSchema, filterText, type OperationTable, objectId, vnicArg } from './schemas.ts';

const direction = z.enum(['receive', 'transmit']).optional().describe('default: receive');
const text = filterText.describe('like tcpdump: udp dst port 53 and src net 10.0.0.0/8');
const filterArg = { filter: objectId };
const filterSchema = z.object({
  ...filterArg,
  text: z.string().describe('canonical, as it took effect'),
});

const ERRORS = [
  'ARK_NOT_FOUND',
  'ARK_NOT_PERMITTED',
  'ARK_BAD_ARGUMENT',
  'ARK_IN_USE',
  'ARK_LIMIT',
  'ARK_GONE',
  'ARK_DEVICE',
  'ARK_UNSUPPORTED',
] as const;

export const FILTER_OPERATIONS = {
  'filter.add': {
    doc:
      'Add a filter to an open VNIC: to receive by, within what it was given or what capabilities of the caller cover, ' +
      'or to transmit by, within the mirror of that. With the first filter to transmit by, the mirror no longer holds. ' +
      'A filter that admits every destination (to transmit: source) is taken to mean the addresses of the VNIC.',
    caller: 'domain',
    args: z.strictObject({ ...vnicArg, direction, text }),
    reply: filterSchema,
    requestFds: [],
    replyFds: [],
    errors: ERRORS,
  },
  'filter.replace': {
    doc: 'Put another filter in the place of one, at once: packets that both take are not lost.',
    caller: 'domain',
    args: z.strictObject({ ...vnicArg, ...filterArg, text }),
    reply: filterSchema,
    requestFds: [],
    replyFds: [],
    errors: ERRORS,
  },
  'filter.remove': {
    doc: 'Take a filter away. Without any to receive by, a VNIC receives nothing; without any to transmit by, it sends nothing.',
    caller: 'domain',
    args: z.strictObject({ ...vnicArg, ...filterArg }),
    reply: z.object({}),
    requestFds: [],
    replyFds: [],
    errors: ERRORS,
  },
  'filter.set': {
    doc: 'Replace all filters of a VNIC in one direction, at once.',
    caller: 'domain',
    args: z.strictObject({
      ...vnicArg,
      direction,
      filters: filtersSchema
        .nullable()
        .describe('null, to transmit: the mirror of what is received again'),
    }),
    reply: z.object({ filters: z.array(filterSchema) }),
    requestFds: [],
    replyFds: [],
    errors: ERRORS,
  },
} as const satisfies OperationTable;
