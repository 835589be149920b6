/** `arrakis bench http`: every web server with the same load, interleaved repetitions, medians. */

import { formatIpv4 } from '../../src/base/address.ts';
import { ArrakisError } from '../../src/base/errors.ts';
import { VethLab } from '../echo/lab.ts';
import { allowSelfPolling, pathOf, pollBySender, pollByTimer } from '../echo/own-core.ts';
import { removeScratch, runToJson, startNode } from '../processes.ts';
import { type BenchRow, median } from '../stats.ts';
import type { HttpJob, HttpResult } from './job.ts';
import {
  type HttpSystem,
  httpSystems,
  makeRoot,
  PAGE,
  PORT,
  SERVER_CPU,
  type Server,
  SOFT_CLIENT,
} from './systems.ts';

export interface HttpBenchOptions {
  readonly repetitions: number;
  readonly durationMs: number;
  /** Default 500. */
  readonly warmupMs?: number;
  /** How many connections, each figure a run of its own; 1 measures round trips. */
  readonly connections: readonly number[];
  /** Also connections of one request each. */
  readonly shortConnections: boolean;
  /** Names of the systems to run; all when empty. */
  readonly only: readonly string[];
  progress(line: string): void;
  /** Ends the benchmark early: it rejects with the signal's reason once everything is stopped. */
  readonly signal?: AbortSignal;
}

export const HTTP_DEFAULTS = {
  repetitions: 3,
  durationMs: 2000,
  connections: [1, 64, 1024],
} as const;

const WARMUP_MS = 500;
const CLIENT_SLACK_MS = 60_000;
const CLIENT_CPU = 1;
/** As in bench echo (docs/af-xdp.md). */
const POLL_EVERY_US = 100;

interface Load {
  readonly connections: number;
  readonly keepAlive: boolean;
}

/** Rows for every system that can run here, and why each other one cannot. */
export async function benchHttp(
  options: HttpBenchOptions,
): Promise<{ rows: BenchRow[]; missing: { system: string; reason: string }[] }> {
  const wanted = chosen(options.only);
  const missing: { system: string; reason: string }[] = [];
  for (const system of wanted) {
    const reason = system.missing();
    if (reason !== null) missing.push({ system: system.name, reason });
  }
  const systems = wanted.filter((system) => system.missing() === null);
  const loads: Load[] = options.connections.map((connections) => ({
    connections,
    keepAlive: true,
  }));
  if (options.shortConnections) loads.push({ connections: 64, keepAlive: false });
  const lab = systems.some((system) => system.link === 'veth') ? VethLab.create() : null;
  const root = makeRoot();
  const results = new Map<string, HttpResult[]>();
  try {
    for (let repetition = 1; repetition <= options.repetitions; repetition++) {
      for (const system of systems) {
        options.signal?.throwIfAborted();
        options.progress(`${system.name}, run ${repetition} of ${options.repetitions}`);
        try {
          await measure(system, system.link === 'veth' ? lab : null, root, loads, options, results);
        } catch (error) {
          options.signal?.throwIfAborted();
          const reason = (error as Error).message.split('\n').slice(0, 12).join('\n');
          missing.push({ system: system.name, reason });
        }
      }
    }
  } finally {
    lab?.close();
    removeScratch(root);
  }
  const rows = systems.flatMap((system) =>
    loads.flatMap((load) => rowsOf(system, load, results.get(keyOf(system, load)) ?? [])),
  );
  return { rows, missing };
}

const keyOf = (system: HttpSystem, load: Load): string =>
  `${system.name} ${load.connections} ${load.keepAlive}`;

function chosen(names: readonly string[]): HttpSystem[] {
  const systems = httpSystems();
  for (const name of names) {
    if (systems.some((system) => system.name === name)) continue;
    throw new ArrakisError('ARK_USAGE', `there is no system "${name}" to measure here`, {
      hint: `there are: ${systems.map((system) => system.name).join(', ')}`,
    });
  }
  return names.length === 0 ? systems : systems.filter((system) => names.includes(system.name));
}

async function measure(
  system: HttpSystem,
  lab: VethLab | null,
  root: string,
  loads: readonly Load[],
  options: HttpBenchOptions,
  results: Map<string, HttpResult[]>,
): Promise<void> {
  const server = await system.start(lab, root);
  try {
    for (const load of loads) {
      const result = await ask(server, lab, load, options);
      const key = keyOf(system, load);
      results.set(key, [...(results.get(key) ?? []), result]);
    }
  } finally {
    await server.stop();
  }
}

/** One run of the client. With many connections each side's work is on its own core; with one they take turns anyway. */
async function ask(
  server: Server,
  lab: VethLab | null,
  load: Load,
  options: HttpBenchOptions,
): Promise<HttpResult> {
  const isPolled = lab !== null && load.connections > 1;
  if (isPolled) {
    pollByTimer(lab.server, lab.client, SERVER_CPU, POLL_EVERY_US);
    allowSelfPolling(lab.client);
  }
  const job: HttpJob = {
    ...load,
    sourceAddress: lab === null ? SOFT_CLIENT : formatIpv4(lab.client.address),
    destinationAddress: server.address,
    destinationMac: server.mac,
    port: PORT,
    path: PAGE,
    warmupMs: options.warmupMs ?? WARMUP_MS,
    durationMs: options.durationMs,
    ...(isPolled ? { pollTowards: pathOf(lab.server.network) } : {}),
  };
  const client = startNode(new URL('./client.js', import.meta.url), server.client, {
    ...(lab === null ? {} : { cpus: [CLIENT_CPU], network: lab.client.network }),
    env: { ...server.clientEnv, ARRAKIS_BENCH: JSON.stringify(job) },
  });
  const stop = (): void => void client.stop();
  options.signal?.addEventListener('abort', stop);
  try {
    return await runToJson<HttpResult>(client, job.durationMs + CLIENT_SLACK_MS);
  } finally {
    options.signal?.removeEventListener('abort', stop);
    if (isPolled) {
      pollBySender(lab.server);
      pollBySender(lab.client);
    }
  }
}

function rowsOf(system: HttpSystem, load: Load, results: readonly HttpResult[]): BenchRow[] {
  if (results.length === 0) return [];
  const { connections, keepAlive } = load;
  const params = {
    connections,
    keepAlive: String(keepAlive),
    responseBytes: results[0]!.responseBytes,
    repetitions: results.length,
    failed: results.reduce((sum, result) => sum + result.failed, 0),
  };
  const base = { bench: 'http', system: system.name, link: system.link, params };
  const rates = results.map((result) => result.requestsPerSecond);
  const of = (key: 'p50' | 'p99' | 'p999') =>
    Math.round(median(results.map(({ rtt }) => rtt[key])) * 10) / 10;
  return [
    {
      ...base,
      metric: 'throughput',
      unit: 'requests/s',
      value: Math.round(median(rates)),
      low: Math.round(Math.min(...rates)),
      high: Math.round(Math.max(...rates)),
      boundBy: system.boundBy,
    },
    {
      ...base,
      metric: 'rtt',
      unit: 'us',
      value: of('p50'),
      p50: of('p50'),
      p99: of('p99'),
      p999: of('p999'),
    },
  ];
}
