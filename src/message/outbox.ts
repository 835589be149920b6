/**
 * What a channel sends: straight into the ring while there is room, else in line. The line is bounded, and messages leave
 * it in order.
 */
import { ArrakisError } from '../base/errors.ts';
import type { Codec } from './codec.ts';
import { CHANNEL_LIMITS } from './limits.ts';
import type { MessageLink } from './link.ts';
import { NONE, requireFits } from './ring.ts';

interface Waiting {
  readonly tag: number;
  readonly value: unknown;
  readonly codec: Codec<unknown> | null;
  readonly sent: () => void;
  readonly failed: (error: ArrakisError) => void;
}

const nothing = (): void => {};

export class Outbox {
  readonly #link: MessageLink;
  readonly #onWaiting: () => void;
  readonly #waiting: Waiting[] = [];
  #publishing = false;

  /** `onWaiting`: something waits for room from now on. */
  constructor(link: MessageLink, onWaiting: () => void) {
    this.#link = link;
    this.#onWaiting = onWaiting;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Resolves when `value` is in the ring. Rejects with ARK_LIMIT (too long, too many in line), ARK_GONE. */
  send<T>(tag: number, value: T, codec: Codec<T>): Promise<void> {
    if (this.post(tag, value, codec)) return Promise.resolve();
    return new Promise((sent, failed) => {
      this.#enqueue({ tag, value, codec: codec as Codec<unknown>, sent, failed });
    });
  }

  /** Into the ring at once; false when there is no room or others wait already. Throws ARK_LIMIT, ARK_BAD_ARGUMENT. */
  post<T>(tag: number, value: T, codec: Codec<T> | null): boolean {
    return this.#waiting.length === 0 && this.#put(tag, value, codec as Codec<unknown> | null);
  }

  /**
   * Into the ring, at once or later; nobody waits for it. False when too much waits already. Throws as `post`, also when
   * the message has to wait.
   */
  queue<T>(tag: number, value: T, codec: Codec<T> | null): boolean {
    if (this.post(tag, value, codec)) return true;
    if (this.#waiting.length >= CHANNEL_LIMITS.waitingMax) return false;
    if (codec !== null) requireFits(codec.size(value), this.#link.lengthMax);
    this.#enqueue({
      tag,
      value,
      codec: codec as Codec<unknown> | null,
      sent: nothing,
      failed: nothing,
    });
    return true;
  }

  /** Send of what waits as much as there is room for. How many. */
  flush(): number {
    let count = 0;
    while (count < this.#waiting.length) {
      const { tag, value, codec, sent, failed } = this.#waiting[count]!;
      try {
        if (!this.#put(tag, value, codec)) break;
        sent();
      } catch (error) {
        failed(error as ArrakisError);
      }
      count++;
    }
    if (count > 0) this.#waiting.splice(0, count);
    return count;
  }

  /** Nothing can be sent any more. */
  fail(error: ArrakisError): void {
    for (const { failed } of this.#waiting.splice(0)) failed(error);
  }

  #enqueue(waiting: Waiting): void {
    if (this.#waiting.length >= CHANNEL_LIMITS.waitingMax) {
      waiting.failed(
        new ArrakisError('ARK_LIMIT', `${CHANNEL_LIMITS.waitingMax} messages wait for the peer`, {
          hint: 'await each send: it resolves when the peer has made room',
        }),
      );
      return;
    }
    this.#waiting.push(waiting);
    this.#onWaiting();
  }

  #put(tag: number, value: unknown, codec: Codec<unknown> | null): boolean {
    const link = this.#link;
    const at = link.reserve(codec === null ? 0 : codec.size(value));
    if (at === NONE) return false;
    link.commit(codec === null ? 0 : codec.write(value, link.memory, at), tag);
    if (!this.#publishing) {
      // What is sent in the same turn goes out together.
      this.#publishing = true;
      queueMicrotask(() => {
        this.#publishing = false;
        link.publish();
      });
    }
    return true;
  }
}
