/** From slices to rows: medians over repetitions, and prices from slices that were measured side by side. */
import { type BenchRow, median } from '../stats.ts';
import type { SliceResult } from './contest.ts';
import { type Entry, PRICES, type Price } from './contestants.ts';

/** An arrangement's slices, by repetition. */
export interface Measured {
  readonly entry: Entry;
  readonly repetitions: SliceResult[][];
}

const FRAME_BYTES = 64;
/** Below this part of turns without work, the source of the packets was what limited. */
const WAITING_MIN = 0.05;

/** Median of the repetitions' medians, and the lowest and highest of them. */
function spread(repetitions: readonly (readonly number[])[], digits: number) {
  const medians = repetitions.map(median);
  const round = (value: number): number => Math.round(value * 10 ** digits) / 10 ** digits;
  return {
    value: round(median(medians)),
    low: round(Math.min(...medians)),
    high: round(Math.max(...medians)),
  };
}

function boundBy({ system, link }: Entry, waiting: number): string {
  if (link === 'memory') return 'one thread, which is both ends and the wire between them';
  if (system === 'arrakis/af-xdp-switched') {
    return 'one thread: the system calls of both ends, and within them the softirqs and XDP programs';
  }
  return waiting < WAITING_MIN
    ? 'the thread that sends and receives: the software NIC waits for it'
    : 'the software NIC, on a processor of its own';
}

function arrangement({ entry, repetitions }: Measured): BenchRow[] {
  const { system, link, without } = entry;
  const of = (pick: (slice: SliceResult) => number, digits: number) =>
    spread(
      repetitions.map((slices) => slices.map(pick)),
      digits,
    );
  const waiting = of((slice) => slice.waiting, 2).value;
  // Of the worst repetition: it is what the spread is made of.
  const share = of((slice) => slice.share, 2).low;
  const params = { without, frameBytes: FRAME_BYTES, repetitions: repetitions.length };
  const base = { bench: 'protection', system, link, params };
  const rtt = of(({ rttUs }) => rttUs, 3);
  return [
    {
      ...base,
      metric: 'throughput',
      unit: 'packets/s',
      ...of(({ packetsPerSecond }) => packetsPerSecond, 0),
      params: { ...params, waiting, share },
      boundBy: boundBy(entry, waiting),
    },
    { ...base, metric: 'service', unit: 'ns/packet', ...of(({ serviceNs }) => serviceNs, 1) },
    { ...base, metric: 'rtt', unit: 'us', ...rtt, p50: rtt.value },
  ];
}

/** What `base` takes more than `off`: of the device's time for a packet, and of a round trip. */
function priceRows(measured: readonly Measured[], price: Price): BenchRow[] {
  const { system, mechanism, base, off, meets } = price;
  const find = (without: string): Measured | undefined =>
    measured.find(({ entry }) => entry.system === system && entry.without === without);
  const [on, less] = [find(base), find(off)];
  if (on === undefined || less === undefined) return [];
  const differences = (pick: (slice: SliceResult) => number): number[][] =>
    on.repetitions.map((slices, r) =>
      slices.map((slice, i) => pick(slice) - pick(less.repetitions[r]![i]!)),
    );
  const params = { mechanism, frameBytes: FRAME_BYTES, repetitions: on.repetitions.length };
  const row = { bench: 'protection', system, link: on.entry.link, params };
  // The service time is of all packets; the mechanism may meet every second one only.
  const service = differences(({ serviceNs }) => (serviceNs * 2) / meets);
  const rtt = differences(({ rttUs }) => rttUs * 1000);
  return [
    { ...row, metric: 'cost', unit: 'ns/packet', ...spread(service, 1) },
    { ...row, metric: 'rtt cost', unit: 'ns', ...spread(rtt, 0) },
  ];
}

export const rowsOf = (measured: readonly Measured[]): BenchRow[] => [
  ...measured.flatMap(arrangement),
  ...PRICES.flatMap((price) => priceRows(measured, price)),
];
