/**
 * One end of a control connection: whole messages with descriptors over a SOCK_SEQPACKET socket, in Node's event loop.
 *
 * - The channel owns its socket. `send` takes no ownership of descriptors: a message that must wait holds duplicates.
 * - A reader that does not read is closed: the queue that waits for it is bounded in messages and in time.
 * - The last close of a descriptor that a hostile peer chose may block for ever. What a `foreign` peer sent, or left
 *   in the socket, is closed on another thread, and none is left for the kernel to drop.
 * - `onClose` comes exactly once, from a later turn of the event loop, whoever closed.
 * - What a foreign peer does not read stays with the kernel, its descriptors too, also when the socket is closed: there are
 *   few of those at a time, and `onReleased` says when they are gone.
 */
import {
  closeAll,
  closeFd,
  closeForeign,
  closeLater,
  duplicateFd,
  isUnderWay,
  setNonBlocking,
  shutdownSocket,
} from '../ffi/fd.ts';
import {
  type Credentials,
  type Received,
  receiveMessage,
  SCM_MAX_FD,
  sendMessage,
} from '../ffi/unix.ts';
import { FdWatch } from '../ffi/watch.ts';
import { LIMITS } from './limits.ts';

export interface ChannelEvents {
  /** One message. The receiver owns `fds`. `credentials` are of its sender when the socket passes them. */
  onMessage(text: string, fds: number[], credentials: Credentials | null): void;
  /** A message that was longer than the limit or had too many descriptors; those are closed. */
  onOversized(): void;
  onClose(reason: string): void;
  /** After `onClose`: the peer has read, or given up, what it was sent. */
  onReleased?(): void;
}

interface Waiting {
  bytes: Buffer;
  fds: number[];
}

// One receive buffer serves every channel: a message is turned into a string before anything else may arrive.
const buffer = Buffer.alloc(LIMITS.messageBytesMax);

export class MessageChannel {
  readonly fd: number;
  readonly #events: ChannelEvents;
  readonly #foreign: boolean;
  readonly #fdsUnderWayMax: number;
  #watch: FdWatch | null;
  #paused = false;
  #keepsAlive = true;
  #closed = false;
  readonly #waiting: Waiting[] = [];
  /** Descriptors that were sent since the peer was last seen to have read everything. */
  #fdsUnderWay = 0;
  #stalledMs = 0;
  #retry: NodeJS.Timeout | null = null;

  /**
   * Takes over `fd`, a connected SOCK_SEQPACKET socket. `foreign`: the peer is not to be trusted. Beyond `fdsUnderWayMax`
   * descriptors that it has not taken, messages with more wait until it has read everything.
   */
  constructor(
    fd: number,
    events: ChannelEvents,
    options: { foreign?: boolean; fdsUnderWayMax?: number } = {},
  ) {
    setNonBlocking(fd);
    this.fd = fd;
    this.#events = events;
    this.#foreign = options.foreign ?? false;
    this.#fdsUnderWayMax = options.fdsUnderWayMax ?? Number.POSITIVE_INFINITY;
    this.#watch = new FdWatch(fd, () => this.#onReadable());
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Messages that wait for the peer to read. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Stop reading until `resume`; the peer's messages stay in the kernel, which makes it wait. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    if (this.#watch !== null || this.#closed) return;
    this.#watch = new FdWatch(this.fd, () => this.#onReadable());
    if (!this.#keepsAlive) this.#watch.unref();
  }

  /** Whether this channel keeps the process alive. */
  keepAlive(on: boolean): void {
    if (this.#keepsAlive === on) return;
    this.#keepsAlive = on;
    if (on) this.#watch?.ref();
    else this.#watch?.unref();
  }

  /** Send one message. The descriptors stay the caller's. A closed channel swallows it. */
  send(message: object, fds: readonly number[] = []): void {
    if (this.#closed) return;
    const bytes = Buffer.from(JSON.stringify(message));
    if (this.#waiting.length === 0 && this.#trySend(bytes, fds)) return;
    if (this.#closed) return;
    if (this.#waiting.length >= LIMITS.sendQueueMax) {
      this.close('it does not read what it asked for');
      return;
    }
    this.#waiting.push({ bytes, fds: fds.map(duplicateFd) });
    this.#retry ??= setInterval(() => this.#flush(), LIMITS.sendRetryMs);
  }

  /** Close the socket, drop what waits and tell `onClose`. Idempotent. */
  close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch?.close();
    this.#watch = null;
    if (this.#retry !== null) clearInterval(this.#retry);
    for (const { fds } of this.#waiting.splice(0)) this.#drop(fds);
    // The keeper has a copy: a foreign peer is to see the end now.
    if (this.#foreign) shutdownSocket(this.fd);
    else closeFd(this.fd);
    setImmediate(() => {
      this.#events.onClose(reason);
      if (this.#foreign) this.#release();
    });
  }

  /** A peer that ends drops what it had a moment after we see its end. */
  #release(pauseMs: number = LIMITS.sendRetryMs): void {
    if (isUnderWay(this.fd)) {
      const nextMs = Math.min(2 * pauseMs, LIMITS.lingerMsMax);
      setTimeout(() => this.#release(nextMs), pauseMs).unref();
      return;
    }
    closeLater(this.fd);
    this.#events.onReleased?.();
  }

  #trySend(bytes: Buffer, fds: readonly number[]): boolean {
    try {
      if (!this.#hasRoom(fds.length) || sendMessage(this.fd, bytes, fds) < 0) return false;
      this.#fdsUnderWay += fds.length;
      return true;
    } catch (error) {
      this.close((error as Error).message);
      return false;
    }
  }

  /** For so many descriptors more. */
  #hasRoom(count: number): boolean {
    const most = this.#fdsUnderWayMax;
    if (this.#fdsUnderWay + count > most && !isUnderWay(this.fd)) this.#fdsUnderWay = 0;
    return count === 0 || this.#fdsUnderWay + count <= most;
  }

  #flush(): void {
    while (this.#waiting.length > 0) {
      const { bytes, fds } = this.#waiting[0]!;
      if (!this.#trySend(bytes, fds)) {
        this.#stalledMs += LIMITS.sendRetryMs;
        if (this.#stalledMs >= LIMITS.sendStallMsMax) this.close('it stopped reading');
        return;
      }
      this.#stalledMs = 0;
      this.#drop(fds);
      this.#waiting.shift();
    }
    if (this.#retry !== null) clearInterval(this.#retry);
    this.#retry = null;
  }

  #onReadable(): void {
    if (this.#paused) {
      // Still paused a turn later. The watch is level-triggered: one that nobody serves would spin.
      this.#watch?.close();
      this.#watch = null;
      return;
    }
    for (let n = 0; n < LIMITS.messagesPerTurnMax && !this.#closed && !this.#paused; n++) {
      if (!this.#receive()) return;
    }
  }

  /** False when nothing more is there. */
  #receive(): boolean {
    let received: Received | null;
    try {
      received = receiveMessage(this.fd, buffer, SCM_MAX_FD);
    } catch (error) {
      this.close((error as Error).message);
      return false;
    }
    if (received === null) return false;
    if (received.length === 0) {
      this.#drop(received.fds);
      this.close('the peer closed it');
      return false;
    }
    if (received.truncated || received.fds.length > LIMITS.messageFdsMax) {
      this.#drop(received.fds);
      this.#events.onOversized();
      return true;
    }
    const text = buffer.toString('utf8', 0, received.length);
    this.#events.onMessage(text, received.fds, received.credentials);
    return true;
  }

  #drop(fds: number[]): void {
    if (this.#foreign) closeForeign(fds);
    else closeAll(fds);
  }
}
