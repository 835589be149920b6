/**
 * The software NIC as a device: VNICs are vhost-user ports of a supervised process, and a TAP interface joins their
 * network to the host's kernel.
 *
 * - A VNIC's address is in its MAC (02:00 and the four octets), so MACs are unique where addresses are.
 * - Its region is memory that the daemon made and sealed; the process maps it when the application connects.
 * - A process that died is started again and given all ports anew; applications keep their regions and get new sockets.
 */
import { fileURLToPath } from 'node:url';
import type { Mac } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import { isSameTarget, type RateSetting } from '../../device/rate.ts';
import { createRegion, type VirtioGrant, virtioGeometry } from '../../drivers/virtio/attach.ts';
import { closeAll, closeFd } from '../../ffi/fd.ts';
import { SOCK_STREAM, socketPair } from '../../ffi/unix.ts';
import type { Filter } from '../../filter/boxes.ts';
import { formatFilter } from '../../filter/format.ts';
import type {
  Attachment,
  AttachRequest,
  Counters,
  DeviceDescription,
  DeviceEvents,
  DoorbellSetting,
  Inherited,
  NicDevice,
  Saved,
} from './device.ts';
import { DeviceProcess, type InheritedProcess } from './device-process.ts';
import type { Uplink } from './uplink.ts';

const MTU = 1500;
/** Before a frame: virtio_net_hdr, and the frame itself on a cache line. */
const HEADROOM = 64;
const LOCAL_MAC = 0x0200_0000_0000;

export interface SoftNicOptions {
  readonly name: string;
  /** Run directory of the daemon. */
  readonly owner: string;
  /** The network that VNICs get addresses of; the host has `address` itself when there is an uplink. */
  readonly network: { address: number; prefix: number };
  readonly uplink: Uplink | null;
  /** Name that the uplink was to have: null when none was wanted. */
  readonly tapName: string | null;
  /** Whom the process becomes, when the daemon is root. */
  readonly user: { uid: number; gid: number } | null;
  /** Processors to run on; null: any. */
  readonly cpus: readonly number[] | null;
  /** What all VNICs together may send; null: as much as the process can carry. */
  readonly bitsPerSecond: number | null;
  readonly logFd: number;
  readonly events: DeviceEvents;
  /** Which daemon in the life of the run directory this is. */
  readonly incarnation: number;
  /** The network is another than the daemon before had: its VNICs cannot go on. */
  readonly isMoved: boolean;
  /** The process of the daemon before. */
  readonly inherited?: InheritedProcess | undefined;
  /** Compiled entry point of the process. */
  readonly script?: string;
}

/** What two daemons must agree on for the second to go on with the process of the first. */
export interface SoftNicConfig {
  readonly address: number;
  readonly prefix: number;
  readonly tap: string | null;
  readonly user: { uid: number; gid: number } | null;
  readonly cpus: readonly number[] | null;
  readonly bitsPerSecond: number | null;
}

export function softNicConfig({
  network: { address, prefix },
  tapName: tap,
  user,
  cpus,
  bitsPerSecond,
}: Pick<SoftNicOptions, 'network' | 'tapName' | 'user' | 'cpus' | 'bitsPerSecond'>): SoftNicConfig {
  return { address, prefix, tap, user, cpus, bitsPerSecond };
}

export const softnicScript = (): string =>
  fileURLToPath(new URL('../../softnic/main.js', import.meta.url));

export class SoftNic implements NicDevice {
  readonly name: string;
  readonly mac: Mac;
  readonly mtu = MTU;
  readonly address: number;
  readonly prefix: number;
  readonly gateway: number;
  readonly sharesAddress = false;
  readonly assignsAddresses = true;
  readonly bitsPerSecond: number | null;
  readonly #process: DeviceProcess;
  readonly #events: DeviceEvents;
  readonly #uplink: Uplink | null;
  readonly #cpus: readonly number[] | null;
  readonly #config: SoftNicConfig;
  readonly #ports = new Map<number, Port>();
  readonly #adopted: boolean;
  readonly #isMoved: boolean;
  #statistics: Promise<Map<number, Counters>> | null = null;

  constructor(options: SoftNicOptions) {
    const { name, owner, network, uplink, user, events, logFd } = options;
    this.name = name;
    this.address = network.address;
    this.prefix = network.prefix;
    this.mac = uplink?.mac ?? 0;
    this.gateway = uplink === null ? 0 : network.address;
    this.#uplink = uplink;
    this.#cpus = options.cpus;
    this.bitsPerSecond = options.bitsPerSecond;
    this.#events = events;
    this.#adopted = options.inherited !== undefined;
    this.#isMoved = options.isMoved;
    this.#config = softNicConfig(options);
    this.#process = new DeviceProcess({
      name,
      owner,
      script: options.script ?? softnicScript(),
      args: user === null ? [] : [`--user=${user.uid}:${user.gid}`],
      logFd,
      log: events.log,
      incarnation: options.incarnation,
      inherited: options.inherited,
      onChange: () => events.deviceChanged(name),
      onStart: () => this.#onStart(),
      onEvent: (event, message) => this.#onEvent(event, message),
    });
  }

  describe(): DeviceDescription {
    const { state, pid, restarts } = this.#process;
    const detail = this.#uplink === null ? 'no uplink' : `uplink ${this.#uplink.name}`;
    return { kind: 'softnic', state, pid, restarts, detail };
  }

  async attach(request: AttachRequest): Promise<Attachment> {
    const grant = this.#grantOf(request);
    const region = createRegion(grant);
    const [application, device] = socketPair(SOCK_STREAM);
    const fds = [region, application];
    try {
      await this.#addPort(request, grant, { regionBytes: grant.regionBytes }, [device]);
    } catch (error) {
      closeAll(fds);
      throw error;
    } finally {
      closeFd(device);
    }
    return this.#register(new Port(this, request, grant, null, fds));
  }

  async listen(request: AttachRequest, path: string): Promise<Attachment> {
    const grant = this.#grantOf(request);
    // A foreign program brings its own memory, which is not sealed.
    await this.#addPort(request, grant, { listen: path, allowUnsealed: true }, []);
    return this.#register(new Port(this, request, grant, path, []));
  }

  adopt(request: AttachRequest, inherited: Inherited): Attachment {
    const { grant, path } = inherited.state as SavedPort;
    closeAll(inherited.fds);
    if (this.#isMoved) throw new ArrakisError('ARK_GONE', `${this.name} has another network now`);
    return this.#register(new Port(this, request, grant, path, []));
  }

  /** Compare with what the process of the daemon before has by now. A process of our own is given everything anyway. */
  settle(): void {
    if (this.#adopted) void this.#compare();
  }

  save(): Saved {
    const { state, fds } = this.#process.save();
    const uplink = this.#uplink;
    return {
      state: { ...state, config: this.#config },
      fds: uplink === null ? fds : [...fds, uplink.fd],
    };
  }

  async close(): Promise<void> {
    await this.#process.close();
    this.#uplink?.close();
  }

  async setFilters(
    port: Port,
    filters: readonly Filter[],
    transmit: readonly Filter[] | null,
  ): Promise<void> {
    const texts = filterTexts(filters, transmit);
    await this.#process.request('setFilters', { port: port.id, ...texts });
    port.request = { ...port.request, filters, transmit };
  }

  async setRate(port: Port, rate: RateSetting): Promise<void> {
    await this.#process.request('setRate', { port: port.id, rate });
    const others = port.request.rates.filter((other) => !isSameTarget(other, rate));
    port.request = { ...port.request, rates: [...others, rate] };
  }

  async setDoorbell(port: Port, coalescing: DoorbellSetting): Promise<void> {
    await this.#process.request('setCoalescing', { port: port.id, coalescing });
    const { queue } = coalescing;
    // One for all queues replaces what was set for each.
    const others = queue === null ? [] : port.request.doorbells.filter((d) => d.queue !== queue);
    port.request = { ...port.request, doorbells: [...others, coalescing] };
  }

  /** Resolves when the process has let go of the port, or has ended. */
  async removePort(port: Port): Promise<void> {
    this.#ports.delete(port.id);
    if (this.#process.state !== 'running') return;
    try {
      await this.#process.request('removePort', { port: port.id });
    } catch (error) {
      const { code } = error as ArrakisError;
      if (code !== 'ARK_NOT_FOUND' && this.#process.state === 'running') throw error;
    }
  }

  /** Counters by port. Callers at the same time share one question. */
  statistics(): Promise<Map<number, Counters>> {
    this.#statistics ??= this.#process
      .request('stats', {})
      .then((message) => portCounters(message))
      .finally(() => {
        this.#statistics = null;
      });
    return this.#statistics;
  }

  #grantOf(request: AttachRequest): VirtioGrant {
    const { pairs, ringSize, frameSize, frameCount } = request;
    const { regionBytes } = virtioGeometry(request);
    const mac = LOCAL_MAC + request.address;
    const sizes = { pairs, ringSize, frameSize, frameCount, regionBytes };
    return { mac, mtu: MTU, headroom: HEADROOM, ...sizes };
  }

  async #addPort(
    request: AttachRequest,
    grant: VirtioGrant,
    extra: Record<string, unknown>,
    fds: readonly number[],
  ): Promise<void> {
    const { vnic: port, rates, doorbells: coalescing } = request;
    const filters = filterTexts(request.filters, request.transmit);
    await this.#process.request(
      'addPort',
      {
        port,
        mac: grant.mac,
        ...filters,
        mtu: MTU,
        pairs: request.pairs,
        rates,
        coalescing,
        ...extra,
      },
      fds,
    );
  }

  #register(port: Port): Port {
    this.#ports.set(port.id, port);
    return port;
  }

  /** The first requests of a new process; not awaited, since requests are served in order. */
  #onStart(): void {
    setImmediate(() => {
      const cpus = this.#cpus;
      if (cpus !== null) this.#setUp('affinity', { cpus }, []);
      const { bitsPerSecond } = this;
      if (bitsPerSecond !== null) {
        this.#setUp('linkRate', { limit: { bitsPerSecond, packetsPerSecond: null } }, []);
      }
      const uplink = this.#uplink;
      if (uplink !== null) this.#setUp('uplink', { mac: uplink.mac }, [uplink.fd]);
      for (const port of [...this.#ports.values()]) void this.#reattach(port);
    });
  }

  /** Give the process a port that it does not have, and its application the new socket. */
  async #reattach(port: Port): Promise<void> {
    const { generation } = this.#process;
    const { request, grant, path } = port;
    try {
      if (path !== null) {
        await this.#addPort(request, grant, { listen: path, allowUnsealed: true }, []);
        return;
      }
      const [application, device] = socketPair(SOCK_STREAM);
      try {
        await this.#addPort(request, grant, { regionBytes: grant.regionBytes }, [device]);
        this.#events.vnicReattached(port.id, application);
      } finally {
        closeAll([application, device]);
      }
    } catch (error) {
      // The next process is given all ports again.
      const isLast = this.#process.generation === generation && this.#process.state === 'running';
      if (isLast) this.#events.vnicGone(port.id, `not attached again: ${(error as Error).message}`);
    }
  }

  /** What the process has that we do not know is taken away; what it no longer has, given again. */
  async #compare(): Promise<void> {
    const { generation } = this.#process;
    let there: Map<number, Counters>;
    try {
      there = await this.statistics();
    } catch (error) {
      // It is restarted then, and given all ports.
      this.#events.log('error', 'the device process does not answer', {
        error: (error as Error).message,
      });
      return;
    }
    if (this.#process.generation !== generation) return;
    for (const id of there.keys()) {
      if (!this.#ports.has(id)) this.#setUp('removePort', { port: id }, []);
    }
    for (const port of [...this.#ports.values()]) {
      const counters = there.get(port.id);
      if (counters === undefined) void this.#reattach(port);
      else if (counters.state === 'broken') {
        this.#events.vnicGone(port.id, `the software NIC stopped it: ${counters.reason}`);
      }
    }
  }

  #setUp(op: string, args: Record<string, unknown>, fds: readonly number[]): void {
    this.#process.request(op, args, fds).catch((error: Error) => {
      this.#events.log('error', `the device refused ${op}`, { error: error.message });
    });
  }

  #onEvent(event: string, message: Record<string, unknown>): void {
    const { port, state, reason, queue } = message;
    // It speaks for its own ports only.
    if (event === 'queueBroken' && typeof port === 'number' && this.#ports.has(port)) {
      this.#events.vnicQueueBroken(port, Number(queue), String(reason));
    }
    if (event !== 'portState') return;
    if (state === 'broken' && typeof port === 'number' && this.#ports.has(port)) {
      this.#events.vnicGone(port, `the software NIC stopped it: ${String(reason)}`);
    }
  }
}

interface SavedPort {
  readonly grant: VirtioGrant;
  /** Of its vhost-user socket, for foreign programs. */
  readonly path: string | null;
}

/** A port, through all the processes that serve it. */
class Port implements Attachment {
  readonly driver = 'virtio';
  readonly id: number;
  readonly grant: VirtioGrant & Record<string, unknown>;
  readonly path: string | null;
  readonly mac: Mac;
  readonly mtu = MTU;
  readonly regionBytes: number;
  readonly fds: readonly number[];
  /** With the filters, rates and doorbells that it has now. */
  request: AttachRequest;
  readonly #nic: SoftNic;
  #holdsFds = true;
  #detached = false;

  constructor(
    nic: SoftNic,
    request: AttachRequest,
    grant: VirtioGrant,
    path: string | null,
    fds: readonly number[],
  ) {
    this.#nic = nic;
    this.id = request.vnic;
    this.request = request;
    this.grant = { ...grant };
    this.path = path;
    this.mac = grant.mac;
    this.regionBytes = grant.regionBytes;
    this.fds = fds;
  }

  /** The process must see the end of the socket when the application ends: we keep no copy. */
  handedOver(): void {
    if (!this.#holdsFds) return;
    this.#holdsFds = false;
    closeAll(this.fds);
  }

  async setFilters(filters: readonly Filter[], transmit: readonly Filter[] | null): Promise<void> {
    this.#requireAttached();
    await this.#nic.setFilters(this, filters, transmit);
  }

  async setRate(setting: RateSetting): Promise<void> {
    this.#requireAttached();
    await this.#nic.setRate(this, setting);
  }

  async setDoorbell(setting: DoorbellSetting): Promise<void> {
    this.#requireAttached();
    await this.#nic.setDoorbell(this, setting);
  }

  async counters(): Promise<Counters> {
    this.#requireAttached();
    return (await this.#nic.statistics()).get(this.id) ?? {};
  }

  /** The application has its descriptors; the process, the port. */
  save(): Saved {
    const { grant, path } = this;
    const state: SavedPort = { grant, path };
    return { state, fds: [] };
  }

  async detach(): Promise<void> {
    if (this.#detached) return;
    this.#detached = true;
    this.handedOver();
    await this.#nic.removePort(this);
  }

  #requireAttached(): void {
    if (!this.#detached) return;
    throw new ArrakisError('ARK_GONE', `port ${this.id} is gone`, { hint: 'open it again' });
  }
}

/** Filters as they travel to the process. */
const filterTexts = (
  filters: readonly Filter[],
  transmit: readonly Filter[] | null,
): { filters: string[]; transmit: string[] | null } => ({
  filters: filters.map(formatFilter),
  transmit: transmit?.map(formatFilter) ?? null,
});

/** The ports of a `stats` reply. What is not understood is left out: counters decide nothing. */
function portCounters(message: Record<string, unknown>): Map<number, Counters> {
  const result = new Map<number, Counters>();
  const ports = Array.isArray(message.ports) ? (message.ports as unknown[]) : [];
  for (const entry of ports) {
    if (typeof entry !== 'object' || entry === null) continue;
    const { port, ...counters } = entry as { port?: unknown };
    if (typeof port === 'number') result.set(port, scalars(counters));
  }
  return result;
}

function scalars(entry: object): Counters {
  const counters: Counters = {};
  for (const [name, value] of Object.entries(entry)) {
    if (name === 'queues' && Array.isArray(value)) {
      // What one pair counts is what the port counts.
      if (value.length < 2) continue;
      for (const [pair, counts] of value.entries()) counters[`queue${pair}`] = numbersOf(counts);
    } else if (typeof value === 'object' && value !== null) {
      counters[name] = numbersOf(value);
    } else if (['string', 'number', 'boolean'].includes(typeof value)) counters[name] = value;
  }
  return counters;
}

function numbersOf(value: unknown): Record<string, number> {
  if (typeof value !== 'object' || value === null) return {};
  const numbers = Object.entries(value).filter(([, count]) => typeof count === 'number');
  return Object.fromEntries(numbers) as Record<string, number>;
}
