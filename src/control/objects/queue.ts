/** Queue: the one pair of rings of an open VNIC. Made and dropped with the attachment. */
import type { ObjectTable } from './table.ts';

/** Registers the queue of VNIC `vnic`; returns its id. */
export function addQueue(
  table: ObjectTable,
  owner: number,
  vnic: number,
  geometry: { ringSize: number; driver: string },
): number {
  const { ringSize, driver } = geometry;
  const detail = { vnic, ringSize, driver };
  return table.add({
    kind: 'queue',
    ...table.birth(),
    owner,
    name: `vnic ${vnic} queue 0`,
    detail: () => detail,
  }).id;
}
