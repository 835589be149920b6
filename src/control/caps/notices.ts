/**
 * What one domain is told of its capabilities. Other domains cause these events, as often as they like: they wait here,
 * not in the channel, while the domain reads slowly, and what cancels out meanwhile is never said.
 */
import { LIMITS } from '../limits.ts';
import type { CapInfo, EventName, EventOf } from '../protocol.ts';

export interface NoticeSink {
  event<E extends EventName>(event: E, fields: EventOf<E>): void;
  /** Messages wait for the domain to read. */
  readonly busy: boolean;
  readonly closed: boolean;
}

export class CapNotices {
  readonly #sink: NoticeSink;
  readonly #granted = new Map<number, EventOf<'cap.granted'>>();
  readonly #revoked = new Set<number>();
  #timer: NodeJS.Timeout | null = null;

  constructor(sink: NoticeSink) {
    this.#sink = sink;
  }

  granted(capability: CapInfo, by: number): void {
    this.#granted.set(capability.cap, { capability, by });
    this.#flush();
  }

  /** Not kept for later: who does not read gets no more time for it. */
  revoking(ids: readonly number[], graceMs: number): void {
    const told = ids.filter((id) => !this.#granted.has(id));
    for (let at = 0; at < told.length && !this.#sink.busy; at += LIMITS.capsPerEventMax) {
      const caps = told.slice(at, at + LIMITS.capsPerEventMax);
      this.#sink.event('cap.revoking', { caps, graceMs });
    }
  }

  revoked(ids: readonly number[]): void {
    for (const id of ids) if (!this.#granted.delete(id)) this.#revoked.add(id);
    this.#flush();
  }

  #flush(): void {
    if (this.#timer !== null) return;
    const sink = this.#sink;
    while (!sink.busy && !sink.closed && this.#sendNext()) {
      // One at a time, until the channel is full or everything is said.
    }
    if (sink.closed || (this.#granted.size === 0 && this.#revoked.size === 0)) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#flush();
    }, LIMITS.noticeRetryMs);
  }

  #sendNext(): boolean {
    if (this.#revoked.size > 0) {
      const caps = [...this.#revoked].slice(0, LIMITS.capsPerEventMax);
      for (const id of caps) this.#revoked.delete(id);
      this.#sink.event('cap.revoked', { caps });
      return true;
    }
    for (const [id, notice] of this.#granted) {
      this.#granted.delete(id);
      this.#sink.event('cap.granted', notice);
      return true;
    }
    return false;
  }
}
