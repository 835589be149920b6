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
   * The same for CUBIC over `cycles` after a loss at a window of `wMax`, by its curve round trip by round trip (RFC 9438,
   * section 4.2). The closed form of section 5.2 is where this comes to rest, after hundreds of cycles.
   */
  const cubic = (every: number, rtt: number, start: number, cycles: number): number => {
    let wMax = start;
    let rounds = 0;
    for (let cycle = 0; cycle < cycles; cycle++) {
      const k = Math.cbrt((wMax * (1 - BETA)) / C);
      // The round trip of recovery, then the curve until the loss, and until it is seen.
      let w = BETA * wMax;
      let left = every - w;
      let t = 0;
      for (; left > 0; t += rtt, left -= w) w = Math.max(w, C * (t - k) ** 3 + wMax);
      rounds += 1 + t / rtt + left / w;
      wMax = w;
    }
    return (every * cycles) / rounds;
  };
  const unlimited = { bytesPerSecond: 1.25e9, queueBytes: 1e7, windowBytes: 50e6, delayAckUs: 0 };
  const lossy = (
    every: number,
    delayUs: number,
    hasSack: boolean,
    congestion: CongestionControl,
  ) => {
    const mss = 200;
    const total = 30 * every * mss;
    const r = runPath({ congestion, lossEvery: every, delayUs, hasSack, mss, total, ...unlimited });
    assert.ok(r.counters.retransmits <= r.dropped, 'only what was lost is sent again');
    return (r.lateBytesPerSecond * 2 * delayUs) / 1e6 / mss;
  };
  for (const hasSack of [true, false]) {
    const peer = hasSack ? 'SACK' : 'no SACK';
    for (const every of [1000, 2000]) {
      test(`newreno, one lost in ${every}, ${peer}: as by the formula`, () => {
        const share = lossy(every, 10_000, hasSack, new NewReno()) / reno(every);
        assert.ok(Math.abs(share - 1) < 0.1, `${share} of the formula`);
      });
    }
    for (const every of [1000, 4000]) {
      test(`cubic, one lost in ${every}, ${peer}: as by the curve`, () => {
        const windows: number[] = [];
        class Watched extends Cubic {
          override onLoss(flight: number): void {
            windows.push(this.window / 200);
            super.onLoss(flight);
          }
        }
        const got = lossy(every, 200_000, hasSack, new Watched());
        const share = got / cubic(every, 0.4, windows[15]!, 14);
        assert.ok(Math.abs(share - 1) < 0.1, `${share} of the curve`);
      });
    }
  }
});
