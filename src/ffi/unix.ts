/**
 * Unix sockets with what `node:net` leaves out: descriptors (SCM_RIGHTS), kernel-checked credentials
 * (SO_PEERCRED, SCM_CREDENTIALS) and message boundaries (SOCK_SEQPACKET). See unix(7), cmsg(3).
 */
import { ArrakisError, isErrno, SystemError } from '../base/errors.ts';
import { closeAll, closeFd } from './fd.ts';
import { addressOf, bind, check, EAGAIN, EINTR, errno, errnoName, keepAlive } from './libc.ts';
import {
  AF_UNIX,
  bindSocket,
  connectSocket,
  getsockopt,
  openSocket,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  setSocketOption,
  setsockopt,
} from './socket.ts';

const socketpairCall = bind<
  (domain: number, type: number, protocol: number, out: Uint8Array) => number
>('socketpair', 'int', ['int', 'int', 'int', 'void *']);
const listenCall = bind<(fd: number, backlog: number) => number>('listen', 'int', ['int', 'int']);
const accept4 = bind<(fd: number, address: number, length: number, flags: number) => number>(
  'accept4',
  'int',
  ['int', 'uintptr_t', 'uintptr_t', 'int'],
);
const sendmsg = bind<(fd: number, header: Uint8Array, flags: number) => number>('sendmsg', 'long', [
  'int',
  'void *',
  'int',
]);
const recvmsg = bind<(fd: number, header: Uint8Array, flags: number) => number>('recvmsg', 'long', [
  'int',
  'void *',
  'int',
]);

const SOL_SOCKET = 1;
const SO_OOBINLINE = 10;
const SO_PASSCRED = 16;
const SO_PEERCRED = 17;
const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;
/** Since Linux 6.16. */
const SO_PASSRIGHTS = 83;
const SCM_RIGHTS = 1;
const SCM_CREDENTIALS = 2;
const MSG_CTRUNC = 0x08;
const MSG_TRUNC = 0x20;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const SUN_PATH_MAX = 107;
const CMSG_HEADER = 16;

/** The most descriptors that one message can carry: with room for so many the kernel never drops one. */
export const SCM_MAX_FD = 253;

export const SOCK_STREAM = 1;
export const SOCK_SEQPACKET = 5;
type SocketType = typeof SOCK_STREAM | typeof SOCK_SEQPACKET;

/** Who is at the other end, as the kernel knows it. */
export interface Credentials {
  pid: number;
  uid: number;
  gid: number;
}

/** One received message. The caller owns `fds`. `length` 0 is the end of the stream. */
export interface Received {
  length: number;
  fds: number[];
  /** The message or its descriptors did not fit; the surplus is lost. */
  truncated: boolean;
  /** Of the sender, when `passCredentials` is on. */
  credentials: Credentials | null;
}

function sockaddr(path: string): Buffer {
  const bytes = Buffer.from(path);
  if (bytes.length > SUN_PATH_MAX || bytes.includes(0)) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `socket path "${path}" is not usable`, {
      hint: `use a path of at most ${SUN_PATH_MAX} bytes`,
    });
  }
  const address = Buffer.alloc(2 + bytes.length + 1);
  address.writeUInt16LE(AF_UNIX, 0);
  bytes.copy(address, 2);
  return address;
}

/** A connected pair of Unix sockets, close-on-exec, blocking. The caller owns both. */
export function socketPair(type: SocketType): [number, number] {
  const out = Buffer.alloc(8);
  check(socketpairCall(AF_UNIX, type | SOCK_CLOEXEC, 0, out), 'socketpair', 'AF_UNIX', type);
  return [out.readInt32LE(0), out.readInt32LE(4)];
}

/** A listening, non-blocking socket at `path`, which must not exist. */
export function listenUnix(path: string, type: SocketType, backlog = 64): number {
  const address = sockaddr(path);
  const fd = openSocket(AF_UNIX, type, 0, { nonBlocking: true });
  try {
    bindSocket(fd, address, path);
    check(listenCall(fd, backlog), 'listen', path, backlog);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/** A blocking socket connected to `path`. */
export function connectUnix(path: string, type: SocketType): number {
  const address = sockaddr(path);
  const fd = openSocket(AF_UNIX, type, 0);
  try {
    connectSocket(fd, address, path);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/** Next waiting connection (non-blocking, close-on-exec), or -1 when there is none. */
export function acceptUnix(fd: number): number {
  const accepted = accept4(fd, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (accepted < 0) {
    const code = errno();
    if (code === EAGAIN || code === EINTR || code === 103 /* ECONNABORTED */) return -1;
    check(accepted, 'accept4', fd);
  }
  return accepted;
}

/** Have every received message carry its sender's credentials. */
export function passCredentials(fd: number): void {
  setSocketOption(fd, SOL_SOCKET, SO_PASSCRED, 1, 'SO_PASSCRED');
}

/**
 * Whether `fd` takes descriptors. When it does not, who sends some gets EPERM, also before a connection is accepted:
 * accepted sockets have what the listening one has. False where the kernel cannot do that (before 6.16).
 */
export function passRights(fd: number, on: boolean): boolean {
  try {
    setSocketOption(fd, SOL_SOCKET, SO_PASSRIGHTS, on ? 1 : 0, 'SO_PASSRIGHTS');
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOPROTOOPT')) return false;
    throw error;
  }
}

/**
 * Have urgent bytes come with the others. Otherwise a receive drops them, and closes the descriptors that they carry.
 * Where the kernel knows no urgent bytes on such sockets, there are none.
 */
export function receiveOutOfBandInline(fd: number): void {
  setSocketOption(fd, SOL_SOCKET, SO_OOBINLINE, 1, 'SO_OOBINLINE');
}

/** Credentials of the process that connected, or made the pair. */
export function peerCredentials(fd: number): Credentials {
  const value = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(12);
  check(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, value, length), 'getsockopt', fd, 'SO_PEERCRED');
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/** Bound the time a blocking send or receive on `fd` may take (0: no bound). They then fail with EAGAIN. */
export function setTimeouts(fd: number, timeoutMs: number): void {
  const value = Buffer.alloc(16);
  value.writeBigInt64LE(BigInt(Math.floor(timeoutMs / 1000)), 0);
  value.writeBigInt64LE(BigInt(Math.floor((timeoutMs % 1000) * 1000)), 8);
  check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, value, 16), 'setsockopt', fd, 'SO_RCVTIMEO');
  check(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, value, 16), 'setsockopt', fd, 'SO_SNDTIMEO');
}

const align8 = (n: number): number => (n + 7) & ~7;

/** struct msghdr with one iovec, for x86-64: name, iov, control at 0, 16, 32; flags at 48. */
function msghdr(
  data: Buffer,
  length: number,
  control: Buffer | null,
): { header: Buffer; keep: Buffer } {
  const header = Buffer.alloc(56);
  const iovec = Buffer.alloc(16);
  iovec.writeBigUInt64LE(BigInt(addressOf(data)), 0);
  iovec.writeBigUInt64LE(BigInt(length), 8);
  header.writeBigUInt64LE(BigInt(addressOf(iovec)), 16);
  header.writeBigUInt64LE(1n, 24);
  if (control !== null) {
    header.writeBigUInt64LE(BigInt(addressOf(control)), 32);
    header.writeBigUInt64LE(BigInt(control.length), 40);
  }
  return { header, keep: iovec };
}

/**
 * Send one message with descriptors. They stay the caller's. Bytes sent, or -1 when it would block
 * (or the timeout of `setTimeouts` passed). A closed peer throws EPIPE or ECONNRESET.
 */
export function sendMessage(fd: number, data: Uint8Array, fds: readonly number[] = []): number {
  const bytes = Buffer.alloc(Math.max(1, data.length));
  bytes.set(data);
  let control: Buffer | null = null;
  if (fds.length > 0) {
    control = Buffer.alloc(align8(CMSG_HEADER + 4 * fds.length));
    control.writeBigUInt64LE(BigInt(CMSG_HEADER + 4 * fds.length), 0);
    control.writeInt32LE(SOL_SOCKET, 8);
    control.writeInt32LE(SCM_RIGHTS, 12);
    for (let i = 0; i < fds.length; i++) control.writeInt32LE(fds[i]!, CMSG_HEADER + 4 * i);
  }
  const { header, keep } = msghdr(bytes, data.length, control);
  let sent: number;
  do sent = sendmsg(fd, header, MSG_NOSIGNAL);
  while (sent < 0 && errno() === EINTR);
  keepAlive(keep, control, bytes);
  if (sent < 0) {
    if (errno() === EAGAIN) return -1;
    throw new SystemError('sendmsg', errnoName(), [
      fd,
      `${data.length} bytes`,
      `${fds.length} fds`,
    ]);
  }
  return sent;
}

/**
 * Receive one message into `buffer`, with up to `fdsMax` descriptors (close-on-exec). Null when it would block.
 * On a SOCK_STREAM socket a "message" is whatever has arrived.
 */
export function receiveMessage(fd: number, buffer: Buffer, fdsMax: number): Received | null {
  const control = Buffer.alloc(align8(CMSG_HEADER + 4 * fdsMax) + align8(CMSG_HEADER + 12));
  const { header, keep } = msghdr(buffer, buffer.length, control);
  let length: number;
  do length = recvmsg(fd, header, MSG_CMSG_CLOEXEC);
  while (length < 0 && errno() === EINTR);
  keepAlive(keep, control, buffer);
  if (length < 0) {
    if (errno() === EAGAIN) return null;
    throw new SystemError('recvmsg', errnoName(), [fd]);
  }
  const flags = header.readInt32LE(48);
  const received: Received = {
    length,
    fds: [],
    truncated: (flags & (MSG_TRUNC | MSG_CTRUNC)) !== 0,
    credentials: null,
  };
  readControl(control, Number(header.readBigUInt64LE(40)), received);
  return received;
}

function readControl(control: Buffer, length: number, received: Received): void {
  for (let at = 0; at + CMSG_HEADER <= length; ) {
    const size = Number(control.readBigUInt64LE(at));
    if (size < CMSG_HEADER || at + size > length) return;
    const type = control.readInt32LE(at + 12);
    if (control.readInt32LE(at + 8) === SOL_SOCKET) {
      const data = at + CMSG_HEADER;
      if (type === SCM_RIGHTS) {
        for (let i = data; i + 4 <= at + size; i += 4) received.fds.push(control.readInt32LE(i));
      } else if (type === SCM_CREDENTIALS && size >= CMSG_HEADER + 12) {
        received.credentials = {
          pid: control.readInt32LE(data),
          uid: control.readUInt32LE(data + 4),
          gid: control.readUInt32LE(data + 8),
        };
      }
    }
    at += align8(size);
  }
}

/** Drop the descriptors of a message that is not going to be used. */
export function discard(received: Received): void {
  closeAll(received.fds);
  received.fds.length = 0;
}
