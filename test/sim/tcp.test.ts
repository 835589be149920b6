/**
 * Two stacks and a bad link, from one number each: ARRAKIS_SIM_SEEDS=5000 runs more of them, ARRAKIS_SIM_SEED=17 only
 * that one. Every byte is compared, no connection may stand still, and nothing may be left at the end.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runSeed } from './tcp/run.ts';

const SEEDS = Number(process.env.ARRAKIS_SIM_SEEDS ?? 200);
const ONLY = process.env.ARRAKIS_SIM_SEED;
/** Ends by a timeout: chance may lose every retransmission, but seldom. */
const TIMED_OUT_MAX = 0.01;

test('a run is repeated exactly by its seed', () => {
  const seed = Number(ONLY ?? 5);
  assert.deepEqual(runSeed(seed), runSeed(seed));
});

test(`${ONLY === undefined ? `${SEEDS} seeds` : `seed ${ONLY}`}`, { skip: false }, (t) => {
  const first = ONLY === undefined ? 1 : Number(ONLY);
  const last = ONLY === undefined ? SEEDS : first;
  const ends: Record<string, number> = {};
  const failures: Error[] = [];
  let [bytes, retransmits, virtualMs] = [0, 0, 0];
  for (let seed = first; seed <= last; seed++) {
    try {
      const result = runSeed(seed);
      bytes += result.bytes;
      retransmits += result.retransmits;
      virtualMs += result.virtualMs;
      for (const [end, count] of Object.entries(result.ends)) ends[end] = (ends[end] ?? 0) + count;
    } catch (error) {
      failures.push(error as Error);
    }
  }
  t.diagnostic(`${bytes} bytes, ${retransmits} retransmissions, ${virtualMs / 1000} s`);
  t.diagnostic(JSON.stringify(ends));
  if (failures.length > 0) {
    const seeds = failures.map((error) => /SEED=(\d+)/.exec(error.message)?.[1]);
    throw new Error(`${failures.length} failed: ${seeds.join(' ')}\n${failures[0]!.message}`);
  }
  const all = Object.values(ends).reduce((sum, count) => sum + count, 0);
  assert.ok((ends.timedOut ?? 0) <= Math.max(2, all * TIMED_OUT_MAX), 'few time out');
});
