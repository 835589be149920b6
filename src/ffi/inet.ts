/** Kernel UDP and ICMP sockets, synchronous: what benchmarks and the demo use. See ip(7), icmp(7), raw(7). */
import { formatIpv4, type Ipv4 } from '../base/address.ts';
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
const SOCK_RAW = 3;
const IPPROTO_ICMP = 1;
const SOCK_CLOEXEC = 0o2000000;

/** A blocking UDP socket connected to `address:port`; read and write it with `readFd` and `writeFd`. */
export function connectUdp(address: Ipv4, port: number): number {
  return connected(SOCK_DGRAM, 0, address, port);
}

/**
 * A blocking raw ICMP socket connected to `address` (needs CAP_NET_RAW). What is written is an ICMP message;
 * what is read is an IPv4 packet, header included, of any ICMP type that the address sent.
 */
export function connectIcmp(address: Ipv4): number {
  return connected(SOCK_RAW, IPPROTO_ICMP, address, 0);
}

function connected(type: number, protocol: number, address: Ipv4, port: number): number {
  const fd = check(socketCall(AF_INET, type | SOCK_CLOEXEC, protocol), 'socket', 'AF_INET', type);
  const name = Buffer.alloc(16);
  name.writeUInt16LE(AF_INET, 0);
  name.writeUInt16BE(port, 2);
  name.writeUInt32BE(address, 4);
  try {
    check(connectCall(fd, name, name.length), 'connect', formatIpv4(address), port);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}
