/**
 * `arrakis run --vnic soft0,ip=10.77.0.2/24 -- dist/apps/http/main.js [--root DIR] [--port 80] [--idle SECONDS] [--stats]`
 *
 * Serves the files below a directory (default: the one it is started in) on a VNIC of its own, until it is told to end or
 * the VNIC goes. On a VNIC of several queue pairs it runs a thread for each.
 */
import path from 'node:path';
import { parseArgs } from 'node:util';
import {
  ArrakisError,
  connect,
  formatIpv4,
  formatNetCounters,
  type NetCounters,
  type Vnic,
} from '../../src/arrakis/index.ts';
import { type HttpSettings, serveOn } from './serve.ts';
import type { HttpCounters } from './session.ts';

/** What a server has counted, of one thread or of all. */
interface Counts {
  readonly http: HttpCounters;
  readonly net: NetCounters;
}

interface Running {
  stop(): void;
  /** Resolves when it has stopped. */
  readonly done: Promise<Counts>;
}

function serveByThreads(vnic: Vnic, settings: HttpSettings): Running {
  const threads = vnic.startThreads(new URL('./thread.js', import.meta.url), { data: settings });
  const counts: Counts[] = [];
  threads.on('message', (_index, value) => counts.push(value as Counts));
  threads.on('died', (index, error) => {
    process.exitCode = 1;
    console.error(`http: thread ${index} died: ${error.message}`);
  });
  return { stop: () => void threads.stop(), done: threads.done.then(() => sumOf(counts)) };
}

function sumOf(all: readonly Counts[]): Counts {
  const sum = { http: {} as Record<string, number>, net: {} as Record<string, number> };
  for (const { http, net } of all) {
    for (const [name, count] of Object.entries(http))
      sum.http[name] = (sum.http[name] ?? 0) + count;
    for (const [name, count] of Object.entries(net)) sum.net[name] = (sum.net[name] ?? 0) + count;
  }
  return sum as unknown as Counts;
}

function wholeNumber(name: string, text: string, max: number): number {
  const value = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (value < 1 || value > max) {
    throw new ArrakisError('ARK_USAGE', `--${name} ${text} is not from 1 to ${max}`);
  }
  return value;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      root: { type: 'string', default: '.' },
      port: { type: 'string', default: '80' },
      idle: { type: 'string', default: '30' },
      stats: { type: 'boolean', default: false },
    },
  });
  const settings: HttpSettings = {
    root: path.resolve(values.root),
    port: wholeNumber('port', values.port, 65_535),
    idleSeconds: wholeNumber('idle', values.idle, 86_400),
  };
  const domain = await connect({ name: 'http' });
  try {
    const vnic = await domain.openVnic(undefined, { offload: true });
    const server = vnic.pairs === 1 ? serveOn(vnic, settings) : serveByThreads(vnic, settings);
    vnic.on('gone', (reason) => {
      process.exitCode = 1;
      console.error(`http: ${vnic.name} is gone: ${reason}`);
    });
    process.once('SIGINT', () => server.stop());
    process.once('SIGTERM', () => server.stop());
    const { address, name, driver, pairs } = vnic;
    const threads = pairs === 1 ? '' : `, ${pairs} threads`;
    const port = settings.port === 80 ? '' : `:${settings.port}`;
    console.log(
      `http: http://${formatIpv4(address)}${port}/ from ${settings.root} on ${name} (${driver}${threads})`,
    );
    const { http, net } = await server.done;
    if (values.stats) {
      const counts = Object.entries(http).filter(([, count]) => count > 0);
      console.log(`http: ${counts.map(([what, count]) => `${what} ${count}`).join(', ')}`);
      console.log(`net: ${formatNetCounters(net)}`);
    }
  } finally {
    await domain.close();
  }
}

main().catch((error: unknown) => {
  const hint = error instanceof ArrakisError ? error.hint : undefined;
  console.error(`http: ${(error as Error).message}${hint === undefined ? '' : `\n  ${hint}`}`);
  process.exitCode = 1;
});
