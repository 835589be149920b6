/** Undoing, step by step, what was done on the way to something that failed or ends. */

/** Undo what was done, last first. Every step is tried; the first failure is thrown at the end. */
export class Cleanup {
  readonly #steps: (() => void)[] = [];

  push(step: () => void): void {
    this.#steps.push(step);
  }

  run(): void {
    let failure: unknown;
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        step();
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  }

  /** Undo because of `error`, and throw that, whatever else goes wrong. */
  fail(error: unknown): never {
    try {
      this.run();
    } catch {
      // The first failure is the one that explains the others.
    }
    throw error;
  }
}
