/** Kernel UDP and ICMP sockets, synchronous: what benchmarks and the demo use. See ip(7), icmp(7), raw(7). */
import { formatIpv4, type Ipv4 } from '../base/address.ts';
import { closeFd } from './fd.ts';
import {
  AF_INET,
  bindSocket,
  connectSocket,
  openSocket,
  SO_RCVBUF,
  SO_REUSEADDR,
  SOCK_DGRAM,
  SOCK_RAW,
  SOL_SOCKET,
  setSocketOption,
} from './socket.ts';
import { SOCK_STREAM } from './unix.ts';

const IPPROTO_ICMP = 1;

/** A blocking UDP socket connected to `address:port`; read and write it with `readFd` and `writeFd`. */
export function connectUdp(address: Ipv4, port: number): number {
  return connected(SOCK_DGRAM, 0, address, port);
}

/** A blocking UDP socket that receives what is for `address:port`; read it with `readFd`. */
export function bindUdp(address: Ipv4, port: number): number {
  const fd = openSocket(AF_INET, SOCK_DGRAM, 0);
  try {
    bindSocket(fd, sockaddrIn(address, port), `${formatIpv4(address)}:${port}`);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/**
 * A socket that has `address:port` of UDP or TCP and does nothing with it: no other socket can have it meanwhile. SystemError
 * EADDRINUSE when one has it. `besideEnded`: also beside TCP connections that are over and only wait (TIME-WAIT).
 */
export function occupyPort(
  protocol: 'udp' | 'tcp',
  address: Ipv4,
  port: number,
  besideEnded = false,
): number {
  const fd = openSocket(AF_INET, protocol === 'udp' ? SOCK_DGRAM : SOCK_STREAM, 0);
  try {
    // What the kernel may keep for it, where something reaches it: the least there is.
    setSocketOption(fd, SOL_SOCKET, SO_RCVBUF, 0, 'SO_RCVBUF');
    if (besideEnded) setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 1, 'SO_REUSEADDR');
    bindSocket(fd, sockaddrIn(address, port), `${protocol} ${formatIpv4(address)}:${port}`);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/**
 * A blocking raw ICMP socket connected to `address` (needs CAP_NET_RAW). What is written is an ICMP message;
 * what is read is an IPv4 packet, header included, of any ICMP type that the address sent.
 */
export function connectIcmp(address: Ipv4): number {
  return connected(SOCK_RAW, IPPROTO_ICMP, address, 0);
}

/** struct sockaddr_in: family 0, port 2, address 4, eight bytes of padding. */
function sockaddrIn(address: Ipv4, port: number): Buffer {
  const name = Buffer.alloc(16);
  name.writeUInt16LE(AF_INET, 0);
  name.writeUInt16BE(port, 2);
  name.writeUInt32BE(address, 4);
  return name;
}

function connected(type: number, protocol: number, address: Ipv4, port: number): number {
  const fd = openSocket(AF_INET, type, protocol);
  try {
    connectSocket(fd, sockaddrIn(address, port), `${formatIpv4(address)}:${port}`);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}
