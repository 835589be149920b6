/**
 * The run directory: one daemon in it at a time.
 *
 * - The pid file is the lock: whoever holds flock(2) on it is the daemon. It ends with the process, however that ends.
 *   Nobody else may open it: a reader could hold the lock too, and no daemon would start any more.
 * - Only the holder removes a socket that lies there: without the lock it may be a living daemon's.
 */
import fs from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ArrakisError } from '../base/errors.ts';
import { closeFd, tryLock } from '../ffi/fd.ts';
import { listenUnix, passRights, SOCK_SEQPACKET } from '../ffi/unix.ts';
import { LIMITS } from './limits.ts';
import { journalPath, keeperPath, pidPath, portsPath, socketPath } from './paths.ts';

/** With which a daemon ends that finds another in its directory. */
export const EXIT_ALREADY_RUNNING = 2;

const STICKY = 0o1000;
const ATTEMPTS_MAX = 5;
const ATTEMPT_PAUSE_MS = 20;

export class RunDirectory {
  readonly path: string;
  readonly #lockFd: number;

  private constructor(path: string, lockFd: number) {
    this.path = path;
    this.#lockFd = lockFd;
  }

  /** Make, check and lock the directory. ARK_ALREADY_RUNNING names the daemon that has it. */
  static claim(path: string): RunDirectory {
    makeDirectory(path, process.getuid!() === 0 ? 0o755 : 0o700);
    const lockFd = lock(pidPath(path));
    fs.fchmodSync(lockFd, 0o600);
    fs.ftruncateSync(lockFd);
    fs.writeSync(lockFd, `${process.pid}\n`, 0);
    return new RunDirectory(path, lockFd);
  }

  /**
   * The listening control socket. Anybody may connect to root's: credentials decide what they may do. It takes no
   * descriptors; the daemon allows them to privileged connections.
   */
  listen(): number {
    const path = socketPath(this.path);
    fs.rmSync(path, { force: true });
    const fd = listenUnix(path, SOCK_SEQPACKET, LIMITS.listenBacklog);
    passRights(fd, false);
    fs.chmodSync(path, process.getuid!() === 0 ? 0o666 : 0o600);
    return fd;
  }

  /** An empty directory for vhost-user sockets, which `owner` (the device process's user) may fill. */
  makePorts(owner: { uid: number; gid: number } | null): void {
    const path = portsPath(this.path);
    if (!removePorts(path)) {
      throw new ArrakisError('ARK_IN_USE', `${path} has directories with something in them`, {
        hint: 'no daemon made them: look at them and remove them',
      });
    }
    fs.mkdirSync(path, { mode: 0o755 });
    if (owner !== null) fs.chownSync(path, owner.uid, owner.gid);
  }

  /** Give up the lock and leave everything as it is, for whoever can make something of it. */
  leave(): void {
    closeFd(this.#lockFd);
  }

  /** Remove what we made and give up the lock. The log stays. */
  release(): void {
    for (const path of [socketPath, journalPath, keeperPath]) {
      fs.rmSync(path(this.path), { force: true });
    }
    removePorts(portsPath(this.path));
    fs.rmSync(pidPath(this.path), { force: true });
    closeFd(this.#lockFd);
  }
}

/**
 * Remove the directory for sockets; false when it does not go. Its owner is the device process: below it we follow no
 * path of more than one name, as a directory there may have become a link to anywhere by the time we use it.
 */
function removePorts(path: string): boolean {
  if (fs.lstatSync(path, { throwIfNoEntry: false }) === undefined) return true;
  const attempt = (remove: () => void): boolean => {
    try {
      remove();
      return true;
    } catch {
      return false;
    }
  };
  // Without CAP_DAC_OVERRIDE even root removes only from its own. Nobody else can put something in its place.
  attempt(() => fs.lchownSync(path, process.getuid!(), process.getgid!()));
  for (const name of fs.readdirSync(path)) {
    const entry = join(path, name);
    if (!attempt(() => fs.unlinkSync(entry))) attempt(() => fs.rmdirSync(entry));
  }
  return attempt(() => fs.rmdirSync(path));
}

/**
 * Every directory above `path`, and those that symbolic links on the way lead to, belong to root or to us, and others
 * cannot rename what is in them: who can would lead us elsewhere when we remove files at the end.
 */
function requireSafeParents(path: string): void {
  for (let at = dirname(resolve(path)); ; at = dirname(at)) {
    const stat = fs.lstatSync(at, { throwIfNoEntry: false });
    if (stat !== undefined) {
      const ours = stat.uid === 0 || stat.uid === process.getuid!();
      // A link has no permissions of its own: where it lies and where it leads decide.
      const closed =
        stat.isSymbolicLink() || (stat.mode & 0o022) === 0 || (stat.mode & STICKY) !== 0;
      if (!ours || !closed) throw unsafeParent(path, at);
      if (stat.isSymbolicLink()) {
        // Existence first: a loop of links ends here, with ELOOP.
        fs.statSync(at);
        // A name below the target: the target itself is checked, and all above it.
        requireSafeParents(resolve(dirname(at), fs.readlinkSync(at), 'below'));
      }
    }
    if (at === dirname(at)) return;
  }
}

function unsafeParent(path: string, parent: string): ArrakisError {
  return new ArrakisError(
    'ARK_NOT_PERMITTED',
    `${path} lies below ${parent}, which others may change`,
    {
      hint: 'every directory above must belong to root or to the user of the daemon, and be writable by nobody else',
    },
  );
}

function makeDirectory(path: string, mode: number): void {
  requireSafeParents(path);
  fs.mkdirSync(path, { recursive: true, mode });
  const stat = fs.lstatSync(path);
  if (!stat.isDirectory() || stat.uid !== process.getuid!() || (stat.mode & 0o022) !== 0) {
    throw new ArrakisError('ARK_NOT_PERMITTED', `${path} is not a directory of ours alone`, {
      hint: 'it must belong to the user of the daemon and be writable by nobody else; or set ARRAKIS_DIR',
    });
  }
}

/** The locked pid file, by the protocol of pidfile(3): a file that was unlinked meanwhile locks nothing. */
function lock(path: string): number {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const { O_RDWR, O_CREAT, O_NOFOLLOW } = fs.constants;
    const fd = fs.openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
    if (!tryLock(fd)) {
      closeFd(fd);
      // `isClaimed` holds the lock for a moment when it looks: only one that stays is a daemon's.
      Atomics.wait(pause, 0, 0, ATTEMPT_PAUSE_MS);
      continue;
    }
    const now = fs.statSync(path, { throwIfNoEntry: false });
    if (now !== undefined && now.ino === fs.fstatSync(fd).ino) return fd;
    closeFd(fd);
  }
  throw alreadyRunning(path);
}

function alreadyRunning(path: string): ArrakisError {
  const pid = readPid(path);
  return new ArrakisError(
    'ARK_ALREADY_RUNNING',
    `arrakisd runs already${pid === null ? '' : `, pid ${pid}`}: it holds ${path}`,
    { hint: 'end it by `arrakis down`, or choose another directory by ARRAKIS_DIR' },
  );
}

/** The pid in a pid file, or null. */
export function readPid(path: string): number | null {
  try {
    const text = fs.readFileSync(path, 'utf8').trim();
    return /^[1-9]\d{0,9}$/.test(text) ? Number(text) : null;
  } catch {
    return null;
  }
}

/** True when a daemon holds the directory now. */
export function isClaimed(path: string): boolean {
  let fd: number;
  try {
    fd = fs.openSync(pidPath(path), 'r');
  } catch {
    return false;
  }
  try {
    return !tryLock(fd);
  } finally {
    closeFd(fd);
  }
}
