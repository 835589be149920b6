/** Extaris, the user-level network stack: what an application uses of it. */

export type { GuardOptions } from './address-guard.ts';
export { formatNetCounters, type NetCounter, type NetCounters } from './counters.ts';
export { DhcpClient, type DhcpOptions, type DhcpState } from './dhcp/client.ts';
export type { Lease } from './dhcp/lease.ts';
export { Resolver, type ResolverOptions } from './dns/resolver.ts';
export { ICMP_ERROR, type IcmpError, type IcmpErrorHandler } from './icmp-errors.ts';
export { type KernelNetwork, NetInterface, type NetOptions } from './interface.ts';
export type { GroupOptions } from './ipv4.ts';
export type { Ipv6AddressInfo, Ipv6Options, Ipv6Stack } from './ipv6/stack.ts';
export { UDP6_PAYLOAD_OFFSET, type Udp6Handler, type Udp6Layer } from './ipv6/udp.ts';
export { NET_LIMITS } from './limits.ts';
export { type NeighbourShare, shareNeighbours } from './neighbours.ts';
export {
  type ConnectOptions as TcpConnectOptions,
  type ListenOptions as TcpListenOptions,
  TCP_END,
  TCP_HEADROOM,
  TCP_PAYLOAD_OFFSET,
  TCP_STATE,
  type Tcp,
  type TcpConnection,
  type TcpEnd,
  type TcpHandlers,
  type TcpInfo,
  type TcpListener,
  type TcpState,
} from './tcp/api.ts';
export { netTurn, type Turn } from './turn.ts';
export {
  UDP_PAYLOAD_MAX,
  UDP_PAYLOAD_OFFSET,
  type UdpBindOptions,
  type UdpErrorHandler,
  type UdpHandler,
  type UdpLargeHandler,
  type UdpLayer,
} from './udp.ts';
export type { UdpSocket } from './udp-sockets.ts';
