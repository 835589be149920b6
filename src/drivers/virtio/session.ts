/**
 * A running virtio device and what keeps it running: its socket, its region, and the eventfds of every queue pair.
 * One thread starts it; each pair may then be opened in a thread of its own, by numbers that any thread can use.
 */
import fs from 'node:fs';
import { ArrakisError } from '../../base/errors.ts';
import {
  closeAll,
  eventfdClear,
  POLLERR,
  POLLHUP,
  POLLIN,
  pollOne,
  replaceFd,
} from '../../ffi/fd.ts';
import { requireSealed } from '../../ffi/memory.ts';
import { checkGrant, type VirtioGrant } from './attach.ts';
import { ANSWER_TIMEOUT_MS, type PairFds, type SharedRings, startDevice } from './frontend.ts';
import { FEATURES_OFFLOAD } from './regs.ts';

/** Descriptors that come with a VirtioGrant. */
export interface VirtioFds {
  /** Memfd of `regionBytes`, sealed against shrinking. */
  readonly region: number;
  /** Connected stream socket of the device. */
  readonly socket: number;
}

/** What one thread needs to open one pair: plain data. The descriptors are the session's, and open while it lives. */
export interface VirtioPair extends PairFds {
  readonly grant: VirtioGrant;
  readonly pair: number;
  readonly eventIdx: boolean;
  /** Checksums, cutting and merging were negotiated. */
  readonly offload: boolean;
  readonly region: number;
  readonly socket: number;
}

export class VirtioSession {
  readonly pairs: readonly VirtioPair[];
  /**
   * The device's socket. It becomes readable when the device goes away; whoever watches it then calls `checkDevice`.
   * Owned by this session.
   */
  readonly controlFd: number;
  readonly #rings: SharedRings;
  readonly #fds: readonly number[];
  #closed = false;

  constructor(pairs: readonly VirtioPair[], rings: SharedRings, socket: number) {
    this.pairs = pairs;
    this.controlFd = socket;
    this.#rings = rings;
    const own = pairs.flatMap(({ rxKickFd, txKickFd, callFd, errFd }) => [
      rxKickFd,
      txKickFd,
      callFd,
      errFd,
    ]);
    this.#fds = [socket, rings.regionFd, ...own];
  }

  /**
   * The device went away, and another behind `socket` takes its place on the same region. Every queue was `reset` before,
   * in its own thread, or cleared. Takes over `socket`, which gets the number of the old one. Throws what `startDevice` throws, and
   * may then be called again.
   */
  restart(socket: number, timeoutMs = ANSWER_TIMEOUT_MS): void {
    replaceFd(socket, this.controlFd);
    for (const { errFd } of this.pairs) eventfdClear(errFd);
    const { offload, eventIdx } = this.pairs[0]!;
    const now = startDevice(this.controlFd, this.#rings, timeoutMs, this.pairs, offload);
    if (eventIdx === now.eventIdx && offload === hasOffload(now.features)) return;
    throw new ArrakisError('ARK_PROTOCOL', 'the device came back with other features', {
      hint: 'close the VNIC and open it again',
    });
  }

  /**
   * Empty the rings of a pair that nobody serves any more: the next device would find indices there that it cannot have
   * come to, and stop the whole VNIC.
   */
  clearRings(pair: number): void {
    const { regionFd, rings } = this.#rings;
    for (const { desc, end } of Object.values(rings[pair]!)) {
      fs.writeSync(regionFd, Buffer.alloc(end - desc), 0, end - desc, desc);
    }
  }

  /** Look whether the device is still there. Two system calls for one pair, and one more for each other. */
  checkDevice(): 'up' | 'gone' | 'broken' {
    return deviceState(
      this.controlFd,
      this.pairs.map((pair) => pair.errFd),
    );
  }

  /** Stop the device and close every descriptor. Call it after every queue was closed. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeAll(this.#fds);
  }
}

const hasOffload = (features: bigint): boolean =>
  (features & FEATURES_OFFLOAD) === FEATURES_OFFLOAD;

/** `gone` when the socket was closed, `broken` when a ring was given up or something came that nobody asked for. */
export function deviceState(socket: number, errFds: readonly number[]): 'up' | 'gone' | 'broken' {
  const events = pollOne(socket, POLLIN, 0);
  if ((events & (POLLHUP | POLLERR)) !== 0) return 'gone';
  if (events !== 0) return 'broken';
  return errFds.some((fd) => pollOne(fd, POLLIN, 0) !== 0) ? 'broken' : 'up';
}

/**
 * Start the device of `grant` on its region, with offloads if they are wanted and the device has them. Takes over both
 * descriptors, also on failure.
 * Throws ARK_BAD_ARGUMENT or ARK_LIMIT (grant), ARK_NOT_PERMITTED (unsealed memory), and what `startDevice` throws.
 */
export function startVirtio(
  grant: VirtioGrant,
  fds: VirtioFds,
  timeoutMs = ANSWER_TIMEOUT_MS,
  wantsOffload = false,
): VirtioSession {
  const { region, socket } = fds;
  try {
    const { rings, regionBytes, ringsEnd } = checkGrant(grant);
    requireSealed(region);
    // A region that was in use before must not show the device old indices.
    fs.writeSync(region, Buffer.alloc(ringsEnd), 0, ringsEnd, 0);
    const memory = { regionFd: region, regionBytes, ringSize: grant.ringSize, rings };
    const started = startDevice(socket, memory, timeoutMs, [], wantsOffload);
    const { eventIdx, pairs } = started;
    const offload = hasOffload(started.features);
    const described = pairs.map((pair, index) => ({
      ...pair,
      grant,
      pair: index,
      eventIdx,
      offload,
      region,
      socket,
    }));
    return new VirtioSession(described, memory, socket);
  } catch (error) {
    closeAll([region, socket]);
    throw error;
  }
}
