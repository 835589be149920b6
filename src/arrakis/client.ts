/**
 * The application's end of the control protocol: requests with promises, events, descriptors.
 *
 * - It keeps the process alive only while an answer is awaited.
 * - When it closes, requests that wait fail with ARK_NO_DAEMON; queues are left alone.
 * - When the daemon is killed the channel stays, and the next one serves it. A request that the old one had read and
 *   not answered is then lost: it fails with ARK_NO_DAEMON once a later one is answered, as answers come in order.
 */
import { ArrakisError, isErrno } from '../base/errors.ts';
import { MessageChannel } from '../control/channel.ts';
import { LIMITS } from '../control/limits.ts';
import { socketCandidates } from '../control/paths.ts';
import {
  type ArgsOf,
  type EventName,
  OPERATIONS,
  type Operation,
  parseFromDaemon,
  parseReply,
  type ReplyOf,
} from '../control/protocol.ts';
import { closeAll, closeFd, isOpen, setCloseOnExec } from '../ffi/fd.ts';
import { connectUnix, peerCredentials, SOCK_SEQPACKET } from '../ffi/unix.ts';

/** An answer. The caller owns `fds`. */
export interface Answer<O extends Operation> {
  readonly reply: ReplyOf<O>;
  readonly fds: number[];
  /** Daemons that had taken over this channel before the answer was read. */
  readonly takeovers: number;
}

export interface ControlEvents {
  /** The receiver owns `fds`. `takeovers` as of an answer; `resumed` counts itself. */
  onEvent(name: EventName, body: unknown, fds: number[], takeovers: number): void;
  onClose(reason: string): void;
}

interface Pending {
  op: Operation;
  resolve: (answer: Answer<Operation>) => void;
  reject: (error: ArrakisError) => void;
  timer: NodeJS.Timeout;
}

export class ControlChannel {
  readonly #channel: MessageChannel;
  readonly #events: ControlEvents;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #takeovers = 0;
  #closedReason: string | null = null;

  /** Takes over `fd`, a connected control socket. */
  constructor(fd: number, events: ControlEvents) {
    this.#events = events;
    this.#channel = new MessageChannel(fd, {
      onMessage: (text, fds) => this.#onMessage(text, fds),
      onOversized: () => this.#channel.close('the daemon sent a message that is too large'),
      onClose: (reason) => this.#onClose(reason),
    });
    this.#channel.keepAlive(false);
  }

  get closed(): boolean {
    return this.#closedReason !== null || this.#channel.closed;
  }

  /** Ask the daemon. The descriptors stay the caller's. Rejects with the daemon's ArrakisError, or ARK_TIMEOUT. */
  request<O extends Operation>(
    op: O,
    args: ArgsOf<O>,
    fds: readonly number[] = [],
  ): Promise<Answer<O>> {
    if (this.closed) return Promise.reject(lost(this.#closedReason ?? 'it is closed'));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#finish(id)?.reject(
          new ArrakisError('ARK_TIMEOUT', `no answer to ${op} in ${LIMITS.requestMsMax} ms`, {
            hint: "it hangs, or was killed and not started again: `arrakis up`; or look at the daemon's log",
          }),
        );
      }, LIMITS.requestMsMax);
      this.#pending.set(id, { op, resolve: resolve as Pending['resolve'], reject, timer });
      this.#channel.keepAlive(true);
      this.#channel.send({ id, op, ...args }, fds);
    });
  }

  /** End the connection: the daemon takes back everything that this domain has. Idempotent. */
  close(): void {
    this.#channel.close('it was closed here');
  }

  #finish(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    if (pending === undefined) return undefined;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (this.#pending.size === 0) this.#channel.keepAlive(false);
    return pending;
  }

  #onMessage(text: string, fds: number[]): void {
    let message: ReturnType<typeof parseFromDaemon>;
    try {
      message = parseFromDaemon(text);
    } catch (error) {
      closeAll(fds);
      this.#channel.close((error as Error).message);
      return;
    }
    if (message === null) closeAll(fds);
    else if (message.kind === 'event') {
      if (message.name === 'resumed') this.#onResumed();
      this.#events.onEvent(message.name, message.body, fds, this.#takeovers);
    } else if (message.kind === 'reply') this.#onReply(message.id, message.body, fds);
    else {
      closeAll(fds);
      this.#finish(message.id)?.reject(message.error);
    }
  }

  #onReply(id: number, body: unknown, fds: number[]): void {
    const pending = this.#finish(id);
    if (pending === undefined) {
      // Too late: nobody waits any more.
      closeAll(fds);
      return;
    }
    try {
      const reply = parseReply(pending.op, body);
      checkFdCount(OPERATIONS[pending.op].replyFds, fds.length);
      pending.resolve({ reply, fds, takeovers: this.#takeovers });
    } catch (error) {
      closeAll(fds);
      pending.reject(error as ArrakisError);
    }
  }

  /** Another daemon serves us. What is not answered before the next request is, was lost with the one before. */
  #onResumed(): void {
    this.#takeovers++;
    const waiting = [...this.#pending.keys()];
    if (waiting.length === 0) return;
    const settle = (): void => {
      for (const id of waiting) this.#finish(id)?.reject(interrupted());
    };
    this.request('list', { after: Number.MAX_SAFE_INTEGER }).then(settle, settle);
  }

  #onClose(reason: string): void {
    this.#closedReason = reason;
    for (const id of [...this.#pending.keys()]) this.#finish(id)?.reject(lost(reason));
    this.#events.onClose(reason);
  }
}

function checkFdCount(names: readonly string[], count: number): void {
  const more = names.at(-1)?.endsWith('...') ?? false;
  if (more ? count >= names.length : count === names.length) return;
  throw new ArrakisError('ARK_BAD_MESSAGE', `${count} descriptors came, not ${names.join(', ')}`);
}

function interrupted(): ArrakisError {
  return new ArrakisError('ARK_NO_DAEMON', 'the daemon was killed while it served the request', {
    hint: 'another one has taken over: ask again',
  });
}

function lost(reason: string): ArrakisError {
  return new ArrakisError('ARK_NO_DAEMON', `the control channel is closed: ${reason}`, {
    hint: 'the daemon may have ended (`arrakis up`); connect again',
  });
}

/**
 * A connected control socket: the inherited one (`ARRAKIS_FD`, which is taken out of the environment), else the one at
 * `socket`, `ARRAKIS_SOCKET` or the usual places. The caller owns it. ARK_NO_DAEMON when nobody listens.
 */
export function openControlSocket(
  options: { socket?: string | undefined; env?: NodeJS.ProcessEnv } = {},
): number {
  const { socket, env = process.env } = options;
  if (socket === undefined && env.ARRAKIS_FD !== undefined) {
    const fd = inheritedFd(env.ARRAKIS_FD);
    // Children must neither find nor hold it: the domain ends with this process.
    delete env.ARRAKIS_FD;
    return fd;
  }
  const paths = socket === undefined ? socketCandidates(process.getuid!(), env) : [socket];
  let forbidden: string | null = null;
  for (const path of paths) {
    try {
      return checkServer(connectUnix(path, SOCK_SEQPACKET), path);
    } catch (error) {
      if (isErrno(error, 'EACCES', 'EPERM')) forbidden = path;
      else if (!isErrno(error, 'ENOENT', 'ECONNREFUSED', 'ENOTDIR')) throw error;
    }
  }
  if (forbidden !== null) {
    throw new ArrakisError('ARK_NOT_PERMITTED', `${forbidden} may not be opened by this user`, {
      hint: "it is another user's daemon; start one as root (`sudo arrakis up`) or your own",
    });
  }
  throw new ArrakisError('ARK_NO_DAEMON', `no arrakisd listens at ${paths.join(' or ')}`, {
    hint: 'sudo arrakis up',
  });
}

function inheritedFd(text: string): number {
  const fd = /^\d{1,6}$/.test(text) ? Number(text) : -1;
  if (fd < 0 || !isOpen(fd)) {
    throw new ArrakisError('ARK_NO_DAEMON', `ARRAKIS_FD is ${text}, which is not open here`, {
      hint: 'start the application by `arrakis run`, or unset ARRAKIS_FD',
    });
  }
  setCloseOnExec(fd);
  return fd;
}

/** A socket in a directory that others may write could be anybody's: only root and we ourselves are a control plane. */
function checkServer(fd: number, path: string): number {
  const { uid } = peerCredentials(fd);
  if (uid === 0 || uid === process.getuid!()) return fd;
  closeFd(fd);
  throw new ArrakisError('ARK_NOT_PERMITTED', `${path} is served by uid ${uid}`, {
    hint: 'a control plane is run by root or by you; set ARRAKIS_SOCKET to the right one',
  });
}
