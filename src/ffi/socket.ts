/** Sockets of any family by system call: what `node:net` does not know, and what the other files of ffi/ build on. */
import { closeFd } from './fd.ts';
import { bind, check } from './libc.ts';

const socketCall = bind<(domain: number, type: number, protocol: number) => number>(
  'socket',
  'int',
  ['int', 'int', 'int'],
);
/** `bind(fd, address, length)`; -1 and errno on failure. Unchecked. */
export const bindCall = bind<(fd: number, address: Uint8Array, length: number) => number>(
  'bind',
  'int',
  ['int', 'void *', 'uint'],
);
const connectCall = bind<(fd: number, address: Uint8Array, length: number) => number>(
  'connect',
  'int',
  ['int', 'void *', 'uint'],
);
/** As in the manual; -1 and errno on failure. Unchecked. */
export const getsockopt = bind<
  (fd: number, level: number, option: number, value: Uint8Array, length: Uint8Array) => number
>('getsockopt', 'int', ['int', 'int', 'int', 'void *', 'void *']);
export const setsockopt = bind<
  (fd: number, level: number, option: number, value: Uint8Array, length: number) => number
>('setsockopt', 'int', ['int', 'int', 'int', 'void *', 'uint']);

export const SOCK_CLOEXEC = 0o2000000;
export const SOCK_NONBLOCK = 0o4000;

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;
export const AF_XDP = 44;
export const SOCK_DGRAM = 2;
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_RCVBUF = 8;
export const SOCK_RAW = 3;

/** For error messages. */
const FAMILY_NAMES: Readonly<Record<number, string>> = {
  [AF_UNIX]: 'AF_UNIX',
  [AF_INET]: 'AF_INET',
  [AF_NETLINK]: 'AF_NETLINK',
  [AF_PACKET]: 'AF_PACKET',
  [AF_XDP]: 'AF_XDP',
};

/** A new socket, close-on-exec. It belongs to the network namespace that the calling thread is in now. */
export function openSocket(
  domain: number,
  type: number,
  protocol: number,
  options: { nonBlocking?: boolean } = {},
): number {
  const flags = SOCK_CLOEXEC | (options.nonBlocking === true ? SOCK_NONBLOCK : 0);
  const fd = socketCall(domain, type | flags, protocol);
  return check(fd, 'socket', FAMILY_NAMES[domain] ?? domain, type, protocol);
}

/** Bind `fd` to the raw sockaddr in `address`, which messages call `name`. The socket stays the caller's, always. */
export function bindSocket(fd: number, address: Uint8Array, name: string | number = fd): void {
  check(bindCall(fd, address, address.length), 'bind', name);
}

/** Connect `fd` to the raw sockaddr in `address`, which messages call `name`. The socket stays the caller's, always. */
export function connectSocket(fd: number, address: Uint8Array, name: string): void {
  check(connectCall(fd, address, address.length), 'connect', name);
}

/** Set an integer option of a socket, which messages call `name`. */
export function setSocketOption(
  fd: number,
  level: number,
  option: number,
  value: number,
  name: string | number = option,
): void {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  check(setsockopt(fd, level, option, bytes, 4), 'setsockopt', fd, level, name, value);
}

/** Run `use` with a socket that is closed afterwards, whatever happens. */
export function withSocket<T>(fd: number, use: (fd: number) => T): T {
  try {
    return use(fd);
  } finally {
    closeFd(fd);
  }
}
