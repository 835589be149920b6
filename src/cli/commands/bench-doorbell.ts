/** `arrakis bench doorbell`: what a wake-up takes. */
import fs from 'node:fs';
import type { Command } from 'commander';
import { benchDoorbell, DOORBELL_DEFAULTS } from '../../../bench/doorbell/run.ts';
import { endAtSignals } from '../../../bench/processes.ts';
import type { BenchRow } from '../../../bench/stats.ts';
import { openOutput } from '../output.ts';
import { formatNumber, formatTable, printJson, printLine } from '../table.ts';

interface DoorbellOptions {
  json?: string | true;
  repetitions: number;
  samples: number;
  usecs: number;
  only?: string[];
}

/** `wholeNumber` reads a positive number of the command line. */
export function registerBenchDoorbell(bench: Command, wholeNumber: (text: string) => number): void {
  const { repetitions, samples, usecs } = DOORBELL_DEFAULTS;
  bench
    .command('doorbell')
    .description('wake-ups: polling, doorbells and coalesced doorbells beside the kernel’s own')
    .option('--json [file]', 'write the rows as JSON to a file, or to standard output')
    .option('--repetitions <n>', 'runs of every system, interleaved', wholeNumber, repetitions)
    .option('--samples <n>', 'packets of a run', wholeNumber, samples)
    .option('--usecs <n>', 'how long a coalesced doorbell waits', wholeNumber, usecs)
    .option('--only <system...>', 'only these systems, such as arrakis/virtio')
    .action(run);
}

async function run(options: DoorbellOptions): Promise<void> {
  endAtSignals();
  // Opened first: figures of minutes are not to be lost to a wrong path.
  const out = typeof options.json === 'string' ? openOutput(options.json) : null;
  const { rows, missing } = await benchDoorbell({
    repetitions: options.repetitions,
    samples: options.samples,
    usecs: options.usecs,
    only: options.only ?? [],
    progress: (line) => process.stderr.write(`  ${line}\n`),
  });
  for (const { system, reason } of missing) {
    process.stderr.write(`left out: ${system}: ${reason}\n`);
  }
  if (options.json === true) return printJson(rows);
  printLine(doorbellTable(rows));
  if (out !== null) {
    fs.writeFileSync(out, `${JSON.stringify(rows, null, 2)}\n`);
    fs.closeSync(out);
    printLine(`\nrows written to ${options.json}`);
  }
}

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
