/** Extaris, the user-level network stack: what an application uses of it. */
export { formatNetCounters, type NetCounter, type NetCounters } from './counters.ts';
export { NetInterface, type NetOptions } from './interface.ts';
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
export { UDP_PAYLOAD_OFFSET, type UdpHandler, type UdpLayer } from './udp.ts';
