import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cpuTimeNs, monotonicMs, monotonicUs32, processClock, threadClock } from './clock.ts';

test('both clocks run as performance.now does', async () => {
  const [ms, us, reference] = [monotonicMs(), monotonicUs32(), performance.now()];
  await new Promise((resolve) => setTimeout(resolve, 50));
  const elapsedMs = performance.now() - reference;
  assert.ok(Math.abs(monotonicMs() - ms - elapsedMs) <= 5);
  assert.ok(Math.abs(((monotonicUs32() - us) | 0) / 1000 - elapsedMs) <= 5);
  assert.ok(Number.isInteger(ms) && Number.isInteger(us));
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
