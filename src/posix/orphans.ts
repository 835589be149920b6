/**
 * Connections that the program closed: what was written is sent, and the peer's FIN awaited, as a kernel does behind a
 * program's back.
 *
 * - Data that still comes has no reader any more, and is answered by RST (RFC 1122, section 4.2.2.13).
 * - The process stays for them until everything is acknowledged, LINGER_MS at most; the connection itself ORPHAN_MS.
 */
import type { TcpConnection, TcpEnd, TcpHandlers } from '../net/tcp/api.ts';
import type { Host, Parting } from './host.ts';

const LINGER_MS = 5_000;
/** As of Linux' `tcp_fin_timeout`. */
const ORPHAN_MS = 60_000;
/** How often it is looked whose time has come. */
const LOOK_MS = 1_000;
/** Beyond it the oldest is reset: a peer must not make us keep connections by never closing. */
const ORPHANS_MAX = 16_384;

interface Orphan {
  readonly sinceMs: number;
  /** Keeps the process alive. */
  isAwaited: boolean;
}

export class Orphans implements TcpHandlers, Parting {
  readonly #host: Host;
  /** In the order of their closing. */
  readonly #all = new Map<TcpConnection, Orphan>();
  /** Had data after the program closed them. */
  readonly #unread: TcpConnection[] = [];
  #awaited = 0;
  /** When `expire` has something to do; Infinity without connections. */
  nextMs = Number.POSITIVE_INFINITY;

  constructor(host: Host) {
    this.#host = host;
  }

  get count(): number {
    return this.#all.size;
  }

  /** Close `connection` in order, and see it off. */
  adopt(connection: TcpConnection): void {
    const sinceMs = this.#host.nowMs();
    this.#all.set(connection, { sinceMs, isAwaited: true });
    if (this.#all.size === 1) this.nextMs = sinceMs + LOOK_MS;
    this.#awaited++;
    this.#host.keep(1);
    connection.handlers = this;
    // A stream that was stopped had its window closed, and would not hear of the FIN.
    connection.resume();
    connection.end();
    if (this.#all.size > ORPHANS_MAX) this.#oldest()?.abort();
    this.#host.changed();
  }

  onData(connection: TcpConnection): void {
    this.#unread.push(connection);
  }

  onFlushed(connection: TcpConnection): void {
    this.#noLongerAwait(this.#all.get(connection));
  }

  onClose(connection: TcpConnection, _why: TcpEnd): void {
    this.#noLongerAwait(this.#all.get(connection));
    this.#all.delete(connection);
  }

  /** Called once a turn, outside of the stack: reset what had its time. */
  expire(): void {
    if (this.#unread.length > 0) this.#resetUnread();
    if (this.#all.size === 0) {
      this.nextMs = Number.POSITIVE_INFINITY;
      return;
    }
    const nowMs = this.#host.nowMs();
    if (nowMs < this.nextMs) return;
    this.nextMs = nowMs + LOOK_MS;
    if (this.#awaited > 0) this.#stopWaiting(nowMs - LINGER_MS);
    for (const [connection, { sinceMs }] of this.#all) {
      if (sinceMs + ORPHAN_MS > nowMs) break;
      connection.abort();
    }
  }

  #resetUnread(): void {
    for (const connection of this.#unread.splice(0)) {
      if (this.#all.has(connection)) connection.abort();
    }
  }

  part(): boolean {
    for (const { unacked } of this.#all.keys()) if (unacked > 0) return false;
    return true;
  }

  breakOff(): void {
    for (const connection of [...this.#all.keys()]) connection.abort();
  }

  #oldest(): TcpConnection | undefined {
    for (const connection of this.#all.keys()) return connection;
    return undefined;
  }

  #stopWaiting(beforeMs: number): void {
    for (const orphan of this.#all.values()) {
      if (orphan.sinceMs > beforeMs) break;
      this.#noLongerAwait(orphan);
    }
  }

  #noLongerAwait(orphan: Orphan | undefined): void {
    if (orphan === undefined || !orphan.isAwaited) return;
    orphan.isAwaited = false;
    this.#awaited--;
    this.#host.keep(-1);
  }
}
