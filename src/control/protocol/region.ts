/** Shared regions: memory that a domain makes and shares by capabilities of kind region. */
import { z } from 'zod';
import { LIMITS } from '../limits.ts';
import { nameSchema } from '../vnic-spec.ts';
import { type EventTable, type OperationTable, objectId } from './schemas.ts';

const regionArg = { region: objectId };
const capArg = { cap: objectId.min(1) };

export const REGION_OPERATIONS = {
  'region.create': {
    doc:
      'Make memory that can be shared. It lives as long as its capability; share it by `cap.grant` with the rights ' +
      '`read` or `read`, `write`, or by a name.',
    caller: 'domain',
    args: z.strictObject({
      bytes: z.int().min(1).max(LIMITS.regionBytesPerDomainMax),
      name: nameSchema.optional().describe('for `list`'),
    }),
    reply: z.object({ ...regionArg, ...capArg, bytes: z.int().describe('whole pages') }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_LIMIT'],
  },
  'region.open': {
    doc:
      'A descriptor of the memory with the rights of the capability: for reading only, unless it has `write`. What is ' +
      'mapped stays mapped when the capability is revoked; only new descriptors are refused.',
    caller: 'domain',
    args: z.strictObject(capArg),
    reply: z.object({ ...regionArg, bytes: z.int(), writable: z.boolean() }),
    requestFds: [],
    replyFds: ['memory'],
    errors: ['ARK_NOT_FOUND', 'ARK_BAD_ARGUMENT', 'ARK_NOT_PERMITTED', 'ARK_GONE'],
  },
} as const satisfies OperationTable;

export const REGION_EVENTS = {
  'region.held': {
    doc:
      'Capabilities for a region of this domain are gone, but these domains had opened it and are still there: they may ' +
      'have it mapped until they end. Share a new region to be sure.',
    fields: z.object({ ...regionArg, domains: z.array(objectId) }),
    fds: [],
  },
} as const satisfies EventTable;
