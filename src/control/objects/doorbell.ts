/** Doorbell: how the device of an open VNIC wakes its owner. Made and dropped with the attachment. */
import type { ObjectTable } from './table.ts';

/** Registers the doorbell of VNIC `vnic`; returns its id. */
export function addDoorbell(
  table: ObjectTable,
  owner: number,
  vnic: number,
  driver: 'virtio' | 'af-xdp',
): number {
  // virtio: the application makes the eventfd and gives it to the device. AF_XDP: the socket itself polls readable.
  const detail = { vnic, source: driver === 'virtio' ? 'eventfd' : 'socket' };
  return table.add({
    kind: 'doorbell',
    ...table.birth(),
    owner,
    name: `vnic ${vnic} doorbell`,
    detail: () => detail,
  }).id;
}
