/** `arrakis bench tcp`: bulk transfer and idle connections, beside the kernel's TCP. */
import fs from 'node:fs';
import type { Command } from 'commander';
import { endAtSignals } from '../../../bench/processes.ts';
import type { BenchRow } from '../../../bench/stats.ts';
import { benchTcp, TCP_DEFAULTS } from '../../../bench/tcp/run.ts';
import { openOutput } from '../output.ts';
import { absoluteJson, CLI_SCRIPT, mustStage, runStaged } from '../stage.ts';
import { formatNumber, formatTable, printJson, printLine } from '../table.ts';

interface TcpOptions {
  json?: string | true;
  repetitions: number;
  seconds: number;
  connections: number[];
  idle: number;
  only?: string[];
}

export function registerBenchTcp(bench: Command, wholeNumber: (text: string) => number): void {
  const { repetitions, durationMs, connections, idle } = TCP_DEFAULTS;
  const list = (text: string): number[] => text.split(',').map(wholeNumber);
  const count = (text: string): number => (text === '0' ? 0 : wholeNumber(text));
  bench
    .command('tcp')
    .description('bulk transfer beside iperf3, and what an idle connection costs')
    .option('--json [file]', 'write the rows as JSON to a file, or to standard output')
    .option('--repetitions <n>', 'runs of every system, interleaved', wholeNumber, repetitions)
    .option('--seconds <n>', 'length of a run, whole seconds', wholeNumber, durationMs / 1000)
    .option('--connections <list>', 'how many at a time, with commas', list, [...connections])
    .option('--idle <n>', 'idle connections to open; 0: leave that out', count, idle)
    .option('--only <system...>', 'only these systems, such as kernel/iperf3')
    .action(runTcp);
}

async function runTcp(options: TcpOptions): Promise<void> {
  if (mustStage()) {
    process.exitCode = await runStaged(CLI_SCRIPT, absoluteJson(process.argv.slice(2)));
    return;
  }
  endAtSignals();
  const out = typeof options.json === 'string' ? openOutput(options.json) : null;
  const { rows, missing } = await benchTcp({
    repetitions: options.repetitions,
    durationMs: options.seconds * 1000,
    connections: options.connections,
    idle: options.idle,
    only: options.only ?? [],
    progress: (line) => process.stderr.write(`  ${line}\n`),
  });
  for (const { system, reason } of missing) {
    process.stderr.write(`left out: ${system}: ${reason}\n`);
  }
  if (options.json === true) return printJson(rows);
  printLine(tcpTable(rows));
  if (out !== null) {
    fs.writeFileSync(out, `${JSON.stringify(rows, null, 2)}\n`);
    fs.closeSync(out);
    printLine(`\nrows written to ${options.json}`);
  }
}

/** For each number of connections the systems, beside the first one; then the memory. */
function tcpTable(rows: readonly BenchRow[]): string {
  const bulk = rows.filter(({ metric }) => metric === 'bulk');
  const counts = [...new Set(bulk.map(({ params }) => params!.connections))];
  const lines = counts.flatMap((count) => {
    const ofCount = bulk.filter(({ params }) => params!.connections === count);
    return ofCount.map((row) => [
      `${count}`,
      row.system,
      row.link,
      formatNumber(row.value, 2),
      formatNumber(row.value / ofCount[0]!.value, 2),
      `${row.params!.retransmits}`,
    ]);
  });
  const heading = ['connections', 'system', 'link', 'Gbit/s', 'x', 'retransmits'];
  const idle = rows
    .filter(({ metric }) => metric === 'idle-connection')
    .map(({ system, value }) => `  ${system}: ${formatNumber(value)} bytes`);
  const bounds = new Map(rows.map(({ system, boundBy }) => [system, boundBy]));
  const notes = [...bounds].map(([system, boundBy]) => `  ${system}: ${boundBy}`).join('\n');
  const memory = idle.length === 0 ? '' : `\n\nan idle connection, one end\n${idle.join('\n')}`;
  return `${formatTable(heading, lines)}\n(x: relative to ${bulk[0]?.system ?? '-'})${memory}\n\nbound by\n${notes}`;
}
