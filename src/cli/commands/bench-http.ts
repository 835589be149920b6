/** `arrakis bench http`: one page from nginx, node:http and Arrakis. */
import fs from 'node:fs';
import type { Command } from 'commander';
import { benchHttp, HTTP_DEFAULTS } from '../../../bench/http/run.ts';
import { endAtSignals } from '../../../bench/processes.ts';
import type { BenchRow } from '../../../bench/stats.ts';
import { openOutput } from '../output.ts';
import { absoluteJson, CLI_SCRIPT, mustStage, runStaged } from '../stage.ts';
import { formatNumber, formatTable, printJson, printLine } from '../table.ts';

interface HttpOptions {
  json?: string | true;
  repetitions: number;
  seconds: number;
  connections: number[];
  keepAliveOnly?: boolean;
  only?: string[];
}

export function registerBenchHttp(bench: Command, wholeNumber: (text: string) => number): void {
  const { repetitions, durationMs, connections } = HTTP_DEFAULTS;
  const list = (text: string): number[] => text.split(',').map(wholeNumber);
  bench
    .command('http')
    .description('a page of 1,024 bytes: nginx, node:http, and Arrakis in three ways')
    .option('--json [file]', 'write the rows as JSON to a file, or to standard output')
    .option('--repetitions <n>', 'runs of every system, interleaved', wholeNumber, repetitions)
    .option('--seconds <n>', 'length of a run, whole seconds', wholeNumber, durationMs / 1000)
    .option('--connections <list>', 'how many at a time, with commas', list, [...connections])
    .option('--keep-alive-only', 'leave out connections of one request each')
    .option('--only <system...>', 'only these systems, such as kernel/nginx')
    .action(runHttp);
}

async function runHttp(options: HttpOptions): Promise<void> {
  if (mustStage()) {
    process.exitCode = await runStaged(CLI_SCRIPT, absoluteJson(process.argv.slice(2)));
    return;
  }
  endAtSignals();
  // Opened first: figures of minutes are not to be lost to a wrong path.
  const out = typeof options.json === 'string' ? openOutput(options.json) : null;
  const { rows, missing } = await benchHttp({
    repetitions: options.repetitions,
    durationMs: options.seconds * 1000,
    connections: options.connections,
    shortConnections: options.keepAliveOnly !== true,
    only: options.only ?? [],
    progress: (line) => process.stderr.write(`  ${line}\n`),
  });
  for (const { system, reason } of missing) {
    process.stderr.write(`left out: ${system}: ${reason}\n`);
  }
  if (options.json === true) return printJson(rows);
  printLine(httpTable(rows));
  if (out !== null) {
    fs.writeFileSync(out, `${JSON.stringify(rows, null, 2)}\n`);
    fs.closeSync(out);
    printLine(`\nrows written to ${options.json}`);
  }
}

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
