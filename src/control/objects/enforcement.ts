/** Who really enforces what on a VNIC, as far as device and driver allowed: what `ls` and `show` tell. */
import type { Attachment } from '../devices/device.ts';

export interface Enforcement {
  readonly [key: string]: string | null;
  /** How packets get between device and application; null while the VNIC is not open. */
  readonly dataPath: string | null;
  readonly memory: string;
  readonly receiveFilter: string;
  readonly sendFilter: string;
  readonly limits: string;
  readonly weight: string;
  /** By what several frames ring a doorbell at once. */
  readonly coalescing: string;
}

/** `isInterface`: a VNIC on a network interface (AF_XDP), `direct` or switched; otherwise on the software NIC. */
export function enforcementOf(
  attachment: Pick<Attachment, 'driver' | 'grant'> | null,
  isInterface: boolean,
  direct: boolean,
): Enforcement {
  if (!isInterface) {
    return {
      dataPath: attachment === null ? null : 'virtio rings, copied by the software NIC',
      memory: 'software NIC checks every descriptor',
      receiveFilter: 'software NIC',
      sendFilter: 'software NIC',
      limits: 'software NIC',
      weight: 'software NIC',
      coalescing: 'software NIC: by time and frames',
    };
  }
  return {
    dataPath: attachment === null ? null : afXdpPath(attachment.grant),
    memory: 'kernel (AF_XDP region)',
    receiveFilter: 'XDP program',
    // Nothing stands behind the socket of a direct VNIC.
    sendFilter: direct ? 'NOTHING' : 'XDP program',
    limits: direct ? 'XDP program; of what it sends: NOTHING' : 'XDP program',
    weight: 'NOTHING',
    coalescing: direct ? 'NOTHING: that of the interface' : 'NAPI of its veth: by time',
  };
}

function afXdpPath(grant: Record<string, unknown>): string {
  if (grant.mode === 'skb') return 'AF_XDP, generic (skb)';
  return grant.zeroCopy === true ? 'AF_XDP, zero-copy' : 'AF_XDP, copy';
}
