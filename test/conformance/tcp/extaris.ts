/**
 * Extaris as the subject, on a pipe in memory and on virtual time, which goes from one timer to the next. A case ends
 * with a look at what is left: no connection, no timer, and every frame back in the pool.
 */
import assert from 'node:assert/strict';
import { formatIpv4 } from '../../../src/base/address.ts';
import { createPipe, type PipeQueue } from '../../../src/device/pipe.ts';
import { NetInterface } from '../../../src/net/interface.ts';
import {
  TCP_END,
  type TcpConnection,
  type TcpEnd,
  type TcpHandlers,
  type TcpListener,
} from '../../../src/net/tcp/api.ts';
import { type Host, PEER, US } from '../../support/frames.ts';
import type { Failure, Listener, Socket, Subject } from './subject.ts';

const START_MS = 10_000;
const PORT = 2000;
const PEER_PORT = 20_000;
/** Turns at one moment: what a frame or a timer sets off is done by then. */
const TURNS_MAX = 1000;
/** Longer than any timer of a connection that is over. */
const AFTERLIFE_MS = 600_000;

const FAILURES: Readonly<Record<TcpEnd, Failure | null>> = {
  [TCP_END.closed]: null,
  [TCP_END.reset]: 'reset',
  [TCP_END.refused]: 'refused',
  [TCP_END.timedOut]: 'timedOut',
  [TCP_END.unreachable]: 'unreachable',
  [TCP_END.aborted]: 'aborted',
  [TCP_END.gone]: 'gone',
  [TCP_END.noMemory]: 'noMemory',
};

class ExtarisSocket implements Socket {
  received = new Uint8Array(0);
  ended = false;
  isOpen = false;
  failure: Failure | null = null;
  readonly handlers: TcpHandlers;
  connection: TcpConnection | null = null;
  readonly #act: (body: () => void) => void;

  constructor(queue: PipeQueue, act: (body: () => void) => void) {
    this.#act = act;
    this.handlers = {
      onOpen: () => {
        this.isOpen = true;
      },
      onData: (_connection, _frame, at, length) => {
        const bytes = queue.memory.u8.slice(at, at + length);
        this.received = Buffer.concat([this.received, bytes]);
      },
      onEnd: () => {
        assert.equal(this.ended, false, 'onEnd is called once');
        this.ended = true;
      },
      onClose: (_connection, why) => {
        assert.notEqual(this.connection, null, 'onClose is called once');
        this.failure ??= FAILURES[why];
        this.connection = null;
      },
    };
  }

  write(bytes: Uint8Array): number {
    let taken = 0;
    this.#with((connection) => {
      taken = connection.write(bytes, 0, bytes.length);
    });
    return taken;
  }

  pause(): void {
    this.#with((connection) => connection.pause());
  }

  resume(): void {
    this.#with((connection) => connection.resume());
  }

  end(): void {
    this.#with((connection) => connection.end());
  }

  abort(): void {
    this.#with((connection) => connection.abort());
  }

  noDelay(on: boolean): void {
    this.#with((connection) => {
      connection.noDelay = on;
    });
  }

  keepAlive(idleS: number, intervalS: number, probes: number): void {
    this.#with((connection) => {
      connection.setKeepAlive(idleS * 1000, intervalS * 1000, probes);
    });
  }

  userTimeout(ms: number): void {
    this.#with((connection) => {
      connection.userTimeoutMs = ms;
    });
  }

  #with(body: (connection: TcpConnection) => void): void {
    const { connection } = this;
    if (connection !== null) this.#act(() => body(connection));
  }
}

class ExtarisListener implements Listener {
  readonly accepted: ExtarisSocket[] = [];
  listener: TcpListener | null = null;

  close(): void {
    this.listener?.close();
  }
}

export class ExtarisSubject implements Subject {
  readonly name = 'extaris';
  readonly port = PORT;
  readonly peerPort = PEER_PORT;
  readonly peer: Host = PEER;
  nowMs = START_MS;
  arrivalMs: readonly [number, number] = [0, 0];
  readonly net: NetInterface;
  readonly #wire: PipeQueue;
  readonly #queue: PipeQueue;
  readonly #inbox: { frame: Uint8Array; ms: number }[] = [];
  readonly #sockets: ExtarisSocket[] = [];
  readonly #listeners: ExtarisListener[] = [];
  readonly #frames = new Uint32Array(64);
  readonly #lengths = new Uint16Array(64);
  readonly #framesAtStart: number;

  constructor() {
    const { a, b } = createPipe({ ringSize: 512, headroom: 64 });
    this.#wire = a;
    this.#queue = b;
    this.#framesAtStart = b.framesAvailable;
    const secret = Int32Array.of(1, 2, 3, 4);
    this.net = new NetInterface({ queue: b, mac: US.mac, address: US.ip, prefix: 24, secret });
    this.net.setNeighbour(PEER.ip, PEER.mac);
  }

  listen(options: { backlog?: number } = {}): Listener {
    const listener = new ExtarisListener();
    listener.listener = this.net.tcp.listen({
      port: PORT,
      ...options,
      onConnection: (connection) => {
        const socket = this.#newSocket();
        socket.connection = connection;
        socket.isOpen = true;
        listener.accepted.push(socket);
        return socket.handlers;
      },
    });
    this.#listeners.push(listener);
    return listener;
  }

  connect(): Socket {
    const socket = this.#newSocket();
    socket.connection = this.net.tcp.connect({
      address: formatIpv4(PEER.ip),
      port: PEER_PORT,
      localPort: PORT,
      handlers: socket.handlers,
    });
    this.#settle();
    return socket;
  }

  send(bytes: Uint8Array): void {
    const frame = this.#wire.alloc();
    this.#wire.memory.u8.set(bytes, frame);
    this.#frames[0] = frame;
    this.#lengths[0] = bytes.length;
    assert.equal(this.#wire.txBatch(this.#frames, this.#lengths, 1), 1);
    this.#wire.kick();
    this.#wire.reclaim(64);
    this.#settle();
  }

  async next(untilMs: number): Promise<Uint8Array | null> {
    while (this.#inbox.length === 0) if (!this.#advance(untilMs)) return null;
    const { frame, ms } = this.#inbox.shift()!;
    this.arrivalMs = [ms, ms];
    return frame;
  }

  async pass(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    while (this.#advance(untilMs));
  }

  async finish(): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    for (const socket of this.#sockets) socket.abort();
    this.#settle();
    const untilMs = this.nowMs + AFTERLIFE_MS;
    while (this.net.nextTimerMs < untilMs) this.#advance(untilMs);
    assert.equal(this.net.nextTimerMs, Number.POSITIVE_INFINITY, 'no timer is left');
    assert.equal(this.net.tcp.connectionCount, 0, 'no connection is left');
    assert.equal(this.#queue.framesAvailable, this.#framesAtStart, 'every frame is back');
    this.net.close();
  }

  #newSocket(): ExtarisSocket {
    const socket = new ExtarisSocket(this.#queue, (body) => {
      body();
      this.#settle();
    });
    this.#sockets.push(socket);
    return socket;
  }

  /** To the next timer, or to `untilMs`: false when that time has come. */
  #advance(untilMs: number): boolean {
    this.#settle();
    if (this.nowMs >= untilMs) return false;
    this.nowMs = Math.min(untilMs, Math.max(this.nowMs, this.net.nextTimerMs));
    this.#settle();
    return true;
  }

  /** Turn until nothing is left to do at this moment, and take what was sent. */
  #settle(): void {
    for (let turn = 0; ; turn++) {
      assert.ok(turn < TURNS_MAX, 'the stack comes to rest');
      const work = this.net.poll(this.nowMs);
      const count = this.#wire.rxBatch(this.#frames, this.#lengths, 64);
      for (let i = 0; i < count; i++) {
        const at = this.#frames[i]!;
        const frame = this.#wire.memory.u8.slice(at, at + this.#lengths[i]!);
        this.#inbox.push({ frame, ms: this.nowMs });
        this.#wire.free(at);
      }
      if (work + count === 0 && this.net.nextTimerMs > this.nowMs) return;
    }
  }
}
