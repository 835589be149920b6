/** Filter: what a VNIC may receive and send. Filters of a VNIC are replaced together. */
import { ArrakisError } from '../../base/errors.ts';
import { type FlowFilter, formatFilter } from '../../device/filter.ts';
import { requireAddresses } from '../caps/authority.ts';
import { needVnic } from '../caps/vnic-hold.ts';
import { callerOf, handler } from '../handler.ts';
import type { ControlPlane } from '../plane.ts';
import { checkClaims, covered } from './address.ts';
import type { ObjectTable } from './table.ts';
import { claimsOf, findVnic, type Vnic, vnicRevoked } from './vnic.ts';
import { keepVnic } from './vnic-keeping.ts';

/** Registers the filters of VNIC `vnic`; returns their ids. */
export function addFilters(
  table: ObjectTable,
  owner: number,
  vnic: number,
  filters: readonly FlowFilter[],
): number[] {
  return filters.map((filter) => {
    const { address, portFirst, portLast, protocol } = filter;
    const detail = { vnic, protocol, address, portFirst, portLast };
    return table.add({
      kind: 'filter',
      ...table.birth(),
      owner,
      name: formatFilter(filter),
      detail: () => detail,
    }).id;
  });
}

function replaceFilterObjects(
  plane: ControlPlane,
  vnic: Vnic,
  filters: readonly FlowFilter[],
): void {
  for (const id of vnic.filterIds) plane.objects.remove(id);
  vnic.filters = filters;
  vnic.filterIds = addFilters(plane.objects, vnic.owner, vnic.id, filters);
}

export const setFilters = handler(
  'filter.set',
  (plane, call, { vnic: id, filters }) => {
    const domain = callerOf(call);
    const vnic = findVnic(plane, domain, id, 'filter');
    if (vnic.attachment === null || vnic.state !== 'open') {
      throw new ArrakisError('ARK_GONE', `VNIC ${vnic.name} is not open`, {
        hint: 'open it first',
      });
    }
    const more = filters.filter((filter) => !covered(filter, vnic.granted));
    const needs = domain.privileged ? [] : requireAddresses(plane, domain, vnic.device.name, more);
    checkClaims(filters, vnic.device.name, claimsOf(plane), vnic.name);
    return { vnic, attachment: vnic.attachment, filters, needs };
  },
  async (plane, { vnic, attachment, filters, needs }) => {
    needVnic(plane, vnic, needs, () => vnicRevoked(plane, vnic));
    // Claimed at once, so that nobody is given an overlapping one while the device is told.
    const before = vnic.filters;
    replaceFilterObjects(plane, vnic, filters);
    try {
      await attachment.setFilters(filters);
    } catch (error) {
      if (vnic.attachment === attachment) replaceFilterObjects(plane, vnic, before);
      throw error;
    }
    keepVnic(plane, vnic);
    return { reply: {} };
  },
);
