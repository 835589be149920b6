/**
 * `arrakis bench ipc`: two processes that exchange small messages, over an Arrakis endpoint and by the kernel. The server
 * has processor 0 and the client 1, in every system; each client takes its own two clock readings a round trip.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ArrakisError } from '../../src/base/errors.ts';
import { LabDaemon } from '../echo/lab.ts';
import {
  makeScratch,
  type Running,
  removeScratch,
  runToJson,
  start,
  startNode,
} from '../processes.ts';
import { type BenchRow, median } from '../stats.ts';
import type { IpcJob, IpcResult } from './job.ts';

export interface IpcBenchOptions extends IpcJob {
  readonly repetitions: number;
  /** Names of the systems to run; all when empty. */
  readonly only: readonly string[];
  progress(line: string): void;
}

export const IPC_DEFAULTS = {
  bytes: 56,
  warmup: 5_000,
  roundTrips: 50_000,
  messages: 2_000_000,
  repetitions: 3,
} as const;

const SERVER_CPU = 0;
const CLIENT_CPU = 1;
const READY_MS = 20_000;
const CLIENT_MS = 120_000;
/** Systems that make an object or a system call a message are given fewer of them, so that a run ends in seconds. */
const SLOW_SHARE = 0.1;

interface IpcSystem {
  readonly name: string;
  readonly link: string;
  readonly boundBy: string;
  /** Of the messages one way, and of the round trips. */
  readonly share: number;
  missing(): string | null;
  measure(job: IpcJob): Promise<IpcResult>;
}

const ARRAKIS_END = new URL('./arrakis-end.js', import.meta.url);
const NET_END = new URL('./net-end.js', import.meta.url);
const C_SOURCE = fileURLToPath(new URL('../../../bench/peers/ipc.c', import.meta.url));

/** The client's result; both processes have ended then. */
async function between(
  script: URL,
  args: (role: string) => string[],
  env: Record<string, string>,
  job: IpcJob,
): Promise<IpcResult> {
  const all = { ...env, ARRAKIS_BENCH: JSON.stringify(job) };
  const end = (role: string, cpu: number): Running =>
    startNode(script, args(role), { cpus: [cpu], env: all });
  const server = end('server', SERVER_CPU);
  try {
    const deadline = performance.now() + READY_MS;
    while (!server.output.includes('ready')) {
      if (!server.alive || performance.now() > deadline) throw new Error(server.output);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return await runToJson<IpcResult>(end('client', CLIENT_CPU), CLIENT_MS);
  } finally {
    await server.stop();
  }
}

async function withDirectory<T>(use: (dir: string) => Promise<T>): Promise<T> {
  const dir = makeScratch('arrakis-ipc-');
  try {
    return await use(dir);
  } finally {
    removeScratch(dir);
  }
}

function arrakis(kind: 'link' | 'channel', boundBy: string): IpcSystem {
  return {
    name: `arrakis/${kind}`,
    link: 'memory',
    boundBy,
    share: kind === 'link' ? 1 : SLOW_SHARE,
    missing: () => null,
    async measure(job) {
      const daemon = await LabDaemon.start(undefined, ['--no-tap']);
      try {
        return await between(ARRAKIS_END, (role) => [kind, role], daemon.env, job);
      } finally {
        await daemon.close();
      }
    },
  };
}

function kernelC(kind: 'unix' | 'unix-poll' | 'pipe'): IpcSystem {
  return {
    name: `c/${kind}`,
    link: kind === 'pipe' ? 'pipe' : 'unix',
    boundBy:
      kind === 'unix-poll'
        ? 'the system calls, of which most find nothing'
        : 'two system calls a message, and waking the other process',
    share: 1,
    missing: () => {
      const paths = (process.env.PATH ?? '').split(':').concat('/usr/bin');
      return paths.some((dir) => fs.existsSync(path.join(dir, 'gcc')))
        ? null
        : 'gcc is not installed';
    },
    measure: (job) =>
      withDirectory((dir) => {
        const binary = path.join(dir, 'ipc');
        execFileSync('gcc', ['-O2', '-Wall', '-o', binary, C_SOURCE]);
        const { bytes, warmup, roundTrips, messages } = job;
        const numbers = [SERVER_CPU, CLIENT_CPU, bytes, warmup, roundTrips, messages];
        return runToJson<IpcResult>(start(binary, [kind, ...numbers.map(String)]), CLIENT_MS);
      }),
  };
}

const nodeNet: IpcSystem = {
  name: 'node/unix',
  link: 'unix',
  boundBy: "libuv's events and Buffers, and two system calls a message",
  share: SLOW_SHARE,
  missing: () => null,
  measure: (job) =>
    withDirectory((dir) => between(NET_END, (role) => [role, path.join(dir, 'socket')], {}, job)),
};

const SYSTEMS: readonly IpcSystem[] = [
  kernelC('unix'),
  kernelC('unix-poll'),
  kernelC('pipe'),
  nodeNet,
  arrakis('link', 'a cache line that goes from one core to the other and back'),
  arrakis('channel', 'JSON, a promise, and a turn of the event loop a request'),
];

/** Rows for every system that can run here, and why each other one cannot. */
export async function benchIpc(
  options: IpcBenchOptions,
): Promise<{ rows: BenchRow[]; missing: { system: string; reason: string }[] }> {
  const unknown = options.only.find((name) => SYSTEMS.every((system) => system.name !== name));
  if (unknown !== undefined) {
    throw new ArrakisError('ARK_USAGE', `there is no system "${unknown}" to measure here`, {
      hint: `there are: ${SYSTEMS.map(({ name }) => name).join(', ')}`,
    });
  }
  const missing: { system: string; reason: string }[] = [];
  const results = new Map<IpcSystem, IpcResult[]>();
  for (const system of SYSTEMS) {
    if (options.only.length > 0 && !options.only.includes(system.name)) continue;
    const reason = os.availableParallelism() < 2 ? 'it takes two processors' : system.missing();
    if (reason === null) results.set(system, []);
    else missing.push({ system: system.name, reason });
  }
  for (let n = 1; n <= options.repetitions; n++) {
    for (const [system, list] of results) {
      options.progress(`${system.name}, run ${n} of ${options.repetitions}`);
      const { bytes, warmup } = options;
      const roundTrips = Math.ceil(options.roundTrips * system.share);
      const messages = Math.ceil(options.messages * system.share);
      try {
        list.push(await system.measure({ bytes, warmup, roundTrips, messages }));
      } catch (error) {
        const reason = (error as Error).message.split('\n').slice(0, 6).join('\n');
        missing.push({ system: system.name, reason });
      }
    }
  }
  return { rows: [...results].flatMap(([system, list]) => rowsOf(system, list, options)), missing };
}

function rowsOf(system: IpcSystem, list: IpcResult[], options: IpcBenchOptions): BenchRow[] {
  if (list.length === 0) return [];
  const { name, link, boundBy } = system;
  const base = { bench: 'ipc', system: name, link, boundBy };
  const params = { bytes: options.bytes, repetitions: list.length };
  const of = (key: 'p50' | 'p99' | 'p999') =>
    Math.round(median(list.map(({ rtt }) => rtt[key])) * 1000) / 1000;
  const rate = Math.round(median(list.map((result) => result.messagesPerSecond)));
  const [p50, p99, p999] = [of('p50'), of('p99'), of('p999')];
  return [
    { ...base, metric: 'rtt', unit: 'us', value: p50, p50, p99, p999, params },
    { ...base, metric: 'throughput', unit: 'messages/s', value: rate, params },
  ];
}
