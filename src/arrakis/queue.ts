/** What events bring and an async loop takes: it waits in between, and keeps the process alive while somebody waits. */

const DONE = { value: undefined, done: true } as const;
/** The longest that a timer runs. */
const FOR_EVER_MS = 2 ** 31 - 1;

export class EventQueue<T> implements AsyncIterableIterator<T> {
  readonly #items: T[] = [];
  readonly #readers: ((result: IteratorResult<T>) => void)[] = [];
  #keepAlive: NodeJS.Timeout | null = null;
  #ended = false;

  /** Items that nobody has taken. */
  get length(): number {
    return this.#items.length;
  }

  get ended(): boolean {
    return this.#ended;
  }

  push(item: T): void {
    const reader = this.#readers.shift();
    if (reader === undefined) this.#items.push(item);
    else reader({ value: item, done: false });
    this.#settle();
  }

  /** No more will come; what is there can still be taken. Idempotent. */
  end(): void {
    this.#ended = true;
    for (const reader of this.#readers.splice(0)) reader(DONE);
    this.#settle();
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#items.length > 0) {
      return Promise.resolve({ value: this.#items.shift()!, done: false });
    }
    if (this.#ended) return Promise.resolve(DONE);
    return new Promise((resolve) => {
      this.#readers.push(resolve);
      this.#keepAlive ??= setInterval(() => {}, FOR_EVER_MS);
    });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #settle(): void {
    if (this.#readers.length > 0 || this.#keepAlive === null) return;
    clearInterval(this.#keepAlive);
    this.#keepAlive = null;
  }
}
