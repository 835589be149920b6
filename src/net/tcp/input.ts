/**
 * A segment arrives at a connection: RFC 9293, section 3.10.7, in its order, one function for each group of states.
 *
 * First the sequence number (with PAWS, RFC 7323), then RST, SYN (RFC 5961), ACK, and the text in text.ts. The security
 * and urgent checks have nothing to do: there is no compartment, and urgent data is data like any other (RFC 6093).
 */
import * as wire from '../../wire/tcp.ts';
import { NET_LIMITS } from '../limits.ts';
import { TCP_END, TCP_STATE } from './api.ts';
import { closeInOrder, destroy, enterTimeWait } from './ends.ts';
import { establish, synchronize, takeOptions, takeWindow } from './handshake.ts';
import { repeatSynAck, sendAck, timestamp } from './output.ts';
import type { Segment } from './segment.ts';
import { seqDiff } from './seq.ts';
import type { Tcb } from './tcb.ts';
import { acknowledgeNow, receiveText, reportDuplicate } from './text.ts';
import { checkDrain } from './timers.ts';

/** Timestamps older than this say nothing (RFC 7323, section 5.5). */
const PAWS_IDLE_MS = 24 * 24 * 3600 * 1000;
/** An echo from longer ago than this is not ours. */
const ECHO_MS_MAX = 1 << 20;
const US_PER_MS = 1000;

/** The segment in hand is for this connection. */
export function receiveSegment(tcb: Tcb, segment: Segment): void {
  if (tcb.state === TCP_STATE.synSent) synSent(tcb, segment);
  else if (tcb.state === TCP_STATE.synReceived) synReceived(tcb, segment);
  else synchronized(tcb, segment);
}

/** RFC 9293, section 3.10.7.3. */
function synSent(tcb: Tcb, segment: Segment): void {
  const { counters } = tcb.stack;
  const hasAck = segment.has(wire.ACK_FLAG);
  if (hasAck && segment.ack !== tcb.recovery.queue.nxt) {
    counters.tcpBadAck++;
    if (!segment.has(wire.RST)) tcb.stack.reset(segment);
    return;
  }
  if (segment.has(wire.RST)) {
    if (!hasAck) {
      counters.tcpBadResets++;
      return;
    }
    counters.tcpResetsReceived++;
    destroy(tcb, TCP_END.refused);
    return;
  }
  if (!segment.has(wire.SYN)) {
    counters.tcpUnexpected++;
    return;
  }
  const { options } = segment;
  takeOptions(tcb, options.mss, options.windowScale, options.sackPermitted, segment);
  synchronize(tcb, segment.seq);
  acknowledgeNow(tcb);
  if (!hasAck) {
    // Both called each other (section 3.5, figure 8): say our SYN again, with an ACK.
    tcb.state = TCP_STATE.synReceived;
    tcb.sndWnd = segment.window;
    repeatSynAck(tcb);
    return;
  }
  takeAck(tcb, segment);
  establish(tcb, segment);
  tcb.stack.counters.tcpConnects++;
  tcb.handlers.onOpen?.(tcb);
  if (tcb.state === TCP_STATE.closed) return;
  segment.seq = (segment.seq + 1) | 0;
  receiveText(tcb, segment);
}

/** SYN-RECEIVED: the handshake waits for its last part. */
function synReceived(tcb: Tcb, segment: Segment): void {
  const isSyn = segment.has(wire.SYN) && segment.seq === tcb.irs;
  if (isSyn && segment.has(wire.ACK_FLAG) && segment.ack === tcb.recovery.queue.nxt) {
    // The SYN-ACK of one that called us as we called it: the SYN is known, the ACK is what counts.
    segment.flags &= ~wire.SYN;
    segment.seq = tcb.rcvNxt;
  } else if (isSyn && !segment.has(wire.ACK_FLAG | wire.RST)) {
    repeatSynAck(tcb);
    return;
  }
  synchronized(tcb, segment);
}

/** Every state from SYN-RECEIVED on (section 3.10.7.4). */
export function synchronized(tcb: Tcb, segment: Segment): void {
  const { counters } = tcb.stack;
  if (!checkSequence(tcb, segment)) return;
  if (segment.has(wire.RST)) {
    checkReset(tcb, segment);
    return;
  }
  if (segment.has(wire.SYN)) {
    challenge(tcb);
    return;
  }
  if (!segment.has(wire.ACK_FLAG)) {
    counters.tcpUnexpected++;
    return;
  }
  tcb.heardMs = tcb.stack.nowMs;
  tcb.keepTries = 0;
  tcb.probesUnanswered = 0;
  if (tcb.state === TCP_STATE.synReceived && !finishHandshake(tcb, segment)) return;
  if (!checkAck(tcb, segment)) return;
  afterAck(tcb);
  if (tcb.state === TCP_STATE.closed || tcb.state === TCP_STATE.timeWait) return;
  receiveText(tcb, segment);
}

/** First: is any of it in the window, and is it newer than what we have (RFC 7323, section 5.3)? */
function checkSequence(tcb: Tcb, segment: Segment): boolean {
  const { counters, nowMs } = tcb.stack;
  const { options } = segment;
  const isReset = segment.has(wire.RST);
  if (tcb.hasTimestamps && !isReset) {
    if (!options.hasTimestamps) {
      counters.tcpPaws++;
      return false;
    }
    const isOld = seqDiff(options.tsValue, tcb.tsRecent) < 0;
    if (isOld && seqDiff(nowMs, tcb.tsRecentMs) < PAWS_IDLE_MS) {
      counters.tcpPaws++;
      if (segment.space > 0) reportOld(tcb, segment);
      else answerStray(tcb);
      return false;
    }
  }
  if (!isAcceptable(tcb, segment)) {
    counters.tcpOutOfWindow++;
    if (isReset) counters.tcpBadResets++;
    else if (segment.length > 0) reportOld(tcb, segment);
    else answerStray(tcb);
    return false;
  }
  if (tcb.hasTimestamps && options.hasTimestamps && seqDiff(segment.seq, tcb.lastAckSent) <= 0) {
    tcb.tsRecent = options.tsValue;
    tcb.tsRecentMs = nowMs;
  }
  return true;
}

/** RFC 9293, section 3.4, table 6; a closed window still lets ACKs and what starts at its edge be looked at. */
function isAcceptable(tcb: Tcb, segment: Segment): boolean {
  const window = Math.max(0, seqDiff(tcb.rcvAdv, tcb.rcvNxt));
  const first = seqDiff(segment.seq, tcb.rcvNxt);
  const { space } = segment;
  if (first === 0) return true;
  if (space === 0) return first >= 0 && first < window;
  const last = first + space - 1;
  return (first >= 0 && first < window) || (last >= 0 && last < Math.max(1, window) && first < 0);
}

/** Old data: the peer may not have heard our acknowledgement. */
function reportOld(tcb: Tcb, segment: Segment): void {
  const end = (segment.seq + segment.length) | 0;
  if (segment.length > 0 && seqDiff(end, tcb.rcvNxt) <= 0) {
    reportDuplicate(tcb, segment.seq, end);
  } else acknowledgeNow(tcb);
}

/** An empty segment out of place is answered, but seldom: two ends that disagree would answer each other for ever. */
function answerStray(tcb: Tcb): void {
  const { nowMs } = tcb.stack;
  if (seqDiff(nowMs, tcb.strayAckMs) < 0) return;
  tcb.strayAckMs = (nowMs + NET_LIMITS.tcpStrayAckMs) | 0;
  acknowledgeNow(tcb);
}

/** Second: RST (RFC 5961, section 3.2). Only the very next sequence number is believed at once. */
function checkReset(tcb: Tcb, segment: Segment): void {
  if (segment.seq !== tcb.rcvNxt) {
    tcb.stack.counters.tcpBadResets++;
    challenge(tcb);
    return;
  }
  tcb.stack.counters.tcpResetsReceived++;
  // One that we called, and that called us: to its owner it never was open.
  const isRefused = tcb.state === TCP_STATE.synReceived;
  destroy(tcb, isRefused ? TCP_END.refused : TCP_END.reset);
}

/** An acknowledgement that shows what the right numbers are, so many in a while (RFC 5961, section 7). */
function challenge(tcb: Tcb): void {
  const { nowMs, counters } = tcb.stack;
  if (seqDiff(nowMs, tcb.challengeMs) >= NET_LIMITS.tcpChallengeWindowMs || tcb.challenges === 0) {
    tcb.challengeMs = nowMs;
    tcb.challenges = 0;
  }
  if (tcb.challenges >= NET_LIMITS.tcpChallengeAcks) {
    counters.tcpChallengeLimited++;
    return;
  }
  tcb.challenges++;
  counters.tcpChallengeAcks++;
  sendAck(tcb);
}

/** Fifth, in SYN-RECEIVED: our SYN is acknowledged, and the connection has an owner. False when that was not it. */
function finishHandshake(tcb: Tcb, segment: Segment): boolean {
  const { queue } = tcb.recovery;
  if (segment.ack !== queue.nxt || queue.nxt === queue.una) {
    tcb.stack.counters.tcpBadAck++;
    tcb.stack.reset(segment);
    return false;
  }
  takeAck(tcb, segment);
  establish(tcb, segment);
  const { listener } = tcb;
  if (listener !== null) listener.accept(tcb);
  else {
    tcb.stack.counters.tcpConnects++;
    tcb.handlers.onOpen?.(tcb);
  }
  return (tcb.state as number) !== TCP_STATE.closed;
}

/** Fifth: the acknowledgement. What lies too far back is as suspicious as what was never sent (RFC 5961, section 5.2). */
function checkAck(tcb: Tcb, segment: Segment): boolean {
  const { queue } = tcb.recovery;
  const { counters } = tcb.stack;
  const behind = seqDiff(queue.una, segment.ack);
  // Counted the whole way round: what is half of the space away is neither before nor after.
  const back = seqDiff(queue.nxt, segment.ack) >>> 0;
  if (back > seqDiff(queue.nxt, queue.una) + Math.max(tcb.sndWndMax, 1)) {
    counters.tcpBadAck++;
    challenge(tcb);
    return false;
  }
  if (behind <= 0) takeAck(tcb, segment);
  updateWindow(tcb, segment);
  return true;
}

function takeAck(tcb: Tcb, segment: Segment): void {
  const { stack, recovery } = tcb;
  const { ack } = stack;
  const { options } = segment;
  const window = segment.window << tcb.sndScale;
  const isPure = segment.space === 0 && window === tcb.sndWnd;
  ack.set(segment.ack, isPure);
  if (tcb.hasTimestamps && options.hasTimestamps) {
    const agoMs = seqDiff(timestamp(tcb), options.tsEcho);
    ack.hasEcho = agoMs >= 0 && agoMs < ECHO_MS_MAX;
    if (ack.hasEcho) ack.echoUs = (stack.link.tickUs - agoMs * US_PER_MS) | 0;
  }
  for (let i = 0; i < options.sackCount; i++) {
    ack.addSack(options.sackEdges[2 * i]!, options.sackEdges[2 * i + 1]!);
  }
  const acked = recovery.onAck(ack, stack.nowUs);
  if (acked > 0) {
    // Once for each time that the clock moves is enough.
    if (tcb.progressMs !== stack.nowMs)
      stack.out.confirm(stack.table.words, stack.table.at(tcb.id));
    tcb.progressMs = stack.nowMs;
    tcb.isUnreachable = false;
  }
  if (recovery.queue.count > 0) stack.wantOutput(tcb);
}

/** RFC 9293: a newer segment, or one that acknowledges more, tells the window. */
function updateWindow(tcb: Tcb, segment: Segment): void {
  const bySeq = seqDiff(segment.seq, tcb.sndWl1);
  const byAck = seqDiff(segment.ack, tcb.sndWl2);
  if (bySeq < 0 || (bySeq === 0 && byAck < 0)) return;
  if (seqDiff(segment.ack, tcb.recovery.queue.una) < 0) return;
  takeWindow(tcb, segment);
  if (tcb.recovery.queue.count > 0) tcb.stack.wantOutput(tcb);
}

/** What an acknowledgement brings about: the FIN may have arrived, the owner may write on. */
function afterAck(tcb: Tcb): void {
  const { queue } = tcb.recovery;
  const isAllAcked = queue.una === queue.end;
  if (isAllAcked && tcb.finQueued) finAcked(tcb);
  if (tcb.state === TCP_STATE.closed) return;
  if (isAllAcked && tcb.isUnflushed) {
    tcb.isUnflushed = false;
    tcb.handlers.onFlushed?.(tcb);
  }
  checkDrain(tcb);
}

function finAcked(tcb: Tcb): void {
  if (tcb.isUnflushed) {
    tcb.isUnflushed = false;
    tcb.handlers.onFlushed?.(tcb);
  }
  if (tcb.state === TCP_STATE.finWait1) tcb.state = TCP_STATE.finWait2;
  else if (tcb.state === TCP_STATE.closing) enterTimeWait(tcb);
  else if (tcb.state === TCP_STATE.lastAck) closeInOrder(tcb);
}
