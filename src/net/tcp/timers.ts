/**
 * The timers of a connection: each is a bit and a deadline; the earliest of them stands in the stack's wheel. A timer that
 * moves away leaves its entry in the wheel, which then comes early and is put back.
 */
import * as wire from '../../wire/tcp.ts';
import { NET_LIMITS } from '../limits.ts';
import { TCP_END, TCP_STATE } from './api.ts';
import { destroy } from './ends.ts';
import { sendControl } from './output.ts';
import { TIMER } from './recovery-types.ts';
import { seqDiff } from './seq.ts';
import type { Tcb } from './tcb.ts';

export const TIMERS = {
  delayedAck: 1,
  persist: 2,
  keepAlive: 4,
  /** Something could not be sent for want of a frame: look again. */
  retry: 8,
  /** `more` held a part of a segment back. */
  cork: 16,
} as const satisfies Record<string, number>;
type TimerBit = (typeof TIMERS)[keyof typeof TIMERS];

const US_PER_MS = 1000;

export function setTimer(tcb: Tcb, bit: TimerBit, inMs: number): void {
  const dueMs = (tcb.stack.nowMs + inMs) | 0;
  tcb.timers |= bit;
  if (bit === TIMERS.delayedAck) tcb.delayedAckMs = dueMs;
  else if (bit === TIMERS.persist) tcb.persistMs = dueMs;
  else if (bit === TIMERS.keepAlive) tcb.keepAliveMs = dueMs;
  else tcb.retryMs = dueMs;
  tcb.stack.wheel.schedule(tcb.id, dueMs);
}

export function clearTimer(tcb: Tcb, bit: TimerBit): void {
  tcb.timers &= ~bit;
}

export const isSet = (tcb: Tcb, bit: TimerBit): boolean => (tcb.timers & bit) !== 0;

/** The first of the timers that run: put it in the wheel. */
export function armTimers(tcb: Tcb): void {
  const { stack, timers, recovery } = tcb;
  const { wheel, nowMs } = stack;
  if ((timers & TIMERS.delayedAck) !== 0) wheel.schedule(tcb.id, tcb.delayedAckMs);
  if ((timers & TIMERS.persist) !== 0) wheel.schedule(tcb.id, tcb.persistMs);
  if ((timers & TIMERS.keepAlive) !== 0) wheel.schedule(tcb.id, tcb.keepAliveMs);
  if ((timers & (TIMERS.retry | TIMERS.cork)) !== 0) wheel.schedule(tcb.id, tcb.retryMs);
  if (recovery.isArmed) {
    const inUs = Math.max(0, (recovery.deadlineUs - stack.nowUs) | 0);
    wheel.schedule(tcb.id, (nowMs + Math.ceil(inUs / US_PER_MS)) | 0);
  }
  if (isWaiting(tcb) && tcb.userTimeoutMs > 0) {
    wheel.schedule(tcb.id, (tcb.progressMs + tcb.userTimeoutMs) | 0);
  }
}

/** The wheel says that something may be due. */
export function onDue(tcb: Tcb): void {
  if (tcb.state === TCP_STATE.closed) return;
  const { stack } = tcb;
  const { nowMs } = stack;
  if (isWaiting(tcb) && tcb.userTimeoutMs > 0) {
    if (seqDiff(nowMs, tcb.progressMs) >= tcb.userTimeoutMs) {
      giveUp(tcb);
      return;
    }
  }
  if (recoveryGaveUp(tcb)) return;
  if (takeDue(tcb, TIMERS.delayedAck, tcb.delayedAckMs)) tcb.ackNow = true;
  if (takeDue(tcb, TIMERS.persist, tcb.persistMs) && !probeWindow(tcb)) return;
  if (takeDue(tcb, TIMERS.keepAlive, tcb.keepAliveMs) && !probeLife(tcb)) return;
  if (takeDue(tcb, TIMERS.cork, tcb.retryMs)) tcb.isCorked = false;
  takeDue(tcb, TIMERS.retry, tcb.retryMs);
  checkDrain(tcb);
  // Sends what there is, and arms what runs on.
  stack.wantOutput(tcb);
}

/** The owner could not write all it had: can it now? Half of everything must be free, and a frame at least. */
export function checkDrain(tcb: Tcb): void {
  if (!tcb.wantsDrain || !tcb.canSend) return;
  const { queue } = tcb.recovery;
  const isHalfFree =
    2 * seqDiff(queue.end, queue.una) <= NET_LIMITS.tcpSendBufferBytes &&
    2 * queue.count <= NET_LIMITS.tcpSendSegmentsMax;
  if (!isHalfFree || tcb.sendRoom === 0) return;
  tcb.wantsDrain = false;
  tcb.handlers.onDrain?.(tcb);
}

/** Sent data, or a closed window, awaits the peer. */
function isWaiting(tcb: Tcb): boolean {
  const { queue } = tcb.recovery;
  return queue.end !== queue.una;
}

function takeDue(tcb: Tcb, bit: TimerBit, dueMs: number): boolean {
  if (!isSet(tcb, bit) || seqDiff(tcb.stack.nowMs, dueMs) < 0) return false;
  clearTimer(tcb, bit);
  return true;
}

function recoveryGaveUp(tcb: Tcb): boolean {
  const { recovery } = tcb;
  if (!recovery.isArmed || recovery.onTimer(tcb.stack.nowUs) !== TIMER.rto) return false;
  let max: number = NET_LIMITS.tcpDataTriesMax;
  if (tcb.state === TCP_STATE.synSent) max = NET_LIMITS.tcpSynTriesMax;
  else if (tcb.state === TCP_STATE.synReceived) max = NET_LIMITS.tcpSynAckTriesMax;
  if (recovery.timeouts <= max) return false;
  giveUp(tcb);
  return true;
}

function giveUp(tcb: Tcb): void {
  tcb.stack.counters.tcpTimedOut++;
  destroy(tcb, tcb.isUnreachable ? TCP_END.unreachable : TCP_END.timedOut);
}

/** The window has been closed, or too small, for long: ask, or send what fits (RFC 9293, section 3.8.6.1). */
function probeWindow(tcb: Tcb): boolean {
  if (tcb.probesUnanswered >= NET_LIMITS.tcpProbesMax) {
    giveUp(tcb);
    return false;
  }
  tcb.probesUnanswered++;
  tcb.persistTries++;
  tcb.stack.counters.tcpZeroWindowProbes++;
  if (seqDiff(tcb.windowEnd, tcb.recovery.queue.nxt) > 0) tcb.isForced = true;
  else sendProbe(tcb);
  return true;
}

/** An old sequence number, which makes the peer say what it expects and offers. */
function sendProbe(tcb: Tcb): void {
  sendControl(tcb, (tcb.recovery.queue.una - 1) | 0, wire.ACK_FLAG);
}

/** How long until the next window probe. */
export function persistDelayMs(tcb: Tcb): number {
  const rtoMs = tcb.recovery.rtt.rtoUs / US_PER_MS;
  const base = Math.max(NET_LIMITS.tcpPersistMsMin, rtoMs);
  return Math.ceil(Math.min(NET_LIMITS.tcpPersistMsMax, base * 2 ** tcb.persistTries));
}

/** The owner wants to know whether the peer lives (RFC 9293, section 3.8.4). False when it does not. */
function probeLife(tcb: Tcb): boolean {
  const silentMs = seqDiff(tcb.stack.nowMs, tcb.heardMs);
  const isQuiet = silentMs >= tcb.keepIdleMs && !isWaiting(tcb);
  if (!isQuiet) {
    tcb.keepTries = 0;
    setTimer(tcb, TIMERS.keepAlive, Math.max(1, tcb.keepIdleMs - silentMs));
    return true;
  }
  if (tcb.keepTries >= tcb.keepProbes) {
    giveUp(tcb);
    return false;
  }
  tcb.keepTries++;
  tcb.stack.counters.tcpKeepAlives++;
  sendProbe(tcb);
  setTimer(tcb, TIMERS.keepAlive, tcb.keepIntervalMs);
  return true;
}

/** `setKeepAlive` was called, or the connection has opened. */
export function keepAliveChanged(tcb: Tcb): void {
  tcb.keepTries = 0;
  if (tcb.keepIdleMs === 0) clearTimer(tcb, TIMERS.keepAlive);
  else if (tcb.state >= TCP_STATE.established) {
    const silentMs = seqDiff(tcb.stack.nowMs, tcb.heardMs);
    setTimer(tcb, TIMERS.keepAlive, Math.max(1, tcb.keepIdleMs - silentMs));
  }
}
