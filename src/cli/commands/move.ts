/** `arrakis move`: an application to other processors, while it runs. */
import type { Command } from 'commander';
import { connect, parseCpus } from '../../arrakis/index.ts';
import { findObject, takeSnapshot } from '../snapshot.ts';
import { printLine } from '../table.ts';

export function registerMove(program: Command): void {
  program
    .command('move')
    .description(
      'move a domain and its threads to other processors; it comes back to them when it is run again',
    )
    .argument('<domain>', 'name or number of the domain (arrakis ls)')
    .argument(
      '<cpus>',
      'processors, in the order in which its threads take them, such as 1 or 0,2-3',
    )
    .action(move);
}

async function move(wanted: string, list: string): Promise<void> {
  const domain = await connect({ name: 'arrakis-move' });
  try {
    const cpus = parseCpus(list);
    const { id } = findObject(await takeSnapshot(domain), wanted, ['domain']);
    const { reply } = await domain.request('placement.move', { domain: id, cpus });
    printLine(`domain ${id} is on processors ${reply.cpus.join(',')}`);
  } finally {
    await domain.close();
  }
}
