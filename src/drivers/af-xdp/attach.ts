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
import type { XdpMode } from '../../ffi/bpf.ts';
import { getChannels, linkBitsPerSecond } from '../../ffi/ethtool.ts';
import { closeAll, closeFd } from '../../ffi/fd.ts';
import { memfdSealed } from '../../ffi/memory.ts';
import { type Link, linkByIndex, linkByName, requireLink } from '../../ffi/netlink/index.ts';
import { openXsk, XDP_PACKET_HEADROOM, xskIsZeroCopy } from '../../ffi/xsk.ts';
import type { Filter } from '../../filter/boxes.ts';
import { Cleanup } from './cleanup.ts';
import type { FlowOwner } from './flows.ts';
import {
  type AfXdpGeometry,
  type AfXdpGrant,
  checkGeometry,
  ETHERNET_HEADER_LEN,
  mtuOfFrameSize,
} from './grant.ts';
import { deliverProgram, slotOf } from './programs/index.ts';
import { type SavedSwitch, SWITCH_FDS, XdpSwitch } from './switch.ts';
import { isVethPair, makeVethPair, raiseVethPair, removeVethPair, type VethPair } from './veth.ts';
import { type HeldOffload, hidesTags, keepTags, restoreOffloads } from './vlan.ts';
import { type Path, refuseUnchecked, type SavedVnic, XdpVnic } from './vnic.ts';

export type { AfXdpGrant } from './grant.ts';
export { findStaleLinks, removeStaleLinks } from './veth.ts';
export { type SavedVnic, XdpVnic, type XdpVnicCounters } from './vnic.ts';

export interface AttachOptions extends AfXdpGeometry {
  /** For messages. */
  readonly name: string;
  /** What it receives. */
  readonly filters: readonly Filter[];
  /** What a switched VNIC sends. Default, and null: the mirror of what it receives. */
  readonly transmit?: readonly Filter[] | null;
  /** Queue pairs, each with `frameCount` frames and rings of its own. Default 1, at most 8. */
  readonly pairs?: number;
  /** First receive queue of a direct VNIC. Default 0, when the VNIC then has all of the interface's. */
  readonly queue?: number;
  /** Alias of a switched VNIC's interface: `findStaleLinks` finds it. Default `arrakis:<name>`. */
  readonly alias?: string;
}

export class XdpInterface {
  readonly index: number;
  readonly name: string;
  readonly mac: Mac;
  readonly mtu: number;
  /** Whether the steer program runs in the driver. */
  readonly mode: XdpMode;
  readonly #switch: XdpSwitch;
  readonly #offloads: readonly HeldOffload[];
  readonly #vnics = new Set<XdpVnic>();
  #closed = false;

  private constructor(link: Link, xdpSwitch: XdpSwitch, offloads: readonly HeldOffload[]) {
    this.#offloads = offloads;
    this.index = link.index;
    this.name = link.name;
    this.mac = link.mac;
    this.mtu = link.mtu;
    this.#switch = xdpSwitch;
    this.mode = xdpSwitch.mode;
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
    const offloads = keepTags(link);
    try {
      return new XdpInterface(link, XdpSwitch.open(link), offloads);
    } catch (error) {
      restoreOffloads(offloads);
      throw error;
    }
  }

  /**
   * Go on with an interface that another process had and saved. Takes over the descriptors. ARK_GONE when the
   * interface is another one by now, or down.
   */
  static adopt(name: string, saved: SavedInterface, fds: readonly number[]): XdpInterface {
    const link = linkByName(name);
    const same = link !== null && link.index === saved.index && link.mac === saved.mac && link.up;
    if (same && fds.length === SWITCH_FDS) {
      const adopted = XdpSwitch.adopt(saved.switch, link.mac, fds);
      return new XdpInterface(link, adopted, saved.offloads);
    }
    closeAll(fds);
    throw new ArrakisError('ARK_GONE', `${name} is not what it was, or down`);
  }

  /** For `adopt`. The descriptors stay this object's. */
  save(): { state: SavedInterface; fds: number[] } {
    const { state, fds } = this.#switch.save();
    const { index, mac } = this;
    return { state: { index, mac, switch: state, offloads: this.#offloads }, fds };
  }

  /** Whether VLAN tags may be hidden from the switch, which then takes a frame of a VLAN for one of none. */
  get hidesTags(): boolean {
    const link = linkByIndex(this.index);
    return link !== null && hidesTags(link);
  }

  /** Speed of the link, bits a second; null when it has none, or does not tell. */
  get bitsPerSecond(): number | null {
    return linkBitsPerSecond(this.name);
  }

  /** True while the interface exists and is up. */
  isPresent(): boolean {
    return linkByIndex(this.index)?.up ?? false;
  }

  /** A VNIC on a queue of the interface. ARK_IN_USE when the queue or a flow is taken. */
  attachDirect(options: AttachOptions): XdpVnic {
    const queue = options.queue ?? this.#allQueues(options.pairs ?? 1);
    return this.#attach(options, 'direct', queue, (geometry, pair) => {
      return { socket: this.#bind(this.index, queue + pair, geometry), veth: null, links: [] };
    });
  }

  /** A VNIC on veth pairs of its own, one a queue pair. ARK_IN_USE when a flow is taken. */
  attachSwitched(options: AttachOptions): XdpVnic {
    return this.#attach(options, 'switched', 0, (geometry, index, id) => {
      const undo = new Cleanup();
      try {
        const pair = makeVethPair(geometry.mtu, options.alias ?? `arrakis:${options.name}`);
        undo.push(() => removeVethPair(pair));
        const links = this.#program(pair, { id, index }, geometry.mtu, undo);
        raiseVethPair(pair);
        const socket = this.#bind(pair.applicationEnd, 0, geometry);
        return { socket, veth: pair, links };
      } catch (error) {
        return undo.fail(error);
      }
    });
  }

  #program(
    pair: VethPair,
    of: { id: number; index: number },
    mtu: number,
    undo: Cleanup,
  ): number[] {
    const { switchEnd, applicationEnd } = pair;
    const { id, index } = of;
    const { maps, guardMode, rules } = this.#switch;
    const frameLengthMax = mtu + ETHERNET_HEADER_LEN;
    const guard = rules.guard(id, index, frameLengthMax);
    const guardLink = this.#switch.attach('ark_guard', guard, switchEnd, guardMode);
    undo.push(() => closeFd(guardLink));
    const deliver = deliverProgram(maps, slotOf(id, index));
    const deliverLink = this.#switch.attach('ark_deliver', deliver, applicationEnd, 'native');
    undo.push(() => closeFd(deliverLink));
    return [guardLink, deliverLink];
  }

  #attach(
    options: AttachOptions,
    kind: FlowOwner['kind'],
    queue: number,
    connect: (geometry: BoundGeometry, pair: number, id: number) => Path,
  ): XdpVnic {
    if (this.#closed) throw new ArrakisError('ARK_GONE', `${this.name} was closed`);
    checkGeometry(options);
    const { frameSize, frameCount, ringSize, pairs = 1 } = options;
    const pairBytes = frameSize * frameCount;
    const regionBytes = pairBytes * pairs;
    const mtu = Math.min(this.mtu, mtuOfFrameSize(frameSize));
    const undo = new Cleanup();
    try {
      const id = this.#switch.takeId();
      undo.push(() => this.#switch.releaseId(id));
      const memfd = memfdSealed(`arrakis-${options.name}`, regionBytes);
      undo.push(() => closeFd(memfd));
      const paths: Path[] = [];
      for (let pair = 0; pair < pairs; pair++) {
        const offset = pair * pairBytes;
        const memory = { memfd, offset, regionBytes: pairBytes, frameSize, ringSize };
        const path = connect({ mtu, ...memory }, pair, id);
        this.#ownPath(undo, id, pair, path);
        this.#switch.connect(id, pair, path.socket, path.veth?.switchEnd ?? null);
        paths.push(path);
      }
      const owner: FlowOwner = { name: options.name, id, kind, queue, queues: pairs };
      undo.push(() => this.#switch.removeFilters(id));
      this.#addGuards(owner, mtu, paths);
      const { transmit = null } = options;
      refuseUnchecked(owner, transmit);
      this.#switch.setFilters(owner, options.filters, transmit);
      const grant: AfXdpGrant = {
        mac: this.mac,
        mtu,
        frameSize,
        headroom: XDP_PACKET_HEADROOM,
        frameCount,
        pairs,
        ringSize,
        regionBytes,
        mode: kind === 'direct' ? this.mode : 'native',
        zeroCopy: paths.every(({ socket }) => xskIsZeroCopy(socket)),
      };
      return this.#register(grant, memfd, paths, owner, undo);
    } catch (error) {
      return undo.fail(error);
    }
  }

  #register(
    grant: AfXdpGrant,
    memfd: number,
    paths: readonly Path[],
    owner: FlowOwner,
    undo: Cleanup,
  ): XdpVnic {
    const vnic = new XdpVnic(grant, memfd, paths, owner, this.#switch, () => {
      this.#vnics.delete(vnic);
      undo.run();
    });
    this.#vnics.add(vnic);
    return vnic;
  }

  /** The switch may exchange the guards of a switched VNIC. */
  #addGuards({ id, kind }: FlowOwner, mtu: number, paths: readonly Path[]): void {
    if (kind !== 'switched') return;
    const links = paths.map((path) => path.links[0]!);
    this.#switch.rules.addGuards(id, { links, frameLengthMax: mtu + ETHERNET_HEADER_LEN });
  }

  /** Let go of `path` when `undo` runs. */
  #ownPath(undo: Cleanup, id: number, pair: number, { socket, veth, links }: Path): void {
    if (veth !== null) undo.push(() => removeVethPair(veth));
    undo.push(() => closeAll(links));
    undo.push(() => closeFd(socket));
    undo.push(() => this.#switch.disconnect(id, pair));
  }

  /**
   * Go on with a VNIC of the interface that was adopted. Takes over the descriptors. ARK_GONE when it is not whole any
   * more; then nothing of it is left.
   */
  adoptVnic(
    filters: readonly Filter[],
    transmit: readonly Filter[] | null,
    saved: SavedVnic,
    fds: readonly number[],
  ): XdpVnic {
    const { grant, owner, veths } = saved;
    const pairs = owner.queues;
    const undo = new Cleanup();
    const linksPerPair = veths.length === 0 ? 0 : 2;
    if (fds.length !== 1 + pairs * (1 + linksPerPair) || !this.#switch.adoptId(owner.id)) {
      undo.push(() => closeAll(fds));
      return undo.fail(notWhole(owner));
    }
    undo.push(() => this.#switch.releaseId(owner.id));
    const [memfd, ...rest] = fds as [number, ...number[]];
    undo.push(() => closeFd(memfd));
    const paths: Path[] = [];
    for (let pair = 0; pair < pairs; pair++) {
      const links = rest.slice(pairs + 2 * pair, pairs + 2 * pair + linksPerPair);
      const path = { socket: rest[pair]!, veth: veths[pair] ?? null, links };
      this.#ownPath(undo, owner.id, pair, path);
      paths.push(path);
    }
    undo.push(() => this.#switch.removeFilters(owner.id));
    try {
      if (!veths.every(isVethPair)) throw notWhole(owner);
      this.#addGuards(owner, grant.mtu, paths);
      this.#switch.adoptFilters(owner, filters, transmit);
      return this.#register(grant, memfd, paths, owner, undo);
    } catch (error) {
      return undo.fail(error);
    }
  }

  /** Every VNIC that goes on was adopted: what the maps have of others goes. */
  settle(): void {
    this.#switch.settle();
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
  #allQueues(pairs: number): number {
    const queues = receiveQueues(this.name);
    if (queues <= pairs) return 0;
    const text = `${this.name} spreads its traffic over ${queues} queues; a direct VNIC has ${pairs}`;
    throw new ArrakisError('ARK_UNSUPPORTED', text, {
      hint: `attach it switched; or name the queue, and steer its flows there; or: ethtool -L ${this.name} combined ${pairs}`,
    });
  }

  /** Detach every VNIC and give the interface back to the kernel. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const undo = new Cleanup();
    undo.push(() => restoreOffloads(this.#offloads));
    undo.push(() => this.#switch.close());
    for (const vnic of this.#vnics) undo.push(() => vnic.detach());
    undo.run();
  }
}

export interface SavedInterface {
  readonly index: number;
  readonly mac: Mac;
  readonly switch: SavedSwitch;
  readonly offloads: readonly HeldOffload[];
}

const notWhole = ({ name }: FlowOwner): ArrakisError =>
  new ArrakisError('ARK_GONE', `VNIC ${name} is not whole any more`, { hint: 'open it again' });

interface BoundGeometry {
  mtu: number;
  memfd: number;
  offset: number;
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
