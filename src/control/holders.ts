/**
 * Who has a socket: processes, by what /proc says of their descriptors and mappings (proc(5)).
 *
 *   sends   the transmit ring of the socket is mapped: with a descriptor, its own or another's, the process can send
 *   keeps   a descriptor, or another ring: to send it would have to map the transmit ring first, which can be seen
 *
 * - A mapping is never passed to another process, other than to a child by fork: whoever has one has made it, or is it.
 *   A descriptor may come with any message, and a process that never asked for it has it.
 * - A descriptor that is under way in a Unix socket, or registered with io_uring, belongs to nobody here.
 */
import fs from 'node:fs';
import { KEEPER_VARIABLE } from './keeper.ts';

export type Hold = 'keeps' | 'sends';

/** Processes looked at before others get their turn. */
const PROCESSES_PER_TURN = 16;
/** File offsets at which the transmit ring is mapped (linux/if_xdp.h, XDP_PGOFF_TX_RING), up to the next ring's. */
const TX_RING_FIRST = 0x8000_0000;
const TX_RING_END = 0x1_0000_0000;

/** What process `pid` has of the sockets, by their names in /proc; null: nothing, or it has ended. */
export function holdOf(pid: number, names: readonly string[]): Hold | null {
  const mapped = mappingOf(pid, names);
  if (mapped === 'sends') return 'sends';
  return mapped ?? (hasDescriptor(pid, names) || threadHasDescriptor(pid, names) ? 'keeps' : null);
}

/**
 * Processes that have one of the sockets, but this one and our keeper. `thorough` finds also those without a descriptor
 * that is plain to see: closed, and still mapped, or a thread's own. It takes far longer.
 */
export async function findHolders(
  names: readonly string[],
  thorough: boolean,
): Promise<Map<number, Hold>> {
  const holders = new Map<number, Hold>();
  let looked = 0;
  for (const entry of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    const pid = Number(entry);
    if (pid === process.pid) continue;
    if (++looked % PROCESSES_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
    if (!thorough && !hasDescriptor(pid, names)) continue;
    const hold = holdOf(pid, names);
    if (hold !== null && !isKeeper(pid)) holders.set(pid, hold);
  }
  return holders;
}

/**
 * Whose process it is, and what it calls itself; null when it has ended. The real user, who may kill it: the effective
 * one of a program that somebody runs may be root.
 */
export function describeProcess(pid: number): { uid: number; name: string } | null {
  try {
    const status = fs.readFileSync(`/proc/${pid}/status`, 'latin1');
    const [, name = ''] = /^Name:\t(.*)$/m.exec(status)!;
    const [, uid] = /^Uid:\t(\d+)/m.exec(status)!;
    return { uid: Number(uid), name };
  } catch {
    return null;
  }
}

const hasDescriptor = (pid: number, names: readonly string[]): boolean =>
  isAmong(`/proc/${pid}/fd`, names);

/** Threads may have descriptors of their own (unshare(2)), also when the first of them has ended. */
const threadHasDescriptor = (pid: number, names: readonly string[]): boolean =>
  threadsOf(pid).some((thread) => isAmong(`/proc/${pid}/task/${thread}/fd`, names));

function threadsOf(pid: number): string[] {
  try {
    return fs.readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

function isAmong(directory: string, names: readonly string[]): boolean {
  try {
    return fs.readdirSync(directory).some((fd) => names.includes(linkOf(`${directory}/${fd}`)));
  } catch {
    // It has ended meanwhile, or hides from us.
    return false;
  }
}

function linkOf(path: string): string {
  try {
    return fs.readlinkSync(path);
  } catch {
    return '';
  }
}

function mappingOf(pid: number, names: readonly string[]): Hold | null {
  let maps = mapsOf(`/proc/${pid}/maps`);
  // When its first thread has ended, only the others have memory to show.
  for (const thread of maps === '' ? threadsOf(pid) : []) {
    maps = mapsOf(`/proc/${pid}/task/${thread}/maps`);
    if (maps !== '') break;
  }
  let hold: Hold | null = null;
  for (const line of maps.includes('socket:[') ? maps.split('\n') : []) {
    if (!names.some((name) => line.endsWith(name))) continue;
    const offset = Number.parseInt(line.split(' ')[2]!, 16);
    if (offset >= TX_RING_FIRST && offset < TX_RING_END) return 'sends';
    hold = 'keeps';
  }
  return hold;
}

function mapsOf(path: string): string {
  try {
    return fs.readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

/** Our keeper holds sockets for the next daemon, and closes them when it is told. Only our own user can be one. */
function isKeeper(pid: number): boolean {
  try {
    if (describeProcess(pid)?.uid !== process.getuid!()) return false;
    const environment = fs.readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
    return environment.some((entry) => entry.startsWith(`${KEEPER_VARIABLE}=`));
  } catch {
    return false;
  }
}
