/**
 * Which processors an application's threads run on. An application comes back to those it had before, where its caches
 * may still be warm; the rest of its threads go to the least loaded of its core set. Pure: who runs where is an argument.
 */
import { LIMITS } from './limits.ts';

/** Hears what is remembered, for the next daemon. */
export interface PlacementNotes {
  put(who: string, cpus: readonly number[]): void;
  delete(who: string): void;
}

const NO_NOTES: PlacementNotes = { put() {}, delete() {} };

export class Placement {
  /** By user and program, the least recently placed first. */
  readonly #before = new Map<string, readonly number[]>();
  readonly #notes: PlacementNotes;

  constructor(notes: PlacementNotes = NO_NOTES) {
    this.#notes = notes;
  }

  /**
   * Processors for `threads` threads of `who`, out of `set`: at most one each, in the order in which threads take them.
   * `taken` are the processors of every other application, one entry a thread.
   */
  choose(
    who: string,
    set: readonly number[],
    threads: number,
    taken: Iterable<readonly number[]>,
  ): number[] {
    const load = new Map(set.map((cpu) => [cpu, 0]));
    for (const cpus of taken) {
      for (const cpu of cpus) if (load.has(cpu)) load.set(cpu, load.get(cpu)! + 1);
    }
    const before = this.#before.get(who)?.filter((cpu) => load.has(cpu)) ?? [];
    const others = [...load.keys()]
      .filter((cpu) => !before.includes(cpu))
      .sort((a, b) => load.get(a)! - load.get(b)! || a - b);
    const cpus = [...before, ...others].slice(0, threads);
    this.remember(who, cpus);
    return cpus;
  }

  /** `who` is on these processors now, and is to come back to them. */
  remember(who: string, cpus: readonly number[]): void {
    this.#before.delete(who);
    this.#before.set(who, cpus);
    this.#notes.put(who, cpus);
    if (this.#before.size <= LIMITS.placementsMax) return;
    for (const oldest of this.#before.keys()) {
      this.#before.delete(oldest);
      this.#notes.delete(oldest);
      return;
    }
  }
}
