/**
 * SYN cookies (RFC 4987, section 3.6; Bernstein 1996): while the backlog is full, what we would remember of a SYN goes into
 * the sequence number of the SYN-ACK, and comes back with the ACK.
 *
 *   sequence number = SYN's sequence number + hash(flow, age) + age in 5 bits above, MSS in 3 bits
 *   timestamp       = the time, its lowest 5 bits: window scale, SACK permitted
 *
 * Without timestamps the connection has neither scale nor SACK. A cookie is good for `tcpCookieMs`, at most twice as long.
 */
import * as wire from '../../wire/tcp.ts';
import { NET_LIMITS } from '../limits.ts';
import { sendBare } from './bare.ts';
import { PURPOSE } from './keyed-hash.ts';
import type { Segment } from './segment.ts';
import type { TcpStack } from './stack.ts';

/** Segment sizes that a cookie can say; the largest that is not above the peer's. */
const SIZES = [88, 216, 536, 1208, 1380, 1440, 1460, 8960] as const;
const SIZE_BITS = 3;
const SIZE_MASK = (1 << SIZE_BITS) - 1;
/** The hash fills the upper bits. */
const HASH_MASK = ~SIZE_MASK;
const SACK_BIT = 0x10;
const SCALE_MASK = 0x0f;
const OPTION_BITS_MASK = 0x1f;
/** A scale that says: none. */
const NO_SCALE = 15;

const age = (stack: TcpStack): number => Math.floor(stack.link.nowMs / NET_LIMITS.tcpCookieMs) | 0;

function hash(stack: TcpStack, segment: Segment, seq: number, when: number): number {
  const mixed = (seq + Math.imul(when, 0x9e3779b1)) | 0;
  const { flow, ports } = segment;
  return stack.keyed.hash(flow, 0, 8, ports, mixed, PURPOSE.cookie) & HASH_MASK;
}

/** Answer the SYN in hand with a cookie. `mss` is what we say of ourselves, `windowScale` our scale. */
export function sendCookie(
  stack: TcpStack,
  segment: Segment,
  mss: number,
  windowScale: number,
): void {
  const { options } = segment;
  let size = SIZES.length - 1;
  const peerMss = options.mss === 0 ? wire.MSS_DEFAULT_IPV4 : options.mss;
  while (size > 0 && SIZES[size]! > peerMss) size--;
  const iss = hash(stack, segment, segment.seq, age(stack)) | size;
  stack.counters.tcpCookiesSent++;
  const { hasTimestamps } = options;
  const hasScale = hasTimestamps && options.windowScale >= 0;
  sendBare(stack, segment, {
    seq: iss,
    ack: (segment.seq + 1) | 0,
    flags: wire.SYN | wire.ACK_FLAG,
    window: 0xffff,
    mss,
    ...(hasScale ? { windowScale } : {}),
    hasSack: hasTimestamps && options.sackPermitted,
    hasTimestamps,
    tsValue: stampOf(stack, segment),
    tsEcho: options.tsValue,
  });
}

function stampOf(stack: TcpStack, segment: Segment): number {
  const { options } = segment;
  const offset = stack.timestampOffset(segment.flow, 0, segment.ports);
  const scale = options.windowScale < 0 ? NO_SCALE : options.windowScale;
  const bits = scale | (options.sackPermitted ? SACK_BIT : 0);
  const now = (stack.nowMs + offset) | 0;
  const stamp = (now & ~OPTION_BITS_MASK) | bits;
  // Never ahead of the time: the next timestamps of the connection must not be older.
  return ((stamp - now) | 0) > 0 ? (stamp - OPTION_BITS_MASK - 1) | 0 : stamp;
}

/** What a cookie that came back says. One for a stack. */
export class CookieFacts {
  mss = 0;
  /** -1: none. */
  windowScale = -1;
  hasSack = false;
}

/** Is the ACK in hand the answer to a cookie of ours? Then `into` says what the SYN had said. */
export function checkCookie(stack: TcpStack, segment: Segment, into: CookieFacts): boolean {
  const iss = (segment.ack - 1) | 0;
  const peerSeq = (segment.seq - 1) | 0;
  const now = age(stack);
  const isOurs =
    hash(stack, segment, peerSeq, now) === (iss & HASH_MASK) ||
    hash(stack, segment, peerSeq, now - 1) === (iss & HASH_MASK);
  if (!isOurs) return false;
  into.mss = SIZES[iss & SIZE_MASK]!;
  into.windowScale = -1;
  into.hasSack = false;
  if (segment.options.hasTimestamps) {
    const bits = segment.options.tsEcho & OPTION_BITS_MASK;
    into.hasSack = (bits & SACK_BIT) !== 0;
    const scale = bits & SCALE_MASK;
    if (scale !== NO_SCALE) into.windowScale = Math.min(scale, wire.WINDOW_SCALE_MAX);
  }
  return true;
}
