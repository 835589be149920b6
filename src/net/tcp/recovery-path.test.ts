/** The sender's half over a path that drops, reorders, duplicates and delays, in virtual time. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Random } from '../../../test/support/random.ts';
import { type PathOptions, type PathResult, runPath } from '../../../test/support/tcp-path.ts';
import { Cubic } from './cubic.ts';
import { NewReno } from './new-reno.ts';

const SEEDS = Number(process.env.ARRAKIS_TCP_SEEDS ?? 2000);

/** A path for every seed: each impairment is absent in some. */
function optionsOf(seed: number): Partial<PathOptions> & Pick<PathOptions, 'congestion'> {
  const random = new Random(seed);
  const mss = random.pick([536, 1220, 1448]);
  const delayUs = random.pick([20, 500, 5_000, 40_000, 150_000]);
  return {
    seed,
    congestion: random.pick([() => new Cubic(), () => new NewReno()])(),
    iss: random.pick([1, 0x7fffffff - 20_000, -20_000, random.uint32()]) | 0,
    mss,
    total: 1 + random.below(120_000),
    bytesPerSecond: random.pick([50_000, 1_000_000, 12_500_000, 1_250_000_000]),
    queueBytes: random.pick([4_000, 30_000, 300_000]),
    delayUs,
    loss: random.pick([0, 0, 1_000, 20_000, 100_000, 300_000]),
    ackLoss: random.pick([0, 0, 20_000, 200_000]),
    reorder: random.pick([0, 0, 10_000, 200_000]),
    reorderUs: random.pick([10, delayUs, 4 * delayUs + 1000]),
    duplicate: random.pick([0, 0, 10_000, 300_000]),
    burstBytes: random.pick([0, 0, 3_000, 20_000]),
    pauseUs: random.pick([100, 50_000, 2_000_000]),
    pacingBytesPerSecond: random.pick([0, 0, 0, 100_000]),
    windowBytes: random.pick([4_000, 65_535, 4_000_000]),
    hasSack: !random.oneIn(4),
    hasDsack: !random.oneIn(3),
    hasTimestamps: !random.oneIn(3),
    delayAckUs: random.pick([0, 1_000, 40_000, 200_000]),
    timeMaxUs: 7_200_000_000,
  };
}

test(`${SEEDS} paths: everything arrives, and every frame comes back`, () => {
  const only = process.env.ARRAKIS_TCP_SEED;
  const failed: string[] = [];
  for (let seed = 1; seed <= SEEDS && failed.length < 5; seed++) {
    if (only !== undefined && Number(only) !== seed) continue;
    try {
      runPath(optionsOf(seed));
    } catch (error) {
      failed.push(`ARRAKIS_TCP_SEED=${seed}: ${(error as Error).stack}`);
    }
  }
  assert.deepEqual(failed, []);
});

describe('throughput', () => {
  const of = (options: Parameters<typeof runPath>[0]): PathResult => runPath(options);
  for (const [name, make] of [
    ['cubic', () => new Cubic()],
    ['newreno', () => new NewReno()],
  ] as const) {
    test(`${name} fills a link of 100 Mbit/s with a queue of one product`, () => {
      const r = of({ congestion: make(), total: 60_000_000, queueBytes: 250_000 });
      const goodput = r.bytesPerSecond / (12_500_000 * (1448 / 1500));
      assert.ok(goodput > 0.9, `${goodput} of the link`);
    });
  }
});
