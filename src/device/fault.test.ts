import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Random } from '../../test/support/random.ts';
import { type FaultOptions, withFault } from './fault.ts';
import { NIC_STATE, type NicQueue } from './nic.ts';
import { createPipe } from './pipe.ts';

/** Uniform in [0, 1): the same numbers for the same seed. */
function randomOf(seed: number): () => number {
  const random = new Random(seed);
  return () => random.uint32() / 2 ** 32;
}

function link(faults: Omit<FaultOptions, 'random'>, seed = 1) {
  const ends = createPipe({ ringSize: 64, frameCount: 256 });
  const a = withFault(ends.a, { random: randomOf(seed), ...faults });
  return { a, b: ends.b, whole: ends.a.framesAvailable };
}

const frames = new Uint32Array(64);
const lengths = new Uint16Array(64);

/** Send `count` numbered frames of 100 bytes, as far as ring and pool go: how many were accepted. */
function send(queue: NicQueue, first: number, count: number): number {
  let made = 0;
  for (; made < count && queue.framesAvailable > 0; made++) {
    const frame = queue.alloc();
    queue.memory.view.setUint32(frame, first + made);
    queue.memory.u8.fill(0x55, frame + 4, frame + 100);
    frames[made] = frame;
    lengths[made] = 100;
  }
  const taken = queue.txBatch(frames, lengths, made);
  for (let i = taken; i < made; i++) queue.free(frames[i]!);
  queue.kick();
  return taken;
}

/** Receive everything that is there: number, length and flipped bits of each. */
function receive(queue: NicQueue): { number: number; length: number; flipped: number }[] {
  const got: { number: number; length: number; flipped: number }[] = [];
  for (let turn = 0; turn < 16; turn++) {
    const count = queue.rxBatch(frames, lengths, 64);
    for (let i = 0; i < count; i++) {
      const [frame, length] = [frames[i]!, lengths[i]!];
      let flipped = 0;
      for (let at = frame + 4; at < frame + length; at++) {
        for (let diff = queue.memory.u8[at]! ^ 0x55; diff > 0; diff &= diff - 1) flipped++;
      }
      got.push({ number: queue.memory.view.getUint32(frame), length, flipped });
      queue.free(frame);
    }
  }
  return got;
}

/** `total` frames in bursts from one end to the other, then silence; what arrived. */
function traffic(from: NicQueue, to: NicQueue, total: number) {
  const got: ReturnType<typeof receive> = [];
  let sent = 0;
  let reclaimed = 0;
  for (let turn = 0; turn < total * 4 && sent < total; turn++) {
    sent += send(from, sent, Math.min(10, total - sent));
    reclaimed += from.reclaim(64);
    got.push(...receive(to));
  }
  for (let turn = 0; turn < 64; turn++) {
    from.kick();
    reclaimed += from.reclaim(64);
    got.push(...receive(to));
  }
  assert.equal(sent, total);
  assert.equal(reclaimed, total, 'as many come back as were sent, lost ones too');
  return got;
}

const DIRECTIONS = ['tx', 'rx'] as const;

/** Run `faults` on frames that the faulty end sends, or receives. Nothing may leak in either. */
function run(direction: 'tx' | 'rx', faults: Omit<FaultOptions, 'random'>, total = 2000) {
  const { a, b, whole } = link({ [direction]: faults });
  const got = direction === 'tx' ? traffic(a, b, total) : traffic(b, a, total);
  assert.equal(a.framesAvailable, whole, 'every frame of the faulty end is back');
  assert.equal(b.framesAvailable, whole, 'every frame of the other end is back');
  const { counters } = a;
  assert.equal(direction === 'tx' ? counters.rxPackets : counters.txPackets, 0);
  return { got, faults: direction === 'tx' ? a.txFaults : a.rxFaults };
}

for (const direction of DIRECTIONS) {
  describe(`faults, ${direction}`, () => {
    test('drop 1: nothing arrives and nothing leaks', () => {
      const { got, faults } = run(direction, { drop: 1 });
      assert.equal(got.length, 0);
      assert.equal(faults.dropped, 2000);
    });

    test('drop 0.25 loses about a quarter, and the rest is in order', () => {
      const { got, faults } = run(direction, { drop: 0.25 });
      assert.equal(got.length + faults.dropped, 2000);
      assert.ok(faults.dropped > 400 && faults.dropped < 600);
      assert.ok(got.every(({ number }, i) => i === 0 || number > got[i - 1]!.number));
    });

    test('corrupt 1 flips exactly one bit', () => {
      const { got } = run(direction, { corrupt: 1 });
      assert.equal(got.length, 2000);
      // A flip in the number itself does not show in the pattern.
      assert.ok(got.every(({ flipped, length }) => flipped <= 1 && length === 100));
      assert.ok(got.filter(({ flipped }) => flipped === 1).length > 1800);
    });

    test('truncate 1 shortens, down to an Ethernet header', () => {
      const { got } = run(direction, { truncate: 1 });
      assert.equal(got.length, 2000);
      assert.ok(got.every(({ length }) => length >= 14 && length < 100));
    });

    test('duplicate 0.5 delivers copies, all intact', () => {
      const { got, faults } = run(direction, { duplicate: 0.5 });
      assert.equal(got.length, 2000 + faults.duplicated);
      assert.ok(faults.duplicated > 500);
      assert.ok(got.every(({ flipped, length }) => flipped === 0 && length === 100));
      assert.equal(new Set(got.map(({ number }) => number)).size, 2000);
    });

    test('reorder 0.2 delivers everything once, in another order', () => {
      const { got, faults } = run(direction, { reorder: 0.2 });
      assert.ok(faults.reordered > 200);
      assert.equal(new Set(got.map(({ number }) => number)).size, 2000);
      assert.equal(got.length, 2000);
      assert.ok(got.some(({ number }, i) => i > 0 && number < got[i - 1]!.number));
    });

    test('everything at once leaks nothing, for many seeds', () => {
      const rates = { drop: 0.2, corrupt: 0.2, duplicate: 0.3, reorder: 0.3, truncate: 0.2 };
      for (let seed = 0; seed < 20; seed++) {
        const { a, b, whole } = link({ [direction]: rates }, seed);
        if (direction === 'tx') traffic(a, b, 500);
        else traffic(b, a, 500);
        assert.deepEqual([a.framesAvailable, b.framesAvailable], [whole, whole], `seed ${seed}`);
      }
    });
  });
}

describe('faults', () => {
  test('one seed is one run', () => {
    const rates = { drop: 0.3, duplicate: 0.3, reorder: 0.3, corrupt: 0.3 };
    const [first, second] = [1, 2].map(() => {
      const { a, b } = link(rates, 42);
      return traffic(a, b, 300);
    });
    assert.deepEqual(first, second);
  });

  test('an empty pool makes no duplicates, and takes nothing from the caller', () => {
    const { a, b } = link({ tx: { duplicate: 1 } });
    const held: number[] = [];
    while (a.framesAvailable > 1) held.push(a.alloc());
    assert.equal(send(a, 0, 1), 1);
    assert.equal(a.txFaults.duplicated, 0);
    assert.equal(receive(b).length, 1);
    for (const frame of held) a.free(frame);
  });

  test('the last frame is not held for ever', () => {
    const { a, b } = link({ tx: { reorder: 1 } });
    send(a, 7, 1);
    assert.equal(receive(b).length, 0);
    a.reclaim(64);
    assert.deepEqual(
      receive(b).map(({ number }) => number),
      [7],
    );
  });

  test('arm refuses while a received frame is held', () => {
    const { a, b } = link({ rx: { reorder: 1 } });
    send(b, 0, 1);
    assert.equal(a.rxBatch(frames, lengths, 64), 0);
    assert.equal(a.arm(), false);
    assert.equal(a.rxBatch(frames, lengths, 64), 1);
    a.free(frames[0]!);
    assert.equal(a.arm(), true);
  });

  test('a closed queue gives nothing, held frames included', () => {
    const { a, b } = link({ rx: { reorder: 1 }, tx: { reorder: 1 } });
    send(b, 0, 1);
    a.rxBatch(frames, lengths, 64);
    send(a, 0, 1);
    a.close();
    assert.equal(a.state, NIC_STATE.closed);
    assert.equal(a.rxBatch(frames, lengths, 64), 0);
    assert.equal(a.txBatch(frames, lengths, 1), 0);
    assert.equal(a.reclaim(64), 0);
  });

  test('a handle outside the region is refused, not damaged', () => {
    const { a } = link({ tx: { corrupt: 1, drop: 1 } });
    frames[0] = 0xffffff00;
    lengths[0] = 60;
    assert.equal(a.txBatch(frames, lengths, 1), 1);
    assert.equal(a.counters.txDropped, 1);
    assert.equal(a.txFaults.dropped, 0);
  });
});
