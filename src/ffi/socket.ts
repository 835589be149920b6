/** Sockets of any family, for those that `node:net` does not know: netlink, packet, and the one ioctls go through. */
import { closeFd } from './fd.ts';
import { bind, check } from './libc.ts';

const socketCall = bind<(domain: number, type: number, protocol: number) => number>(
  'socket',
  'int',
  ['int', 'int', 'int'],
);
const bindCall = bind<(fd: number, address: Uint8Array, length: number) => number>('bind', 'int', [
  'int',
  'void *',
  'uint',
]);
const setsockopt = bind<
  (fd: number, level: number, option: number, value: Uint8Array, length: number) => number
>('setsockopt', 'int', ['int', 'int', 'int', 'void *', 'uint']);

const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;

export const AF_INET = 2;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;

/** A new socket, close-on-exec. It belongs to the network namespace that the calling thread is in now. */
export function openSocket(
  domain: number,
  type: number,
  protocol: number,
  options: { nonBlocking?: boolean } = {},
): number {
  const flags = SOCK_CLOEXEC | (options.nonBlocking === true ? SOCK_NONBLOCK : 0);
  return check(socketCall(domain, type | flags, protocol), 'socket', domain, type, protocol);
}

/** Bind `fd` to the raw sockaddr in `address`. The socket stays the caller's, also on failure. */
export function bindSocket(fd: number, address: Uint8Array): void {
  check(bindCall(fd, address, address.length), 'bind', fd);
}

/** Set an integer option of a socket. */
export function setSocketOption(fd: number, level: number, option: number, value: number): void {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  check(setsockopt(fd, level, option, bytes, 4), 'setsockopt', fd, level, option, value);
}

/** Run `use` with a socket that is closed afterwards, whatever happens. */
export function withSocket<T>(fd: number, use: (fd: number) => T): T {
  try {
    return use(fd);
  } finally {
    closeFd(fd);
  }
}
