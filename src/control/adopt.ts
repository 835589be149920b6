/**
 * Adoption: a daemon goes on with what the one before had, which was killed.
 *
 *   ids, capabilities ─► devices, placements ─► domains ─► VNICs ─► regions, endpoints, names ─► `resumed` to every domain
 *
 * - Synchronous: no request is served, and no end of a connection noticed, before everything is in its place.
 * - What does not fit together is given up: an object without its domain, a VNIC without its device or descriptors. The
 *   sockets of a direct one then have to come back.
 */
import { ArrakisError } from '../base/errors.ts';
import { sweepCapabilities } from './caps/keeping.ts';
import type { Port } from './devices/kernel-sockets.ts';
import type { JournalId } from './journal.ts';
import type { Claimed, Safekeeping } from './keeping.ts';
import type { Domain, SavedDomain } from './objects/domain.ts';
import { adoptSharing } from './objects/sharing-keeping.ts';
import { restoreVnic, type SavedVnic } from './objects/vnic-keeping.ts';
import type { ControlPlane } from './plane.ts';

/** The first id that no daemon before has used. */
export const firstId = (keeping: Safekeeping): number =>
  (keeping.claim('ids', 'objects')?.state as { next: number } | undefined)?.next ?? 1;

/** Counts the daemons that went on with one another; noted for the next. */
export function nextIncarnation(keeping: Safekeeping): number {
  const before = keeping.claim('daemon', 'self')?.state as { incarnation: number } | undefined;
  const incarnation = (before?.incarnation ?? 0) + 1;
  keeping.put('daemon', 'self', { incarnation });
  return incarnation;
}

/** Interfaces, domains and VNICs of the daemon before. The software NIC has been made with its process already. */
export function adoptAll(plane: ControlPlane, keeping: Safekeeping): void {
  for (const name of keeping.unclaimed('device')) adoptDevice(plane, keeping, name);
  for (const who of keeping.unclaimed('placement')) {
    const { cpus } = keeping.claim('placement', who)!.state as { cpus: number[] };
    plane.placement.remember(String(who), cpus);
  }
  for (const id of keeping.unclaimed('domain')) adoptDomain(plane, keeping, Number(id));
  plane.repossessions.resume(keeping);
  for (const id of keeping.unclaimed('vnic')) adoptVnic(plane, keeping, Number(id));
  for (const id of keeping.unclaimed('ports')) adoptPorts(plane, keeping, Number(id));
  adoptSharing(plane, keeping);
  sweepCapabilities(plane);
  plane.objects.sort();
}

/** Tell the domains, once everything is in its place. */
export function announceResumed(plane: ControlPlane): void {
  const { pid, version } = plane;
  for (const domain of plane.domains.values()) {
    const own = [...plane.vnics.values()].filter(
      (vnic) => vnic.opener === domain && vnic.state === 'open' && !vnic.foreign,
    );
    domain.event('resumed', { pid, version, vnics: own.map((vnic) => vnic.id) });
  }
}

function adoptDevice(plane: ControlPlane, keeping: Safekeeping, id: JournalId): void {
  const name = String(id);
  if (plane.devices.has(name)) return;
  take(plane, keeping, 'device', id, 1, ({ state, fds }) => {
    plane.devices.adopt(name, (state as { keep: boolean }).keep, { state, fds });
  });
}

function adoptDomain(plane: ControlPlane, keeping: Safekeeping, id: number): void {
  take(plane, keeping, 'domain', id, 1, ({ state, fds }) => {
    const domain = plane.restoreDomain(id, state as SavedDomain);
    plane.host.adoptChannel(fds[0]!, domain);
  });
}

function adoptVnic(plane: ControlPlane, keeping: Safekeeping, id: number): void {
  const saved = keeping.peek('vnic', id) as SavedVnic;
  const domain: Domain | undefined =
    saved.domain === plane.self.id ? plane.self : plane.domains.get(saved.domain);
  // Of a daemon that was killed while it took it away, the VNIC is still noted.
  const { belongings } = saved;
  const isLeaving = belongings !== null && plane.repossessions.has(belongings);
  const kept = isLeaving ? { ...saved, attachment: null } : saved;
  if (domain !== undefined) {
    take(plane, keeping, 'vnic', id, 0, ({ fds }) => restoreVnic(plane, domain, id, kept, fds));
  }
  const isOpen = (plane.vnics.get(id)?.attachment ?? null) !== null;
  if (belongings !== null && !isOpen) plane.repossessions.begin(belongings, saved.holder);
}

/** Kernel ports that were occupied for a VNIC. They are free again when it is no more. */
function adoptPorts(plane: ControlPlane, keeping: Safekeeping, id: number): void {
  const vnic = plane.vnics.get(id);
  if (vnic === undefined) return;
  take(plane, keeping, 'ports', id, 0, ({ state, fds }) => {
    plane.network.adopt(vnic, (state as { ports: Port[] }).ports, fds);
  });
}

/** One object that cannot be adopted is no reason to give up the others. */
function take(
  plane: ControlPlane,
  keeping: Safekeeping,
  kind: string,
  id: JournalId,
  fdsMin: number,
  adopt: (claimed: Claimed) => void,
): void {
  const claimed = keeping.claim(kind, id, fdsMin);
  if (claimed === null) return;
  try {
    adopt(claimed);
  } catch (error) {
    if (!(error instanceof ArrakisError)) throw error;
    keeping.delete(kind, id);
    plane.log('warn', 'not taken over', { kind, id, error: error.message });
  }
}
