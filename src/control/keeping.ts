/**
 * Safekeeping: what of the daemon outlives the daemon. States go into the journal, descriptors to the keeper, under the
 * same kind and id.
 *
 * - `put` when an object comes to be or changes, `delete` when it ends. Descriptors are deposited before the journal
 *   speaks of them and taken back after it no longer does, so whatever is in the journal has its descriptors.
 * - At the start of a daemon `claim` hands out what the one before had. What nobody claimed is given up by `settle`.
 */
import fs from 'node:fs';
import { closeLater } from '../ffi/fd.ts';
import { Journal, type JournalId, type JournalRecord } from './journal.ts';
import { KeeperClient } from './keeper.ts';
import type { Log } from './log.ts';
import { journalPath } from './paths.ts';

/** Where objects note what is to outlive the daemon. */
export interface Keeping {
  /** The object is `state` (plain JSON) from now on; with `fds`, which stay the caller's and open, in place of others. */
  put(kind: string, id: JournalId, state: unknown, fds?: readonly number[]): void;
  /** The object is no more, and its descriptors may be closed. Idempotent. */
  delete(kind: string, id: JournalId): void;
}

/** For a control plane without a run directory. */
export const NOTHING_KEPT: Keeping = { put: () => {}, delete: () => {} };

/** An object of the daemon before this one. Whoever claims it owns the descriptors. */
export interface Claimed {
  readonly state: unknown;
  readonly fds: readonly number[];
}

export interface KeepingOptions {
  /** Run directory, claimed. */
  readonly dir: string;
  /** How long things are kept when the daemon is killed and no other comes. */
  readonly keepMs: number;
  readonly log: Log;
  readonly logFd: number;
}

const labelOf = (kind: string, id: JournalId): string => `${kind}:${id}`;

export class Safekeeping implements Keeping {
  /** There was a daemon before that did not end in order. */
  readonly isInherited: boolean;
  readonly #journal: Journal;
  readonly #keeper: KeeperClient;
  readonly #records = new Map<string, JournalRecord>();
  /** Descriptors of the daemon before, until they are claimed. */
  readonly #fds: Map<string, number[]>;
  readonly #deposited = new Set<string>();

  private constructor(options: KeepingOptions, records: readonly JournalRecord[]) {
    const { dir, log } = options;
    this.isInherited = records.length > 0;
    this.#journal = new Journal(journalPath(dir), records, log);
    this.#keeper = new KeeperClient(options);
    this.#fds = this.#keeper.open();
    for (const record of records) this.#records.set(labelOf(record.kind, record.id), record);
  }

  /** Throws ARK_UNSUPPORTED, and has touched nothing, when a later version of the daemon wrote the journal. */
  static open(options: KeepingOptions): Safekeeping {
    const { dir, log } = options;
    const { records, refused } = Journal.read(journalPath(dir));
    for (const what of refused) log('error', 'not taken over', { what });
    return new Safekeeping(options, records);
  }

  /** Whether a journal lies in `dir`: its daemon did not end in order, or runs. */
  static isIn(dir: string): boolean {
    return fs.existsSync(journalPath(dir));
  }

  /** Ids of what the daemon before had of this kind and nobody has claimed, oldest state first. */
  unclaimed(kind: string): JournalId[] {
    return [...this.#records.values()].filter((r) => r.kind === kind).map((r) => r.id);
  }

  /** What the state of an unclaimed object was; undefined when there is none. */
  peek(kind: string, id: JournalId): unknown {
    return this.#records.get(labelOf(kind, id))?.state;
  }

  /** Take an object over, when it has `fdsMin` descriptors at least; otherwise null, and it is given up. */
  claim(kind: string, id: JournalId, fdsMin = 0): Claimed | null {
    const label = labelOf(kind, id);
    const record = this.#records.get(label);
    const fds = this.#fds.get(label) ?? [];
    if (record === undefined || fds.length < fdsMin) return null;
    this.#records.delete(label);
    this.#fds.delete(label);
    if (fds.length > 0) {
      this.#deposited.add(label);
      this.#keeper.adopt(label, fds);
    }
    return { state: record.state, fds };
  }

  /** Give up what nobody claimed; what it was, as `kind id`. */
  settle(): string[] {
    const given = [...this.#records.values()];
    for (const { kind, id } of given) this.#journal.delete(kind, id);
    for (const [label, fds] of this.#fds) {
      this.#keeper.delete(label);
      for (const fd of fds) closeLater(fd);
    }
    this.#records.clear();
    this.#fds.clear();
    return given.map(({ kind, id }) => `${kind} ${id}`);
  }

  put(kind: string, id: JournalId, state: unknown, fds?: readonly number[]): void {
    const label = labelOf(kind, id);
    if (fds !== undefined && fds.length > 0) {
      this.#deposited.add(label);
      this.#keeper.put(label, fds);
    }
    this.#journal.put(kind, id, state);
    if (fds !== undefined && fds.length === 0) this.#withdraw(label);
  }

  delete(kind: string, id: JournalId): void {
    this.#journal.delete(kind, id);
    this.#withdraw(labelOf(kind, id));
  }

  #withdraw(label: string): void {
    if (this.#deposited.delete(label)) this.#keeper.delete(label);
  }

  /** Orderly end: nothing is to outlive us. Idempotent. */
  close(): void {
    this.#journal.remove();
    this.#keeper.close();
  }
}
