/**
 * Test frames: Ethernet + IPv4 + UDP with right checksums, so that any switch, filter or kernel lets them through.
 *
 *   Ethernet 14 | IPv4 20 | UDP 8 | magic u32 | from u8 | sequence u32 | pattern ...
 *
 * Written byte by byte and apart from src/wire: a mistake there must not hide here.
 */
import { type Ipv4, type Mac, macHi, macLo } from '../../src/base/address.ts';
import { flowHash, pairOfHash } from '../../src/device/flow-hash.ts';

export type Side = 'a' | 'b';

/** Addresses of the two ends; ports default to 7000 at both. */
export interface PairAddresses {
  readonly aMac: Mac;
  readonly bMac: Mac;
  readonly aIp: Ipv4;
  readonly bIp: Ipv4;
  readonly aPort?: number;
  readonly bPort?: number;
}

const PORT = 7000;
const IP = 14;
const UDP = IP + 20;
const PAYLOAD = UDP + 8;
const MAGIC = 0x41524b4e;
/** Shortest frame that holds everything; Ethernet's own least is 60. */
export const TEST_FRAME_MIN = PAYLOAD + 9;

function put16(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value >>> 8;
  u8[at + 1] = value & 255;
}

function put32(u8: Uint8Array, at: number, value: number): void {
  put16(u8, at, value >>> 16);
  put16(u8, at + 2, value & 0xffff);
}

const get32 = (u8: Uint8Array, at: number): number =>
  ((u8[at]! << 24) | (u8[at + 1]! << 16) | (u8[at + 2]! << 8) | u8[at + 3]!) >>> 0;

function putMac(u8: Uint8Array, at: number, mac: Mac): void {
  put16(u8, at, macHi(mac));
  put32(u8, at + 2, macLo(mac));
}

/** Sum of 16-bit words (RFC 1071), not folded. */
function sum16(u8: Uint8Array, at: number, end: number): number {
  let sum = 0;
  for (let i = at; i < end; i += 2) sum += (u8[i]! << 8) | (i + 1 < end ? u8[i + 1]! : 0);
  return sum;
}

function checksum(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 65536);
  return ~folded & 0xffff;
}

/** Write the frame number `sequence` of `length` bytes from one side to the other at `at`. */
export function writeTestFrame(
  u8: Uint8Array,
  at: number,
  length: number,
  addresses: PairAddresses,
  from: Side,
  sequence: number,
): void {
  const { aMac, bMac, aIp, bIp, aPort = PORT, bPort = PORT } = addresses;
  const isA = from === 'a';
  putMac(u8, at, isA ? bMac : aMac);
  putMac(u8, at + 6, isA ? aMac : bMac);
  put16(u8, at + 12, 0x0800);
  const ip = at + IP;
  put16(u8, ip, 0x4500);
  put16(u8, ip + 2, length - IP);
  put16(u8, ip + 4, sequence & 0xffff);
  put16(u8, ip + 6, 0x4000);
  put16(u8, ip + 8, 0x4011);
  put16(u8, ip + 10, 0);
  put32(u8, ip + 12, isA ? aIp : bIp);
  put32(u8, ip + 16, isA ? bIp : aIp);
  put16(u8, ip + 10, checksum(sum16(u8, ip, ip + 20)));
  const udp = at + UDP;
  put16(u8, udp, isA ? aPort : bPort);
  put16(u8, udp + 2, isA ? bPort : aPort);
  put16(u8, udp + 4, length - UDP);
  put16(u8, udp + 6, 0);
  const payload = at + PAYLOAD;
  put32(u8, payload, MAGIC);
  u8[payload + 4] = isA ? 1 : 2;
  put32(u8, payload + 5, sequence);
  for (let i = payload + 9, n = 0; i < at + length; i++, n++) u8[i] = (sequence * 31 + n * 7) & 255;
  const pseudo = sum16(u8, ip + 12, ip + 20) + 17 + (length - UDP);
  const sum = checksum(pseudo + sum16(u8, udp, at + length));
  put16(u8, udp + 6, sum === 0 ? 0xffff : sum);
}

/** Sequence number of a test frame of `from`; -1 for anything else that a real link may carry. */
export function testFrameSequence(u8: Uint8Array, at: number, length: number, from: Side): number {
  const payload = at + PAYLOAD;
  if (length < TEST_FRAME_MIN || get32(u8, payload) !== MAGIC) return -1;
  return u8[payload + 4] === (from === 'a' ? 1 : 2) ? get32(u8, payload + 5) : -1;
}

/** The next address after `here` whose test frames, to and from `here`, are on pair `index` of `pairs`. */
export function peerOnPair(here: Ipv4, pairs: number, index: number): Ipv4 {
  let peer = here + 1;
  while (pairOfHash(flowHash(here, peer, PORT, PORT), pairs) !== index) peer++;
  return peer;
}
