/**
 * The software NIC as a device: VNICs are vhost-user ports of a supervised process, and a TAP interface joins their
 * network to the host's kernel.
 *
 * - A VNIC's address is in its MAC (02:00 and the four octets), so MACs are unique where addresses are.
 * - Its region is memory that the daemon made and sealed; the process maps it when the application connects.
 */
import { fileURLToPath } from 'node:url';
import type { Mac } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import type { FlowFilter } from '../../device/filter.ts';
import { createRegion, type VirtioGrant, virtioGeometry } from '../../drivers/virtio/attach.ts';
import { closeAll, closeFd } from '../../ffi/fd.ts';
import { SOCK_STREAM, socketPair } from '../../ffi/unix.ts';
import type {
  Attachment,
  AttachRequest,
  Counters,
  DeviceDescription,
  DeviceEvents,
  NicDevice,
} from './device.ts';
import { DeviceProcess } from './device-process.ts';
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
  /** Whom the process becomes, when the daemon is root. */
  readonly user: { uid: number; gid: number } | null;
  /** Processors to run on; null: any. */
  readonly cpus: readonly number[] | null;
  readonly logFd: number;
  readonly events: DeviceEvents;
  /** Compiled entry point of the process. */
  readonly script?: string;
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
  readonly #process: DeviceProcess;
  readonly #events: DeviceEvents;
  readonly #uplink: Uplink | null;
  readonly #cpus: readonly number[] | null;
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
    this.#events = events;
    this.#process = new DeviceProcess({
      name,
      owner,
      script: options.script ?? softnicScript(),
      args: user === null ? [] : [`--user=${user.uid}:${user.gid}`],
      logFd,
      log: events.log,
      onStart: () => this.#onStart(),
      onExit: (reason) => events.deviceGone(name, `the process ended (${reason})`, true),
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
    return new Port(this, request.vnic, grant, fds);
  }

  async listen(request: AttachRequest, path: string): Promise<Attachment> {
    const grant = this.#grantOf(request);
    // A foreign program brings its own memory, which is not sealed.
    await this.#addPort(request, grant, { listen: path, allowUnsealed: true }, []);
    return new Port(this, request.vnic, grant, []);
  }

  async close(): Promise<void> {
    await this.#process.close();
    this.#uplink?.close();
  }

  get generation(): number {
    return this.#process.generation;
  }

  async setFilters(port: number, filters: readonly FlowFilter[]): Promise<void> {
    await this.#process.request('setFilters', { port, filters });
  }

  async removePort(port: number): Promise<void> {
    await this.#process.request('removePort', { port });
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
    const { ringSize, frameSize, frameCount } = request;
    const { regionBytes } = virtioGeometry(request);
    const mac = LOCAL_MAC + request.address;
    const sizes = { ringSize, frameSize, frameCount, regionBytes };
    return { mac, mtu: MTU, headroom: HEADROOM, ...sizes };
  }

  async #addPort(
    request: AttachRequest,
    grant: VirtioGrant,
    extra: Record<string, unknown>,
    fds: readonly number[],
  ): Promise<void> {
    const { vnic: port, filters } = request;
    await this.#process.request(
      'addPort',
      { port, mac: grant.mac, filters, mtu: MTU, ...extra },
      fds,
    );
  }

  /** The first requests of a new process; not awaited, since requests are served in order. */
  #onStart(): void {
    setImmediate(() => {
      const cpus = this.#cpus;
      if (cpus !== null) this.#setUp('affinity', { cpus }, []);
      const uplink = this.#uplink;
      if (uplink !== null) this.#setUp('uplink', { mac: uplink.mac }, [uplink.fd]);
    });
  }

  #setUp(op: string, args: Record<string, unknown>, fds: readonly number[]): void {
    this.#process.request(op, args, fds).catch((error: Error) => {
      this.#events.log('error', `the device refused ${op}`, { error: error.message });
    });
  }

  #onEvent(event: string, message: Record<string, unknown>): void {
    if (event !== 'portState') return;
    const { port, state, reason } = message;
    if (state === 'broken' && typeof port === 'number') {
      this.#events.vnicGone(port, `the software NIC stopped it: ${String(reason)}`);
    }
  }
}

/** A port of one generation of the process. */
class Port implements Attachment {
  readonly driver = 'virtio';
  readonly grant: Record<string, unknown>;
  readonly mac: Mac;
  readonly mtu = MTU;
  readonly regionBytes: number;
  readonly fds: readonly number[];
  readonly #nic: SoftNic;
  readonly #port: number;
  readonly #generation: number;
  #holdsFds = true;
  #detached = false;

  constructor(nic: SoftNic, port: number, grant: VirtioGrant, fds: readonly number[]) {
    this.#nic = nic;
    this.#port = port;
    this.#generation = nic.generation;
    this.grant = { ...grant };
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

  async setFilters(filters: readonly FlowFilter[]): Promise<void> {
    this.#requireAlive();
    await this.#nic.setFilters(this.#port, filters);
  }

  async counters(): Promise<Counters> {
    this.#requireAlive();
    return (await this.#nic.statistics()).get(this.#port) ?? {};
  }

  async detach(): Promise<void> {
    if (this.#detached) return;
    this.#detached = true;
    this.handedOver();
    if (this.#nic.generation !== this.#generation || this.#nic.describe().state !== 'running')
      return;
    await this.#nic.removePort(this.#port);
  }

  #requireAlive(): void {
    if (!this.#detached && this.#nic.generation === this.#generation) return;
    throw new ArrakisError('ARK_GONE', `port ${this.#port} is gone`, { hint: 'open it again' });
  }
}

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
    if (typeof value === 'object' && value !== null) {
      const numbers = Object.entries(value).filter(([, count]) => typeof count === 'number');
      counters[name] = Object.fromEntries(numbers) as Record<string, number>;
    } else if (['string', 'number', 'boolean'].includes(typeof value)) counters[name] = value;
  }
  return counters;
}
