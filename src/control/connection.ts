/**
 * One control connection of the daemon: from messages to operations and back.
 *
 * - Requests are served one at a time and answered in order; while one is served the next wait in the kernel.
 * - A connection that says nothing, or nothing sensible, is closed.
 * - Descriptors of a request are closed after it, whatever happened; an operation duplicates what it keeps. They come
 *   from anybody: the close of one may block, so it must not happen here (channel.ts).
 */
import { ArrakisError } from '../base/errors.ts';
import { closeForeign } from '../ffi/fd.ts';
import { peerGroups, peerProgram } from '../ffi/peer.ts';
import type { Credentials } from '../ffi/unix.ts';
import { type ChannelEvents, MessageChannel } from './channel.ts';
import type { Peer } from './handler.ts';
import { LIMITS } from './limits.ts';
import { closeDomain, type Domain } from './objects/domain.ts';
import { perform } from './operations.ts';
import type { ControlPlane } from './plane.ts';
import { BadRequest, errorToWire, parseRequest } from './protocol.ts';

export class Connection implements Peer {
  readonly uid: number;
  readonly gid: number | null;
  readonly groups: readonly number[];
  exe: string | null;
  pid: number;
  readonly #plane: ControlPlane;
  readonly #channel: MessageChannel;
  #domain: Domain | null = null;
  #badMessages = 0;
  /** When it is known what program it is; before hello there is no need of it. */
  #identified: Promise<void> | null = null;
  #helloTimer: NodeJS.Timeout | null = null;

  /**
   * Serves `fd`. With `domain` it is the channel of a prepared one; otherwise it must say hello in time. `onReleased` comes
   * when it has ended and costs nothing any more.
   */
  constructor(
    plane: ControlPlane,
    fd: number,
    credentials: Credentials,
    domain: Domain | null,
    onReleased: () => void,
  ) {
    this.#plane = plane;
    this.uid = domain?.uid ?? credentials.uid;
    this.gid = domain === null ? credentials.gid : domain.gid;
    this.pid = credentials.pid;
    this.groups = domain?.groups ?? peerGroups(fd);
    this.exe = domain?.exe ?? null;
    if (domain === null) this.#identified = this.#identify(fd);
    const events: ChannelEvents = {
      onMessage: (text, fds, sender) => void this.#onMessage(text, fds, sender),
      onOversized: () => this.#refuseMessage(0, tooLarge()),
      onClose: (reason) => this.#ended(reason),
      onReleased,
    };
    const { fdsUnderWayMax } = LIMITS;
    this.#channel = new MessageChannel(fd, events, { foreign: true, fdsUnderWayMax });
    if (domain !== null) this.adopt(domain);
    else this.#helloTimer = setTimeout(() => this.close('it said no hello'), LIMITS.helloMsMax);
  }

  get domain(): Domain | null {
    return this.#domain;
  }

  adopt(domain: Domain): void {
    if (this.#helloTimer !== null) clearTimeout(this.#helloTimer);
    this.#helloTimer = null;
    this.#domain = domain;
    this.#plane.keeping.put('domain', domain.id, domain.save(), [this.#channel.fd]);
    domain.sender = (message, fds) => this.#channel.send(message, fds);
    domain.backlog = () => this.#channel.waiting;
  }

  async #identify(fd: number): Promise<void> {
    try {
      this.exe = await peerProgram(fd, this.pid);
    } catch (error) {
      // Then it is no program that a policy could mean.
      this.#defect(error as Error);
    }
    this.#identified = null;
  }

  close(reason: string): void {
    this.#channel.close(reason);
  }

  async #onMessage(text: string, fds: number[], sender: Credentials | null): Promise<void> {
    this.#channel.pause();
    try {
      if (this.#identified !== null) await this.#identified;
      await this.#serve(text, fds, sender);
    } finally {
      closeForeign(fds);
      this.#channel.resume();
    }
  }

  async #serve(text: string, fds: number[], sender: Credentials | null): Promise<void> {
    const { counters } = this.#plane;
    counters.requests++;
    let id = 0;
    try {
      const request = parseRequest(text, fds.length);
      id = request.id;
      this.#checkSender(sender);
      if (this.#domain !== null) this.#domain.requests++;
      const outcome = await perform(this.#plane, { peer: this, fds }, request);
      try {
        this.#channel.send({ id, ok: true, ...outcome.reply }, outcome.fds);
      } finally {
        outcome.sent?.();
      }
    } catch (error) {
      counters.requestsRefused++;
      if (this.#domain !== null) this.#domain.refused++;
      if (error instanceof BadRequest) this.#refuseMessage(error.id, error);
      else this.#channel.send({ id, ok: false, error: errorToWire(error) });
      if (!(error instanceof ArrakisError)) this.#defect(error as Error);
    }
  }

  /** A prepared channel is inherited by others than its maker: the kernel names the sender of every message. */
  #checkSender(sender: Credentials | null): void {
    const domain = this.#domain;
    if (domain === null || !domain.prepared) return;
    if (sender !== null && (sender.uid === domain.uid || this.#plane.isPrivileged(sender.uid))) {
      this.pid = sender.pid;
      return;
    }
    throw new ArrakisError(
      'ARK_NOT_PERMITTED',
      `this channel is for uid ${domain.uid}, not ${sender?.uid ?? 'nobody'}`,
      { hint: 'prepare the domain for the user that the application runs as' },
    );
  }

  #refuseMessage(id: number, error: ArrakisError): void {
    this.#plane.counters.badMessages++;
    this.#channel.send({ id, ok: false, error: errorToWire(error) });
    if (++this.#badMessages >= LIMITS.badMessagesMax) this.close('too many malformed messages');
  }

  #defect(error: Error): void {
    this.#plane.counters.defects++;
    this.#plane.log('error', 'defect', { error: error.message, stack: error.stack ?? '' });
  }

  #ended(reason: string): void {
    if (this.#helloTimer !== null) clearTimeout(this.#helloTimer);
    const domain = this.#domain;
    if (domain === null) return;
    const { id, name, pid } = domain;
    this.#plane.log('info', 'domain ended', { domain: id, name, pid, reason });
    void closeDomain(this.#plane, domain);
  }
}

function tooLarge(): ArrakisError {
  return new ArrakisError(
    'ARK_BAD_MESSAGE',
    `a message has at most ${LIMITS.messageBytesMax} bytes and ${LIMITS.messageFdsMax} descriptors`,
  );
}
