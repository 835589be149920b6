/** Doorbell: how the device of an open VNIC wakes the owner of one queue pair. Made and dropped with the attachment. */
import type { ObjectTable } from './table.ts';

/** Registers the doorbell of queue pair `pair` of VNIC `vnic`; returns its id. */
export function addDoorbell(
  table: ObjectTable,
  owner: number,
  vnic: number,
  pair: number,
  driver: 'virtio' | 'af-xdp',
): number {
  // virtio: the application makes the eventfd and gives it to the device. AF_XDP: the socket itself polls readable.
  const detail = { vnic, pair, source: driver === 'virtio' ? 'eventfd' : 'socket' };
  return table.add({
    kind: 'doorbell',
    ...table.birth(),
    owner,
    name: `vnic ${vnic} doorbell ${pair}`,
    detail: () => detail,
  }).id;
}
