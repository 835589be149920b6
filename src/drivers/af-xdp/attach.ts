/**
 * AF_XDP, the privileged half: an interface with the embedded switch on it, and the VNICs attached to it.
 *
 * - direct: the application's socket sits on a queue of the interface. Nothing checks what it sends, and a process
 *   that keeps its socket can send on it after `detach`: for trusted domains only.
 * - switched: the socket sits on a veth of its own; the guard program at the other end checks what it sends.
 * - Every call acts in the network namespace of the calling thread, which has to be the interface's.
 */
import type { Mac } from '../../base/address.ts';
import { ArrakisError, isErrno } from '../../base/errors.ts';
import { DROP, type DropReason, namedDrops } from '../../device/drops.ts';
import type { FlowFilter } from '../../device/filter.ts';
import type { XdpMode } from '../../ffi/bpf.ts';
import { getChannels } from '../../ffi/ethtool.ts';
import { closeFd } from '../../ffi/fd.ts';
import { memfdSealed } from '../../ffi/memory.ts';
import { type Link, linkByIndex, requireLink } from '../../ffi/netlink/index.ts';
import {
  openXsk,
  XDP_PACKET_HEADROOM,
  type XskStatistics,
  xskIsZeroCopy,
  xskStatistics,
} from '../../ffi/xsk.ts';
import type { FlowOwner } from './flows.ts';
import {
  type AfXdpGeometry,
  type AfXdpGrant,
  checkGeometry,
  ETHERNET_HEADER_LEN,
  mtuOfFrameSize,
} from './grant.ts';
import { COUNT_RX, COUNT_TX, deliverProgram, guardProgram } from './programs/index.ts';
import { XdpSwitch } from './switch.ts';
import { makeVethPair, raiseVethPair, removeVethPair } from './veth.ts';

export type { AfXdpGrant } from './grant.ts';
export { findStaleLinks, removeStaleLinks } from './veth.ts';

export interface AttachOptions extends AfXdpGeometry {
  /** For messages. */
  readonly name: string;
  readonly filters: readonly FlowFilter[];
  /** Receive queue of a direct VNIC. Default 0, when the interface has no other. */
  readonly queue?: number;
  /** Alias of a switched VNIC's interface: `findStaleLinks` finds it. Default `arrakis:<name>`. */
  readonly alias?: string;
}

export interface XdpVnicCounters {
  rxPackets: number;
  rxBytes: number;
  /** Let out by the guard; 0 for a direct VNIC, which nobody counts. */
  txPackets: number;
  txBytes: number;
  /** In packets. */
  drops: Partial<Record<DropReason, number>>;
  socket: XskStatistics;
}

/** Undo what was done, last first. Every step is tried; the first failure is thrown at the end. */
class Cleanup {
  readonly #steps: (() => void)[] = [];

  push(step: () => void): void {
    this.#steps.push(step);
  }

  run(): void {
    let failure: unknown;
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        step();
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  }

  /** Undo because of `error`, and throw that, whatever else goes wrong. */
  fail(error: unknown): never {
    try {
      this.run();
    } catch {
      // The first failure is the one that explains the others.
    }
    throw error;
  }
}

export class XdpInterface {
  readonly index: number;
  readonly name: string;
  readonly mac: Mac;
  readonly mtu: number;
  /** Whether the steer program runs in the driver. */
  readonly mode: XdpMode;
  readonly #switch: XdpSwitch;
  readonly #vnics = new Set<XdpVnic>();
  #closed = false;

  private constructor(link: Link) {
    this.index = link.index;
    this.name = link.name;
    this.mac = link.mac;
    this.mtu = link.mtu;
    this.#switch = new XdpSwitch(link);
    this.mode = this.#switch.mode;
  }

  /**
   * Put the switch on an interface. ARK_NOT_FOUND, ARK_GONE when it is down, ARK_UNSUPPORTED when it is not
   * Ethernet, ARK_IN_USE when it has another XDP program.
   */
  static open(name: string): XdpInterface {
    const link = requireLink(name);
    if (link.mac === 0) {
      throw new ArrakisError('ARK_UNSUPPORTED', `${name} is not an Ethernet interface`, {
        hint: 'choose one with a MAC address; `arrakis doctor` lists them',
      });
    }
    if (!link.up) {
      throw new ArrakisError('ARK_GONE', `${name} is down`, { hint: `ip link set ${name} up` });
    }
    return new XdpInterface(link);
  }

  /** True while the interface exists and is up. */
  isPresent(): boolean {
    return linkByIndex(this.index)?.up ?? false;
  }

  /** A VNIC on a queue of the interface. ARK_IN_USE when the queue or a flow is taken. */
  attachDirect(options: AttachOptions): XdpVnic {
    const queue = options.queue ?? this.#onlyQueue();
    return this.#attach(options, 'direct', queue, (geometry) => {
      const socket = this.#bind(this.index, queue, geometry);
      return { socket, veth: null, close: () => {} };
    });
  }

  /** A VNIC on a veth pair of its own. ARK_IN_USE when a flow is taken. */
  attachSwitched(options: AttachOptions): XdpVnic {
    return this.#attach(options, 'switched', 0, (geometry, id) => {
      const undo = new Cleanup();
      try {
        const pair = makeVethPair(geometry.mtu, options.alias ?? `arrakis:${options.name}`);
        undo.push(() => removeVethPair(pair));
        this.#program(pair.switchEnd, pair.applicationEnd, id, geometry.mtu, undo);
        raiseVethPair(pair);
        const socket = this.#bind(pair.applicationEnd, 0, geometry);
        return { socket, veth: pair.switchEnd, close: () => undo.run() };
      } catch (error) {
        return undo.fail(error);
      }
    });
  }

  #program(switchEnd: number, applicationEnd: number, id: number, mtu: number, undo: Cleanup) {
    const { maps, guardMode } = this.#switch;
    const frameLengthMax = mtu + ETHERNET_HEADER_LEN;
    const guard = guardProgram(maps, { id, mac: this.mac, frameLengthMax });
    const guardLink = this.#switch.attach('ark_guard', guard, switchEnd, guardMode);
    undo.push(() => closeFd(guardLink));
    const deliver = deliverProgram(maps, id);
    const deliverLink = this.#switch.attach('ark_deliver', deliver, applicationEnd, 'native');
    undo.push(() => closeFd(deliverLink));
  }

  #attach(
    options: AttachOptions,
    kind: FlowOwner['kind'],
    queue: number,
    connect: (
      geometry: BoundGeometry,
      id: number,
    ) => { socket: number; veth: number | null; close: () => void },
  ): XdpVnic {
    if (this.#closed) throw new ArrakisError('ARK_GONE', `${this.name} was closed`);
    checkGeometry(options);
    const { frameSize, frameCount, ringSize } = options;
    const regionBytes = frameSize * frameCount;
    const mtu = Math.min(this.mtu, mtuOfFrameSize(frameSize));
    const undo = new Cleanup();
    try {
      const id = this.#switch.takeId();
      undo.push(() => this.#switch.releaseId(id));
      const memfd = memfdSealed(`arrakis-${options.name}`, regionBytes);
      undo.push(() => closeFd(memfd));
      const made = connect({ mtu, memfd, regionBytes, frameSize, ringSize }, id);
      undo.push(made.close);
      undo.push(() => closeFd(made.socket));
      this.#switch.connect(id, made.socket, made.veth);
      undo.push(() => this.#switch.disconnect(id));
      const owner: FlowOwner = { name: options.name, id, kind, queue };
      undo.push(() => this.#switch.flows.remove(id));
      this.#switch.flows.set(owner, options.filters);
      const grant: AfXdpGrant = {
        mac: this.mac,
        mtu,
        frameSize,
        headroom: XDP_PACKET_HEADROOM,
        frameCount,
        ringSize,
        regionBytes,
        mode: kind === 'direct' ? this.mode : 'native',
        zeroCopy: xskIsZeroCopy(made.socket),
      };
      const vnic = new XdpVnic(grant, [memfd, made.socket], owner, this.#switch, () => {
        this.#vnics.delete(vnic);
        undo.run();
      });
      this.#vnics.add(vnic);
      return vnic;
    } catch (error) {
      return undo.fail(error);
    }
  }

  #bind(ifIndex: number, queue: number, geometry: BoundGeometry): number {
    try {
      return openXsk({ ifIndex, queue, ...geometry });
    } catch (error) {
      if (isErrno(error, 'EBUSY')) {
        const text = `queue ${queue} of ${this.name} is taken by another AF_XDP socket`;
        const hint = 'attach the VNIC switched, or choose another queue';
        throw new ArrakisError('ARK_IN_USE', text, { hint, cause: error });
      }
      throw error;
    }
  }

  /** A socket hears one queue; flows that the interface spreads over others would be missed. */
  #onlyQueue(): number {
    const queues = receiveQueues(this.name);
    if (queues <= 1) return 0;
    const text = `${this.name} spreads its traffic over ${queues} queues; a direct VNIC has one`;
    throw new ArrakisError('ARK_UNSUPPORTED', text, {
      hint: `attach it switched; or name the queue, and steer its flows there; or: ethtool -L ${this.name} combined 1`,
    });
  }

  /** Detach every VNIC and give the interface back to the kernel. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const undo = new Cleanup();
    undo.push(() => this.#switch.close());
    for (const vnic of this.#vnics) undo.push(() => vnic.detach());
    undo.run();
  }
}

interface BoundGeometry {
  mtu: number;
  memfd: number;
  regionBytes: number;
  frameSize: number;
  ringSize: number;
}

function receiveQueues(name: string): number {
  try {
    const { rx, combined } = getChannels(name);
    return rx + combined;
  } catch (error) {
    if (isErrno(error, 'EOPNOTSUPP')) return 1;
    throw error;
  }
}

/** A VNIC attached to an interface. It owns its descriptors; send duplicates to the application. */
export class XdpVnic {
  readonly grant: AfXdpGrant;
  /** Memory and socket. */
  readonly fds: readonly [number, number];
  readonly #owner: FlowOwner;
  readonly #switch: XdpSwitch;
  readonly #release: () => void;
  #detached = false;

  constructor(
    grant: AfXdpGrant,
    fds: readonly [number, number],
    owner: FlowOwner,
    xdpSwitch: XdpSwitch,
    release: () => void,
  ) {
    this.grant = grant;
    this.fds = fds;
    this.#owner = owner;
    this.#switch = xdpSwitch;
    this.#release = release;
  }

  /** Replace the filters. ARK_IN_USE, ARK_LIMIT; on failure the old ones stay. */
  setFilters(filters: readonly FlowFilter[]): void {
    this.#requireAttached();
    this.#switch.flows.set(this.#owner, filters);
  }

  counters(): XdpVnicCounters {
    this.#requireAttached();
    const counts = this.#switch.counts(this.#owner.id);
    const socket = xskStatistics(this.fds[1]);
    const drops = counts.map(([packets]) => packets!);
    drops[DROP.noBuffer] = socket.rxDropped + socket.rxRingFull;
    drops[DROP.badDescriptor] = socket.rxInvalidDescs + socket.txInvalidDescs;
    const [rxPackets, rxBytes] = counts[COUNT_RX] as [number, number];
    const [txPackets, txBytes] = counts[COUNT_TX] as [number, number];
    return { rxPackets, rxBytes, txPackets, txBytes, drops: namedDrops(drops), socket };
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
