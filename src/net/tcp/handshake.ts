/** How connections begin: what a SYN says becomes the state of a connection. */
import { HEADER_LEN as IPV4_HEADER_LEN } from '../../wire/ipv4.ts';
import * as wire from '../../wire/tcp.ts';
import { isMappedIpv4 } from '../ip-output.ts';
import { NET_LIMITS } from '../limits.ts';
import { TCP_STATE } from './api.ts';
import type { CookieFacts } from './cookies.ts';
import type { Segment } from './segment.ts';
import type { TcpStack } from './stack.ts';
import { Tcb } from './tcb.ts';
import { keepAliveChanged } from './timers.ts';
import { scaleForLargest } from './window.ts';

const IPV6_HEADER_LEN = 40;
/** Bytes that an acknowledged SYN of ours takes. */
const SYN_SPACE = 1;

/** Longest segment that the way to the flow's remote address takes, without options. */
function mssOfPath(stack: TcpStack, words: Int32Array, flow: number): number {
  const header = isMappedIpv4(words, flow + 4) ? IPV4_HEADER_LEN : IPV6_HEADER_LEN;
  const { memory } = stack.link.queue;
  const roomMax = memory.frameSize - memory.headroom - 128;
  return Math.min(roomMax, stack.out.mtu(words, flow) - header - wire.HEADER_LEN);
}

/** What we tell a peer that we take. */
export const mssForPeer = (stack: TcpStack, flow: Int32Array): number => mssOfPath(stack, flow, 0);

/** A new connection to be opened by us. Its SYN leaves with the next turn. */
export function openActive(stack: TcpStack, id: number): Tcb {
  const tcb = newTcb(stack, id);
  tcb.state = TCP_STATE.synSent;
  tcb.rcvScale = scaleForLargest();
  start(tcb, isnOf(stack, id));
  stack.wantOutput(tcb);
  return tcb;
}

/** A SYN came for a listener: a connection in SYN-RECEIVED. */
export function openPassive(stack: TcpStack, id: number, segment: Segment, iss: number): Tcb {
  const tcb = newTcb(stack, id);
  tcb.state = TCP_STATE.synReceived;
  const { options } = segment;
  takeOptions(tcb, options.mss, options.windowScale, options.sackPermitted, segment);
  synchronize(tcb, segment.seq);
  start(tcb, iss === 0 ? isnOf(stack, id) : iss);
  tcb.sndWnd = segment.window;
  tcb.sndWl1 = segment.seq;
  tcb.sndWl2 = tcb.iss;
  return tcb;
}

/** A cookie came back: a connection that is established at once, as if we had remembered its SYN. */
export function opened(stack: TcpStack, id: number, segment: Segment, facts: CookieFacts): Tcb {
  const tcb = newTcb(stack, id);
  takeOptions(tcb, facts.mss, facts.windowScale, facts.hasSack, segment);
  synchronize(tcb, (segment.seq - 1) | 0);
  // The SYN-ACK with the cookie said so.
  tcb.rcvAdv = (tcb.rcvNxt + 0xffff) | 0;
  tcb.iss = (segment.ack - 1) | 0;
  tcb.recovery.start(segment.ack);
  establish(tcb, segment);
  return tcb;
}

/** Our SYN is acknowledged by the segment in hand: both directions are open. */
export function establish(tcb: Tcb, segment: Segment): void {
  const { stack } = tcb;
  tcb.state = TCP_STATE.established;
  tcb.recovery.open(segmentSize(tcb), tcb.hasSack, stack.nowUs);
  takeWindow(tcb, segment);
  tcb.progressMs = stack.nowMs;
  tcb.tuneSeq = (tcb.rcvNxt + tcb.rcvBuf) | 0;
  tcb.tuneUs = stack.nowUs;
  keepAliveChanged(tcb);
}

/** The peer's SYN has sequence number `seq`. */
export function synchronize(tcb: Tcb, seq: number): void {
  tcb.irs = seq;
  tcb.rcvNxt = (seq + 1) | 0;
  tcb.dlvNxt = tcb.rcvNxt;
  tcb.lastAckSent = tcb.rcvNxt;
  tcb.rcvAdv = tcb.rcvNxt;
}

/** What the peer's SYN offers is what both have: we offer everything. */
export function takeOptions(
  tcb: Tcb,
  mss: number,
  windowScale: number,
  hasSack: boolean,
  segment: Segment,
): void {
  const { options } = segment;
  const preset = tcb.isIpv6 ? wire.MSS_DEFAULT_IPV6 : wire.MSS_DEFAULT_IPV4;
  tcb.peerMss = Math.max(NET_LIMITS.tcpMssMin, mss === 0 ? preset : mss);
  tcb.sndScale = Math.max(0, windowScale);
  tcb.rcvScale = windowScale < 0 ? 0 : scaleForLargest();
  tcb.hasSack = hasSack;
  tcb.hasTimestamps = options.hasTimestamps;
  if (options.hasTimestamps) {
    tcb.tsRecent = options.tsValue;
    tcb.tsRecentMs = tcb.stack.nowMs;
  }
}

/** Payload of a full segment: what the peer and the path take, less the options of every segment (RFC 6691). */
export function segmentSize(tcb: Tcb): number {
  const options = tcb.hasTimestamps ? wire.TIMESTAMPS_LEN : 0;
  return Math.min(tcb.peerMss, tcb.pathMss) - options;
}

/** The window that a segment tells, whatever came before. */
export function takeWindow(tcb: Tcb, segment: Segment): void {
  tcb.sndWnd = segment.has(wire.SYN) ? segment.window : segment.window << tcb.sndScale;
  tcb.sndWndMax = Math.max(tcb.sndWndMax, tcb.sndWnd);
  tcb.sndWl1 = segment.seq;
  tcb.sndWl2 = segment.ack;
}

/** The path takes less than we thought, or more again. */
export function setPathMss(tcb: Tcb): void {
  const { stack } = tcb;
  tcb.pathMss = mssOfPath(stack, stack.table.words, stack.table.at(tcb.id));
  if (tcb.state < TCP_STATE.established) return;
  tcb.recovery.setMss(segmentSize(tcb), stack.nowUs);
  stack.wantOutput(tcb);
}

function newTcb(stack: TcpStack, id: number): Tcb {
  const tcb = new Tcb(stack, id);
  stack.tcbs[id] = tcb;
  tcb.pathMss = mssOfPath(stack, stack.table.words, stack.table.at(id));
  return tcb;
}

function isnOf(stack: TcpStack, id: number): number {
  const { table } = stack;
  return stack.isn(table.words, table.at(id), table.ports(id));
}

function start(tcb: Tcb, iss: number): void {
  tcb.iss = iss;
  tcb.recovery.start(iss);
  tcb.recovery.queue.appendSyn();
  tcb.sndWl2 = (iss + SYN_SPACE) | 0;
}
