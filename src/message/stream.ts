/** The receiving end of a stream of answers: an async iterator with a bounded buffer. */
import type { ArrakisError } from '../base/errors.ts';
import { CHANNEL_LIMITS } from './limits.ts';

export interface StreamOptions {
  /** Until the next item; 0: for ever. */
  readonly timeoutMs: number;
  readonly late: (timeoutMs: number) => ArrakisError;
  /** `count` more items may come. */
  readonly credit: (count: number) => void;
  /** Nobody reads on. */
  readonly cancel: () => void;
}

interface Reader<T> {
  resolve(result: IteratorResult<T>): void;
  reject(error: ArrakisError): void;
  timer: NodeJS.Timeout | null;
}

const WINDOW = CHANNEL_LIMITS.streamWindow;
const DONE = { value: undefined, done: true } as const;

export class Stream<T> implements AsyncIterableIterator<T> {
  readonly #options: StreamOptions;
  readonly #items: T[] = [];
  readonly #readers: Reader<T>[] = [];
  /** Items taken since credit was given last. */
  #taken = 0;
  /** Items that may still come. */
  #expected: number = WINDOW;
  #ended = false;
  #error: ArrakisError | null = null;

  constructor(options: StreamOptions) {
    this.#options = options;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<T>> {
    if (this.#items.length > 0) {
      const value = this.#items.shift()!;
      this.#took();
      return Promise.resolve({ value, done: false });
    }
    if (this.#error !== null) {
      const error = this.#error;
      this.#error = null;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve(DONE);
    return new Promise((resolve, reject) => {
      const { timeoutMs, late, cancel } = this.#options;
      const onLate = (): void => {
        cancel();
        this.fail(late(timeoutMs));
      };
      const timer = timeoutMs === 0 ? null : setTimeout(onLate, timeoutMs);
      this.#readers.push({ resolve, reject, timer });
    });
  }

  /** The loop was left: the rest is cancelled. */
  return(): Promise<IteratorResult<T>> {
    if (!this.#ended) this.#options.cancel();
    this.#items.length = 0;
    this.end();
    return Promise.resolve(DONE);
  }

  /** False when the sender had no credit for it. */
  push(value: T): boolean {
    if (this.#expected === 0) return false;
    this.#expected--;
    const reader = this.#readers.shift();
    if (reader === undefined) this.#items.push(value);
    else {
      settle(reader).resolve({ value, done: false });
      this.#took();
    }
    return true;
  }

  /** The answer is one value. */
  single(value: T): void {
    this.push(value);
    this.end();
  }

  end(): void {
    this.#ended = true;
    for (const reader of this.#readers.splice(0)) settle(reader).resolve(DONE);
  }

  /** What came before is read first, then `error` is thrown. */
  fail(error: ArrakisError): void {
    if (this.#ended) return;
    this.#ended = true;
    const reader = this.#readers.shift();
    if (reader === undefined) this.#error = error;
    else settle(reader).reject(error);
    this.end();
  }

  #took(): void {
    if (this.#ended || ++this.#taken < WINDOW / 2) return;
    this.#expected += this.#taken;
    this.#options.credit(this.#taken);
    this.#taken = 0;
  }
}

function settle<T>(reader: Reader<T>): Reader<T> {
  if (reader.timer !== null) clearTimeout(reader.timer);
  return reader;
}
