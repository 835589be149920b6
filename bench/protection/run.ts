/**
 * `arrakis bench protection`: what each mechanism of protection costs a packet.
 *
 * - Every arrangement is a process of its own, so that the compiler sees one class of each kind.
 * - All of a system are there at once and sleep. Slices go round, so each is compared with its neighbours in time.
 * - Each repetition starts new processes: what the compiler makes of the same code differs.
 */
import { createInterface, type Interface } from 'node:readline';
import { isDeepStrictEqual } from 'node:util';
import { type Running, startNode } from '../processes.ts';
import type { BenchRow } from '../stats.ts';
import type { Ready, SliceJob, SliceResult } from './contest.ts';
import { type Entry, groups } from './contestants.ts';
import type { Findings } from './probe.ts';
import { type Measured, rowsOf } from './rows.ts';

export interface ProtectionBenchOptions {
  repetitions: number;
  /** Of each arrangement in a repetition. */
  slices: number;
  /** Length of a slice under load, milliseconds. */
  sliceMs: number;
  /** Round trips of a slice. */
  roundTrips: number;
  progress(line: string): void;
}

export const PROTECTION_DEFAULTS = {
  repetitions: 5,
  slices: 3,
  sliceMs: 100,
  roundTrips: 1000,
} as const;

const TRAFFIC_CPU = 0;
const DEVICE_CPU = 1;
/** A slice before the first that counts, this many times as long. */
const WARM = 3;
/** A slice in which others had more of the processors than this is measured again, this often at most. */
const SHARE_MIN = 0.95;
const TRIES_MAX = 3;
const ANSWER_MS = 60_000;

/** Throw when what should be off is on, or what should be on is off. */
export function checkFindings({ system, without, expected }: Entry, found: Findings): void {
  if (isDeepStrictEqual(found, expected)) return;
  const [is, should] = [found, expected].map((findings) => JSON.stringify(findings));
  throw new Error(`${system} without ${without} is not what it should be: ${is}, not ${should}`);
}

/** A contestant's process, and its answers. */
class Started {
  readonly entry: Entry;
  readonly #running: Running;
  readonly #lines: Interface;
  readonly #answers: AsyncIterator<string>;

  private constructor(entry: Entry, running: Running) {
    this.entry = entry;
    this.#running = running;
    this.#lines = createInterface({ input: running.child.stdout! });
    this.#answers = this.#lines[Symbol.asyncIterator]();
  }

  /** Start number `index` of `group`, and check what it finds of itself. */
  static async start(entry: Entry, group: number, index: number): Promise<Started> {
    const args = [group, index, DEVICE_CPU].map(String);
    const script = new URL('./contestant.js', import.meta.url);
    const started = new Started(entry, startNode(script, args, { cpus: [TRAFFIC_CPU] }));
    try {
      checkFindings(entry, (await started.#answer<Ready>()).findings);
      return started;
    } catch (error) {
      await started.stop();
      throw error;
    }
  }

  async measure(job: SliceJob): Promise<SliceResult> {
    this.#running.child.stdin!.write(`${JSON.stringify(job)}\n`);
    return await this.#answer<SliceResult>();
  }

  async #answer<T>(): Promise<T> {
    const timer = setTimeout(() => this.#running.child.kill('SIGKILL'), ANSWER_MS);
    try {
      const { value, done } = await this.#answers.next();
      if (done !== true) return JSON.parse(value) as T;
    } finally {
      clearTimeout(timer);
    }
    const code = await this.#running.exited;
    const { entry } = this;
    throw new Error(
      `${entry.system} without ${entry.without} ended with ${code}:\n${this.#running.output.trim()}`,
    );
  }

  /** Let it clean up; insist when it does not. */
  async stop(): Promise<void> {
    this.#running.child.stdin!.end();
    const timer = setTimeout(() => void this.#running.stop(), ANSWER_MS / 10);
    await this.#running.exited;
    clearTimeout(timer);
    this.#lines.close();
  }
}

/** Rows for every arrangement that can run here, and for the price of each mechanism. */
export async function benchProtection(options: ProtectionBenchOptions): Promise<BenchRow[]> {
  const measured: Measured[] = groups().flatMap((entries) =>
    entries.map((entry) => ({ entry, repetitions: [] })),
  );
  for (let repetition = 1; repetition <= options.repetitions; repetition++) {
    for (const [group, entries] of groups().entries()) {
      const { system } = entries[0]!;
      options.progress(`${system}, run ${repetition} of ${options.repetitions}`);
      const results = await measureGroup(entries, group, options);
      for (const [i, slices] of results.entries()) {
        const { without } = entries[i]!;
        const found = measured.find(
          (m) => m.entry.system === system && m.entry.without === without,
        );
        found!.repetitions.push(slices);
      }
    }
  }
  return rowsOf(measured);
}

/** The slices of each entry, in order. */
async function measureGroup(
  entries: readonly Entry[],
  group: number,
  options: ProtectionBenchOptions,
): Promise<SliceResult[][]> {
  const { slices, sliceMs: ms, roundTrips } = options;
  const all: Started[] = [];
  const results: SliceResult[][] = entries.map(() => []);
  try {
    for (const [i, entry] of entries.entries()) all.push(await Started.start(entry, group, i));
    for (const one of all) await one.measure({ ms: WARM * ms, roundTrips });
    for (let slice = 0; slice < slices; slice++) {
      for (const [i, one] of all.entries()) {
        results[i]!.push(await undisturbed(one, { ms, roundTrips }));
      }
    }
  } finally {
    await Promise.all(all.map((one) => one.stop()));
  }
  return results;
}

/** The slice that was disturbed least, of as few as will do. */
async function undisturbed(one: Started, job: SliceJob): Promise<SliceResult> {
  let best = await one.measure(job);
  for (let tries = 1; tries < TRIES_MAX && best.share < SHARE_MIN; tries++) {
    const next = await one.measure(job);
    if (next.share > best.share) best = next;
  }
  return best;
}
