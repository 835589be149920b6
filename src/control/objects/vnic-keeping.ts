/** VNICs that outlive the daemon: what is noted of one, and how the next daemon goes on with it. */
import { ArrakisError } from '../../base/errors.ts';
import type { FlowFilter } from '../../device/filter.ts';
import type { RateSetting } from '../../device/rate.ts';
import type { DoorbellSetting, Inherited } from '../devices/device.ts';
import type { ControlPlane } from '../plane.ts';
import type { VnicSpec } from '../vnic-spec.ts';
import type { Addressing } from './address.ts';
import type { Domain } from './domain.ts';
import { addFilters } from './filter.ts';
import { addRates } from './rate.ts';
import { attached, requestOf, Vnic } from './vnic.ts';

/** State of a VNIC in the journal. */
export interface SavedVnic {
  readonly domain: number;
  readonly name: string;
  readonly device: string;
  readonly createdMs: number;
  readonly spec: VnicSpec;
  readonly addressing: Addressing;
  readonly filters: readonly FlowFilter[];
  readonly rates: readonly RateSetting[];
  readonly ceilings: readonly RateSetting[];
  readonly doorbells: readonly DoorbellSetting[];
  readonly prepared: boolean;
  readonly path: string | null;
  readonly opened: number;
  /** What the device saved of the attachment; null when it is not open. */
  readonly attachment: object | null;
}

/** Note what the VNIC is. One that is neither open nor prepared is not to outlive its request. */
export function keepVnic(plane: ControlPlane, vnic: Vnic): void {
  const { attachment, domain, name, device, createdMs, spec, addressing } = vnic;
  if (vnic.removed || (attachment === null && !vnic.prepared)) {
    plane.keeping.delete('vnic', vnic.id);
    return;
  }
  const { filters, rates, ceilings, doorbells, prepared, path, opened } = vnic;
  const saved = attachment?.save() ?? null;
  const state: SavedVnic = {
    domain: domain.id,
    name,
    device: device.name,
    createdMs,
    spec,
    addressing,
    filters,
    rates,
    ceilings,
    doorbells,
    prepared,
    path,
    opened,
    attachment: saved?.state ?? null,
  };
  plane.keeping.put('vnic', vnic.id, state, saved?.fds ?? []);
}

/**
 * Go on with VNIC `id` of `domain`, with the descriptors that its attachment had. One that was open and cannot be any
 * more goes: the domain may open it again when it was prepared. Throws when its device is not there.
 */
export function restoreVnic(
  plane: ControlPlane,
  domain: Domain,
  id: number,
  saved: SavedVnic,
  fds: readonly number[],
): void {
  const device = plane.devices.require(saved.device);
  const { name, spec, addressing, createdMs } = saved;
  const vnic = new Vnic(
    { id, createdMs },
    domain,
    { name, device, spec, addressing },
    saved.prepared,
  );
  vnic.filters = saved.filters;
  vnic.rates = saved.rates;
  vnic.ceilings = saved.ceilings;
  vnic.doorbells = saved.doorbells;
  vnic.opened = saved.opened;
  vnic.path = saved.path;
  const adopted = saved.attachment === null ? null : adopt(plane, vnic, saved.attachment, fds);
  if (adopted === null && !saved.prepared) {
    plane.keeping.delete('vnic', id);
    return;
  }
  plane.vnics.set(id, plane.objects.add(vnic));
  plane.devices.hold(device);
  vnic.filterIds = addFilters(plane.objects, vnic.owner, id, vnic.filters);
  vnic.rateIds = addRates(plane.objects, vnic);
  adopted?.();
  keepVnic(plane, vnic);
}

/** Null when the device cannot go on with it; otherwise what makes the VNIC open. */
function adopt(
  plane: ControlPlane,
  vnic: Vnic,
  state: object,
  fds: readonly number[],
): (() => void) | null {
  const request = requestOf(vnic);
  const inherited: Inherited = { state, fds };
  try {
    const attachment = vnic.device.adopt(request, inherited);
    return () => attached(plane, vnic, request, attachment);
  } catch (error) {
    if (!(error instanceof ArrakisError)) throw error;
    const { id, name } = vnic;
    plane.log('warn', 'vnic not taken over', { vnic: id, name, error: error.message });
    return null;
  }
}
