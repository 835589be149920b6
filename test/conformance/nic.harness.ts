/**
 * What the cases of nic.suite.ts are written with: an end of a pair that counts what it holds, and bounded waits.
 *
 * - Every wait polls both queues, lets the device work (`settle`) and the event loop turn, and ends at a deadline.
 * - Frames that are not the suite's (neighbour discovery on a real link) are freed and forgotten.
 */
import assert from 'node:assert/strict';
import { NIC_STATE, type NicQueue, NO_FRAME } from '../../src/device/nic.ts';
import { type PairAddresses, type Side, testFrameSequence, writeTestFrame } from './udp-frame.ts';

export type { PairAddresses, Side } from './udp-frame.ts';

/** Two queues that can talk to each other. */
export interface NicPair {
  readonly a: NicQueue;
  readonly b: NicQueue;
  readonly addresses: PairAddresses;
  /** In place of the default frames, which have `addresses` and UDP ports. Both or none. */
  makeFrame?(u8: Uint8Array, at: number, length: number, from: Side, sequence: number): void;
  /** Sequence number of a frame that `makeFrame` made for `from`; -1 for others. */
  sequenceOf?(u8: Uint8Array, at: number, length: number, from: Side): number;
  /** Let the device move what is in its rings. A device with a thread or process of its own needs none. */
  settle?(): Promise<void>;
  /** Close both queues, where still open, and everything round them. */
  close(): Promise<void>;
}

export const BATCH = 64;
/** Quiet turns after which nothing is expected to come any more, and the time they take at least. */
const QUIET_TURNS = 20;

/** A received frame, taken out of the region. */
export interface Arrival {
  readonly sequence: number;
  readonly bytes: Buffer;
}

export class Harness {
  readonly pair: NicPair;
  readonly waitMs: number;
  readonly #quietMs: number;
  readonly #frames = new Uint32Array(BATCH);
  readonly #lengths = new Uint16Array(BATCH);
  #sequence = 0;

  constructor(pair: NicPair, waitMs: number, quietMs: number) {
    this.pair = pair;
    this.waitMs = waitMs;
    this.#quietMs = quietMs;
  }

  queue(side: Side): NicQueue {
    return this.pair[side];
  }

  /** A number that no frame of this run had. */
  nextSequence(): number {
    return this.#sequence++;
  }

  write(u8: Uint8Array, at: number, length: number, from: Side, sequence: number): void {
    if (this.pair.makeFrame !== undefined) this.pair.makeFrame(u8, at, length, from, sequence);
    else writeTestFrame(u8, at, length, this.pair.addresses, from, sequence);
  }

  sequenceOf(u8: Uint8Array, at: number, length: number, from: Side): number {
    return this.pair.sequenceOf === undefined
      ? testFrameSequence(u8, at, length, from)
      : this.pair.sequenceOf(u8, at, length, from);
  }

  /** The bytes that frame `sequence` must have. */
  expected(length: number, from: Side, sequence: number): Buffer {
    const bytes = Buffer.alloc(length);
    this.write(bytes, 0, length, from, sequence);
    return bytes;
  }

  /** A frame from the pool, filled; `shift` moves its start within the buffer. It must not run out. */
  make(from: Side, length: number, sequence: number, shift = 0): number {
    const queue = this.queue(from);
    const frame = queue.alloc();
    assert.notEqual(frame, NO_FRAME, `${from} has a free frame`);
    this.write(queue.memory.u8, frame + shift, length, from, sequence);
    return frame + shift;
  }

  /** Offer frames to txBatch: how many of them it took. The caller still owns the rest. */
  offer(from: Side, frames: readonly number[], lengths: readonly number[]): number {
    return this.queue(from).txBatch(
      Uint32Array.from(frames),
      Uint16Array.from(lengths),
      frames.length,
    );
  }

  /** Receive at most one batch, copy the test frames out, and free (or keep in `kept`) everything. */
  receive(side: Side, arrivals: Arrival[], kept?: number[]): number {
    const queue = this.queue(side);
    const count = queue.rxBatch(this.#frames, this.#lengths, BATCH);
    assert.ok(count >= 0 && count <= BATCH, 'rxBatch returns a count');
    const { u8 } = queue.memory;
    for (let i = 0; i < count; i++) {
      const frame = this.#frames[i]!;
      const length = this.#lengths[i]!;
      assert.ok(frame + length <= u8.length, 'a received frame lies in the region');
      assert.ok(length >= 14 && length <= queue.frameLengthMax, 'its length is a frame length');
      const sequence = this.sequenceOf(u8, frame, length, side === 'a' ? 'b' : 'a');
      if (sequence >= 0) {
        arrivals.push({ sequence, bytes: Buffer.from(u8.subarray(frame, frame + length)) });
      }
      if (kept === undefined) queue.free(frame);
      else kept.push(frame);
    }
    return count;
  }

  /** One turn of both loops: ring, let the device work, take back what was sent. */
  async turn(): Promise<void> {
    const { a, b } = this.pair;
    a.kick();
    b.kick();
    await this.pair.settle?.();
    a.reclaim(1024);
    b.reclaim(1024);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }

  /** Turn until `done`, failing with `what` when the time is over. */
  async until(what: string, done: () => boolean): Promise<void> {
    const deadline = Date.now() + this.waitMs;
    while (!done()) {
      assert.ok(Date.now() < deadline, `in time: ${what}`);
      await this.turn();
    }
  }

  /** Turn until `step` had nothing to do for a while; the bound is the wait time. */
  async quiet(step: () => boolean): Promise<void> {
    const deadline = Date.now() + this.waitMs;
    let quietSince = Date.now();
    for (let turns = 0; turns < QUIET_TURNS || Date.now() - quietSince < this.#quietMs; turns++) {
      assert.ok(Date.now() < deadline, 'in time: the link falls silent');
      await this.turn();
      if (step()) {
        turns = 0;
        quietSince = Date.now();
      }
    }
  }

  /** Receive and free everything, at both ends, until nothing comes any more. */
  async drain(): Promise<void> {
    await this.quiet(() => this.receive('a', []) + this.receive('b', []) > 0);
  }

  /** Every frame is back: waits until both pools have `baseline` frames again. */
  async accounted(baseline: { a: number; b: number }): Promise<void> {
    const { a, b } = this.pair;
    const sink: Arrival[] = [];
    await this.until(`a has ${baseline.a} frames, b ${baseline.b}`, () => {
      this.receive('a', sink);
      this.receive('b', sink);
      return a.framesAvailable === baseline.a && b.framesAvailable === baseline.b;
    }).catch((error: Error) => {
      error.message += ` (a has ${a.framesAvailable}, b ${b.framesAvailable})`;
      throw error;
    });
    assert.equal(a.state, NIC_STATE.up);
    assert.equal(b.state, NIC_STATE.up);
  }

  /**
   * Send one frame for each of `lengths`, at most `window` under way, and return what arrived, in order. Where frames
   * get lost the wait ends with silence when `lossy`, and fails otherwise.
   */
  async exchange(
    from: Side,
    lengths: readonly number[],
    options: { window?: number; lossy?: boolean; shift?: number } = {},
  ): Promise<{ first: number; arrivals: Arrival[] }> {
    const { window = BATCH, lossy = false, shift = 0 } = options;
    const to = from === 'a' ? 'b' : 'a';
    const first = this.#sequence;
    const arrivals: Arrival[] = [];
    let sent = 0;
    const step = (): boolean => {
      const before = sent + arrivals.length;
      const room = lossy ? BATCH : window - (sent - arrivals.length);
      sent += this.#sendSome(from, lengths.slice(sent, sent + Math.max(0, room)), shift);
      this.receive(to, arrivals);
      return sent + arrivals.length > before;
    };
    if (lossy) {
      await this.quiet(step);
      assert.equal(sent, lengths.length, 'everything was sent');
    } else {
      await this.until(`${lengths.length} frames of ${from} arrive`, () => {
        step();
        return arrivals.length >= lengths.length;
      });
    }
    return { first, arrivals };
  }

  /** Make and send frames of `lengths` until the pool or the ring has no more room: how many. */
  #sendSome(from: Side, lengths: readonly number[], shift: number): number {
    const queue = this.queue(from);
    let sent = 0;
    for (const length of lengths) {
      if (queue.framesAvailable === 0) break;
      const frame = this.make(from, length, this.#sequence, shift);
      if (this.offer(from, [frame], [length]) === 0) {
        queue.free(frame);
        break;
      }
      this.#sequence++;
      sent++;
    }
    return sent;
  }
}
