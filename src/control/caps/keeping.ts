/** Capabilities that outlive the daemon: noted one by one as they come and go, and made a forest again by the next. */
import type { Keeping, Safekeeping } from '../keeping.ts';
import { LIMITS } from '../limits.ts';
import type { ControlPlane } from '../plane.ts';
import type { CapObserver, CapSnapshot, SavedCapability } from './space.ts';
import { dropCapability, dropHolderOf } from './withdraw.ts';

/** Notes every change of a space. */
export function capabilityKeeping(keeping: Keeping): CapObserver {
  // Ids below are noted as used, so that the next daemon gives out none of them again.
  let reserved = 0;
  return {
    added: (saved) => {
      if (saved.id >= reserved) {
        reserved = saved.id + LIMITS.idsReserved;
        keeping.put('ids', 'caps', { next: reserved });
      }
      keeping.put('cap', saved.id, saved);
    },
    removed: (id) => keeping.delete('cap', id),
  };
}

/** The space of the daemon before. What was derived from a capability that is lost is lost with it. */
export function savedCapabilities(
  keeping: Pick<Safekeeping, 'claim' | 'peek' | 'unclaimed'>,
): CapSnapshot {
  const next = keeping.claim('ids', 'caps')?.state as { next: number } | undefined;
  const ids = keeping.unclaimed('cap').map(Number);
  const capabilities: SavedCapability[] = [];
  const known = new Set<number | null>([null]);
  for (const id of ids.sort((a, b) => a - b)) {
    const saved = keeping.peek('cap', id) as SavedCapability;
    if (!known.has(saved.parent) || next === undefined || id >= next.next) continue;
    keeping.claim('cap', id);
    known.add(id);
    capabilities.push(saved);
  }
  return { nextId: next?.next ?? 1, capabilities };
}

/** After everything was adopted: capabilities whose holder or object has not come along go. */
export function sweepCapabilities(plane: ControlPlane): void {
  const { caps, domains, vnics, objects, names } = plane;
  for (const cap of [...caps.all()]) {
    if (!caps.has(cap)) continue;
    const [kind, id] = cap.object.split(':');
    const isGone =
      (cap.kind === 'vnic' && kind === 'vnic' && !vnics.has(Number(id))) ||
      (cap.kind === 'region' && objects.get(Number(id)) === undefined) ||
      (cap.kind === 'endpoint' && objects.get(Number(id)) === undefined) ||
      // By number only: its number may become another one's. One of the policy is a path.
      (cap.kind === 'directory' &&
        kind === 'directory' &&
        names.tree.directory(Number(id)) === undefined);
    if (cap.holder !== 0 && !domains.has(cap.holder)) dropHolderOf(plane, cap.holder);
    else if (isGone) dropCapability(plane, cap, null);
  }
}
