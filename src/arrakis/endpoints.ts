/**
 * Endpoints from an application's side: listen at a name, connect to one, and talk over shared memory. The daemon has
 * introduced the two by then and is not asked again; a connection outlives it.
 */
import type { ArrakisError } from '../base/errors.ts';
import type { ArgsOf, EventName, EventOf, Operation, ReplyOf } from '../control/protocol.ts';
import { NIC_STATE } from '../device/nic.ts';
import { closeAll, closeFd } from '../ffi/fd.ts';
import { mapShared } from '../ffi/memory.ts';
import { Channel } from '../message/channel.ts';
import type { Codec } from '../message/codec.ts';
import { linkBytes, linkMemory } from '../message/layout.ts';
import { LINK_STATE, type LinkSide, MessageLink } from '../message/link.ts';
import type { Answer } from './client.ts';
import { type PollLoop, pollLoop } from './poll-loop.ts';
import { EventQueue } from './queue.ts';

/** Who is at the other end, by the word of the kernel and the daemon. */
export type PeerInfo = ReplyOf<'endpoint.connect'>['peer'];

export type Request = <O extends Operation>(op: O, args: ArgsOf<O>) => Promise<Answer<O>>;

export interface ListenOptions<T> {
  /** What messages are; both sides need the same. Default: JSON. */
  readonly codec?: Codec<T>;
  /** Bytes of each ring, a power of two: half of it is the longest message. Default 64 KiB. */
  readonly ringBytes?: number;
  /** Connections that may wait to be accepted. */
  readonly backlog?: number;
  /** A capability for a directory, at which the path begins. */
  readonly at?: number;
}

export type ConnectTo =
  | string
  | { readonly path: string; readonly at: number }
  | { readonly cap: number };

/** A raw link with the peer's identity, for those who poll themselves. Close the link when done. */
export interface PeerLink {
  readonly connection: number;
  readonly link: MessageLink;
  readonly peer: PeerInfo;
}

/** A channel to another domain. It is driven from Node's event loop and keeps the process alive until it is closed. */
export class EndpointChannel<T = unknown> extends Channel<T> {
  readonly connection: number;
  readonly peer: PeerInfo;
  readonly loop: PollLoop;

  constructor({ connection, link, peer }: PeerLink, codec?: Codec<T>) {
    super(link, codec);
    this.connection = connection;
    this.peer = peer;
    const queue = {
      doorbellFd: link.doorbellFd,
      arm: () => this.arm(),
      disarm: () => this.disarm(),
      get state() {
        return link.state === LINK_STATE.open ? NIC_STATE.up : NIC_STATE.gone;
      },
    };
    // After work at once back to the event loop: whoever waits for an answer is waiting there.
    const loop = pollLoop(queue, () => this.turn(), { turnUs: 0 });
    this.loop = loop;
    this.driver = loop;
    void loop.done.then(() => this.check());
  }
}

/** Connections to a name, one after the other. Ends by `close`, when the name goes, or with the control channel. */
export class Listener<C> implements AsyncIterableIterator<C> {
  readonly endpoint: number;
  /** Capability for this endpoint, to be granted or bound to other names. */
  readonly cap: number;
  /** Why it has ended; null while it listens. */
  endReason: string | null = null;
  readonly #queue = new EventQueue<PeerLink>();
  readonly #make: (link: PeerLink) => C;
  readonly #request: Request;

  constructor(made: ReplyOf<'endpoint.create'>, request: Request, make: (link: PeerLink) => C) {
    this.endpoint = made.endpoint;
    this.cap = made.cap;
    this.#request = request;
    this.#make = make;
  }

  /** The next connection. */
  async next(): Promise<IteratorResult<C>> {
    const { value, done } = await this.#queue.next();
    if (done) return { value: undefined, done: true };
    const made = this.#make(value);
    forget(this.#request('endpoint.accept', { connection: value.connection }));
    return { value: made, done: false };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Stop listening; connections stay. Those that wait are closed. Idempotent. */
  async close(): Promise<void> {
    if (this.endReason !== null) return;
    this.end('it was closed here');
    await this.#request('endpoint.close', { endpoint: this.endpoint }).catch(absentIsFine);
  }

  return(): Promise<IteratorResult<C>> {
    return this.close().then(() => ({ value: undefined, done: true }));
  }

  /** Of the domain: somebody connected. */
  offer(link: PeerLink): void {
    if (this.endReason === null) this.#queue.push(link);
    else link.link.close();
  }

  /** Of the domain: nobody will. */
  end(reason: string): void {
    if (this.endReason !== null) return;
    this.endReason = reason;
    this.#queue.end();
    while (this.#queue.length > 0) {
      void this.#queue.next().then(({ value }) => (value as PeerLink).link.close(reason));
    }
  }
}

/** The endpoints, channels and links of one domain. */
export class Endpoints {
  readonly #request: Request;
  readonly #listeners = new Map<number, Listener<unknown>>();
  readonly #channels = new Map<number, Pick<EndpointChannel, 'close' | 'peerGone'>>();
  /** Connections that were told of before the answer to `endpoint.create` was seen. */
  readonly #early = new Map<number, PeerLink[]>();

  constructor(request: Request) {
    this.#request = request;
  }

  async listen<T>(path: string, options: ListenOptions<T>): Promise<Listener<EndpointChannel<T>>> {
    const { codec, ...rest } = options;
    return this.#listen(path, rest, (link) => this.#channel(link, codec));
  }

  listenLinks(
    path: string,
    options: Omit<ListenOptions<never>, 'codec'>,
  ): Promise<Listener<PeerLink>> {
    return this.#listen(path, options, (link) => link);
  }

  async connect<T>(to: ConnectTo, codec: Codec<T> | undefined): Promise<EndpointChannel<T>> {
    return this.#channel(await this.connectLink(to), codec);
  }

  async connectLink(to: ConnectTo): Promise<PeerLink> {
    const args = typeof to === 'string' ? { path: to } : to;
    const { reply, fds } = await this.#request('endpoint.connect', args);
    return openHalf(reply, fds, 1);
  }

  /** True when the event was one of ours; then `fds` are taken over. */
  onEvent(name: EventName, body: unknown, fds: number[]): boolean {
    if (name === 'endpoint.connected') {
      const event = body as EventOf<'endpoint.connected'>;
      this.#onConnected(event, fds);
    } else if (name === 'endpoint.closed') {
      const { connection, reason } = body as EventOf<'endpoint.closed'>;
      this.#channels.get(connection)?.peerGone(reason);
    } else if (name === 'endpoint.ended') {
      const { endpoint, reason } = body as EventOf<'endpoint.ended'>;
      this.#listeners.get(endpoint)?.end(reason);
      this.#listeners.delete(endpoint);
    } else return false;
    return true;
  }

  /** The control channel is closed: nobody can connect any more. Channels go on. */
  controlLost(reason: string): void {
    for (const listener of this.#listeners.values()) listener.end(reason);
    this.#listeners.clear();
  }

  /** Close every channel and every listener. */
  close(): void {
    this.controlLost('it was closed here');
    for (const channel of [...this.#channels.values()]) channel.close();
  }

  async #listen<C>(
    path: string,
    options: Omit<ListenOptions<never>, 'codec'>,
    make: (link: PeerLink) => C,
  ): Promise<Listener<C>> {
    const { reply } = await this.#request('endpoint.create', { path, ...options });
    const listener = new Listener<C>(reply, this.#request, make);
    this.#listeners.set(listener.endpoint, listener as Listener<unknown>);
    for (const link of this.#early.get(listener.endpoint) ?? []) listener.offer(link);
    this.#early.delete(listener.endpoint);
    return listener;
  }

  #onConnected(event: EventOf<'endpoint.connected'>, fds: readonly number[]): void {
    let link: PeerLink;
    try {
      link = openHalf(event, fds, 0);
    } catch {
      // No room to map it. The bells are closed, so the peer sees that nobody is there.
      forget(this.#request('endpoint.accept', { connection: event.connection }));
      return;
    }
    this.#offer(event.endpoint, link);
  }

  #offer(endpoint: number, link: PeerLink): void {
    const listener = this.#listeners.get(endpoint);
    if (listener !== undefined) listener.offer(link);
    else this.#early.set(endpoint, [...(this.#early.get(endpoint) ?? []), link]);
  }

  #channel<T>(link: PeerLink, codec: Codec<T> | undefined): EndpointChannel<T> {
    const channel = new EndpointChannel<T>(link, codec);
    const { connection } = link;
    this.#channels.set(connection, channel);
    channel.once('close', () => {
      this.#channels.delete(connection);
      forget(this.#request('endpoint.leave', { connection }));
    });
    return channel;
  }
}

/** Map a half and take over its descriptors. */
function openHalf(
  half: Pick<EventOf<'endpoint.connected'>, 'connection' | 'ringBytes' | 'peer'>,
  fds: readonly number[],
  side: LinkSide,
): PeerLink {
  const { connection, ringBytes: capacity, peer } = half;
  const [memory, own, theirs] = fds as [number, number, number];
  try {
    const mapping = mapShared(memory, linkBytes(capacity));
    const link = new MessageLink(linkMemory(mapping.buffer), {
      capacity,
      side,
      bells: { own, peer: theirs },
      release: () => mapping.release(),
    });
    return { connection, link, peer };
  } catch (error) {
    closeAll([own, theirs]);
    throw error;
  } finally {
    closeFd(memory);
  }
}

/** The other side may have ended it first, and the daemon may be gone. */
function absentIsFine(error: ArrakisError): void {
  if (error.code !== 'ARK_NOT_FOUND' && error.code !== 'ARK_NO_DAEMON') throw error;
}

function forget(asked: Promise<unknown>): void {
  asked.catch(() => {});
}
