/** What a sender leaves to the device: virtio_net_hdr before a frame of ours (virtio 1.2, section 5.1.6.2). */
import { BATCH_PIECES_MAX, FRAME_FLAG } from '../../device/nic.ts';
import { isSendable } from '../../device/sendable.ts';
import type { FrameMemory } from '../../memory/frame-memory.ts';
import { F_NEEDS_CSUM, GSO_NONE, GSO_TCPV4, GSO_TCPV6 } from '../../ring/net-header.ts';
import { NET_HEADER_LEN } from '../../ring/split-layout.ts';

const ETH_HEADER_LEN = 14;
const ETHERTYPE = 12;
const ETHERTYPE_IPV4 = 0x0800;
const IPV6_HEADER_LEN = 40;
const TCP_CHECKSUM = 16;
const TCP_DATA_OFFSET = 12;
/** What a 16-bit IP length counts, and the Ethernet header. */
const PACKET_BYTES_MAX = 65_535 + ETH_HEADER_LEN;

/** Whether the pieces of a packet are frames of the region, and together no longer than may be sent. */
export function isPacket(
  memory: FrameMemory,
  frames: Uint32Array,
  lengths: Uint16Array,
  at: number,
  pieces: number,
  flags: Uint8Array,
  frameLengthMax: number,
): boolean {
  if (pieces > BATCH_PIECES_MAX || (flags[at + pieces - 1]! & FRAME_FLAG.more) !== 0) return false;
  const { frameSize, u8 } = memory;
  let total = lengths[at]!;
  if (!isSendable(memory, frames[at]!, total, frameSize)) return false;
  for (let i = at + 1; i < at + pieces; i++) {
    const frame = frames[i]!;
    const length = lengths[i]!;
    if (length === 0 || (frame & (frameSize - 1)) + length > frameSize) return false;
    if (frame + length > u8.length) return false;
    total += length;
  }
  return total <= ((flags[at]! & FRAME_FLAG.segment) !== 0 ? PACKET_BYTES_MAX : frameLengthMax);
}

/** Write the header before the frame at `frame`, which is TCP over IPv4, or over IPv6 without extension headers. */
export function emitHeader(
  view: DataView,
  frame: number,
  flags: number,
  segmentBytes: number,
): void {
  const at = frame - NET_HEADER_LEN;
  if ((flags & (FRAME_FLAG.checksum | FRAME_FLAG.segment)) === 0) {
    view.setUint32(at, 0);
    view.setUint32(at + 4, 0);
    view.setUint32(at + 8, 0);
    return;
  }
  const isIpv4 = view.getUint16(frame + ETHERTYPE) === ETHERTYPE_IPV4;
  const ipLength = isIpv4 ? (view.getUint8(frame + ETH_HEADER_LEN) & 15) * 4 : IPV6_HEADER_LEN;
  const tcpAt = ETH_HEADER_LEN + ipLength;
  const isCut = (flags & FRAME_FLAG.segment) !== 0;
  view.setUint8(at, F_NEEDS_CSUM);
  view.setUint8(at + 1, isCut ? (isIpv4 ? GSO_TCPV4 : GSO_TCPV6) : GSO_NONE);
  const tcpLength = (view.getUint8(frame + tcpAt + TCP_DATA_OFFSET) >>> 4) * 4;
  view.setUint16(at + 2, isCut ? tcpAt + tcpLength : 0, true);
  view.setUint16(at + 4, isCut ? segmentBytes : 0, true);
  view.setUint16(at + 6, tcpAt, true);
  view.setUint16(at + 8, TCP_CHECKSUM, true);
  view.setUint16(at + 10, 0);
}
