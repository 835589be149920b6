/** `arrakis bench doorbell`: what a wake-up takes. */
import type { Command } from 'commander';
import { benchDoorbell, DOORBELL_DEFAULTS } from '../../../bench/doorbell/run.ts';
import type { BenchRow } from '../../../bench/stats.ts';
import { type BenchOptions, benchCommand, runBench } from '../bench-output.ts';
import { formatNumber, formatTable } from '../table.ts';

interface DoorbellOptions extends BenchOptions {
  repetitions: number;
  samples: number;
  usecs: number;
  only?: string[];
}

/** `wholeNumber` reads a positive number of the command line. */
export function registerBenchDoorbell(bench: Command, wholeNumber: (text: string) => number): void {
  const { repetitions, samples, usecs } = DOORBELL_DEFAULTS;
  benchCommand(
    bench,
    'doorbell',
    'wake-ups: polling, doorbells and coalesced doorbells beside the kernel’s own',
  )
    .option('--repetitions <n>', 'runs of every system, interleaved', wholeNumber, repetitions)
    .option('--samples <n>', 'packets of a run', wholeNumber, samples)
    .option('--usecs <n>', 'how long a coalesced doorbell waits', wholeNumber, usecs)
    .option('--only <system...>', 'only these systems, such as arrakis/virtio')
    .action(run);
}

const run = ({ only = [], ...options }: DoorbellOptions): Promise<void> =>
  runBench(options, {
    measure: (progress) => benchDoorbell({ ...options, only, progress }),
    table: doorbellTable,
  });

/** Each system and its way of waiting on one line. */
export function doorbellTable(rows: readonly BenchRow[]): string {
  const wakeups = rows.filter((row) => row.metric === 'wakeup');
  const lines = wakeups.map((row) => {
    const mode = String(row.params?.mode);
    const cpu = rows.find(
      (other) =>
        other.metric === 'cpu' && other.system === row.system && other.params?.mode === mode,
    );
    const usecs = row.params?.usecs;
    return [
      row.system,
      row.link,
      usecs === undefined ? mode : `${mode}, ${usecs} µs`,
      ...(['p50', 'p99', 'p999'] as const).map((p) => formatNumber(row[p]!, 1)),
      cpu === undefined ? '-' : formatNumber(cpu.value, 1),
    ];
  });
  const heading = ['system', 'link', 'waits by', 'wake-up p50 µs', 'p99', 'p99.9', 'cpu %'];
  const notes = wakeups.map((row) => `  ${row.system}, ${row.params?.mode}: ${row.boundBy}`);
  return `${formatTable(heading, lines)}\n\nbound by\n${notes.join('\n')}`;
}
