/** Doorbell: how the device of an open VNIC wakes the owner of one queue pair. Made and dropped with the attachment. */
import type { Coalescing } from '../../device/coalescing.ts';
import type { ObjectTable } from './table.ts';

/** Registers the doorbell of queue pair `pair` of VNIC `vnic`; returns its id. `coalescing`: how it is coalesced now. */
export function addDoorbell(
  table: ObjectTable,
  owner: number,
  vnic: number,
  pair: number,
  driver: 'virtio' | 'af-xdp',
  coalescing: () => Coalescing,
): number {
  // virtio: the application makes the eventfd and gives it to the device. AF_XDP: the socket itself polls readable.
  const source = driver === 'virtio' ? 'eventfd' : 'socket';
  return table.add({
    kind: 'doorbell',
    ...table.birth(),
    owner,
    name: `vnic ${vnic} doorbell ${pair}`,
    detail: () => {
      const { usecs, frames } = coalescing();
      return { vnic, pair, source, usecs, frames };
    },
  }).id;
}
