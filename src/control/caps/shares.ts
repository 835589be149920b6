/**
 * Shares: what capabilities other domains may cause. A look-up makes one of the binder's, a grant gives one to whoever it
 * pleases; both count by user, as a user may have many domains. They are counted when they are asked for, from the forest
 * itself, so nothing has to be kept in step with it, nor told to the next daemon.
 */
import { ArrakisError } from '../../base/errors.ts';
import { LIMITS } from '../limits.ts';
import type { Domain } from '../objects/domain.ts';
import type { ControlPlane } from '../plane.ts';
import type { Capability } from './space.ts';

const uidOf = (plane: ControlPlane, holder: number): number | undefined =>
  plane.domains.get(holder)?.uid;

function refuse(plane: ControlPlane, text: string, hint: string): never {
  plane.counters.sharesRefused++;
  throw new ArrakisError('ARK_LIMIT', text, { hint });
}

/** ARK_LIMIT when domain `to` may not be made one more of those of the holder of `cap` by looking it up. */
export function requireLookupShare(plane: ControlPlane, cap: Capability, to: Domain): void {
  // What the daemon itself has may be looked up without end, and so may one's own.
  if (cap.holder === 0 || cap.holder === to.id) return;
  let [all, ofUser] = [0, 0];
  for (const { holder } of plane.caps.madeOf(cap.holder)) {
    if (holder === cap.holder) continue;
    all++;
    if (uidOf(plane, holder) === to.uid) ofUser++;
  }
  const owner = plane.domains.get(cap.holder)?.name ?? String(cap.holder);
  if (ofUser >= LIMITS.capsLookedUpPerUidMax && !to.privileged) {
    const text = `uid ${to.uid} has ${ofUser} capabilities of domain ${owner}, as many as one user may`;
    refuse(plane, text, 'delete some that are not needed any more');
  }
  if (all >= LIMITS.capsLookedUpMax) {
    const text = `${all} capabilities of domain ${owner} are with others, as many as look-ups may take`;
    refuse(plane, text, 'it can still grant some itself');
  }
}

/** ARK_LIMIT when `by` may not give domain `to` one more. */
export function requireGiftShare(plane: ControlPlane, by: Domain, to: Domain): void {
  if (by.privileged || by.id === to.id) return;
  let given = 0;
  for (const { parent } of plane.caps.of(to.id)) {
    if (parent === null || parent.holder === to.id) continue;
    if (uidOf(plane, parent.holder) === by.uid) given++;
  }
  if (given < LIMITS.capsGivenPerUidMax) return;
  const text = `domain ${to.name} has ${given} capabilities of uid ${by.uid}, as many as one user may give it`;
  refuse(plane, text, 'revoke some first');
}
