/** How much a user may have of VNICs, over all its domains. */
import { ArrakisError } from '../../base/errors.ts';
import { LIMITS } from '../limits.ts';
import type { Domain } from '../objects/domain.ts';
import type { ControlPlane } from '../plane.ts';
import type { VnicSpec } from '../vnic-spec.ts';

/** Of its packet memory, in all queue pairs. */
const bytesOf = ({ frames = LIMITS.framesDefault, queues = 1 }: VnicSpec): number =>
  frames * queues * LIMITS.frameSizeDefault;

/**
 * Decode: the user of `domain` may open VNIC `spec` as well by its capabilities. Those that root prepared, or gave, do not
 * count; those that are kept closed do. ARK_LIMIT.
 */
export function requireVnicQuota(plane: ControlPlane, domain: Domain, spec: VnicSpec): void {
  const most = plane.policy?.policy.vnicsFor(domain) ?? LIMITS.vnicsPerUidMax;
  let count = 0;
  let bytes = bytesOf(spec);
  for (const vnic of plane.vnics.values()) {
    // What it hangs on: a root is the control plane's own gift.
    const isGift = vnic.hold === null || vnic.hold.root.parent === null;
    if (vnic.domain.uid !== domain.uid || isGift) continue;
    count++;
    bytes += bytesOf(vnic.spec);
  }
  if (count >= most) {
    throw new ArrakisError(
      'ARK_LIMIT',
      `uid ${domain.uid} has ${count} VNICs; ${most} are allowed`,
      {
        hint: 'close one, or have `vnics` raised in the policy file',
      },
    );
  }
  if (bytes > LIMITS.vnicBytesPerUidMax) {
    const text = `the VNICs of uid ${domain.uid} would have ${bytes} bytes of packet memory`;
    throw new ArrakisError('ARK_LIMIT', text, {
      hint: `a user has at most ${LIMITS.vnicBytesPerUidMax}; open it with fewer frames=`,
    });
  }
}
