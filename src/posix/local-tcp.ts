/**
 * Connections of the program to itself: to 127.0.0.1 and to the VNIC's own address. No packet is made of them; the
 * software NIC would send none back to where it came from.
 *
 * It has the interface of the stack's TCP, and what is written is copied once, into a frame of its own (a number).
 * Nothing happens within a call: what was done is told at the next `poll`.
 */
import { ArrakisError } from '../base/errors.ts';
import {
  type ConnectOptions,
  type ListenOptions,
  TCP_END,
  TCP_STATE,
  type Tcp,
  type TcpConnection,
  type TcpEnd,
  type TcpHandlers,
  type TcpInfo,
  type TcpListener,
  type TcpState,
} from '../net/tcp/api.ts';
import type { ByteSource } from './tcp-stream.ts';

/** Bytes under way in one direction. */
const WINDOW_BYTES = 256 * 1024;
const DYNAMIC_PORT_FIRST = 49_152;
const DYNAMIC_PORTS = 65_536 - DYNAMIC_PORT_FIRST;
const FRAME_MAX = 0x3fffffff;

export class LocalTcp implements Tcp, ByteSource {
  readonly #address: string;
  readonly #listeners = new Map<number, LocalListener>();
  /** Bytes of frames that were handed over and not released. */
  readonly #frames = new Map<number, Uint8Array>();
  #nextFrame = 0;
  #nextPort = 0;
  #events: (() => void)[] = [];
  readonly #wake: () => void;
  connectionCount = 0;

  /** `address`: what both ends of a connection are said to have. `wake` asks for a `poll`. */
  constructor(address: string, wake: () => void) {
    this.#address = address;
    this.#wake = wake;
  }

  /** Whether `port` is listened on at every address, 127.0.0.1 among them. */
  listensOn(port: number): boolean {
    const listener = this.#listeners.get(port);
    return listener !== undefined && listener.options.address === undefined;
  }

  listen(options: ListenOptions): TcpListener {
    const port = options.port === 0 ? this.#freePort() : options.port;
    if (this.#listeners.has(port)) {
      throw new ArrakisError('ARK_IN_USE', `TCP port ${port} is listened on already`);
    }
    const listener = new LocalListener(port, options, () => this.#listeners.delete(port));
    this.#listeners.set(port, listener);
    return listener;
  }

  /** `address` is what the listener is said to have; 127.0.0.1 and ours are the same here. */
  connect(options: ConnectOptions): TcpConnection {
    const { address, port, handlers } = options;
    const localPort = options.localPort ?? this.#freePort();
    const client = new LocalConnection(this, address, localPort, address, port, handlers);
    this.connectionCount++;
    this.later(() => this.#handshake(client));
    return client;
  }

  /** Tell what has happened; how much. */
  poll(): number {
    const events = this.#events;
    if (events.length === 0) return 0;
    this.#events = [];
    for (const event of events) event();
    return events.length;
  }

  later(event: () => void): void {
    this.#events.push(event);
    this.#wake();
  }

  put(bytes: Uint8Array): number {
    do this.#nextFrame = (this.#nextFrame + 1) & FRAME_MAX;
    while (this.#frames.has(this.#nextFrame));
    this.#frames.set(this.#nextFrame, bytes);
    return this.#nextFrame;
  }

  copy(frame: number, at: number, length: number, target: Uint8Array, to: number): void {
    target.set(this.#frames.get(frame)!.subarray(at, at + length), to);
  }

  free(frame: number): void {
    this.#frames.delete(frame);
  }

  #handshake(client: LocalConnection): void {
    if (client.state === TCP_STATE.closed) return;
    const listener = this.#listeners.get(client.remotePort);
    if (listener === undefined) {
      client.over(TCP_END.refused);
      return;
    }
    const { localAddress, localPort, remoteAddress, remotePort } = client;
    const nobody: TcpHandlers = { onData: () => {} };
    const server = new LocalConnection(
      this,
      remoteAddress,
      remotePort,
      localAddress,
      localPort,
      nobody,
    );
    this.connectionCount++;
    client.join(server);
    server.handlers = listener.options.onConnection(server);
    client.handlers.onOpen?.(client);
  }

  #freePort(): number {
    for (let i = 0; i < DYNAMIC_PORTS; i++) {
      const port = DYNAMIC_PORT_FIRST + (this.#nextPort++ % DYNAMIC_PORTS);
      if (!this.#listeners.has(port)) return port;
    }
    throw new ArrakisError('ARK_LIMIT', `no port of ${this.#address} is free`);
  }
}

class LocalListener implements TcpListener {
  readonly port: number;
  readonly options: ListenOptions;
  readonly pending = 0;
  readonly #onClose: () => void;

  constructor(port: number, options: ListenOptions, onClose: () => void) {
    this.port = port;
    this.options = options;
    this.#onClose = onClose;
  }

  close(): void {
    this.#onClose();
  }
}

class LocalConnection implements TcpConnection {
  handlers: TcpHandlers;
  data: unknown = null;
  noDelay = true;
  userTimeoutMs = 0;
  pacingBytesPerSecond = 0;
  state: TcpState = TCP_STATE.synSent;
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly isIpv6 = false;
  readonly payloadMax = WINDOW_BYTES;
  readonly #tcp: LocalTcp;
  #peer: LocalConnection | null = null;
  /** Written here and not released there. */
  unacked = 0;
  #isShort = false;
  #isPaused = false;
  #waiting: Uint8Array[] = [];
  #hasEnded = false;
  #isEndTold = false;

  constructor(
    tcp: LocalTcp,
    localAddress: string,
    localPort: number,
    remoteAddress: string,
    remotePort: number,
    handlers: TcpHandlers,
  ) {
    this.#tcp = tcp;
    this.localAddress = localAddress;
    this.localPort = localPort;
    this.remoteAddress = remoteAddress;
    this.remotePort = remotePort;
    this.handlers = handlers;
  }

  join(peer: LocalConnection): void {
    this.#peer = peer;
    peer.#peer = this;
    this.state = TCP_STATE.established;
    peer.state = TCP_STATE.established;
  }

  get sendRoom(): number {
    return this.#peer === null || this.#hasEnded ? 0 : WINDOW_BYTES - this.unacked;
  }

  write(bytes: Uint8Array, from: number, to: number): number {
    const peer = this.#peer;
    const length = Math.min(to - from, this.sendRoom);
    if (length < to - from) this.#isShort = true;
    if (length === 0 || peer === null) return 0;
    this.unacked += length;
    peer.#waiting.push(Uint8Array.prototype.slice.call(bytes, from, from + length));
    this.#tcp.later(() => peer.#receive());
    return length;
  }

  alloc(): number {
    throw new ArrakisError('ARK_UNSUPPORTED', 'a connection to oneself has no frames');
  }

  send(): void {
    this.alloc();
  }

  forward(): boolean {
    return false;
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#tcp.later(() => this.#receive());
  }

  hold(): void {}

  release(frame: number, length: number): void {
    this.#tcp.free(frame);
    this.#acknowledge(length);
  }

  end(): void {
    if (this.#hasEnded || this.state === TCP_STATE.closed) return;
    this.#hasEnded = true;
    const peer = this.#peer;
    this.#tcp.later(() => {
      this.handlers.onFlushed?.(this);
      if (peer !== null) peer.#receive();
    });
  }

  abort(): void {
    if (this.state === TCP_STATE.closed) return;
    const peer = this.#peer;
    this.over(TCP_END.aborted);
    if (peer !== null) this.#tcp.later(() => peer.over(TCP_END.reset));
  }

  setKeepAlive(): void {}

  get info(): TcpInfo {
    return {
      mss: WINDOW_BYTES,
      srttUs: 0,
      rtoMs: 0,
      congestionWindow: WINDOW_BYTES,
      slowStartThreshold: WINDOW_BYTES,
      sendWindow: WINDOW_BYTES - this.unacked,
      receiveWindow: WINDOW_BYTES,
      bytesSent: 0,
      bytesReceived: 0,
      retransmits: 0,
      congestion: 'none',
    };
  }

  over(why: TcpEnd): void {
    if (this.state === TCP_STATE.closed) return;
    this.state = TCP_STATE.closed;
    this.#tcp.connectionCount--;
    this.handlers.onClose?.(this, why);
  }

  #receive(): void {
    while (!this.#isPaused && this.#waiting.length > 0 && this.state !== TCP_STATE.closed) {
      const bytes = this.#waiting.shift()!;
      const frame = this.#tcp.put(bytes);
      this.handlers.onData(this, frame, 0, bytes.length);
    }
    const peer = this.#peer;
    if (peer === null || !peer.#hasEnded || this.#isEndTold || this.#waiting.length > 0) return;
    this.#isEndTold = true;
    if (this.state !== TCP_STATE.closed) this.handlers.onEnd?.(this);
    this.#closeIfDone();
    peer.#closeIfDone();
  }

  #closeIfDone(): void {
    if (this.#hasEnded && this.#isEndTold) this.over(TCP_END.closed);
  }

  /** The reader of what the peer wrote is done with `length` bytes of it. */
  #acknowledge(length: number): void {
    const peer = this.#peer;
    if (peer === null) return;
    peer.unacked -= length;
    if (!peer.#isShort || peer.sendRoom < WINDOW_BYTES / 2) return;
    peer.#isShort = false;
    this.#tcp.later(() => {
      if (peer.state !== TCP_STATE.closed) peer.handlers.onDrain?.(peer);
    });
  }
}
