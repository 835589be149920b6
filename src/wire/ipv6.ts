/**
 * IPv6 headers (RFC 8200, section 3). Every function takes the frame's view and the byte offset of the header in it.
 * An address is four int32 words of an Int32Array; source and destination follow each other in a header as they do in a
 * flow that we send by (local, then remote): eight words. Headers between this one and the payload are in extensions.ts.
 */
import { formatIpv6 } from '../base/address.ts';
import * as checksum from './checksum.ts';

const VERSION_CLASS_FLOW = 0;
const PAYLOAD_LENGTH = 4;
const NEXT_HEADER = 6;
const HOP_LIMIT = 7;
const SRC = 8;
const DST = 24;
export const HEADER_LEN = 40;
/** Every link carries packets of so many bytes (RFC 8200, section 5). */
export const MTU_MIN = 1280;

/** Next headers (IANA) besides those of IPv4's PROTOCOL_TCP and PROTOCOL_UDP. */
export const PROTOCOL_ICMPV6 = 58;
export const NO_NEXT_HEADER = 59;

/** Payload length, extension headers included, when the header at `at` is well formed and the packet ends by `end`; otherwise -1. */
export function check(frame: DataView, at: number, end: number): number {
  if (end - at < HEADER_LEN || frame.getUint8(at + VERSION_CLASS_FLOW) >>> 4 !== 6) return -1;
  const length = payloadLength(frame, at);
  return length > end - at - HEADER_LEN ? -1 : length;
}

export const payloadLength = (frame: DataView, at: number): number =>
  frame.getUint16(at + PAYLOAD_LENGTH);
export const nextHeader = (frame: DataView, at: number): number => frame.getUint8(at + NEXT_HEADER);
export const hopLimit = (frame: DataView, at: number): number => frame.getUint8(at + HOP_LIMIT);

/** Copy four words from `at` of the frame to `words`, index `to`. */
export function readAddress(frame: DataView, at: number, words: Int32Array, to: number): void {
  words[to] = frame.getInt32(at);
  words[to + 1] = frame.getInt32(at + 4);
  words[to + 2] = frame.getInt32(at + 8);
  words[to + 3] = frame.getInt32(at + 12);
}

/** Copy four words from index `from` to `at` of the frame. */
export function writeAddress(frame: DataView, at: number, words: Int32Array, from: number): void {
  frame.setInt32(at, words[from]!);
  frame.setInt32(at + 4, words[from + 1]!);
  frame.setInt32(at + 8, words[from + 2]!);
  frame.setInt32(at + 12, words[from + 3]!);
}

export const readSrc = (frame: DataView, at: number, words: Int32Array, to: number): void =>
  readAddress(frame, at + SRC, words, to);
export const readDst = (frame: DataView, at: number, words: Int32Array, to: number): void =>
  readAddress(frame, at + DST, words, to);
/** True when the destination is a group (RFC 4291, section 2.7). */
export const isToGroup = (frame: DataView, at: number): boolean =>
  frame.getUint8(at + DST) === 0xff;

/** Sum of the pseudo header of upper layers (RFC 8200, section 8.1), of the addresses in the header at `at`. */
export const pseudoHeader = (frame: DataView, at: number, proto: number, length: number): number =>
  checksum.sum(frame, at + SRC, DST - SRC + 16) + proto + length;

/** Write a whole header of HEADER_LEN bytes from the flow whose eight words begin at `flow`: our address, then the other. */
export function emit(
  frame: DataView,
  at: number,
  length: number,
  next: number,
  hops: number,
  words: Int32Array,
  flow: number,
): void {
  frame.setInt32(at + VERSION_CLASS_FLOW, 0x60000000);
  frame.setUint16(at + PAYLOAD_LENGTH, length);
  frame.setUint16(at + NEXT_HEADER, (next << 8) | hops);
  writeAddress(frame, at + SRC, words, flow);
  writeAddress(frame, at + DST, words, flow + 4);
}

export function setPayloadLength(frame: DataView, at: number, length: number): void {
  frame.setUint16(at + PAYLOAD_LENGTH, length);
}

export function setNextHeader(frame: DataView, at: number, next: number): void {
  frame.setUint8(at + NEXT_HEADER, next);
}

const words = new Int32Array(8);

/** `fe80::1 > ff02::1`. */
export function formatPath(frame: DataView, at: number): string {
  readSrc(frame, at, words, 0);
  readDst(frame, at, words, 4);
  return `${formatIpv6(words)} > ${formatIpv6(words, 4)}`;
}

/** `fe80::1 > ff02::1 hops 255 len 32 next 58`. */
export const format = (frame: DataView, at: number): string =>
  `${formatPath(frame, at)} hops ${hopLimit(frame, at)} len ${payloadLength(frame, at)} next ${nextHeader(frame, at)}`;
