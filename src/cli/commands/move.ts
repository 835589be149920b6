/** `arrakis move`: an application to other processors, while it runs. */
import type { Command } from 'commander';
import { connect, parseCpus } from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import { printLine } from '../table.ts';

export function registerMove(program: Command): void {
  program
    .command('move')
    .description(
      'move a domain and its threads to other processors; it comes back to them when it is run again',
    )
    .argument('<domain>', 'number of the domain (arrakis ls)')
    .argument(
      '<cpus>',
      'processors, in the order in which its threads take them, such as 1 or 0,2-3',
    )
    .action(move);
}

async function move(id: string, list: string): Promise<void> {
  if (!/^\d{1,15}$/.test(id)) {
    throw new ArrakisError('ARK_USAGE', `"${id}" is not the number of a domain`, {
      hint: '`arrakis ls` lists them',
    });
  }
  const domain = await connect({ name: 'arrakis-move' });
  try {
    const args = { domain: Number(id), cpus: parseCpus(list) };
    const { reply } = await domain.request('placement.move', args);
    printLine(`domain ${id} is on processors ${reply.cpus.join(',')}`);
  } finally {
    await domain.close();
  }
}
