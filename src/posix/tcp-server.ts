/**
 * A listening handle: connections that the stack accepts wait here until the program is told of them, outside of the
 * stack. One that listens on every address also takes what this program itself connects to 127.0.0.1.
 */
import { AsyncResource } from 'node:async_hooks';
import type { Tcp, TcpConnection, TcpHandlers, TcpListener } from '../net/tcp/api.ts';
import { isAny, type Part } from './attachments.ts';
import { errnoOf } from './errors.ts';
import type { Ready } from './host.ts';
import { newSocketHandle, type TcpHandle } from './node.ts';
import { type ByteSource, TcpStream } from './tcp-stream.ts';

/** Where a handle is bound; `port` 0: any. */
export interface Binding {
  readonly address: string;
  readonly port: number;
  readonly isIpv6: boolean;
}

/** What makes a fresh handle the handle of a stream. */
export type Adopt = (handle: TcpHandle, stream: TcpStream) => void;

export class TcpServer implements Ready {
  isReady = false;
  readonly binding: Binding;
  readonly #parts: readonly Part[];
  readonly #adopt: Adopt;
  readonly #handle: TcpHandle;
  readonly #scope = new AsyncResource('ARRAKISTCPSERVER');
  readonly #waiting: TcpStream[] = [];
  readonly #listeners: TcpListener[] = [];
  #isRef = true;
  #isCounted = false;
  #isClosed = false;

  /** Listens on every one of `parts`. */
  constructor(parts: readonly Part[], handle: TcpHandle, binding: Binding, adopt: Adopt) {
    this.#parts = parts;
    this.#adopt = adopt;
    this.#handle = handle;
    this.binding = binding;
  }

  get port(): number {
    return this.#listeners[0]?.port ?? this.binding.port;
  }

  get isRef(): boolean {
    return this.#isRef;
  }

  /** Take connections; 0 or an errno. */
  listen(backlog: number): number {
    try {
      for (const part of this.#parts) {
        this.#listenOn(part, part.host.net.tcp, backlog, part.source);
        this.#listenOn(part, part.local, backlog, part.local);
        part.host.changed();
      }
    } catch (error) {
      this.#closeListeners();
      return errnoOf(error);
    }
    this.#settle();
    return 0;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeListeners();
    // Nobody will be told of them.
    for (const stream of this.#waiting.splice(0)) stream.reset();
    this.#settle();
  }

  ref(): void {
    this.#isRef = true;
    this.#settle();
  }

  unref(): void {
    this.#isRef = false;
    this.#settle();
  }

  /** Tell the program of connections. */
  deliver(): void {
    const { host } = this.#parts[0]!;
    try {
      while (!this.#isClosed) {
        const stream = this.#waiting.shift();
        if (stream === undefined) break;
        const client = newSocketHandle();
        this.#adopt(client, stream);
        host.call(this.#scope, this.#handle.onconnection!, this.#handle, 0, client);
      }
    } finally {
      if (this.#waiting.length > 0) host.ready(this);
    }
  }

  #listenOn(part: Part, tcp: Tcp, backlog: number, source: ByteSource): void {
    const listener = tcp.listen({
      port: this.port,
      ...(isAny(this.binding.address) ? {} : { address: part.host.routes.text }),
      backlog,
      onConnection: (connection) => this.#accept(part, connection, source),
    });
    this.#listeners.push(listener);
  }

  #accept({ host }: Part, connection: TcpConnection, source: ByteSource): TcpHandlers {
    const stream = this.#scope.runInAsyncScope(
      () => new TcpStream(host, source, this.binding.isIpv6),
    );
    stream.accepted(connection);
    this.#waiting.push(stream);
    host.ready(this);
    return stream;
  }

  #closeListeners(): void {
    for (const listener of this.#listeners) listener.close();
  }

  #settle(): void {
    const isActive = this.#isRef && !this.#isClosed;
    if (isActive === this.#isCounted) return;
    this.#isCounted = isActive;
    this.#parts[0]!.host.keep(isActive ? 1 : -1);
  }
}
