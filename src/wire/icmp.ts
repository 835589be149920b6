/** ICMP (RFC 792). Every function takes the frame's view and the byte offset of the message in it. */
import * as checksum from './checksum.ts';

const TYPE_CODE = 0;
const CHECKSUM = 2;
const REST = 4;
export const HEADER_LEN = 8;

export const ECHO_REPLY = 0;
export const DESTINATION_UNREACHABLE = 3;
export const ECHO_REQUEST = 8;
export const TIME_EXCEEDED = 11;
export const PARAMETER_PROBLEM = 12;
/** Codes of DESTINATION_UNREACHABLE (RFC 792; 6 to 12: RFC 1122, section 3.2.2.1; 13 to 15: RFC 1812, section 5.2.7.1). */
export const PROTOCOL_UNREACHABLE = 2;
export const PORT_UNREACHABLE = 3;
export const FRAGMENTATION_NEEDED = 4;
export const NETWORK_PROHIBITED = 9;
export const HOST_PROHIBITED = 10;
export const COMMUNICATION_PROHIBITED = 13;
export const CODE_MAX = 15;
/** Code of TIME_EXCEEDED. */
export const REASSEMBLY_TIME = 1;

/** What `check` returns for a message whose checksum is wrong. */
export const BAD_CHECKSUM = -2;

/** Bytes after the header when the message that fills `at` to `end` is whole and its checksum right; -1 or BAD_CHECKSUM. */
export function check(frame: DataView, at: number, end: number): number {
  if (end - at < HEADER_LEN) return -1;
  if (checksum.sum(frame, at, end - at) !== 0xffff) return BAD_CHECKSUM;
  return end - at - HEADER_LEN;
}

export const type = (frame: DataView, at: number): number => frame.getUint8(at + TYPE_CODE);
export const code = (frame: DataView, at: number): number => frame.getUint8(at + TYPE_CODE + 1);
/** Identifier and sequence number of an echo. */
export const echoId = (frame: DataView, at: number): number => frame.getUint16(at + REST);
export const echoSeq = (frame: DataView, at: number): number => frame.getUint16(at + REST + 2);

/** MTU of the next hop, in FRAGMENTATION_NEEDED (RFC 1191, section 4). */
export const nextHopMtu = (frame: DataView, at: number): number => frame.getUint16(at + REST + 2);

/** Turn type and code into others where they stand; the checksum follows by RFC 1624. */
export function retype(frame: DataView, at: number, newType: number, newCode: number): void {
  const before = frame.getUint16(at + TYPE_CODE);
  const after = (newType << 8) | newCode;
  // When all else is zero, the update yields the one zero of the two that is wrong; ones are right in either case.
  const sum = checksum.update(frame.getUint16(at + CHECKSUM), before, after) || 0xffff;
  frame.setUint16(at + TYPE_CODE, after);
  frame.setUint16(at + CHECKSUM, sum);
}

/** Write the header of a message of `length` bytes whose body stands already, `rest` (int32) being the header's last word. */
export function emit(
  frame: DataView,
  at: number,
  messageType: number,
  messageCode: number,
  rest: number,
  length: number,
): void {
  frame.setUint16(at + TYPE_CODE, (messageType << 8) | messageCode);
  frame.setUint16(at + CHECKSUM, 0);
  frame.setInt32(at + REST, rest);
  frame.setUint16(at + CHECKSUM, checksum.finish(checksum.sum(frame, at, length)));
}

/** `ICMP echo request id 1 seq 2`, `ICMP unreachable code 3`. */
export function format(frame: DataView, at: number): string {
  const kind = type(frame, at);
  if (kind === ECHO_REQUEST || kind === ECHO_REPLY) {
    const what = kind === ECHO_REQUEST ? 'request' : 'reply';
    return `ICMP echo ${what} id ${echoId(frame, at)} seq ${echoSeq(frame, at)}`;
  }
  const name = kind === DESTINATION_UNREACHABLE ? 'unreachable' : `type ${kind}`;
  return `ICMP ${name} code ${code(frame, at)}`;
}
