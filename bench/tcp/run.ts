/**
 * `arrakis bench tcp`: bulk transfer between two programs, and what an idle connection costs in memory. The sink has
 * processor 0 and the source 1, in every system.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatIpv4, formatMac } from '../../src/base/address.ts';
import { ArrakisError } from '../../src/base/errors.ts';
import { LabDaemon, VethLab } from '../echo/lab.ts';
import { type Running, runToJson, start, startNode } from '../processes.ts';
import { type BenchRow, median } from '../stats.ts';
import type { BulkJob, BulkResult, IdleResult } from './job.ts';

export interface TcpBenchOptions {
  readonly repetitions: number;
  readonly durationMs: number;
  readonly connections: readonly number[];
  /** Connections that are opened for the figure of memory; 0: leave it out. */
  readonly idle: number;
  /** Names of the systems to run; all when empty. */
  readonly only: readonly string[];
  progress(line: string): void;
}

export const TCP_DEFAULTS = {
  repetitions: 3,
  durationMs: 2000,
  connections: [1, 8],
  idle: 10_000,
} as const;

const SERVER_CPU = 0;
const CLIENT_CPU = 1;
const PORT = 5001;
const WARMUP_MS = 500;
const CLIENT_SLACK_MS = 60_000;
const SOFT_SINK = '10.77.0.7';
const SOFT_SOURCE = '10.77.0.8';
const FRAMES = 8192;
const SINK = fileURLToPath(new URL('./sink.js', import.meta.url));

interface TcpSystem {
  readonly name: string;
  readonly link: string;
  readonly boundBy: string;
  missing(): string | null;
  measure(connections: number, options: TcpBenchOptions): Promise<BulkResult>;
}

const isRoot = (): boolean => process.getuid?.() === 0;

function iperfMissing(): string | null {
  if (!isRoot()) return 'namespaces are for root';
  const dirs = (process.env.PATH ?? '').split(':').concat('/usr/bin');
  const isThere = dirs.some((dir) => fs.existsSync(path.join(dir, 'iperf3')));
  return isThere ? null : 'iperf3 is not installed (package iperf3)';
}

/** iperf3 between two namespaces: the kernel's TCP at both ends, with or without the offloads of its veth. */
function kernel(name: string, keepOffloads: boolean, boundBy: string): TcpSystem {
  return {
    name,
    link: 'veth',
    boundBy,
    missing: iperfMissing,
    async measure(connections, { durationMs }) {
      const lab = VethLab.create({ keepOffloads });
      const server = start('iperf3', ['-s', '-1', '-p', String(PORT)], {
        cpus: [SERVER_CPU],
        network: lab.server.network,
      });
      try {
        await listening(server);
        const seconds = String(Math.max(1, Math.round(durationMs / 1000)));
        const address = formatIpv4(lab.server.address);
        const args = ['-c', address, '-p', String(PORT), '-t', seconds, '-O', '1', '-J'];
        const client = start('iperf3', [...args, '-P', String(connections)], {
          cpus: [CLIENT_CPU],
          network: lab.client.network,
        });
        await client.exited;
        return resultOfIperf(client.output);
      } finally {
        await server.stop();
        lab.close();
      }
    },
  };
}

const LISTENING_MS = 10_000;

async function listening(server: Running): Promise<void> {
  const end = performance.now() + LISTENING_MS;
  while (!server.output.includes('listening') && performance.now() < end && server.alive) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

interface IperfReport {
  error?: string;
  end?: {
    sum_received?: { bytes: number; bits_per_second: number };
    sum_sent?: { retransmits?: number };
  };
}

function resultOfIperf(output: string): BulkResult {
  const { error, end } = JSON.parse(output) as IperfReport;
  if (end?.sum_received === undefined) throw new Error(`iperf3: ${error ?? 'no result'}`);
  const { bytes, bits_per_second } = end.sum_received;
  const retransmits = end.sum_sent?.retransmits ?? 0;
  return { bytes, gbitPerSecond: bits_per_second / 1e9, retransmits };
}

function afXdp(mode: 'direct' | 'switched'): TcpSystem {
  return {
    name: `arrakis/af-xdp-${mode}`,
    link: 'veth',
    boundBy: 'the AF_XDP copy path of veth, a frame of 1,514 bytes at a time, and checksums by us',
    missing: () => (isRoot() ? null : 'AF_XDP is for root'),
    async measure(connections, options) {
      const lab = VethLab.create();
      const daemon = await LabDaemon.start(lab.server.network, ['--no-tap']);
      const spec = `${lab.server.interfaceName},mode=${mode},port=tcp:${PORT},frames=${FRAMES}`;
      const placed = ['--vnic', spec, '--cpu', String(SERVER_CPU), '--user', 'nobody'];
      const sink = daemon.run([...placed, '--', SINK], [SERVER_CPU]);
      try {
        const ends = {
          sourceAddress: formatIpv4(lab.client.address),
          destinationAddress: formatIpv4(lab.server.address),
          destinationMac: formatMac(lab.server.mac),
        };
        return await source(['xdp', lab.client.interfaceName], jobOf(ends, connections, options), {
          cpus: [CLIENT_CPU],
          network: lab.client.network,
        });
      } finally {
        await sink.stop();
        await daemon.close();
        lab.close();
      }
    },
  };
}

function softNic(): TcpSystem {
  return {
    name: 'arrakis/virtio',
    link: 'softnic',
    boundBy:
      'three processes on two processors, and four copies: write, twice by the device, none to read',
    missing: () => null,
    async measure(connections, options) {
      const nicCpu = ['--nic-cpu', String(CLIENT_CPU)];
      const daemon = await LabDaemon.start(undefined, ['--no-tap', ...nicCpu]);
      const user = isRoot() ? ['--user', 'nobody'] : [];
      const spec = `soft0,ip=${SOFT_SINK}/24,frames=${FRAMES}`;
      const sink = daemon.run(['--vnic', spec, ...user, '--', SINK]);
      try {
        const ends = {
          sourceAddress: SOFT_SOURCE,
          destinationAddress: SOFT_SINK,
          destinationMac: null,
        };
        const way = ['vnic', `soft0,ip=${SOFT_SOURCE}/24,frames=${FRAMES}`];
        return await source(way, jobOf(ends, connections, options), { env: daemon.env });
      } finally {
        await sink.stop();
        await daemon.close();
      }
    },
  };
}

function jobOf(
  ends: Pick<BulkJob, 'sourceAddress' | 'destinationAddress' | 'destinationMac'>,
  connections: number,
  { durationMs }: TcpBenchOptions,
): BulkJob {
  return { ...ends, port: PORT, connections, warmupMs: WARMUP_MS, durationMs };
}

function source(
  way: string[],
  job: BulkJob,
  options: Parameters<typeof startNode>[2],
): Promise<BulkResult> {
  const client = startNode(new URL('./source.js', import.meta.url), way, {
    ...options,
    env: { ...options?.env, ARRAKIS_BENCH: JSON.stringify(job) },
  });
  return runToJson<BulkResult>(client, job.durationMs + CLIENT_SLACK_MS);
}

export function tcpSystems(): TcpSystem[] {
  return [
    kernel('kernel/iperf3', true, "the kernel's TCP and one copy a side; 64 KiB cross at a time"),
    kernel('kernel/iperf3-no-offload', false, 'the same a frame at a time, checksums by software'),
    softNic(),
    afXdp('direct'),
    afXdp('switched'),
  ];
}

/** Rows for every system that can run here, and why each other one cannot. */
export async function benchTcp(
  options: TcpBenchOptions,
): Promise<{ rows: BenchRow[]; missing: { system: string; reason: string }[] }> {
  const all = tcpSystems();
  for (const name of options.only) {
    if (all.some((system) => system.name === name)) continue;
    throw new ArrakisError('ARK_USAGE', `there is no system "${name}" to measure here`, {
      hint: `there are: ${all.map((system) => system.name).join(', ')}`,
    });
  }
  const wanted = all.filter(({ name }) => options.only.length === 0 || options.only.includes(name));
  const missing: { system: string; reason: string }[] = [];
  const results = new Map<string, BulkResult[]>();
  for (let repetition = 1; repetition <= options.repetitions; repetition++) {
    for (const system of wanted) {
      const reason = system.missing();
      if (reason !== null) {
        if (repetition === 1) missing.push({ system: system.name, reason });
        continue;
      }
      for (const connections of options.connections) {
        options.progress(`${system.name}, ${connections} connections, run ${repetition}`);
        const key = `${system.name} ${connections}`;
        try {
          const result = await system.measure(connections, options);
          results.set(key, [...(results.get(key) ?? []), result]);
        } catch (error) {
          const text = (error as Error).message.split('\n').slice(0, 12).join('\n');
          missing.push({ system: `${system.name}, ${connections} connections`, reason: text });
        }
      }
    }
  }
  const rows = wanted.flatMap((system) =>
    options.connections.flatMap((connections) =>
      rowOf(system, connections, results.get(`${system.name} ${connections}`) ?? []),
    ),
  );
  if (options.idle > 0) rows.push(...(await idleRows(options)));
  return { rows, missing };
}

function rowOf(system: TcpSystem, connections: number, results: readonly BulkResult[]): BenchRow[] {
  if (results.length === 0) return [];
  const rates = results.map(({ gbitPerSecond }) => gbitPerSecond);
  const retransmits = results.reduce((sum, result) => sum + result.retransmits, 0);
  const round = (value: number): number => Math.round(value * 1000) / 1000;
  return [
    {
      bench: 'tcp',
      system: system.name,
      link: system.link,
      metric: 'bulk',
      unit: 'Gbit/s',
      value: round(median(rates)),
      low: round(Math.min(...rates)),
      high: round(Math.max(...rates)),
      params: { connections, repetitions: results.length, retransmits },
      boundBy: system.boundBy,
    },
  ];
}

/** Both ends count: a figure is for one of them. */
async function idleRows(options: TcpBenchOptions): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  // The kernel's count is bounded by our descriptors.
  const counts = { arrakis: options.idle, kernel: Math.min(options.idle, 3_000) } as const;
  for (const whose of isRoot() ? (['kernel', 'arrakis'] as const) : (['arrakis'] as const)) {
    options.progress(`memory of idle connections, ${whose}`);
    const script = fileURLToPath(new URL('./idle.js', import.meta.url));
    const args = ['--expose-gc', script, whose, String(counts[whose])];
    const result = await runToJson<IdleResult>(start(process.execPath, args), CLIENT_SLACK_MS);
    rows.push({
      bench: 'tcp',
      system: whose === 'kernel' ? 'kernel/sockets' : 'arrakis/extaris',
      link: whose === 'kernel' ? 'loopback' : 'memory',
      metric: 'idle-connection',
      unit: 'bytes',
      value: result.bytesPerConnection,
      params: { connections: result.connections },
      boundBy:
        whose === 'kernel'
          ? "the kernel's caches of sockets, files and their names; not what the program keeps"
          : 'objects and arrays of the stack; not what the program keeps',
    });
  }
  return rows;
}
