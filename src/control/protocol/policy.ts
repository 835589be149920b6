/** Operations on the policy. */
import { z } from 'zod';
import type { OperationTable } from './schemas.ts';

export const POLICY_OPERATIONS = {
  'policy.reload': {
    doc:
      'Load the policy file again and bring every domain to it. The reply comes when what the new policy no longer ' +
      'gives is gone. With a file that cannot be used the policy before stays.',
    caller: 'privileged',
    args: z.strictObject({}),
    reply: z.object({
      file: z.string(),
      granted: z.int().describe('capabilities that domains got'),
      revoked: z.int().describe('capabilities that domains lost, with those derived from them'),
      warnings: z.array(
        z.object({
          line: z.int(),
          column: z.int(),
          message: z.string(),
          hint: z.string().optional(),
        }),
      ),
    }),
    requestFds: [],
    replyFds: [],
    errors: ['ARK_NOT_PERMITTED', 'ARK_NOT_FOUND', 'ARK_POLICY'],
  },
} as const satisfies OperationTable;
