/**
 * ICMPv6 (RFC 4443). Every function takes the frame's view and the byte offset of the message in it. The checksum covers
 * the addresses too: `ipAt` is where the IPv6 header stands whose addresses these are.
 */
import * as checksum from './checksum.ts';
import { PROTOCOL_ICMPV6, pseudoHeader } from './ipv6.ts';

const TYPE_CODE = 0;
const CHECKSUM = 2;
const REST = 4;
export const HEADER_LEN = 8;

export const DESTINATION_UNREACHABLE = 1;
export const PACKET_TOO_BIG = 2;
export const TIME_EXCEEDED = 3;
export const PARAMETER_PROBLEM = 4;
export const ECHO_REQUEST = 128;
export const ECHO_REPLY = 129;
/** Code of DESTINATION_UNREACHABLE, and of TIME_EXCEEDED. */
export const PORT_UNREACHABLE = 4;
export const REASSEMBLY_TIMEOUT = 1;

/** What `check` returns for a message whose checksum is wrong. */
export const BAD_CHECKSUM = -2;

/** Bytes after the header when the message that fills `at` to `end` is whole and its checksum right; -1 or BAD_CHECKSUM. */
export function check(frame: DataView, at: number, end: number, ipAt: number): number {
  const length = end - at;
  if (length < HEADER_LEN) return -1;
  const pseudo = pseudoHeader(frame, ipAt, PROTOCOL_ICMPV6, length);
  if (!checksum.isValid(pseudo + checksum.sum(frame, at, length))) return BAD_CHECKSUM;
  return length - HEADER_LEN;
}

export const type = (frame: DataView, at: number): number => frame.getUint8(at + TYPE_CODE);
export const code = (frame: DataView, at: number): number => frame.getUint8(at + TYPE_CODE + 1);
/** The last word of the header (int32): MTU, pointer, identifier and sequence number. */
export const rest = (frame: DataView, at: number): number => frame.getInt32(at + REST);
/** Errors have the upper bit clear (RFC 4443, section 2.1). */
export const isError = (messageType: number): boolean => messageType < 128;

/** Write the header of a message of `length` bytes whose body stands already, after the IPv6 header at `ipAt`. */
export function emit(
  frame: DataView,
  at: number,
  messageType: number,
  messageCode: number,
  lastWord: number,
  length: number,
  ipAt: number,
): void {
  frame.setInt32(at + REST, lastWord);
  finish(frame, at, messageType, messageCode, length, ipAt);
}

/** Type, code and checksum of a message whose other `length - 4` bytes stand already. */
export function finish(
  frame: DataView,
  at: number,
  messageType: number,
  messageCode: number,
  length: number,
  ipAt: number,
): void {
  frame.setUint16(at + TYPE_CODE, (messageType << 8) | messageCode);
  frame.setUint16(at + CHECKSUM, 0);
  const pseudo = pseudoHeader(frame, ipAt, PROTOCOL_ICMPV6, length);
  frame.setUint16(at + CHECKSUM, checksum.finish(pseudo + checksum.sum(frame, at, length)));
}

const NAMES: Readonly<Record<number, string>> = {
  1: 'unreachable',
  2: 'packet too big',
  3: 'time exceeded',
  4: 'parameter problem',
  130: 'MLD query',
  143: 'MLD report',
};

/** `ICMPv6 echo request id 1 seq 2`, `ICMPv6 unreachable code 4`. */
export function format(frame: DataView, at: number): string {
  const kind = type(frame, at);
  if (kind === ECHO_REQUEST || kind === ECHO_REPLY) {
    const what = kind === ECHO_REQUEST ? 'request' : 'reply';
    return `ICMPv6 echo ${what} id ${rest(frame, at) >>> 16} seq ${rest(frame, at) & 0xffff}`;
  }
  return `ICMPv6 ${NAMES[kind] ?? `type ${kind}`} code ${code(frame, at)}`;
}
