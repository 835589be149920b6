/**
 * The keeper: holds labelled descriptors while there is no daemon, and waits so long for the next one.
 *
 * - It understands nothing of what it holds. Whoever connects has to be of its own user; the last who did is served.
 * - Synchronous, one thread, without Node's event loop. A daemon that does not read what it asked for is cut off.
 * - What it closes may be the last copy of a socket of a stranger, whose close may wait: another thread does it.
 */
import { EPOLLIN, EPOLLRDHUP, Epoll } from '../ffi/epoll.ts';
import { closeLater, setNonBlocking } from '../ffi/fd.ts';
import {
  acceptUnix,
  peerCredentials,
  type Received,
  receiveMessage,
  SCM_MAX_FD,
  sendMessage,
  setTimeouts,
} from '../ffi/unix.ts';
import {
  encode,
  FDS_PER_LABEL_MAX,
  LABELS_MAX,
  MESSAGE_BYTES_MAX,
  parseRequest,
} from './protocol.ts';

const ANSWER_TIMEOUT_MS = 2000;
const MESSAGES_PER_LOOK = 64;

export interface KeeperOptions {
  /** Listening SOCK_SEQPACKET socket; stays open until the end of the process. */
  readonly listenFd: number;
  /** How long to wait for a daemon. */
  readonly keepMs: number;
  /** Monotonic, in ms. */
  readonly clock: () => number;
}

export class Keeper {
  readonly #options: KeeperOptions;
  readonly #uid = process.getuid!();
  readonly #epoll = new Epoll();
  readonly #kept = new Map<string, number[]>();
  readonly #buffer = Buffer.alloc(MESSAGE_BYTES_MAX);
  #fd = -1;
  #ended = false;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#epoll.add(options.listenFd, EPOLLIN);
  }

  /** Serve until the daemon says so, or none came in time. */
  run(): void {
    const { keepMs, clock } = this.#options;
    let aloneSinceMs = clock();
    while (!this.#ended) {
      const wasAlone = this.#fd < 0;
      const leftMs = aloneSinceMs + keepMs - clock();
      this.#look(wasAlone ? Math.max(0, Math.ceil(leftMs)) : -1);
      if (wasAlone && this.#fd < 0 && leftMs <= 0) return;
      if (!wasAlone && this.#fd < 0) aloneSinceMs = clock();
    }
  }

  #look(timeoutMs: number): void {
    const count = this.#epoll.wait(timeoutMs);
    for (let i = 0; i < count; i++) {
      const fd = this.#epoll.readyFd(i);
      // The connection first: what a daemon sent before it died comes before its successor.
      if (fd === this.#fd) this.#serve();
    }
    for (let i = 0; i < count; i++) {
      if (this.#epoll.readyFd(i) === this.#options.listenFd) this.#accept();
    }
  }

  #accept(): void {
    const fd = acceptUnix(this.#options.listenFd);
    if (fd < 0) return;
    if (peerCredentials(fd).uid !== this.#uid) {
      closeLater(fd);
      return;
    }
    while (this.#fd >= 0 && this.#serve());
    this.#disconnect();
    this.#fd = fd;
    setTimeouts(fd, ANSWER_TIMEOUT_MS);
    this.#epoll.add(fd, EPOLLIN | EPOLLRDHUP);
  }

  #disconnect(): void {
    if (this.#fd < 0) return;
    this.#epoll.remove(this.#fd);
    closeLater(this.#fd);
    this.#fd = -1;
  }

  /** Do what the daemon asks for, some at a time. False when nothing more is there. */
  #serve(): boolean {
    for (let n = 0; n < MESSAGES_PER_LOOK; n++) {
      const received = this.#receive();
      if (received === null || this.#ended) return false;
      if (received.length === 0 || !this.#act(received)) {
        this.#drop(received.fds);
        this.#disconnect();
        return false;
      }
    }
    return true;
  }

  #receive(): Received | null {
    try {
      return receiveMessage(this.#fd, this.#buffer, SCM_MAX_FD);
    } catch {
      return { length: 0, fds: [], truncated: false, credentials: null };
    }
  }

  /** False for what no daemon sends. */
  #act({ length, fds, truncated }: Received): boolean {
    const request = parseRequest(this.#buffer.toString('utf8', 0, length));
    if (request === null || truncated) return false;
    if (request.op === 'put') return this.#put(request.label, fds);
    if (fds.length > 0) return false;
    if (request.op === 'delete') this.#delete(request.label);
    else if (request.op === 'take') return this.#giveAll();
    else this.#ended = true;
    return true;
  }

  #put(label: string, fds: number[]): boolean {
    if (fds.length === 0 || fds.length > FDS_PER_LABEL_MAX) return false;
    this.#delete(label);
    if (this.#kept.size >= LABELS_MAX) return false;
    this.#kept.set(label, fds);
    return true;
  }

  #delete(label: string): void {
    this.#drop(this.#kept.get(label) ?? []);
    this.#kept.delete(label);
  }

  #giveAll(): boolean {
    const fd = this.#fd;
    setNonBlocking(fd, false);
    try {
      for (const [label, fds] of this.#kept) {
        if (sendMessage(fd, encode({ label }), fds) < 0) return false;
      }
      return sendMessage(fd, encode({ end: this.#kept.size })) >= 0;
    } catch {
      return false;
    } finally {
      setNonBlocking(fd);
    }
  }

  #drop(fds: readonly number[]): void {
    for (const fd of fds) closeLater(fd);
  }
}
