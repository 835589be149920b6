/** Virtual time, and what is to happen in it. */

interface Entry {
  readonly dueMs: number;
  readonly body: () => void;
}

export class Clock {
  nowMs = 1000;
  /** By time, latest first. */
  readonly #entries: Entry[] = [];

  get nextDueMs(): number {
    return this.#entries.at(-1)?.dueMs ?? Number.POSITIVE_INFINITY;
  }

  after(ms: number, body: () => void): void {
    const dueMs = this.nowMs + ms;
    let at = this.#entries.length;
    while (at > 0 && this.#entries[at - 1]!.dueMs <= dueMs) at--;
    this.#entries.splice(at, 0, { dueMs, body });
  }

  /** Do what is due now. How much that was. */
  run(): number {
    let count = 0;
    for (; this.nextDueMs <= this.nowMs; count++) this.#entries.pop()!.body();
    return count;
  }
}
