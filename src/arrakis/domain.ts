/**
 * A protection domain, from the inside: this process as the control plane knows it.
 *
 * `connect()` finds the daemon; `openVnic()` gives a VNIC whose packets then need nobody's leave. When the control channel
 * closes the domain says 'control-lost' and closes nothing; but the devices of a daemon that ended do not outlive it.
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
import { type Answer, ControlChannel, openControlSocket } from './client.ts';
import { openSession } from './pairs.ts';
import { Vnic } from './vnic.ts';

export interface ConnectOptions {
  /** Control socket; default: `ARRAKIS_FD`, `ARRAKIS_SOCKET`, then the usual places. */
  readonly socket?: string;
  /** What the daemon calls this domain. */
  readonly name?: string;
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
  /**
   * The daemon is gone, or closed the channel. The software NIC ends with its daemon: VNICs of soft0 say 'gone'. XDP
   * programs are the daemon's too: a VNIC of an interface falls silent, and nothing else tells of it.
   */
  'control-lost': [reason: string];
  /** The daemon is about to end. */
  shutdown: [];
  /** Domain `by` (0: the daemon) gave this one a capability. */
  'cap-granted': [capability: CapInfo, by: number];
  /** These capabilities go in `graceMs`, and what hangs on them. Deleting them before ends the wait. */
  'cap-revoking': [caps: readonly number[], graceMs: number];
  /** These capabilities are gone. */
  'cap-revoked': [caps: readonly number[]];
}

export class Domain extends EventEmitter<DomainEvents> {
  readonly #channel: ControlChannel;
  readonly #vnics = new Map<number, Vnic>();
  #info: ReplyOf<'hello'> | null = null;
  /** Where it was placed; empty: anywhere. */
  #cpus: readonly number[] = [];

  /** Use `connect`. Takes over `fd`. */
  constructor(fd: number) {
    super();
    this.#channel = new ControlChannel(fd, {
      // An event may be read in the same turn as the answer to `vnic.open` that it follows: who awaits that goes first.
      onEvent: (name, body, fds) => void setImmediate(() => this.#onEvent(name, body, fds)),
      onClose: (reason) => this.#onClose(reason),
    });
  }

  /** Say hello. Rejects with ARK_UNSUPPORTED when the daemon speaks another protocol. */
  async hello(name: string | undefined): Promise<this> {
    const args = { protocol: PROTOCOL_VERSION, ...(name === undefined ? {} : { name }) };
    this.#info = (await this.#channel.request('hello', args)).reply;
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
  openVnic(spec?: string | VnicSpec): Promise<Vnic> {
    return this.#open(this.#openArgs(spec));
  }

  /** Open the VNIC of another domain, which granted capability `cap` for it with the right `open`. */
  openGranted(cap: number): Promise<Vnic> {
    return this.#open({ cap });
  }

  async #open(args: ArgsOf<'vnic.open'>): Promise<Vnic> {
    const { reply, fds } = await this.#channel.request('vnic.open', args);
    let vnic: Vnic;
    try {
      vnic = new Vnic(reply, openSession(reply, fds), {
        closeVnic: (id, keep) => this.#closeVnic(id, keep),
        setFilters: async (id, filters) => {
          await this.#channel.request('filter.set', { vnic: id, filters: [...filters] });
        },
        cpus: () => this.#cpus,
      });
    } catch (error) {
      await this.#closeVnic(reply.vnic, false);
      throw error;
    }
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

  /** Close every VNIC and the connection. Idempotent. */
  async close(): Promise<void> {
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

  /** XDP programs live by the daemon's descriptors: without it nothing reaches a VNIC on an interface any more. */
  #onClose(reason: string): void {
    for (const vnic of this.vnics) {
      if (vnic.driver === 'af-xdp') vnic.markGone('the control plane ended');
    }
    this.emit('control-lost', reason);
  }

  #onEvent(name: EventName, body: unknown, fds: number[]): void {
    if (name === 'shutdown') this.emit('shutdown');
    else if (name === 'cap.granted') {
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
