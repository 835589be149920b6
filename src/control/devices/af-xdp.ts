/**
 * A network interface as a device: AF_XDP, switched (the default) or direct.
 *
 * - The interface's first IPv4 address is what VNICs without one of their own share, by port.
 * - A watch on the kernel's links tells when the interface goes; its VNICs are then gone and the device with them.
 */
import type { Mac } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import type { RateSetting } from '../../device/rate.ts';
import {
  type SavedInterface,
  type SavedVnic,
  XdpInterface,
  type XdpVnic,
} from '../../drivers/af-xdp/attach.ts';
import { listAddresses, listRoutes, watchLinks } from '../../ffi/netlink/index.ts';
import type { Filter } from '../../filter/boxes.ts';
import { type Belongings, socketInode } from '../repossess.ts';
import type {
  Attachment,
  AttachRequest,
  Counters,
  DeviceDescription,
  DeviceEvents,
  DoorbellSetting,
  Inherited,
  NicDevice,
  OpenInterface,
  Saved,
} from './device.ts';
import { KernelNetwork } from './kernel-network.ts';

/** Opens interfaces whose veth links carry an alias that starts with `aliasPrefix`: a later daemon finds them by it. */
export const afXdpOpener =
  (aliasPrefix: string): OpenInterface =>
  (name, events, inherited) =>
    new AfXdpDevice(name, aliasPrefix, events, inherited);

/** Of a name that is no interface people may also have meant the device that is none. */
function openInterface(name: string): XdpInterface {
  try {
    return XdpInterface.open(name);
  } catch (error) {
    if (!(error instanceof ArrakisError) || error.code !== 'ARK_NOT_FOUND') throw error;
    const hint = `soft0 is the software NIC; ${error.hint}`;
    throw new ArrakisError(error.code, error.message, { hint, cause: error });
  }
}

interface SavedDevice {
  readonly interface: SavedInterface;
}

class AfXdpDevice implements NicDevice {
  readonly name: string;
  readonly mac: Mac;
  readonly mtu: number;
  readonly address: number;
  readonly prefix: number;
  readonly gateway: number;
  readonly sharesAddress = true;
  readonly assignsAddresses = false;
  readonly #interface: XdpInterface;
  readonly #aliasPrefix: string;
  readonly kernel: KernelNetwork;
  readonly #watch: { close(): void };
  #state: 'running' | 'gone' | 'closed' = 'running';

  constructor(
    name: string,
    aliasPrefix: string,
    events: DeviceEvents,
    inherited: Inherited | undefined,
  ) {
    if (process.getuid!() !== 0) {
      throw new ArrakisError('ARK_NOT_PERMITTED', `${name} needs a daemon that runs as root`, {
        hint: 'sudo arrakis up; without root there is soft0',
      });
    }
    const opened =
      inherited === undefined
        ? openInterface(name)
        : XdpInterface.adopt(name, (inherited.state as SavedDevice).interface, inherited.fds);
    let kernel: KernelNetwork | null = null;
    try {
      const own = listAddresses().find((entry) => entry.index === opened.index);
      this.address = own?.address ?? 0;
      this.prefix = own?.prefix ?? 0;
      const route = listRoutes().find((r) => r.index === opened.index && r.prefix === 0);
      this.gateway = route?.gateway ?? 0;
      kernel = new KernelNetwork(opened.index, () => events.networkChanged(name));
      this.kernel = kernel;
      this.#watch = watchLinks(({ type, link }) => {
        if (link.index !== opened.index || this.#state !== 'running') return;
        if (type !== 'deleted' && link.up) return;
        this.#state = 'gone';
        const reason = type === 'deleted' ? 'the interface was deleted' : 'the interface went down';
        events.deviceGone(name, reason, false);
      });
    } catch (error) {
      kernel?.close();
      opened.close();
      throw error;
    }
    this.name = name;
    this.mac = opened.mac;
    this.mtu = opened.mtu;
    this.#interface = opened;
    this.#aliasPrefix = aliasPrefix;
  }

  get bitsPerSecond(): number | null {
    return this.#interface.bitsPerSecond;
  }

  describe(): DeviceDescription {
    const hidden = this.#interface.hidesTags ? '; VLAN tags are hidden from it' : '';
    const detail = `AF_XDP, ${this.#interface.mode} mode${hidden}`;
    return { kind: 'interface', state: this.#state, pid: 0, restarts: 0, detail };
  }

  async attach(request: AttachRequest): Promise<Attachment> {
    if (this.#state !== 'running') {
      throw new ArrakisError('ARK_GONE', `${this.name} went away`, { hint: 'bring it up again' });
    }
    const { vnic, filters, transmit, pairs, frameCount, frameSize, ringSize, mode, queue } =
      request;
    const options = {
      name: `${this.name}-${vnic}`,
      alias: `${this.#aliasPrefix}${vnic}`,
      filters,
      transmit,
      pairs,
      frameCount,
      frameSize: frameSize === 4096 ? (4096 as const) : (2048 as const),
      ringSize,
      ...(queue === null ? {} : { queue }),
    };
    const attached =
      mode === 'direct'
        ? this.#interface.attachDirect(options)
        : this.#interface.attachSwitched(options);
    const attachment = new AfXdpAttachment(attached, this.#interface.index);
    try {
      // Nobody has the socket yet.
      for (const rate of request.rates) attachment.limit(rate);
      for (const doorbell of request.doorbells) attachment.coalesce(doorbell);
      return attachment;
    } catch (error) {
      attached.detach();
      throw error;
    }
  }

  adopt({ filters, transmit }: AttachRequest, { state, fds }: Inherited): Attachment {
    const vnic = this.#interface.adoptVnic(filters, transmit, state as SavedVnic, fds);
    return new AfXdpAttachment(vnic, this.#interface.index);
  }

  settle(): void {
    this.#interface.settle();
  }

  save(): Saved {
    const { state, fds } = this.#interface.save();
    const saved: SavedDevice = { interface: state };
    return { state: saved, fds };
  }

  async listen(): Promise<Attachment> {
    throw new ArrakisError('ARK_UNSUPPORTED', `${this.name} has no vhost-user sockets`, {
      hint: 'vnic.listen is for soft0',
    });
  }

  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#watch.close();
    this.kernel.close();
    this.#interface.close();
  }
}

class AfXdpAttachment implements Attachment {
  readonly driver = 'af-xdp';
  readonly grant: Record<string, unknown>;
  readonly mac: Mac;
  readonly mtu: number;
  readonly regionBytes: number;
  readonly fds: readonly number[];
  /** A switched VNIC is at its end with its veth pair. Of a direct one the application could go on sending. */
  readonly belongings: Belongings | null;
  readonly #vnic: XdpVnic;

  constructor(vnic: XdpVnic, ifIndex: number) {
    this.#vnic = vnic;
    const queues = vnic.directQueues;
    const sockets = vnic.fds.slice(1);
    this.belongings =
      queues.length === 0 ? null : { sockets: sockets.map(socketInode), ifIndex, queues };
    this.grant = { ...vnic.grant };
    this.mac = vnic.grant.mac;
    this.mtu = vnic.grant.mtu;
    this.regionBytes = vnic.grant.regionBytes;
    this.fds = vnic.fds;
  }

  /** The daemon keeps its copies: it reads the socket's statistics. */
  handedOver(): void {}

  async setFilters(filters: readonly Filter[], transmit: readonly Filter[] | null): Promise<void> {
    this.#vnic.setFilters(filters, transmit);
  }

  async setRate(setting: RateSetting): Promise<void> {
    this.limit(setting);
  }

  async setDoorbell(setting: DoorbellSetting): Promise<void> {
    this.coalesce(setting);
  }

  /** Weights have no meaning here: the kernel's queues divide the link. */
  limit({ queue, direction, bitsPerSecond, packetsPerSecond }: RateSetting): void {
    this.#vnic.setLimit(direction, { bitsPerSecond, packetsPerSecond }, queue);
  }

  coalesce({ queue, ...coalescing }: DoorbellSetting): void {
    this.#vnic.setCoalescing(queue, coalescing);
  }

  async counters(): Promise<Counters> {
    const { socket, sockets, drops, ...counts } = this.#vnic.counters();
    const queues = sockets.map((one, i) => [`queue${i}`, { ...one }]);
    const each = sockets.length > 1 ? Object.fromEntries(queues) : {};
    return { ...counts, drops: { ...drops }, socket: { ...socket }, ...each };
  }

  save(): Saved {
    return this.#vnic.save();
  }

  async detach(): Promise<void> {
    this.#vnic.detach();
  }
}
