/** Kernel UDP sockets, synchronous: what benchmarks and `doctor` use where `dgram` would hide the cost. See ip(7). */
import type { Ipv4 } from '../base/address.ts';
import { closeFd } from './fd.ts';
import { bind, check } from './libc.ts';

const socketCall = bind<(domain: number, type: number, protocol: number) => number>(
  'socket',
  'int',
  ['int', 'int', 'int'],
);
const connectCall = bind<(fd: number, address: Uint8Array, length: number) => number>(
  'connect',
  'int',
  ['int', 'void *', 'uint'],
);

const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;

/** A blocking UDP socket connected to `address:port`; read and write it with `readFd` and `writeFd`. */
export function connectUdp(address: Ipv4, port: number): number {
  const fd = check(socketCall(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket', 'AF_INET');
  const name = Buffer.alloc(16);
  name.writeUInt16LE(AF_INET, 0);
  name.writeUInt16BE(port, 2);
  name.writeUInt32BE(address, 4);
  try {
    check(connectCall(fd, name, name.length), 'connect', address, port);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}
