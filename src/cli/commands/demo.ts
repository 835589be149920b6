/** `arrakis demo`, which is `npm start`: the whole path, on this machine, with figures, and nothing left behind. */
import type { Command } from 'commander';
import { demo } from '../demo/demo.ts';
import { CLI_SCRIPT, mustStage, runStaged } from '../stage.ts';

export function registerDemo(program: Command): void {
  program
    .command('demo')
    .option('--once', 'end by itself after the table')
    .action(async (options: { once?: boolean }) => {
      if (mustStage()) process.exitCode = await runStaged(CLI_SCRIPT, process.argv.slice(2));
      else await demo(options.once === true);
    });
}
