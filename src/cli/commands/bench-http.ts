/** `arrakis bench http`: one page from nginx, node:http and Arrakis. */
import type { Command } from 'commander';
import { benchHttp, HTTP_DEFAULTS } from '../../../bench/http/run.ts';
import type { BenchRow } from '../../../bench/stats.ts';
import { type BenchOptions, benchCommand, runBench } from '../bench-output.ts';
import { formatNumber, formatTable } from '../table.ts';

interface HttpOptions extends BenchOptions {
  repetitions: number;
  seconds: number;
  connections: number[];
  keepAliveOnly?: boolean;
  only?: string[];
}

export function registerBenchHttp(bench: Command, wholeNumber: (text: string) => number): void {
  const { repetitions, durationMs, connections } = HTTP_DEFAULTS;
  const list = (text: string): number[] => text.split(',').map(wholeNumber);
  benchCommand(bench, 'http', 'a page of 1,024 bytes: nginx, node:http, and Arrakis in three ways')
    .option('--repetitions <n>', 'runs of every system, interleaved', wholeNumber, repetitions)
    .option('--seconds <n>', 'length of a run, whole seconds', wholeNumber, durationMs / 1000)
    .option('--connections <list>', 'how many at a time, with commas', list, [...connections])
    .option('--keep-alive-only', 'leave out connections of one request each')
    .option('--only <system...>', 'only these systems, such as kernel/nginx')
    .action(runHttp);
}

const runHttp = ({ only = [], seconds, keepAliveOnly, ...options }: HttpOptions): Promise<void> =>
  runBench(options, {
    staged: true,
    measure: (progress) =>
      benchHttp({
        ...options,
        durationMs: seconds * 1000,
        shortConnections: keepAliveOnly !== true,
        only,
        progress,
      }),
    table: httpTable,
  });

/** For each number of connections the systems, beside the first one measured. */
export function httpTable(rows: readonly BenchRow[]): string {
  const rates = rows.filter(({ metric }) => metric === 'throughput');
  const loads = [...new Set(rates.map(loadOf))];
  const lines = loads.flatMap((load) => {
    const ofLoad = rates.filter((row) => loadOf(row) === load);
    const tripOf = (rate: BenchRow) =>
      rows.find(
        (row) => row.metric === 'rtt' && row.system === rate.system && loadOf(row) === load,
      )!;
    const first = ofLoad[0]!;
    return ofLoad.map((rate) => {
      const trip = tripOf(rate);
      return [
        load,
        rate.system,
        rate.link,
        formatNumber(rate.value),
        formatNumber(rate.value / first.value, 2),
        ...(['p50', 'p99', 'p999'] as const).map((p) => formatNumber(trip[p]!, 1)),
        formatNumber(trip.p50! / tripOf(first).p50!, 2),
      ];
    });
  });
  const heading = ['load', 'system', 'link', 'requests/s', 'x', 'p50 µs', 'p99', 'p99.9', 'p50 x'];
  const bounds = new Map(rates.map(({ system, boundBy }) => [system, boundBy]));
  const notes = [...bounds].map(([system, boundBy]) => `  ${system}: ${boundBy}`).join('\n');
  return `${formatTable(heading, lines)}\n(x: relative to ${rates[0]?.system ?? '-'})\n\nbound by\n${notes}`;
}

function loadOf({ params }: BenchRow): string {
  return params!.keepAlive === 'true' ? `${params!.connections}` : `${params!.connections} short`;
}
