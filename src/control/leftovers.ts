/**
 * What a daemon that was killed may have left: files in its run directory, veth pairs, a device process, the keeper, and
 * a supervisor that cannot start it again.
 * The next daemon in the same directory goes on with what it can and clears the rest; `arrakis doctor` shows and
 * removes all.
 */
import fs from 'node:fs';
import { findStaleLinks, removeStaleLinks } from '../drivers/af-xdp/attach.ts';
import { closeFd } from '../ffi/fd.ts';
import { pidfdOpen, pidfdSignal } from '../ffi/pidfd.ts';
import { OWNER_VARIABLE } from './devices/device-process.ts';
import { KEEPER_VARIABLE } from './keeper.ts';
import { LIMITS } from './limits.ts';
import {
  journalPath,
  keeperPath,
  pidPath,
  portsPath,
  SUPERVISOR_VARIABLE,
  socketPath,
} from './paths.ts';
import { isClaimed, RunDirectory } from './run-directory.ts';

const KILL_POLL_MS = 10;
const SIGKILL = 9;
const SIGTERM = 15;

export interface Leftover {
  readonly kind: 'file' | 'link' | 'process';
  /** Path, interface name or pid. */
  readonly name: string;
  /** A sentence for people, name included. */
  readonly description: string;
}

/** Start of the alias of every veth link that the daemon in `dir` makes. */
export const linkAlias = (dir: string): string => `arrakis:${dir}:`;

/** What lies about of a daemon in `dir`; nothing while one runs there. */
export function findLeftovers(dir: string): Leftover[] {
  if (isClaimed(dir)) return [];
  const found: Leftover[] = [];
  for (const [file, what] of [
    [socketPath(dir), 'control socket that nobody serves'],
    [pidPath(dir), 'pid file that nobody holds'],
    [portsPath(dir), 'vhost-user sockets'],
    [journalPath(dir), 'journal of a daemon that was killed'],
    [keeperPath(dir), 'socket of its keeper'],
  ] as const) {
    if (fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined) {
      found.push({ kind: 'file', name: file, description: `${what}: ${file}` });
    }
  }
  for (const link of findStaleLinks(linkAlias(dir))) {
    found.push({ kind: 'link', name: link.name, description: `veth pair: ${link.name}` });
  }
  for (const [variable, what] of [
    [OWNER_VARIABLE, 'software NIC without a daemon'],
    [KEEPER_VARIABLE, 'keeper of what the daemon had, for the next one'],
    [SUPERVISOR_VARIABLE, 'supervisor of a daemon that does not run'],
  ] as const) {
    for (const pid of processesOf(dir, variable)) {
      const description = `${what}: pid ${pid}`;
      found.push({ kind: 'process', name: String(pid), description });
    }
  }
  return found;
}

/**
 * Remove them; returns what was removed. The directory is locked meanwhile, so that nothing of a daemon that starts just
 * then is taken for a leftover: ARK_ALREADY_RUNNING when one was faster.
 */
export function removeLeftovers(dir: string): Leftover[] {
  const found = findLeftovers(dir);
  if (found.length === 0) return found;
  endSupervisors(dir);
  const directory = RunDirectory.claim(dir);
  try {
    endOrphans(dir, true);
    if (found.some(({ kind }) => kind === 'link')) removeStaleLinks(linkAlias(dir));
  } finally {
    // Takes the files with it.
    directory.release();
  }
  return found;
}

/** Who would start the daemon in `dir` again, were it to die; more than one only when somebody has meddled. */
export const supervisorsOf = (dir: string): number[] => processesOf(dir, SUPERVISOR_VARIABLE);

/** Have them end their daemon in order and start none any more. Does not wait; `supervisorsOf` tells when they have gone. */
export function stopSupervisors(dir: string): void {
  for (const pid of supervisorsOf(dir)) signal(pid, `${SUPERVISOR_VARIABLE}=${dir}`, SIGTERM);
}

/** The same for those without a daemon, which end at once; one that does not is killed. */
function endSupervisors(dir: string): void {
  stopSupervisors(dir);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let waitedMs = 0; supervisorsOf(dir).length > 0; waitedMs += KILL_POLL_MS) {
    if (waitedMs >= LIMITS.shutdownMsMax) {
      for (const pid of supervisorsOf(dir)) signal(pid, `${SUPERVISOR_VARIABLE}=${dir}`, SIGKILL);
      return;
    }
    Atomics.wait(pause, 0, 0, KILL_POLL_MS);
  }
}

/** The keeper of the daemon in `dir`, which may have been killed: the next one goes on with what it holds. 0: none. */
export const keeperOf = (dir: string): number => processesOf(dir, KEEPER_VARIABLE)[0] ?? 0;

/**
 * Device processes or keepers of the daemon in `dir`, by what their environment says (proc(5)). Nobody holds the
 * directory, so they have no daemon. Those that we may not look at are not ours to end.
 */
function processesOf(dir: string, variable: string): number[] {
  const mark = `${variable}=${dir}`;
  return fs
    .readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && environmentOf(entry).includes(mark))
    .map(Number);
}

/** Empty for a process that has ended, even before its parent has waited for it. */
function environmentOf(pid: string): string[] {
  try {
    return fs.readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

/**
 * End the device processes of a daemon in `dir` that is no more, and wait, a bounded time, until they are gone; with
 * `keepers`, those too. Only for who holds the directory.
 */
export function endOrphans(dir: string, keepers = false): void {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let waitedMs = 0; waitedMs < LIMITS.shutdownMsMax; waitedMs += KILL_POLL_MS) {
    const ended = [OWNER_VARIABLE, ...(keepers ? [KEEPER_VARIABLE] : [])].map((variable) => {
      const pids = processesOf(dir, variable);
      for (const pid of pids) signal(pid, `${variable}=${dir}`, SIGKILL);
      return pids.length;
    });
    if (ended.every((count) => count === 0)) return;
    Atomics.wait(pause, 0, 0, KILL_POLL_MS);
  }
}

/** By a descriptor of the process, which is looked at again: never another that has its number by now. */
function signal(pid: number, mark: string, number: number): void {
  let fd = -1;
  try {
    fd = pidfdOpen(pid);
    if (environmentOf(String(pid)).includes(mark)) pidfdSignal(fd, number);
  } catch {
    // It ended by itself meanwhile, or is not ours to end.
  } finally {
    if (fd >= 0) closeFd(fd);
  }
}
