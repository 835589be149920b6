/** Kernel TCP sockets by system call, never blocking: the reference that ours is compared with. See tcp(7), socket(7). */
import { closeFd } from '../../src/ffi/fd.ts';
import { bind, check, EAGAIN, errno, errnoName, errnoToName } from '../../src/ffi/libc.ts';
import {
  AF_INET,
  bindSocket,
  getsockopt,
  openSocket,
  setSocketOption,
  setsockopt,
} from '../../src/ffi/socket.ts';

const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_ERROR = 4;
const SO_KEEPALIVE = 9;
const SO_LINGER = 13;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_INFO = 11;
const TCP_USER_TIMEOUT = 18;
const SHUT_WR = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const ACCEPT_FLAGS = 0o2004000;
const TCP_ESTABLISHED = 1;
const TCP_SYN_SENT = 2;

const listenCall = bind<(fd: number, backlog: number) => number>('listen', 'int', ['int', 'int']);
const acceptCall = bind<(fd: number, address: null, length: null, flags: number) => number>(
  'accept4',
  'int',
  ['int', 'void *', 'void *', 'int'],
);
const connectCall = bind<(fd: number, address: Uint8Array, length: number) => number>(
  'connect',
  'int',
  ['int', 'void *', 'uint'],
);
const recvCall = bind<(fd: number, to: Uint8Array, length: number, flags: number) => number>(
  'recv',
  'long',
  ['int', 'void *', 'size_t', 'int'],
);
const sendCall = bind<(fd: number, from: Uint8Array, length: number, flags: number) => number>(
  'send',
  'long',
  ['int', 'void *', 'size_t', 'int'],
);
const shutdownCall = bind<(fd: number, how: number) => number>('shutdown', 'int', ['int', 'int']);

function sockaddr(ip: number, port: number): Buffer {
  const name = Buffer.alloc(16);
  name.writeUInt16LE(AF_INET, 0);
  name.writeUInt16BE(port, 2);
  name.writeUInt32BE(ip >>> 0, 4);
  return name;
}

function open(ip: number, port: number): number {
  const fd = openSocket(AF_INET, SOCK_STREAM, 0, { nonBlocking: true });
  try {
    setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    bindSocket(fd, sockaddr(ip, port), `port ${port}`);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/** A listening socket; the caller's. */
export function listenTcp(ip: number, port: number, backlog: number): number {
  const fd = open(ip, port);
  check(listenCall(fd, backlog), 'listen', fd, backlog);
  return fd;
}

/** A connecting socket; the caller's. */
export function connectTcp(ip: number, port: number, toIp: number, toPort: number): number {
  const fd = open(ip, port);
  const result = connectCall(fd, sockaddr(toIp, toPort), 16);
  if (result < 0 && errnoName() !== 'EINPROGRESS') check(result, 'connect', toPort);
  return fd;
}

/** The next connection, or -1. */
export function acceptTcp(fd: number): number {
  const result = acceptCall(fd, null, null, ACCEPT_FLAGS);
  if (result < 0 && errno() === EAGAIN) return -1;
  return check(result, 'accept4', fd);
}

const buffer = Buffer.alloc(65536);

/** What is there; empty at the end; null when nothing is; the name of errno when it has failed. */
export function receiveTcp(fd: number): Buffer | string | null {
  const length = recvCall(fd, buffer, buffer.length, MSG_DONTWAIT);
  if (length >= 0) return Buffer.from(buffer.subarray(0, length));
  return errno() === EAGAIN ? null : errnoName();
}

/** Bytes accepted; 0 when it would block; the name of errno when it has failed. */
export function sendTcp(fd: number, bytes: Uint8Array): number | string {
  const result = sendCall(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (result >= 0) return result;
  return errno() === EAGAIN ? 0 : errnoName();
}

export function endTcp(fd: number): void {
  shutdownCall(fd, SHUT_WR);
}

/** Close with RST. */
export function abortTcp(fd: number): void {
  const linger = Buffer.alloc(8);
  linger.writeInt32LE(1, 0);
  check(setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, 8), 'setsockopt', fd);
  closeFd(fd);
}

/** And clear it: the name of errno, or null. */
export function errorOfTcp(fd: number): string | null {
  const value = Buffer.alloc(4);
  const length = Buffer.from([4, 0, 0, 0]);
  check(getsockopt(fd, SOL_SOCKET, SO_ERROR, value, length), 'getsockopt', fd);
  const code = value.readInt32LE(0);
  return code === 0 ? null : errnoToName(code);
}

/** Whether the handshake is done, by the state in struct tcp_info. */
export function isConnectedTcp(fd: number): boolean {
  const info = Buffer.alloc(8);
  const length = Buffer.from([8, 0, 0, 0]);
  check(getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, length), 'getsockopt', fd);
  const state = info[0]!;
  return state === TCP_ESTABLISHED || (state !== TCP_SYN_SENT && state > 3 && state !== 7);
}

export const setNoDelayTcp = (fd: number, on: boolean): void =>
  setSocketOption(fd, IPPROTO_TCP, TCP_NODELAY, on ? 1 : 0);

export function setKeepAliveTcp(fd: number, idleS: number, intervalS: number, probes: number) {
  setSocketOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, idleS);
  setSocketOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, intervalS);
  setSocketOption(fd, IPPROTO_TCP, TCP_KEEPCNT, probes);
  setSocketOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

export const setUserTimeoutTcp = (fd: number, ms: number): void =>
  setSocketOption(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ms);
