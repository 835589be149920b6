import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BURST_US } from '../device/rate.ts';
import { Pacer, pacerOf, QueueLimits } from './rate.ts';

const limit = (bitsPerSecond: number | null, packetsPerSecond: number | null = null) => ({
  bitsPerSecond,
  packetsPerSecond,
});

function admit(pacer: Pacer, length: number): boolean {
  if (!pacer.open) return false;
  pacer.charge(length);
  return true;
}

/** Frames of `length` that a greedy sender gets through in `seconds`, looking every `stepUs`. */
function greedy(
  pacer: Pacer,
  length: number,
  seconds: number,
  stepUs: number,
  beginUs = 0,
): number {
  let frames = 0;
  for (let us = 0; us < seconds * 1e6; us += stepUs) {
    pacer.advance((beginUs + us) | 0);
    while (admit(pacer, length)) frames++;
  }
  return frames;
}

test('a greedy sender gets its rate, whatever the frame and however often it is looked at', () => {
  for (const bits of [64_000, 1e6, 100e6, 10e9]) {
    for (const length of [64, 1514]) {
      for (const stepUs of [1, 50, 1000, 9000]) {
        const seconds = bits < 1e6 ? 20 : bits > 1e9 ? 0.05 : 1;
        const frames = greedy(new Pacer(limit(bits), 0), length, seconds, stepUs);
        const expected = (bits * seconds) / (length * 8);
        const slack = 1 + (stepUs / 1e6 / seconds) * expected;
        assert.ok(Math.abs(frames - expected) <= slack, `${bits} ${length} ${stepUs}: ${frames}`);
      }
    }
  }
});

test('packets a second count frames of any length alike', () => {
  for (const length of [64, 1514]) {
    assert.ok(Math.abs(greedy(new Pacer(limit(null, 50_000), 0), length, 1, 100) - 50_000) <= 6);
  }
});

test('under both limits neither is exceeded', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1000, max: 1e9 }),
      fc.integer({ min: 1, max: 1e6 }),
      fc.array(
        fc.record({
          pauseUs: fc.integer({ min: 0, max: 50_000 }),
          length: fc.integer({ min: 14, max: 9000 }),
        }),
        {
          maxLength: 200,
        },
      ),
      (bits, packets, arrivals) => {
        const pacer = new Pacer(limit(bits, packets), 0);
        let us = 0;
        let bytes = 0;
        let frames = 0;
        for (const { pauseUs, length } of arrivals) {
          us += pauseUs;
          pacer.advance(us | 0);
          // What is in the bucket at most, and the one frame that goes beyond it.
          if (admit(pacer, length)) {
            assert.ok(bytes * 8 <= (bits * (us + BURST_US)) / 1e6 + 1e-3);
            assert.ok(frames <= (packets * (us + BURST_US)) / 1e6 + 1e-3);
            bytes += length;
            frames++;
          }
        }
      },
    ),
  );
});

test('it opens exactly when it says', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1000, max: 1e9 }),
      fc.integer({ min: -0x80000000, max: 0x7fffffff }),
      (bits, beginUs) => {
        const pacer = new Pacer(limit(bits), beginUs);
        assert.ok(admit(pacer, 1514));
        const wait = pacer.waitUs;
        assert.ok(wait > 0 && !pacer.open);
        pacer.advance((beginUs + wait - 1) | 0);
        assert.equal(pacer.open, false);
        pacer.advance((beginUs + wait) | 0);
        assert.equal(pacer.open, true);
        assert.equal(pacer.waitUs, 0);
      },
    ),
  );
});

test('after a pause one burst comes at once, after a long one no more', () => {
  for (const pauseUs of [BURST_US, 1e6, 0x7fffffff]) {
    const pacer = new Pacer(limit(8e6), 0);
    pacer.advance(pauseUs | 0);
    let bytes = 0;
    while (admit(pacer, 100)) bytes += 100;
    assert.equal(bytes, BURST_US + 100);
  }
});

test('the clock may wrap', () => {
  const begin = 0x7fffffff - 500_000;
  const frames = greedy(new Pacer(limit(8e6), begin), 1000, 1, 100, begin);
  assert.ok(Math.abs(frames - 1000) <= 1, `${frames}`);
});

test('room is what closes it', () => {
  const pacer = new Pacer(limit(8e6), 0);
  assert.equal(pacer.roomBytes, 1, 'one frame, whatever its length');
  pacer.advance(700);
  assert.equal(pacer.roomBytes, 701);
  pacer.charge(700);
  assert.ok(pacer.open);
  pacer.charge(1);
  assert.equal(pacer.roomBytes, 0);
  assert.equal(new Pacer(limit(null, 5), 0).roomBytes, 2 ** 30);
});

test('a limit that is set again keeps what is owed', () => {
  const pacer = pacerOf(limit(1000), 0, null)!;
  pacer.charge(1000);
  assert.equal(pacerOf(limit(1000), 5, pacer), pacer);
  assert.equal(pacerOf(limit(null), 5, pacer), null);
});

test('who changes a limit to and fro gets no more than the higher of the two', () => {
  let pacer = pacerOf(limit(1e6), 0, null)!;
  let bytes = 0;
  for (let us = 0; us < 1e6; us += 1000) {
    pacer = pacerOf(limit((us / 1000) % 2 === 0 ? 999_000 : 1e6), us, pacer)!;
    pacer.advance(us);
    while (admit(pacer, 1500)) bytes += 1500;
  }
  assert.ok(bytes <= 1e6 / 8 + 2 * 1500, `${bytes}`);
});

test('a queue is held by its own limit and by that of its VNIC, which the queues share', () => {
  const shared = new Pacer(limit(8e6), 0);
  const queues = [new QueueLimits(), new QueueLimits()];
  assert.equal(queues[0]!.isSet, false);
  for (const queue of queues) queue.share(shared);
  queues[0]!.set(limit(2e6), 0);
  const bytes = [0, 0];
  for (let us = 0; us < 1e6; us += 100) {
    queues.forEach((queue, i) => {
      while (queue.admit(1000, us)) bytes[i]! += 1000;
    });
  }
  assert.ok(Math.abs(bytes[0]! + bytes[1]! - 1e6) <= 2000, `${bytes}`);
  assert.ok(bytes[0]! <= 251_000, `${bytes}`);
  for (const queue of queues) queue.share(null);
  assert.deepEqual(
    queues.map((queue) => queue.isSet),
    [true, false],
  );
  queues[0]!.set(limit(null), 0);
  assert.equal(queues[0]!.isSet, false);
});
