/**
 * VLAN tags in sight of the programs. A tag that an interface takes off, or has its peer put on, travels beside the frame:
 * XDP then sees a frame of a VLAN as one without, and would give it to a VNIC of the untagged network.
 *
 * - `rx-vlan-offload` of the interface: a NIC takes the tag off. It is turned off while the switch is there.
 * - `tx-vlan-offload` of a veth's peer: the sender's kernel leaves the tag to the "hardware", which is us. It is turned
 *   off where the peer is in our namespace; elsewhere it is up to whoever has it (docs/af-xdp.md, `arrakis doctor`).
 */
import { isErrno } from '../../base/errors.ts';
import { getVlanOffload, setVlanOffload, type VlanOffload } from '../../ffi/ethtool.ts';
import { type Link, linkByIndex } from '../../ffi/netlink/index.ts';

/** Offloads that were turned off, by index of the interface: to be turned on again. */
export interface HeldOffload {
  readonly ifIndex: number;
  readonly offload: VlanOffload;
}

/** Have tags stay in the frames that `link` receives. Give what it returns to `restoreOffloads`. */
export function keepTags(link: Link): HeldOffload[] {
  const held: HeldOffload[] = [];
  const hold = (of: Link, offload: VlanOffload): void => {
    if (turn(of, offload, false)) held.push({ ifIndex: of.index, offload });
  };
  hold(link, 'receive');
  const peer =
    link.kind === 'veth' && !link.peerIsForeign ? linkByIndex(link.peerIndex ?? 0) : null;
  if (peer !== null) hold(peer, 'transmit');
  return held;
}

/** An interface that is gone has nothing to restore. */
export function restoreOffloads(held: readonly HeldOffload[]): void {
  for (const { ifIndex, offload } of held) {
    const link = linkByIndex(ifIndex);
    if (link !== null) turn(link, offload, true);
  }
}

/** Whether tags may be hidden from programs at `link`, as far as can be seen from here. */
export function hidesTags(link: Link): boolean {
  // A veth takes nothing off.
  if (link.kind !== 'veth') return isOn(link, 'receive');
  const peer = link.peerIsForeign ? null : linkByIndex(link.peerIndex ?? 0);
  return peer !== null && isOn(peer, 'transmit');
}

function isOn({ name }: Link, offload: VlanOffload): boolean {
  try {
    return getVlanOffload(name, offload);
  } catch {
    return false;
  }
}

/** True when it was the other way before, and is as asked now. Some drivers have it fixed, others have none. */
function turn(link: Link, offload: VlanOffload, on: boolean): boolean {
  if (isOn(link, offload) === on) return false;
  try {
    setVlanOffload(link.name, offload, on);
  } catch (error) {
    if (isErrno(error, 'EOPNOTSUPP', 'EINVAL')) return false;
    throw error;
  }
  return isOn(link, offload) === on;
}
