/** The sender's half over a path that drops, reorders, duplicates and delays, in virtual time. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Random } from '../../../test/support/random.ts';
import { type PathOptions, runPath } from '../../../test/support/tcp-path.ts';
import type { CongestionControl } from './congestion.ts';
import { BETA, C, Cubic } from './cubic.ts';
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

const KINDS: readonly (readonly [string, () => CongestionControl])[] = [
  ['cubic', () => new Cubic()],
  ['newreno', () => new NewReno()],
];

describe('throughput', () => {
  for (const [name, make] of KINDS) {
    test(`${name} fills a link of 100 Mbit/s whose queue holds what is under way`, () => {
      const r = runPath({ congestion: make(), total: 40_000_000, queueBytes: 250_000 });
      const share = r.bytesPerSecond / (12_500_000 * (1448 / 1500));
      assert.ok(share > 0.9, `${share} of the link`);
      assert.equal(r.counters.timeouts, 0);
    });

    test(`${name} fills it too when one in fifty packets is overtaken`, () => {
      const reordered = { reorder: 20_000, reorderUs: 3000, queueBytes: 250_000 };
      const r = runPath({ congestion: make(), total: 40_000_000, ...reordered });
      const share = r.bytesPerSecond / (12_500_000 * (1448 / 1500));
      assert.ok(share > 0.9, `${share} of the link`);
      const spurious = r.counters.retransmits - r.dropped;
      assert.ok(spurious < 10, `${spurious} retransmissions for nothing`);
    });
  }

  /** Average window, in segments, that one loss for each `every` allows: Mathis et al. for Reno. */
  const reno = (every: number): number => Math.sqrt(1.5 * every);

  /**
   * The same for CUBIC, by its curve round trip by round trip (RFC 9438, section 4.2), with what the closed form of
   * section 5.2 leaves out: the round trip until a loss is seen, and the one of recovery at the threshold.
   */
  const cubic = (every: number, rtt: number): number => {
    let wMax = 100;
    let average = 0;
    for (let cycle = 0; cycle < 50; cycle++) {
      const k = Math.cbrt((wMax * (1 - BETA)) / C);
      let sent = BETA * wMax;
      let rounds = 1;
      let lossAt = -1;
      for (let w = BETA * wMax; lossAt < 0 || rounds <= lossAt + 1; rounds++) {
        sent += w;
        if (lossAt < 0 && sent >= every) lossAt = rounds;
        average = sent / (rounds + 1);
        w = Math.max(w, C * (rounds * rtt - k) ** 3 + wMax);
        if (lossAt === rounds) wMax = w;
      }
    }
    return average;
  };
  const unlimited = { bytesPerSecond: 1.25e9, queueBytes: 1e7, windowBytes: 50e6, delayAckUs: 0 };
  for (const [name, make, every, delayUs, segments] of [
    ['newreno', KINDS[1]![1], 1000, 10_000, reno(1000)],
    ['newreno', KINDS[1]![1], 2000, 10_000, reno(2000)],
    ['cubic', KINDS[0]![1], 1000, 200_000, cubic(1000, 0.4)],
    ['cubic', KINDS[0]![1], 2000, 200_000, cubic(2000, 0.4)],
  ] as const) {
    for (const hasSack of [true, false]) {
      const peer = hasSack ? 'SACK' : 'no SACK';
      test(`${name}, one lost in ${every}, ${2 * (delayUs / 1000)} ms, ${peer}`, () => {
        const total = 30 * every * 1448;
        const lossy = { lossEvery: every, delayUs, total, hasSack, ...unlimited };
        const r = runPath({ congestion: make(), ...lossy });
        const share = r.lateBytesPerSecond / ((segments * 1448e6) / (2 * delayUs));
        assert.ok(Math.abs(share - 1) < 0.1, `${share} of the formula`);
      });
    }
  }
});
