/**
 * TCP segments in whole frames, built and read independently of `src/wire`: an oracle for tests, with nothing in common
 * with what it judges. Sequence numbers are absolute uint32.
 */
import assert from 'node:assert/strict';
import { type Host, ipv4Frame, viewOfBytes } from './frames.ts';

export interface TcpOptions {
  readonly mss?: number;
  readonly windowScale?: number;
  readonly sackPermitted?: boolean;
  /** TSval, TSecr. */
  readonly timestamps?: readonly [number, number];
  /** Blocks, left and right edge. */
  readonly sack?: readonly (readonly [number, number])[];
  /** Bytes put behind the others as they are, then padded with zero to a word. */
  readonly raw?: Uint8Array;
}

export interface Segment {
  readonly srcPort: number;
  readonly dstPort: number;
  readonly seq: number;
  readonly ack: number;
  /** Letters of `FSRPAUEC`, in this order. */
  readonly flags: string;
  readonly window: number;
  readonly urgent: number;
  readonly options: TcpOptions;
  readonly data: Uint8Array;
}

/** Lies about a segment, for what must be refused. */
export interface Lies {
  /** Added to the right checksum. */
  readonly checksum?: number;
  /** In words, in place of the right one. */
  readonly dataOffset?: number;
}

const FLAGS = 'FSRPAUEC';
const HEADER_LEN = 20;
const PROTOCOL_TCP = 6;
const OPTION = { end: 0, nop: 1, mss: 2, windowScale: 3, sackPermitted: 4, sack: 5, timestamps: 8 };
const NO_DATA = new Uint8Array(0);

/** RFC 1071, section 4.1, word by word; `total` is what was added before. */
function plainSum(bytes: Uint8Array, total = 0): number {
  let sum = total;
  const even = bytes.length & ~1;
  for (let i = 0; i < even; i += 2) sum += (bytes[i]! << 8) | bytes[i + 1]!;
  if (even < bytes.length) sum += bytes[even]! << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

function sumWithPseudoHeader(source: number, destination: number, segment: Uint8Array): number {
  const addresses =
    (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff);
  return plainSum(segment, addresses + PROTOCOL_TCP + segment.length);
}

const be16 = (value: number): number[] => [(value >>> 8) & 255, value & 255];
const be32 = (value: number): number[] => [...be16(value >>> 16), ...be16(value & 0xffff)];

export function optionBytes(options: TcpOptions): Uint8Array {
  const out: number[] = [];
  if (options.mss !== undefined) out.push(OPTION.mss, 4, ...be16(options.mss));
  if (options.sackPermitted === true) out.push(OPTION.sackPermitted, 2);
  if (options.timestamps !== undefined) {
    const [value, echo] = options.timestamps;
    out.push(OPTION.timestamps, 10, ...be32(value), ...be32(echo));
  }
  if (options.windowScale !== undefined) out.push(OPTION.windowScale, 3, options.windowScale);
  if (options.sack !== undefined && options.sack.length > 0) {
    out.push(OPTION.sack, 2 + 8 * options.sack.length);
    for (const [left, right] of options.sack) out.push(...be32(left), ...be32(right));
  }
  out.push(...(options.raw ?? []));
  while (out.length % 4 !== 0) out.push(0);
  return Uint8Array.from(out);
}

/** A whole frame. */
export function tcpFrame(
  from: Host,
  to: Host,
  segment: Partial<Segment> & { srcPort: number; dstPort: number },
  lies: Lies = {},
): Uint8Array {
  const options = optionBytes(segment.options ?? {});
  const data = segment.data ?? NO_DATA;
  const bytes = new Uint8Array(HEADER_LEN + options.length + data.length);
  const view = viewOfBytes(bytes);
  let bits = 0;
  for (const flag of segment.flags ?? 'A') bits |= 1 << FLAGS.indexOf(flag);
  view.setUint16(0, segment.srcPort);
  view.setUint16(2, segment.dstPort);
  view.setUint32(4, segment.seq ?? 0);
  view.setUint32(8, segment.ack ?? 0);
  const words = lies.dataOffset ?? (HEADER_LEN + options.length) / 4;
  view.setUint16(12, ((words & 15) << 12) | bits);
  view.setUint16(14, segment.window ?? 65535);
  view.setUint16(18, segment.urgent ?? 0);
  bytes.set(options, HEADER_LEN);
  bytes.set(data, HEADER_LEN + options.length);
  const sum = ~sumWithPseudoHeader(from.ip, to.ip, bytes) & 0xffff;
  view.setUint16(16, sum + (lies.checksum ?? 0));
  return ipv4Frame(from, to, PROTOCOL_TCP, bytes);
}

/** Destination port of a frame that may hold TCP over IPv4; -1 when it does not. Looks at nothing else. */
export function portOfTcp(frame: Uint8Array): number {
  if (frame.length < 54 || frame[12] !== 8 || frame[13] !== 0) return -1;
  return frame[23] === PROTOCOL_TCP ? viewOfBytes(frame).getUint16(36) : -1;
}

/** The segment in a frame; null when it is no IPv4 frame with TCP. Throws when the segment is malformed. */
export function parseTcp(frame: Uint8Array): Segment | null {
  if (frame.length < 54) return null;
  const view = viewOfBytes(frame);
  if (view.getUint16(12) !== 0x0800 || frame[23] !== PROTOCOL_TCP) return null;
  const at = 14 + (frame[14]! & 15) * 4;
  const end = 14 + view.getUint16(16);
  assert.ok(end <= frame.length && at + HEADER_LEN <= end, 'a datagram is whole');
  assert.equal(plainSum(frame.subarray(14, at)), 0xffff, 'the IPv4 checksum is right');
  const segment = frame.subarray(at, end);
  const sum = sumWithPseudoHeader(view.getUint32(26), view.getUint32(30), segment);
  assert.equal(sum, 0xffff, 'the TCP checksum is right');
  const header = (frame[at + 12]! >>> 4) * 4;
  assert.ok(header >= HEADER_LEN && at + header <= end, 'a data offset lies in the segment');
  assert.equal(frame[at + 12]! & 15, 0, 'reserved bits are sent as zero');
  const bits = frame[at + 13]!;
  return {
    srcPort: view.getUint16(at),
    dstPort: view.getUint16(at + 2),
    seq: view.getUint32(at + 4),
    ack: view.getUint32(at + 8),
    flags: [...FLAGS].filter((_, i) => (bits & (1 << i)) !== 0).join(''),
    window: view.getUint16(at + 14),
    urgent: view.getUint16(at + 18),
    options: parseOptions(frame.subarray(at + HEADER_LEN, at + header)),
    data: frame.slice(at + header, end),
  };
}

function parseOptions(bytes: Uint8Array): TcpOptions {
  const view = viewOfBytes(bytes);
  const found: { -readonly [K in keyof TcpOptions]: TcpOptions[K] } = {};
  for (let i = 0; i < bytes.length && bytes[i] !== OPTION.end; ) {
    const kind = bytes[i]!;
    if (kind === OPTION.nop) {
      i++;
      continue;
    }
    const length = bytes[i + 1] ?? 0;
    assert.ok(length >= 2 && i + length <= bytes.length, 'an option lies in the header');
    if (kind === OPTION.mss) found.mss = view.getUint16(i + 2);
    else if (kind === OPTION.windowScale) found.windowScale = bytes[i + 2]!;
    else if (kind === OPTION.sackPermitted) found.sackPermitted = true;
    else if (kind === OPTION.timestamps) {
      found.timestamps = [view.getUint32(i + 2), view.getUint32(i + 6)];
    } else if (kind === OPTION.sack) {
      const blocks: [number, number][] = [];
      for (let at = i + 2; at < i + length; at += 8) {
        blocks.push([view.getUint32(at), view.getUint32(at + 4)]);
      }
      found.sack = blocks;
    } else found.raw = bytes.slice(i, i + length);
    i += length;
  }
  return found;
}

/** `SA seq 17 ack 1 win 65535 len 0 mss 1460`. */
export function formatSegment(segment: Segment, seqBase = 0, ackBase = 0): string {
  const { flags, window, data, options, urgent } = segment;
  const parts = [flags || '-', `seq ${(segment.seq - seqBase) >>> 0}`];
  if (flags.includes('A')) parts.push(`ack ${(segment.ack - ackBase) >>> 0}`);
  parts.push(`win ${window}`, `len ${data.length}`);
  if (urgent !== 0) parts.push(`urg ${urgent}`);
  if (options.mss !== undefined) parts.push(`mss ${options.mss}`);
  if (options.windowScale !== undefined) parts.push(`wscale ${options.windowScale}`);
  if (options.sackPermitted === true) parts.push('sackOK');
  if (options.timestamps !== undefined) parts.push(`ts ${options.timestamps.join('/')}`);
  for (const [left, right] of options.sack ?? []) {
    parts.push(`sack ${(left - ackBase) >>> 0}:${(right - ackBase) >>> 0}`);
  }
  return parts.join(' ');
}
