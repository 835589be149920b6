/**
 * Who is at the other end of a Unix socket, beyond uid, gid and pid: groups (SO_PEERGROUPS) and program. The kernel
 * noted user, groups and process when the peer connected.
 */
import fs from 'node:fs';
import { closeFd } from './fd.ts';
import { check, errnoName } from './libc.ts';
import { pidfdEnded } from './pidfd.ts';
import { getsockopt } from './socket.ts';

const SOL_SOCKET = 1;
const SO_PEERGROUPS = 59;
/** Since Linux 6.5. */
const SO_PEERPIDFD = 77;
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

/**
 * Absolute path of the program that the peer, process `pid`, runs now. Null when that cannot be said for sure: it has
 * ended, the file was replaced, it is not to be found here under that path (a process may have arranged its own tree of
 * files), or the kernel is older than 6.5.
 */
export function peerProgram(fd: number, pid: number): string | null {
  const value = Buffer.alloc(4);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(4);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, value, length) < 0) return null;
  const pidfd = value.readInt32LE(0);
  try {
    const program = programOf(pid);
    // It has lived all the time: so the number was its own.
    return pidfdEnded(pidfd) ? null : program;
  } finally {
    closeFd(pidfd);
  }
}

function programOf(pid: number): string | null {
  const link = `/proc/${pid}/exe`;
  try {
    const path = fs.readlinkSync(link);
    const [running, here] = [link, path].map((file) => fs.statSync(file, { bigint: true }));
    return running!.dev === here!.dev && running!.ino === here!.ino ? path : null;
  } catch {
    return null;
  }
}
