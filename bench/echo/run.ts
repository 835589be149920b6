/** `arrakis bench echo`: every system with the same client, interleaved repetitions, medians. */
import { ArrakisError } from '../../src/base/errors.ts';
import { runToJson, startNode } from '../processes.ts';
import { type BenchRow, median } from '../stats.ts';
import type { ClientJob, ClientResult } from './client.ts';
import { VethLab } from './lab.ts';
import { allowSelfPolling, pathOf, pollBySender, pollByTimer } from './own-core.ts';
import { type EchoSystem, echoSystems, SERVER_CPU, type Server } from './systems.ts';

export interface EchoBenchOptions {
  repetitions: number;
  roundTrips: number;
  saturateMs: number;
  window: number;
  /** Names of the systems to run; all when empty. */
  only: readonly string[];
  /** Told what happens, one line at a time. */
  progress(line: string): void;
  /** A lab to use instead of one of our own. */
  lab?: VethLab;
  /** Ends the benchmark early: it rejects with the signal's reason once everything is stopped. */
  signal?: AbortSignal;
}

export const ECHO_DEFAULTS = {
  repetitions: 3,
  roundTrips: 20_000,
  saturateMs: 2_000,
  window: 512,
} as const;

const CLIENT_SLACK_MS = 60_000;
const PROBE_MS = 15_000;
const SOURCE_PORT = 40_007;

/** Rows for every system that can run here, and why each other one cannot. */
export async function benchEcho(
  options: EchoBenchOptions,
): Promise<{ rows: BenchRow[]; missing: { system: string; reason: string }[] }> {
  const wanted = chosen(options.only);
  const missing = wanted.flatMap((system) => {
    const reason = system.missing();
    return reason === null ? [] : [{ system: system.name, reason }];
  });
  const systems = wanted.filter((system) => system.missing() === null);
  const needsLab = systems.some((system) => system.link === 'veth');
  const lab = options.lab ?? (needsLab ? VethLab.create() : null);
  const results = new Map<EchoSystem, ClientResult[]>();
  try {
    for (let repetition = 1; repetition <= options.repetitions; repetition++) {
      for (const system of systems) {
        options.signal?.throwIfAborted();
        const which =
          options.repetitions > 1 ? `, run ${repetition} of ${options.repetitions}` : '';
        options.progress(`${system.name}${which}`);
        try {
          const result = await measureOnce(system, lab, options);
          results.set(system, [...(results.get(system) ?? []), result]);
        } catch (error) {
          options.signal?.throwIfAborted();
          const reason = (error as Error).message.split('\n').slice(0, 12).join('\n');
          missing.push({ system: system.name, reason });
        }
      }
    }
  } finally {
    if (options.lab === undefined) lab?.close();
  }
  const rows = systems.flatMap((s) => rowsOf(s, results.get(s) ?? [], options));
  return { rows, missing };
}

/** The systems called `names`; all when there are none. */
function chosen(names: readonly string[]): EchoSystem[] {
  const systems = echoSystems();
  for (const name of names) {
    if (systems.some((system) => system.name === name)) continue;
    throw new ArrakisError('ARK_USAGE', `there is no system "${name}" to measure here`, {
      hint: `there are: ${systems.map((system) => system.name).join(', ')}`,
    });
  }
  return names.length === 0 ? systems : systems.filter((system) => names.includes(system.name));
}

async function measureOnce(
  system: EchoSystem,
  lab: VethLab | null,
  options: EchoBenchOptions,
): Promise<ClientResult> {
  const wire = system.link === 'veth' ? lab : null;
  const server = await system.start(wire);
  try {
    if (wire === null) return await ask(server, null, options, {});
    // One in flight: the sides take turns, so it matters little whose core a softirq runs on; a timer would only delay.
    const { rtt } = await ask(server, wire, options, { saturateMs: 0 });
    pollByTimer(wire.server, wire.client, SERVER_CPU, system.pollEveryUs);
    allowSelfPolling(wire.client);
    try {
      const pollTowards = pathOf(wire.server.network);
      const { saturation } = await ask(server, wire, options, { roundTrips: 0, pollTowards });
      return { rtt, saturation };
    } finally {
      pollBySender(wire.server);
      pollBySender(wire.client);
    }
  } finally {
    await server.stop();
  }
}

/** Run the client once, on the wire when there is one. */
async function ask(
  server: Server,
  wire: VethLab | null,
  options: EchoBenchOptions,
  part: Partial<ClientJob>,
): Promise<ClientResult> {
  const job: ClientJob = {
    sourceAddress: server.clientAddress,
    sourcePort: SOURCE_PORT,
    destinationMac: server.mac,
    destinationAddress: server.address,
    destinationPort: server.port,
    roundTrips: options.roundTrips,
    saturateMs: options.saturateMs,
    window: options.window,
    probeMs: PROBE_MS,
    ...part,
  };
  const client = startNode(new URL('./client.js', import.meta.url), server.client, {
    ...(server.clientCpus === null ? {} : { cpus: server.clientCpus }),
    env: { ...server.clientEnv, ARRAKIS_BENCH: JSON.stringify(job) },
    ...(wire === null ? {} : { network: wire.client.network }),
  });
  const stop = (): void => void client.stop();
  options.signal?.addEventListener('abort', stop);
  try {
    return await runToJson<ClientResult>(client, job.saturateMs + CLIENT_SLACK_MS);
  } finally {
    options.signal?.removeEventListener('abort', stop);
  }
}

function rowsOf(
  system: EchoSystem,
  results: ClientResult[],
  options: EchoBenchOptions,
): BenchRow[] {
  const base = { bench: 'echo', system: system.name, link: system.link };
  const rows: BenchRow[] = [];
  const rates = results.flatMap((r) => (r.saturation ? [r.saturation.packetsPerSecond] : []));
  if (rates.length > 0) {
    rows.push({
      ...base,
      metric: 'throughput',
      unit: 'packets/s',
      value: Math.round(median(rates)),
      params: { frameBytes: 64, inFlight: options.window, repetitions: rates.length },
      boundBy: system.boundBy,
    });
  }
  const trips = results.flatMap((r) => (r.rtt ? [r.rtt] : []));
  if (trips.length > 0) {
    const of = (key: 'p50' | 'p99' | 'p999') => round1(median(trips.map((t) => t[key])));
    rows.push({
      ...base,
      metric: 'rtt',
      unit: 'us',
      value: of('p50'),
      p50: of('p50'),
      p99: of('p99'),
      p999: of('p999'),
      params: { frameBytes: 64, inFlight: 1, repetitions: trips.length },
    });
  }
  return rows;
}

const round1 = (value: number): number => Math.round(value * 10) / 10;
