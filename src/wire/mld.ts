/**
 * Multicast listener discovery, version 2 (RFC 3810, section 5): queries, and reports of whole groups (no sources).
 * Every function takes the frame's view and the byte offset of the ICMPv6 message. Hop limit 1, and a router alert.
 */
import { readAddress, writeAddress } from './ipv6.ts';

export const QUERY = 130;
export const REPORT = 143;
export const HOP_LIMIT = 1;

const MAX_RESPONSE = 4;
const GROUP = 8;
const QUERY_V1_LEN = 24;
const QUERY_V2_LEN = 28;
const RECORDS = 6;
const RECORD = 8;
export const RECORD_LEN = 20;

/** Kinds of record (section 5.2.12): what we are in now, and what changed. Exclude: every source, that is, joined. */
export const RECORD_KIND = { isExclude: 2, toInclude: 3, toExclude: 4 } as const;

/** True for a query of version 1 or 2 (section 8.1). */
export const checkQuery = (at: number, end: number): boolean =>
  end - at === QUERY_V1_LEN || end - at >= QUERY_V2_LEN;

/** Milliseconds in which to answer (section 5.1.3). */
export function maxResponseMs(frame: DataView, at: number): number {
  const code = frame.getUint16(at + MAX_RESPONSE);
  if (code < 0x8000) return code;
  return ((code & 0xfff) | 0x1000) << (((code >>> 12) & 7) + 3);
}

/** The group that is asked about; all zeros: all. */
export const readGroup = (frame: DataView, at: number, words: Int32Array, to: number): void =>
  readAddress(frame, at + GROUP, words, to);

/** Bytes of a report of `count` groups. */
export const reportLength = (count: number): number => RECORD + count * RECORD_LEN;

/** Write all of a report but its type, code and checksum, and its records. */
export function emitReport(frame: DataView, at: number, count: number): void {
  frame.setUint16(at + 4, 0);
  frame.setUint16(at + RECORDS, count);
}

/** Write record `index`. */
export function emitRecord(
  frame: DataView,
  at: number,
  index: number,
  kind: number,
  words: Int32Array,
  from: number,
): void {
  const record = at + RECORD + index * RECORD_LEN;
  frame.setInt32(record, kind << 24);
  writeAddress(frame, record + 4, words, from);
}
