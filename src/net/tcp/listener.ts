/**
 * Who takes connections at a port, and the handshakes that are under way for it (RFC 9293, section 3.10.7.2). A handshake
 * is a connection in SYN-RECEIVED, at most `backlog` of them; a SYN beyond that is answered with a cookie.
 */
import * as wire from '../../wire/tcp.ts';
import { NET_LIMITS } from '../limits.ts';
import { type ListenOptions, TCP_END, TCP_STATE, type TcpListener } from './api.ts';
import { CookieFacts, checkCookie, sendCookie } from './cookies.ts';
import { destroy, sendReset } from './ends.ts';
import { NO_FLOW } from './flow-table.ts';
import { mssForPeer, opened, openPassive } from './handshake.ts';
import { synchronized } from './input.ts';
import type { Segment } from './segment.ts';
import type { TcpStack } from './stack.ts';
import { NO_HANDLERS, type Tcb } from './tcb.ts';
import { scaleForLargest } from './window.ts';

export class Listener implements TcpListener {
  readonly port: number;
  /** Four words of the address; null: any. */
  readonly address: Int32Array | null;
  /** Any address, but of IPv4: who binds to 0.0.0.0 does not expect the other family. */
  readonly isIpv4Only: boolean;
  readonly #stack: TcpStack;
  readonly #options: ListenOptions;
  readonly #backlog: number;
  readonly #handshakes = new Set<Tcb>();
  readonly #facts = new CookieFacts();
  /** Until then an ACK may bring a cookie back. */
  #cookiesUntilMs = Number.NEGATIVE_INFINITY;
  readonly #onClose: (listener: Listener) => void;
  isClosed = false;

  constructor(
    stack: TcpStack,
    options: ListenOptions,
    port: number,
    address: Int32Array | null,
    onClose: (listener: Listener) => void,
  ) {
    this.#stack = stack;
    this.#options = options;
    this.port = port;
    this.address = address;
    this.isIpv4Only = options.address === '0.0.0.0';
    this.#onClose = onClose;
    this.#backlog = Math.min(options.backlog ?? NET_LIMITS.tcpBacklog, NET_LIMITS.tcpBacklogMax);
  }

  get pending(): number {
    return this.#handshakes.size;
  }

  /** A segment for this port that belongs to no connection. `iss`: where a flow out of TIME-WAIT goes on; 0: anywhere. */
  receive(segment: Segment, iss: number): void {
    const stack = this.#stack;
    if (segment.has(wire.RST)) {
      stack.counters.tcpUnexpected++;
    } else if (segment.has(wire.ACK_FLAG)) {
      this.#receiveAck(segment);
    } else if (!segment.has(wire.SYN) || segment.has(wire.FIN)) {
      stack.counters.tcpUnexpected++;
    } else if (this.#handshakes.size >= this.#backlog) {
      this.#cookiesUntilMs = stack.link.nowMs + 2 * NET_LIMITS.tcpCookieMs;
      sendCookie(stack, segment, mssForPeer(stack, segment.flow), scaleForLargest());
    } else {
      this.#receiveSyn(segment, iss);
    }
  }

  #receiveSyn(segment: Segment, iss: number): void {
    const stack = this.#stack;
    const id = stack.insertFlow(segment.flow, 0, segment.ports);
    if (id === NO_FLOW) return;
    const tcb = openPassive(stack, id, segment, iss);
    tcb.listener = this;
    this.#handshakes.add(tcb);
    stack.wantOutput(tcb);
  }

  /** Either a cookie comes back, or it belongs to nothing. */
  #receiveAck(segment: Segment): void {
    const stack = this.#stack;
    const facts = this.#facts;
    const mayBe = stack.link.nowMs <= this.#cookiesUntilMs && !segment.has(wire.SYN);
    if (!mayBe || !checkCookie(stack, segment, facts)) {
      if (mayBe) stack.counters.tcpCookiesBad++;
      stack.reset(segment);
      return;
    }
    const id = stack.insertFlow(segment.flow, 0, segment.ports);
    if (id === NO_FLOW) return;
    stack.counters.tcpCookiesAccepted++;
    const tcb = opened(stack, id, segment, facts);
    this.accept(tcb);
    if (tcb.state !== TCP_STATE.closed) synchronized(tcb, segment);
  }

  /** The handshake is done: the connection gets its owner. */
  accept(tcb: Tcb): void {
    this.#handshakes.delete(tcb);
    tcb.listener = null;
    this.#stack.counters.tcpAccepts++;
    const handlers = this.#options.onConnection(tcb);
    // Its owner may have broken it off in this call already, when nobody could be told.
    const isUntold = tcb.state === TCP_STATE.closed && tcb.handlers === NO_HANDLERS;
    tcb.handlers = handlers;
    if (isUntold) handlers.onClose?.(tcb, TCP_END.aborted);
  }

  /** A handshake came to nothing. */
  lost(tcb: Tcb): void {
    this.#handshakes.delete(tcb);
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#onClose(this);
    for (const tcb of this.#handshakes) {
      if (tcb.state === TCP_STATE.synReceived) sendReset(tcb);
      destroy(tcb, TCP_END.aborted);
    }
  }
}
