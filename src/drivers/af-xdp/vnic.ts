/**
 * AF_XDP, the privileged half: a VNIC that is attached to an interface, as the control plane has it. `attach.ts` makes it.
 */
import { ArrakisError } from '../../base/errors.ts';
import type { Coalescing } from '../../device/coalescing.ts';
import { DROP, type DropReason, namedDrops } from '../../device/drops.ts';
import { type Direction, isLimited, type RateLimit } from '../../device/rate.ts';
import { setNapiDeferral } from '../../ffi/napi.ts';
import { type XskStatistics, xskStatistics } from '../../ffi/xsk.ts';
import type { Filter } from '../../filter/boxes.ts';
import type { FlowOwner } from './flows.ts';
import type { AfXdpGrant } from './grant.ts';
import { COUNT_RX, COUNT_TX } from './programs/index.ts';
import type { XdpSwitch } from './switch.ts';
import type { VethPair } from './veth.ts';

export interface XdpVnicCounters {
  rxPackets: number;
  rxBytes: number;
  /** Let out by the guard; 0 for a direct VNIC, which nobody counts. */
  txPackets: number;
  txBytes: number;
  /** In packets. */
  drops: Partial<Record<DropReason, number>>;
  /** Of all sockets together. */
  socket: XskStatistics;
  /** Of each queue pair's socket. */
  sockets: readonly XskStatistics[];
}

/** By which a queue pair's frames come and go. */
export interface Path {
  readonly socket: number;
  readonly veth: VethPair | null;
  /** Links of the programs at both ends of the veth. */
  readonly links: readonly number[];
}

export interface SavedVnic {
  readonly grant: AfXdpGrant;
  readonly owner: FlowOwner;
  /** One a queue pair; none when it is direct. */
  readonly veths: readonly VethPair[];
}

const sendsUnlimited = ({ name }: FlowOwner): ArrakisError =>
  new ArrakisError('ARK_UNSUPPORTED', `nothing stands behind what direct VNIC ${name} sends`, {
    hint: 'limit what it receives, or attach it switched (mode=switched)',
  });

const notCoalesced = ({ name }: FlowOwner): ArrakisError =>
  new ArrakisError('ARK_UNSUPPORTED', `direct VNIC ${name} has its interface's doorbell`, {
    hint: 'attach it switched (mode=switched); or coalesce for everybody: ethtool -C',
  });

/** Nothing checks what a direct VNIC sends: a filter would promise what it does not hold. */
export function refuseUnchecked(
  { kind, name }: FlowOwner,
  transmit: readonly Filter[] | null,
): void {
  if (kind !== 'direct' || transmit === null) return;
  throw new ArrakisError('ARK_UNSUPPORTED', `nothing checks what the direct VNIC ${name} sends`, {
    hint: 'attach it switched: mode=switched',
  });
}

function sumOf(all: readonly XskStatistics[]): XskStatistics {
  const sum = { ...all[0]! };
  for (const one of all.slice(1)) {
    for (const name of Object.keys(sum) as (keyof XskStatistics)[]) sum[name] += one[name];
  }
  return sum;
}

/** A VNIC attached to an interface. It owns its descriptors; send duplicates to the application. */
export class XdpVnic {
  readonly grant: AfXdpGrant;
  /** Memory, and one socket a queue pair. */
  readonly fds: readonly number[];
  readonly #paths: readonly Path[];
  readonly #owner: FlowOwner;
  readonly #switch: XdpSwitch;
  readonly #release: () => void;
  #detached = false;

  constructor(
    grant: AfXdpGrant,
    memfd: number,
    paths: readonly Path[],
    owner: FlowOwner,
    xdpSwitch: XdpSwitch,
    release: () => void,
  ) {
    this.grant = grant;
    this.fds = [memfd, ...paths.map(({ socket }) => socket)];
    this.#paths = paths;
    this.#owner = owner;
    this.#switch = xdpSwitch;
    this.#release = release;
  }

  /** Queues of the interface that its sockets are bound to; none when it is switched. */
  get directQueues(): number[] {
    const { kind, queue, queues } = this.#owner;
    return kind === 'direct' ? Array.from({ length: queues }, (_, i) => queue + i) : [];
  }

  /**
   * Replace the filters to receive by, and those to send by: null for the mirror. ARK_IN_USE, ARK_LIMIT,
   * ARK_UNSUPPORTED; on failure the old ones stay.
   */
  setFilters(filters: readonly Filter[], transmit: readonly Filter[] | null = null): void {
    this.#requireAttached();
    refuseUnchecked(this.#owner, transmit);
    this.#switch.setFilters(this.#owner, filters, transmit);
  }

  /**
   * Limit what it, or queue `queue` of it, sends or receives: frames beyond are dropped. ARK_UNSUPPORTED for what a
   * direct one sends: nothing stands behind it.
   */
  setLimit(direction: Direction, limit: RateLimit, queue: number | null = null): void {
    this.#requireAttached();
    if (direction === 'send' && this.#owner.kind === 'direct') {
      if (isLimited(limit)) throw sendsUnlimited(this.#owner);
      return;
    }
    this.#switch.setLimit(this.#owner.id, queue, direction, limit);
  }

  /**
   * Coalesce the doorbell of queue `queue`, or of all: after a frame, NAPI of the application's veth looks for more only
   * when the time is over. ARK_UNSUPPORTED for a direct VNIC, for a number of frames, and by kernels before 6.13.
   */
  setCoalescing(queue: number | null, { usecs, frames }: Coalescing): void {
    this.#requireAttached();
    if (frames !== 0) {
      throw new ArrakisError('ARK_UNSUPPORTED', 'AF_XDP coalesces by time, not by frames', {
        hint: 'set frames to 0',
      });
    }
    const deferral = { deferHardIrqs: usecs === 0 ? 0 : 1, flushTimeoutUs: usecs };
    for (const [pair, { veth }] of this.#paths.entries()) {
      if (queue !== null && queue !== pair) continue;
      if (veth === null) throw notCoalesced(this.#owner);
      setNapiDeferral(veth.applicationEnd, deferral);
    }
  }

  /** For `XdpInterface.adoptVnic`. The descriptors stay this object's. */
  save(): { state: SavedVnic; fds: number[] } {
    const veths = this.#paths.flatMap(({ veth }) => (veth === null ? [] : [veth]));
    const links = this.#paths.flatMap((path) => path.links);
    const state = { grant: this.grant, owner: this.#owner, veths };
    return { state, fds: [...this.fds, ...links] };
  }

  counters(): XdpVnicCounters {
    this.#requireAttached();
    const counts = this.#switch.counts(this.#owner.id);
    const sockets = this.fds.slice(1).map(xskStatistics);
    const socket = sumOf(sockets);
    const drops = counts.map(([packets]) => packets!);
    drops[DROP.noBuffer] = socket.rxDropped + socket.rxRingFull;
    drops[DROP.badDescriptor] = socket.rxInvalidDescs + socket.txInvalidDescs;
    const [rxPackets, rxBytes] = counts[COUNT_RX] as [number, number];
    const [txPackets, txBytes] = counts[COUNT_TX] as [number, number];
    return { rxPackets, rxBytes, txPackets, txBytes, drops: namedDrops(drops), socket, sockets };
  }

  #requireAttached(): void {
    if (this.#detached) throw new ArrakisError('ARK_GONE', `VNIC ${this.#owner.name} is detached`);
  }

  /** Take its flows away, close its descriptors, remove its interfaces. Idempotent, also when they are gone. */
  detach(): void {
    if (this.#detached) return;
    this.#detached = true;
    this.#release();
  }
}
