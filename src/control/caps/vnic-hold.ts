/**
 * A VNIC and the capabilities that it hangs on. Its domain has one for it, derived from that of its device; of a VNIC
 * that the control plane itself made, the daemon has the root, so that there is something to revoke. The VNIC goes when
 * one of them goes; and whoever has a capability with `open` may open it while nobody else has.
 */
import { ArrakisError } from '../../base/errors.ts';
import type { Domain } from '../objects/domain.ts';
import type { Vnic, VnicUser } from '../objects/vnic.ts';
import type { ControlPlane } from '../plane.ts';
import type { VnicAuthority } from './authority.ts';
import type { Range } from './range.ts';
import { allRights, RIGHTS } from './rights.ts';
import type { Capability } from './space.ts';
import { dropCapability } from './withdraw.ts';

export interface VnicHold {
  /** Goes with the VNIC, and everything derived from it. */
  readonly root: Capability;
  readonly needs: Set<Capability>;
  /** The most that it may send and receive by its domain's capability. */
  readonly rate: Range;
  readonly forget: (() => void)[];
}

/** A hold as plain JSON. */
export interface SavedHold {
  readonly root: number;
  readonly needs: readonly number[];
  readonly rate: Range;
}

const objectOf = (vnic: Vnic): string => `vnic:${vnic.id}`;

/** Invoke: make the capabilities of `vnic`. `onLost` runs when it has lost one that it exists by. ARK_LIMIT. */
export function holdVnic(
  plane: ControlPlane,
  vnic: Vnic,
  { device, needs, rate }: VnicAuthority,
  onLost: () => void,
): void {
  const { caps } = plane;
  const object = objectOf(vnic);
  const all = allRights('vnic');
  if (device !== null) {
    const root = caps.attach(device, vnic.owner, 'vnic', object);
    vnic.hold = { root, needs: new Set(), rate, forget: [caps.onRemove(root, onLost)] };
  } else {
    const root = caps.mint(0, 'vnic', object, all, null);
    const own = vnic.owner === 0 ? root : caps.derive(root, vnic.owner, all, null);
    vnic.hold = { root, needs: new Set(), rate, forget: [caps.onRemove(own, onLost)] };
  }
  needVnic(plane, vnic, needs, onLost);
}

/** The VNIC depends on these too, from now on. */
export function needVnic(
  plane: ControlPlane,
  vnic: Vnic,
  needs: Iterable<Capability>,
  onLost: () => void,
): void {
  const { hold } = vnic;
  if (hold === null) return;
  for (const cap of needs) {
    if (hold.needs.has(cap)) continue;
    hold.needs.add(cap);
    hold.forget.push(plane.caps.onRemove(cap, onLost));
  }
}

/** The VNIC goes: so do its capabilities. `except` is a domain that knows. */
export function releaseHold(plane: ControlPlane, vnic: Vnic, except: number | null): void {
  const { hold } = vnic;
  if (hold === null) return;
  vnic.hold = null;
  for (const forget of hold.forget) forget();
  dropCapability(plane, hold.root, except);
}

export function saveHold({ hold }: Vnic): SavedHold | null {
  if (hold === null) return null;
  return { root: hold.root.id, needs: [...hold.needs].map((cap) => cap.id), rate: hold.rate };
}

/** After the space was restored. Throws ARK_GONE when one of the capabilities is not there any more. */
export function restoreHold(
  plane: ControlPlane,
  vnic: Vnic,
  saved: SavedHold,
  onLost: () => void,
): void {
  const { caps } = plane;
  const known = (id: number): Capability => {
    const cap = caps.get(id);
    if (cap !== undefined) return cap;
    throw new ArrakisError('ARK_GONE', `VNIC ${vnic.name} has lost capability ${id}`);
  };
  const root = known(saved.root);
  const needs = saved.needs.map(known);
  const own = caps.of(vnic.owner).find((cap) => cap === root || cap.parent === root);
  if (own === undefined) throw new ArrakisError('ARK_GONE', `VNIC ${vnic.name} has no holder`);
  vnic.hold = {
    root,
    needs: new Set(),
    rate: saved.rate,
    forget: [caps.onRemove(own, onLost)],
  };
  needVnic(plane, vnic, needs, onLost);
}

/**
 * Decode: `domain` is to have more for `vnic` than that was made with, by its own capabilities. Only its owner may: the
 * VNIC exists by them from then on, and whoever was handed it could end it by giving up what is its own.
 */
export function requireOwner(vnic: Vnic, domain: Domain): void {
  if (domain === vnic.domain) return;
  throw new ArrakisError(
    'ARK_NOT_PERMITTED',
    `VNIC ${vnic.name} of domain ${vnic.domain.name} was not made with so much`,
    { hint: 'its owner may widen it by its own capabilities; stay within what it has' },
  );
}

type VnicRight = keyof typeof RIGHTS.vnic;

/** True when `domain` has a capability with `right` for `vnic`. Throws ARK_NOT_PERMITTED when only the right is missing. */
export function holdsVnic(
  plane: ControlPlane,
  domain: Domain,
  vnic: Vnic,
  right: VnicRight,
): boolean {
  const object = objectOf(vnic);
  const held = plane.caps.of(domain.id).filter((c) => c.kind === 'vnic' && c.object === object);
  if (held.some((cap) => (cap.rights & RIGHTS.vnic[right]) !== 0)) return true;
  if (held.length === 0) return false;
  throw new ArrakisError('ARK_NOT_PERMITTED', `capability ${held[0]!.id} does not have ${right}`, {
    hint: 'ask whoever gave it for one that has',
  });
}

/** The VNIC that capability `id` of `domain` is for, to be opened by it. ARK_NOT_FOUND, ARK_NOT_PERMITTED. */
export function vnicOfCapability(
  plane: ControlPlane,
  domain: Domain,
  id: number,
): { vnic: Vnic; cap: Capability } {
  const cap = plane.caps.find(domain.id, id);
  const vnic = cap.kind === 'vnic' ? plane.vnics.get(Number(cap.object.slice(5))) : undefined;
  if (vnic === undefined || vnic.removed) {
    throw new ArrakisError('ARK_NOT_FOUND', `capability ${id} is for no VNIC`, {
      hint: '`arrakis cap ls` shows what it is for',
    });
  }
  if ((cap.rights & RIGHTS.vnic.open) === 0) {
    throw new ArrakisError('ARK_NOT_PERMITTED', `capability ${id} does not have open`, {
      hint: 'ask whoever gave it for one that has',
    });
  }
  return { vnic, cap };
}

/** Domain `user` opens the VNIC of another by `cap`; `onLost` runs when that goes. */
export function useVnic(
  plane: ControlPlane,
  vnic: Vnic,
  user: Domain,
  cap: Capability,
  onLost: () => void,
): VnicUser {
  const use = { domain: user, cap, forget: plane.caps.onRemove(cap, onLost) };
  vnic.user = use;
  return use;
}

/** It is used no more by another than its owner. */
export function endUse(vnic: Vnic): void {
  vnic.user?.forget();
  vnic.user = null;
}
