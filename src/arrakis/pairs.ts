/**
 * The queue pairs of an open VNIC. One thread holds the session: descriptors and the connection to the device. A pair
 * is described by plain data with descriptor numbers, which are good in every thread, and is opened in the thread
 * that will own it, once.
 */
import { ArrakisError } from '../base/errors.ts';
import type { VnicInfo } from '../control/protocol.ts';
import type { NicQueue } from '../device/nic.ts';
import type { AfXdpGrant } from '../drivers/af-xdp/grant.ts';
import { AfXdpQueue, openAfXdpQueue } from '../drivers/af-xdp/queue.ts';
import type { VirtioGrant } from '../drivers/virtio/attach.ts';
import { ANSWER_TIMEOUT_MS } from '../drivers/virtio/frontend.ts';
import { openVirtioPair, VirtioQueue } from '../drivers/virtio/queue.ts';
import { startVirtio, type VirtioPair, type VirtioSession } from '../drivers/virtio/session.ts';
import { closeAll } from '../ffi/fd.ts';

/** What a thread needs to open one pair. It can be cloned; its descriptors stay the session's. */
export type PairDescription =
  | { readonly driver: 'virtio'; readonly virtio: VirtioPair }
  | {
      readonly driver: 'af-xdp';
      readonly grant: AfXdpGrant;
      readonly pair: number;
      readonly region: number;
      readonly socket: number;
    };

/** Open a pair in the calling thread, which alone may use it. ARK_IN_USE when it was opened before (AF_XDP). */
export function openPair(description: PairDescription): NicQueue {
  if (description.driver === 'virtio') return openVirtioPair(description.virtio);
  const { grant, region, socket, pair } = description;
  return openAfXdpQueue(grant, { region, socket }, pair);
}

/** The VNIC is gone: give back what of `queue` could still be used. It is closed by its owner. */
export function letGo(queue: NicQueue): void {
  if (queue instanceof AfXdpQueue) queue.letGo();
  else if (queue instanceof VirtioQueue) queue.giveUp();
}

/** The device of `queue` was replaced: its rings start anew. In the thread that owns it. */
export function resetQueue(queue: NicQueue): void {
  if (queue instanceof VirtioQueue) queue.reset();
}

export class QueueSession {
  readonly pairs: readonly PairDescription[];
  /** The device's connection where there is one: it ends with the device. */
  readonly virtio: VirtioSession | null;
  readonly #fds: readonly number[];
  #closed = false;

  constructor(
    pairs: readonly PairDescription[],
    virtio: VirtioSession | null,
    fds: readonly number[],
  ) {
    this.pairs = pairs;
    this.virtio = virtio;
    this.#fds = fds;
  }

  /** The VNIC is gone, and no queue uses the descriptors any more: only a device that ends closes its connection. */
  letGo(): void {
    if (this.virtio === null) this.close();
  }

  /** Let go of the descriptors, after every queue was closed. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.virtio?.close();
    closeAll(this.#fds);
  }
}

/** The session of a grant. Takes over `fds` (region, then sockets), also on failure. */
export function openSession(info: VnicInfo, fds: readonly number[], offload = false): QueueSession {
  const [region, ...sockets] = fds as [number, ...number[]];
  if (info.driver === 'virtio' && sockets.length === 1) {
    const grant = info.grant as unknown as VirtioGrant;
    const session = startVirtio(grant, { region, socket: sockets[0]! }, ANSWER_TIMEOUT_MS, offload);
    const pairs = session.pairs.map((virtio) => ({ driver: 'virtio' as const, virtio }));
    return new QueueSession(pairs, session, []);
  }
  const grant = info.grant as unknown as AfXdpGrant;
  if (info.driver === 'af-xdp' && sockets.length === grant.pairs) {
    const pairs = sockets.map((socket, pair) => ({
      driver: 'af-xdp' as const,
      grant,
      pair,
      region,
      socket,
    }));
    return new QueueSession(pairs, null, fds);
  }
  closeAll(fds);
  throw new ArrakisError(
    'ARK_UNSUPPORTED',
    `there is no driver "${info.driver}" here for ${sockets.length} sockets`,
    { hint: 'the daemon may be newer than this program' },
  );
}
