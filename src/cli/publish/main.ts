/**
 * The process behind `arrakis run --publish`: a domain of its own, with a VNIC of the software NIC, that passes on what
 * comes to ports of the host. `main.js TARGET SPEC...`, started with the domain's channel as ARRAKIS_FD. Says "ready" when all
 * ports are open, and ends with its standard input, which is its starter's end.
 */
import { connect, monotonicMs, monotonicUs32, NetInterface, netTurn } from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import { formatPublish, parsePublish } from './spec.ts';
import { type Door, openTcpDoor, type Way } from './tcp.ts';
import { openUdpDoor } from './udp.ts';

async function main(target: string, texts: readonly string[]): Promise<void> {
  const specs = texts.map(parsePublish);
  const domain = await connect({ name: 'publish' });
  const doors: Door[] = [];
  try {
    const vnic = await domain.openVnic();
    const net = new NetInterface(vnic);
    const { u8, frameSize } = vnic.queue.memory;
    const way: Way = { net, u8, frameSize, target, wake: () => loop.wake() };
    const { turn, timeoutMs } = netTurn(net, monotonicMs, monotonicUs32);
    const loop = vnic.poll(turn, { timeoutMs, turnUs: 100 });
    const end = (): void => loop.stop();
    process.stdin.on('end', end).on('error', end).resume();
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, end);
    try {
      for (const spec of specs) {
        const open = spec.protocol === 'tcp' ? openTcpDoor : openUdpDoor;
        doors.push(await open(spec, way).catch((error: Error) => fail(formatPublish(spec), error)));
      }
      process.stdout.write('ready\n');
      await loop.done;
    } finally {
      loop.stop();
      for (const door of doors) door.close();
      net.close();
    }
  } finally {
    await domain.close();
  }
}

function fail(spec: string, error: Error): never {
  const { code } = error as NodeJS.ErrnoException;
  const text = `${spec} cannot be published: ${error.message}`;
  if (code === 'EADDRINUSE') {
    throw new ArrakisError('ARK_IN_USE', text, { hint: 'choose another port of the host' });
  }
  if (code === 'EACCES') {
    throw new ArrakisError('ARK_NOT_PERMITTED', text, {
      hint: 'ports below 1024 are for root: choose a higher one',
    });
  }
  throw new ArrakisError('ARK_SYSCALL', text, { cause: error });
}

const [target = '', ...specs] = process.argv.slice(2);
main(target, specs).then(
  () => process.exit(0),
  (error: Error) => {
    const hint = error instanceof ArrakisError && error.hint ? `\n  ${error.hint}` : '';
    process.stderr.write(`arrakis: ${error.message}${hint}\n`);
    process.exit(1);
  },
);
