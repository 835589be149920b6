/**
 * How connections end. Whatever the way, the owner hears `onClose` once and last, and every frame and number that the
 * connection had is given back.
 *
 * A connection that both sides closed in order may still hold bytes for an owner who has paused: what the network needs
 * of it goes (to TIME-WAIT, or away), and the rest waits for its owner (`endedAs`).
 */
import * as wire from '../../wire/tcp.ts';
import { TCP_END, TCP_STATE, type TcpEnd } from './api.ts';
import { sendAck, sendControl } from './output.ts';
import type { Tcb } from './tcb.ts';

const NONE = -1;

/** It is over at once, for `why`. */
export function destroy(tcb: Tcb, why: TcpEnd): void {
  if (tcb.state === TCP_STATE.closed) return;
  const { listener } = tcb;
  tcb.listener = null;
  tcb.state = TCP_STATE.closed;
  letGo(tcb);
  try {
    // One whose handshake was not done has no owner yet.
    if (listener !== null) listener.lost(tcb);
    else tcb.handlers.onClose?.(tcb, why);
  } finally {
    forgetFlow(tcb);
  }
}

/** RST, and over (RFC 9293, section 3.10.5). */
export function abort(tcb: Tcb): void {
  if (tcb.endedAs !== NONE) {
    finish(tcb, TCP_END.aborted);
    return;
  }
  if (tcb.state === TCP_STATE.closed) return;
  if (tcb.state !== TCP_STATE.synSent) sendReset(tcb);
  destroy(tcb, TCP_END.aborted);
}

/** With what was sent last, so that the peer believes it. */
export function sendReset(tcb: Tcb): void {
  if (tcb.stack.isClosed) return;
  tcb.stack.counters.tcpResetsSent++;
  sendControl(tcb, tcb.recovery.queue.nxt, wire.RST | wire.ACK_FLAG);
}

/** Both FINs are acknowledged, ours first: remember the flow, so that the peer's last FIN can be answered again. */
export function enterTimeWait(tcb: Tcb): void {
  if (tcb.ackNow) sendAck(tcb);
  const { stack } = tcb;
  stack.wheel.cancel(tcb.id);
  tcb.state = TCP_STATE.timeWait;
  stack.tcbs[tcb.id] = null;
  stack.timeWaits.add(tcb);
  tcb.timers = 0;
  tcb.recovery.close();
  endedInOrder(tcb);
}

/** LAST-ACK, and it came. */
export function closeInOrder(tcb: Tcb): void {
  tcb.state = TCP_STATE.closed;
  tcb.timers = 0;
  tcb.stack.wheel.cancel(tcb.id);
  tcb.recovery.close();
  forgetFlow(tcb);
  endedInOrder(tcb);
}

/** The owner has had everything. */
export function drained(tcb: Tcb): void {
  if (tcb.endedAs !== NONE && tcb.endTold) finish(tcb, tcb.endedAs as TcpEnd);
}

function endedInOrder(tcb: Tcb): void {
  tcb.endedAs = TCP_END.closed;
  drained(tcb);
}

function finish(tcb: Tcb, why: TcpEnd): void {
  tcb.endedAs = NONE;
  tcb.state = TCP_STATE.closed;
  // A peer that sent bytes behind its FIN has them lie here.
  tcb.received?.clear();
  tcb.handlers.onClose?.(tcb, why);
}

function letGo(tcb: Tcb): void {
  tcb.timers = 0;
  tcb.stack.wheel.cancel(tcb.id);
  tcb.recovery.close();
  tcb.received?.clear();
}

function forgetFlow(tcb: Tcb): void {
  tcb.stack.tcbs[tcb.id] = null;
  tcb.stack.table.remove(tcb.id);
}
