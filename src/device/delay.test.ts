/** When frames arrive behind a long and slow link, on a clock of the test's. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Random } from '../../test/support/random.ts';
import { type DelayOptions, type DelayQueue, withDelay } from './delay.ts';
import { createPipe, type PipeQueue } from './pipe.ts';

const LENGTH = 1000;
const RING = { ringSize: 256, frameCount: 512 };

/** A pipe whose first end is delayed; frames carry their number in the first byte. */
class Lab {
  nowMs = 0;
  readonly a: DelayQueue;
  readonly b: PipeQueue;
  readonly #framesAtStart: number;
  readonly #frames = new Uint32Array(64);
  readonly #lengths = new Uint16Array(64);

  constructor(options: Omit<DelayOptions, 'nowMs'>) {
    const { a, b } = createPipe(RING);
    this.a = withDelay(a, { nowMs: () => this.nowMs, ...options });
    this.b = b;
    this.#framesAtStart = this.a.framesAvailable;
  }

  send(number: number): void {
    const frame = this.a.alloc();
    this.a.memory.u8[frame] = number;
    this.#frames[0] = frame;
    this.#lengths[0] = LENGTH;
    assert.equal(this.a.txBatch(this.#frames, this.#lengths, 1), 1);
    this.a.kick();
    this.a.reclaim(64);
  }

  /** Let the clock run to `nowMs`, from one due time to the next; `[number, ms]` of what arrives. */
  runTo(nowMs: number): [number, number][] {
    const arrivals: [number, number][] = [];
    for (;;) {
      this.a.pass();
      const count = this.b.rxBatch(this.#frames, this.#lengths, 64);
      for (let i = 0; i < count; i++) {
        arrivals.push([this.b.memory.u8[this.#frames[i]!]!, Math.round(this.nowMs)]);
        assert.equal(this.#lengths[i], LENGTH);
        this.b.free(this.#frames[i]!);
      }
      if (this.a.nextDueMs > nowMs) break;
      this.nowMs = this.a.nextDueMs;
    }
    this.nowMs = nowMs;
    return arrivals;
  }

  /** Every buffer is back. */
  settle(): void {
    while (this.a.reclaim(64) > 0);
    assert.equal(this.a.underWay, 0);
    assert.equal(this.a.framesAvailable, this.#framesAtStart);
  }
}

describe('delay', () => {
  test('a frame arrives after the delay, not before, and its buffer is back at once', () => {
    const lab = new Lab({ delayMs: 50 });
    const before = lab.a.framesAvailable;
    lab.send(1);
    assert.equal(lab.a.framesAvailable, before);
    assert.deepEqual(lab.runTo(49.9), []);
    assert.deepEqual(lab.runTo(60), [[1, 50]]);
    lab.settle();
  });

  test('the rate spaces frames, and a full queue loses the last', () => {
    const lab = new Lab({ delayMs: 10, bytesPerSecond: 100_000, queueBytesMax: 3 * LENGTH });
    for (let i = 0; i < 5; i++) lab.send(i);
    const arrivals = lab.runTo(1000);
    assert.deepEqual(arrivals, [
      [0, 20],
      [1, 30],
      [2, 40],
    ]);
    assert.equal(lab.a.delays.queueFull, 2);
    lab.send(9);
    assert.deepEqual(lab.runTo(2000), [[9, 1020]]);
    lab.settle();
  });

  for (const reorder of [false, true]) {
    test(`jitter ${reorder ? 'lets frames overtake' : 'keeps their order'}`, () => {
      const random = new Random(7);
      const lab = new Lab({
        delayMs: 10,
        jitterMs: 20,
        reorder,
        random: () => random.uint32() / 2 ** 32,
      });
      for (let i = 0; i < 60; i++) {
        lab.send(i);
        lab.nowMs += 1;
      }
      const arrivals = lab.runTo(200);
      assert.equal(arrivals.length, 60);
      for (const [number, ms] of arrivals) assert.ok(ms >= number + 10 && ms <= 200);
      const inOrder = arrivals.every(([number], i) => number === i);
      assert.equal(inOrder, !reorder);
      lab.settle();
    });
  }

  test('more than the link holds is lost; what it holds arrives though the pool is empty', () => {
    const lab = new Lab({ delayMs: 10, framesMax: 40, ownFrames: 16 });
    for (let i = 0; i < 42; i++) lab.send(i);
    assert.equal(lab.a.delays.linkFull, 2);
    const taken: number[] = [];
    while (lab.a.framesAvailable > 0) taken.push(lab.a.alloc());
    const arrived = lab.runTo(20).length;
    assert.ok(arrived >= 16, 'as many as it has buffers at once');
    assert.equal(lab.a.delays.noFrame, 40 - arrived);
    for (const frame of taken) lab.a.free(frame);
    lab.settle();
  });

  test('without buffers of its own and with an empty pool, what is due is lost', () => {
    const lab = new Lab({ delayMs: 10 });
    for (let i = 0; i < 3; i++) lab.send(i);
    const taken: number[] = [];
    while (lab.a.framesAvailable > 0) taken.push(lab.a.alloc());
    assert.deepEqual(lab.runTo(20), []);
    assert.equal(lab.a.delays.noFrame, 3);
    for (const frame of taken) lab.a.free(frame);
    lab.settle();
  });

  test('what is no frame is refused as by the wrapped queue', () => {
    const lab = new Lab({ delayMs: 10 });
    const frame = lab.a.alloc();
    assert.equal(lab.a.txBatch(Uint32Array.of(frame), Uint16Array.of(4), 1), 1);
    assert.equal(lab.a.counters.txDropped, 1);
    assert.equal(lab.a.delays.accepted, 0);
    lab.settle();
  });
});
