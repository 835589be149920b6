/**
 * A TCP port of the host that leads to one of a VNIC: a connection of the kernel's for one of ours, bytes and ends passed
 * on both ways. Whoever is slow slows the other: what finds no room stops the side that it came from.
 */
import net from 'node:net';
import {
  type NetInterface,
  TCP_END,
  type TcpConnection,
  type TcpEnd,
  type TcpHandlers,
} from '../../arrakis/index.ts';
import type { PublishSpec } from './spec.ts';

/** Connections that one port passes on at a time; more are refused. */
const CONNECTIONS_MAX = 4096;
const BACKLOG = 512;

/** What the doors share. */
export interface Way {
  readonly net: NetInterface;
  /** Frame memory of its queue, and the bytes of one of its buffers. */
  readonly u8: Uint8Array;
  readonly frameSize: number;
  /** Of the VNIC to reach. */
  readonly target: string;
  /** Something was queued outside of a turn. */
  wake(): void;
}

export interface Door {
  close(): void;
}

/** Resolves when the port is open; rejects with Node's error, such as EADDRINUSE. */
export async function openTcpDoor(spec: PublishSpec, way: Way): Promise<Door> {
  const bridges = new Set<Bridge>();
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    if (bridges.size >= CONNECTIONS_MAX) {
      socket.resetAndDestroy();
      return;
    }
    const bridge = new Bridge(socket, way, spec.port, () => bridges.delete(bridge));
    bridges.add(bridge);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: spec.address, port: spec.hostPort, backlog: BACKLOG }, resolve);
  });
  // Such as EMFILE: who comes then is refused by the kernel, and the others go on.
  server.on('error', () => {});
  return {
    close() {
      server.close();
      for (const bridge of [...bridges]) bridge.destroy();
    },
  };
}

class Bridge implements TcpHandlers {
  readonly #socket: net.Socket;
  readonly #way: Way;
  readonly #onEnd: () => void;
  readonly #connection: TcpConnection | null;
  /** The end of a chunk that our connection had no room for; the socket is paused meanwhile. */
  #rest: Uint8Array | null = null;
  #isSocketDone = false;
  #isOver = false;

  constructor(socket: net.Socket, way: Way, port: number, onEnd: () => void) {
    this.#socket = socket;
    this.#way = way;
    this.#onEnd = onEnd;
    socket.pause();
    socket.on('data', (chunk: Uint8Array) => this.#fromSocket(chunk));
    socket.on('end', () => this.#onSocketEnd());
    socket.on('drain', () => this.#onSocketDrain());
    socket.on('error', () => {});
    socket.on('close', (hadError) => this.#onSocketClose(hadError));
    this.#connection = this.#connect(port);
    if (this.#connection === null) socket.resetAndDestroy();
  }

  /** Null when the stack has no room for another. */
  #connect(port: number): TcpConnection | null {
    try {
      const { net: stack, target: address } = this.#way;
      const connection = stack.tcp.connect({ address, port, handlers: this });
      connection.noDelay = true;
      this.#way.wake();
      return connection;
    } catch {
      return null;
    }
  }

  destroy(): void {
    this.#socket.destroy();
  }

  // From the VNIC.

  onOpen(): void {
    this.#socket.resume();
  }

  onData(connection: TcpConnection, _frame: number, at: number, length: number): void {
    const bytes = Buffer.from(this.#way.u8.subarray(at, at + length));
    if (!this.#socket.write(bytes)) connection.pause();
  }

  onEnd(): void {
    this.#socket.end();
  }

  onDrain(): void {
    this.#writeRest();
  }

  onClose(_connection: TcpConnection, why: TcpEnd): void {
    this.#isOver = true;
    if (why === TCP_END.closed) this.#socket.end();
    else this.#socket.resetAndDestroy();
  }

  // From the kernel.

  #fromSocket(chunk: Uint8Array): void {
    this.#rest = chunk;
    this.#writeRest();
    this.#way.wake();
  }

  #writeRest(): void {
    const rest = this.#rest;
    if (rest === null || this.#isOver) return;
    const taken = this.#connection!.write(rest, 0, rest.length);
    if (taken < rest.length) {
      this.#rest = rest.subarray(taken);
      this.#socket.pause();
      return;
    }
    this.#rest = null;
    if (this.#isSocketDone) this.#connection!.end();
    else this.#socket.resume();
  }

  #onSocketEnd(): void {
    this.#isSocketDone = true;
    if (this.#rest === null && !this.#isOver) this.#connection?.end();
    this.#way.wake();
  }

  #onSocketDrain(): void {
    if (this.#isOver) return;
    this.#connection?.resume();
    this.#way.wake();
  }

  /** In order, both ends have been passed on by then; otherwise the other side is to know. */
  #onSocketClose(hadError: boolean): void {
    this.#onEnd();
    if (this.#isOver || this.#connection === null) return;
    if (hadError || !this.#isSocketDone) this.#connection.abort();
    this.#way.wake();
  }
}
