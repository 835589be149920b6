/**
 * A link: a ring each way in shared memory, and a bell for each side. The raw way to exchange messages: nothing is
 * copied or allocated, and the kernel is asked only to wake a sleeper.
 *
 * - Poll `receive`; when there was nothing for a while, `arm` and wait for `doorbellFd` (`pollLoop` does both).
 * - A side that closes, dies or breaks the rules ends the link: `state` says so, and `endReason` why.
 */
import { assert } from '../base/assert.ts';
import { closeFd } from '../ffi/fd.ts';
import { drainPipe, pipePair, ringPipe } from '../ffi/pipe.ts';
import { isRingCapacity, type LinkMemory, linkBytes, ringBytes } from './layout.ts';
import { NONE, RingReceiver, RingSender } from './ring.ts';

/** The ends of the two bells that a side has. The link owns both descriptors. */
export interface LinkBells {
  /** Reading end of our own: the peer rings it. */
  readonly own: number;
  /** Writing end of the peer's. */
  readonly peer: number;
}

/** 0: of the one who listened, who sends on the first ring. 1: of the one who connected. */
export type LinkSide = 0 | 1;

export const LINK_STATE = { open: 0, closed: 1, ended: 2, broken: 3 } as const;
export type LinkState = (typeof LINK_STATE)[keyof typeof LINK_STATE];

export interface LinkOptions {
  /** Bytes of one ring, a power of two. */
  readonly capacity: number;
  readonly side: LinkSide;
  readonly bells: LinkBells;
  /** Runs once after `close`, to unmap the memory. */
  readonly release?: () => void;
}

export class MessageLink {
  readonly memory: LinkMemory;
  /** Bytes of one ring. */
  readonly capacity: number;
  /** Longest message, bytes. */
  readonly lengthMax: number;
  /** System calls made to wake the peer. */
  rings = 0;
  readonly #send: RingSender;
  readonly #receive: RingReceiver;
  readonly #bells: LinkBells;
  readonly #release: (() => void) | undefined;
  #state: LinkState = LINK_STATE.open;
  #endReason = '';

  /** Both sides start with the same zeroed memory of `linkBytes(capacity)`. */
  constructor(memory: LinkMemory, options: LinkOptions) {
    const { capacity, side, bells } = options;
    assert(isRingCapacity(capacity), 'a ring is a power of two within bounds');
    assert(memory.bytes.length >= linkBytes(capacity), 'the link lies in its memory');
    const [first, second] = [0, ringBytes(capacity)];
    this.memory = memory;
    this.capacity = capacity;
    this.#send = new RingSender(memory, side === 0 ? first : second, capacity);
    this.#receive = new RingReceiver(memory, side === 0 ? second : first, capacity);
    this.lengthMax = this.#send.lengthMax;
    this.#bells = bells;
    this.#release = options.release;
  }

  /** Offset to write a message of up to `length` bytes at, or NONE. See RingSender.reserve. */
  reserve(length: number): number {
    if (this.#state !== LINK_STATE.open) return NONE;
    const at = this.#send.reserve(length);
    if (at === NONE && this.#send.fault !== null) this.#break(this.#send.fault);
    return at;
  }

  commit(length: number, tag = 0): void {
    this.#send.commit(length, tag);
  }

  /** Copy a message in; it is on its way after `publish`. False while the ring is full or the link has ended. */
  send(source: Uint8Array, length = source.length, tag = 0): boolean {
    if (this.#state !== LINK_STATE.open) return false;
    if (this.#send.send(source, length, tag)) return true;
    if (this.#send.fault !== null) this.#break(this.#send.fault);
    return false;
  }

  /** Send everything committed; once a batch. */
  publish(): void {
    if (this.#state === LINK_STATE.open && this.#send.publish()) this.#ring();
  }

  /** Length of the next message, at `offset` of the memory until `release`, or NONE. */
  receive(): number {
    return this.#state === LINK_STATE.open ? this.#receive.receive() : NONE;
  }

  /** Of the last message. */
  get offset(): number {
    return this.#receive.offset;
  }

  get tag(): number {
    return this.#receive.tag;
  }

  /** Give back the room of everything received; once a batch. */
  release(): void {
    if (this.#state === LINK_STATE.open && this.#receive.release()) this.#ring();
  }

  get doorbellFd(): number {
    return this.#bells.own;
  }

  /** Why the link is not open any more. */
  get endReason(): string {
    return this.#endReason;
  }

  /** Looks at the peer: cheap, but not for every poll. */
  get state(): LinkState {
    if (this.#state !== LINK_STATE.open) return this.#state;
    if (this.#receive.fault !== null) this.#break(this.#receive.fault);
    else if (this.#send.peerClosed || this.#receive.peerClosed) {
      // What it sent before it closed is still there.
      if (this.#receive.arm()) this.end('the peer closed it');
    }
    return this.#state;
  }

  /** Ask for the bell: with the next message and, if `forRoom`, with more room. False: look again, or it has ended. */
  arm(forRoom = false): boolean {
    if (this.#state !== LINK_STATE.open) return false;
    // First, or a bell that is rung between arming and this would be lost.
    if (!drainPipe(this.#bells.own)) this.#peerDied();
    else if (
      this.state === LINK_STATE.open &&
      this.#receive.arm() &&
      (!forRoom || this.#send.arm())
    ) {
      return true;
    }
    this.#disarmRings();
    return false;
  }

  /** After a wake-up, or to poll again without one. */
  disarm(): void {
    if (this.#state !== LINK_STATE.open) return;
    this.#disarmRings();
    if (!drainPipe(this.#bells.own)) this.#peerDied();
  }

  /** The link is over, for `reason`; nothing more is sent or received. The memory stays until `close`. */
  end(reason: string): void {
    if (this.#state === LINK_STATE.open) this.#finish(LINK_STATE.ended, reason);
  }

  /** Say goodbye and let go of the memory and the bells. What was published before can still be read. Idempotent. */
  close(reason = 'it was closed here'): void {
    if (this.#state === LINK_STATE.closed) return;
    if (this.#state === LINK_STATE.open) this.#finish(LINK_STATE.closed, reason);
    this.#state = LINK_STATE.closed;
    closeFd(this.#bells.own);
    closeFd(this.#bells.peer);
    this.#release?.();
  }

  #disarmRings(): void {
    this.#receive.disarm();
    this.#send.disarm();
  }

  #break(fault: string): void {
    this.#finish(LINK_STATE.broken, `the peer broke the protocol: ${fault}`);
  }

  /** The kernel closed its descriptors: what it published before is still to be received. */
  #peerDied(): void {
    if (this.#receive.arm()) this.end('the peer ended');
  }

  #finish(state: LinkState, reason: string): void {
    this.#state = state;
    this.#endReason = reason;
    this.#send.close();
    this.#receive.close();
    this.#ring();
  }

  #ring(): void {
    this.rings++;
    ringPipe(this.#bells.peer);
  }
}

/** Bells for the two sides of a link between threads of this process. The caller owns all four descriptors. */
export function makeBells(): readonly [LinkBells, LinkBells] {
  const first = pipePair();
  const second = pipePair();
  return [
    { own: first.reader, peer: second.writer },
    { own: second.reader, peer: first.writer },
  ];
}
