/**
 * The daemon's side of the keeper (src/keeper): a process that only holds descriptors, so that they outlive a daemon
 * that is killed.
 *
 * - What is deposited stays the daemon's, and open: a keeper that dies is replaced, and is given everything again.
 * - Messages are handed to the kernel before `put` and `delete` return; nothing that happens to the daemon afterwards
 *   takes them back. Waits are bounded.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { isErrno } from '../base/errors.ts';
import { closeFd, isOpen, POLLIN, pollOne } from '../ffi/fd.ts';
import {
  connectUnix,
  listenUnix,
  receiveMessage,
  SCM_MAX_FD,
  SOCK_SEQPACKET,
  sendMessage,
  setTimeouts,
} from '../ffi/unix.ts';
import { FdWatch } from '../ffi/watch.ts';
import { encode, type KeeperRequest, MESSAGE_BYTES_MAX, parseAnswer } from '../keeper/protocol.ts';
import { LIMITS } from './limits.ts';
import type { Log } from './log.ts';
import { keeperPath } from './paths.ts';

const SOCKET_MODE = 0o600;

/** In the environment of a keeper: the run directory of its daemon (leftovers.ts). */
export const KEEPER_VARIABLE = 'ARRAKIS_KEEPER_OF';

const keeperScript = (): string => fileURLToPath(new URL('../keeper/main.js', import.meta.url));

export interface KeeperOptions {
  /** Run directory of the daemon. */
  readonly dir: string;
  /** How long it keeps things without a daemon. */
  readonly keepMs: number;
  readonly log: Log;
  /** Where its stderr goes. */
  readonly logFd: number;
}

export class KeeperClient {
  readonly #options: KeeperOptions;
  readonly #deposits = new Map<string, readonly number[]>();
  #fd = -1;
  #watch: FdWatch | null = null;
  #restart: NodeJS.Timeout | null = null;
  #startedMs = 0;
  #failures = 0;
  #closed = false;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /**
   * The keeper of the daemon before us, with all that it holds, by label; a new one when there is none. The caller owns
   * the descriptors, and deposits or deletes each label.
   */
  open(): Map<string, number[]> {
    if (this.#connect()) {
      const kept = this.#take();
      if (kept !== null) {
        this.#serve();
        return kept;
      }
      closeFd(this.#fd);
      this.#fd = -1;
    }
    this.#start();
    return new Map();
  }

  /** Have `fds` kept under `label`, in place of what was. They stay the caller's, and open until `delete`. */
  put(label: string, fds: readonly number[]): void {
    this.#deposits.set(label, fds);
    this.#send({ op: 'put', label }, fds);
  }

  /** As `put`, for what this keeper gave us under `label` and still has. */
  adopt(label: string, fds: readonly number[]): void {
    this.#deposits.set(label, fds);
  }

  /** Idempotent. */
  delete(label: string): void {
    this.#deposits.delete(label);
    this.#send({ op: 'delete', label });
  }

  /** End the keeper: with it goes the last of what nobody else holds. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#send({ op: 'end' });
    // Whoever starts next must not find what it held in use.
    if (this.#fd >= 0) pollOne(this.#fd, POLLIN, LIMITS.keeperAnswerMsMax);
    this.#closed = true;
    if (this.#restart !== null) clearTimeout(this.#restart);
    this.#disconnect();
    fs.rmSync(keeperPath(this.#options.dir), { force: true });
  }

  /** False when nobody listens. */
  #connect(): boolean {
    try {
      this.#fd = connectUnix(keeperPath(this.#options.dir), SOCK_SEQPACKET);
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ECONNREFUSED')) return false;
      throw error;
    }
    setTimeouts(this.#fd, LIMITS.keeperAnswerMsMax);
    return true;
  }

  /** Null when it ended, or did not answer, half-way. */
  #take(): Map<string, number[]> | null {
    const kept = new Map<string, number[]>();
    const buffer = Buffer.alloc(MESSAGE_BYTES_MAX);
    try {
      sendMessage(this.#fd, encode({ op: 'take' }));
      for (;;) {
        const received = receiveMessage(this.#fd, buffer, SCM_MAX_FD);
        const answer =
          received === null ? null : parseAnswer(buffer.toString('utf8', 0, received.length));
        if (received === null || answer === null) break;
        if ('end' in answer) return kept;
        kept.set(answer.label, received.fds);
      }
    } catch (error) {
      if (!isErrno(error, 'EPIPE', 'ECONNRESET')) throw error;
    }
    for (const fds of kept.values()) for (const fd of fds) closeFd(fd);
    return null;
  }

  #start(): void {
    const { dir, keepMs, logFd, log } = this.#options;
    const path = keeperPath(dir);
    fs.rmSync(path, { force: true });
    const listenFd = listenUnix(path, SOCK_SEQPACKET);
    let child: ChildProcess;
    try {
      fs.chmodSync(path, SOCKET_MODE);
      child = spawn(process.execPath, [keeperScript(), `--keep-ms=${keepMs}`], {
        stdio: ['ignore', 'ignore', logFd, listenFd],
        env: { PATH: process.env.PATH ?? '/usr/bin:/bin', [KEEPER_VARIABLE]: dir },
        // What ends the daemon's process group or terminal does not mean the keeper.
        detached: true,
      });
    } finally {
      closeFd(listenFd);
    }
    child.once('error', (error) => log('error', 'no keeper', { error: error.message }));
    child.unref();
    this.#startedMs = performance.now();
    // It accepts when it has come up; until then messages wait in the socket.
    if (!this.#connect()) {
      this.#lost('nobody listens');
      return;
    }
    log('info', 'keeper started', { pid: child.pid, keepMs });
    this.#serve();
    for (const [label, fds] of this.#deposits) {
      // A connection that has just ended is deleted in the next turn.
      if (fds.every(isOpen)) this.#send({ op: 'put', label }, fds);
    }
  }

  /** It says nothing unasked: what can be read is its end. */
  #serve(): void {
    const fd = this.#fd;
    this.#watch = new FdWatch(fd, () => this.#lost('it ended')).unref();
  }

  #send(request: KeeperRequest, fds: readonly number[] = []): void {
    if (this.#fd < 0) return;
    try {
      if (sendMessage(this.#fd, encode(request), fds) >= 0) return;
      this.#lost(`it took nothing for ${LIMITS.keeperAnswerMsMax} ms`);
    } catch (error) {
      // Also when too many descriptors are under way to one that does not read (ETOOMANYREFS).
      this.#lost((error as Error).message);
    }
  }

  #disconnect(): void {
    this.#watch?.close();
    this.#watch = null;
    if (this.#fd >= 0) closeFd(this.#fd);
    this.#fd = -1;
  }

  #lost(reason: string): void {
    this.#disconnect();
    if (this.#closed || this.#restart !== null) return;
    const lived = performance.now() - this.#startedMs;
    if (lived > LIMITS.deviceHealthyMs) this.#failures = 0;
    const doubled = LIMITS.deviceRestartMsFirst * 2 ** this.#failures++;
    const pauseMs = Math.min(doubled, LIMITS.deviceRestartMsMax);
    this.#options.log('warn', 'keeper lost', { reason, pauseMs });
    this.#restart = setTimeout(() => {
      this.#restart = null;
      try {
        this.#start();
      } catch (error) {
        this.#lost((error as Error).message);
      }
    }, pauseMs);
  }
}
