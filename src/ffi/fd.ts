/** Descriptors: close, read, write, flags, eventfd, poll, lock. Raw reads and writes take machine addresses. */
import fs from 'node:fs';
import { SystemError } from '../base/errors.ts';
import { bind, check, EAGAIN, EINTR, errno, errnoName } from './libc.ts';

const closeCall = bind<(fd: number) => number>('close', 'int', ['int']);
const eventfdCall = bind<(initial: number, flags: number) => number>('eventfd', 'int', [
  'uint',
  'int',
]);
/** `fcntl(fd, command, argument)`; -1 and errno on failure. Unchecked. */
export const fcntl = bind<(fd: number, command: number, arg: number) => number>('fcntl', 'int', [
  'int',
  'int',
  'int',
]);
const flockCall = bind<(fd: number, operation: number) => number>('flock', 'int', ['int', 'int']);
const pollCall = bind<(fds: Uint8Array, count: number, timeoutMs: number) => number>(
  'poll',
  'int',
  ['void *', 'ulong', 'int'],
);
/** `read(fd, address, length)`; -1 and errno on failure. Unchecked: hot paths look at the result themselves. */
export const readAt = bind<(fd: number, address: number, length: number) => number>(
  'read',
  'long',
  ['int', 'uintptr_t', 'size_t'],
);
/** `write(fd, address, length)`; -1 and errno on failure. Unchecked. */
export const writeAt = bind<(fd: number, address: number, length: number) => number>(
  'write',
  'long',
  ['int', 'uintptr_t', 'size_t'],
);
const readBuffer = bind<(fd: number, buffer: Uint8Array, length: number) => number>(
  'read',
  'long',
  ['int', 'void *', 'size_t'],
);
const writeBuffer = bind<(fd: number, buffer: Uint8Array, length: number) => number>(
  'write',
  'long',
  ['int', 'void *', 'size_t'],
);

const dup3Call = bind<(from: number, to: number, flags: number) => number>('dup3', 'int', [
  'int',
  'int',
  'int',
]);

const F_GETFD = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const F_DUPFD_CLOEXEC = 1030;
const F_GET_SEALS = 1034;
const FD_CLOEXEC = 1;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const EFD_CLOEXEC = 0o2000000;
const LOCK_EX = 2;
const LOCK_NB = 4;

export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLERR = 8;
export const POLLHUP = 16;

/** Close a descriptor that we own. A second close of the same number is a defect: EBADF throws. */
export function closeFd(fd: number): void {
  check(closeCall(fd), 'close', fd);
}

/** Close every descriptor in `fds`; used where a failed operation drops what it was handed. */
export function closeAll(fds: Iterable<number>): void {
  for (const fd of fds) closeFd(fd);
}

interface Closer {
  /** Machine address of libc's `close`, which is what the thread runs. */
  start: number;
  attributes: Buffer;
  create: (thread: Uint8Array, attributes: Uint8Array, start: number, argument: number) => number;
}

const CLOSER_STACK_BYTES = 128 * 1024;
const PTHREAD_CREATE_DETACHED = 1;
let closer: Closer | null = null;

/** Bound at first use: only processes that serve hostile peers need threads. */
function makeCloser(): Closer {
  const find = bind<(handle: number, name: string) => number>('dlsym', 'uintptr_t', [
    'uintptr_t',
    'str',
  ]);
  const attributes = Buffer.alloc(64);
  bind('pthread_attr_init', 'int', ['void *'])(attributes);
  bind('pthread_attr_setdetachstate', 'int', ['void *', 'int'])(
    attributes,
    PTHREAD_CREATE_DETACHED,
  );
  bind('pthread_attr_setstacksize', 'int', ['void *', 'size_t'])(attributes, CLOSER_STACK_BYTES);
  const create = bind<Closer['create']>('pthread_create', 'int', [
    'void *',
    'void *',
    'uintptr_t',
    'uintptr_t',
  ]);
  return { start: find(0, 'close'), attributes, create };
}

const thread = Buffer.alloc(8);

/**
 * Close a descriptor that we own without ever waiting for it: the last close of a lingering socket, or of a file whose
 * file system is its owner's process, lasts as long as the owner likes. A thread of its own does it, as those of libuv
 * are four and are waited for when the process ends. Without a thread the descriptor stays open: that costs its number,
 * not the time of everybody. It may still be open when this returns.
 */
export function closeLater(fd: number): void {
  closer ??= makeCloser();
  closer.create(thread, closer.attributes, closer.start, fd);
}

const SIOCOUTQ = 0x5411;
const FIONREAD = 0x541b;
const SHUT_RDWR = 2;
const ioctlCall = bind<(fd: number, request: number, argument: Uint8Array) => number>(
  'ioctl',
  'int',
  ['int', 'ulong', 'void *'],
);
const shutdownCall = bind<(fd: number, how: number) => number>('shutdown', 'int', ['int', 'int']);
const unread = Buffer.alloc(4);

/** End both directions of a socket, for every copy of the descriptor. One that is not connected any more is fine. */
export function shutdownSocket(fd: number): void {
  shutdownCall(fd, SHUT_RDWR);
}

/** True while something that was sent on Unix socket `fd` has neither been read nor gone with the peer (unix(7)). */
export function isUnderWay(fd: number): boolean {
  return ioctlCall(fd, SIOCOUTQ, unread) === 0 && unread.readInt32LE(0) > 0;
}

/**
 * Close our end of a hostile peer's stream socket. What it has sent and we have not read may carry descriptors, which
 * are closed with it. At once when there is nothing of the kind, and after `shutdown` nothing can come any more.
 */
export function closeStream(fd: number): void {
  shutdownSocket(fd);
  if (ioctlCall(fd, FIONREAD, unread) === 0 && unread.readInt32LE(0) === 0) closeFd(fd);
  else closeLater(fd);
}

/**
 * Close descriptors that a hostile peer has sent. Memory and eventfds are closed at once, as their last close does not
 * wait for anybody; anything else by `closeLater`. True when there was nothing else. Empties `fds`.
 */
export function closeForeign(fds: number[]): boolean {
  let harmless = true;
  for (const fd of fds.splice(0)) {
    if (fcntl(fd, F_GET_SEALS, 0) >= 0 || isEventfd(fd)) {
      closeFd(fd);
    } else {
      harmless = false;
      closeLater(fd);
    }
  }
  return harmless;
}

/** True when `fd` is an eventfd, whoever made it. */
export function isEventfd(fd: number): boolean {
  try {
    return fs.readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]';
  } catch {
    // ENAMETOOLONG: a path of more than a page, which no eventfd has.
    return false;
  }
}

export function setNonBlocking(fd: number, on = true): void {
  const flags = check(fcntl(fd, F_GETFL, 0), 'fcntl', fd, 'F_GETFL');
  const wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  check(fcntl(fd, F_SETFL, wanted), 'fcntl', fd, 'F_SETFL', wanted);
}

/** Whether `fd` is closed when another program is executed. */
export function setCloseOnExec(fd: number, on = true): void {
  const flags = check(fcntl(fd, F_GETFD, 0), 'fcntl', fd, 'F_GETFD');
  check(fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC), 'fcntl', fd, 'F_SETFD');
}

/** A second descriptor of the same open file, close-on-exec. */
export function duplicateFd(fd: number): number {
  return check(fcntl(fd, F_DUPFD_CLOEXEC, 0), 'fcntl', fd, 'F_DUPFD_CLOEXEC');
}

/** Have the number `to`, which is open, be what `from` is: other threads that use the number use that now. */
export function replaceFd(from: number, to: number): void {
  check(dup3Call(from, to, O_CLOEXEC), 'dup3', from, to);
  closeFd(from);
}

/** True when `fd` is open in this process. */
export function isOpen(fd: number): boolean {
  return fcntl(fd, F_GETFD, 0) >= 0;
}

/** Read what is there into `buffer`: bytes read, 0 at the end, -1 when the call would block. */
export function readFd(fd: number, buffer: Uint8Array, length = buffer.length): number {
  for (;;) {
    const result = readBuffer(fd, buffer, length);
    if (result >= 0 || !wasInterrupted('read', fd)) return result;
  }
}

/** Write `buffer`: bytes written, -1 when the call would block. */
export function writeFd(fd: number, buffer: Uint8Array, length = buffer.length): number {
  for (;;) {
    const result = writeBuffer(fd, buffer, length);
    if (result >= 0 || !wasInterrupted('write', fd)) return result;
  }
}

/**
 * A socket with a timeout is interrupted by every signal that has a handler, also one with SA_RESTART (signal(7)), such
 * as the SIGCHLD of a child that ends: that is neither data nor the end of the timeout, and the wait begins again.
 */
function wasInterrupted(call: string, fd: number): boolean {
  const code = errno();
  if (code !== EAGAIN && code !== EINTR) throw new SystemError(call, errnoName(), [fd]);
  return code === EINTR;
}

/** A new eventfd, close-on-exec and non-blocking. */
export function eventfd(): number {
  return check(eventfdCall(0, EFD_CLOEXEC | O_NONBLOCK), 'eventfd', 0);
}

const one = Buffer.alloc(8);
one.writeBigUInt64LE(1n);
const scratch = Buffer.alloc(8);

/** Ring an eventfd (or anything that takes 8 bytes). A full or closed one is not an error: it has been rung. */
export function eventfdSignal(fd: number): void {
  writeBuffer(fd, one, 8);
}

/** Silence an eventfd. */
export function eventfdClear(fd: number): void {
  readBuffer(fd, scratch, 8);
}

const pollEntry = Buffer.alloc(8);

/** Wait up to `timeoutMs` (-1: for ever) for `events` on one descriptor. The returned events; 0 on timeout. Blocks. */
export function pollOne(fd: number, events: number, timeoutMs: number): number {
  pollEntry.writeInt32LE(fd, 0);
  pollEntry.writeInt16LE(events, 4);
  pollEntry.writeInt16LE(0, 6);
  const ready = pollCall(pollEntry, 1, timeoutMs);
  if (ready < 0 && errno() !== EINTR) check(ready, 'poll', fd, timeoutMs);
  return ready <= 0 ? 0 : pollEntry.readInt16LE(6);
}

/** Lock the open file `fd` for this process, without waiting: false when another holds it. Ends with the process. */
export function tryLock(fd: number): boolean {
  const result = flockCall(fd, LOCK_EX | LOCK_NB);
  if (result < 0 && errno() === EAGAIN) return false;
  check(result, 'flock', fd);
  return true;
}

/** Numbers of the open descriptors of this process; for leak tests and `doctor`. */
export function openFds(): number[] {
  return fs.readdirSync('/proc/self/fd').map(Number);
}
