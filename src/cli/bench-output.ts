/**
 * What every `arrakis bench NAME` does alike: progress and what was left out to standard error, the rows as JSON to the
 * file of `--json FILE` with the table on standard output, or with `--json` alone the rows there and no table.
 */
import fs from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { endAtSignals } from '../../bench/processes.ts';
import type { BenchRow } from '../../bench/stats.ts';
import { openOutput } from './output.ts';
import { CLI_SCRIPT, mustStage, runStaged } from './stage.ts';
import { printJson, printLine } from './table.ts';

/** Options of every benchmark. */
export interface BenchOptions {
  json?: string | true;
}

export interface Measured {
  readonly rows: readonly BenchRow[];
  /** Systems that cannot run here, and why. */
  readonly missing?: readonly { system: string; reason: string }[];
}

export interface Benchmark {
  /** Applications run as `nobody`, from a copy that can be read. */
  readonly staged?: boolean;
  measure(progress: (line: string) => void): Promise<Measured>;
  table(rows: readonly BenchRow[]): string;
}

/** A command below `arrakis bench`, with the options that all have. */
export const benchCommand = (bench: Command, name: string, description: string): Command =>
  bench
    .command(name)
    .description(description)
    .option('--json [file]', 'write the rows as JSON to a file, or to standard output');

export async function runBench({ json }: BenchOptions, benchmark: Benchmark): Promise<void> {
  if (benchmark.staged === true && mustStage()) {
    process.exitCode = await runStaged(CLI_SCRIPT, absoluteJson(process.argv.slice(2)));
    return;
  }
  endAtSignals();
  // Opened first: figures of minutes are not to be lost to a wrong path.
  const out = typeof json === 'string' ? openOutput(json) : null;
  const progress = (line: string): boolean => process.stderr.write(`  ${line}\n`);
  const { rows, missing = [] } = await benchmark.measure(progress);
  for (const { system, reason } of missing) {
    process.stderr.write(`left out: ${system}: ${reason}\n`);
  }
  if (json === true) return printJson(rows);
  printLine(benchmark.table(rows));
  if (out !== null) {
    fs.writeFileSync(out, `${JSON.stringify(rows, null, 2)}\n`);
    fs.closeSync(out);
    printLine(`\nrows written to ${json}`);
  }
}

/** The copy runs in a folder of its own: a file to write is named from here. */
export function absoluteJson(args: readonly string[]): string[] {
  return args.map((arg, i) => {
    if (arg.startsWith('--json=')) return `--json=${path.resolve(arg.slice('--json='.length))}`;
    return args[i - 1] === '--json' && !arg.startsWith('-') ? path.resolve(arg) : arg;
  });
}
