/** libarrakis: what an application imports. Unprivileged; the daemon has the rights. */
export {
  formatIpv4,
  formatMac,
  type Ipv4,
  type Mac,
  parseCidr,
  parseIpv4,
  parseMac,
} from '../base/address.ts';
export { parseCpus } from '../base/cpus.ts';
export { ArrakisError, ERROR_CODES, type ErrorCode, SystemError } from '../base/errors.ts';
export type { CapInfo, DeviceInfo, ObjectInfo } from '../control/protocol.ts';
export {
  formatVnicSpec,
  parseVnicSpec,
  VNIC_SPEC_FORM,
  type VnicSpec,
} from '../control/vnic-spec.ts';
export {
  BATCH_PIECES_MAX,
  FRAME_FLAG,
  type FrameMemory,
  NIC_OFFLOAD,
  NIC_STATE,
  type NicCounters,
  type NicQueue,
  NO_FRAME,
} from '../device/nic.ts';
export { monotonicMs, monotonicUs32 } from '../ffi/clock.ts';
export type { Box, Filter } from '../filter/boxes.ts';
export { FilterBuilder, filter } from '../filter/build.ts';
export { formatFilter } from '../filter/format.ts';
export { FilterSyntaxError, parseFilter } from '../filter/parse.ts';
export {
  Channel,
  type ChannelDriver,
  type Codec,
  type FieldType,
  type Handler,
  jsonCodec,
  LINK_STATE,
  type LinkBells,
  type LinkMemory,
  linkBytes,
  linkMemory,
  MessageLink,
  makeBells,
  NONE,
  type RequestOptions,
  type StructCodec,
  type StructFields,
  structCodec,
} from '../message/index.ts';
export {
  formatNetCounters,
  ICMP_ERROR,
  type NeighbourShare,
  type NetCounters,
  NetInterface,
  type NetOptions,
  netTurn,
  shareNeighbours,
  TCP_END,
  TCP_HEADROOM,
  TCP_PAYLOAD_OFFSET,
  TCP_STATE,
  type Tcp,
  type TcpConnection,
  type TcpConnectOptions,
  type TcpEnd,
  type TcpHandlers,
  type TcpInfo,
  type TcpListener,
  type TcpListenOptions,
  type TcpState,
  UDP_PAYLOAD_MAX,
  UDP_PAYLOAD_OFFSET,
  type UdpBindOptions,
  type UdpHandler,
} from '../net/index.ts';
export { type Answer, ControlChannel, openControlSocket } from './client.ts';
export {
  type CapNarrowing,
  type ConnectOptions,
  connect,
  Domain,
  type OpenOptions,
  type RevokeOptions,
} from './domain.ts';
export {
  type ConnectTo,
  EndpointChannel,
  Listener,
  type ListenOptions,
  type PeerInfo,
  type PeerLink,
} from './endpoints.ts';
export { followKernel } from './follow-kernel.ts';
export {
  type NameAnswer,
  type NameChanges,
  type NameEntry,
  type NameServer,
  Names,
  NameWatch,
} from './names.ts';
export { type PollLoop, type PollLoopOptions, pollLoop } from './poll-loop.ts';
export { Region, type RegionRight } from './regions.ts';
export { ThreadVnic, threadVnic } from './thread-vnic.ts';
export { type ThreadsOptions, VnicThreads } from './threads.ts';
export { type FilterDirection, type HostNetwork, Vnic, type VnicFilter } from './vnic.ts';
