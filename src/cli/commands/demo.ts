/** `arrakis demo`, which is `npm start`: the whole path, on this machine, with figures, and nothing left behind. */
import type { Command } from 'commander';
import { demo } from '../demo/demo.ts';

export function registerDemo(program: Command): void {
  program
    .command('demo')
    .description('an echo server on a VNIC, real traffic, and its figures beside kernel sockets')
    .option('--once', 'end by itself after the table')
    .action((options: { once?: boolean }) => demo(options.once === true));
}
