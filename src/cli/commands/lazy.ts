/** Commands that load half of the project: only when they are meant. The others start without. */
import type { Command } from 'commander';

interface LazyCommand {
  readonly name: string;
  readonly description: string;
  register(program: Command): Promise<void>;
}

const LAZY: readonly LazyCommand[] = [
  {
    name: 'bench',
    description: 'measure, side by side with named peers',
    register: async (program) => (await import('./bench.ts')).registerBench(program),
  },
  {
    name: 'demo',
    description: 'servers on VNICs, real traffic, and its figures beside kernel sockets',
    register: async (program) => (await import('./demo.ts')).registerDemo(program),
  },
];

/** Add those that `args` speaks of whole, the others by name and description. */
export async function registerLazily(program: Command, args: readonly string[]): Promise<void> {
  for (const { name, description, register } of LAZY) {
    if (args.includes(name)) await register(program);
    else program.command(name);
    program.commands.find((command) => command.name() === name)!.description(description);
  }
}
