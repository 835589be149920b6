/** `arrakis bench scaling`: what a second thread brings. */
import type { Command } from 'commander';
import { benchScaling, SCALING_DEFAULTS } from '../../../bench/scaling/run.ts';
import type { BenchRow } from '../../../bench/stats.ts';
import { ArrakisError } from '../../base/errors.ts';
import { type BenchOptions, benchCommand, runBench } from '../bench-output.ts';
import { formatNumber, formatTable } from '../table.ts';

interface ScalingCommand extends BenchOptions {
  repetitions: number;
  seconds: number;
  window: number;
  flows: number;
}

/** `wholeNumber` reads a positive number of the command line. */
export function registerBenchScaling(bench: Command, wholeNumber: (text: string) => number): void {
  const { repetitions, seconds, window, flows } = SCALING_DEFAULTS;
  benchCommand(
    bench,
    'scaling',
    'UDP echo on VNICs of one and of two queue pairs, a thread for each',
  )
    .option('--repetitions <n>', 'runs of every system, interleaved', wholeNumber, repetitions)
    .option('--seconds <n>', 'length of a run, whole seconds', wholeNumber, seconds)
    .option('--window <n>', 'requests in flight', wholeNumber, window)
    .option('--flows <n>', 'flows of the client, a power of two', wholeNumber, flows)
    .action(run);
}

async function run(options: ScalingCommand): Promise<void> {
  if ((options.flows & (options.flows - 1)) !== 0 || options.flows > 1024) {
    throw new ArrakisError('ARK_USAGE', `there are no ${options.flows} flows`, {
      hint: '--flows takes a power of two up to 1024',
    });
  }
  await runBench(options, {
    staged: true,
    measure: async (progress) => ({ rows: await benchScaling({ ...options, progress }) }),
    table: scalingTable,
  });
}

/** Each system and number of queue pairs on one line, beside the same system with one. */
export function scalingTable(rows: readonly BenchRow[]): string {
  const lines = rows.map((row) => {
    const one = rows.find((other) => other.system === row.system && other.params?.queues === 1);
    const relative = one === undefined ? '-' : formatNumber(row.value / one.value, 2);
    return [row.system, row.link, String(row.params?.queues), formatNumber(row.value), relative];
  });
  const notes = rows.map((row) => `  ${row.system}, ${row.params?.queues}: ${row.boundBy}`);
  const heading = ['system', 'link', 'queue pairs', 'packets/s', 'x'];
  return `${formatTable(heading, lines)}\n\nbound by\n${notes.join('\n')}`;
}
