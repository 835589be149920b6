/** `arrakis bench scaling`: UDP echo with one thread and with more, interleaved repetitions, medians. */
import type { ClientJob, ClientResult } from '../echo/client.ts';
import { VethLab } from '../echo/lab.ts';
import { runToJson, startNode } from '../processes.ts';
import { type BenchRow, median } from '../stats.ts';
import { type ScalingSystem, scalingSystems } from './systems.ts';

export interface ScalingOptions {
  repetitions: number;
  seconds: number;
  /** Requests in flight. */
  window: number;
  /** A power of two. */
  flows: number;
  progress(line: string): void;
}

export const SCALING_DEFAULTS = { repetitions: 3, seconds: 2, window: 256, flows: 64 } as const;

/** Queue pairs that are compared. */
const QUEUES = [1, 2] as const;
const SOURCE_PORT = 40_000;
const PROBE_MS = 15_000;
const SLACK_MS = 60_000;

/** One row for each system and number of queue pairs. */
export async function benchScaling(options: ScalingOptions): Promise<BenchRow[]> {
  const systems = scalingSystems();
  const lab = systems.some(({ link }) => link === 'veth') ? VethLab.create() : null;
  const rates = new Map<string, number[]>();
  try {
    for (let repetition = 1; repetition <= options.repetitions; repetition++) {
      for (const system of systems) {
        for (const queues of QUEUES) {
          options.progress(`${system.name}, ${queues} queues, run ${repetition}`);
          const rate = await measure(system, lab, queues, options);
          const key = `${system.name} ${queues}`;
          rates.set(key, [...(rates.get(key) ?? []), rate]);
        }
      }
    }
  } finally {
    lab?.close();
  }
  const { window, flows, repetitions } = options;
  return systems.flatMap(({ name, link, boundBy }) =>
    QUEUES.map((queues) => ({
      bench: 'scaling',
      system: name,
      link,
      metric: 'throughput',
      unit: 'packets/s',
      value: Math.round(median(rates.get(`${name} ${queues}`)!)),
      params: { queues, flows, frameBytes: 64, inFlight: window, repetitions },
      boundBy: boundBy(queues),
    })),
  );
}

async function measure(
  system: ScalingSystem,
  lab: VethLab | null,
  queues: number,
  options: ScalingOptions,
): Promise<number> {
  const server = await system.start(lab, queues);
  try {
    const job: ClientJob = {
      sourceAddress: server.clientAddress,
      sourcePort: SOURCE_PORT,
      flows: options.flows,
      destinationMac: server.mac,
      destinationAddress: server.address,
      destinationPort: server.port,
      roundTrips: 0,
      saturateMs: options.seconds * 1000,
      window: options.window,
      probeMs: PROBE_MS,
    };
    const client = startNode(new URL('../echo/client.js', import.meta.url), server.client, {
      ...(server.clientCpus === null ? {} : { cpus: server.clientCpus }),
      env: { ...server.clientEnv, ARRAKIS_BENCH: JSON.stringify(job) },
      ...(system.link === 'veth' ? { network: lab!.client.network } : {}),
    });
    const result = await runToJson<ClientResult>(client, job.saturateMs + SLACK_MS);
    return result.saturation!.packetsPerSecond;
  } finally {
    await server.stop();
  }
}
