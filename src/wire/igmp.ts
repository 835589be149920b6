/**
 * IGMP (RFC 3376; version 2: RFC 2236, version 1: RFC 1112). Every function takes the frame's view and the byte offset of
 * the message in it. Addresses are int32.
 */
import { formatIpv4 } from '../base/address.ts';
import * as checksum from './checksum.ts';

const TYPE = 0;
const MAX_RESPONSE = 1;
const CHECKSUM = 2;
const GROUP = 4;
/** Version 3: resv, S, QRV; interval; number of sources. */
const SOURCE_COUNT = 10;
export const HEADER_LEN = 8;
export const QUERY_V3_LEN = 12;
const RECORD_LEN = 8;
const REPORT_COUNT = 6;

export const QUERY = 0x11;
export const REPORT_V1 = 0x12;
export const REPORT_V2 = 0x16;
export const LEAVE_V2 = 0x17;
export const REPORT_V3 = 0x22;

/** Record types (RFC 3376, section 4.2.12). */
export const MODE_IS_EXCLUDE = 2;
export const CHANGE_TO_INCLUDE = 3;
export const CHANGE_TO_EXCLUDE = 4;

export const BAD_CHECKSUM = -2;

/** 0 when the message that fills `at` to `end` is whole and its checksum right; -1 or BAD_CHECKSUM. */
export function check(frame: DataView, at: number, end: number): number {
  if (end - at < HEADER_LEN) return -1;
  if (checksum.sum(frame, at, end - at) !== 0xffff) return BAD_CHECKSUM;
  const isV3Query = type(frame, at) === QUERY && end - at > HEADER_LEN;
  if (!isV3Query) return 0;
  if (end - at < QUERY_V3_LEN) return -1;
  return QUERY_V3_LEN + frame.getUint16(at + SOURCE_COUNT) * 4 > end - at ? -1 : 0;
}

export const type = (frame: DataView, at: number): number => frame.getUint8(at + TYPE);
export const group = (frame: DataView, at: number): number => frame.getInt32(at + GROUP);

/** Version of the router that sent a query of `length` bytes (RFC 3376, section 7.1). */
export function queryVersion(frame: DataView, at: number, length: number): 1 | 2 | 3 {
  if (length > HEADER_LEN) return 3;
  return frame.getUint8(at + MAX_RESPONSE) === 0 ? 1 : 2;
}

/** How long an answer may wait, in ms: tenths of a second, as a small float from 128 on (RFC 3376, section 4.1.1). */
export function maxResponseMs(frame: DataView, at: number, version: 1 | 2 | 3): number {
  const code = frame.getUint8(at + MAX_RESPONSE);
  if (version === 1) return 10_000;
  if (version === 2 || code < 128) return code * 100;
  return (((code & 15) | 16) << (((code >>> 4) & 7) + 3)) * 100;
}

/** Write a version 1 or 2 message. */
export function emitV2(frame: DataView, at: number, messageType: number, address: number): void {
  frame.setUint16(at + TYPE, messageType << 8);
  frame.setUint16(at + CHECKSUM, 0);
  frame.setInt32(at + GROUP, address);
  frame.setUint16(at + CHECKSUM, checksum.finish(checksum.sum(frame, at, HEADER_LEN)));
}

/** Write a version 3 report of one record without sources. Its length. */
export function emitV3(frame: DataView, at: number, record: number, address: number): number {
  const length = HEADER_LEN + RECORD_LEN;
  frame.setUint16(at + TYPE, REPORT_V3 << 8);
  frame.setUint16(at + CHECKSUM, 0);
  frame.setUint16(at + 4, 0);
  frame.setUint16(at + REPORT_COUNT, 1);
  frame.setInt32(at + HEADER_LEN, record << 24);
  frame.setInt32(at + HEADER_LEN + 4, address);
  frame.setUint16(at + CHECKSUM, checksum.finish(checksum.sum(frame, at, length)));
  return length;
}

/** `IGMP type 0x22 239.1.2.3`. */
export function format(frame: DataView, at: number): string {
  const kind = type(frame, at);
  const about = kind === REPORT_V3 ? frame.getInt32(at + HEADER_LEN + 4) : group(frame, at);
  return `IGMP type 0x${kind.toString(16)} ${formatIpv4(about)}`;
}
