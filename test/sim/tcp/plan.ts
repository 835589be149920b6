/** A whole run from one number: the link, the hosts' memory, and what every connection does. */
import type { Random } from '../../support/random.ts';
import type { FlowPlan, SidePlan } from './flow.ts';
import type { LinkPlan } from './world.ts';

export interface RunPlan {
  readonly link: LinkPlan;
  readonly flows: readonly FlowPlan[];
}

/** Bytes of all connections together, so that a run stays short whatever comes together. */
const BYTES_MAX = 400_000;

function sidePlan(random: Random, bytesMax: number): SidePlan {
  const sizes = [0, 1, 100, 1460, 5000, 20_000, 60_000, 200_000];
  const bytes = Math.min(random.pick(sizes), bytesMax);
  return {
    bytes,
    chunk: random.pick([1 + random.below(100), 536, 1460, 4000, 16_384]),
    how: random.pick(['write', 'write', 'frames']),
    writePause: random.pick([0, 0, 0.05, 0.5]),
    readPause: random.pick([0, 0, 0.02, 0.2]),
    holds: random.pick([0, 0, 0.1]),
    pauseMs: random.pick([1, 20, 300, 3000]),
    noDelay: random.oneIn(2),
    endsLast: false,
    abortAfter: -1,
  };
}

function flowPlan(random: Random, id: number, bytesMax: number): FlowPlan {
  let client = sidePlan(random, bytesMax);
  let server = sidePlan(random, bytesMax);
  // One side may wait for the other's end; if both did, it would be for ever.
  if (random.oneIn(3)) client = { ...client, endsLast: true };
  else if (random.oneIn(2)) server = { ...server, endsLast: true };
  if (random.oneIn(20)) client = { ...client, abortAfter: random.below(client.bytes + 1) };
  if (random.oneIn(20)) server = { ...server, abortAfter: random.below(server.bytes + 1) };
  const startMs = random.pick([0, 0, random.below(1000), random.below(20_000)]);
  return { id, fromA: random.oneIn(2), startMs, client, server };
}

export function runPlan(random: Random): RunPlan {
  const isHarsh = random.oneIn(3);
  const rate = (...rates: number[]) => random.pick(isHarsh ? rates : [0, rates[0]!]);
  const link: LinkPlan = {
    faults: {
      drop: rate(0.005, 0.01, 0.03, 0.1),
      corrupt: rate(0.002, 0.01, 0.03),
      duplicate: rate(0.01, 0.05, 0.2),
      reorder: rate(0.01, 0.05, 0.3),
      truncate: rate(0.002, 0.01),
    },
    delay: {
      delayMs: random.pick([0, 0.05, 1, 10, 40, 150]),
      jitterMs: random.pick([0, 0, 0.5, 10]),
      reorder: random.oneIn(3),
      bytesPerSecond: random.pick([0, 0, 50_000, 1_000_000, 12_500_000]),
      queueBytesMax: random.pick([10_000, 50_000, 1_000_000]),
    },
    frames: random.pick([96, 256, 1024]),
    mtu: random.pick([1500, 1500, 1500, 576, 300]),
  };
  const count = random.pick([1, 1, 2, 3, 8, 24]);
  const bytesMax = Math.floor(BYTES_MAX / count);
  const flows = Array.from({ length: count }, (_, id) => flowPlan(random, id, bytesMax));
  return { link, flows };
}
