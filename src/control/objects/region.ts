/** Region: the memory that an open VNIC shares with its device. Made and dropped with the attachment. */
import type { ObjectTable } from './table.ts';

/** Registers the region of VNIC `vnic`; returns its id. */
export function addRegion(
  table: ObjectTable,
  owner: number,
  vnic: number,
  size: { bytes: number; frames: number },
): number {
  const detail = { vnic, ...size };
  return table.add({
    kind: 'region',
    ...table.birth(),
    owner,
    name: `vnic ${vnic} region`,
    detail: () => detail,
  }).id;
}
