/** `arrakis bench tcp`: bulk transfer and idle connections, beside the kernel's TCP. */
import type { Command } from 'commander';
import type { BenchRow } from '../../../bench/stats.ts';
import { benchTcp, TCP_DEFAULTS } from '../../../bench/tcp/run.ts';
import { type BenchOptions, benchCommand, runBench } from '../bench-output.ts';
import { formatNumber, formatTable } from '../table.ts';

interface TcpOptions extends BenchOptions {
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
  benchCommand(bench, 'tcp', 'bulk transfer beside iperf3, and what an idle connection costs')
    .option('--repetitions <n>', 'runs of every system, interleaved', wholeNumber, repetitions)
    .option('--seconds <n>', 'length of a run, whole seconds', wholeNumber, durationMs / 1000)
    .option('--connections <list>', 'how many at a time, with commas', list, [...connections])
    .option('--idle <n>', 'idle connections to open; 0: leave that out', count, idle)
    .option('--only <system...>', 'only these systems, such as kernel/iperf3')
    .action(runTcp);
}

const runTcp = ({ only = [], seconds, ...options }: TcpOptions): Promise<void> =>
  runBench(options, {
    staged: true,
    measure: (progress) =>
      benchTcp({
        ...options,
        durationMs: seconds * 1000,
        only,
        progress,
      }),
    table: tcpTable,
  });

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
