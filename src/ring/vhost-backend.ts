/**
 * The back-end of one vhost-user connection: the state machine that a device runs for one client.
 *
 * - Synchronous: `onReadable` handles what has arrived, at most MESSAGES_MAX messages, and returns: the device's other
 *   clients wait meanwhile.
 * - Whatever a message asks is checked before anything changes. A client that breaks the protocol loses its session.
 * - Memory is mapped only when it cannot be shrunk under us (sealed), unless the port was made for trusted clients.
 * - Kick, call and error descriptors must be eventfds: polling or writing anything else could block the device
 *   (a FUSE file's poll waits for its server; a full pipe waits for its reader).
 * - Any descriptor may arrive, and the last close of some lasts as long as their owner likes: see `closeForeign`.
 * - A ring runs from SET_VRING_KICK to GET_VRING_BASE. Descriptors that arrive are ours and closed with their ring.
 */
import { ArrakisError } from '../base/errors.ts';
import type { Arena } from '../ffi/arena.ts';
import { closeFd, closeForeign, closeStream, isEventfd, setNonBlocking } from '../ffi/fd.ts';
import { signalPeer } from '../ffi/peer-eventfd.ts';
import { receiveOutOfBandInline, sendMessage } from '../ffi/unix.ts';
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
import { refuse, type VhostMessage, VhostReceiver } from './vhost-receiver.ts';
import {
  decodeMemReg,
  decodeMemTable,
  decodeU64,
  decodeVringAddr,
  decodeVringState,
  encodeMessage,
  encodeU64,
  encodeVringState,
  FEATURE,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  featureSet,
  hasFeature,
  type MemRegion,
  PROTOCOL_FEATURE,
  REGIONS_MAX,
  REQ,
  VRING_INDEX_MASK,
  VRING_NO_FD,
  type VringAddr,
} from './vhost-user.ts';

/** Messages between two looks at the packets of all clients. */
const MESSAGES_MAX = 16;
/** Those that map or unmap memory, some 40 us a region: one is all that a client gets. */
const SLOW: ReadonlySet<number> = new Set([REQ.SET_MEM_TABLE, REQ.ADD_MEM_REG, REQ.REM_MEM_REG]);

export interface BackendOptions extends MemoryRules {
  /** Feature bits of the device beyond those that every back-end has (BASE_FEATURES). */
  features: bigint;
  queueCount: number;
  /** What GET_QUEUE_NUM says, in pairs for a network device; more than 1 offers VHOST_USER_PROTOCOL_F_MQ. Default 1. */
  queuePairs?: number;
  queueSizeMax: number;
  /** Descriptors that a chain may have; without it, as many as its ring. */
  segmentsMax?: number;
  /** What GET_CONFIG reads, when the device has a configuration space to offer. */
  config?: Uint8Array;
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

const BASE_FEATURES = featureSet(
  FEATURE.VIRTIO_F_VERSION_1,
  FEATURE.VIRTIO_RING_F_EVENT_IDX,
  FEATURE.VHOST_USER_F_PROTOCOL_FEATURES,
);
const PROTOCOL_FEATURES = featureSet(
  PROTOCOL_FEATURE.REPLY_ACK,
  PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS,
);
const CONFIG_HEADER_LEN = 12;

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

export class VhostBackend {
  readonly #fd: number;
  readonly #host: BackendHost;
  readonly #options: BackendOptions;
  readonly #offered: bigint;
  readonly #rings: Vring[];
  #memory = new GuestMemory([]);
  #features = 0n;
  #protocolFeatures = 0n;
  #closed = false;
  readonly #receiver: VhostReceiver;

  /** Serve `fd`, one end of a connected SOCK_STREAM socket. The session owns it. */
  constructor(fd: number, host: BackendHost, options: BackendOptions) {
    setNonBlocking(fd);
    receiveOutOfBandInline(fd);
    this.#fd = fd;
    this.#receiver = new VhostReceiver(fd);
    this.#host = host;
    this.#options = options;
    this.#offered = BASE_FEATURES | options.features;
    this.#rings = Array.from({ length: options.queueCount }, () => new Vring());
  }

  get fd(): number {
    return this.#fd;
  }

  /** Features that the client accepted. */
  get features(): bigint {
    return this.#features;
  }

  /** The running ring `index`, enabled or not; null when it is stopped or broken. */
  ring(index: number): SplitDevice | null {
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
  breakRing(index: number, violation: Violation): void {
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

  /**
   * Handle what has arrived, or the first of it: the socket then stays readable. Null while the session lives; otherwise the reason for its end, and the caller calls
   * `close`. Never throws for what the client did.
   */
  onReadable(): string | null {
    try {
      for (let i = 0; i < MESSAGES_MAX; i++) {
        const message = this.#receiver.next();
        if (message === 'end') return 'closed by the client';
        if (message === 'wait') return null;
        let harmless = false;
        try {
          this.#handle(message);
        } finally {
          harmless = closeForeign(message.fds);
        }
        // Memory of a trusted client may be any file.
        if (!harmless && !this.#options.allowUnsealed) refuse('a descriptor of no use here');
        if (SLOW.has(message.header.request)) break;
      }
      return null;
    } catch (error) {
      // A failed call of Node's, such as on a file that is no memory, is the client's failure as well.
      if (error instanceof ArrakisError || isCallFailure(error)) return error.message;
      throw error;
    }
  }

  /** Stop all rings, unmap the client's memory, close its descriptors and the socket. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const ring of this.#rings) this.#clear(ring);
    this.#unmap(this.#memory.regions);
    this.#memory = new GuestMemory([]);
    this.#receiver.close();
    closeStream(this.#fd);
  }

  /** Act on one message. A handler takes the descriptors that it keeps out of `fds`. */
  #handle({ header, payload, fds }: VhostMessage): void {
    const acknowledge =
      (header.flags & FLAG_NEED_REPLY) !== 0 &&
      hasFeature(this.#protocolFeatures, PROTOCOL_FEATURE.REPLY_ACK);
    try {
      const reply = this.#dispatch(header.request, payload, fds);
      if (reply !== null) this.#send(header.request, reply);
      else if (acknowledge) this.#send(header.request, encodeU64(0));
    } catch (error) {
      if (!(error instanceof ArrakisError) || !acknowledge) throw error;
      // The client asked to be told: it may go on, with nothing changed.
      this.#send(header.request, encodeU64(1));
    }
  }

  #send(request: number, payload: Uint8Array): void {
    const message = encodeMessage(request, payload, FLAG_REPLY);
    if (sendMessage(this.#fd, message) !== message.length) refuse('the client reads no replies');
  }

  /** The reply's payload, or null for requests that have none. */
  #dispatch(request: number, payload: Buffer, fds: number[]): Uint8Array | null {
    switch (request) {
      case REQ.GET_FEATURES:
        return encodeU64(this.#offered);
      case REQ.SET_FEATURES:
        return this.#setFeatures(payload);
      case REQ.GET_PROTOCOL_FEATURES:
        return encodeU64(this.#offeredProtocol);
      case REQ.SET_PROTOCOL_FEATURES: {
        const wanted = decodeU64(payload) ?? refuse('SET_PROTOCOL_FEATURES is malformed');
        if ((wanted & ~this.#offeredProtocol) !== 0n) refuse('a protocol feature was not offered');
        this.#protocolFeatures = wanted;
        return null;
      }
      case REQ.GET_QUEUE_NUM:
        return encodeU64(this.#options.queuePairs ?? 1);
      case REQ.GET_MAX_MEM_SLOTS:
        return encodeU64(REGIONS_MAX);
      case REQ.SET_OWNER:
        return null;
      case REQ.RESET_OWNER:
        for (const ring of this.#rings) this.#clear(ring);
        this.#host.ringsChanged();
        return null;
      case REQ.SET_MEM_TABLE:
        return this.#setMemory(
          decodeMemTable(payload) ?? refuse('a memory table is malformed'),
          fds,
        );
      case REQ.ADD_MEM_REG:
        return this.#addRegion(payload, fds);
      case REQ.REM_MEM_REG:
        return this.#removeRegion(payload);
      case REQ.GET_CONFIG:
        return this.#getConfig(payload);
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

  get #offeredProtocol(): bigint {
    const config = this.#options.config === undefined ? 0n : featureSet(PROTOCOL_FEATURE.CONFIG);
    const several = (this.#options.queuePairs ?? 1) > 1;
    return PROTOCOL_FEATURES | config | (several ? featureSet(PROTOCOL_FEATURE.MQ) : 0n);
  }

  #setFeatures(payload: Buffer): null {
    const wanted = decodeU64(payload) ?? refuse('SET_FEATURES is malformed');
    if ((wanted & ~this.#offered) !== 0n) refuse('a feature was not offered');
    // Without VERSION_1 the layout of headers is another; a running ring cannot change its rules.
    if (!hasFeature(wanted, FEATURE.VIRTIO_F_VERSION_1)) refuse('VIRTIO_F_VERSION_1 is required');
    if (wanted !== this.#features) for (const ring of this.#rings) this.#mustBeStopped(ring);
    this.#features = wanted;
    if (!hasFeature(wanted, FEATURE.VHOST_USER_F_PROTOCOL_FEATURES)) {
      for (const ring of this.#rings) ring.enabled = true;
    }
    return null;
  }

  #getConfig(payload: Buffer): Uint8Array {
    const config = this.#options.config;
    if (config === undefined || payload.length < CONFIG_HEADER_LEN) refuse('GET_CONFIG');
    const offset = payload.readUInt32LE(0);
    const size = payload.readUInt32LE(4);
    if (payload.length !== CONFIG_HEADER_LEN + size) refuse('GET_CONFIG is malformed');
    // What lies beyond the configuration space reads as zeros.
    const reply = Buffer.alloc(payload.length);
    payload.copy(reply, 0, 0, CONFIG_HEADER_LEN);
    reply.set(
      config.subarray(Math.min(offset, config.length), Math.min(offset + size, config.length)),
      CONFIG_HEADER_LEN,
    );
    return reply;
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
      eventIdx: hasFeature(this.#features, FEATURE.VIRTIO_RING_F_EVENT_IDX),
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

function isCallFailure(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error && 'code' in error;
}
