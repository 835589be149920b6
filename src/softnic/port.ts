/**
 * One port of the software NIC: the device end of one VNIC. Names are the VNIC's: it receives (`rx`) what we write
 * into its receive queue, and sends (`tx`) what we read from its transmit queue.
 *
 * - `poll` takes a batch from the transmit queue, a private copy of one frame at a time, and gives each to the switch.
 * - `deliver` copies a frame from staging memory into the next receive buffer. `publish` ends the batch of both.
 * - Without a driver, or when a queue is broken, the port drops: the device goes on.
 */
import type { Mac } from '../base/address.ts';
import { DROP, DROP_REASONS, namedDrops } from '../device/drops.ts';
import type { Arena } from '../ffi/arena.ts';
import { signalPeer } from '../ffi/peer-eventfd.ts';
import { type SplitDevice, VIOLATION, type Violation } from '../ring/split-device.ts';
import { NET_HEADER_LEN } from '../ring/split-layout.ts';
import { type BackendHost, VhostBackend } from '../ring/vhost-backend.ts';
import { ETH_HEADER_LEN, type FilterSet } from './match.ts';

/** Queue indices of a network device (virtio 1.2, section 5.1.2). */
const RECEIVE_QUEUE = 0;
const TRANSMIT_QUEUE = 1;
const QUEUE_SIZE_MAX = 1024;
/** Chains taken from one port before the next port has its turn. */
const BATCH = 64;
/** A chain of more descriptors than this is nothing that a network driver makes: each costs a walk and a copy. */
const SEGMENTS_MAX = 64;
/** Descriptors after which a port's turn ends, even before its batch: header and frame of every chain. */
const DESCRIPTORS_PER_TURN = 2 * BATCH;
/** Byte of `num_buffers` in virtio_net_hdr; it is 1 without mergeable buffers (section 5.1.6.3). */
const NUM_BUFFERS = 10;

/** Where a port brings the frames that its VNIC sends: `length` bytes at the arena offset `at`. */
export interface FrameSink {
  fromPort(port: Port, at: number, length: number): void;
}

export type PortState = 'up' | 'down' | 'broken';

export interface PortOptions {
  id: number;
  mac: Mac;
  filters: FilterSet;
  mtu: number;
  allowUnsealed: boolean;
  /** Bytes that the client may map. */
  regionBytes?: number | undefined;
  /** A listening socket for clients to connect to, which the port owns; -1 when it serves one connection. */
  listenFd: number;
  /** Where it listens; empty when it does not. */
  listenPath: string;
}

export class Port {
  readonly id: number;
  readonly frameLengthMax: number;
  readonly listenFd: number;
  readonly listenPath: string;
  readonly mac: Mac;
  filters: FilterSet;
  session: VhostBackend | null = null;
  rxPackets = 0;
  rxBytes = 0;
  txPackets = 0;
  txBytes = 0;
  readonly drops = new Float64Array(DROP_REASONS.length);
  state: PortState = 'down';
  reason = 'no driver is connected';

  readonly #arena: Arena;
  readonly #allowUnsealed: boolean;
  readonly #regionBytes: number | undefined;
  readonly #staging: number;
  #rx: SplitDevice | null = null;
  #tx: SplitDevice | null = null;
  #txEnabled = false;
  #rxTouched = false;
  #rxCallFd = -1;
  #txCallFd = -1;

  /** `staging` is the arena offset of private memory for one frame, on a word. */
  constructor(arena: Arena, staging: number, options: PortOptions) {
    this.id = options.id;
    this.filters = options.filters;
    this.frameLengthMax = options.mtu + ETH_HEADER_LEN;
    this.listenFd = options.listenFd;
    this.listenPath = options.listenPath;
    this.mac = options.mac;
    this.#arena = arena;
    this.#staging = staging;
    this.#allowUnsealed = options.allowUnsealed;
    this.#regionBytes = options.regionBytes;
  }

  /** Serve the driver at the other end of `fd`, which the port owns from now on. */
  connect(fd: number, host: BackendHost): void {
    this.session = new VhostBackend(fd, host, {
      features: 0n,
      queueCount: 2,
      queueSizeMax: QUEUE_SIZE_MAX,
      allowUnsealed: this.#allowUnsealed,
      regionBytes: this.#regionBytes,
      segmentsMax: SEGMENTS_MAX,
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
    const { session } = this;
    this.#rx = session?.isEnabled(RECEIVE_QUEUE) ? session.ring(RECEIVE_QUEUE) : null;
    this.#tx = session?.ring(TRANSMIT_QUEUE) ?? null;
    this.#txEnabled = session?.isEnabled(TRANSMIT_QUEUE) ?? false;
    this.#rxCallFd = session?.callFd(RECEIVE_QUEUE) ?? -1;
    this.#txCallFd = session?.callFd(TRANSMIT_QUEUE) ?? -1;
    this.#rxTouched = false;
    const broken =
      session?.brokenReason(RECEIVE_QUEUE) ?? session?.brokenReason(TRANSMIT_QUEUE) ?? null;
    const running = this.#rx !== null && this.#tx !== null && this.#txEnabled;
    const state = broken !== null ? 'broken' : running ? 'up' : 'down';
    if (state === this.state) return false;
    this.state = state;
    this.reason =
      broken ?? (running ? 'its driver runs both queues' : 'its driver stopped a queue');
    return true;
  }

  /** Take up to a batch of frames from the VNIC and give them to `sink`. How many chains were taken. */
  poll(sink: FrameSink): number {
    const tx = this.#tx;
    if (tx === null) return 0;
    const count = Math.min(tx.available(), BATCH);
    let taken = 0;
    for (let budget = DESCRIPTORS_PER_TURN; taken < count && budget > 0; taken++) {
      const total = tx.take();
      if (total < 0) break;
      budget -= tx.segmentCount;
      if (tx.readableCount !== tx.segmentCount) {
        tx.broken(VIOLATION.direction);
        break;
      }
      if (this.#txEnabled) this.#takeFrame(tx, total, sink);
      tx.complete(0);
    }
    if (tx.publish() && this.#txCallFd >= 0) signalPeer(this.#txCallFd);
    if (tx.violation !== 0) this.#break(TRANSMIT_QUEUE, tx);
    return taken;
  }

  /** Copy the chain's frame to staging memory. Its header asks for nothing: no offload was negotiated. */
  #takeFrame(tx: SplitDevice, total: number, sink: FrameSink): void {
    const length = total - NET_HEADER_LEN;
    if (length < ETH_HEADER_LEN) {
      this.drops[DROP.truncated]!++;
      return;
    }
    if (length > this.frameLengthMax) {
      this.drops[DROP.tooLong]!++;
      return;
    }
    // The copy keeps the frame's place in its word, so that whole words can be copied.
    let at = this.#staging;
    if (tx.segmentCount === 1) {
      const from = tx.segmentAt[0]! + NET_HEADER_LEN;
      at += from & 3;
      this.#arena.copy(at, from, length);
    } else {
      this.#gather(tx, at);
    }
    sink.fromPort(this, at, length);
  }

  #gather(tx: SplitDevice, to: number): void {
    let skip = NET_HEADER_LEN;
    let at = to;
    for (let i = 0; i < tx.segmentCount; i++) {
      const length = tx.segmentLength[i]!;
      const skipped = Math.min(skip, length);
      this.#arena.copy(at, tx.segmentAt[i]! + skipped, length - skipped);
      at += length - skipped;
      skip -= skipped;
    }
  }

  /** Give the VNIC a frame from staging memory: it is its own copy. Counted as a drop when that cannot be. */
  deliver(at: number, length: number): void {
    const rx = this.#rx;
    const ready = rx === null ? 0 : rx.ready();
    if (rx === null || ready <= 0) {
      this.drops[DROP.noBuffer]!++;
      if (ready < 0) this.#rxTouched = true;
      return;
    }
    this.#rxTouched = true;
    const room = rx.take();
    if (room < 0) return;
    if (rx.readableCount !== 0) {
      rx.broken(VIOLATION.direction);
      return;
    }
    if (room < NET_HEADER_LEN + length) {
      // The buffer stays for a frame that fits.
      rx.untake();
      this.drops[DROP.tooLong]!++;
      return;
    }
    if (rx.segmentLength[0]! >= NET_HEADER_LEN + length) {
      const to = rx.segmentAt[0]!;
      this.#writeHeader(to);
      this.#arena.copy(to + NET_HEADER_LEN, at, length);
    } else {
      this.#scatter(rx, at, length);
    }
    rx.complete(NET_HEADER_LEN + length);
    this.rxPackets++;
    this.rxBytes += length;
  }

  #writeHeader(at: number): void {
    if ((at & 3) === 0) {
      const { u32 } = this.#arena;
      const word = at >>> 2;
      u32[word] = 0;
      u32[word + 1] = 0;
      u32[word + 2] = 1 << ((NUM_BUFFERS & 3) * 8);
      return;
    }
    const { u8 } = this.#arena;
    for (let i = 0; i < NET_HEADER_LEN; i++) u8[at + i] = i === NUM_BUFFERS ? 1 : 0;
  }

  /** Header and frame over several buffers, wherever the driver has cut them. */
  #scatter(rx: SplitDevice, at: number, length: number): void {
    const { u8 } = this.#arena;
    const total = NET_HEADER_LEN + length;
    let done = 0;
    for (let i = 0; i < rx.segmentCount && done < total; i++) {
      const to = rx.segmentAt[i]!;
      const room = Math.min(rx.segmentLength[i]!, total - done);
      let used = 0;
      for (; used < room && done + used < NET_HEADER_LEN; used++) {
        u8[to + used] = done + used === NUM_BUFFERS ? 1 : 0;
      }
      this.#arena.copy(to + used, at + done + used - NET_HEADER_LEN, room - used);
      done += room;
    }
  }

  /** Show the VNIC what was delivered since the last time, and call it if it wants to be called. */
  publish(): void {
    if (!this.#rxTouched) return;
    this.#rxTouched = false;
    const rx = this.#rx;
    if (rx === null) return;
    if (rx.publish() && this.#rxCallFd >= 0) signalPeer(this.#rxCallFd);
    if (rx.violation !== 0) this.#break(RECEIVE_QUEUE, rx);
  }

  #break(queue: number, ring: SplitDevice): void {
    this.drops[DROP.badDescriptor]!++;
    this.session?.breakRing(queue, ring.violation as Violation);
    // The loop refreshes the port soon; until then the ring must not be found broken again.
    if (queue === TRANSMIT_QUEUE) this.#tx = null;
    else this.#rx = null;
  }

  /** Ask to be kicked when the VNIC sends. False when it already has. */
  arm(): boolean {
    return this.#tx === null || this.#tx.arm();
  }

  disarm(): void {
    this.#tx?.disarm();
  }

  stats(): Record<string, unknown> {
    const { id: port, rxPackets, rxBytes, txPackets, txBytes, state, reason } = this;
    const drops = namedDrops(this.drops);
    const connected = this.session !== null;
    return { port, rxPackets, rxBytes, txPackets, txBytes, drops, connected, state, reason };
  }
}
