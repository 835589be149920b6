/**
 * The rings of one vhost-user session, and the client's memory that they lie in.
 *
 * - Memory is mapped only when it cannot be shrunk under us (sealed), unless the port was made for trusted clients.
 * - Kick, call and error descriptors must be eventfds: polling or writing anything else could block the device
 *   (a FUSE file's poll waits for its server; a full pipe waits for its reader).
 * - A ring runs from SET_VRING_KICK to GET_VRING_BASE. Descriptors that arrive are ours and closed with their ring.
 */
import type { Arena } from '../ffi/arena.ts';
import { closeFd, isEventfd, setNonBlocking } from '../ffi/fd.ts';
import { signalPeer } from '../ffi/peer-eventfd.ts';
import {
  GuestMemory,
  locateRing,
  type MappedRegion,
  SplitDevice,
  type Violation,
  violationName,
} from './split-device.ts';
import { isRingSize } from './split-layout.ts';
import { checkTotal, type MemoryRules, mapRegion } from './vhost-backend-memory.ts';
import { refuse } from './vhost-receiver.ts';
import {
  decodeMemReg,
  decodeMemTable,
  decodeU64,
  decodeVringAddr,
  decodeVringState,
  encodeVringState,
  FEATURE,
  hasFeature,
  type MemRegion,
  REGIONS_MAX,
  REQ,
  VRING_INDEX_MASK,
  VRING_NO_FD,
  type VringAddr,
} from './vhost-user.ts';

export interface RingOptions extends MemoryRules {
  queueCount: number;
  queueSizeMax: number;
  /** Descriptors that a chain may have; without it, as many as its ring. */
  segmentsMax?: number;
  /** What runs a ring. */
  Ring?: typeof SplitDevice;
}

/** What the device process does for its sessions. */
export interface BackendHost {
  readonly arena: Arena;
  /** Wake the device when this eventfd is rung; it is never read. */
  watchKick(fd: number): void;
  unwatchKick(fd: number): void;
  /** A ring was started, stopped, enabled or broken. */
  ringsChanged(): void;
}

class Vring {
  size = 0;
  base = 0;
  addr: VringAddr | null = null;
  kickFd = -1;
  callFd = -1;
  errFd = -1;
  enabled = false;
  device: SplitDevice | null = null;
}

export class BackendRings {
  /** Features that the client accepted. */
  features = 0n;
  readonly #host: BackendHost;
  readonly #options: RingOptions;
  readonly #rings: Vring[];
  #memory = new GuestMemory([]);

  constructor(host: BackendHost, options: RingOptions) {
    this.#host = host;
    this.#options = options;
    this.#rings = Array.from({ length: options.queueCount }, () => new Vring());
  }

  /** The running ring `index`, enabled or not; null when it is stopped or broken. */
  running(index: number): SplitDevice | null {
    const device = this.#rings[index]!.device;
    return device !== null && device.violation === 0 ? device : null;
  }

  isEnabled(index: number): boolean {
    return this.#rings[index]!.enabled;
  }

  /** Where the client wants to be called for ring `index`; -1 when it polls. */
  callFd(index: number): number {
    return this.#rings[index]!.callFd;
  }

  /** Ring `index` has violated the protocol: tell its client. The rest of the session goes on. */
  break(index: number, violation: Violation): void {
    const ring = this.#rings[index]!;
    ring.device?.broken(violation);
    if (ring.errFd >= 0) signalPeer(ring.errFd);
    this.#host.ringsChanged();
  }

  /** Why ring `index` is broken; null when it is not. */
  brokenReason(index: number): string | null {
    const violation = this.#rings[index]!.device?.violation ?? 0;
    return violation === 0 ? null : violationName(violation);
  }

  /** A running ring cannot change its rules. */
  setFeatures(wanted: bigint): void {
    if (wanted !== this.features) for (const ring of this.#rings) this.#mustBeStopped(ring);
    this.features = wanted;
    if (!hasFeature(wanted, FEATURE.VHOST_USER_F_PROTOCOL_FEATURES)) {
      for (const ring of this.#rings) ring.enabled = true;
    }
  }

  /** Every ring is as a connection begins. */
  clear(): void {
    for (const ring of this.#rings) this.#clear(ring);
  }

  /** Stop all, and unmap the client's memory. */
  close(): void {
    this.clear();
    this.#unmap(this.#memory.regions);
    this.#memory = new GuestMemory([]);
  }

  /** The reply's payload, or null for requests that have none. A descriptor that is kept is taken out of `fds`. */
  dispatch(request: number, payload: Buffer, fds: number[]): Uint8Array | null {
    switch (request) {
      case REQ.SET_MEM_TABLE:
        return this.#setMemory(
          decodeMemTable(payload) ?? refuse('a memory table is malformed'),
          fds,
        );
      case REQ.ADD_MEM_REG:
        return this.#addRegion(payload, fds);
      case REQ.REM_MEM_REG:
        return this.#removeRegion(payload);
      default:
        return this.#dispatchRing(request, payload, fds);
    }
  }

  #dispatchRing(request: number, payload: Buffer, fds: number[]): Uint8Array | null {
    switch (request) {
      case REQ.SET_VRING_NUM: {
        const { ring, num } = this.#state(payload);
        if (!isRingSize(num) || num > this.#options.queueSizeMax)
          refuse(`a ring of ${num} entries`);
        this.#mustBeStopped(ring);
        ring.size = num;
        return null;
      }
      case REQ.SET_VRING_BASE: {
        const { ring, num } = this.#state(payload);
        if (num > 0xffff) refuse(`a ring base of ${num}`);
        this.#mustBeStopped(ring);
        ring.base = num;
        return null;
      }
      case REQ.SET_VRING_ADDR:
        return this.#setAddr(payload);
      case REQ.GET_VRING_BASE: {
        const { ring, index } = this.#state(payload);
        this.#stop(ring);
        this.#host.ringsChanged();
        return encodeVringState({ index, num: ring.base });
      }
      case REQ.SET_VRING_ENABLE: {
        const { ring, num } = this.#state(payload);
        if (num > 1) refuse('SET_VRING_ENABLE is 0 or 1');
        ring.enabled = num === 1;
        this.#host.ringsChanged();
        return null;
      }
      case REQ.SET_VRING_KICK:
        return this.#setKick(payload, fds);
      case REQ.SET_VRING_CALL: {
        const { ring, fd } = this.#eventFd(payload, fds);
        if (ring.callFd >= 0) closeFd(ring.callFd);
        ring.callFd = fd;
        this.#host.ringsChanged();
        return null;
      }
      case REQ.SET_VRING_ERR: {
        const { ring, fd } = this.#eventFd(payload, fds);
        if (ring.errFd >= 0) closeFd(ring.errFd);
        ring.errFd = fd;
        return null;
      }
      default:
        return refuse(`request ${request} is not supported`);
    }
  }

  #setMemory(table: readonly MemRegion[], fds: number[]): null {
    checkTotal(table, this.#options);
    if (fds.length !== table.length) refuse('a memory table comes with one descriptor a region');
    const mapped: MappedRegion[] = [];
    try {
      table.forEach((region, i) => {
        mapped.push(this.#map(region, fds[i]!));
      });
      this.#replaceMemory(mapped);
    } catch (error) {
      this.#unmap(mapped);
      throw error;
    }
    return null;
  }

  #addRegion(payload: Buffer, fds: number[]): null {
    const region = decodeMemReg(payload) ?? refuse('a memory region is malformed');
    if (fds.length !== 1) refuse('ADD_MEM_REG comes with one descriptor');
    if (this.#memory.regions.length === REGIONS_MAX) refuse('too many memory regions');
    checkTotal([...this.#memory.regions, region], this.#options);
    const mapped = this.#map(region, fds[0]!);
    this.#replaceMemory([...this.#memory.regions, mapped]);
    return null;
  }

  #removeRegion(payload: Buffer): null {
    const region = decodeMemReg(payload) ?? refuse('a memory region is malformed');
    const rest = this.#memory.regions.filter(
      (r) =>
        r.guestAddress !== region.guestAddress ||
        r.userAddress !== region.userAddress ||
        r.size !== region.size,
    );
    if (rest.length === this.#memory.regions.length) refuse('no such memory region');
    this.#replaceMemory(rest);
    return null;
  }

  #map(region: MemRegion, fd: number): MappedRegion {
    return mapRegion(this.#host.arena, region, fd, this.#options);
  }

  /** Go over to other memory. Running rings are found again in it; one that is not there, or was broken, stops. */
  #replaceMemory(regions: readonly MappedRegion[]): void {
    const before = this.#memory;
    this.#memory = new GuestMemory(regions);
    for (const ring of this.#rings) {
      if (ring.device === null) continue;
      const { violation } = ring.device;
      ring.base = ring.device.base;
      ring.device = null;
      if (violation === 0 && this.#locate(ring) !== null) this.#start(ring);
    }
    this.#unmap(before.regions.filter((region) => !regions.includes(region)));
    this.#host.ringsChanged();
  }

  #unmap(regions: readonly MappedRegion[]): void {
    for (const region of regions) this.#host.arena.unmap(region.at);
  }

  #setAddr(payload: Buffer): null {
    const addr = decodeVringAddr(payload) ?? refuse('SET_VRING_ADDR is malformed');
    const ring = this.#rings[addr.index] ?? refuse(`no ring ${addr.index}`);
    if (addr.flags !== 0) refuse('logging was not offered');
    this.#mustBeStopped(ring);
    ring.addr = addr;
    return null;
  }

  /** A kick descriptor starts the ring; "none" means that the device is to poll it. */
  #setKick(payload: Buffer, fds: number[]): null {
    const { ring, fd } = this.#eventFd(payload, fds);
    const running = ring.device !== null;
    if (!running && this.#locate(ring) === null) {
      if (fd >= 0) closeFd(fd);
      refuse('a ring is started without its size, addresses or memory');
    }
    this.#dropKick(ring);
    if (fd >= 0) {
      ring.kickFd = fd;
      this.#host.watchKick(fd);
    }
    if (!running) this.#start(ring);
    this.#host.ringsChanged();
    return null;
  }

  #locate(ring: Vring): ReturnType<typeof locateRing> {
    return ring.addr === null ? null : locateRing(this.#memory, ring.size, ring.addr);
  }

  #start(ring: Vring): void {
    const place = this.#locate(ring) ?? refuse('a ring is outside the registered memory');
    const { Ring = SplitDevice } = this.#options;
    ring.device = new Ring(this.#host.arena, this.#memory, {
      ...place,
      size: ring.size,
      base: ring.base,
      segmentsMax: this.#options.segmentsMax ?? ring.size,
      eventIdx: hasFeature(this.features, FEATURE.VIRTIO_RING_F_EVENT_IDX),
    });
  }

  #stop(ring: Vring): void {
    if (ring.device !== null) ring.base = ring.device.base;
    ring.device = null;
    this.#dropKick(ring);
  }

  #dropKick(ring: Vring): void {
    if (ring.kickFd < 0) return;
    this.#host.unwatchKick(ring.kickFd);
    closeFd(ring.kickFd);
    ring.kickFd = -1;
  }

  /** Back to how a connection begins. */
  #clear(ring: Vring): void {
    this.#stop(ring);
    if (ring.callFd >= 0) closeFd(ring.callFd);
    if (ring.errFd >= 0) closeFd(ring.errFd);
    Object.assign(ring, new Vring());
  }

  #mustBeStopped(ring: Vring): void {
    if (ring.device !== null) refuse('a running ring is changed only after GET_VRING_BASE');
  }

  #state(payload: Buffer): { ring: Vring; index: number; num: number } {
    const { index, num } = decodeVringState(payload) ?? refuse('a ring state is malformed');
    return { ring: this.#rings[index] ?? refuse(`no ring ${index}`), index, num };
  }

  /** The ring that a u64 names, and the eventfd that came with it (-1: none is to come). Takes it out of `fds`. */
  #eventFd(payload: Buffer, fds: number[]): { ring: Vring; fd: number } {
    const value = Number(decodeU64(payload) ?? refuse('a ring descriptor message is malformed'));
    const index = value % (VRING_INDEX_MASK + 1);
    const ring = this.#rings[index] ?? refuse(`no ring ${index}`);
    if (value === index + VRING_NO_FD) {
      if (fds.length !== 0) refuse('a descriptor that was not announced');
      return { ring, fd: -1 };
    }
    if (value !== index || fds.length !== 1) refuse('one descriptor comes with a ring');
    const fd = fds[0]!;
    if (!isEventfd(fd)) refuse('a ring descriptor is not an eventfd');
    setNonBlocking(fd);
    fds.length = 0;
    return { ring, fd };
  }
}
