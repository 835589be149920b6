/**
 * One port of the software NIC: the device end of one VNIC, as policy and counters. Its rings are in pair.ts, one
 * object a queue pair, and a flow of frames stays on one pair (device/flow-hash.ts).
 */
import type { Mac } from '../base/address.ts';
import type { Coalescing } from '../device/coalescing.ts';
import { DROP, DROP_REASONS, namedDrops } from '../device/drops.ts';
import { pairOfHash } from '../device/flow-hash.ts';
import type { RateSetting } from '../device/rate.ts';
import type { Arena } from '../ffi/arena.ts';
import { type BackendHost, VhostBackend } from '../ring/vhost-backend.ts';
import { FEATURE, featureSet } from '../ring/vhost-user.ts';
import { ETH_HEADER_LEN, type FilterSet, type FrameFields } from './match.ts';
import type { Offload, Staging } from './offload.ts';
import type { Pace } from './pace.ts';
import { ANY_BYTES, type QueuePair } from './pair.ts';
import { NIC_PARTS, type NicParts } from './parts.ts';
import { type Pacer, pacerOf } from './rate.ts';
import { type Room, Scheduler, type Sender } from './schedule.ts';

const QUEUE_SIZE_MAX = 4096;
/** Chains taken from one port, all its pairs together, before the next port has its turn. */
const BATCH = 64;
/** A chain of more descriptors than this is nothing that a network driver makes: each costs a walk and a copy. */
const SEGMENTS_MAX = 64;
/** Descriptors after which a port's turn ends, even before its batch: header and frame of every chain. */
const DESCRIPTORS_PER_TURN = 2 * BATCH;

/** Where a port brings the frames that its VNIC sends: `length` bytes at the arena offset `at`. */
export interface FrameSink {
  fromPort(port: Port, at: number, length: number, offload: Offload): void;
}

/** What a driver may leave to the device, and what it may take unfinished. */
const OFFLOADS = featureSet(
  FEATURE.VIRTIO_NET_F_CSUM,
  FEATURE.VIRTIO_NET_F_HOST_TSO4,
  FEATURE.VIRTIO_NET_F_HOST_TSO6,
  FEATURE.VIRTIO_NET_F_GUEST_CSUM,
  FEATURE.VIRTIO_NET_F_GUEST_TSO4,
  FEATURE.VIRTIO_NET_F_GUEST_TSO6,
  FEATURE.VIRTIO_NET_F_MRG_RXBUF,
);

export type PortState = 'up' | 'down' | 'broken';

export interface PortOptions {
  id: number;
  mac: Mac;
  filters: FilterSet;
  mtu: number;
  /** Queue pairs that its driver may run; default 1. */
  pairs?: number;
  allowUnsealed: boolean;
  /** Bytes that the client may map. */
  regionBytes?: number | undefined;
  /** A listening socket for clients to connect to, which the port owns; -1 when it serves one connection. */
  listenFd: number;
  /** Where it listens; empty when it does not. */
  listenPath: string;
  /** Default: NIC_PARTS. */
  parts?: NicParts;
}

/** What is left of a port's share in one turn, for its pairs. */
class Share implements Room {
  roomBytes = 0;

  get open(): boolean {
    return this.roomBytes > 0;
  }

  charge(bytes: number): void {
    this.roomBytes -= bytes;
  }
}

export class Port implements Sender<FrameSink> {
  readonly id: number;
  readonly frameLengthMax: number;
  readonly listenFd: number;
  readonly listenPath: string;
  readonly mac: Mac;
  filters: FilterSet;
  session: VhostBackend | null = null;
  /** Frames that the switch let out, of all pairs. */
  txPackets = 0;
  txBytes = 0;
  readonly drops = new Float64Array(DROP_REASONS.length);
  state: PortState = 'down';
  reason = 'no driver is connected';
  readonly pairs: readonly QueuePair[];
  /** Share of what is contended for, beside the other ports. */
  weight = 1;
  deficit = 0;

  readonly #allowUnsealed: boolean;
  readonly #regionBytes: number | undefined;
  readonly #parts: NicParts;
  /** The pairs that receive now: frames are spread over these. */
  #receivers: readonly QueuePair[] = [];
  /** The one of them, where there is one: most ports have no others. */
  #only: QueuePair | null = null;
  readonly #pace: Pace;
  /** Limits of the VNIC, which its pairs share. */
  #sendPacer: Pacer | null = null;
  #receivePacer: Pacer | null = null;
  /** Divides what the port may send among pairs of different weights; null: they take turns. */
  #scheduler: Scheduler | null = null;
  readonly #share = new Share();
  /** Where the next turn begins, so that no pair is always first. */
  #first = 0;

  constructor(arena: Arena, staging: Staging, pace: Pace, options: PortOptions) {
    this.#pace = pace;
    this.id = options.id;
    this.filters = options.filters;
    this.frameLengthMax = options.mtu + ETH_HEADER_LEN;
    this.listenFd = options.listenFd;
    this.listenPath = options.listenPath;
    this.mac = options.mac;
    this.#allowUnsealed = options.allowUnsealed;
    this.#regionBytes = options.regionBytes;
    this.#parts = options.parts ?? NIC_PARTS;
    this.pairs = Array.from(
      { length: options.pairs ?? 1 },
      (_, index) => new this.#parts.Pair(this, index, arena, staging, pace),
    );
  }

  /** Serve the driver at the other end of `fd`, which the port owns from now on. */
  connect(fd: number, host: BackendHost): void {
    const { length } = this.pairs;
    this.session = new VhostBackend(fd, host, {
      features: OFFLOADS | (length > 1 ? featureSet(FEATURE.VIRTIO_NET_F_MQ) : 0n),
      queueCount: 2 * length,
      queuePairs: length,
      queueSizeMax: QUEUE_SIZE_MAX,
      allowUnsealed: this.#allowUnsealed,
      regionBytes: this.#regionBytes,
      segmentsMax: SEGMENTS_MAX,
      Ring: this.#parts.Ring,
    });
  }

  /** End the session: its memory is unmapped. */
  disconnect(reason: string): void {
    this.session?.close();
    this.session = null;
    this.refresh();
    this.reason = reason;
  }

  /** Look at the session's rings again. True when the state of the port has changed. */
  refresh(): boolean {
    const { pairs } = this;
    for (const pair of pairs) pair.refresh(this.session);
    // Flows of a pair that broke are dropped there: those of the others stay where they are.
    this.#receivers = pairs.filter((pair) => pair.receives || pair.brokenReason !== null);
    this.#only = this.#receivers.length === 1 ? this.#receivers[0]! : null;
    const broken = pairs.find((pair) => pair.brokenReason !== null)?.brokenReason ?? null;
    const running = pairs.some((pair) => pair.running);
    // One that breaks the protocol ends alone, while another goes on.
    const state = running ? 'up' : broken !== null ? 'broken' : 'down';
    if (state === this.state) return false;
    this.state = state;
    this.reason =
      (state === 'broken' ? broken : null) ??
      (running ? 'its driver runs both queues' : 'its driver stopped a queue');
    return true;
  }

  /** Take up to a batch of frames from the VNIC and give them to `sink`. How many chains were taken. */
  poll(sink: FrameSink, bytesMax = ANY_BYTES): number {
    const { pairs } = this;
    if (pairs.length === 1) return pairs[0]!.poll(sink, BATCH, DESCRIPTORS_PER_TURN, bytesMax);
    if (this.#scheduler !== null) return this.#pollByWeight(this.#scheduler, sink, bytesMax);
    let bytes = bytesMax;
    let chains = BATCH;
    let descriptors = DESCRIPTORS_PER_TURN;
    let at = this.#first;
    this.#first = at + 1 < pairs.length ? at + 1 : 0;
    for (let i = 0; i < pairs.length && chains > 0 && descriptors > 0 && bytes > 0; i++) {
      const pair = pairs[at]!;
      chains -= pair.poll(sink, chains, descriptors, bytes);
      descriptors -= pair.descriptors;
      bytes -= pair.bytes;
      at = at + 1 < pairs.length ? at + 1 : 0;
    }
    this.#share.roomBytes = bytes;
    return BATCH - chains;
  }

  #pollByWeight(scheduler: Scheduler, sink: FrameSink, bytesMax: number): number {
    this.#share.roomBytes = bytesMax;
    return scheduler.round(this.pairs, this.#share, sink);
  }

  serve(sink: FrameSink, bytes: number): number {
    this.poll(sink, bytes);
    const { pairs } = this;
    if (pairs.length === 1) return pairs[0]!.bytes;
    return bytes - this.#share.roomBytes;
  }

  isReady(): boolean {
    const { pairs } = this;
    for (let i = 0; i < pairs.length; i++) if (pairs[i]!.isReady()) return true;
    return false;
  }

  /** Whether turns need the time for it. */
  get isTimed(): boolean {
    return this.pairs.some((pair) => pair.isTimed);
  }

  /** Microseconds until a pair that may not send now may; 0: none waits. */
  sendWaitUs(): number {
    const { pairs } = this;
    let wait = 0;
    for (let i = 0; i < pairs.length; i++) {
      const own = pairs[i]!.sendWaitUs();
      if (own > 0 && (wait === 0 || own < wait)) wait = own;
    }
    return wait;
  }

  /** Microseconds until a coalesced doorbell is due; -1: none is. */
  ringWaitUs(): number {
    const { pairs } = this;
    let wait = -1;
    for (let i = 0; i < pairs.length; i++) {
      const own = pairs[i]!.ringWaitUs();
      if (own >= 0 && (wait < 0 || own < wait)) wait = own;
    }
    return wait;
  }

  /** Set what the VNIC, or one of its queues, may send or receive. The caller has `pace` look at the ports again. */
  setRate({ queue, direction, weight, ...limit }: RateSetting): void {
    const { nowUs } = this.#pace;
    if (queue !== null) {
      const pair = this.pairs[queue]!;
      pair[direction === 'send' ? 'sendLimits' : 'receiveLimits'].set(limit, nowUs);
      if (direction === 'send') pair.weight = weight;
      const isWeighted = this.pairs.some((other) => other.weight !== this.pairs[0]!.weight);
      this.#scheduler = isWeighted ? new Scheduler() : null;
      this.#scheduler?.reset(this.pairs);
    } else if (direction === 'send') {
      this.weight = weight;
      this.#sendPacer = pacerOf(limit, nowUs, this.#sendPacer);
      for (const pair of this.pairs) pair.sendLimits.share(this.#sendPacer);
    } else {
      this.#receivePacer = pacerOf(limit, nowUs, this.#receivePacer);
      for (const pair of this.pairs) pair.receiveLimits.share(this.#receivePacer);
    }
  }

  /** Coalesce the doorbell of one queue, or of all. */
  setCoalescing(queue: number | null, coalescing: Coalescing): void {
    for (const pair of this.pairs) {
      if (queue === null || pair.index === queue) pair.setCoalescing(coalescing);
    }
  }

  /** Give the VNIC the frame of these fields from staging memory. Counted as a drop when that cannot be. */
  deliver(at: number, length: number, frame: FrameFields, offload: Offload): void {
    const only = this.#only;
    if (only !== null) {
      only.deliver(at, length, offload);
      return;
    }
    const receivers = this.#receivers;
    if (receivers.length === 0) this.drops[DROP.noBuffer]!++;
    else receivers[pairOfHash(frame.hash(), receivers.length)]!.deliver(at, length, offload);
  }

  /** Show the VNIC what was delivered since the last time, and call it if it wants to be called. */
  publish(): void {
    const { pairs } = this;
    for (let i = 0; i < pairs.length; i++) pairs[i]!.publish();
  }

  /** Ask to be kicked when the VNIC sends. False when it already has. */
  arm(): boolean {
    let quiet = true;
    for (const pair of this.pairs) quiet = pair.arm() && quiet;
    return quiet;
  }

  disarm(): void {
    for (const pair of this.pairs) pair.disarm();
  }

  stats(): Record<string, unknown> {
    const { id: port, txPackets, txBytes, state, reason, pairs } = this;
    let rxPackets = 0;
    let rxBytes = 0;
    for (const pair of pairs) {
      rxPackets += pair.rxPackets;
      rxBytes += pair.rxBytes;
    }
    const drops = namedDrops(this.drops);
    const connected = this.session !== null;
    const queues = pairs.map((pair) => pair.stats());
    const counts = { rxPackets, rxBytes, txPackets, txBytes };
    const broken = pairs.flatMap(({ index, brokenReason }) =>
      brokenReason === null ? [] : [`queue ${index}: ${brokenReason}`],
    );
    const brokenQueues = broken.length === 0 ? {} : { brokenQueues: broken.join(', ') };
    return { port, ...counts, drops, connected, state, reason, ...brokenQueues, queues };
  }
}
