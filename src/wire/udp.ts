/** UDP (RFC 768). Every function takes the frame's view and the byte offset of the header in it. */
import * as checksum from './checksum.ts';
import { PROTOCOL_UDP } from './ipv4.ts';
import { pseudoHeader } from './ipv6.ts';

const SRC_PORT = 0;
const DST_PORT = 2;
const LENGTH = 4;
const CHECKSUM = 6;
export const HEADER_LEN = 8;

/** Payload length when the header at `at` is well formed and the datagram ends by `end`; otherwise -1. */
export function check(frame: DataView, at: number, end: number): number {
  if (end - at < HEADER_LEN) return -1;
  const length = frame.getUint16(at + LENGTH);
  return length < HEADER_LEN || length > end - at ? -1 : length - HEADER_LEN;
}

/** After `check`: true when the checksum is right between these addresses (int32), or the sender made none (0). */
export function checksumIsValid(
  frame: DataView,
  at: number,
  payloadLength: number,
  src: number,
  dst: number,
): boolean {
  if (frame.getUint16(at + CHECKSUM) === 0) return true;
  const length = HEADER_LEN + payloadLength;
  const total = checksum.sum(frame, at, length);
  return checksum.isValid(checksum.pseudoHeader(src, dst, PROTOCOL_UDP, length) + total);
}

/** The same between the addresses of the IPv6 header at `ipAt`, where there has to be one (RFC 8200, section 8.1). */
export function checksumIsValid6(
  frame: DataView,
  at: number,
  payloadLength: number,
  ipAt: number,
): boolean {
  if (frame.getUint16(at + CHECKSUM) === 0) return false;
  const length = HEADER_LEN + payloadLength;
  const total = checksum.sum(frame, at, length);
  return checksum.isValid(pseudoHeader(frame, ipAt, PROTOCOL_UDP, length) + total);
}

export const srcPort = (frame: DataView, at: number): number => frame.getUint16(at + SRC_PORT);
export const dstPort = (frame: DataView, at: number): number => frame.getUint16(at + DST_PORT);
export const length = (frame: DataView, at: number): number => frame.getUint16(at + LENGTH);
/** 0 when the sender made none. */
export const checksumField = (frame: DataView, at: number): number =>
  frame.getUint16(at + CHECKSUM);

export function setPorts(frame: DataView, at: number, source: number, destination: number): void {
  frame.setUint16(at + SRC_PORT, source);
  frame.setUint16(at + DST_PORT, destination);
}

/** Write the header, its checksum over the payload that stands already, between these addresses (int32). */
export function emit(
  frame: DataView,
  at: number,
  source: number,
  destination: number,
  payloadLength: number,
  src: number,
  dst: number,
): void {
  const total = HEADER_LEN + payloadLength;
  setPorts(frame, at, source, destination);
  frame.setUint16(at + LENGTH, total);
  const body = checksum.sum(frame, at + HEADER_LEN, payloadLength);
  const header = (source & 0xffff) + (destination & 0xffff) + total;
  const pseudo = checksum.pseudoHeader(src, dst, PROTOCOL_UDP, total);
  // A checksum that comes out as zero is sent as ones: zero says that there is none.
  frame.setUint16(at + CHECKSUM, checksum.finish(pseudo + header + body) || 0xffff);
}

/** The same between the addresses of the IPv6 header at `ipAt`, which stand already. */
export function emit6(
  frame: DataView,
  at: number,
  source: number,
  destination: number,
  payloadLength: number,
  ipAt: number,
): void {
  const total = HEADER_LEN + payloadLength;
  setPorts(frame, at, source, destination);
  frame.setUint16(at + LENGTH, total);
  frame.setUint16(at + CHECKSUM, 0);
  const pseudo = pseudoHeader(frame, ipAt, PROTOCOL_UDP, total);
  frame.setUint16(
    at + CHECKSUM,
    checksum.finish(pseudo + checksum.sum(frame, at, total)) || 0xffff,
  );
}

/** `UDP 1024 > 7 len 22`, the payload's length. */
export const format = (frame: DataView, at: number): string =>
  `UDP ${srcPort(frame, at)} > ${dstPort(frame, at)} len ${length(frame, at) - HEADER_LEN}`;
