/** `arrakis bench protection`: what protection costs, mechanism by mechanism. */
import type { Command } from 'commander';
import { benchProtection, PROTECTION_DEFAULTS } from '../../../bench/protection/run.ts';
import type { BenchRow } from '../../../bench/stats.ts';
import { type BenchOptions, benchCommand, runBench } from '../bench-output.ts';
import { formatNumber, formatTable } from '../table.ts';

interface ProtectionOptions extends BenchOptions {
  repetitions: number;
  slices: number;
  sliceMs: number;
  roundTrips: number;
}

/** `wholeNumber` reads a positive number of the command line. */
export function registerBenchProtection(
  bench: Command,
  wholeNumber: (text: string) => number,
): void {
  const { repetitions, slices, sliceMs, roundTrips } = PROTECTION_DEFAULTS;
  benchCommand(
    bench,
    'protection',
    'throughput and round trips with all protection, and without each part of it',
  )
    .option('--repetitions <n>', 'runs, each with new processes', wholeNumber, repetitions)
    .option('--slices <n>', 'of each arrangement in a run, interleaved', wholeNumber, slices)
    .option('--slice-ms <n>', 'length of a slice under load', wholeNumber, sliceMs)
    .option('--round-trips <n>', 'round trips of a slice', wholeNumber, roundTrips)
    .action(run);
}

const run = (options: ProtectionOptions): Promise<void> =>
  runBench(options, {
    measure: async (progress) => ({ rows: await benchProtection({ ...options, progress }) }),
    table: protectionTable,
  });

/** Below this the figures say little. */
const SHARE_MIN = 0.9;

const SUBJECTS: readonly { system: string; title: string; device: string }[] = [
  {
    system: 'arrakis/virtio',
    title: 'software NIC: packets from one VNIC to another',
    device: "the software NIC's time",
  },
  {
    system: 'arrakis/af-xdp-switched',
    title: 'AF_XDP, switched: packets to a VNIC and from it, all on one processor',
    device: 'the time',
  },
];

/** For each system: what it does with all protection and without each part, and what each part costs. */
export function protectionTable(rows: readonly BenchRow[]): string {
  const parts: string[] = [];
  for (const { system, title, device } of SUBJECTS) {
    const own = rows.filter((row) => row.system === system);
    if (own.length === 0) continue;
    parts.push(`${title}\n\n${arrangements(own)}\n\n${prices(own, device)}\n\n${bounds(own)}`);
  }
  return `${parts.join('\n\n\n')}\n\n${quiet(rows)}`;
}

/** Whether the figures are those of the mechanisms, or of what else ran. */
function quiet(rows: readonly BenchRow[]): string {
  const shares = rows.flatMap(({ params }) => (params?.share === undefined ? [] : [params.share]));
  const least = Math.min(...shares.map(Number));
  const text = `The processors were the benchmark's for ${formatNumber(100 * least)}% of the time`;
  return least >= SHARE_MIN
    ? `${text} at least.`
    : `${text} in the worst case: other programs ran. Measure again on a quiet machine.`;
}

function arrangements(rows: readonly BenchRow[]): string {
  const lines = rows
    .filter((row) => row.metric === 'throughput')
    .map((row) => {
      const without = String(row.params?.without);
      const of = (metric: string) =>
        rows.find((other) => other.metric === metric && other.params?.without === without)!;
      return [
        nameOf(without),
        formatNumber(row.value),
        `${formatNumber(row.low!)} to ${formatNumber(row.high!)}`,
        formatNumber(of('service').value),
        formatNumber(of('rtt').value, 2),
      ];
    });
  const heading = ['', 'packets/s', 'from run to run', 'ns/packet', 'rtt p50 µs'];
  return formatTable(heading, lines);
}

function prices(rows: readonly BenchRow[], device: string): string {
  const whole = rows.find((row) => row.metric === 'service' && row.params?.without === 'nothing')!;
  const lines = rows
    .filter((row) => row.metric === 'cost')
    .map((row) => {
      const { mechanism } = row.params!;
      const trip = rows.find(
        (other) => other.metric === 'rtt cost' && other.params?.mechanism === mechanism,
      )!;
      const isNoise = row.low! <= 0 && row.high! >= 0;
      return [
        String(mechanism),
        formatNumber(row.value),
        `${formatNumber(row.low!)} to ${formatNumber(row.high!)}`,
        `${formatNumber((100 * row.value) / whole.value)}%`,
        formatNumber(trip.value),
        isNoise ? 'within noise' : '',
      ];
    });
  const heading = ['what it costs', 'ns/packet', 'from run to run', `of ${device}`, 'rtt ns', ''];
  return formatTable(heading, lines);
}

/** What limits: of most arrangements first, then of those that something else limits. */
function bounds(rows: readonly BenchRow[]): string {
  const texts = new Map<string, string[]>();
  for (const { boundBy, params } of rows) {
    if (boundBy === undefined) continue;
    texts.set(boundBy, [...(texts.get(boundBy) ?? []), nameOf(String(params?.without))]);
  }
  const [most, ...others] = [...texts].sort(([, a], [, b]) => b.length - a.length);
  const lines = others.map(([text, names]) => `  ${names.join(', ')}: ${text}`);
  return ['bound by', `  ${most![0]}`, ...lines].join('\n');
}

const nameOf = (without: string): string =>
  without === 'nothing' ? 'all protection' : `without ${without}`;
