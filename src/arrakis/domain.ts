/**
 * A protection domain, from the inside: this process as the control plane knows it.
 *
 * `connect()` finds the daemon; `openVnic()` gives a VNIC whose packets then need nobody's leave. A daemon that is killed
 * is not missed by them; the next one takes over, and the domain says 'resumed'. When none comes, or the daemon ends in
 * order, the control channel closes and the domain says 'control-lost': devices do not outlive their control plane.
 */
import { EventEmitter } from 'node:events';
import { parseCpus } from '../base/cpus.ts';
import { ArrakisError } from '../base/errors.ts';
import {
  type ArgsOf,
  type CapInfo,
  type EventName,
  type EventOf,
  type Operation,
  PROTOCOL_VERSION,
  type ReplyOf,
} from '../control/protocol.ts';
import { parseVnicSpec, type VnicSpec } from '../control/vnic-spec.ts';
import { closeAll } from '../ffi/fd.ts';
import { setAffinity } from '../ffi/process.ts';
import type { Codec } from '../message/codec.ts';
import { type Answer, ControlChannel, openControlSocket } from './client.ts';
import {
  type ConnectTo,
  type EndpointChannel,
  Endpoints,
  type Listener,
  type ListenOptions,
  type PeerLink,
} from './endpoints.ts';
import { Names } from './names.ts';
import { openSession } from './pairs.ts';
import { Region } from './regions.ts';
import { Vnic } from './vnic.ts';

export interface ConnectOptions {
  /** Control socket; default: `ARRAKIS_FD`, `ARRAKIS_SOCKET`, then the usual places. */
  readonly socket?: string;
  /** What the daemon calls this domain. */
  readonly name?: string;
}

export interface OpenOptions {
  /**
   * Have the device do TCP's checksums and cut its segments, where it can (`queue.offloads`): for programs on the stack.
   * Default false: every received frame is whole, checksummed, and one buffer.
   */
  readonly offload?: boolean;
}

/** What of a capability is handed on; default: all. */
export interface CapNarrowing {
  readonly rights?: string[];
  readonly range?: CapInfo['range'];
}

export interface RevokeOptions {
  /** Also the capability itself. */
  readonly whole?: boolean;
  /** How long its holders may keep it after they were told; the daemon's default is 100. */
  readonly graceMs?: number;
}

interface DomainEvents {
  /** The daemon is gone for good, or closed the channel. The devices end with it: VNICs say 'gone'. */
  'control-lost': [reason: string];
  /** The daemon is about to end. */
  shutdown: [];
  /** It was moved to these processors; its threads have been told. */
  placement: [cpus: readonly number[]];
  /** The daemon was killed, and another has taken over: what was open is open. Requests under way may have failed. */
  resumed: [];
  /** Domain `by` (0: the daemon) gave this one a capability. */
  'cap-granted': [capability: CapInfo, by: number];
  /** These capabilities go in `graceMs`, and what hangs on them. Deleting them before ends the wait. */
  'cap-revoking': [caps: readonly number[], graceMs: number];
  /** These capabilities are gone. */
  'cap-revoked': [caps: readonly number[]];
  /** Capabilities for a region of ours are gone, but these domains may have it mapped until they end. */
  'region-held': [region: number, domains: readonly number[]];
}

export class Domain extends EventEmitter<DomainEvents> {
  readonly #channel: ControlChannel;
  readonly #vnics = new Map<number, Vnic>();
  readonly #endpoints = new Endpoints((op, args) => this.request(op, args));
  /** The tree in which domains find what others offer. */
  readonly names = new Names((op, args) => this.request(op, args));
  /** How many daemons had taken over when a VNIC was opened. */
  readonly #takeovers = new WeakMap<Vnic, number>();
  #info: ReplyOf<'hello'> | null = null;
  /** Where it was placed; empty: anywhere. */
  #cpus: readonly number[] = [];

  /** Use `connect`. Takes over `fd`. */
  constructor(fd: number) {
    super();
    this.#channel = new ControlChannel(fd, {
      // An event may be read in the same turn as the answer to `vnic.open` that it follows: who awaits that goes first.
      onEvent: (name, body, fds, takeovers) => {
        setImmediate(() => {
          if (name === 'resumed') this.#onResumed(body as EventOf<'resumed'>, takeovers);
          else this.#onEvent(name, body, fds);
        });
      },
      onClose: (reason) => this.#onClose(reason),
    });
  }

  /** Say hello. Rejects with ARK_UNSUPPORTED when the daemon speaks another protocol. */
  async hello(name: string | undefined): Promise<this> {
    const args = { protocol: PROTOCOL_VERSION, ...(name === undefined ? {} : { name }) };
    try {
      this.#info = (await this.#channel.request('hello', args)).reply;
    } catch (error) {
      const { code } = error as ArrakisError;
      if (code !== 'ARK_NO_DAEMON' || this.#channel.closed) throw error;
      // The daemon was killed just then; the channel of a prepared domain outlives it.
      this.#info = (await this.#channel.request('hello', args)).reply;
    }
    return this;
  }

  /** What the daemon said of itself and of this domain. */
  get info(): ReplyOf<'hello'> {
    if (this.#info === null) throw new ArrakisError('ARK_NOT_PERMITTED', 'hello comes first');
    return this.#info;
  }

  get vnics(): readonly Vnic[] {
    return [...this.#vnics.values()];
  }

  /**
   * Open a VNIC: a prepared one (the next, or the one of that name), or by `spec` where this user may. Without a spec
   * and with nothing prepared it is one of soft0 with the next free address. Rejects with the daemon's errors.
   */
  openVnic(spec?: string | VnicSpec, options: OpenOptions = {}): Promise<Vnic> {
    return this.#open(this.#openArgs(spec), options);
  }

  /** Open the VNIC of another domain, which granted capability `cap` for it with the right `open`. */
  openGranted(cap: number, options: OpenOptions = {}): Promise<Vnic> {
    return this.#open({ cap }, options);
  }

  async #open(args: ArgsOf<'vnic.open'>, { offload = false }: OpenOptions): Promise<Vnic> {
    const { reply, fds, takeovers } = await this.#channel.request('vnic.open', args);
    let vnic: Vnic;
    try {
      vnic = new Vnic(reply, openSession(reply, fds, offload), {
        closeVnic: (id, keep) => this.#closeVnic(id, keep),
        request: async (op, args) => (await this.#channel.request(op, args)).reply,
        cpus: () => this.#cpus,
        alive: () => !this.#channel.closed,
      });
    } catch (error) {
      await this.#closeVnic(reply.vnic, false);
      throw error;
    }
    this.#takeovers.set(vnic, takeovers);
    this.#vnics.set(vnic.id, vnic);
    return vnic;
  }

  /** Move this thread to `cpus`, and the threads of every VNIC, spread over them. */
  place(cpus: readonly number[]): void {
    setAffinity(cpus);
    this.#cpus = cpus;
    for (const vnic of this.vnics) vnic.place(cpus);
  }

  /** What this domain may do: its capabilities, by ascending number. */
  async capabilities(): Promise<CapInfo[]> {
    const all: CapInfo[] = [];
    for (let omitted = 1; omitted > 0; ) {
      const after = all.at(-1)?.cap ?? 0;
      const page = await this.request('cap.list', { holder: this.info.domain, after });
      all.push(...page.reply.capabilities);
      ({ omitted } = page.reply);
    }
    return all;
  }

  /** A capability with fewer rights or a smaller range than `cap`. ARK_NOT_PERMITTED when something would grow. */
  async derive(cap: number, less: CapNarrowing = {}): Promise<CapInfo> {
    return (await this.request('cap.derive', { cap, ...less })).reply;
  }

  /** Derive a capability for domain `to`. Takes the right `grant`. */
  async grant(cap: number, to: number, less: CapNarrowing = {}): Promise<CapInfo> {
    return (await this.request('cap.grant', { cap, to, ...less })).reply;
  }

  /**
   * Take back everything that was derived from `cap`, or with `whole` the capability as well. Its holders are told and
   * have `graceMs`; resolves when it has happened, on the data plane too: the number of capabilities that went.
   */
  async revoke(cap: number, options: RevokeOptions = {}): Promise<number> {
    const { whole = false, ...grace } = options;
    const op = whole ? 'cap.delete' : 'cap.revoke';
    return (await this.request(op, { cap, ...grace })).reply.removed;
  }

  /** Memory to share with other domains; zeroed, whole pages. ARK_LIMIT. */
  async createRegion(bytes: number, options: { name?: string } = {}): Promise<Region> {
    const { reply } = await this.request('region.create', { bytes, ...options });
    return this.openRegion(reply.cap);
  }

  /** The region that capability `cap` is for, mapped with the capability's rights. */
  openRegion(cap: number): Promise<Region> {
    return Region.open(cap, (op, args) => this.request(op, args));
  }

  /** Listen at a name, such as `/app/kv`: `for await (const channel of await domain.listen(path))`. */
  listen<T = unknown>(
    path: string,
    options: ListenOptions<T> = {},
  ): Promise<Listener<EndpointChannel<T>>> {
    return this.#endpoints.listen(path, options);
  }

  /** A channel to whoever listens at a path, or at the endpoint of a capability. */
  connect<T = unknown>(
    to: ConnectTo,
    options: { codec?: Codec<T> } = {},
  ): Promise<EndpointChannel<T>> {
    return this.#endpoints.connect(to, options.codec);
  }

  /** As `listen`, for those who poll raw links themselves, and close them. */
  listenLinks(
    path: string,
    options: Omit<ListenOptions<never>, 'codec'> = {},
  ): Promise<Listener<PeerLink>> {
    return this.#endpoints.listenLinks(path, options);
  }

  connectLink(to: ConnectTo): Promise<PeerLink> {
    return this.#endpoints.connectLink(to);
  }

  /** Processors that this domain was placed on, in the order in which threads take them; empty: anywhere. */
  get cpus(): readonly number[] {
    return this.#cpus;
  }

  #onPlacement(cpus: readonly number[]): void {
    try {
      this.place(cpus);
      this.emit('placement', cpus);
    } catch (error) {
      // Such as in a container that may not use them: the application goes on where it is.
      process.emitWarning(`not moved to processors ${cpus}: ${(error as Error).message}`);
    }
  }

  /** Any operation of the protocol (docs/protocol.md). The caller owns the descriptors of the answer. */
  request<O extends Operation>(
    op: O,
    args: ArgsOf<O>,
    fds: readonly number[] = [],
  ): Promise<Answer<O>> {
    // The kernel would refuse the descriptors (EPERM), which looks like a lost connection.
    if (fds.length > 0 && !this.info.privileged) return Promise.reject(notForUsers(op));
    return this.#channel.request(op, args, fds);
  }

  /** Close every VNIC, every channel and the connection. Idempotent. */
  async close(): Promise<void> {
    this.#endpoints.close();
    try {
      await Promise.all(this.vnics.map((vnic) => vnic.close()));
    } finally {
      this.#channel.close();
    }
  }

  #openArgs(spec: string | VnicSpec | undefined): ArgsOf<'vnic.open'> {
    const { prepared } = this.info;
    if (spec === undefined) return prepared.length > 0 ? {} : { spec: { device: 'soft0' } };
    if (typeof spec !== 'string') return { spec };
    return prepared.includes(spec) ? { name: spec } : { spec: parseVnicSpec(spec) };
  }

  /** The daemon may have taken it back already, or be gone: then there is nothing to give back. */
  async #closeVnic(id: number, keep: boolean): Promise<void> {
    this.#vnics.delete(id);
    if (this.#channel.closed) return;
    try {
      await this.#channel.request('vnic.close', { vnic: id, ...(keep ? { keep } : {}) });
    } catch (error) {
      const { code } = error as ArrakisError;
      if (code !== 'ARK_NOT_FOUND' && code !== 'ARK_NO_DAEMON') throw error;
    }
  }

  /** Another daemon serves us: compare what we have with what it knows of. */
  #onResumed({ pid, version, vnics }: EventOf<'resumed'>, takeovers: number): void {
    if (this.#info !== null) this.#info = { ...this.#info, pid, version };
    for (const vnic of this.vnics) {
      // Who recorded it was a connection that the old daemon served.
      vnic.stopCapture();
      if (this.#takeovers.get(vnic)! < takeovers && !vnics.includes(vnic.id)) {
        vnic.markGone('it was lost with the daemon that was killed');
      }
    }
    for (const id of vnics) {
      if (!this.#vnics.has(id)) this.#closeVnic(id, false).catch(() => {});
    }
    for (const vnic of this.vnics) if (!vnic.gone) vnic.resumed();
    void this.names.resumed();
    this.emit('resumed');
  }

  #onClose(reason: string): void {
    for (const vnic of this.vnics) vnic.controlLost();
    this.#endpoints.controlLost(reason);
    this.names.controlLost();
    this.emit('control-lost', reason);
  }

  #onEvent(name: EventName, body: unknown, fds: number[]): void {
    if (this.#endpoints.onEvent(name, body, fds) || this.names.onEvent(name, body)) return;
    if (name === 'shutdown') this.emit('shutdown');
    else if (name === 'placement') this.#onPlacement((body as EventOf<'placement'>).cpus);
    else if (name === 'region.held') {
      const { region, domains } = body as EventOf<'region.held'>;
      this.emit('region-held', region, domains);
    } else if (name === 'cap.granted') {
      const { capability, by } = body as EventOf<'cap.granted'>;
      this.emit('cap-granted', capability, by);
    } else if (name === 'cap.revoking') {
      const { caps, graceMs } = body as EventOf<'cap.revoking'>;
      this.emit('cap-revoking', caps, graceMs);
    } else if (name === 'cap.revoked') {
      this.emit('cap-revoked', (body as EventOf<'cap.revoked'>).caps);
    } else if (name === 'vnic.gone') {
      const { vnic, reason } = body as EventOf<'vnic.gone'>;
      this.#vnics.get(vnic)?.markGone(reason);
    } else if (name === 'network.changed') {
      const { vnic, ...network } = body as EventOf<'network.changed'>;
      this.#vnics.get(vnic)?.emit('network', network);
    } else if (name === 'vnic.queue-broken') {
      const { vnic, queue, reason } = body as EventOf<'vnic.queue-broken'>;
      this.#vnics.get(vnic)?.emit('queue-broken', queue, reason);
    } else if (name === 'vnic.reattach') {
      const vnic = this.#vnics.get((body as EventOf<'vnic.reattach'>).vnic);
      if (vnic !== undefined && fds.length === 1) {
        vnic.reattach(fds[0]!);
        return;
      }
    } else if (name === 'capture.stop') {
      this.#vnics.get((body as EventOf<'capture.stop'>).vnic)?.stopCapture();
    } else if (fds.length === 1) {
      const { vnic, snaplen } = body as EventOf<'capture'>;
      const target = this.#vnics.get(vnic);
      if (target !== undefined && !target.gone) {
        target.startCapture(fds[0]!, snaplen);
        return;
      }
    }
    closeAll(fds);
  }
}

/**
 * Become a domain of the control plane. `ARRAKIS_CPUS`, if set, pins this thread. Rejects with ARK_NO_DAEMON and the
 * command that starts one.
 */
export async function connect(options: ConnectOptions = {}): Promise<Domain> {
  const cpus = process.env.ARRAKIS_CPUS;
  const domain = new Domain(openControlSocket({ socket: options.socket }));
  if (cpus !== undefined && cpus !== '') domain.place(parseCpus(cpus));
  try {
    return await domain.hello(options.name);
  } catch (error) {
    await domain.close();
    throw error;
  }
}

function notForUsers(op: Operation): ArrakisError {
  return new ArrakisError('ARK_NOT_PERMITTED', `${op}: this domain may not send descriptors`, {
    hint: "ask as root or as the daemon's own user, over a connection of its own",
  });
}
