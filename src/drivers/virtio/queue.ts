/**
 * The application's half of the virtio network driver: one queue pair, a receive and a transmit ring, over vhost-user.
 *
 *   buffer   | headroom ............ [virtio_net_hdr, 12] | frame ............ |
 *                                    ^ descriptor address  ^ frame handle
 *
 * - The header stands right before the frame, in its headroom (virtio 1.2, section 5.1.6). Without offloads it is zero
 *   when we send, and says nothing when we receive.
 * - With offloads a packet may have several buffers. Those behind the first have no header: what was received begins at the
 *   descriptor's address.
 * - Frames in the rings are the device's; the pool has the rest, except what the caller holds.
 * - The device is not trusted: what it says is checked by SplitDriver, and a violation stops this queue (`broken`).
 */

import {
  BATCH_PIECES_MAX,
  FRAME_FLAG,
  NIC_OFFLOAD,
  NIC_STATE,
  type NicCounters,
  type NicQueue,
  type NicState,
  newNicCounters,
} from '../../device/nic.ts';
import { FRAME_LENGTH_MIN, isSendable } from '../../device/sendable.ts';
import { eventfdSignal, readFd } from '../../ffi/fd.ts';
import { type Mapping, mapShared } from '../../ffi/memory.ts';
import { type FrameMemory, frameMemory, NO_FRAME } from '../../memory/frame-memory.ts';
import { FramePool } from '../../memory/frame-pool.ts';
import { F_DATA_VALID, F_NEEDS_CSUM } from '../../ring/net-header.ts';
import { CHAIN_END, SplitDriver } from '../../ring/split-driver.ts';
import { NET_HEADER_LEN } from '../../ring/split-layout.ts';
import { checkGrant, type PairRings, type RingLayout, type VirtioGrant } from './attach.ts';
import { ANSWER_TIMEOUT_MS } from './frontend.ts';
import { emitHeader, isPacket } from './offload.ts';
import { deviceState, startVirtio, type VirtioFds, type VirtioPair } from './session.ts';

/**
 * Start the device of a grant of one pair and open that. Takes over both descriptors, also on failure; closing the
 * queue ends the session. Throws what `startVirtio` throws.
 */
export function openVirtioQueue(
  grant: VirtioGrant,
  fds: VirtioFds,
  timeoutMs = ANSWER_TIMEOUT_MS,
  offload = false,
): VirtioQueue {
  const session = startVirtio(grant, fds, timeoutMs, offload);
  try {
    return new VirtioQueue(session.pairs[0]!, () => session.close());
  } catch (error) {
    session.close();
    throw error;
  }
}

/**
 * Open one pair of a session, in the calling thread, which alone may use it, and once only: the device goes on from
 * where the rings are. The session stays open until the queue was closed. The queue outlives its device: it goes on
 * after `reset`, until `giveUp`.
 */
export function openVirtioPair(pair: VirtioPair): VirtioQueue {
  return new VirtioQueue(pair, null);
}

/** Byte of `num_buffers` in virtio_net_hdr. */
const NUM_BUFFERS = 10;

export class VirtioQueue implements NicQueue {
  readonly driver = 'virtio';
  readonly memory: FrameMemory;
  readonly frameLengthMax: number;
  readonly counters: NicCounters = newNicCounters();
  readonly doorbellFd: number;
  readonly offloads: number;
  readonly #pool: FramePool;
  readonly #rings: PairRings;
  #rx: SplitDriver;
  #tx: SplitDriver;
  readonly #mapping: Mapping;
  readonly #fds: VirtioPair;
  readonly #onClose: (() => void) | null;
  readonly #wakeCount = Buffer.alloc(8);
  #state: NicState = NIC_STATE.up;

  /**
   * Maps the region and fills the receive ring. `onClose` runs after everything was let go; null when the session is
   * somebody else's, who then watches the device.
   */
  constructor(pair: VirtioPair, onClose: (() => void) | null) {
    const { grant } = pair;
    const geometry = checkGrant(grant);
    this.#mapping = mapShared(pair.region, geometry.regionBytes, 0, true);
    this.memory = frameMemory(this.#mapping.buffer, grant);
    this.frameLengthMax = grant.mtu + FRAME_LENGTH_MIN;
    this.doorbellFd = pair.callFd;
    this.offloads = pair.offload ? NIC_OFFLOAD.checksum | NIC_OFFLOAD.segmentation : 0;
    this.#fds = pair;
    this.#onClose = onClose;
    this.#rings = geometry.rings[pair.pair]!;
    this.#pool = new FramePool(this.memory, geometry.firstFrame + pair.pair * geometry.pairBytes);
    this.#rx = this.#newRing(this.#rings.rx, true);
    this.#tx = this.#newRing(this.#rings.tx, false);
    this.#post();
  }

  get state(): NicState {
    return this.#state;
  }

  get framesAvailable(): number {
    return this.#pool.available;
  }

  rxBatch(frames: Uint32Array, lengths: Uint16Array, max: number, flags?: Uint8Array): number {
    if (this.#state !== NIC_STATE.up || max === 0) return 0;
    if (this.offloads !== 0) return this.#rxPackets(frames, lengths, max, flags ?? null);
    const rx = this.#rx;
    const ready = Math.min(rx.peek(), max);
    let count = 0;
    let bytes = 0;
    for (let i = 0; i < ready; i++) {
      const address = rx.get();
      if (address < 0) break;
      const frame = address + NET_HEADER_LEN;
      const length = rx.length - NET_HEADER_LEN;
      if (length < FRAME_LENGTH_MIN || length > this.frameLengthMax) {
        this.counters.rxDropped++;
        this.#pool.free(frame);
        continue;
      }
      frames[count] = frame;
      lengths[count] = length;
      bytes += length;
      count++;
    }
    this.counters.rxPackets += count;
    this.counters.rxBytes += bytes;
    if (rx.broken) this.#break();
    else if (rx.free > 0) this.#post();
    return count;
  }

  txBatch(
    frames: Uint32Array,
    lengths: Uint16Array,
    count: number,
    flags?: Uint8Array,
    segmentBytes?: Uint16Array,
  ): number {
    if (this.#state !== NIC_STATE.up) return 0;
    const tx = this.#tx;
    const { view } = this.memory;
    let taken = 0;
    let sent = 0;
    let bytes = 0;
    for (; taken < count; taken++) {
      if (tx.free === 0) break;
      const frame = frames[taken]!;
      const length = lengths[taken]!;
      if (flags !== undefined && flags[taken] !== 0) {
        const pieces = this.#txPacket(frames, lengths, taken, count, flags, segmentBytes);
        if (pieces === 0) break;
        taken += pieces - 1;
        continue;
      }
      const owned = this.#pool.owns(frame);
      if (!owned || !isSendable(this.memory, frame, length, this.frameLengthMax)) {
        this.counters.txDropped++;
        if (owned) this.#pool.free(frame);
        continue;
      }
      const address = frame - NET_HEADER_LEN;
      view.setUint32(address, 0);
      view.setUint32(address + 4, 0);
      view.setUint32(address + 8, 0);
      tx.add(address, length + NET_HEADER_LEN);
      bytes += length;
      sent++;
    }
    tx.publish();
    this.counters.txPackets += sent;
    this.counters.txBytes += bytes;
    return taken;
  }

  /**
   * Received packets with their offloads. The device shows all buffers of a packet at once (virtio 1.2, section 5.1.6.4):
   * a count that says otherwise breaks the queue.
   */
  #rxPackets(
    frames: Uint32Array,
    lengths: Uint16Array,
    max: number,
    flags: Uint8Array | null,
  ): number {
    const rx = this.#rx;
    const { u8 } = this.memory;
    let left = rx.peek();
    let count = 0;
    while (left > 0) {
      const first = rx.addressAhead(0);
      if (first < 0) break;
      const pieces = u8[first + NUM_BUFFERS]! | (u8[first + NUM_BUFFERS + 1]! << 8);
      const headerFlags = u8[first]!;
      if (pieces === 0 || pieces > left) {
        this.#break();
        return count;
      }
      if (count > 0 && count + pieces > max) break;
      left -= pieces;
      const isKept =
        pieces === 1 || (flags !== null && pieces <= max && pieces <= BATCH_PIECES_MAX);
      if (!this.#takePieces(frames, lengths, count, pieces, isKept)) continue;
      if (flags !== null) {
        const isRight = (headerFlags & (F_NEEDS_CSUM | F_DATA_VALID)) !== 0;
        flags.fill(FRAME_FLAG.more, count, count + pieces - 1);
        flags[count + pieces - 1] = 0;
        if (isRight) flags[count]! |= FRAME_FLAG.checksum;
      }
      count += pieces;
    }
    if (rx.broken) this.#break();
    else if (rx.free > 0) this.#post();
    return count;
  }

  /** Take a packet's buffers from the ring. False when it was dropped, or the ring is broken. */
  #takePieces(
    frames: Uint32Array,
    lengths: Uint16Array,
    at: number,
    pieces: number,
    isKept: boolean,
  ): boolean {
    const rx = this.#rx;
    let bytes = 0;
    let isGood = isKept;
    let taken = 0;
    for (; taken < pieces; taken++) {
      const address = rx.get();
      if (address < 0) break;
      const frame = taken === 0 ? address + NET_HEADER_LEN : address;
      const length = taken === 0 ? rx.length - NET_HEADER_LEN : rx.length;
      if (length < (taken === 0 ? FRAME_LENGTH_MIN : 1)) isGood = false;
      if (isKept) {
        frames[at + taken] = frame;
        lengths[at + taken] = Math.max(0, length);
      } else this.#pool.free(frame);
      bytes += length;
    }
    if (isGood && taken === pieces) {
      this.counters.rxPackets++;
      this.counters.rxBytes += bytes;
      return true;
    }
    if (isKept) for (let i = 0; i < taken; i++) this.#pool.free(frames[at + i]!);
    this.counters.rxDropped++;
    return false;
  }

  /**
   * Send the packet whose pieces begin at `at`, with what its flags ask of the device. Entries that were accepted, also
   * when it can never be sent and was dropped; 0 when the ring has no room for all of it.
   */
  #txPacket(
    frames: Uint32Array,
    lengths: Uint16Array,
    at: number,
    count: number,
    flags: Uint8Array,
    segmentBytes: Uint16Array | undefined,
  ): number {
    const tx = this.#tx;
    const pool = this.#pool;
    let pieces = 1;
    while (at + pieces < count && (flags[at + pieces - 1]! & FRAME_FLAG.more) !== 0) pieces++;
    let areOwned = true;
    for (let i = at; i < at + pieces; i++) if (!pool.owns(frames[i]!)) areOwned = false;
    const isGood =
      areOwned &&
      this.offloads !== 0 &&
      isPacket(this.memory, frames, lengths, at, pieces, flags, this.frameLengthMax);
    if (!isGood) {
      this.counters.txDropped++;
      for (let i = at; i < at + pieces; i++) if (pool.owns(frames[i]!)) pool.free(frames[i]!);
      return pieces;
    }
    if (tx.free < pieces) return 0;
    const first = frames[at]!;
    emitHeader(
      this.memory.view,
      first,
      flags[at]!,
      segmentBytes === undefined ? 0 : segmentBytes[at]!,
    );
    tx.add(first - NET_HEADER_LEN, lengths[at]! + NET_HEADER_LEN);
    let bytes = lengths[at]!;
    for (let i = at + 1; i < at + pieces; i++) {
      tx.append(frames[i]!, lengths[i]!);
      bytes += lengths[i]!;
    }
    this.counters.txPackets++;
    this.counters.txBytes += bytes;
    return pieces;
  }

  reclaim(max: number): number {
    if (this.#state !== NIC_STATE.up || this.#tx.outstanding === 0) return 0;
    const tx = this.#tx;
    const ready = Math.min(tx.peek(), max);
    let count = 0;
    for (; count < ready; count++) {
      const address = tx.get();
      if (address < 0) break;
      this.#pool.free(address + NET_HEADER_LEN);
      for (let more = tx.getMore(); more !== CHAIN_END; more = tx.getMore()) this.#pool.free(more);
    }
    if (tx.broken) this.#break();
    return count;
  }

  kick(): void {
    if (this.#state === NIC_STATE.up && this.#tx.needsKick()) {
      eventfdSignal(this.#fds.txKickFd);
      this.counters.kicks++;
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
    this.checkDevice();
    if (this.#state !== NIC_STATE.up) return false;
    return this.#rx.arm();
  }

  disarm(): void {
    if (this.#state === NIC_STATE.closed) return;
    this.#rx.disarm();
    if (readFd(this.doorbellFd, this.#wakeCount) === 8) this.counters.wakeups++;
  }

  /**
   * Look whether the device is still there (two system calls): the state is `gone` when its socket was closed, `broken`
   * when it gave up on a ring or sent something that nobody asked for. `arm` does this too.
   */
  checkDevice(): NicState {
    if (this.#state !== NIC_STATE.up) return this.#state;
    const found = deviceState(this.#fds.socket, [this.#fds.errFd]);
    // Who watches the session knows whether another device is coming.
    if (found === 'gone' && this.#onClose !== null) this.#state = NIC_STATE.gone;
    else if (found === 'broken') this.#break();
    return this.#state;
  }

  close(): void {
    if (this.#state === NIC_STATE.closed) return;
    this.#state = NIC_STATE.closed;
    this.#mapping.release();
    this.#onClose?.();
  }

  #newRing(layout: RingLayout, deviceWrites: boolean): SplitDriver {
    const { grant, eventIdx } = this.#fds;
    return new SplitDriver(this.memory, {
      ...layout,
      size: grant.ringSize,
      eventIdx,
      deviceWrites,
    });
  }

  /**
   * The device is no more, and another one is going to serve the rings: they start anew. What the device had to send or
   * to receive into comes back; frames that it had received and nobody had taken are lost with it.
   */
  reset(): void {
    if (this.#state === NIC_STATE.closed || this.#state === NIC_STATE.broken) return;
    // Only the first piece of a packet has a header before it.
    const giveBack = (address: number, isHead: boolean): void =>
      this.#pool.free(isHead ? address + NET_HEADER_LEN : address);
    this.#rx.takeBack(giveBack);
    this.#tx.takeBack(giveBack);
    for (const { desc, end } of [this.#rings.rx, this.#rings.tx]) this.memory.u8.fill(0, desc, end);
    this.#rx = this.#newRing(this.#rings.rx, true);
    this.#tx = this.#newRing(this.#rings.tx, false);
    this.#post();
    // Whoever sleeps has armed the old ring.
    eventfdSignal(this.doorbellFd);
  }

  /** The device is no more, and no other is coming. */
  giveUp(): void {
    if (this.#state === NIC_STATE.up) this.#state = NIC_STATE.gone;
  }

  /** Give the device free frames until its receive ring is full, and wake it if it waits for them. */
  #post(): void {
    const rx = this.#rx;
    const pool = this.#pool;
    if (pool.available === 0) {
      // The ring is short of frames. Counted when that leaves the device with none at all.
      if (rx.outstanding === 0) this.counters.noFrame++;
      return;
    }
    const { frameSize, headroom } = this.memory;
    const length = frameSize - headroom + NET_HEADER_LEN;
    while (rx.free > 0 && pool.available > 0) {
      rx.add(pool.alloc() - NET_HEADER_LEN, length);
    }
    rx.publish();
    if (rx.needsKick()) {
      eventfdSignal(this.#fds.rxKickFd);
      this.counters.kicks++;
    }
  }

  #break(): void {
    this.#state = NIC_STATE.broken;
  }
}
