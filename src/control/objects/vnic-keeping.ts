/** VNICs that outlive the daemon: what is noted of one, and how the next daemon goes on with it. */
import { ArrakisError } from '../../base/errors.ts';
import type { RateSetting } from '../../device/rate.ts';
import { closeAll } from '../../ffi/fd.ts';
import type { Filter } from '../../filter/boxes.ts';
import {
  endUse,
  releaseHold,
  restoreHold,
  type SavedHold,
  saveHold,
  useVnic,
} from '../caps/vnic-hold.ts';
import type { DoorbellSetting, Inherited } from '../devices/device.ts';
import type { ControlPlane } from '../plane.ts';
import type { Belongings } from '../repossess.ts';
import type { VnicSpec } from '../vnic-spec.ts';
import type { Addressing } from './address.ts';
import type { Domain } from './domain.ts';
import { addFilters } from './filter.ts';
import { addRates } from './rate.ts';
import { attached, requestOf, useRevoked, Vnic, vnicRevoked } from './vnic.ts';

/** State of a VNIC in the journal. */
export interface SavedVnic {
  readonly domain: number;
  readonly name: string;
  readonly device: string;
  readonly createdMs: number;
  readonly spec: VnicSpec;
  readonly addressing: Addressing;
  readonly filters: readonly Filter[];
  readonly transmit: readonly Filter[] | null;
  readonly rates: readonly RateSetting[];
  readonly ceilings: readonly RateSetting[];
  readonly doorbells: readonly DoorbellSetting[];
  readonly prepared: boolean;
  readonly path: string | null;
  readonly opened: number;
  readonly hold: SavedHold | null;
  /** Who has it open by a capability, when that is not its domain. */
  readonly user: { readonly domain: number; readonly cap: number } | null;
  /** What the device saved of the attachment; null when it is not open. */
  readonly attachment: object | null;
  /** What of it `holder`, a process, may have beyond its end. */
  readonly belongings: Belongings | null;
  readonly holder: number;
}

/** Note what the VNIC is. One that is neither open nor prepared is not to outlive its request. */
export function keepVnic(plane: ControlPlane, vnic: Vnic): void {
  const { attachment, domain, name, device, createdMs, spec, addressing } = vnic;
  if (vnic.removed || (attachment === null && !vnic.prepared)) {
    plane.keeping.delete('vnic', vnic.id);
    return;
  }
  const { filters, transmit, rates, ceilings, doorbells, prepared, path, opened } = vnic;
  const saved = attachment?.save() ?? null;
  const state: SavedVnic = {
    domain: domain.id,
    name,
    device: device.name,
    createdMs,
    spec,
    addressing,
    filters,
    transmit,
    rates,
    ceilings,
    doorbells,
    prepared,
    path,
    opened,
    hold: saveHold(vnic),
    user: vnic.user === null ? null : { domain: vnic.user.domain.id, cap: vnic.user.cap.id },
    attachment: saved?.state ?? null,
    belongings: attachment?.belongings ?? null,
    holder: vnic.holder,
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
  let vnic: Vnic;
  try {
    vnic = rebuild(plane, domain, id, saved);
  } catch (error) {
    // Its device, or what it existed by, is gone, and so is it.
    closeAll(fds);
    throw error;
  }
  if (saved.attachment === null) closeAll(fds);
  const adopted = saved.attachment === null ? null : adopt(plane, vnic, saved.attachment, fds);
  if (adopted === null) endUse(vnic);
  if (adopted === null && !saved.prepared) {
    releaseHold(plane, vnic, null);
    plane.keeping.delete('vnic', id);
    return;
  }
  plane.vnics.set(id, plane.objects.add(vnic));
  plane.devices.hold(vnic.device);
  vnic.filterIds = addFilters(plane.objects, vnic, 'receive', vnic.filters);
  vnic.transmitIds = addFilters(plane.objects, vnic, 'transmit', vnic.transmit ?? []);
  vnic.rateIds = addRates(plane.objects, vnic);
  adopted?.();
  keepVnic(plane, vnic);
}

/** The VNIC as it was, on its device; nobody knows of it yet. Throws when the device or a capability is not there. */
function rebuild(plane: ControlPlane, domain: Domain, id: number, saved: SavedVnic): Vnic {
  const { name, spec, addressing, createdMs, prepared } = saved;
  const device = plane.devices.require(saved.device);
  const vnic = new Vnic({ id, createdMs }, domain, { name, device, spec, addressing }, prepared);
  vnic.filters = saved.filters;
  vnic.transmit = saved.transmit;
  vnic.rates = saved.rates;
  vnic.ceilings = saved.ceilings;
  vnic.doorbells = saved.doorbells;
  vnic.opened = saved.opened;
  vnic.path = saved.path;
  try {
    restoreAuthority(plane, vnic, saved);
    return vnic;
  } catch (error) {
    releaseHold(plane, vnic, null);
    throw error;
  }
}

/** Tie it to the capabilities that it exists by and is used by. Throws ARK_GONE when they are gone. */
function restoreAuthority(plane: ControlPlane, vnic: Vnic, { hold, user }: SavedVnic): void {
  if (hold !== null) restoreHold(plane, vnic, hold, () => vnicRevoked(plane, vnic));
  if (user === null) return;
  const domain = plane.domains.get(user.domain);
  const cap = plane.caps.get(user.cap);
  if (domain === undefined || cap === undefined) {
    throw new ArrakisError('ARK_GONE', `who used VNIC ${vnic.name} is gone`);
  }
  useVnic(plane, vnic, domain, cap, () => useRevoked(plane, vnic));
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
