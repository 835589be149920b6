#!/usr/bin/env node
/** The `arrakis` command. Errors end with exit code 1, a wrong command line with 2; both say what to do next. */
import { Command, CommanderError } from 'commander';
import { ArrakisError } from '../base/errors.ts';
import { VERSION } from '../base/version.ts';
import { registerCap } from './commands/cap.ts';
import { registerCapture } from './commands/capture.ts';
import { registerDoctor } from './commands/doctor.ts';
import { registerFilter } from './commands/filter.ts';
import { registerLazily } from './commands/lazy.ts';
import { registerLs } from './commands/ls.ts';
import { registerMetrics } from './commands/metrics.ts';
import { registerMove } from './commands/move.ts';
import { registerName } from './commands/name.ts';
import { registerPolicy } from './commands/policy.ts';
import { registerRate } from './commands/rate.ts';
import { registerRun } from './commands/run.ts';
import { registerShow } from './commands/show.ts';
import { registerTop } from './commands/top.ts';
import { registerUp } from './commands/up.ts';

const program = new Command('arrakis')
  .description('Protected user-level I/O: the operating system is the control plane.')
  .version(VERSION)
  .showHelpAfterError('(add --help for the options)')
  .exitOverride();

registerUp(program);
registerRun(program);
registerMove(program);
registerLs(program);
registerShow(program);
registerTop(program);
registerMetrics(program);
registerDoctor(program);
registerPolicy(program);
registerCap(program);
registerCapture(program);
registerFilter(program);
registerName(program);
registerRate(program);
await registerLazily(program, process.argv.slice(2));

/** What failed, its code, and what to do about it. The stack only for defects of our own. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof ArrakisError) {
    process.stderr.write(`arrakis: ${error.message} [${error.code}]\n`);
    if (error.hint !== undefined) process.stderr.write(`  → ${error.hint}\n`);
    return error.code === 'ARK_USAGE' ? 2 : 1;
  }
  process.stderr.write(`arrakis: ${error instanceof Error ? error.stack : String(error)}\n`);
  return 1;
}

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
