/**
 * Channel: typed messages over a link. One-way messages, requests with answers, and streams of answers.
 *
 * - `turn` receives and sends; whoever has a loop calls it (`domain.connect` and `listen` do).
 * - Requests have ids, time out, and fail with ARK_GONE when the peer ends. A peer that breaks a rule ends the channel.
 * - A stream sends at most `streamWindow` items ahead of who reads it: back-pressure, by credits.
 * - A message longer than half the ring is refused with ARK_LIMIT; it is not cut in pieces.
 */
import { EventEmitter } from 'node:events';
import { ArrakisError, ERROR_CODES, type ErrorCode } from '../base/errors.ts';
import { type Codec, jsonCodec, structCodec } from './codec.ts';
import { FRAME, type Frame, ID_MAX, idOf, kindOf, tagOf } from './frame.ts';
import { RECORD_HEADER } from './layout.ts';
import { CHANNEL_LIMITS } from './limits.ts';
import { LINK_STATE, type MessageLink } from './link.ts';
import { Outbox } from './outbox.ts';
import { NONE } from './ring.ts';
import { type Handler, Servant } from './servant.ts';
import { Stream } from './stream.ts';

export type { Answers, Handler } from './servant.ts';

interface ChannelEvents<T> {
  message: [message: T];
  /** It is over; the reason says whose doing it was. Once. */
  close: [reason: string];
}

export interface RequestOptions {
  /** Default 10 s. For a stream: until the next item. 0: for ever. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** A loop that calls `turn` and waits for the bell. */
export interface ChannelDriver {
  /** Call `turn` soon although no bell rings. */
  wake(): void;
  /** Never again; the bell is about to be closed. */
  stop(): void;
}

interface Pending<T> {
  answer(value: T): void;
  /** Null: this request is not one for a stream. */
  item: ((value: T) => boolean) | null;
  end(): void;
  fail(error: ArrakisError): void;
}

const errorCodec = jsonCodec<{ code: string; message: string }>();
const creditCodec = structCodec({ count: 'u32' });

export class Channel<T = unknown> extends EventEmitter<ChannelEvents<T>> {
  readonly link: MessageLink;
  /** Answers that came too late, and other messages that nobody waits for. */
  ignored = 0;
  /** Who calls `turn`; null: the owner of this channel does. */
  driver: ChannelDriver | null = null;
  readonly #codec: Codec<T>;
  readonly #outbox: Outbox;
  readonly #pending = new Map<number, Pending<T>>();
  readonly #servant: Servant<T>;
  #nextId = 1;
  #closed = false;

  /** Takes over `link`. Both sides need the same codec; default: JSON. */
  constructor(link: MessageLink, codec: Codec<T> = jsonCodec<T>()) {
    super();
    this.link = link;
    this.#codec = codec;
    this.#outbox = new Outbox(link, () => this.driver?.wake());
    this.#servant = new Servant<T>({
      send: (kind, id, value) => this.#outbox.send(tagOf(kind, id), value, codec),
      answer: (id, value) => this.#post(FRAME.response, id, value, codec),
      post: (kind, id) => this.#post(kind, id, null, null),
      fail: (id, error) => this.#post(FRAME.error, id, errorToPeer(error), errorCodec),
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Messages that wait for room in the ring. */
  get waiting(): number {
    return this.#outbox.waiting;
  }

  /** A one-way message: resolves when it is in the ring. ARK_LIMIT, ARK_GONE. Do not change it before that. */
  async send(message: T): Promise<void> {
    this.#requireOpen();
    await this.#outbox.send(tagOf(FRAME.message, 0), message, this.#codec);
  }

  /** Ask, and get the answer. Rejects with what the handler threw, ARK_TIMEOUT, ARK_GONE, ARK_LIMIT, or the signal's reason. */
  request(message: T, options: RequestOptions = {}): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const id = this.#ask(message, reject);
      if (id === null) return;
      const timeoutMs = options.timeoutMs ?? CHANNEL_LIMITS.requestMsDefault;
      const done = (): void => {
        this.#pending.delete(id);
        if (timer !== null) clearTimeout(timer);
        options.signal?.removeEventListener('abort', onAbort);
      };
      const cancel = (reason: unknown): void => {
        done();
        this.#post(FRAME.cancel, id, null, null);
        reject(reason);
      };
      const onAbort = (): void => cancel(options.signal!.reason);
      const timer = timeoutMs === 0 ? null : setTimeout(() => cancel(late(timeoutMs)), timeoutMs);
      const settle =
        <A extends unknown[]>(then: (...args: A) => void) =>
        (...args: A): void => {
          done();
          then(...args);
        };
      this.#pending.set(id, {
        answer: settle(resolve),
        item: null,
        end: settle(() => reject(protocolError('it ended a stream instead of an answer'))),
        fail: settle(reject),
      });
      if (options.signal?.aborted) onAbort();
      else options.signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Ask, and get answers one after the other. Leaving the loop cancels the rest. Throws as `request`. */
  stream(message: T, options: RequestOptions = {}): AsyncIterableIterator<T> {
    let failed: ArrakisError | null = null;
    const id = this.#ask(message, (error) => {
      failed = error;
    });
    const stream = new Stream<T>({
      timeoutMs: options.timeoutMs ?? CHANNEL_LIMITS.requestMsDefault,
      late,
      credit: (count) => this.#post(FRAME.credit, id!, { count }, creditCodec),
      cancel: () => {
        if (this.#pending.delete(id!)) this.#post(FRAME.cancel, id!, null, null);
      },
    });
    if (id === null) {
      stream.fail(failed!);
      return stream;
    }
    const finish = (then: () => void): void => {
      this.#pending.delete(id);
      then();
    };
    this.#pending.set(id, {
      answer: (value) => finish(() => stream.single(value)),
      item: (value) => stream.push(value),
      end: () => finish(() => stream.end()),
      fail: (error) => finish(() => stream.fail(error)),
    });
    return stream;
  }

  /**
   * Serve the peer's requests: the handler returns the answer, a promise of it, or an async iterable of answers. What it
   * throws goes to the peer, codes and texts of ArrakisErrors included. Without one, requests are refused.
   */
  serve(handler: Handler<T>): this {
    this.#servant.handler = handler;
    return this;
  }

  /** Receive and send what there is: the number of messages. Throws only what listeners of 'message' throw. */
  turn(): number {
    if (this.#closed) return 0;
    const link = this.link;
    let count = 0;
    while (count < CHANNEL_LIMITS.messagesPerTurnMax) {
      const length = link.receive();
      if (length === NONE) break;
      count++;
      this.#dispatch(link.tag, link.offset, length);
      if (this.#closed) return count;
    }
    if (count > 0) link.release();
    if (this.#outbox.waiting > 0) count += this.#outbox.flush();
    if (count > 0) link.publish();
    return count;
  }

  /** For a loop: ask for the bell. False: call `turn` again, or look whether it is closed. */
  arm(): boolean {
    const armed = this.link.arm(this.#outbox.waiting > 0);
    this.check();
    return armed && !this.#closed;
  }

  disarm(): void {
    this.link.disarm();
  }

  /** Whether the link has ended: then the channel ends too. */
  check(): void {
    if (!this.#closed && this.link.state !== LINK_STATE.open) this.#finish(this.link.endReason);
  }

  /** Somebody else says that the peer is gone: read what it left, then end. */
  peerGone(reason: string): void {
    // No more messages than fit in both rings: a peer that is not gone may go on to send.
    let left = (2 * this.link.capacity) / RECORD_HEADER;
    for (let count = 1; count > 0 && left > 0; left -= count) count = this.turn();
    // The link may know better: that it was closed in order, or what was wrong with it.
    this.check();
    if (!this.#closed) this.#finish(reason);
  }

  /** End it; what was sent can still be read by the peer, and requests in flight fail with ARK_GONE. Idempotent. */
  close(reason = 'it was closed here'): void {
    if (this.#closed) return;
    this.link.publish();
    this.#finish(reason);
  }

  #finish(reason: string): void {
    this.#closed = true;
    this.driver?.stop();
    this.link.close(reason);
    const error = gone(reason);
    for (const pending of [...this.#pending.values()]) pending.fail(error);
    this.#outbox.fail(error);
    this.#servant.end(error);
    this.emit('close', reason);
  }

  #requireOpen(): void {
    if (this.#closed) throw gone(this.link.endReason);
  }

  /** Send a request; its id, or null after `reject`. */
  #ask(message: T, reject: (error: ArrakisError) => void): number | null {
    if (this.#closed) {
      reject(gone(this.link.endReason));
      return null;
    }
    if (this.#pending.size >= CHANNEL_LIMITS.requestsMax) {
      const text = `${CHANNEL_LIMITS.requestsMax} requests are in flight`;
      reject(new ArrakisError('ARK_LIMIT', text, { hint: 'wait for answers first' }));
      return null;
    }
    while (this.#pending.has(this.#nextId)) this.#nextId = (this.#nextId % ID_MAX) + 1;
    const id = this.#nextId;
    this.#nextId = (id % ID_MAX) + 1;
    const failed = (error: ArrakisError): void => {
      const pending = this.#pending.get(id);
      if (pending === undefined) reject(error);
      else pending.fail(error);
    };
    this.#outbox.send(tagOf(FRAME.request, id), message, this.#codec).catch(failed);
    return id;
  }

  /** Send what nobody here waits for. Throws when `value` cannot be sent. */
  #post<V>(kind: Frame, id: number, value: V, codec: Codec<V> | null): void {
    // Handlers end after the channel did, too.
    if (this.#closed) return;
    if (!this.#outbox.queue(tagOf(kind, id), value, codec)) {
      this.#break('it does not read what it asked for');
    }
  }

  #break(what: string): void {
    this.#finish(`the peer broke the protocol: ${what}`);
  }

  #dispatch(tag: number, at: number, length: number): void {
    const kind = kindOf(tag);
    let message: T;
    try {
      if (kind !== FRAME.message) {
        this.#onFrame(kind, idOf(tag), at, length);
        return;
      }
      message = this.#codec.read(this.link.memory, at, length);
    } catch (error) {
      this.#break((error as Error).message.slice(0, CHANNEL_LIMITS.errorTextMax));
      return;
    }
    this.emit('message', message);
  }

  #onFrame(kind: number, id: number, at: number, length: number): void {
    const { memory } = this.link;
    if (kind === FRAME.request) this.#servant.request(id, this.#codec.read(memory, at, length));
    else if (kind === FRAME.cancel) this.#servant.cancel(id);
    else if (kind === FRAME.credit) {
      this.#servant.credit(id, creditCodec.read(memory, at, length).count);
    } else this.#onAnswer(kind, id, at, length);
  }

  #onAnswer(kind: number, id: number, at: number, length: number): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) {
      this.ignored++;
      return;
    }
    const memory = this.link.memory;
    if (kind === FRAME.response) pending.answer(this.#codec.read(memory, at, length));
    else if (kind === FRAME.end) pending.end();
    else if (kind === FRAME.error) {
      pending.fail(errorFromPeer(errorCodec.read(memory, at, length)));
    } else if (kind === FRAME.item) {
      const value = this.#codec.read(memory, at, length);
      if (pending.item === null) {
        this.#post(FRAME.cancel, id, null, null);
        pending.fail(protocolError('it answers with a stream; ask by stream()'));
      } else if (!pending.item(value)) {
        throw protocolError('it sends more items than it has credit for');
      }
    } else throw protocolError(`there is no kind ${kind} of message`);
  }
}

const protocolError = (text: string): ArrakisError => new ArrakisError('ARK_PROTOCOL', text);

const gone = (reason: string): ArrakisError =>
  new ArrakisError('ARK_GONE', `the channel is closed: ${reason}`, { hint: 'connect again' });

const late = (timeoutMs: number): ArrakisError =>
  new ArrakisError('ARK_TIMEOUT', `no answer in ${timeoutMs} ms`, {
    hint: 'give it more time by timeoutMs, or see what the peer is doing',
  });

/** Only ArrakisErrors travel: other texts may say more of a program than its peer should know. */
function errorToPeer(error: unknown): { code: string; message: string } {
  if (error instanceof ArrakisError) {
    return { code: error.code, message: error.message.slice(0, CHANNEL_LIMITS.errorTextMax) };
  }
  return { code: 'ARK_INTERNAL', message: 'the handler failed' };
}

function errorFromPeer(value: { code?: unknown; message?: unknown } | null): ArrakisError {
  const code = String(value?.code);
  const known = Object.hasOwn(ERROR_CODES, code) ? (code as ErrorCode) : 'ARK_INTERNAL';
  const text = String(value?.message ?? 'the peer refused').slice(0, CHANNEL_LIMITS.errorTextMax);
  return new ArrakisError(known, text);
}
