/** Raw frames of an interface past the kernel's stack (packet(7)), for tests and diagnostics. */
import { isErrno } from '../base/errors.ts';
import { closeFd } from './fd.ts';
import { missingLink } from './netlink/index.ts';
import { AF_PACKET, bindSocket, openSocket, SOCK_RAW } from './socket.ts';

/** ETH_P_ALL in network byte order: every protocol. */
const ETH_P_ALL_BE = 0x0300;
/** struct sockaddr_ll: family 0, protocol 2, ifindex 4, and link-level address fields. */
const SOCKADDR_LL_BYTES = 20;

/**
 * A non-blocking socket on one interface; the descriptor is the caller's. `readFd` gets one whole frame that
 * came in or went out, `writeFd` sends one. Needs CAP_NET_RAW; ARK_NOT_FOUND without such an interface.
 */
export function openPacketSocket(ifIndex: number): number {
  // Protocol 0 receives nothing until the socket is bound, so no other interface's frames get in first.
  const fd = openSocket(AF_PACKET, SOCK_RAW, 0, { nonBlocking: true });
  const address = Buffer.alloc(SOCKADDR_LL_BYTES);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16LE(ETH_P_ALL_BE, 2);
  address.writeInt32LE(ifIndex, 4);
  try {
    bindSocket(fd, address);
  } catch (error) {
    closeFd(fd);
    throw isErrno(error, 'ENODEV') ? missingLink(ifIndex) : error;
  }
  return fd;
}
