/** Queue: one pair of rings of an open VNIC, for one thread. Made and dropped with the attachment. */
import type { ObjectTable } from './table.ts';

/** Registers queue pair `pair` of VNIC `vnic`; returns its id. Its counters are `queue<pair>` of `stats`. */
export function addQueue(
  table: ObjectTable,
  owner: number,
  vnic: number,
  geometry: { pair: number; ringSize: number; driver: string },
): number {
  const { pair, ringSize, driver } = geometry;
  const detail = { vnic, pair, ringSize, driver };
  return table.add({
    kind: 'queue',
    ...table.birth(),
    owner,
    name: `vnic ${vnic} queue ${pair}`,
    detail: () => detail,
  }).id;
}
