/**
 * The sockets of a direct VNIC that is no more: whoever still holds one could go on sending, and nothing checks that.
 * (Exokernel's abort protocol: first ask, then take by force.)
 *
 *   the VNIC goes ──► its holder lets go ──────────────────────────────► nothing to do
 *                 └─► LIMITS.repossessMs later: processes that hold ──► SIGKILL, until none is left
 *
 * - A holder is a process with the socket among its descriptors, those of a thread included, or mapped (its rings).
 * - A process is killed through a descriptor of it, after it was looked at again: never another that has its number.
 * - A descriptor that is under way in a Unix socket belongs to no process. The queue of the interface, which only that
 *   socket can still have, tells that there is one: then this goes on looking, and kills who takes it out.
 */
import fs from 'node:fs';
import { closeFd } from '../ffi/fd.ts';
import { pidfdEnded, pidfdOpen, pidfdSignal } from '../ffi/pidfd.ts';
import { xskQueueIsFree } from '../ffi/xsk.ts';
import { KEEPER_VARIABLE } from './keeper.ts';
import { LIMITS } from './limits.ts';
import type { Log } from './log.ts';

const SIGKILL = 9;
const POLL_MS = 5;
/** Rounds of looking and killing: each ends all that were seen; only a process that multiplies needs many. */
const ROUNDS_MAX = 64;
/** How long a killed process may take to end, and the kernel to let go of a socket. */
const END_MS_MAX = 2_000;
/** A hidden socket is looked for so often, so many times. */
const HIDDEN_MS = 250;
const HIDDEN_ROUNDS_MAX = 240;
/** Processes looked at before others get their turn. */
const PROCESSES_PER_TURN = 16;

/** What is to come back. */
export interface Belongings {
  /** Inodes of the sockets. */
  readonly sockets: readonly number[];
  readonly ifIndex: number;
  /** Queues of the interface that the sockets are bound to. */
  readonly queues: readonly number[];
}

export const socketInode = (fd: number): number => fs.fstatSync(fd).ino;

/** Resolves when nobody has the sockets any more, or one is hidden (see above): the pids that were killed. */
export async function repossess(
  { sockets, ifIndex, queues }: Belongings,
  log: Log,
  graceMs: number = LIMITS.repossessMs,
): Promise<number[]> {
  const isFree = (): boolean => queues.every((queue) => xskQueueIsFree(ifIndex, queue));
  if (await within(graceMs, isFree)) return [];
  const names = sockets.map((inode) => `socket:[${inode}]`);
  const killed = await killHolders(names);
  for (const pid of killed) log('warn', 'killed: it kept a direct VNIC', { pid });
  if (await within(END_MS_MAX, isFree)) return killed;
  log('error', 'a queue of a direct VNIC is still taken: its socket may be hidden in another one', {
    ifIndex,
    queues,
  });
  void watchHidden(names, isFree, log);
  return killed;
}

async function watchHidden(names: string[], isFree: () => boolean, log: Log): Promise<void> {
  for (let round = 0; round < HIDDEN_ROUNDS_MAX && !isFree(); round++) {
    for (const pid of await killHolders(names)) {
      log('warn', 'killed: it took out a direct VNIC', { pid });
    }
    await pause(HIDDEN_MS);
  }
}

async function killHolders(names: readonly string[]): Promise<number[]> {
  const killed: number[] = [];
  for (let round = 0; round < ROUNDS_MAX; round++) {
    // Threads and mappings are looked at only when no process is plainly a holder: it takes far longer.
    let holders = await findHolders(names, holdsOpen);
    if (holders.length === 0) holders = await findHolders(names, holdsHidden);
    if (holders.length === 0) break;
    for (const pid of holders) if (await kill(pid, names)) killed.push(pid);
  }
  return killed;
}

type Holds = (pid: number, names: readonly string[]) => boolean;

async function findHolders(names: readonly string[], holds: Holds): Promise<number[]> {
  const holders: number[] = [];
  let looked = 0;
  for (const entry of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const pid = Number(entry);
    if (pid === process.pid) continue;
    if (++looked % PROCESSES_PER_TURN === 0) await pause(0);
    if (holds(pid, names) && !isKeeper(pid)) holders.push(pid);
  }
  return holders;
}

/** The socket is among the descriptors in `directory`. A process that has ended, or hides from us, has none. */
function hasDescriptor(directory: string, names: readonly string[]): boolean {
  try {
    for (const fd of fs.readdirSync(directory)) {
      if (names.includes(linkOf(`${directory}/${fd}`))) return true;
    }
  } catch {
    // It ended meanwhile.
  }
  return false;
}

function linkOf(path: string): string {
  try {
    return fs.readlinkSync(path);
  } catch {
    return '';
  }
}

const holdsOpen: Holds = (pid, names) => hasDescriptor(`/proc/${pid}/fd`, names);

const holdsHidden: Holds = (pid, names) => {
  try {
    const maps = fs.readFileSync(`/proc/${pid}/maps`, 'latin1');
    if (names.some((name) => maps.includes(name))) return true;
    const threads = fs.readdirSync(`/proc/${pid}/task`);
    return threads.some((thread) => hasDescriptor(`/proc/${pid}/task/${thread}/fd`, names));
  } catch {
    return false;
  }
};

/** Our keeper holds sockets for the next daemon, and closes them when it is told. Only our own user can be one. */
function isKeeper(pid: number): boolean {
  try {
    if (fs.statSync(`/proc/${pid}`).uid !== process.getuid!()) return false;
    const environment = fs.readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
    return environment.some((entry) => entry.startsWith(`${KEEPER_VARIABLE}=`));
  } catch {
    return false;
  }
}

/** False when it was no holder any more. */
async function kill(pid: number, names: readonly string[]): Promise<boolean> {
  let fd: number;
  try {
    fd = pidfdOpen(pid);
  } catch {
    return false;
  }
  try {
    if (!holdsOpen(pid, names) && !holdsHidden(pid, names)) return false;
    if (!pidfdSignal(fd, SIGKILL)) return false;
    await within(END_MS_MAX, () => pidfdEnded(fd));
    return true;
  } finally {
    closeFd(fd);
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
