/**
 * AF_XDP, the unprivileged half: a NicQueue on a socket and memory that the control plane made (attach.ts).
 *
 *   pool ─alloc─► fill ring ─► kernel writes a frame at buffer + 256 ─► rx ring ─► rxBatch ─► caller
 *   caller ─txBatch─► tx ring ─kick─► kernel sends ─► completion ring ─reclaim─► pool
 *
 * - A buffer is at one place: pool, fill ring or kernel, caller, or tx to completion. `#owed` is how many the kernel
 *   used up of those that it is to have, so the fill ring cannot overflow and its consumer need not be read.
 * - In copy mode the kernel sends only when called: `kick` calls while frames are left and some go out.
 * - What the kernel hands back is checked against the pool before it is believed.
 */
import { ArrakisError } from '../../base/errors.ts';
import {
  NIC_STATE,
  type NicCounters,
  type NicQueue,
  type NicState,
  NO_FRAME,
  newNicCounters,
} from '../../device/nic.ts';
import { isSendable } from '../../device/sendable.ts';
import { closeFd, duplicateFd } from '../../ffi/fd.ts';
import { EAGAIN, EBUSY, EINTR, ENOBUFS, errno } from '../../ffi/libc.ts';
import { type Mapping, mapShared } from '../../ffi/memory.ts';
import { xskReceive, xskRingOffsets, xskSend } from '../../ffi/xsk.ts';
import { type FrameMemory, frameMemory } from '../../memory/frame-memory.ts';
import { FramePool } from '../../memory/frame-pool.ts';
import { type AfXdpGrant, checkGeometry, ETHERNET_HEADER_LEN } from './grant.ts';
import { Ring } from './ring.ts';

/** Calls of one `kick`: each that meets a full receiver drops one frame and returns. */
const SENDS_PER_KICK_MAX = 16;
const ENXIO = 6;
const EBADF = 9;
const ENODEV = 19;
const ENETDOWN = 100;

/**
 * Open queue pair `pair` of a grant, in the calling thread. `fds` are the region and the socket of that pair; both
 * stay the caller's, who may close them at once: the queue has its own. A socket serves one queue once: ARK_IN_USE
 * when it was used before.
 */
export function openAfXdpQueue(
  grant: AfXdpGrant,
  fds: { region: number; socket: number },
  pair = 0,
): AfXdpQueue {
  checkGeometry(grant);
  const { frameSize, frameCount, headroom, regionBytes, pairs } = grant;
  if (regionBytes !== frameSize * frameCount * pairs || !(headroom < frameSize) || pair >= pairs) {
    throw new ArrakisError('ARK_BAD_MESSAGE', 'the grant of an AF_XDP VNIC contradicts itself');
  }
  return new AfXdpQueue(grant, pair, fds.region, duplicateFd(fds.socket));
}

export class AfXdpQueue implements NicQueue {
  readonly driver = 'af-xdp';
  readonly offloads = 0;
  readonly memory: FrameMemory;
  readonly frameLengthMax: number;
  readonly counters: NicCounters = newNicCounters();
  readonly doorbellFd: number;

  readonly #fd: number;
  readonly #region: Mapping;
  readonly #pool: FramePool;
  readonly #rx: Ring;
  readonly #tx: Ring;
  readonly #fill: Ring;
  readonly #completion: Ring;
  /** Buffers that the kernel should have to receive into, but has not. */
  #owed: number;
  #starved = false;
  #armed = false;
  #hasLetGo = false;
  #state: NicState = NIC_STATE.up;

  /** Owns `socket` from now on, also when it throws. */
  constructor(grant: AfXdpGrant, pair: number, region: number, socket: number) {
    const opened: { release(): void }[] = [{ release: () => closeFd(socket) }];
    const keep = <T extends { release(): void }>(part: T): T => {
      opened.push(part);
      return part;
    };
    try {
      const size = grant.ringSize;
      const offsets = xskRingOffsets(socket);
      this.#fd = this.doorbellFd = socket;
      // The frames of this pair only; the kernel counts their addresses from here too.
      const bytes = grant.frameSize * grant.frameCount;
      this.#region = keep(mapShared(region, bytes, pair * bytes, true));
      this.#rx = keep(new Ring(socket, 'rx', size, offsets.rx));
      this.#tx = keep(new Ring(socket, 'tx', size, offsets.tx));
      this.#fill = keep(new Ring(socket, 'fill', size, offsets.fill));
      this.#completion = keep(new Ring(socket, 'completion', size, offsets.completion));
      if (!this.#fill.isUnused || !this.#tx.isUnused) {
        throw new ArrakisError('ARK_IN_USE', 'this AF_XDP socket already served a queue', {
          hint: 'its buffers are still with the kernel: ask the control plane for a new VNIC',
        });
      }
    } catch (error) {
      for (const part of opened) part.release();
      throw error;
    }
    this.memory = frameMemory(this.#region.buffer, grant);
    this.frameLengthMax = grant.mtu + ETHERNET_HEADER_LEN;
    this.#pool = new FramePool(this.memory, 0);
    this.#owed = Math.min(grant.ringSize, grant.frameCount >>> 1);
    this.#refill();
  }

  get state(): NicState {
    return this.#state;
  }

  get framesAvailable(): number {
    return this.#pool.available;
  }

  rxBatch(frames: Uint32Array, lengths: Uint16Array, max: number): number {
    if (this.#state !== NIC_STATE.up) return 0;
    const rx = this.#rx;
    let available = (rx.cached - rx.local) | 0;
    if (available === 0) {
      available = (rx.refresh() - rx.local) | 0;
      if (available === 0) {
        if (this.#owed > 0) this.#refill();
        return 0;
      }
    }
    if (available < 0 || available > rx.mask + 1) return this.#fail(NIC_STATE.broken);
    const taken = Math.min(available, max);
    const { words, mask, base, local } = rx;
    const pool = this.#pool;
    const frameSize = this.memory.frameSize;
    let count = 0;
    let bytes = 0;
    for (let i = 0; i < taken; i++) {
      const at = base + (((local + i) & mask) << 2);
      const frame = words[at]!;
      const length = words[at + 2]!;
      const fits = (frame & (frameSize - 1)) + length <= frameSize;
      if (words[at + 1] === 0 && fits && pool.owns(frame)) {
        frames[count] = frame;
        lengths[count] = length;
        bytes += length;
        count++;
      }
    }
    rx.local = (local + taken) | 0;
    rx.publish();
    this.counters.rxPackets += count;
    this.counters.rxBytes += bytes;
    if (count !== taken) this.counters.rxDropped += taken - count;
    this.#owed += taken;
    this.#refill();
    return count;
  }

  /** Give the kernel the buffers that it is owed, as far as the pool has them. */
  #refill(): void {
    const fill = this.#fill;
    const pool = this.#pool;
    const { words, mask, base } = fill;
    const count = Math.min(this.#owed, pool.available);
    if (count === 0) {
      if (!this.#starved) this.counters.noFrame++;
      this.#starved = true;
      return;
    }
    this.#starved = false;
    const local = fill.local;
    for (let i = 0; i < count; i++) {
      const at = base + (((local + i) & mask) << 1);
      words[at] = pool.alloc();
      words[at + 1] = 0;
    }
    fill.local = (local + count) | 0;
    fill.publish();
    this.#owed -= count;
    if (fill.needsWakeup()) this.#check(xskReceive(this.#fd));
  }

  txBatch(frames: Uint32Array, lengths: Uint16Array, count: number): number {
    if (this.#state !== NIC_STATE.up) return 0;
    const tx = this.#tx;
    const pool = this.#pool;
    const memory = this.memory;
    const { words, mask, base } = tx;
    const first = tx.local;
    const size = mask + 1;
    if (size - ((first - tx.cached) | 0) < count) tx.refresh();
    const limit = (tx.cached + size) | 0;
    let local = first;
    let bytes = 0;
    let taken = 0;
    for (; taken < count; taken++) {
      const frame = frames[taken]!;
      const length = lengths[taken]!;
      const isOurs = pool.owns(frame);
      if (isOurs && isSendable(memory, frame, length, this.frameLengthMax)) {
        if (local === limit) break;
        const at = base + ((local & mask) << 2);
        words[at] = frame;
        words[at + 1] = 0;
        words[at + 2] = length;
        words[at + 3] = 0;
        local = (local + 1) | 0;
        bytes += length;
      } else {
        this.counters.txDropped++;
        if (isOurs) pool.free(frame);
      }
    }
    if (local !== first) {
      tx.local = local;
      tx.publish();
      this.counters.txPackets += (local - first) | 0;
      this.counters.txBytes += bytes;
    }
    return taken;
  }

  reclaim(max: number): number {
    if (this.#state !== NIC_STATE.up) return 0;
    const completion = this.#completion;
    const { words, mask, base, local } = completion;
    let available = (completion.cached - local) | 0;
    if (available === 0) available = (completion.refresh() - local) | 0;
    if (available === 0) return 0;
    if (available < 0 || available > mask + 1) return this.#fail(NIC_STATE.broken);
    const count = Math.min(available, max);
    const pool = this.#pool;
    for (let i = 0; i < count; i++) {
      const frame = words[base + (((local + i) & mask) << 1)]!;
      if (!pool.owns(frame)) return this.#fail(NIC_STATE.broken);
      pool.free(frame);
    }
    completion.local = (local + count) | 0;
    completion.publish();
    return count;
  }

  kick(): void {
    if (this.#state !== NIC_STATE.up) return;
    const tx = this.#tx;
    let seen = tx.cached;
    if (seen === tx.local) return;
    seen = tx.refresh();
    for (let i = 0; i < SENDS_PER_KICK_MAX && seen !== tx.local && tx.needsWakeup(); i++) {
      this.counters.kicks++;
      this.#check(xskSend(this.#fd));
      // No progress: the completion ring is full or memory is short. The next kick tries again.
      if (tx.refresh() === seen) return;
      seen = tx.cached;
    }
  }

  alloc(): number {
    if (this.#state !== NIC_STATE.up) return NO_FRAME;
    const frame = this.#pool.alloc();
    if (frame === NO_FRAME) this.counters.noFrame++;
    return frame;
  }

  free(frame: number): void {
    this.#pool.free(frame);
  }

  retain(frame: number): void {
    this.#pool.retain(frame);
  }

  isShared(frame: number): boolean {
    return this.#pool.isShared(frame);
  }

  arm(): boolean {
    if (this.#state !== NIC_STATE.up) return false;
    if (this.#owed > 0) this.#refill();
    // Also tells whether the interface is still there: poll(2) does not.
    this.#check(xskSend(this.#fd));
    this.#tx.refresh();
    if (this.#state !== NIC_STATE.up || this.#rx.refresh() !== this.#rx.local) return false;
    this.#armed = true;
    return true;
  }

  disarm(): void {
    if (!this.#armed) return;
    this.#armed = false;
    if (this.#state === NIC_STATE.up && this.#rx.refresh() !== this.#rx.local) {
      this.counters.wakeups++;
    }
  }

  #check(result: number): void {
    if (result >= 0) return;
    const code = errno();
    if (code === EAGAIN || code === EBUSY || code === ENOBUFS || code === EINTR) return;
    const isGone = code === ENXIO || code === ENETDOWN || code === EBADF || code === ENODEV;
    this.#fail(isGone ? NIC_STATE.gone : NIC_STATE.broken);
  }

  #fail(state: NicState): 0 {
    this.#state = state;
    return 0;
  }

  /**
   * Give the socket back, because the VNIC is gone: who keeps it is taken for one who wants to go on. Packet memory stays
   * until `close`. Idempotent.
   */
  letGo(): void {
    if (this.#hasLetGo) return;
    this.#hasLetGo = true;
    if (this.#state !== NIC_STATE.closed) this.#state = NIC_STATE.gone;
    for (const ring of [this.#rx, this.#tx, this.#fill, this.#completion]) ring.release();
    closeFd(this.#fd);
  }

  close(): void {
    if (this.#state === NIC_STATE.closed) return;
    this.#state = NIC_STATE.closed;
    this.letGo();
    this.#region.release();
  }
}
