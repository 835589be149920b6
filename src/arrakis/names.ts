/** The tree of names from an application's side. Paths are absolute; `at` has them begin at a directory's capability. */
import type { ArrakisError } from '../base/errors.ts';
import type { EventName, EventOf, ReplyOf } from '../control/protocol.ts';
import type { PeerInfo, Request } from './endpoints.ts';
import { EventQueue } from './queue.ts';

export type NameEntry = ReplyOf<'name.list'>['entries'][number];
export type Found = ReplyOf<'name.lookup'>;
export type NameChange = EventOf<'name.changed'>['changes'][number];

export interface At {
  /** A capability for a directory. */
  readonly at?: number;
}

/** What changed at once; `more`: not all is told, list again. */
export interface NameChanges {
  readonly changes: readonly NameChange[];
  readonly more: boolean;
}

/** What a served directory answers: a capability that may be granted, with rights for who asks; null: no such name. */
export type NameAnswer = { readonly cap: number; readonly rights?: string[] } | null;
export type NameServer = (path: string, peer: PeerInfo) => NameAnswer | Promise<NameAnswer>;

/** Changes in a directory, as they come. */
export class NameWatch implements AsyncIterableIterator<NameChanges> {
  /** The daemon's number for it; another one after the daemon was killed. */
  id: number;
  readonly #queue = new EventQueue<NameChanges>();
  readonly #end: () => Promise<void>;

  constructor(id: number, end: () => Promise<void>) {
    this.id = id;
    this.#end = end;
  }

  next(): Promise<IteratorResult<NameChanges>> {
    return this.#queue.next();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async return(): Promise<IteratorResult<NameChanges>> {
    await this.close();
    return { value: undefined, done: true };
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (this.#queue.ended) return;
    this.#queue.end();
    await this.#end();
  }

  /** Of the domain. */
  tell(changes: NameChanges): void {
    this.#queue.push(changes);
    // The directory is gone.
    if (changes.changes.some(({ name }) => name === '')) this.#queue.end();
  }

  /** Of the domain: it is over, without anybody's doing. */
  lost(): void {
    this.#queue.end();
  }
}

export class Names {
  readonly #request: Request;
  readonly #watches = new Map<number, NameWatch>();
  /** How each was asked for: a daemon that takes over does not know of them. */
  readonly #askedBy = new WeakMap<NameWatch, { path: string } & At>();
  readonly #servers = new Map<number, NameServer>();

  constructor(request: Request) {
    this.#request = request;
  }

  /** Make a directory, for as long as this domain lives. Its capability carries every right in it. */
  async make(
    path: string,
    options: At & { mode?: number; keep?: boolean } = {},
  ): Promise<ReplyOf<'name.make'>> {
    return (await this.#request('name.make', { path, ...options })).reply;
  }

  /** Name capability `cap`; lookups give `rights` (default: all but grant). */
  async bind(path: string, cap: number, options: At & { rights?: string[] } = {}): Promise<void> {
    await this.#request('name.bind', { path, cap, ...options });
  }

  /** What a name stands for, and a capability of our own for it. */
  async lookup(path: string, options: At = {}): Promise<Found> {
    return (await this.#request('name.lookup', { path, ...options })).reply;
  }

  /** Everything in a directory, by name. */
  async list(path: string, options: At = {}): Promise<NameEntry[]> {
    const all: NameEntry[] = [];
    for (let omitted = 1; omitted > 0; ) {
      const after = all.at(-1)?.name ?? '';
      const { reply } = await this.#request('name.list', { path, ...options, after });
      all.push(...reply.entries);
      omitted = reply.entries.length === 0 ? 0 : reply.omitted;
    }
    return all;
  }

  async remove(path: string, options: At = {}): Promise<void> {
    await this.#request('name.remove', { path, ...options });
  }

  /** Hear of changes in a directory, until the loop is left or `close`. */
  async watch(path: string, options: At = {}): Promise<NameWatch> {
    const { watch: id } = (await this.#request('name.watch', { path, ...options })).reply;
    const watch: NameWatch = new NameWatch(id, async () => {
      this.#watches.delete(watch.id);
      await this.#request('name.unwatch', { watch: watch.id }).catch((error: ArrakisError) => {
        if (error.code !== 'ARK_NOT_FOUND' && error.code !== 'ARK_NO_DAEMON') throw error;
      });
    });
    this.#watches.set(id, watch);
    this.#askedBy.set(watch, { path, ...options });
    return watch;
  }

  /** Make a directory, and answer for every name below it. What `server` throws is told to who asks. */
  async serve(
    path: string,
    server: NameServer,
    options: At & { mode?: number } = {},
  ): Promise<void> {
    const { directory } = await this.make(path, options);
    this.#servers.set(directory, server);
    const { mode: _, ...at } = options;
    await this.#request('name.serve', { path, ...at });
  }

  /** True when the event was one of ours. */
  onEvent(name: EventName, body: unknown): boolean {
    if (name === 'name.changed') {
      const { watch, ...changes } = body as EventOf<'name.changed'>;
      this.#watches.get(watch)?.tell(changes);
    } else if (name === 'name.asked') void this.#answer(body as EventOf<'name.asked'>);
    else return false;
    return true;
  }

  /** Another daemon has taken over: watch again. What changed in between is not told one by one. */
  async resumed(): Promise<void> {
    const watches = [...this.#watches.values()];
    this.#watches.clear();
    for (const watch of watches) {
      try {
        watch.id = (await this.#request('name.watch', this.#askedBy.get(watch)!)).reply.watch;
        this.#watches.set(watch.id, watch);
        watch.tell({ changes: [], more: true });
      } catch {
        watch.lost();
      }
    }
  }

  controlLost(): void {
    for (const watch of this.#watches.values()) watch.lost();
    this.#watches.clear();
  }

  async #answer({ question, directory, path, peer }: EventOf<'name.asked'>): Promise<void> {
    let answer: { cap: number; rights?: string[] } | { refusal: string };
    try {
      answer = (await this.#servers.get(directory)?.(path, peer)) ?? { refusal: `no ${path}` };
    } catch (error) {
      answer = { refusal: (error as Error).message.slice(0, 200) };
    }
    try {
      await this.#request('name.answer', { question, ...answer });
    } catch (error) {
      if ('refusal' in answer) return;
      const refusal = (error as Error).message.slice(0, 200);
      await this.#request('name.answer', { question, refusal }).catch(() => {});
    }
  }
}
