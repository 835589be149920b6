/**
 * What one domain is told because of others. They may cause it as often as they like: it waits here, not in the channel,
 * while the domain reads slowly, and what has the same key is told once, as it is when it is told.
 */
import { LIMITS } from './limits.ts';

export interface MailboxOwner {
  /** Messages wait for the domain to read. */
  readonly busy: boolean;
  readonly closed: boolean;
}

export class Mailbox {
  readonly #owner: MailboxOwner;
  readonly #waiting = new Map<string, () => void>();
  #timer: NodeJS.Timeout | null = null;

  constructor(owner: MailboxOwner) {
    this.#owner = owner;
  }

  /** Call `send` now or later, unless another of this `key` waits already. */
  post(key: string, send: () => void): void {
    if (!this.#waiting.has(key)) this.#waiting.set(key, send);
    if (this.#timer === null) this.#flush();
  }

  #flush(): void {
    for (const [key, send] of this.#waiting) {
      if (this.#owner.busy || this.#owner.closed) break;
      this.#waiting.delete(key);
      send();
    }
    if (this.#owner.closed || this.#waiting.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#flush();
    }, LIMITS.noticeRetryMs);
  }
}
