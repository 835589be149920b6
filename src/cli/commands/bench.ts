/** `arrakis bench NAME`: side by side with the named peers, in one run. */
import type { Command } from 'commander';
import { benchEcho, ECHO_DEFAULTS } from '../../../bench/echo/run.ts';
import type { BenchRow } from '../../../bench/stats.ts';
import { type BenchOptions, benchCommand, runBench } from '../bench-output.ts';
import { formatNumber, formatTable } from '../table.ts';
import { wholeNumber } from '../whole-number.ts';
import { registerBenchDoorbell } from './bench-doorbell.ts';
import { registerBenchHttp } from './bench-http.ts';
import { registerBenchIpc } from './bench-ipc.ts';
import { registerBenchProtection } from './bench-protection.ts';
import { registerBenchScaling } from './bench-scaling.ts';
import { registerBenchTcp } from './bench-tcp.ts';

export function registerBench(program: Command): void {
  const bench = program.command('bench');
  registerBenchHttp(bench, wholeNumber);
  registerBenchIpc(bench, wholeNumber);
  registerBenchDoorbell(bench, wholeNumber);
  registerBenchScaling(bench, wholeNumber);
  registerBenchTcp(bench, wholeNumber);
  registerBenchProtection(bench, wholeNumber);
  benchCommand(
    bench,
    'echo',
    'UDP echo: kernel sockets, DPDK and Arrakis, driven by the same generator',
  )
    .option('--repetitions <n>', 'runs of every system, interleaved', wholeNumber, 3)
    .option('--seconds <n>', 'length of a saturated run, whole seconds', wholeNumber, 2)
    .option('--round-trips <n>', 'round trips of a run', wholeNumber, ECHO_DEFAULTS.roundTrips)
    .option('--window <n>', 'requests in flight when saturated', wholeNumber, ECHO_DEFAULTS.window)
    .option('--only <system...>', 'only these systems, such as kernel/c')
    .action(runEcho);
}

interface EchoOptions extends BenchOptions {
  repetitions: number;
  seconds: number;
  roundTrips: number;
  window: number;
  only?: string[];
}

const runEcho = ({ only = [], ...options }: EchoOptions): Promise<void> =>
  runBench(options, {
    staged: true,
    measure: (progress) =>
      benchEcho({ ...options, saturateMs: options.seconds * 1000, only, progress }),
    table: echoTable,
  });

/** Rates and round trips of each system on one line, beside the first kernel system measured. */
export function echoTable(rows: readonly BenchRow[]): string {
  const names = [...new Set(rows.map((row) => row.system))];
  const find = (system: string, metric: string) =>
    rows.find((row) => row.system === system && row.metric === metric);
  const baseline = names.find((name) => name.startsWith('kernel/')) ?? '';
  const rate0 = find(baseline, 'throughput')?.value;
  const trip0 = find(baseline, 'rtt')?.p50;
  const lines = names.map((name) => {
    const rate = find(name, 'throughput');
    const trip = find(name, 'rtt');
    return [
      name,
      (rate ?? trip)!.link,
      rate === undefined ? '-' : formatNumber(rate.value),
      rate === undefined || rate0 === undefined ? '-' : formatNumber(rate.value / rate0, 2),
      ...(['p50', 'p99', 'p999'] as const).map((p) => (trip ? formatNumber(trip[p]!, 1) : '-')),
      trip === undefined || trip0 === undefined ? '-' : formatNumber(trip.p50! / trip0, 2),
    ];
  });
  const heading = ['system', 'link', 'packets/s', 'x', 'rtt p50 µs', 'p99', 'p99.9', 'p50 x'];
  const bounds = rows.filter((row) => row.boundBy !== undefined);
  const notes = bounds.map((row) => `  ${row.system}: ${row.boundBy}`);
  const relative = baseline === '' ? '' : `\n(x: relative to ${baseline})`;
  return `${formatTable(heading, lines)}${relative}\n\nbound by\n${notes.join('\n')}`;
}
