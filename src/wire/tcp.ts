/**
 * TCP headers (RFC 9293, section 3.1) and their options (RFC 7323, RFC 2018). Every function takes the frame's view and
 * the byte offset of the header in it. Sequence numbers are int32: they compare by `(a - b) | 0`.
 */
import * as checksum from './checksum.ts';
import { PROTOCOL_TCP } from './ipv4.ts';

const SRC_PORT = 0;
const DST_PORT = 2;
const SEQ = 4;
const ACK = 8;
const OFFSET_FLAGS = 12;
const FLAGS = 13;
const WINDOW = 14;
const CHECKSUM = 16;
const URGENT = 18;
/** Without options. */
export const HEADER_LEN = 20;
export const HEADER_LEN_MAX = 60;

/** Control bits. */
export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const PSH = 0x08;
export const ACK_FLAG = 0x10;
export const URG = 0x20;
export const ECE = 0x40;
export const CWR = 0x80;

/** Option kinds (IANA). */
export const OPTION_END = 0;
export const OPTION_NOP = 1;
export const OPTION_MSS = 2;
export const OPTION_WINDOW_SCALE = 3;
export const OPTION_SACK_PERMITTED = 4;
export const OPTION_SACK = 5;
export const OPTION_TIMESTAMPS = 8;

/** RFC 7323, section 2.3. */
export const WINDOW_SCALE_MAX = 14;
/** What a SYN without the option says (RFC 9293, section 3.7.1): for IPv4, and for IPv6. */
export const MSS_DEFAULT_IPV4 = 536;
export const MSS_DEFAULT_IPV6 = 1220;
/** Blocks that fit beside timestamps, and the most that a header can carry (RFC 2018, section 3). */
export const SACK_BLOCKS_MAX = 4;

/** Bytes of the header, options included, when one stands between `at` and `end`; otherwise -1. */
export function check(frame: DataView, at: number, end: number): number {
  if (end - at < HEADER_LEN) return -1;
  const length = headerLength(frame, at);
  return length < HEADER_LEN || length > end - at ? -1 : length;
}

export const srcPort = (frame: DataView, at: number): number => frame.getUint16(at + SRC_PORT);
export const dstPort = (frame: DataView, at: number): number => frame.getUint16(at + DST_PORT);
export const seq = (frame: DataView, at: number): number => frame.getInt32(at + SEQ);
export const ack = (frame: DataView, at: number): number => frame.getInt32(at + ACK);
export const headerLength = (frame: DataView, at: number): number =>
  (frame.getUint8(at + OFFSET_FLAGS) >>> 4) << 2;
export const flags = (frame: DataView, at: number): number => frame.getUint8(at + FLAGS);
/** As sent: not scaled. */
export const window = (frame: DataView, at: number): number => frame.getUint16(at + WINDOW);
export const urgent = (frame: DataView, at: number): number => frame.getUint16(at + URGENT);

/** Sum of the words of two addresses, for `checksumIsValid` and `emit`. The words of ::ffff:0:0/96 add up to nothing. */
export function addressSum(words: Int32Array, flow: number): number {
  let total = 0;
  for (let i = flow; i < flow + 8; i++) {
    const word = words[i]!;
    total += (word >>> 16) + (word & 0xffff);
  }
  return checksum.fold(total);
}

/** True when the segment of `length` bytes at `at` has the right checksum between these addresses. */
export function checksumIsValid(
  frame: DataView,
  at: number,
  length: number,
  addresses: number,
): boolean {
  return checksum.isValid(addresses + PROTOCOL_TCP + length + checksum.sum(frame, at, length));
}

/** The options of one segment, as `parseOptions` found them. Made once and used again. */
export class TcpOptions {
  /** 0: none. */
  mss = 0;
  /** -1: none. */
  windowScale = -1;
  sackPermitted = false;
  hasTimestamps = false;
  tsValue = 0;
  tsEcho = 0;
  /** Left and right edges, in turns. */
  readonly sackEdges = new Int32Array(2 * SACK_BLOCKS_MAX);
  sackCount = 0;

  clear(): void {
    this.mss = 0;
    this.windowScale = -1;
    this.sackPermitted = false;
    this.hasTimestamps = false;
    this.tsValue = 0;
    this.tsEcho = 0;
    this.sackCount = 0;
  }
}

/**
 * Read the options of a checked header into `into`. False when a length makes no sense: what came before it holds, and
 * the segment may be dropped (RFC 9293, section 3.1: a length that is not legal is an error).
 */
export function parseOptions(frame: DataView, at: number, into: TcpOptions): boolean {
  into.clear();
  const end = at + headerLength(frame, at);
  let i = at + HEADER_LEN;
  while (i < end) {
    const kind = frame.getUint8(i);
    if (kind === OPTION_END) return true;
    if (kind === OPTION_NOP) {
      i++;
      continue;
    }
    if (i + 1 >= end) return false;
    const length = frame.getUint8(i + 1);
    if (length < 2 || i + length > end) return false;
    readOption(frame, i, kind, length, into);
    i += length;
  }
  return true;
}

/** An option of a kind that we know, but of another length than it has, is passed over. */
function readOption(
  frame: DataView,
  i: number,
  kind: number,
  length: number,
  into: TcpOptions,
): void {
  if (kind === OPTION_TIMESTAMPS && length === 10) {
    into.hasTimestamps = true;
    into.tsValue = frame.getInt32(i + 2);
    into.tsEcho = frame.getInt32(i + 6);
  } else if (kind === OPTION_MSS && length === 4) {
    into.mss = frame.getUint16(i + 2);
  } else if (kind === OPTION_WINDOW_SCALE && length === 3) {
    into.windowScale = Math.min(frame.getUint8(i + 2), WINDOW_SCALE_MAX);
  } else if (kind === OPTION_SACK_PERMITTED && length === 2) {
    into.sackPermitted = true;
  } else if (kind === OPTION_SACK && length >= 10 && (length - 2) % 8 === 0) {
    const count = (length - 2) >>> 3;
    into.sackCount = count;
    for (let edge = 0; edge < 2 * count; edge++) {
      into.sackEdges[edge] = frame.getInt32(i + 2 + 4 * edge);
    }
  }
}

/** Bytes of `emitTimestamps`, with its padding. */
export const TIMESTAMPS_LEN = 12;

export function emitTimestamps(frame: DataView, at: number, value: number, echo: number): void {
  frame.setInt32(at, (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_TIMESTAMPS << 8) | 10);
  frame.setInt32(at + 4, value);
  frame.setInt32(at + 8, echo);
}

export function emitMss(frame: DataView, at: number, mss: number): void {
  frame.setInt32(at, (OPTION_MSS << 24) | (4 << 16) | (mss & 0xffff));
}

export function emitWindowScale(frame: DataView, at: number, scale: number): void {
  frame.setInt32(at, (OPTION_NOP << 24) | (OPTION_WINDOW_SCALE << 16) | (3 << 8) | scale);
}

export function emitSackPermitted(frame: DataView, at: number): void {
  frame.setInt32(at, (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_SACK_PERMITTED << 8) | 2);
}

/** The four bytes before `count` blocks, which follow. */
export function emitSackHeader(frame: DataView, at: number, count: number): void {
  frame.setInt32(
    at,
    (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_SACK << 8) | (2 + 8 * count),
  );
}

export function emitSackBlock(frame: DataView, at: number, left: number, right: number): void {
  frame.setInt32(at, left);
  frame.setInt32(at + 4, right);
}

/** Write all but options and checksum; `optionsLength` is a multiple of 4. */
export function emit(
  frame: DataView,
  at: number,
  ports: number,
  seqNumber: number,
  ackNumber: number,
  optionsLength: number,
  flagBits: number,
  windowField: number,
): void {
  frame.setInt32(at + SRC_PORT, ports);
  frame.setInt32(at + SEQ, seqNumber);
  frame.setInt32(at + ACK, ackNumber);
  frame.setUint16(at + OFFSET_FLAGS, ((HEADER_LEN + optionsLength) << 10) | flagBits);
  frame.setUint16(at + WINDOW, windowField);
  frame.setInt32(at + CHECKSUM, 0);
}

/** Source port, then destination port, as `emit` takes them. */
export const portPair = (source: number, destination: number): number =>
  (source << 16) | destination;

/** Leave the checksum to the device: only the sum of the pseudo header of a segment of `length` bytes stands there. */
export function leaveUnfinished(
  frame: DataView,
  at: number,
  length: number,
  addresses: number,
): void {
  frame.setUint16(at + CHECKSUM, checksum.fold(addresses + PROTOCOL_TCP + length));
}

/** Write the checksum over the `length` bytes of the whole segment at `at`. */
export function finish(frame: DataView, at: number, length: number, addresses: number): void {
  frame.setUint16(at + CHECKSUM, 0);
  const total = addresses + PROTOCOL_TCP + length + checksum.sum(frame, at, length);
  frame.setUint16(at + CHECKSUM, checksum.finish(total));
}

const FLAG_NAMES = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'C'];

/** `TCP 1024 > 80 [S.] seq 1 ack 2 win 65535 len 0`, sequence numbers unsigned. */
export function format(frame: DataView, at: number, length: number): string {
  const bits = flags(frame, at);
  const names = FLAG_NAMES.filter((_, bit) => (bits & (1 << bit)) !== 0).join('');
  const numbers = `seq ${seq(frame, at) >>> 0} ack ${ack(frame, at) >>> 0}`;
  const payload = length - headerLength(frame, at);
  return `TCP ${srcPort(frame, at)} > ${dstPort(frame, at)} [${names}] ${numbers} win ${window(frame, at)} len ${payload}`;
}
