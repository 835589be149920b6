import assert from 'node:assert/strict';
import { test } from 'node:test';
import { monotonicMs, monotonicUs32 } from './clock.ts';

test('both clocks run as performance.now does', async () => {
  const [ms, us, reference] = [monotonicMs(), monotonicUs32(), performance.now()];
  await new Promise((resolve) => setTimeout(resolve, 50));
  const elapsedMs = performance.now() - reference;
  assert.ok(Math.abs(monotonicMs() - ms - elapsedMs) <= 5);
  assert.ok(Math.abs(((monotonicUs32() - us) | 0) / 1000 - elapsedMs) <= 5);
  assert.ok(Number.isInteger(ms) && Number.isInteger(us));
});
