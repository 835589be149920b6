/** How many VNICs the policy lets a user have. */
import { ArrakisError } from '../../base/errors.ts';
import type { Domain } from '../objects/domain.ts';
import type { ControlPlane } from '../plane.ts';

/**
 * Decode: the user of `domain` may open one more VNIC by its capabilities. Those that root prepared, or gave, do not count;
 * those that are kept closed do.
 */
export function requireVnicCount(plane: ControlPlane, domain: Domain): void {
  const most = plane.policy?.policy.vnicsFor(domain) ?? null;
  if (most === null) return;
  let open = 0;
  for (const { domain: owner, hold } of plane.vnics.values()) {
    // What it hangs on: a root is the control plane's own gift.
    if (owner.uid === domain.uid && hold !== null && hold.root.parent !== null) open++;
  }
  if (open < most) return;
  throw new ArrakisError('ARK_LIMIT', `uid ${domain.uid} has ${open} VNICs; ${most} are allowed`, {
    hint: 'close one, or have `vnics` raised in the policy file',
  });
}
