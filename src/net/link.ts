/**
 * What the layers of one interface share: the device queue with its memory, the MAC address, the counters, this
 * turn's time, and the frames on their way out.
 *
 * - A received frame is `inHand` until a layer takes it. What is still in hand when its turn ends goes back to the pool.
 * - `transmit` always takes the frame: it is sent, or dropped and counted.
 * - Frames that the device does not accept stay queued, in order, up to NET_LIMITS.txQueueMax.
 * - What is for ourselves never reaches the device: `loop` keeps it for the next turn, up to NET_LIMITS.loopQueueMax.
 * - With a VLAN, every layer sees untagged frames: the tag (IEEE 802.1Q) goes on in `transmit`, into room that `alloc` left.
 */
import { type Mac, macHi, macLo } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import { type NicQueue, NO_FRAME } from '../device/nic.ts';
import * as ethernet from '../wire/ethernet.ts';
import { type NetCounters, newNetCounters } from './counters.ts';
import { NET_LIMITS } from './limits.ts';

/** No frame is in hand. Not NO_FRAME, which is no small integer. */
const NONE = -1;
/** Frames without a tag. */
export const NO_VLAN = -1;

export class Link {
  readonly queue: NicQueue;
  readonly view: DataView;
  readonly u8: Uint8Array;
  readonly macHi: number;
  readonly macLo: number;
  /** Longest IPv4 datagram, and longest frame without its tag, that we send. */
  mtu: number;
  frameLengthMax: number;
  /** The VLAN's tag control information, or NO_VLAN. */
  readonly vlan: number;
  readonly counters: NetCounters = newNetCounters();
  /** Time of this turn, set by `NetInterface.poll`. */
  nowMs = 0;
  /** The same in microseconds, an int32 that wraps; and when its millisecond began, as far as we know. */
  nowUs = 0;
  tickUs = 0;
  /** The received frame that nobody has taken yet. */
  inHand = NONE;
  readonly #frameMask: number;
  readonly #frameSize: number;
  readonly #frames = new Uint32Array(NET_LIMITS.txQueueMax);
  readonly #lengths = new Uint16Array(NET_LIMITS.txQueueMax);
  #count = 0;
  /** True while a frame that we sent ourselves is received. */
  isLoop = false;
  readonly #loopFrames = new Uint32Array(NET_LIMITS.loopQueueMax);
  readonly #loopLengths = new Uint16Array(NET_LIMITS.loopQueueMax);
  #loopCount = 0;

  /** `vlan`: an identifier of 1 to 4094, or NO_VLAN. */
  constructor(queue: NicQueue, mac: Mac, mtu: number, vlan: number = NO_VLAN) {
    this.vlan = vlan;
    this.queue = queue;
    this.view = queue.memory.view;
    this.u8 = queue.memory.u8;
    this.macHi = macHi(mac);
    this.macLo = macLo(mac) | 0;
    this.mtu = mtu;
    this.frameLengthMax = mtu + ethernet.HEADER_LEN;
    this.#frameSize = queue.memory.frameSize;
    this.#frameMask = this.#frameSize - 1;
  }

  /** Time goes on, never back. */
  setTime(nowMs: number, nowUs: number): void {
    if (nowMs !== this.nowMs) this.tickUs = nowUs;
    this.nowMs = nowMs;
    this.nowUs = nowUs;
  }

  /** True when `transmit` will not drop for lack of room. */
  hasRoom(): boolean {
    return this.#count < NET_LIMITS.txQueueMax || this.flush() > 0;
  }

  /** Frames that wait for the device. */
  get queued(): number {
    return this.#count;
  }

  /** Keep a received frame beyond its turn. The caller owns it. */
  take(frame: number): void {
    if (frame === this.inHand) this.inHand = NONE;
  }

  /** Give a frame back to the pool. */
  free(frame: number): void {
    this.take(frame);
    this.queue.free(frame);
  }

  /** Give back the frame that nobody took. */
  settle(): void {
    const frame = this.inHand;
    if (frame === NONE) return;
    this.inHand = NONE;
    this.queue.free(frame);
  }

  /** True when `length` bytes from `frame` end inside its buffer and are no more than the link carries. */
  fits(frame: number, length: number): boolean {
    return (
      length >= 0 &&
      length <= this.frameLengthMax &&
      (frame & this.#frameMask) + length <= this.#frameSize
    );
  }

  /** The link carries datagrams of `mtu` bytes from now on. */
  setMtu(mtu: number): void {
    this.mtu = mtu;
    this.frameLengthMax = mtu + ethernet.HEADER_LEN;
  }

  /** Bytes from `at` to the end of its buffer. */
  roomFrom(at: number): number {
    return this.#frameSize - (at & this.#frameMask);
  }

  /** A frame to build a packet in, or NO_FRAME. The caller owns it. */
  alloc(): number {
    const frame = this.queue.alloc();
    return this.vlan < 0 || frame === NO_FRAME ? frame : frame + ethernet.VLAN_TAG_LEN;
  }

  /** Queue a finished frame; it leaves with this turn's batch. False when it was dropped. */
  transmit(frame: number, length: number): boolean {
    this.take(frame);
    if (this.#count === NET_LIMITS.txQueueMax && this.flush() === 0) {
      this.counters.txFull++;
      this.queue.free(frame);
      return false;
    }
    this.#frames[this.#count] = frame;
    this.#lengths[this.#count++] = length;
    if (this.vlan >= 0) this.#tagLast(frame, length);
    return true;
  }

  #tagLast(frame: number, length: number): void {
    ethernet.insertTag(this.view, frame, this.vlan);
    this.#frames[this.#count - 1] = frame - ethernet.VLAN_TAG_LEN;
    this.#lengths[this.#count - 1] = length + ethernet.VLAN_TAG_LEN;
  }

  /** Frames that wait to be received by ourselves. */
  get looped(): number {
    return this.#loopCount;
  }

  /** Receive a finished frame ourselves, in the next turn. Takes it. False when it was dropped. */
  loop(frame: number, length: number): boolean {
    this.take(frame);
    // Its receiver may answer in it: what the sender keeps (to send again) must not change under it.
    if (this.queue.isShared(frame)) {
      const sent = this.loopCopy(frame, length);
      this.queue.free(frame);
      return sent;
    }
    if (this.#loopCount === NET_LIMITS.loopQueueMax) {
      this.counters.loopFull++;
      this.queue.free(frame);
      return false;
    }
    ethernet.setDst(this.view, frame, this.macHi, this.macLo);
    this.#loopFrames[this.#loopCount] = frame;
    this.#loopLengths[this.#loopCount++] = length;
    return true;
  }

  /** Receive a copy of the frame ourselves, addressed as it is; the frame stays the caller's. */
  loopCopy(frame: number, length: number): boolean {
    const copy = this.#loopCount === NET_LIMITS.loopQueueMax ? NO_FRAME : this.alloc();
    if (copy === NO_FRAME) {
      this.counters.loopFull++;
      return false;
    }
    this.u8.copyWithin(copy, frame, frame + length);
    const isGroup = ethernet.isGroup(ethernet.dstHi(this.view, frame));
    if (!isGroup) ethernet.setDst(this.view, copy, this.macHi, this.macLo);
    this.#loopFrames[this.#loopCount] = copy;
    this.#loopLengths[this.#loopCount++] = length;
    return true;
  }

  /** Move what waits into `frames` and `lengths`, which take NET_LIMITS.loopQueueMax. How many; the caller owns them. */
  takeLooped(frames: Uint32Array, lengths: Uint16Array): number {
    const count = this.#loopCount;
    for (let i = 0; i < count; i++) {
      frames[i] = this.#loopFrames[i]!;
      lengths[i] = this.#loopLengths[i]!;
    }
    this.#loopCount = 0;
    return count;
  }

  /** Write the Ethernet header of an IPv4 frame from us. */
  emitEthernet(frame: number, dstHi: number, dstLo: number): void {
    ethernet.setDst(this.view, frame, dstHi, dstLo);
    ethernet.setSrc(this.view, frame, this.macHi, this.macLo);
    ethernet.setType(this.view, frame, ethernet.TYPE_IPV4);
  }

  /** Offer what is queued to the device. Returns how many frames it accepted; the doorbell is the caller's. */
  flush(): number {
    if (this.#count === 0) return 0;
    const sent = this.queue.txBatch(this.#frames, this.#lengths, this.#count);
    assert(sent >= 0 && sent <= this.#count, 'txBatch accepts a prefix');
    this.#count -= sent;
    if (sent > 0 && this.#count > 0) {
      this.#frames.copyWithin(0, sent, sent + this.#count);
      this.#lengths.copyWithin(0, sent, sent + this.#count);
    }
    this.counters.txFrames += sent;
    return sent;
  }

  /** Give every queued frame back to the pool. */
  clear(): void {
    while (this.#count > 0) this.queue.free(this.#frames[--this.#count]!);
    while (this.#loopCount > 0) this.queue.free(this.#loopFrames[--this.#loopCount]!);
  }
}
