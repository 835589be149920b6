/**
 * Segments on their way out. A connection that asked for it sends at the end of the turn, when all that came with the
 * batch is known: so one acknowledgement answers many segments, and rides on what the owner answered.
 *
 * - Data is sent where it stands. The frame is retained, the header written before the payload, and the reference given
 *   to the device. While somebody else still has the frame, the segment is copied instead.
 * - Silly windows are avoided (RFC 9293, section 3.8.6.2.1); small segments wait by Nagle's rule (section 3.7.4).
 */
import { BATCH_PIECES_MAX, FRAME_FLAG, NO_FRAME } from '../../device/nic.ts';
import { PROTOCOL_TCP } from '../../wire/ipv4.ts';
import * as wire from '../../wire/tcp.ts';
import { FLOW_REMOTE } from '../ip-output.ts';
import { NET_LIMITS } from '../limits.ts';
import { TCP_PAYLOAD_OFFSET, TCP_STATE } from './api.ts';
import { takePathMss } from './icmp-errors.ts';
import { chooseSackBlocks, writeSackBlocks } from './sack-blocks.ts';
import { NO_SEGMENT_FRAME, SEG } from './send-queue.ts';
import { seqDiff } from './seq.ts';
import type { Tcb } from './tcb.ts';
import { armTimers, clearTimer, isSet, persistDelayMs, setTimer, TIMERS } from './timers.ts';
import { advertise } from './window.ts';

/** Pieces behind the first of a packet, and its payload: what an IP length counts, less the longest headers. */
const BURST_PIECES_MAX = BATCH_PIECES_MAX - 2;
const BURST_BYTES_MAX = 65_535 - 120;
/** Smaller segments are not worth a device's while, and the software NIC cuts none. */
const BURST_MSS_MIN = 256;

/** Milliseconds until another try when no frame was free. */
const RETRY_MS = 1;

/** Send what may be sent now, and set the timers. */
export function output(tcb: Tcb): void {
  if (tcb.state === TCP_STATE.closed || tcb.state === TCP_STATE.timeWait) return;
  if (tcb.wantsPathMss) takePathMss(tcb);
  sendQueued(tcb);
  if (tcb.ackNow && tcb.state >= TCP_STATE.synReceived) sendAck(tcb);
  watchWindow(tcb);
  // Others have the frames that the owner waits for: no acknowledgement will tell.
  if (tcb.wantsDrain && tcb.recovery.queue.count === 0) setTimer(tcb, TIMERS.retry, RETRY_MS);
  armTimers(tcb);
}

function sendQueued(tcb: Tcb): void {
  const { recovery, stack } = tcb;
  const nowUs = stack.nowUs;
  for (;;) {
    if (!stack.link.hasRoom()) {
      stack.wantOutput(tcb);
      return;
    }
    const lost = recovery.nextToRetransmit(nowUs);
    const index = lost >= 0 ? lost : nextUnsent(tcb, nowUs);
    if (index < 0) break;
    if (lost < 0 && stack.link.sendsBursts && canLead(tcb, index)) {
      sendBurst(tcb, index, nowUs);
      continue;
    }
    if (!transmit(tcb, index)) {
      setTimer(tcb, TIMERS.retry, RETRY_MS);
      return;
    }
    recovery.onSent(index, nowUs);
  }
  // A wait shorter than the wheel's tick: look again in the next turn.
  if (recovery.isPaced) waitForPace(tcb, nowUs);
}

function waitForPace(tcb: Tcb, nowUs: number): void {
  const waitUs = (tcb.recovery.nextSendUs - nowUs) | 0;
  if (waitUs < 1000) tcb.stack.wantOutput(tcb);
  else setTimer(tcb, TIMERS.retry, Math.floor(waitUs / 1000));
}

/** Position of the segment that was never sent and may be now; -1: none. */
function nextUnsent(tcb: Tcb, nowUs: number): number {
  const { recovery } = tcb;
  const { queue } = recovery;
  if (queue.unsent >= queue.count) return -1;
  let index = recovery.nextToSend(nowUs, tcb.windowEnd);
  if (index < 0) {
    if (recovery.isPaced || !cutToWindow(tcb)) return -1;
    index = recovery.nextToSend(nowUs, tcb.windowEnd);
    if (index < 0) return -1;
  }
  if (isHeldBack(tcb, index)) return -1;
  if (queue.length(index) > recovery.mss) {
    if (!queue.split(index, recovery.mss, TCP_PAYLOAD_OFFSET)) return -1;
  }
  return index;
}

/** The last segment is not full: does it wait for more, or for what is under way to be acknowledged? */
function isHeldBack(tcb: Tcb, index: number): boolean {
  const { queue, mss } = tcb.recovery;
  if (index !== queue.count - 1 || queue.length(index) >= mss) return false;
  if ((queue.flags(index) & (SEG.fin | SEG.syn)) !== 0) return false;
  if (tcb.isCorked) {
    if (!isSet(tcb, TIMERS.cork)) setTimer(tcb, TIMERS.cork, NET_LIMITS.tcpCorkMs);
    return true;
  }
  return !tcb.noDelay && queue.outstanding > 0;
}

/**
 * The next segment does not fit in the peer's window: cut it when what fits is at least half of the largest window that
 * the peer ever had, or when the persist timer says so.
 */
function cutToWindow(tcb: Tcb): boolean {
  const { queue, room } = tcb.recovery;
  const usable = seqDiff(tcb.windowEnd, queue.nxt);
  const length = queue.length(queue.unsent);
  if (usable <= 0 || length <= usable || room < usable) return false;
  if (!tcb.isForced && 2 * usable < tcb.sndWndMax) return false;
  tcb.isForced = false;
  return queue.split(queue.unsent, usable, TCP_PAYLOAD_OFFSET);
}

/** With nothing under way that would be answered, a window that is too small needs a timer. */
function watchWindow(tcb: Tcb): void {
  const { queue } = tcb.recovery;
  const isStuck =
    tcb.state >= TCP_STATE.established &&
    queue.outstanding === 0 &&
    queue.unsent < queue.count &&
    seqDiff(queue.seqEnd(queue.unsent), tcb.windowEnd) > 0;
  if (!isStuck) {
    clearTimer(tcb, TIMERS.persist);
    tcb.persistTries = 0;
    tcb.isForced = false;
  } else if (!isSet(tcb, TIMERS.persist)) {
    setTimer(tcb, TIMERS.persist, persistDelayMs(tcb));
  }
}

/** Hand the segment at a position to IP. False: no frame was free. */
function transmit(tcb: Tcb, index: number): boolean {
  const { queue } = tcb.recovery;
  const device = tcb.stack.link.queue;
  const bits = queue.flags(index);
  const length = queue.length(index);
  let at = queue.at(index);
  const frame = queue.frame(index);
  if (frame === NO_SEGMENT_FRAME || queue.isShared(index)) {
    const copy = allocFrame(tcb);
    if (copy === NO_FRAME) return false;
    if (length > 0) {
      tcb.stack.link.u8.copyWithin(copy + TCP_PAYLOAD_OFFSET, at, at + length);
    }
    at = copy + TCP_PAYLOAD_OFFSET;
  } else {
    device.retain(frame);
  }
  let flags = wire.ACK_FLAG;
  if ((bits & SEG.syn) !== 0) {
    flags = tcb.state === TCP_STATE.synSent ? wire.SYN : wire.SYN | wire.ACK_FLAG;
  }
  if ((bits & SEG.fin) !== 0) flags |= wire.FIN;
  if (length > 0 && (index === queue.count - 1 || (bits & SEG.push) !== 0)) flags |= wire.PSH;
  emit(tcb, at, length, queue.seq(index), flags);
  return true;
}

/** A full segment that was never sent, in a frame of its own: others may follow it in one packet. */
function canLead(tcb: Tcb, index: number): boolean {
  const { queue, mss } = tcb.recovery;
  if (mss < BURST_MSS_MIN) return false;
  const isData = (queue.flags(index) & (SEG.syn | SEG.fin)) === 0;
  if (!isData || queue.length(index) !== mss || !isOwn(tcb, index)) return false;
  const { table, out } = tcb.stack;
  // No device cuts what we send to ourselves.
  return !out.isLocal(table.words, table.at(tcb.id) + FLOW_REMOTE);
}

function isOwn(tcb: Tcb, index: number): boolean {
  const { queue } = tcb.recovery;
  return queue.frame(index) !== NO_SEGMENT_FRAME && !queue.isShared(index);
}

/**
 * Send the full segment at a position and those behind it that may go now as one packet, which the device cuts again: all
 * are full but the last. To the sender's half each was sent by itself.
 */
function sendBurst(tcb: Tcb, first: number, nowUs: number): void {
  const { recovery, stack } = tcb;
  const { queue, mss } = recovery;
  const { link } = stack;
  const { burst } = link;
  const device = link.queue;
  const seq = queue.seq(first);
  const at = queue.at(first);
  let flags = wire.ACK_FLAG;
  let total = queue.length(first);
  let isLast = pushes(tcb, first);
  device.retain(queue.frame(first));
  recovery.onSent(first, nowUs);
  while (!isLast && burst.count < BURST_PIECES_MAX && total + mss <= BURST_BYTES_MAX) {
    if (!link.hasRoom(burst.count + 2)) break;
    const index = nextUnsent(tcb, nowUs);
    if (index < 0 || !isOwn(tcb, index) || (queue.flags(index) & SEG.syn) !== 0) break;
    const length = queue.length(index);
    if (length === 0 || length > mss) break;
    isLast = length < mss || pushes(tcb, index);
    if ((queue.flags(index) & SEG.fin) !== 0) flags |= wire.FIN;
    device.retain(queue.frame(index));
    burst.add(queue.at(index), length);
    total += length;
    recovery.onSent(index, nowUs);
  }
  if (isLast) flags |= wire.PSH;
  if (burst.count > 0) {
    burst.flags = FRAME_FLAG.segment;
    burst.segmentBytes = mss;
  }
  stack.counters.tcpSegmentsOut += burst.count;
  emit(tcb, at, total, seq, flags);
}

/** Whether the segment ends what its owner wrote: the receiver is to hand it over. */
function pushes(tcb: Tcb, index: number): boolean {
  const { queue } = tcb.recovery;
  return index === queue.count - 1 || (queue.flags(index) & (SEG.push | SEG.fin)) !== 0;
}

/** An acknowledgement without data. */
export function sendAck(tcb: Tcb): void {
  sendControl(tcb, tcb.recovery.queue.nxt, wire.ACK_FLAG);
}

/** A segment without data. When no frame is free, an ACK is tried again by the timer. */
export function sendControl(tcb: Tcb, seq: number, flags: number): void {
  const frame = allocFrame(tcb);
  if (frame === NO_FRAME) setTimer(tcb, TIMERS.retry, RETRY_MS);
  else emit(tcb, frame + TCP_PAYLOAD_OFFSET, 0, seq, flags);
}

/** Say the SYN-ACK again: the peer has sent its SYN again, so it may not have heard it. */
export function repeatSynAck(tcb: Tcb): void {
  sendControl(tcb, tcb.iss, wire.SYN | wire.ACK_FLAG);
}

function allocFrame(tcb: Tcb): number {
  const frame = tcb.stack.link.queue.alloc();
  if (frame === NO_FRAME) tcb.stack.counters.tcpNoFrame++;
  return frame;
}

/** Write the header before the payload at `at` and send. Takes one reference to the frame. */
function emit(tcb: Tcb, at: number, length: number, seq: number, flags: number): void {
  const { stack } = tcb;
  const { view } = stack.link;
  const { table } = stack;
  const flow = table.at(tcb.id);
  const isSyn = (flags & wire.SYN) !== 0;
  const optionsLength = isSyn ? synOptionsLength(tcb) : optionsLengthOf(tcb, length);
  const headerLength = wire.HEADER_LEN + optionsLength;
  const headerAt = at - headerLength;
  const hasAck = (flags & wire.ACK_FLAG) !== 0;
  const window = advertise(tcb, isSyn);
  const ack = hasAck ? tcb.rcvNxt : 0;
  wire.emit(view, headerAt, table.ports(tcb.id), seq, ack, optionsLength, flags, window);
  const optionsAt = headerAt + wire.HEADER_LEN;
  if (isSyn) writeSynOptions(tcb, optionsAt, hasAck);
  else writeOptions(tcb, optionsAt, optionsLength);
  const total = headerLength + length;
  const sum = wire.addressSum(table.words, flow);
  if (stack.link.sendsUnfinished) {
    stack.link.burst.flags |= FRAME_FLAG.checksum;
    wire.leaveUnfinished(view, headerAt, total, sum);
  } else wire.finish(view, headerAt, total, sum);
  if (hasAck) acknowledged(tcb);
  stack.counters.tcpSegmentsOut++;
  // What IP drops is lost like anything on the way: it counted that, and the timers are there for it.
  if (!stack.out.send(headerAt, total, PROTOCOL_TCP, table.words, flow)) stack.link.dropBurst();
}

function acknowledged(tcb: Tcb): void {
  tcb.lastAckSent = tcb.rcvNxt;
  tcb.ackNow = false;
  tcb.unackedBytes = 0;
  clearTimer(tcb, TIMERS.delayedAck);
}

/** Before the peer has answered, we offer everything; then, what both have. */
function synOptionsLength(tcb: Tcb): number {
  const isAsking = tcb.state === TCP_STATE.synSent;
  let length = 4;
  if (isAsking || tcb.rcvScale > 0 || tcb.sndScale > 0) length += 4;
  if (isAsking || tcb.hasSack) length += 4;
  if (isAsking || tcb.hasTimestamps) length += wire.TIMESTAMPS_LEN;
  return length;
}

function writeSynOptions(tcb: Tcb, at: number, hasAck: boolean): void {
  const { view } = tcb.stack.link;
  const isAsking = tcb.state === TCP_STATE.synSent;
  let to = at;
  wire.emitMss(view, to, tcb.pathMss);
  to += 4;
  if (isAsking || tcb.rcvScale > 0 || tcb.sndScale > 0) {
    wire.emitWindowScale(view, to, tcb.rcvScale);
    to += 4;
  }
  if (isAsking || tcb.hasSack) {
    wire.emitSackPermitted(view, to);
    to += 4;
  }
  if (isAsking || tcb.hasTimestamps) {
    wire.emitTimestamps(view, to, timestamp(tcb), hasAck ? tcb.tsRecent : 0);
  }
}

/** SACK blocks go on segments without data: they would not fit on a full one. */
function optionsLengthOf(tcb: Tcb, payload: number): number {
  const timestamps = tcb.hasTimestamps ? wire.TIMESTAMPS_LEN : 0;
  if (payload > 0 || !tcb.hasSack) return timestamps;
  return timestamps + chooseSackBlocks(tcb);
}

function writeOptions(tcb: Tcb, at: number, length: number): void {
  if (length === 0) return;
  let to = at;
  if (tcb.hasTimestamps) {
    wire.emitTimestamps(tcb.stack.link.view, to, timestamp(tcb), tcb.tsRecent);
    to += wire.TIMESTAMPS_LEN;
  }
  if (to < at + length) writeSackBlocks(tcb.stack.link.view, to);
}

/** The time in milliseconds, which a peer cannot tell from our start (RFC 7323, section 5.4). */
export const timestamp = (tcb: Tcb): number => (tcb.stack.nowMs + tcb.tsOffset) | 0;
