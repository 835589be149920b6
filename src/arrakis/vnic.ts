/** A VNIC as the application has it: the driver's queue, ready to use, with its addresses. */
import { EventEmitter } from 'node:events';
import type { Ipv4, Mac } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import type { ArgsOf, Operation, ReplyOf, VnicInfo } from '../control/protocol.ts';
import type { Coalescing } from '../device/coalescing.ts';
import { NIC_STATE, type NicQueue } from '../device/nic.ts';
import { CaptureTap } from '../device/pcap.ts';
import type { Direction, Rate } from '../device/rate.ts';
import { closeFd } from '../ffi/fd.ts';
import { FdWatch } from '../ffi/watch.ts';
import type { Filter } from '../filter/boxes.ts';
import { formatFilter } from '../filter/format.ts';
import { CaptureSession } from './capture.ts';
import { wallClockNs } from './clock.ts';
import { letGo, openPair, type QueueSession, resetQueue } from './pairs.ts';
import { type PollLoop, type PollLoopOptions, pollLoop } from './poll-loop.ts';
import { newSecret } from './secret.ts';
import { type ThreadsOptions, VnicThreads } from './threads.ts';

/** What a VNIC needs of its domain. */
export interface VnicControl {
  closeVnic(id: number, keep: boolean): Promise<void>;
  request<O extends Operation>(op: O, args: ArgsOf<O>): Promise<ReplyOf<O>>;
  /** Where the application was placed; empty: anywhere. */
  cpus(): readonly number[];
  /** False when there is no control plane any more, which could replace a device that goes. */
  alive(): boolean;
}

export type FilterDirection = 'receive' | 'transmit';

/** A filter of a VNIC, with its canonical text. */
export interface VnicFilter {
  readonly id: number;
  readonly text: string;
}

/** What the kernel knows of the network of a shared address. */
export type HostNetwork = ReplyOf<'network.read'>;

const filterText = (filter: string | Filter): string =>
  typeof filter === 'string' ? filter : formatFilter(filter);

interface VnicEvents {
  /** It stopped for good, with the reason. The queue is closed by the application. */
  gone: [reason: string];
  /** The kernel knows something else of the network whose address it shares with the VNIC. Only after `network`. */
  network: [network: HostNetwork];
  /** Queue pair `queue` broke the protocol of its device, and is served no more. The other pairs go on. */
  'queue-broken': [queue: number, reason: string];
  /** Its device was restarted, and the queue goes on. Frames that were with the device are lost. */
  reattached: [];
}

export class Vnic extends EventEmitter<VnicEvents> {
  readonly id: number;
  readonly name: string;
  readonly device: string;
  readonly driver: string;
  /** Queue pairs; more than one only when the VNIC was asked for with `queues=`. */
  readonly pairs: number;
  readonly mac: Mac;
  readonly mtu: number;
  readonly address: Ipv4;
  readonly prefix: number;
  /** 0: none. */
  readonly gateway: Ipv4;
  /** False when the host's kernel has the address too and answers ARP and ICMP for it. */
  readonly ownsAddress: boolean;
  /** Random, for `NetInterface`. */
  readonly secret: Int32Array = newSecret();
  readonly #info: VnicInfo;
  readonly #control: VnicControl;
  readonly #session: QueueSession;
  /** The pairs that this thread owns. */
  readonly #taps = new Map<number, CaptureTap>();
  /** What the taps wrap. */
  readonly #queues: NicQueue[] = [];
  #threads: VnicThreads | null = null;
  #deviceWatch: FdWatch | null = null;
  /** The device went; another one is coming as long as there is a control plane. */
  #isDeviceGone = false;
  #reattaching: Promise<void> = Promise.resolve();
  readonly #loops = new Set<PollLoop>();
  #capture: CaptureSession | null = null;
  #isGone = false;
  #closed = false;

  /** `openSession` makes the session. Owns it, also when it throws. */
  constructor(info: VnicInfo, session: QueueSession, control: VnicControl) {
    super();
    this.id = info.vnic;
    this.name = info.name;
    this.device = info.device;
    this.driver = info.driver;
    this.mac = info.mac;
    this.mtu = info.mtu;
    this.address = info.address;
    this.prefix = info.prefix;
    this.gateway = info.gateway;
    this.ownsAddress = info.ownsAddress;
    this.pairs = session.pairs.length;
    this.#info = info;
    this.#control = control;
    this.#session = session;
    if (this.pairs === 1) this.#openFirst();
    this.#watchDevice();
  }

  get gone(): boolean {
    return this.#isGone;
  }

  /** The first queue pair, for this thread. ARK_IN_USE when threads have it. */
  get queue(): NicQueue {
    return this.openPair(0);
  }

  /** Queue pair `index`, owned by this thread from now on. ARK_IN_USE when threads have it, ARK_BAD_ARGUMENT. */
  openPair(index: number): NicQueue {
    const there = this.#taps.get(index);
    if (there !== undefined) return there;
    const description = this.#session.pairs[index];
    if (description === undefined) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `VNIC ${this.name} has no queue pair ${index}`, {
        hint: `it has ${this.pairs}; ask for more by queues=N`,
      });
    }
    if (this.#threads !== null) {
      throw new ArrakisError('ARK_IN_USE', `the threads of VNIC ${this.name} have its queues`, {
        hint: 'use threadVnic().queue in the thread',
      });
    }
    const queue = openPair(description);
    const tap = new CaptureTap(queue, { nowNs: wallClockNs });
    this.#taps.set(index, tap);
    this.#queues.push(queue);
    this.#capture?.add(index, tap);
    return tap;
  }

  /**
   * Start module `url` in a thread for each queue pair; `threadVnic()` in it is the pair. This thread then has none.
   * ARK_IN_USE when it has opened a pair already, or threads were started before.
   */
  startThreads(url: URL, options: ThreadsOptions = {}): VnicThreads {
    if (this.#threads !== null || this.#taps.size > 0) {
      throw new ArrakisError('ARK_IN_USE', `the queues of VNIC ${this.name} are in use`, {
        hint:
          this.pairs === 1
            ? 'a VNIC for threads is opened with queues=N, N from 2'
            : 'start the threads once, before queue or openPair is used',
      });
    }
    const cpus = options.cpus ?? this.#control.cpus();
    const threads = new VnicThreads(url, this.#info, this.#session.pairs, { ...options, cpus });
    this.#threads = threads;
    if (this.#capture !== null) threads.startCapture(this.#capture);
    return threads;
  }

  /** The application was placed on other processors: its threads follow. */
  place(cpus: readonly number[]): void {
    this.#threads?.pin(cpus);
  }

  /**
   * Drive `turn` on this VNIC's queue (see `pollLoop`). The loop ends with the VNIC: when it is closed, and when it goes,
   * which a sleeping loop could not learn from its doorbell.
   */
  poll(turn: () => number, options: PollLoopOptions = {}): PollLoop {
    const loop = pollLoop(this.queue, turn, options);
    this.#loops.add(loop);
    void loop.done.then(() => this.#loops.delete(loop));
    return loop;
  }

  /**
   * Receive (or, with 'transmit', send) by one more filter: text in tcpdump's words, or from the builder. Within what the
   * VNIC was given, or what capabilities of this domain cover. ARK_BAD_ARGUMENT with the place of an error,
   * ARK_NOT_PERMITTED, ARK_IN_USE with the owner, ARK_LIMIT.
   */
  async addFilter(
    filter: string | Filter,
    direction: FilterDirection = 'receive',
  ): Promise<VnicFilter> {
    const text = filterText(filter);
    const added = await this.#control.request('filter.add', { vnic: this.id, direction, text });
    return { id: added.filter, text: added.text };
  }

  /** Take filter `id` away. ARK_NOT_FOUND. */
  async removeFilter(id: number): Promise<void> {
    await this.#control.request('filter.remove', { vnic: this.id, filter: id });
  }

  /**
   * Put these filters in the place of all, at once: a packet that both old and new ones take is not lost. Null, to
   * transmit: the mirror of what is received. Errors as of `addFilter`.
   */
  async replaceFilters(
    filters: readonly (string | Filter)[] | null,
    direction: FilterDirection = 'receive',
  ): Promise<VnicFilter[]> {
    const texts = filters?.map(filterText) ?? null;
    const args = { vnic: this.id, direction, filters: texts };
    const { filters: now } = await this.#control.request('filter.set', args);
    return now.map(({ filter, text }) => ({ id: filter, text }));
  }

  /**
   * What the kernel knows of the network of the address that it shares with this VNIC, and from now on the event `network`
   * when that changes. ARK_UNSUPPORTED when the VNIC has an address of its own.
   */
  network(): Promise<HostNetwork> {
    return this.#control.request('network.read', { vnic: this.id });
  }

  /** Have the kernel find a neighbour of a shared address: `network` tells of it. ARK_BAD_ARGUMENT, ARK_LIMIT. */
  async resolve(address: Ipv4): Promise<void> {
    await this.#control.request('network.resolve', { vnic: this.id, address });
  }

  /** Another daemon serves us, which does not know yet who wants to be told. */
  resumed(): void {
    if (this.listenerCount('network') === 0) return;
    this.network().then(
      (network) => this.emit('network', network),
      () => {},
    );
  }

  /**
   * Limit what this VNIC, or one of its queues, sends or receives; what is not given is not limited, a weight that is not
   * given stays. Resolves with who enforces it. ARK_NOT_PERMITTED beyond what it was given; ARK_UNSUPPORTED where the
   * device cannot.
   */
  async setRate(
    direction: Direction,
    rate: Partial<Rate> & { readonly queue?: number },
  ): Promise<string> {
    const { bitsPerSecond = null, packetsPerSecond = null, ...rest } = rate;
    const limit = { direction, bitsPerSecond, packetsPerSecond };
    const args = { vnic: this.id, ...limit, ...rest };
    return (await this.#control.request('rate.set', args)).enforcedBy;
  }

  /**
   * Have the doorbell, or that of one queue, ring for several frames at once: a frame waits at most `usecs` (0: not at
   * all), and not for more than `frames` others (default: however many). ARK_UNSUPPORTED where the device cannot.
   */
  async setCoalescing(
    coalescing: Pick<Coalescing, 'usecs'> & Partial<Coalescing> & { readonly queue?: number },
  ): Promise<void> {
    await this.#control.request('doorbell.set', { vnic: this.id, frames: 0, ...coalescing });
  }

  /**
   * Release the queue and give the VNIC back; resolves when the device has let go. With `keep` it stays this domain's: it
   * may be opened again, also by another domain that was granted its capability. Idempotent.
   */
  async close(options: { keep?: boolean } = {}): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#release();
    for (const loop of this.#loops) loop.stop();
    await this.#threads?.stop();
    for (const tap of this.#taps.values()) tap.close();
    this.#session.close();
    await this.#control.closeVnic(this.id, options.keep === true);
  }

  /** The daemon or the device says that it stopped. */
  markGone(reason: string): void {
    if (this.#isGone || this.#closed) return;
    this.#isGone = true;
    this.#release();
    for (const loop of this.#loops) loop.stop();
    const threads = this.#threads?.markGone(reason);
    this.emit('gone', reason);
    for (const queue of this.#queues) letGo(queue);
    // The daemon ends whoever holds the sockets of a direct VNIC beyond its end.
    if (threads === undefined) this.#session.letGo();
    else void threads.then(() => this.#session.letGo());
  }

  /** The control plane is gone. XDP programs live by its descriptors, and nobody replaces a device any more. */
  controlLost(): void {
    if (this.driver === 'af-xdp') this.markGone('the control plane ended');
    else if (this.#isDeviceGone) this.markGone('its device ended, and the control plane');
  }

  /** The device was replaced by the one behind `socket`, which is taken over. */
  reattach(socket: number): void {
    this.#reattaching = this.#reattaching.then(() => this.#restart(socket));
  }

  /** Record every pair into `fd`, which is taken over, until `stopCapture`: each is an interface of its number there. */
  startCapture(fd: number, snapLength: number): void {
    this.stopCapture();
    const names = this.#session.pairs.map((_, pair) => `${this.name} queue ${pair}`);
    const capture = new CaptureSession(fd, names, snapLength, () => {
      if (this.#capture === capture) this.stopCapture();
    });
    this.#capture = capture;
    for (const [pair, tap] of this.#taps) capture.add(pair, tap);
    this.#threads?.startCapture(capture);
  }

  /** The descriptor is closed when the threads have handed over what they had. */
  stopCapture(): void {
    this.#capture?.stop(this.#threads?.stopCapture() ?? null);
    this.#capture = null;
  }

  #openFirst(): void {
    try {
      this.openPair(0);
    } catch (error) {
      this.#session.close();
      throw error;
    }
  }

  async #restart(socket: number): Promise<void> {
    const unserved = (await this.#threads?.reset()) ?? [];
    const { virtio } = this.#session;
    if (this.#isGone || this.#closed || virtio === null) {
      closeFd(socket);
      return;
    }
    this.#deviceWatch?.close();
    for (const queue of this.#queues) resetQueue(queue);
    for (const [pair, tap] of this.#taps) if (tap.state === NIC_STATE.closed) unserved.push(pair);
    for (const pair of unserved) virtio.clearRings(pair);
    try {
      virtio.restart(socket);
      this.#isDeviceGone = false;
    } catch (error) {
      const { code, message } = error as ArrakisError;
      // One that goes again, or hangs, is replaced again.
      if (code !== 'ARK_GONE' && code !== 'ARK_TIMEOUT') {
        this.markGone(message);
        return;
      }
    }
    this.#watchDevice();
    if (!this.#isDeviceGone) this.emit('reattached');
  }

  /** Learn of a device's end also when no daemon is there to tell. */
  #watchDevice(): void {
    const { virtio } = this.#session;
    if (virtio === null) return;
    const watch = new FdWatch(virtio.controlFd, () => {
      const state = virtio.checkDevice();
      if (state === 'up') return;
      watch.close();
      this.#isDeviceGone = true;
      if (state === 'broken' || !this.#control.alive()) {
        this.markGone('its device closed the connection');
      }
    });
    this.#deviceWatch = watch.unref();
  }

  #release(): void {
    this.stopCapture();
    this.#deviceWatch?.close();
  }
}
