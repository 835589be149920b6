/**
 * `arrakis run --vnic soft0,ip=10.77.0.2/24 -- dist/apps/echo/main.js [--port 7] [--queues N] [--stats]`
 *
 * Echoes UDP and TCP and answers ping on a VNIC of its own until it is told to end, or the VNIC goes. On a VNIC of several
 * queue pairs it runs a thread for each.
 */
import { parseArgs } from 'node:util';
import {
  ArrakisError,
  connect,
  formatIpv4,
  formatNetCounters,
  monotonicMs,
  monotonicUs32,
  type NetCounters,
  NetInterface,
  netTurn,
  type Vnic,
} from '../../src/arrakis/index.ts';
import { type EchoCounters, serveEcho } from './echo.ts';

/** What an echo has counted, of one thread or of all. */
interface Counts {
  readonly echo: EchoCounters;
  readonly net: NetCounters;
}

interface Server {
  stop(): void;
  /** Resolves when it has stopped. */
  readonly done: Promise<Counts>;
}

function serveHere(vnic: Vnic, port: number): Server {
  const net = new NetInterface(vnic);
  const echo = serveEcho(net, port);
  const { turn, timeoutMs } = netTurn(net, monotonicMs, monotonicUs32);
  const loop = vnic.poll(turn, { timeoutMs });
  const done = loop.done.then(() => {
    net.close();
    return { echo, net: net.counters };
  });
  return { stop: () => loop.stop(), done };
}

function serveByThreads(vnic: Vnic, port: number): Server {
  const threads = vnic.startThreads(new URL('./thread.js', import.meta.url), { data: { port } });
  const counts: Counts[] = [];
  threads.on('message', (_index, value) => counts.push(value as Counts));
  threads.on('died', (index, error) => {
    process.exitCode = 1;
    console.error(`echo: thread ${index} died: ${error.message}`);
  });
  return { stop: () => void threads.stop(), done: threads.done.then(() => sumOf(counts)) };
}

function sumOf(all: readonly Counts[]): Counts {
  const sum: { echo: EchoCounters; net: NetCounters } = {
    echo: { datagrams: 0, bytes: 0, fromEcho: 0, connections: 0, streamBytes: 0 },
    net: {} as NetCounters,
  };
  for (const { echo, net } of all) {
    for (const name of Object.keys(echo) as (keyof EchoCounters)[]) sum.echo[name] += echo[name];
    for (const name of Object.keys(net) as (keyof NetCounters)[]) {
      sum.net[name] = (sum.net[name] ?? 0) + net[name];
    }
  }
  return sum;
}

/** The VNIC that was prepared, or a new one of soft0 with that many queue pairs. */
async function openVnic(domain: Awaited<ReturnType<typeof connect>>, queues: number | null) {
  const isNew = domain.info.prepared.length === 0 && queues !== null;
  const vnic = await domain.openVnic(isNew ? { device: 'soft0', queues } : undefined);
  if (queues === null || vnic.pairs === queues) return vnic;
  throw new ArrakisError('ARK_BAD_ARGUMENT', `${vnic.name} has ${vnic.pairs} queue pairs`, {
    hint: `start it with --vnic ...,queues=${queues}`,
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '7' },
      queues: { type: 'string' },
      stats: { type: 'boolean', default: false },
    },
  });
  const port = Number(values.port);
  const domain = await connect({ name: 'echo' });
  try {
    const vnic = await openVnic(domain, values.queues === undefined ? null : Number(values.queues));
    const server = vnic.pairs === 1 ? serveHere(vnic, port) : serveByThreads(vnic, port);
    vnic.on('gone', (reason) => {
      process.exitCode = 1;
      console.error(`echo: ${vnic.name} is gone: ${reason}`);
    });
    process.once('SIGINT', () => server.stop());
    process.once('SIGTERM', () => server.stop());
    const { address, name, driver, pairs } = vnic;
    const threads = pairs === 1 ? '' : `, ${pairs} threads`;
    console.log(`echo: udp ${formatIpv4(address)}:${port} on ${name} (${driver}${threads})`);
    const { echo, net } = await server.done;
    if (values.stats) {
      console.log(
        `echo: ${echo.datagrams} datagrams, ${echo.bytes} bytes, ${echo.fromEcho} from echo ports`,
      );
      console.log(`echo: ${echo.connections} connections, ${echo.streamBytes} bytes`);
      console.log(`net: ${formatNetCounters(net)}`);
    }
  } finally {
    await domain.close();
  }
}

main().catch((error: unknown) => {
  const hint = error instanceof ArrakisError ? error.hint : undefined;
  console.error(`echo: ${(error as Error).message}${hint === undefined ? '' : `\n  ${hint}`}`);
  process.exitCode = 1;
});
