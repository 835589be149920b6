/**
 * The sockets of a direct VNIC that is no more. What goes to it ends with its map entries and flows; what a process sends
 * on a socket that it kept, nothing checks, and no call of the kernel takes a bound socket back (docs/af-xdp.md). So
 * whoever could still send is ended, and nobody else. (Exokernel's abort protocol: first ask, then take by force.)
 *
 *   the VNIC goes ──► everybody lets go ────────────────────────────────────────────────────────► nothing to do
 *      └ LIMITS.repossessMs later: the holder, the process of its domain, when it has one still ─► SIGKILL
 *         └ LIMITS.repossessOthersMs later: others that have its transmit ring mapped ───────────► SIGKILL
 *                                           others of such a process's user that have it at all ─► SIGKILL
 *                                           others that only have it ────► live, watched while they have it
 *
 * - Who only has a descriptor may have been sent it unasked, and could not end that himself: a domain must not get us to
 *   kill for it. It cannot send before it maps the ring, and is then a sender, within WATCH_MS.
 * - The processes of one user may end each other anyway. When one of them is found to send, the others are its supply.
 * - A process is killed through a descriptor of it, after it was looked at again: never another that has its number.
 * - A descriptor that is under way in a Unix socket belongs to no process. The queue of the interface, which only that
 *   socket can still have, tells that there is one: then this goes on looking.
 */
import fs from 'node:fs';
import { isErrno } from '../base/errors.ts';
import { closeFd } from '../ffi/fd.ts';
import { pidfdEnded, pidfdOpen, pidfdSignal } from '../ffi/pidfd.ts';
import { xskQueueIsFree } from '../ffi/xsk.ts';
import { describeProcess, findHolders, type Hold, holdOf } from './holders.ts';
import { LIMITS } from './limits.ts';
import type { Log } from './log.ts';

const SIGKILL = 9;
const INIT = 1;
const POLL_MS = 5;
/** Rounds of looking and killing: each ends all that were seen; only a process that multiplies needs many. */
const ROUNDS_MAX = 64;
/** How long a killed process may take to end, and the kernel to let go of a socket. */
const END_MS_MAX = 2_000;
/** How often those that are known to have a socket are looked at; and everybody, at first and after a while. */
const WATCH_MS = 20;
const SCAN_MS_MIN = 250;
const SCAN_MS_MAX = 4_000;
const SCAN_GROWTH = 1.05;

/** What is to come back. */
export interface Belongings {
  /** Inodes of the sockets. */
  readonly sockets: readonly number[];
  readonly ifIndex: number;
  /** Queues of the interface that the sockets are bound to. */
  readonly queues: readonly number[];
}

export interface RepossessOptions {
  readonly log: Log;
  /** The process that was given the sockets; 0: nobody knows. */
  readonly holder?: number;
  /** Default: LIMITS.repossessMs. */
  readonly graceMs?: number;
  /** The sockets are known to be no more: somebody else has the queue. */
  readonly isOver?: () => boolean;
}

export interface Repossessed {
  /** Processes that were ended. */
  readonly killed: readonly number[];
  /** Resolves when the sockets are no more. */
  readonly back: Promise<void>;
}

export const socketInode = (fd: number): number => fs.fstatSync(fd).ino;

/** Resolves when nobody can be seen who could send on the sockets. */
export async function repossess(
  belongings: Belongings,
  options: RepossessOptions,
): Promise<Repossessed> {
  const repossession = new Repossession(belongings, options);
  return { killed: await repossession.run(), back: repossession.back };
}

class Repossession {
  readonly killed: number[] = [];
  /** Resolves when the sockets are no more. */
  back: Promise<void> = Promise.resolve();
  readonly #belongings: Belongings;
  readonly #options: RepossessOptions;
  readonly #names: readonly string[];
  /** Users of whom a process was found to send. */
  readonly #senders = new Set<number>();
  /** Those that only have a descriptor, and those that do not end. */
  readonly #watched = new Set<number>();
  readonly #immortal = new Set<number>();

  constructor(belongings: Belongings, options: RepossessOptions) {
    this.#belongings = belongings;
    this.#options = options;
    this.#names = belongings.sockets.map((inode) => `socket:[${inode}]`);
  }

  async run(): Promise<number[]> {
    const { graceMs = LIMITS.repossessMs, holder = 0, log } = this.#options;
    if (await within(graceMs, this.#isBack)) return this.killed;
    if (holder > 0 && (await this.#kill(holder, 'it kept its direct VNIC'))) {
      await within(LIMITS.repossessOthersMs, this.#isBack);
    }
    await this.#endSenders('it sends on a direct VNIC that is not its own');
    const pids = [...this.#watched, ...this.#immortal];
    if (await within(pids.length > 0 ? 0 : END_MS_MAX, this.#isBack)) return this.killed;
    const { ifIndex, queues } = this.#belongings;
    const why =
      pids.length > 0 ? 'processes have its socket' : 'its socket may be hidden in another';
    log('error', `a queue of a direct VNIC is still taken: ${why}`, { ifIndex, queues, pids });
    this.back = this.#watch();
    return this.killed;
  }

  readonly #isBack = (): boolean => {
    const { ifIndex, queues } = this.#belongings;
    return (
      this.#options.isOver?.() === true || queues.every((queue) => xskQueueIsFree(ifIndex, queue))
    );
  };

  /** Until the sockets are no more: whoever begins to send is ended. */
  async #watch(): Promise<void> {
    let scanMs = SCAN_MS_MIN;
    while (!this.#isBack()) {
      for (let waited = 0; waited < scanMs; waited += WATCH_MS) {
        await pause(WATCH_MS);
        const sends = [...this.#watched].some((pid) => holdOf(pid, this.#names) === 'sends');
        if (sends) break;
      }
      await this.#endSenders('it sends on a direct VNIC that is no more');
      scanMs = Math.min(scanMs * SCAN_GROWTH, SCAN_MS_MAX);
    }
  }

  async #endSenders(reason: string): Promise<void> {
    for (let round = 0; round < ROUNDS_MAX; round++) {
      // Those that are plainly holders first, so that they end soon.
      let ended = await this.#endAmong(await findHolders(this.#names, false), reason);
      if (!ended) ended = await this.#endAmong(await findHolders(this.#names, true), reason);
      if (!ended) return;
    }
  }

  /** True when one was killed: there may be more by now. */
  async #endAmong(holders: ReadonlyMap<number, Hold>, reason: string): Promise<boolean> {
    let ended = false;
    for (const [pid, hold] of holders) {
      if (this.#immortal.has(pid)) continue;
      const uid = describeProcess(pid)?.uid ?? -1;
      if (hold === 'sends') this.#senders.add(uid);
      else if (!this.#senders.has(uid)) {
        this.#note(this.#watched, pid, 'it has the socket of a direct VNIC, and is watched');
        continue;
      }
      const why = hold === 'sends' ? reason : 'its user sends on a direct VNIC that is no more';
      if (await this.#kill(pid, why)) ended = true;
    }
    return ended;
  }

  /** Said once of each. */
  #note(set: Set<number>, pid: number, message: string): void {
    if (set.has(pid)) return;
    set.add(pid);
    this.#options.log('warn', message, { pid, ...describeProcess(pid) });
  }

  /** False when it was no holder any more, or does not end. */
  async #kill(pid: number, reason: string): Promise<boolean> {
    const about = describeProcess(pid);
    let fd: number;
    try {
      fd = pidfdOpen(pid);
    } catch {
      return false;
    }
    try {
      if (holdOf(pid, this.#names) === null) return false;
      if (pid === INIT || !signal(fd) || !(await within(END_MS_MAX, () => pidfdEnded(fd)))) {
        this.#note(this.#immortal, pid, `cannot be killed: ${reason}`);
        return false;
      }
      this.#watched.delete(pid);
      this.killed.push(pid);
      this.#options.log('warn', `killed: ${reason}`, { pid, reason, ...about });
      return true;
    } finally {
      closeFd(fd);
    }
  }
}

/** False when we may not. One that has ended meanwhile was signalled well enough. */
function signal(pidfd: number): boolean {
  try {
    pidfdSignal(pidfd, SIGKILL);
    return true;
  } catch (error) {
    if (isErrno(error, 'EPERM')) return false;
    throw error;
  }
}

async function within(ms: number, isDone: () => boolean): Promise<boolean> {
  for (let waited = 0; ; waited += POLL_MS) {
    if (isDone()) return true;
    if (waited >= ms) return false;
    await pause(POLL_MS);
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
