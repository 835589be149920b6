/**
 * A device process under supervision: started, asked, restarted when it dies.
 *
 * - It is ours but it is another process: a reply that makes no sense, or none in time, is its failure, not ours.
 * - It ends by itself when its control channel (descriptor 3) ends, so a killed daemon leaves none behind.
 * - Every start is a new generation; what was set up in an earlier one is gone.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { z } from 'zod';
import { ArrakisError, ERROR_CODES, type ErrorCode } from '../../base/errors.ts';
import { closeFd, closeForeign } from '../../ffi/fd.ts';
import { passRights, SOCK_SEQPACKET, socketPair } from '../../ffi/unix.ts';
import { type ChannelEvents, MessageChannel } from '../channel.ts';
import { LIMITS } from '../limits.ts';
import type { Log } from '../log.ts';

const CONTROL_FD = 3;

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
  /** A process has been started and takes requests: set up what every generation needs. */
  onStart(): void;
  /** It died, and is going to be restarted. */
  onExit(reason: string): void;
  onEvent(event: string, message: DeviceMessage): void;
}

interface Pending {
  resolve: (message: DeviceMessage) => void;
  reject: (error: ArrakisError) => void;
  timer: NodeJS.Timeout;
}

export class DeviceProcess {
  readonly #options: DeviceProcessOptions;
  readonly #pending = new Map<number, Pending>();
  #child: ChildProcess | null = null;
  #channel: MessageChannel | null = null;
  #nextId = 1;
  #restartTimer: NodeJS.Timeout | null = null;
  #waiters: (() => void)[] = [];
  #failures = 0;
  #pauseMs = 0;
  #closing = false;
  /** Counts starts. */
  generation = 0;
  restarts = 0;

  constructor(options: DeviceProcessOptions) {
    this.#options = options;
    this.#start();
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get state(): 'running' | 'restarting' | 'backing off' | 'closed' {
    if (this.#closing) return 'closed';
    if (this.#channel !== null) return 'running';
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
    const channel = this.#channel;
    if (channel === null) throw this.#dead('it does not run');
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(this.#dead(`it did not answer ${op} within ${LIMITS.deviceRequestMsMax} ms`));
        // What cannot answer cannot be trusted to have done it or not: a fresh one can.
        this.#child?.kill('SIGKILL');
      }, LIMITS.deviceRequestMsMax);
      this.#pending.set(id, { resolve, reject, timer });
      channel.send({ id, op, ...args }, fds);
    });
  }

  /** End it: by the end of its control channel, by SIGKILL if that is not enough. Resolves when it is gone. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#restartTimer !== null) clearTimeout(this.#restartTimer);
    for (const wake of this.#waiters.splice(0)) wake();
    const child = this.#child;
    if (child === null) return;
    const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
    this.#channel?.close('the daemon ends it');
    const timer = setTimeout(() => child.kill('SIGKILL'), LIMITS.shutdownMsMax);
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
      });
    } catch (error) {
      closeFd(ours);
      throw error;
    } finally {
      closeFd(theirs);
    }
    const startedMs = Date.now();
    this.generation++;
    this.#child = child;
    let ended = false;
    const end = (reason: string): void => {
      if (ended) return;
      ended = true;
      if (Date.now() - startedMs > LIMITS.deviceHealthyMs) this.#failures = 0;
      this.#ended(reason);
    };
    child.once('error', (error) => end(error.message));
    child.once('exit', (code, signal) => end(signal === null ? `exit code ${code}` : signal));
    const events: ChannelEvents = {
      onMessage: (text, fds) => {
        closeForeign(fds);
        this.#onMessage(text);
      },
      onOversized: () => child.kill('SIGKILL'),
      // Without its channel a process is of no use; its exit does the rest.
      onClose: () => {
        if (!this.#closing) child.kill('SIGKILL');
      },
    };
    // It has nothing to send but text; hostile applications talk to it.
    passRights(ours, false);
    this.#channel = new MessageChannel(ours, events, { foreign: true });
    log('info', 'device process started', { device: name, pid: child.pid, fd: CONTROL_FD });
    this.#options.onStart();
    for (const wake of this.#waiters.splice(0)) wake();
  }

  #ended(reason: string): void {
    const { name, log } = this.#options;
    this.#channel?.close('the process ended');
    this.#channel = null;
    this.#child = null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject, timer } of pending) {
      clearTimeout(timer);
      reject(this.#dead(`it ended: ${reason}`));
    }
    if (this.#closing) return;
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
    if (this.state === 'backing off') for (const wake of this.#waiters.splice(0)) wake();
    this.#options.onExit(reason);
  }

  #restart(): void {
    this.restarts++;
    try {
      this.#start();
    } catch (error) {
      this.#ended((error as Error).message);
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
      this.#child?.kill('SIGKILL');
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
