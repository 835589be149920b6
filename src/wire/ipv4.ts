/**
 * IPv4 headers (RFC 791, section 3.1). Every function takes the frame's view and the byte offset of the header in it.
 * Addresses are int32 (`address | 0`), so that they compare and pass as small integers; `>>> 0` gives an Ipv4.
 */
import { formatIpv4 } from '../base/address.ts';
import * as checksum from './checksum.ts';

const VERSION_IHL = 0;
const TOTAL_LENGTH = 2;
const ID = 4;
const FLAGS_OFFSET = 6;
const TTL_PROTOCOL = 8;
const PROTOCOL = 9;
const CHECKSUM = 10;
const SRC = 12;
const DST = 16;
/** Without options, which we never send. */
export const HEADER_LEN = 20;

/** Bits of the word at FLAGS_OFFSET: "don't fragment", "more fragments", fragment offset. */
export const DONT_FRAGMENT = 0x4000;
export const MORE_FRAGMENTS = 0x2000;
const MORE_FRAGMENTS_OR_OFFSET = 0x3fff;
const OFFSET_MASK = 0x1fff;
/** Longest datagram, header included. */
export const LENGTH_MAX = 65_535;

/** Options (section 3.1): end, no operation, loose and strict source route. */
const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_LSRR = 131;
const OPTION_SSRR = 137;
/** What `checkOptions` returns for a source route. */
export const SOURCE_ROUTE = -2;

/** Protocol numbers (IANA). */
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_IGMP = 2;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;

/** What `check` returns for a header whose checksum is wrong. */
export const BAD_CHECKSUM = -2;

/**
 * Payload length when the header at `at` is well formed, its checksum right, and the datagram ends by `end`.
 * -1 when malformed, BAD_CHECKSUM when only the checksum is wrong (RFC 1122, section 3.2.1.2).
 */
export function check(frame: DataView, at: number, end: number): number {
  if (end - at < HEADER_LEN) return -1;
  const first = frame.getUint8(at + VERSION_IHL);
  const header = (first & 15) << 2;
  const total = totalLength(frame, at);
  if (first >>> 4 !== 4 || header < HEADER_LEN || total < header || total > end - at) return -1;
  if (checksum.sum(frame, at, header) !== 0xffff) return BAD_CHECKSUM;
  return total - header;
}

/** Bytes of the header, options included. */
export const headerLength = (frame: DataView, at: number): number =>
  (frame.getUint8(at + VERSION_IHL) & 15) << 2;
export const totalLength = (frame: DataView, at: number): number =>
  frame.getUint16(at + TOTAL_LENGTH);
export const id = (frame: DataView, at: number): number => frame.getUint16(at + ID);
export const ttl = (frame: DataView, at: number): number => frame.getUint8(at + TTL_PROTOCOL);
export const protocol = (frame: DataView, at: number): number => frame.getUint8(at + PROTOCOL);
export const src = (frame: DataView, at: number): number => frame.getInt32(at + SRC);
export const dst = (frame: DataView, at: number): number => frame.getInt32(at + DST);

/** True for any piece of a fragmented datagram. */
export const isFragment = (frame: DataView, at: number): boolean =>
  (frame.getUint16(at + FLAGS_OFFSET) & MORE_FRAGMENTS_OR_OFFSET) !== 0;

/** Byte offset of this fragment's payload in the datagram's. */
export const fragmentOffset = (frame: DataView, at: number): number =>
  (frame.getUint16(at + FLAGS_OFFSET) & OFFSET_MASK) << 3;
export const moreFragments = (frame: DataView, at: number): boolean =>
  (frame.getUint16(at + FLAGS_OFFSET) & MORE_FRAGMENTS) !== 0;

/**
 * 0 when the options of a header of `header` bytes can be walked to their end; -1 when one lies about its length,
 * SOURCE_ROUTE when one asks for a way of its own (RFC 7126, section 4.3: such packets are to be dropped).
 */
export function checkOptions(frame: DataView, at: number, header: number): number {
  const end = at + header;
  for (let i = at + HEADER_LEN; i < end; ) {
    const kind = frame.getUint8(i);
    if (kind === OPTION_END) return 0;
    if (kind === OPTION_NOP) {
      i++;
      continue;
    }
    if (kind === OPTION_LSRR || kind === OPTION_SSRR) return SOURCE_ROUTE;
    if (i + 1 >= end) return -1;
    const length = frame.getUint8(i + 1);
    if (length < 2 || length > end - i) return -1;
    i += length;
  }
  return 0;
}

/** Make the datagram at `at` one piece of `payloadLength` bytes, without flags, as if it had never been fragmented. */
export function makeWhole(frame: DataView, at: number, payloadLength: number): void {
  const header = headerLength(frame, at);
  frame.setUint16(at + TOTAL_LENGTH, header + payloadLength);
  frame.setUint16(at + FLAGS_OFFSET, 0);
  frame.setUint16(at + CHECKSUM, 0);
  frame.setUint16(at + CHECKSUM, checksum.finish(checksum.sum(frame, at, header)));
}

/** Lengthen a written header by one option of four bytes, for which there is room before `payloadLength` bytes of payload. */
export function setOption(
  frame: DataView,
  at: number,
  option: number,
  payloadLength: number,
): void {
  frame.setUint8(at + VERSION_IHL, 0x46);
  frame.setInt32(at + HEADER_LEN, option);
  frame.setUint16(at + TOTAL_LENGTH, HEADER_LEN + 4 + payloadLength);
  frame.setUint16(at + CHECKSUM, 0);
  frame.setUint16(at + CHECKSUM, checksum.finish(checksum.sum(frame, at, HEADER_LEN + 4)));
}

/** Write a whole header of HEADER_LEN bytes, checksum included: "don't fragment", and not a piece. */
export function emit(
  frame: DataView,
  at: number,
  payloadLength: number,
  identification: number,
  timeToLive: number,
  proto: number,
  source: number,
  destination: number,
): void {
  const total = HEADER_LEN + payloadLength;
  frame.setUint16(at + VERSION_IHL, 0x4500);
  frame.setUint16(at + TOTAL_LENGTH, total);
  frame.setUint16(at + ID, identification);
  frame.setUint16(at + FLAGS_OFFSET, DONT_FRAGMENT);
  frame.setUint16(at + TTL_PROTOCOL, (timeToLive << 8) | proto);
  frame.setInt32(at + SRC, source);
  frame.setInt32(at + DST, destination);
  // The eight words are at hand: adding them is cheaper than reading the header back.
  const fixed =
    0x4500 + total + (identification & 0xffff) + DONT_FRAGMENT + ((timeToLive << 8) | proto);
  const addresses =
    (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff);
  frame.setUint16(at + CHECKSUM, checksum.finish(fixed + addresses));
}

/** Make a written header that of a piece: MORE_FRAGMENTS, when more follow, and the place of its payload in units of 8 bytes. */
export function setPiece(frame: DataView, at: number, flags: number): void {
  const before = frame.getUint16(at + FLAGS_OFFSET);
  const sum = checksum.update(frame.getUint16(at + CHECKSUM), before, flags);
  frame.setUint16(at + FLAGS_OFFSET, flags);
  frame.setUint16(at + CHECKSUM, sum);
}

/** `10.0.0.1 > 10.0.0.2 ttl 64 id 7 len 84 proto 1`. */
export function format(frame: DataView, at: number): string {
  const path = `${formatIpv4(src(frame, at))} > ${formatIpv4(dst(frame, at))}`;
  const fragment = isFragment(frame, at) ? ' fragment' : '';
  return `${path} ttl ${ttl(frame, at)} id ${id(frame, at)} len ${totalLength(frame, at)} proto ${protocol(frame, at)}${fragment}`;
}
