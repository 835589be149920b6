/** A VNIC as the application has it: the driver's queue, ready to use, with its addresses. */
import { EventEmitter } from 'node:events';
import type { Ipv4, Mac } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import type { VnicInfo } from '../control/protocol.ts';
import type { FlowFilter } from '../device/filter.ts';
import { NIC_STATE, type NicQueue } from '../device/nic.ts';
import { CaptureTap } from '../device/pcap.ts';
import type { AfXdpGrant } from '../drivers/af-xdp/grant.ts';
import { openAfXdpQueue } from '../drivers/af-xdp/queue.ts';
import type { VirtioGrant } from '../drivers/virtio/attach.ts';
import { openVirtioQueue, type VirtioQueue } from '../drivers/virtio/queue.ts';
import { closeAll } from '../ffi/fd.ts';
import { FdWatch } from '../ffi/watch.ts';
import { CaptureSession } from './capture.ts';
import { type PollLoop, type PollLoopOptions, pollLoop } from './poll-loop.ts';

const NS_PER_MS = 1e6;
/** The wall clock in nanoseconds, to the microsecond: `Date.now` counts whole milliseconds. */
const wallClockNs = (): number => (performance.timeOrigin + performance.now()) * NS_PER_MS;

/** What a VNIC needs of its domain. */
export interface VnicControl {
  closeVnic(id: number): Promise<void>;
  setFilters(id: number, filters: readonly FlowFilter[]): Promise<void>;
}

interface VnicEvents {
  /** It stopped for good, with the reason. The queue is closed by the application. */
  gone: [reason: string];
}

export class Vnic extends EventEmitter<VnicEvents> {
  readonly id: number;
  readonly name: string;
  readonly device: string;
  readonly driver: string;
  /** The queue of this VNIC; use it from one thread. */
  readonly queue: NicQueue;
  readonly mac: Mac;
  readonly mtu: number;
  readonly address: Ipv4;
  readonly prefix: number;
  /** 0: none. */
  readonly gateway: Ipv4;
  /** False when the host's kernel has the address too and answers ARP and ICMP for it. */
  readonly ownsAddress: boolean;
  readonly #control: VnicControl;
  readonly #tap: CaptureTap;
  readonly #deviceWatch: FdWatch | null;
  readonly #loops = new Set<PollLoop>();
  #capture: CaptureSession | null = null;
  #isGone = false;
  #closed = false;

  /** `openVnicQueue` makes the queue. Owns it. */
  constructor(info: VnicInfo, opened: OpenedQueue, control: VnicControl) {
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
    this.#control = control;
    this.#tap = new CaptureTap(opened.queue, { nowNs: wallClockNs });
    this.queue = this.#tap;
    this.#deviceWatch = watchDevice(opened, () =>
      this.markGone('its device closed the connection'),
    );
  }

  get gone(): boolean {
    return this.#isGone;
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

  /** Narrow what this VNIC receives and sends, within what it was given. ARK_NOT_PERMITTED, ARK_IN_USE. */
  setFilters(filters: readonly FlowFilter[]): Promise<void> {
    return this.#control.setFilters(this.id, filters);
  }

  /** Release the queue and give the VNIC back; resolves when the device has let go. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#release();
    for (const loop of this.#loops) loop.stop();
    this.queue.close();
    await this.#control.closeVnic(this.id);
  }

  /** The daemon or the device says that it stopped. */
  markGone(reason: string): void {
    if (this.#isGone || this.#closed) return;
    this.#isGone = true;
    this.#release();
    for (const loop of this.#loops) loop.stop();
    this.emit('gone', reason);
  }

  /** Record into `fd`, which is taken over, until `stopCapture`. */
  startCapture(fd: number, snapLength: number): void {
    this.stopCapture();
    this.#capture = new CaptureSession(this.#tap, fd, snapLength);
  }

  stopCapture(): void {
    this.#capture?.stop();
    this.#capture = null;
  }

  #release(): void {
    this.stopCapture();
    this.#deviceWatch?.close();
  }
}

export interface OpenedQueue {
  readonly queue: NicQueue;
  /** The device's socket where there is one: it ends with the device. */
  readonly virtio: VirtioQueue | null;
}

/** The queue of a grant. Takes over `fds` (region, socket), also on failure. */
export function openVnicQueue(info: VnicInfo, fds: readonly number[]): OpenedQueue {
  const [region, socket] = fds as [number, number];
  if (info.driver === 'virtio') {
    const queue = openVirtioQueue(info.grant as unknown as VirtioGrant, { region, socket });
    return { queue, virtio: queue };
  }
  try {
    if (info.driver !== 'af-xdp') {
      throw new ArrakisError('ARK_UNSUPPORTED', `there is no driver "${info.driver}" here`, {
        hint: 'the daemon may be newer than this program',
      });
    }
    const queue = openAfXdpQueue(info.grant as unknown as AfXdpGrant, { region, socket });
    return { queue, virtio: null };
  } finally {
    closeAll([region, socket]);
  }
}

/** Learn of a device's end also when no daemon is there to tell. */
function watchDevice({ virtio }: OpenedQueue, onGone: () => void): FdWatch | null {
  if (virtio === null) return null;
  const watch: FdWatch = new FdWatch(virtio.controlFd, () => {
    virtio.checkDevice();
    if (virtio.state === NIC_STATE.up) return;
    watch.close();
    onGone();
  });
  return watch.unref();
}
