import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cpuTimeNs, monotonicMs, monotonicUs32, processClock, threadClock } from './clock.ts';

/** A reading in milliseconds, with the times of `performance.now` between which it was taken. */
function bracket(read: () => number): { from: number; value: number; to: number } {
  const from = performance.now();
  const value = read();
  return { from, value, to: performance.now() };
}

test('both clocks run as performance.now does', async () => {
  const usAsMs = (): number => monotonicUs32() / 1000;
  const before = [bracket(monotonicMs), bracket(usAsMs)];
  await new Promise((resolve) => setTimeout(resolve, 50));
  const after = [bracket(monotonicMs), bracket(usAsMs)];
  const wrapMs = 2 ** 32 / 1000;
  for (const [i, first] of before.entries()) {
    const second = after[i]!;
    // The difference lies between the shortest and the longest time that can have passed; a millisecond is rounded.
    const elapsed = (((second.value - first.value) % wrapMs) + wrapMs) % wrapMs;
    assert.ok(elapsed >= second.from - first.to - 1, `${elapsed} ms`);
    assert.ok(elapsed <= second.to - first.from + 1, `${elapsed} ms`);
  }
  assert.ok(Number.isInteger(monotonicMs()) && Number.isInteger(monotonicUs32()));
});

test('clocks of processor time count work and no sleep', async () => {
  const clocks = [processClock(process.pid), threadClock(process.pid), threadClock(0)];
  const before = clocks.map(cpuTimeNs);
  const usage = process.cpuUsage();
  const end = performance.now() + 20;
  while (performance.now() < end);
  await new Promise((resolve) => setTimeout(resolve, 200));
  const [whole, main, own] = clocks.map((clock, i) => cpuTimeNs(clock) - before[i]!);
  const { user, system } = process.cpuUsage(usage);
  assert.ok(Math.abs(whole! / 1000 - user - system) < 20_000);
  assert.ok(main! > 0 && main! <= whole! && main! < 200e6, 'the main thread mostly slept');
  assert.ok(Math.abs(own! - main!) < 5e6, 'the main thread has the number of its process');
  assert.throws(() => cpuTimeNs(processClock(2 ** 22 + 1)), { code: 'ARK_SYSCALL' });
});
