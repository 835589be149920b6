/**
 * Filter: what a VNIC may receive, or send. Each is an object of its own; a change of one, or of all in a direction,
 * reaches the device in one step.
 *
 * - What is received is claimed: nobody else on the device may have any of it. What is sent by filters of its own is
 *   held against the same claims, mirrored: a VNIC sends nothing that somebody else would receive the answers to.
 * - A filter that admits every destination (to transmit: every source) says nothing of it, and is cut to the addresses
 *   of the VNIC. One that names addresses has to be covered as it stands.
 */
import { ArrakisError } from '../../base/errors.ts';
import {
  admitsEvery,
  covers,
  DIM,
  type Filter,
  intersect,
  mirrorBoxes,
  projection,
  union,
  within,
} from '../../filter/boxes.ts';
import { requireUsable } from '../../filter/build.ts';
import { formatFilter } from '../../filter/format.ts';
import { parseFilter } from '../../filter/parse.ts';
import { requireAddresses } from '../caps/authority.ts';
import type { Capability } from '../caps/space.ts';
import { needVnic, requireOwner } from '../caps/vnic-hold.ts';
import type { Attachment } from '../devices/device.ts';
import { type Call, callerOf, handler } from '../handler.ts';
import { LIMITS } from '../limits.ts';
import type { ControlPlane } from '../plane.ts';
import type { ObjectInfo } from '../protocol.ts';
import { checkClaims } from './address.ts';
import type { ControlObject, ObjectTable } from './table.ts';
import { claimsOf, findVnic, type Vnic, vnicRevoked } from './vnic.ts';
import { keepVnic } from './vnic-keeping.ts';

export type FilterDirection = 'receive' | 'transmit';

class FilterObject implements ControlObject {
  readonly kind = 'filter';
  readonly id: number;
  readonly createdMs: number;
  readonly owner: number;
  readonly #vnic: number;
  readonly #direction: FilterDirection;
  filter: Filter;

  constructor(
    birth: { id: number; createdMs: number },
    vnic: Vnic,
    direction: FilterDirection,
    filter: Filter,
  ) {
    this.id = birth.id;
    this.createdMs = birth.createdMs;
    this.owner = vnic.owner;
    this.#vnic = vnic.id;
    this.#direction = direction;
    this.filter = filter;
  }

  get name(): string {
    return formatFilter(this.filter);
  }

  detail(): ObjectInfo['detail'] {
    return { vnic: this.#vnic, direction: this.#direction, boxes: this.filter.boxes.length };
  }
}

/** Registers filters of `vnic`; returns their ids. */
export const addFilters = (
  table: ObjectTable,
  vnic: Vnic,
  direction: FilterDirection,
  filters: readonly Filter[],
): number[] =>
  filters.map((filter) => table.add(new FilterObject(table.birth(), vnic, direction, filter)).id);

/** One filter of a VNIC to be: `id` of the object that it is, or null for a new one. */
interface Entry {
  readonly id: number | null;
  readonly filter: Filter;
}

/** All filters of one direction, as they are to be; null: the mirror. */
interface Change {
  readonly vnic: Vnic;
  readonly attachment: Attachment;
  readonly direction: FilterDirection;
  readonly entries: readonly Entry[] | null;
  readonly needs: readonly Capability[];
}

/** The open VNIC whose filters the caller may change. ARK_NOT_FOUND, ARK_GONE, ARK_IN_USE. */
function findOpen(
  plane: ControlPlane,
  call: Call,
  id: number,
): { vnic: Vnic; attachment: Attachment } {
  const vnic = findVnic(plane, callerOf(call), id, 'filter');
  const { attachment, name } = vnic;
  if (attachment === null || vnic.state !== 'open') {
    throw new ArrakisError('ARK_GONE', `VNIC ${name} is not open`, { hint: 'open it first' });
  }
  if (vnic.filtering) {
    throw new ArrakisError('ARK_IN_USE', `the filters of VNIC ${name} are being changed`, {
      hint: 'ask again',
    });
  }
  return { vnic, attachment };
}

function entriesOf(vnic: Vnic, direction: FilterDirection): Entry[] {
  const [filters, ids] =
    direction === 'receive' ? [vnic.filters, vnic.filterIds] : [vnic.transmit, vnic.transmitIds];
  return (filters ?? []).map((filter, i) => ({ id: ids[i]!, filter }));
}

/** Where filter `id` of the VNIC stands. ARK_NOT_FOUND. */
function findEntry(vnic: Vnic, id: number): { direction: FilterDirection; entries: Entry[] } {
  for (const direction of ['receive', 'transmit'] as const) {
    const entries = entriesOf(vnic, direction);
    if (entries.some((entry) => entry.id === id)) return { direction, entries };
  }
  throw new ArrakisError('ARK_NOT_FOUND', `VNIC ${vnic.name} has no filter ${id}`, {
    hint: '`arrakis filter ls` lists them',
  });
}

/** What `text` means for this VNIC. ARK_BAD_ARGUMENT, ARK_LIMIT. */
function filterFor(vnic: Vnic, direction: FilterDirection, text: string): Filter {
  const filter = parseFilter(text);
  const own = direction === 'receive' ? DIM.destination : DIM.source;
  if (!admitsEvery(filter, own)) return filter;
  const side = direction === 'receive' ? 'destination' : 'source';
  const addresses = projection(vnic.granted, DIM.destination);
  return requireUsable(
    intersect(filter, union(...addresses.map((range) => within({ [side]: range })))),
  );
}

/** Decode: may the VNIC have these filters? ARK_LIMIT, ARK_NOT_PERMITTED, ARK_IN_USE, ARK_UNSUPPORTED. */
function planChange(
  plane: ControlPlane,
  call: Call,
  vnic: Vnic,
  direction: FilterDirection,
  entries: readonly Entry[],
): Capability[] {
  requireFew(vnic, entries);
  const filters = entries.map((entry) => entry.filter);
  const received = direction === 'receive' ? filters : filters.map(mirrorBoxes);
  if (direction === 'transmit') requireChecked(vnic);
  const domain = callerOf(call);
  const more = received.filter((filter) => !covers(vnic.granted, filter));
  const device = vnic.device.name;
  if (more.length > 0 && !domain.privileged) requireOwner(vnic, domain);
  const needs = domain.privileged ? [] : requireAddresses(plane, domain, device, more);
  checkClaims(received, device, claimsOf(plane), vnic.name);
  const isShared = direction === 'receive' && !vnic.addressing.ownsAddress;
  if (isShared) plane.network.requireFree(vnic.device, received, vnic);
  return needs;
}

function requireFew(vnic: Vnic, entries: readonly Entry[]): void {
  const boxes = entries.reduce((sum, { filter }) => sum + filter.boxes.length, 0);
  if (entries.length <= LIMITS.filtersPerVnicMax && boxes <= LIMITS.boxesPerVnicMax) return;
  const text = `${entries.length} filters of ${boxes} boxes for VNIC ${vnic.name}`;
  throw new ArrakisError('ARK_LIMIT', text, {
    hint: `at most ${LIMITS.filtersPerVnicMax} filters, of ${LIMITS.boxesPerVnicMax} boxes together, in a direction`,
  });
}

function requireChecked(vnic: Vnic): void {
  if (vnic.spec.mode !== 'direct') return;
  throw new ArrakisError('ARK_UNSUPPORTED', `nothing checks what VNIC ${vnic.name} sends`, {
    hint: 'open it switched: mode=switched',
  });
}

/** Invoke: the device and the objects have the change, or neither has. Returns the ids of the filters. */
async function change(plane: ControlPlane, plan: Change): Promise<readonly number[]> {
  const { vnic, attachment, direction, entries, needs } = plan;
  needVnic(plane, vnic, needs, () => vnicRevoked(plane, vnic));
  const { filters, transmit } = vnic;
  const wanted = entries?.map((entry) => entry.filter) ?? null;
  // Claimed at once, so that nobody is given an overlapping one while the device is told.
  if (direction === 'receive') vnic.filters = wanted ?? [];
  else vnic.transmit = wanted;
  vnic.filtering = true;
  try {
    await attachment.setFilters(vnic.filters, vnic.transmit);
  } catch (error) {
    // Another attachment was made with the new ones.
    if (vnic.attachment !== attachment && vnic.attachment !== null) register(plane, plan);
    else Object.assign(vnic, { filters, transmit });
    throw error;
  } finally {
    vnic.filtering = false;
  }
  if (vnic.removed) throw new ArrakisError('ARK_GONE', `VNIC ${vnic.name} was closed meanwhile`);
  const ids = register(plane, plan);
  await plane.network.occupy(vnic);
  keepVnic(plane, vnic);
  return ids;
}

/** The objects of one direction are those of the change: what stays keeps its id. */
function register(plane: ControlPlane, { vnic, direction, entries }: Change): readonly number[] {
  const { objects } = plane;
  const before = direction === 'receive' ? vnic.filterIds : vnic.transmitIds;
  const ids = (entries ?? []).map(({ id, filter }) => {
    const there = id === null ? undefined : objects.get(id);
    if (!(there instanceof FilterObject)) return addFilters(objects, vnic, direction, [filter])[0]!;
    there.filter = filter;
    return there.id;
  });
  for (const id of before) if (!ids.includes(id)) objects.remove(id);
  if (direction === 'receive') vnic.filterIds = ids;
  else vnic.transmitIds = ids;
  return ids;
}

export const add = handler(
  'filter.add',
  (plane, call, { vnic: id, direction = 'receive', text }): Change => {
    const { vnic, attachment } = findOpen(plane, call, id);
    const filter = filterFor(vnic, direction, text);
    const entries = [...entriesOf(vnic, direction), { id: null, filter }];
    const needs = planChange(plane, call, vnic, direction, entries);
    return { vnic, attachment, direction, entries, needs };
  },
  async (plane, plan) => {
    const ids = await change(plane, plan);
    return { reply: { filter: ids.at(-1)!, text: formatFilter(plan.entries!.at(-1)!.filter) } };
  },
);

export const replace = handler(
  'filter.replace',
  (plane, call, { vnic: id, filter: old, text }): Change & { id: number; filter: Filter } => {
    const { vnic, attachment } = findOpen(plane, call, id);
    const { direction, entries: before } = findEntry(vnic, old);
    const filter = filterFor(vnic, direction, text);
    const entries = before.map((entry) => (entry.id === old ? { id: old, filter } : entry));
    const needs = planChange(plane, call, vnic, direction, entries);
    return { vnic, attachment, direction, entries, needs, id: old, filter };
  },
  async (plane, plan) => {
    await change(plane, plan);
    return { reply: { filter: plan.id, text: formatFilter(plan.filter) } };
  },
);

export const remove = handler(
  'filter.remove',
  (plane, call, { vnic: id, filter }): Change => {
    const { vnic, attachment } = findOpen(plane, call, id);
    const { direction, entries } = findEntry(vnic, filter);
    const left = entries.filter((entry) => entry.id !== filter);
    return { vnic, attachment, direction, entries: left, needs: [] };
  },
  async (plane, plan) => {
    await change(plane, plan);
    return { reply: {} };
  },
);

export const set = handler(
  'filter.set',
  (plane, call, { vnic: id, direction = 'receive', filters }): Change => {
    const { vnic, attachment } = findOpen(plane, call, id);
    if (filters === null) {
      if (direction === 'receive') {
        throw new ArrakisError('ARK_BAD_ARGUMENT', 'only what is sent can mirror', {
          hint: 'give the filters to receive by; none at all is []',
        });
      }
      return { vnic, attachment, direction, entries: null, needs: [] };
    }
    const entries = filters.map((text) => ({ id: null, filter: filterFor(vnic, direction, text) }));
    const needs = planChange(plane, call, vnic, direction, entries);
    return { vnic, attachment, direction, entries, needs };
  },
  async (plane, plan) => {
    const ids = await change(plane, plan);
    const filters = (plan.entries ?? []).map(({ filter }, i) => ({
      filter: ids[i]!,
      text: formatFilter(filter),
    }));
    return { reply: { filters } };
  },
);
