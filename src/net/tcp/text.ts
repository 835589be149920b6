/**
 * The text of segments on its way to the owner (RFC 9293, section 3.10.7.4, "Seventh" and "Eighth"): handed over where it
 * stands when it is next and the owner listens, kept otherwise. Any handler may end the connection.
 */
import * as wire from '../../wire/tcp.ts';
import { NET_LIMITS } from '../limits.ts';
import { TCP_STATE } from './api.ts';
import { drained, enterTimeWait } from './ends.ts';
import { INSERT, ReceiveQueue } from './receive-queue.ts';
import type { Segment } from './segment.ts';
import { seqDiff, seqMin } from './seq.ts';
import type { Tcb } from './tcb.ts';
import { isSet, setTimer, TIMERS } from './timers.ts';
import { isWorthwhile, opening, tuneBuffer } from './window.ts';

const NONE = -1;

/** Take what is new of an acceptable segment: its bytes, and its FIN. */
export function receiveText(tcb: Tcb, segment: Segment): void {
  const { counters } = tcb.stack;
  const { state } = tcb;
  const isOpen =
    state === TCP_STATE.established || state === TCP_STATE.finWait1 || state === TCP_STATE.finWait2;
  if (segment.length === 0 && !segment.has(wire.FIN)) return;
  if (!isOpen) {
    // The peer has said before that nothing comes any more. What it sends again is acknowledged again.
    counters.tcpUnexpected++;
    acknowledgeNow(tcb);
    return;
  }
  if (segment.length > 0) receiveBytes(tcb, segment);
  else noteFin(tcb, segment.seq);
  if (tcb.state !== TCP_STATE.closed) advance(tcb);
}

function receiveBytes(tcb: Tcb, segment: Segment): void {
  const { counters } = tcb.stack;
  tcb.rcvMss = Math.max(tcb.rcvMss, Math.min(segment.length, tcb.pathMss));
  const old = seqDiff(tcb.rcvNxt, segment.seq);
  if (old > 0) {
    reportDuplicate(tcb, segment.seq, seqMin(tcb.rcvNxt, (segment.seq + segment.length) | 0));
    const cut = Math.min(old, segment.length);
    segment.seq = (segment.seq + cut) | 0;
    segment.at += cut;
    segment.length -= cut;
  }
  const edge = tcb.finSeen ? seqMin(tcb.rcvAdv, tcb.finSeq) : tcb.rcvAdv;
  const beyond = seqDiff((segment.seq + segment.length) | 0, edge);
  if (beyond > 0) {
    counters.tcpOutOfWindow++;
    segment.length -= Math.min(beyond, segment.length);
    segment.flags &= ~wire.FIN;
    acknowledgeNow(tcb);
  }
  if (segment.has(wire.FIN)) noteFin(tcb, (segment.seq + segment.length) | 0);
  if (segment.length === 0) return;
  const isNext = segment.seq === tcb.rcvNxt;
  if (isNext && !tcb.isPaused && !tcb.isDelivering) handNext(tcb, segment);
  else keep(tcb, segment, isNext);
}

/** What comes next goes to the owner at once, however much is kept: nothing else makes room. */
function handNext(tcb: Tcb, segment: Segment): void {
  const queue = tcb.received;
  let { length } = segment;
  let isFilling = false;
  if (queue !== null && queue.count > 0) {
    isFilling = true;
    length = Math.min(length, seqDiff(queue.seq(0), segment.seq));
  }
  tcb.stack.link.take(segment.frame);
  took(tcb, length);
  if (isFilling) {
    tookKept(tcb, 0);
    // What fills a gap in part is acknowledged at once too.
    acknowledgeNow(tcb);
  }
  hand(tcb, segment.frame, segment.at, length);
}

/** What was kept and follows on without a gap is in order now. More than `length` bytes: a gap was filled. */
function tookKept(tcb: Tcb, length: number): void {
  let end = tcb.received!.contiguousEnd(tcb.rcvNxt);
  // Nothing comes after the FIN, whatever the peer may have sent.
  if (tcb.finSeen) end = seqMin(end, tcb.finSeq);
  const more = seqDiff(end, tcb.rcvNxt);
  if (more > 0) took(tcb, more);
  // What filled a gap is acknowledged at once (RFC 5681, section 4.2).
  if (more > length) acknowledgeNow(tcb);
}

/** Keep a piece that cannot be handed over yet. */
function keep(tcb: Tcb, segment: Segment, isNext: boolean): void {
  const { stack } = tcb;
  tcb.received ??= new ReceiveQueue(stack.held);
  const { frame, seq, at, length } = segment;
  if (!isNext) {
    stack.counters.tcpOutOfOrder++;
    tcb.received.noteRecent(seq);
    acknowledgeNow(tcb);
  }
  const result = tcb.received.insert(seq, at, length, frame);
  if (result === INSERT.kept) stack.link.take(frame);
  else if (result === INSERT.full) stack.counters.tcpReceiveFull++;
  else if (result === INSERT.duplicate) reportDuplicate(tcb, seq, (seq + length) | 0);
  if (!isNext || result === INSERT.full) return;
  tookKept(tcb, length);
}

/** `bytes` more are ours in order. */
function took(tcb: Tcb, bytes: number): void {
  tcb.rcvNxt = (tcb.rcvNxt + bytes) | 0;
  tcb.bytesReceived += bytes;
  tcb.unackedBytes += bytes;
  tuneBuffer(tcb);
  if (tcb.ackNow) return;
  // Every second full segment at once, the others with data or after a while (RFC 9293, section 3.8.6.3).
  if (tcb.unackedBytes >= 2 * tcb.rcvMss) acknowledgeNow(tcb);
  else if (!isSet(tcb, TIMERS.delayedAck)) {
    setTimer(tcb, TIMERS.delayedAck, NET_LIMITS.tcpDelayedAckMs);
  }
}

export function acknowledgeNow(tcb: Tcb): void {
  tcb.ackNow = true;
  tcb.stack.wantOutput(tcb);
}

/** Bytes that were here before: the peer is told which (RFC 2883). */
export function reportDuplicate(tcb: Tcb, left: number, right: number): void {
  tcb.stack.counters.tcpDuplicate++;
  tcb.dsackLeft = left;
  tcb.dsackRight = right;
  acknowledgeNow(tcb);
}

/** The frame is ours; its bytes are the owner's for the time of the call, and longer if it holds them. */
function hand(tcb: Tcb, frame: number, at: number, length: number): void {
  tcb.dlvNxt = (tcb.dlvNxt + length) | 0;
  tcb.inHand = frame;
  tcb.inHandLength = length;
  tcb.isDelivering = true;
  try {
    tcb.handlers.onData(tcb, frame, at, length);
  } finally {
    tcb.isDelivering = false;
    if (tcb.inHand !== NONE) tcb.stack.link.queue.free(frame);
    tcb.inHand = NONE;
  }
}

/** Hand over what is in order and was kept, then the end, if that was all. */
export function deliverQueued(tcb: Tcb): void {
  const queue = tcb.received;
  if (tcb.isDelivering) return;
  while (queue !== null && !tcb.isPaused && queue.count > 0 && tcb.pendingBytes > 0) {
    const frame = queue.frame(0);
    const at = queue.at(0);
    const length = queue.length(0);
    queue.shift();
    hand(tcb, frame, at, length);
  }
  if (tcb.finReceived && !tcb.endTold && !tcb.isPaused && tcb.pendingBytes === 0) tellEnd(tcb);
  openWindow(tcb);
}

function tellEnd(tcb: Tcb): void {
  if (tcb.state === TCP_STATE.closed && tcb.endedAs === NONE) return;
  tcb.endTold = true;
  tcb.handlers.onEnd?.(tcb);
  drained(tcb);
}

/** The owner took bytes: tell the peer of the room, if it is worth it. */
export function openWindow(tcb: Tcb): void {
  const { state } = tcb;
  const isReceiving =
    state === TCP_STATE.established || state === TCP_STATE.finWait1 || state === TCP_STATE.finWait2;
  if (!isReceiving || tcb.finReceived) return;
  const bytes = opening(tcb);
  // While segments come, their acknowledgements carry it: a window update alone is for one that was nearly closed.
  const left = seqDiff(tcb.rcvAdv, tcb.rcvNxt);
  if (isWorthwhile(tcb, bytes) && left < tcb.rcvBuf >>> 1) acknowledgeNow(tcb);
}

function noteFin(tcb: Tcb, seq: number): void {
  if (tcb.finSeen) return;
  tcb.finSeen = true;
  tcb.finSeq = seq;
}

/** After new bytes: hand over what they made contiguous, and take the FIN when it is next. */
function advance(tcb: Tcb): void {
  if (tcb.finSeen && !tcb.finReceived) {
    if (tcb.rcvNxt === tcb.finSeq) receiveFin(tcb);
    else acknowledgeNow(tcb);
  }
  deliverQueued(tcb);
}

/** RFC 9293, section 3.10.7.4, "Eighth, check the FIN bit". */
function receiveFin(tcb: Tcb): void {
  tcb.rcvNxt = (tcb.rcvNxt + 1) | 0;
  tcb.finReceived = true;
  acknowledgeNow(tcb);
  if (tcb.state === TCP_STATE.established) tcb.state = TCP_STATE.closeWait;
  else if (tcb.state === TCP_STATE.finWait1) tcb.state = TCP_STATE.closing;
  else if (tcb.state === TCP_STATE.finWait2) enterTimeWait(tcb);
}
