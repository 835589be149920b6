/**
 * What applications do with one connection: write with pauses or all at once, read with pauses, keep frames, close one
 * direction before the other, or break off. Every byte that is read is compared with what was to be written.
 */
import assert from 'node:assert/strict';
import { NO_FRAME } from '../../../src/device/nic.ts';
import {
  TCP_END,
  TCP_PAYLOAD_OFFSET,
  type TcpConnection,
  type TcpEnd,
  type TcpHandlers,
} from '../../../src/net/tcp/api.ts';
import type { SimHost, World } from './world.ts';

export interface SidePlan {
  /** Bytes to send. */
  readonly bytes: number;
  readonly chunk: number;
  readonly how: 'write' | 'frames';
  /** Of a write: how likely, out of 1, and for how long at most. */
  readonly writePause: number;
  readonly readPause: number;
  readonly holds: number;
  readonly pauseMs: number;
  readonly noDelay: boolean;
  /** Close our direction only after the peer has closed his. */
  readonly endsLast: boolean;
  /** Break off after so many bytes were sent; -1: never. */
  readonly abortAfter: number;
}

export interface FlowPlan {
  readonly id: number;
  /** Who connects. */
  readonly fromA: boolean;
  readonly startMs: number;
  readonly client: SidePlan;
  readonly server: SidePlan;
}

const byteAt = (id: number, direction: number, offset: number): number =>
  (Math.imul(offset, 31) + (offset >>> 8) * 13 + id * 7 + direction * 101) & 255;

/** One end of a connection, and its application. */
export class Side {
  readonly plan: SidePlan;
  readonly #world: World;
  readonly #host: SimHost;
  readonly #id: number;
  /** 0 for what the client sends, 1 for the server. */
  readonly #direction: number;
  readonly #expectedBytes: number;
  readonly #changed: () => void;
  sent = 0;
  received = 0;
  ended = false;
  closedAs: TcpEnd | null = null;
  connection: TcpConnection | null = null;
  #isPausing = false;
  #endCalled = false;
  readonly #scratch: Uint8Array;
  readonly handlers: TcpHandlers;

  constructor(world: World, host: SimHost, flow: FlowPlan, isClient: boolean, changed: () => void) {
    this.#world = world;
    this.#host = host;
    this.#id = flow.id;
    this.#direction = isClient ? 0 : 1;
    this.plan = isClient ? flow.client : flow.server;
    this.#expectedBytes = (isClient ? flow.server : flow.client).bytes;
    this.#changed = changed;
    this.#scratch = new Uint8Array(this.plan.chunk);
    this.handlers = {
      onOpen: (connection) => this.start(connection),
      onData: (_connection, frame, at, length) => this.#read(frame, at, length),
      onEnd: () => this.#atEnd(),
      onDrain: () => this.#fill(),
      onClose: (_connection, why) => this.#atClose(why),
    };
  }

  get isOver(): boolean {
    return this.closedAs !== null;
  }

  /** Everything came and went, and it was closed in order. */
  get isWhole(): boolean {
    return (
      this.closedAs === TCP_END.closed &&
      this.ended &&
      this.received === this.#expectedBytes &&
      this.sent === this.plan.bytes
    );
  }

  start(connection: TcpConnection): void {
    this.connection = connection;
    connection.noDelay = this.plan.noDelay;
    // Whoever breaks off may not be heard: a peer with nothing to say must ask.
    connection.setKeepAlive(20_000, 5_000, 10);
    this.#fill();
  }

  describe(): string {
    const { connection } = this;
    const state = connection === null ? 'none' : `${connection.state}`;
    const { bytes } = this.plan;
    return `sent ${this.sent}/${bytes} received ${this.received}/${this.#expectedBytes} ended ${this.ended} closed ${this.closedAs} state ${state}`;
  }

  #fill(): void {
    const { connection, plan } = this;
    if (connection === null || this.#isPausing || this.#endCalled) return;
    while (this.sent < plan.bytes) {
      if (this.#breaksOff()) return;
      const wanted = Math.min(plan.chunk, plan.bytes - this.sent);
      const took = plan.how === 'write' ? this.#write(connection, wanted) : this.#send(connection);
      this.sent += took;
      this.#changed();
      if (took < wanted && (plan.how === 'write' || took === 0)) return;
      if (this.#happens(plan.writePause)) {
        this.#pauseWriting();
        return;
      }
    }
    if (this.#breaksOff()) return;
    if (!plan.endsLast || this.ended) this.#end();
  }

  #breaksOff(): boolean {
    const { abortAfter } = this.plan;
    if (abortAfter < 0 || this.sent < abortAfter) return false;
    this.connection?.abort();
    return true;
  }

  #end(): void {
    this.#endCalled = true;
    this.connection?.end();
  }

  #write(connection: TcpConnection, wanted: number): number {
    for (let i = 0; i < wanted; i++) {
      this.#scratch[i] = byteAt(this.#id, this.#direction, this.sent + i);
    }
    const took = connection.write(this.#scratch, 0, wanted, this.#happens(0.1));
    assert.ok(took >= 0 && took <= wanted);
    return took;
  }

  #send(connection: TcpConnection): number {
    const frame = connection.alloc();
    if (frame === NO_FRAME) return 0;
    const most = Math.min(connection.payloadMax, this.plan.bytes - this.sent, this.plan.chunk);
    const { u8 } = this.#host.queue.memory;
    for (let i = 0; i < most; i++) {
      u8[frame + TCP_PAYLOAD_OFFSET + i] = byteAt(this.#id, this.#direction, this.sent + i);
    }
    connection.send(frame, most);
    return most;
  }

  #pauseWriting(): void {
    this.#isPausing = true;
    this.#later(() => {
      this.#isPausing = false;
      this.#fill();
    });
  }

  #read(frame: number, at: number, length: number): void {
    assert.ok(length > 0 && this.received + length <= this.#expectedBytes, 'no more than was sent');
    assert.equal(this.ended, false, 'no data after the end');
    this.#compare(at, length, this.received);
    this.received += length;
    this.#changed();
    const { connection } = this;
    if (this.#happens(this.plan.holds)) this.#hold(frame, at, length);
    if (this.#happens(this.plan.readPause)) {
      connection!.pause();
      this.#later(() => this.connection?.resume());
    }
  }

  /** Keep the frame for a while: nobody may write to it meanwhile. */
  #hold(frame: number, at: number, length: number): void {
    const connection = this.connection!;
    const from = this.received - length;
    connection.hold(frame);
    this.#later(() => {
      this.#compare(at, length, from);
      connection.release(frame, length);
    }, true);
  }

  #compare(at: number, length: number, from: number): void {
    const { u8 } = this.#host.queue.memory;
    for (let i = 0; i < length; i++) {
      const expected = byteAt(this.#id, 1 - this.#direction, from + i);
      if (u8[at + i] !== expected)
        assert.fail(`byte ${from + i} is ${u8[at + i]}, not ${expected}`);
    }
  }

  #atEnd(): void {
    assert.equal(this.ended, false, 'the end comes once');
    assert.equal(this.received, this.#expectedBytes, 'the end comes after everything');
    this.ended = true;
    this.#changed();
    this.#fill();
  }

  #atClose(why: TcpEnd): void {
    assert.equal(this.closedAs, null, 'it closes once');
    this.closedAs = why;
    this.connection = null;
    this.#changed();
  }

  /** `always`: also when the connection is over by then. */
  #later(body: () => void, always = false): void {
    const ms = this.#world.random.below(this.plan.pauseMs + 1);
    this.#world.clock.after(ms, () => {
      if (always || this.connection !== null) body();
    });
  }

  #happens(rate: number): boolean {
    return rate > 0 && this.#world.random.uint32() / 2 ** 32 < rate;
  }
}
