/**
 * Who is at the other end of a Unix socket, beyond uid, gid and pid: groups (SO_PEERGROUPS) and program. The kernel
 * noted user, groups and process when the peer connected.
 */
import fs from 'node:fs';
import { closeFd, closeLater } from './fd.ts';
import { bind, check, errnoName } from './libc.ts';
import { pidfdEnded } from './pidfd.ts';
import { getsockopt } from './socket.ts';

const openat2 = bind<
  (number: number, dir: number, path: Uint8Array, how: Uint8Array, size: number) => number
>('syscall', 'long', ['long', 'int', 'void *', 'void *', 'size_t']);
const statx = bind<
  (
    number: number,
    dir: number,
    path: Uint8Array,
    flags: number,
    mask: number,
    found: Uint8Array,
  ) => number
>('syscall', 'long', ['long', 'int', 'void *', 'int', 'uint', 'void *']);

const SOL_SOCKET = 1;
const SO_PEERGROUPS = 59;
/** Since Linux 6.5. */
const SO_PEERPIDFD = 77;
const SYS_STATX = 332;
const SYS_OPENAT2 = 437;
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_STATX_DONT_SYNC = 0x4000;
const O_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;
/** openat2(2). */
const OPEN_HOW_BYTES = 24;
const RESOLVE_NO_SYMLINKS = 0x04;
const RESOLVE_CACHED = 0x20;
const CACHED_TRIES = 8;
/** struct statx. */
const STATX_INO = 0x100;
const STATX_BYTES = 256;
const STX_INO = 32;
const STX_DEV_MAJOR = 136;
const EMPTY = Buffer.alloc(1);
const GROUPS_GUESS = 32;
/** NGROUPS_MAX. */
const GROUPS_MAX = 65536;

/** Supplementary groups of the peer. They are as they were when it connected, so two looks are enough. */
export function peerGroups(fd: number): number[] {
  const length = Buffer.alloc(4);
  for (const groupsMax of [GROUPS_GUESS, GROUPS_MAX]) {
    const value = Buffer.alloc(groupsMax * 4);
    length.writeUInt32LE(value.length);
    const result = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, value, length);
    if (result < 0 && errnoName() === 'ERANGE' && groupsMax < GROUPS_MAX) continue;
    check(result, 'getsockopt', fd, 'SO_PEERGROUPS');
    const count = length.readUInt32LE(0) / 4;
    return Array.from({ length: count }, (_, i) => value.readUInt32LE(i * 4));
  }
  return [];
}

/** An open that takes longer is not waited for; and beyond so many that are still under way no other begins. */
const OPEN_MS_MAX = 500;
const OVERDUE_MAX = 2;

/** Opens `path` without more than a look at what it is (O_PATH), off this thread. */
export type OpenPath = (path: string) => Promise<number>;

const openPath: OpenPath = (path) =>
  new Promise((resolve, reject) => {
    fs.open(path, O_PATH, (error, fd) => (error === null ? resolve(fd) : reject(error)));
  });

let overdue = 0;

/**
 * Absolute path of the program that the peer, process `pid`, runs now. Null when that cannot be said for sure: it has
 * ended, the file was replaced, it is not to be found here under that path (a process may have arranged its own tree of
 * files), the kernel is older than 6.5, or a file system would have to be asked that may not answer.
 *
 * The peer chose what its program lies on, a file system of its own or a server that hangs. So nothing here waits for one:
 * the path is followed in the kernel's cache alone, where that of a running program is; what it leads to is told by what
 * the kernel knows of it. Only the open of /proc/PID/exe may ask a server (NFS looks again at what a link jumps to): it
 * happens off this thread, with a bound.
 */
export async function peerProgram(
  fd: number,
  pid: number,
  open = openPath,
): Promise<string | null> {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(4);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, value, length) < 0) return null;
  const pidfd = value.readInt32LE(0);
  try {
    const program = await programOf(`/proc/${pid}/exe`, open);
    // It has lived all the time: so the number was its own.
    return pidfdEnded(pidfd) ? null : program;
  } finally {
    closeFd(pidfd);
  }
}

async function programOf(link: string, open: OpenPath): Promise<string | null> {
  let path: string;
  try {
    // The kernel writes it from its cache.
    path = fs.readlinkSync(link);
  } catch {
    return null;
  }
  const here = identityHere(path);
  if (here === null) return null;
  const running = await openInTime(link, open);
  if (running < 0) return null;
  try {
    return identityOf(running) === here ? path : null;
  } finally {
    // It may be the last of a file system that its owner has taken down.
    closeLater(running);
  }
}

/** A descriptor, or -1: it cannot be opened, or not in time. What comes later is closed. */
async function openInTime(path: string, open: OpenPath): Promise<number> {
  if (overdue >= OVERDUE_MAX) return -1;
  const opening = open(path).catch(() => -1);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(resolve, OPEN_MS_MAX, null);
  });
  const fd = await Promise.race([opening, late]);
  clearTimeout(timer);
  if (fd !== null) return fd;
  overdue++;
  void opening.then((number) => {
    overdue--;
    if (number >= 0) closeLater(number);
  });
  return -1;
}

/** Of the file at `path`, when nobody has to be asked for it; otherwise null. */
function identityHere(path: string): string | null {
  const how = Buffer.alloc(OPEN_HOW_BYTES);
  how.writeBigUInt64LE(BigInt(O_PATH | O_CLOEXEC), 0);
  how.writeBigUInt64LE(BigInt(RESOLVE_CACHED | RESOLVE_NO_SYMLINKS), 16);
  const name = Buffer.from(`${path}\0`);
  for (let tries = 0; tries < CACHED_TRIES; tries++) {
    const fd = openat2(SYS_OPENAT2, AT_FDCWD, name, how, how.length);
    // Somebody has just renamed something: the cache has to be walked again.
    if (fd < 0 && errnoName() === 'EAGAIN') continue;
    if (fd < 0) return null;
    try {
      return identityOf(fd);
    } finally {
      closeLater(fd);
    }
  }
  return null;
}

/** Device and inode, as the kernel has them: it asks no server for these. */
function identityOf(fd: number): string {
  const found = Buffer.alloc(STATX_BYTES);
  const flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  check(statx(SYS_STATX, fd, EMPTY, flags, STATX_INO, found), 'statx', fd);
  const device = `${found.readUInt32LE(STX_DEV_MAJOR)}:${found.readUInt32LE(STX_DEV_MAJOR + 4)}`;
  return `${device} ${found.readBigUInt64LE(STX_INO)}`;
}
