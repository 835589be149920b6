/**
 * A device process under supervision: started, asked, restarted when it dies.
 *
 * - It is ours but it is another process: a reply that makes no sense, or none in time, is its failure, not ours.
 * - It ends by itself when its control channel (descriptor 3) ends. A killed daemon's is held by the keeper: the next
 *   daemon takes the channel over and goes on with the process, which is then not its child.
 * - Every start is a new generation; what was set up in an earlier one is gone.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { z } from 'zod';
import { ArrakisError, ERROR_CODES, type ErrorCode } from '../../base/errors.ts';
import { closeFd, closeForeign } from '../../ffi/fd.ts';
import { pidfdEnded, pidfdOpen, pidfdSignal } from '../../ffi/pidfd.ts';
import { passRights, SOCK_SEQPACKET, socketPair } from '../../ffi/unix.ts';
import { FdWatch } from '../../ffi/watch.ts';
import { type ChannelEvents, MessageChannel } from '../channel.ts';
import { LIMITS } from '../limits.ts';
import type { Log } from '../log.ts';
import type { Saved } from './device.ts';

const CONTROL_FD = 3;
const SIGKILL = 9;
/** Requests of one daemon. The next one's have other ids, so that it does not take an answer that came late for its own. */
const IDS_PER_DAEMON = 2 ** 32;

const messageSchema = z.union([
  z.looseObject({ event: z.string() }),
  z.looseObject({
    id: z.int(),
    ok: z.boolean(),
    code: z.string().optional(),
    message: z.string().optional(),
  }),
]);

/** In the environment of a device process: the run directory of its daemon. The proof of whose it is (leftovers.ts). */
export const OWNER_VARIABLE = 'ARRAKIS_DEVICE_OF';

export type DeviceMessage = Record<string, unknown>;

export interface DeviceProcessOptions {
  readonly name: string;
  /** Run directory of the daemon. */
  readonly owner: string;
  /** The compiled entry point and its arguments. */
  readonly script: string;
  readonly args: readonly string[];
  /** Where its stderr goes. */
  readonly logFd: number;
  readonly log: Log;
  /** Which daemon in the life of the run directory this is. */
  readonly incarnation: number;
  /** The process of the daemon before, to go on with. */
  readonly inherited?: InheritedProcess | undefined;
  /** What `save` says is not what it was. */
  onChange(): void;
  /** A process has been started and takes requests: set up what every generation needs. */
  onStart(): void;
  onEvent(event: string, message: DeviceMessage): void;
}

/** A device process that another daemon started. Owned by whoever has it. */
export interface InheritedProcess {
  readonly pid: number;
  readonly generation: number;
  readonly restarts: number;
  readonly channelFd: number;
  readonly pidfd: number;
}

/** Of one process. */
interface Running {
  readonly pid: number;
  readonly pidfd: number;
  readonly channel: MessageChannel;
  readonly startedMs: number;
  /** Of a process that is not our child. */
  readonly watch: FdWatch | null;
}

interface Pending {
  resolve: (message: DeviceMessage) => void;
  reject: (error: ArrakisError) => void;
  timer: NodeJS.Timeout;
}

export class DeviceProcess {
  readonly #options: DeviceProcessOptions;
  readonly #pending = new Map<number, Pending>();
  #running: Running | null = null;
  #nextId: number;
  #restartTimer: NodeJS.Timeout | null = null;
  #waiters: (() => void)[] = [];
  #failures = 0;
  #pauseMs = 0;
  #closing = false;
  #onceGone: (() => void) | null = null;
  /** Counts starts. */
  generation = 0;
  restarts = 0;

  constructor(options: DeviceProcessOptions) {
    this.#options = options;
    this.#nextId = options.incarnation * IDS_PER_DAEMON + 1;
    if (options.inherited === undefined) this.#start();
    else this.#adopt(options.inherited);
  }

  get pid(): number {
    return this.#running?.pid ?? 0;
  }

  /** For the next daemon: channel and pidfd are its descriptors; none while no process runs. */
  save(): Saved {
    const { pid, generation, restarts } = this;
    const running = this.#running;
    const fds = running === null ? [] : [running.channel.fd, running.pidfd];
    return { state: { pid, generation, restarts }, fds };
  }

  get state(): 'running' | 'restarting' | 'backing off' | 'closed' {
    if (this.#closing) return 'closed';
    if (this.#running !== null) return 'running';
    // A request waits for a restart, but not for a pause that is longer than its own limit.
    return this.#pauseMs > LIMITS.deviceRequestMsMax ? 'backing off' : 'restarting';
  }

  /** Ask it; waits for a restart under way. The descriptors stay the caller's. */
  async request(
    op: string,
    args: DeviceMessage,
    fds: readonly number[] = [],
  ): Promise<DeviceMessage> {
    if (this.state === 'restarting') await this.#restarted();
    const running = this.#running;
    if (running === null) throw this.#dead('it does not run');
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(this.#dead(`it did not answer ${op} within ${LIMITS.deviceRequestMsMax} ms`));
        // What cannot answer cannot be trusted to have done it or not: a fresh one can.
        this.#kill();
      }, LIMITS.deviceRequestMsMax);
      this.#pending.set(id, { resolve, reject, timer });
      running.channel.send({ id, op, ...args }, fds);
    });
  }

  /** End it: by the end of its control channel, by SIGKILL if that is not enough. Resolves when it is gone. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#restartTimer !== null) clearTimeout(this.#restartTimer);
    for (const wake of this.#waiters.splice(0)) wake();
    const running = this.#running;
    if (running === null) return;
    const gone = new Promise<void>((resolve) => {
      this.#onceGone = resolve;
    });
    running.channel.close('the daemon ends it');
    const timer = setTimeout(() => this.#kill(), LIMITS.shutdownMsMax);
    await gone;
    clearTimeout(timer);
  }

  #start(): void {
    this.#restartTimer = null;
    const { name, script, args, logFd, log, owner } = this.#options;
    const [ours, theirs] = socketPair(SOCK_SEQPACKET);
    let child: ChildProcess;
    try {
      child = spawn(process.execPath, [script, ...args], {
        stdio: ['ignore', 'ignore', logFd, theirs],
        // Nothing of the daemon's environment steers a device process; it only says whose it is.
        env: { PATH: process.env.PATH ?? '/usr/bin:/bin', [OWNER_VARIABLE]: owner },
        // It goes on when the daemon's process group or terminal ends.
        detached: true,
      });
    } catch (error) {
      closeFd(ours);
      throw error;
    } finally {
      closeFd(theirs);
    }
    if (child.pid === undefined) {
      child.once('error', () => {});
      closeFd(ours);
      throw this.#dead('it could not be started');
    }
    // Not yet waited for, so the number is still its own, even if it has ended.
    const pidfd = pidfdOpen(child.pid);
    this.generation++;
    const running = this.#run(child.pid, pidfd, ours, null);
    child.once('exit', (code, signal) =>
      this.#ended(running, signal === null ? `exit code ${code}` : signal),
    );
    // It has nothing to send but text; hostile applications talk to it.
    passRights(ours, false);
    log('info', 'device process started', { device: name, pid: child.pid, fd: CONTROL_FD });
    this.#options.onChange();
    this.#options.onStart();
    for (const wake of this.#waiters.splice(0)) wake();
  }

  #adopt(inherited: InheritedProcess): void {
    const { pid, pidfd, channelFd, generation, restarts } = inherited;
    this.generation = generation;
    this.restarts = restarts;
    const watch = new FdWatch(pidfd, () => this.#ended(running, 'it ended'));
    const running = this.#run(pid, pidfd, channelFd, watch);
    const { name, log } = this.#options;
    log('info', 'device process taken over', { device: name, pid });
    if (pidfdEnded(pidfd)) this.#ended(running, 'it ended while there was no daemon');
  }

  #run(pid: number, pidfd: number, channelFd: number, watch: FdWatch | null): Running {
    const events: ChannelEvents = {
      onMessage: (text, fds) => {
        closeForeign(fds);
        this.#onMessage(text);
      },
      onOversized: () => this.#kill(),
      // Without its channel a process is of no use; its exit does the rest.
      onClose: () => {
        if (!this.#closing && this.#running === running) this.#kill();
      },
    };
    const channel = new MessageChannel(channelFd, events, { foreign: true });
    const running: Running = { pid, pidfd, channel, startedMs: Date.now(), watch };
    this.#running = running;
    return running;
  }

  #kill(): void {
    if (this.#running !== null) pidfdSignal(this.#running.pidfd, SIGKILL);
  }

  #ended(running: Running, reason: string): void {
    if (this.#running !== running) return;
    if (Date.now() - running.startedMs > LIMITS.deviceHealthyMs) this.#failures = 0;
    this.#running = null;
    running.watch?.close();
    running.channel.close('the process ended');
    closeFd(running.pidfd);
    this.#onceGone?.();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject, timer } of pending) {
      clearTimeout(timer);
      reject(this.#dead(`it ended: ${reason}`));
    }
    if (!this.#closing) this.#restartLater(reason);
  }

  #restartLater(reason: string): void {
    const { name, log } = this.#options;
    const pauseMs = LIMITS.deviceRestartMsFirst * 2 ** this.#failures++;
    this.#pauseMs = Math.min(pauseMs, LIMITS.deviceRestartMsMax);
    const { restarts } = this;
    log('error', 'device process ended', {
      device: name,
      reason,
      restarts,
      pauseMs: this.#pauseMs,
    });
    this.#restartTimer = setTimeout(() => this.#restart(), this.#pauseMs);
    this.#options.onChange();
    if (this.state === 'backing off') for (const wake of this.#waiters.splice(0)) wake();
  }

  #restart(): void {
    this.restarts++;
    try {
      this.#start();
    } catch (error) {
      this.#restartLater((error as Error).message);
    }
  }

  #restarted(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, LIMITS.deviceRequestMsMax);
      function done(): void {
        clearTimeout(timer);
        resolve();
      }
      this.#waiters.push(done);
    });
  }

  #onMessage(text: string): void {
    const message = parse(text);
    if (message === null) {
      this.#options.log('error', 'device process spoke nonsense', { device: this.#options.name });
      this.#kill();
      return;
    }
    if (typeof message.event === 'string') {
      this.#options.onEvent(message.event, message);
      return;
    }
    const pending = this.#pending.get(message.id as number);
    if (pending === undefined) return;
    this.#pending.delete(message.id as number);
    clearTimeout(pending.timer);
    if (message.ok === true) pending.resolve(message);
    else pending.reject(refusal(this.#options.name, message));
  }

  #dead(reason: string): ArrakisError {
    return new ArrakisError('ARK_DEVICE', `device process ${this.#options.name}: ${reason}`, {
      hint: "the daemon's log has more; it is restarted by itself",
    });
  }
}

function parse(text: string): DeviceMessage | null {
  try {
    const message = messageSchema.safeParse(JSON.parse(text));
    return message.success ? message.data : null;
  } catch {
    return null;
  }
}

function refusal(name: string, message: DeviceMessage): ArrakisError {
  const { code, message: text } = message;
  const known = typeof code === 'string' && Object.hasOwn(ERROR_CODES, code);
  return new ArrakisError(known ? (code as ErrorCode) : 'ARK_DEVICE', `${name}: ${String(text)}`);
}
