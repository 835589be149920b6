/**
 * Segments that no connection sends: RST to what belongs to none, the acknowledgements of TIME-WAIT, SYN-ACKs with a
 * cookie. They answer the segment in hand, and carry no data.
 */
import { NO_FRAME } from '../../device/nic.ts';
import { PROTOCOL_TCP } from '../../wire/ipv4.ts';
import * as wire from '../../wire/tcp.ts';
import { NET_LIMITS } from '../limits.ts';
import { TCP_PAYLOAD_OFFSET } from './api.ts';
import type { Segment } from './segment.ts';
import type { TcpStack } from './stack.ts';

export interface BareSegment {
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
  readonly window: number;
  readonly hasTimestamps?: boolean;
  readonly tsValue?: number;
  readonly tsEcho?: number;
  /** For a SYN-ACK: 0, and no window scale and SACK, unless given. */
  readonly mss?: number;
  readonly windowScale?: number;
  readonly hasSack?: boolean;
}

/** Answer the segment. Nothing comes of it when no frame or room is left. */
export function sendBare(stack: TcpStack, to: Segment, segment: BareSegment): void {
  const { view } = stack.link;
  const frame = stack.link.hasRoom() ? stack.link.queue.alloc() : NO_FRAME;
  if (frame === NO_FRAME) {
    stack.counters.tcpNoFrame++;
    return;
  }
  const { flow } = to;
  const optionsLength = lengthOfOptions(segment);
  const length = wire.HEADER_LEN + optionsLength;
  const at = frame + TCP_PAYLOAD_OFFSET - length;
  const ports = to.ports;
  wire.emit(
    view,
    at,
    ports,
    segment.seq,
    segment.ack,
    optionsLength,
    segment.flags,
    segment.window,
  );
  writeOptions(view, at + wire.HEADER_LEN, segment);
  wire.finish(view, at, length, wire.addressSum(flow, 0));
  stack.counters.tcpSegmentsOut++;
  stack.out.send(at, length, PROTOCOL_TCP, flow, 0);
}

function lengthOfOptions(segment: BareSegment): number {
  let length = segment.hasTimestamps === true ? wire.TIMESTAMPS_LEN : 0;
  if (segment.mss !== undefined) length += 4;
  if (segment.windowScale !== undefined) length += 4;
  if (segment.hasSack === true) length += 4;
  return length;
}

function writeOptions(view: DataView, at: number, segment: BareSegment): void {
  let to = at;
  if (segment.mss !== undefined) {
    wire.emitMss(view, to, segment.mss);
    to += 4;
  }
  if (segment.windowScale !== undefined) {
    wire.emitWindowScale(view, to, segment.windowScale);
    to += 4;
  }
  if (segment.hasSack === true) {
    wire.emitSackPermitted(view, to);
    to += 4;
  }
  if (segment.hasTimestamps === true) {
    wire.emitTimestamps(view, to, segment.tsValue ?? 0, segment.tsEcho ?? 0);
  }
}

/** Tokens of resets, which a stranger can ask for: a bucket. */
export class ResetLimit {
  #tokens: number = NET_LIMITS.tcpResetBurst;
  #filledMs = Number.NEGATIVE_INFINITY;

  spend(nowMs: number): boolean {
    const elapsedMs = Math.max(0, nowMs - this.#filledMs);
    const fresh = (elapsedMs * NET_LIMITS.tcpResetsPerSecond) / 1000;
    this.#tokens = Math.min(NET_LIMITS.tcpResetBurst, this.#tokens + fresh);
    this.#filledMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}

/** RST to a segment that belongs to no connection (RFC 9293, section 3.10.7.1), but never to a RST. */
export function sendResetTo(stack: TcpStack, segment: Segment, limit: ResetLimit): void {
  if (segment.has(wire.RST)) return;
  if (!limit.spend(stack.link.nowMs)) {
    stack.counters.tcpResetsLimited++;
    return;
  }
  stack.counters.tcpResetsSent++;
  if (segment.has(wire.ACK_FLAG)) {
    sendBare(stack, segment, { seq: segment.ack, ack: 0, flags: wire.RST, window: 0 });
  } else {
    const ack = (segment.seq + segment.space) | 0;
    sendBare(stack, segment, { seq: 0, ack, flags: wire.RST | wire.ACK_FLAG, window: 0 });
  }
}
