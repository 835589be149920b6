/** Two stacks joined by a pipe, driven by a clock of their own: every test of whole conversations starts from here. */
import assert from 'node:assert/strict';
import { type FaultOptions, withFault } from '../../src/device/fault.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { createPipe, type PipeOptions } from '../../src/device/pipe.ts';
import { NetInterface, type NetOptions } from '../../src/net/interface.ts';
import type { TcpConnection, TcpEnd, TcpHandlers } from '../../src/net/tcp/api.ts';
import { PEER, US } from './frames.ts';

export interface PairOptions {
  readonly pipe?: PipeOptions;
  readonly faults?: FaultOptions;
  readonly a?: Partial<NetOptions>;
  readonly b?: Partial<NetOptions>;
}

const SECRET_A = Int32Array.of(1, 2, 3, 4);
const SECRET_B = Int32Array.of(5, 6, 7, 8);

export class TcpPair {
  readonly a: NetInterface;
  readonly b: NetInterface;
  readonly queueA: NicQueue;
  readonly queueB: NicQueue;
  nowMs = 1000;
  readonly #free: readonly [number, number];

  constructor(options: PairOptions = {}) {
    const { a, b } = createPipe(options.pipe);
    this.queueA = options.faults === undefined ? a : withFault(a, options.faults);
    this.queueB = b;
    const common = { prefix: 24 };
    this.a = new NetInterface({
      queue: this.queueA,
      mac: US.mac,
      address: US.ip,
      secret: SECRET_A,
      ...common,
      ...options.a,
    });
    this.b = new NetInterface({
      queue: this.queueB,
      mac: PEER.mac,
      address: PEER.ip,
      secret: SECRET_B,
      ...common,
      ...options.b,
    });
    this.a.setNeighbour(PEER.ip, PEER.mac);
    this.b.setNeighbour(US.ip, US.mac);
    this.#free = [this.queueA.framesAvailable, this.queueB.framesAvailable];
  }

  /** Turns of both until neither has work, with the time standing still; at most `max`. */
  settle(max = 10_000): void {
    for (let i = 0; i < max; i++) {
      const work = this.a.poll(this.nowMs) + this.b.poll(this.nowMs);
      if (work === 0) return;
    }
    throw new Error('the stacks never come to rest');
  }

  /** Let time pass in steps of the next timer, until `until` holds or `ms` have gone. */
  run(ms: number, until: () => boolean = () => false): void {
    const end = this.nowMs + ms;
    for (;;) {
      this.settle();
      if (until() || this.nowMs >= end) return;
      const next = Math.min(this.a.nextTimerMs, this.b.nextTimerMs, end);
      this.nowMs = Math.min(end, Math.max(this.nowMs + 1, Math.ceil(next)));
    }
  }

  /** Every frame is back in its pool, or with the device to receive into. */
  assertNothingLost(): void {
    this.settle();
    for (let i = 0; i < 8; i++) {
      this.a.poll(this.nowMs);
      this.b.poll(this.nowMs);
    }
    assert.deepEqual(
      [this.queueA.framesAvailable, this.queueB.framesAvailable],
      this.#free,
      'frames are accounted for',
    );
  }
}

/** What happened on one end, in order. */
export class End implements TcpHandlers {
  connection: TcpConnection | null = null;
  readonly events: string[] = [];
  readonly chunks: Buffer[] = [];
  bytes = 0;
  closed: TcpEnd | null = null;
  isOpen = false;
  readonly #u8: Uint8Array;

  constructor(u8: Uint8Array) {
    this.#u8 = u8;
  }

  onOpen(connection: TcpConnection): void {
    this.connection = connection;
    this.isOpen = true;
    this.events.push('open');
  }
  onData(_connection: TcpConnection, _frame: number, at: number, length: number): void {
    this.chunks.push(Buffer.from(this.#u8.slice(at, at + length)));
    this.bytes += length;
  }
  onEnd(_connection: TcpConnection): void {
    this.events.push('end');
  }
  onDrain(_connection: TcpConnection): void {
    this.events.push('drain');
  }
  onFlushed(_connection: TcpConnection): void {
    this.events.push('flushed');
  }
  onClose(_connection: TcpConnection, why: TcpEnd): void {
    this.closed = why;
    this.events.push(`close ${why}`);
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }
}
