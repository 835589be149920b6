/** The operation on the policy. */
import { ArrakisError } from '../../base/errors.ts';
import { handler } from '../handler.ts';
import type { PolicyStore } from '../policy/store.ts';

export const reload = handler(
  'policy.reload',
  (plane): PolicyStore => {
    if (plane.policy !== null) return plane.policy;
    throw new ArrakisError('ARK_NOT_FOUND', 'this daemon has no policy');
  },
  async (plane, policy) => {
    const { warnings, ...counts } = await policy.reload(plane);
    const told = warnings.map(({ line, column, message, hint }) => ({
      line,
      column,
      message,
      hint,
    }));
    return { reply: { ...counts, warnings: told } };
  },
);
