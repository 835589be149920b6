/** The serving half of a channel: requests in service, their answers and streams, and what cancels them. */
import { ArrakisError } from '../base/errors.ts';
import { FRAME, type Frame } from './frame.ts';
import { CHANNEL_LIMITS } from './limits.ts';

export type Answers<T> = T | Promise<T> | AsyncIterable<T>;
/** `signal` aborts when nobody waits for the answer any more. */
export type Handler<T> = (message: T, context: { readonly signal: AbortSignal }) => Answers<T>;

/** How a servant speaks to the peer. */
export interface ServantOutput<T> {
  /** Resolves when it is in the ring. */
  send(kind: Frame, id: number, value: T): Promise<void>;
  /** As `send`, for nobody who waits. Throws when it cannot be sent. */
  answer(id: number, value: T): void;
  post(kind: Frame, id: number): void;
  fail(id: number, error: unknown): void;
}

class Service {
  readonly controller = new AbortController();
  credits: number = CHANNEL_LIMITS.streamWindow;
  /** Lets a stream go on that has no credit left. */
  resume: () => void = () => {};
}

const isIterable = <T>(value: Answers<T> | PromiseLike<T>): value is AsyncIterable<T> =>
  typeof value === 'object' && value !== null && Symbol.asyncIterator in value;
const isPromise = <T>(value: Answers<T>): value is Promise<T> =>
  typeof value === 'object' &&
  value !== null &&
  typeof (value as { then?: unknown }).then === 'function';

export class Servant<T> {
  handler: Handler<T> | null = null;
  readonly #output: ServantOutput<T>;
  readonly #services = new Map<number, Service>();
  /** Handlers at work, those of cancelled requests included: a peer could otherwise start any number of them. */
  #atWork = 0;

  constructor(output: ServantOutput<T>) {
    this.#output = output;
  }

  /** Throws ARK_PROTOCOL for an id that is in service already. */
  request(id: number, message: T): void {
    if (this.#services.has(id)) {
      throw new ArrakisError('ARK_PROTOCOL', `request ${id} is in service already`);
    }
    if (this.handler === null) {
      this.#output.fail(id, new ArrakisError('ARK_UNKNOWN_OPERATION', 'it serves no requests'));
    } else if (this.#atWork >= CHANNEL_LIMITS.requestsMax) {
      const text = `${CHANNEL_LIMITS.requestsMax} requests are in service`;
      this.#output.fail(id, new ArrakisError('ARK_LIMIT', text));
    } else {
      const service = new Service();
      this.#services.set(id, service);
      this.#serve(id, service, this.handler, message);
    }
  }

  cancel(id: number): void {
    const service = this.#services.get(id);
    if (service !== undefined) this.#stop(id, service, new ArrakisError('ARK_GONE', 'cancelled'));
  }

  credit(id: number, count: number): void {
    const service = this.#services.get(id);
    if (service === undefined) return;
    service.credits += count;
    if (count === 0 || service.credits > CHANNEL_LIMITS.streamWindow) {
      throw new ArrakisError('ARK_PROTOCOL', `credit for ${service.credits} items at once`);
    }
    service.resume();
  }

  /** Nobody waits for any answer any more. */
  end(error: ArrakisError): void {
    for (const [id, service] of [...this.#services]) this.#stop(id, service, error);
  }

  #stop(id: number, service: Service, reason: ArrakisError): void {
    this.#services.delete(id);
    service.controller.abort(reason);
    service.resume();
  }

  /** An answer that is there at once is sent at once. */
  #serve(id: number, service: Service, handler: Handler<T>, message: T): void {
    try {
      const made = handler(message, { signal: service.controller.signal });
      if (isIterable(made) || isPromise(made)) {
        void this.#await(id, service, made);
        return;
      }
      this.#output.answer(id, made);
    } catch (error) {
      this.#output.fail(id, error);
    }
    this.#services.delete(id);
  }

  async #await(
    id: number,
    service: Service,
    made: PromiseLike<T> | AsyncIterable<T>,
  ): Promise<void> {
    const { signal } = service.controller;
    this.#atWork++;
    try {
      if (isIterable(made)) await this.#stream(id, service, made);
      else {
        const answer = await made;
        if (!signal.aborted) await this.#output.send(FRAME.response, id, answer);
      }
    } catch (error) {
      if (!signal.aborted) this.#output.fail(id, error);
    } finally {
      this.#atWork--;
      // The id may have been used again since this one was cancelled.
      if (this.#services.get(id) === service) this.#services.delete(id);
    }
  }

  async #stream(id: number, service: Service, items: AsyncIterable<T>): Promise<void> {
    const { signal } = service.controller;
    for await (const item of items) {
      if (service.credits === 0 && !signal.aborted) {
        await new Promise<void>((resolve) => {
          service.resume = resolve;
        });
      }
      // Leaving the loop ends the iterator.
      if (signal.aborted) return;
      service.credits--;
      await this.#output.send(FRAME.item, id, item);
    }
    if (!signal.aborted) this.#output.post(FRAME.end, id);
  }
}
