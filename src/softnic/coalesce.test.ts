import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Coalescer } from './coalesce.ts';

test('a ring waits its time, counted from the first frame', () => {
  const bell = new Coalescer({ usecs: 50, frames: 0 });
  assert.equal(bell.waitUs(0), -1);
  bell.add(1, true, 100);
  assert.equal(bell.waitUs(100), 50);
  assert.equal(bell.take(149), false);
  bell.add(1, true, 149);
  assert.equal(bell.waitUs(149), 1);
  assert.equal(bell.take(150), true);
  assert.equal(bell.take(150), false, 'once');
  assert.equal(bell.waitUs(150), -1);
});

test('enough frames ring at once', () => {
  const bell = new Coalescer({ usecs: 1000, frames: 4 });
  bell.add(3, true, 0);
  assert.equal(bell.take(0), false);
  bell.add(1, false, 1);
  assert.equal(bell.take(1), true);
  bell.add(3, true, 2);
  assert.equal(bell.take(2), false, 'it counts from zero again');
});

test('a driver that polls is not rung', () => {
  const bell = new Coalescer({ usecs: 10, frames: 1 });
  bell.add(5, false, 0);
  assert.equal(bell.take(1000), false);
});

test('no wish is forgotten, and none waits longer than its time, also over a wrap of the clock', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 1000 }),
      fc.integer({ min: 0, max: 16 }),
      fc.integer({ min: -0x80000000, max: 0x7fffffff }),
      fc.array(
        fc.record({
          pauseUs: fc.integer({ min: 0, max: 400 }),
          count: fc.integer({ min: 1, max: 8 }),
          wanted: fc.boolean(),
        }),
      ),
      (usecs, frames, beginUs, steps) => {
        const bell = new Coalescer({ usecs, frames });
        let us = 0;
        let owedSince = -1;
        for (const { pauseUs, count, wanted } of steps) {
          // The loop sleeps no longer than it is told to.
          const wait = bell.waitUs((beginUs + us) | 0);
          us += wait < 0 ? pauseUs : Math.min(pauseUs, wait);
          bell.add(count, wanted, (beginUs + us) | 0);
          if (wanted && owedSince < 0) owedSince = us;
          if (bell.take((beginUs + us) | 0)) {
            assert.ok(owedSince >= 0, 'rung for a wish');
            owedSince = -1;
          }
          assert.ok(owedSince < 0 || us - owedSince < usecs, 'not late');
        }
      },
    ),
  );
});
