/**
 * What the layers of one interface share: the device queue with its memory, the MAC address, the counters, this
 * turn's time, and the frames on their way out.
 *
 * - A received frame is `inHand` until a layer takes it. What is still in hand when its turn ends goes back to the pool.
 * - `transmit` always takes the frame: it is sent, or dropped and counted.
 * - Frames that the device does not accept stay queued, in order, up to NET_LIMITS.txQueueMax.
 * - What is for ourselves never reaches the device: `loop` keeps it for the next turn, up to NET_LIMITS.loopQueueMax.
 * - With a VLAN, every layer sees untagged frames: the tag (IEEE 802.1Q) goes on in `transmit`, into room that `alloc` left.
 * - With offloads, whoever sends says before `transmit` what the device is to do, in `burst`: the checksum of TCP, and
 *   pieces that follow the frame in one packet.
 */
import { type Mac, macHi, macLo } from '../base/address.ts';
import { assert } from '../base/assert.ts';
import {
  BATCH_PIECES_MAX,
  FRAME_FLAG,
  NIC_OFFLOAD,
  type NicQueue,
  NO_FRAME,
} from '../device/nic.ts';
import * as ethernet from '../wire/ethernet.ts';
import { type NetCounters, newNetCounters } from './counters.ts';
import { NET_LIMITS } from './limits.ts';

/** No frame is in hand. Not NO_FRAME, which is no small integer. */
const NONE = -1;
/** Frames without a tag. */
export const NO_VLAN = -1;

/** What goes with the next frame that is transmitted. Empty for all others. */
export class Burst {
  /** FRAME_FLAG.checksum and segment. */
  flags = 0;
  /** Payload of each segment, with FRAME_FLAG.segment. */
  segmentBytes = 0;
  /** Pieces behind the frame, and their bytes together. Each has a reference for the device. */
  readonly frames = new Uint32Array(BATCH_PIECES_MAX);
  readonly lengths = new Uint16Array(BATCH_PIECES_MAX);
  count = 0;
  bytes = 0;

  add(frame: number, length: number): void {
    this.frames[this.count] = frame;
    this.lengths[this.count++] = length;
    this.bytes += length;
  }

  clear(): void {
    this.flags = 0;
    this.count = 0;
    this.bytes = 0;
  }
}

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
  /** TCP may leave its checksums to the device, and the cutting of packets into segments. */
  readonly sendsUnfinished: boolean;
  readonly sendsBursts: boolean;
  readonly burst = new Burst();
  /** The received frame in hand was checked by the device: its TCP checksum need not be looked at. */
  isChecked = false;
  readonly #frameMask: number;
  readonly #frameSize: number;
  readonly #frames = new Uint32Array(NET_LIMITS.txQueueMax);
  readonly #lengths = new Uint16Array(NET_LIMITS.txQueueMax);
  readonly #flags = new Uint8Array(NET_LIMITS.txQueueMax);
  readonly #segmentBytes = new Uint16Array(NET_LIMITS.txQueueMax);
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
    // Devices do not look behind a tag.
    const offloads = vlan < 0 ? queue.offloads : 0;
    this.sendsUnfinished = (offloads & NIC_OFFLOAD.checksum) !== 0;
    this.sendsBursts = (offloads & NIC_OFFLOAD.segmentation) !== 0;
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

  /** True when `transmit` will not drop a packet of so many pieces for lack of room. */
  hasRoom(pieces = 1): boolean {
    const most = NET_LIMITS.txQueueMax - pieces;
    return this.#count <= most || (this.flush() > 0 && this.#count <= most);
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

  /** Queue a finished frame, with its burst; it leaves with this turn's batch. False when it was dropped. */
  transmit(frame: number, length: number): boolean {
    this.take(frame);
    const { burst } = this;
    if (!this.hasRoom(1 + burst.count)) {
      this.counters.txFull++;
      this.queue.free(frame);
      this.dropBurst();
      return false;
    }
    if (burst.flags === 0) {
      this.#push(frame, length, 0);
      if (this.vlan >= 0) this.#tagLast(frame, length);
      return true;
    }
    const { count } = burst;
    this.#segmentBytes[this.#count] = burst.segmentBytes;
    this.#push(frame, length, burst.flags | (count > 0 ? FRAME_FLAG.more : 0));
    for (let i = 0; i < count; i++) {
      this.#push(burst.frames[i]!, burst.lengths[i]!, i + 1 < count ? FRAME_FLAG.more : 0);
    }
    burst.clear();
    return true;
  }

  #push(frame: number, length: number, flags: number): void {
    this.#frames[this.#count] = frame;
    this.#lengths[this.#count] = length;
    this.#flags[this.#count++] = flags;
  }

  /** The frame of the burst was not transmitted: give its pieces back. */
  dropBurst(): void {
    const { burst } = this;
    for (let i = 0; i < burst.count; i++) this.queue.free(burst.frames[i]!);
    burst.clear();
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
    // Nobody sends several pieces to itself; that the sum is unfinished does not matter here.
    this.dropBurst();
    // Its receiver may answer in it: what the sender keeps (to send again) must not change under it.
    if (this.queue.isShared(frame)) {
      const sent = this.loopCopy(frame, length, false);
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

  /** Receive a copy of the frame ourselves, with the group's address that it has or with ours; it stays the caller's. */
  loopCopy(frame: number, length: number, isToGroup = true): boolean {
    const copy = this.#loopCount === NET_LIMITS.loopQueueMax ? NO_FRAME : this.alloc();
    if (copy === NO_FRAME) {
      this.counters.loopFull++;
      return false;
    }
    this.u8.copyWithin(copy, frame, frame + length);
    if (!isToGroup) ethernet.setDst(this.view, copy, this.macHi, this.macLo);
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
    const sent = this.sendsUnfinished
      ? this.queue.txBatch(
          this.#frames,
          this.#lengths,
          this.#count,
          this.#flags,
          this.#segmentBytes,
        )
      : this.queue.txBatch(this.#frames, this.#lengths, this.#count);
    assert(sent >= 0 && sent <= this.#count, 'txBatch accepts a prefix');
    this.#count -= sent;
    if (sent > 0 && this.#count > 0) {
      this.#frames.copyWithin(0, sent, sent + this.#count);
      this.#lengths.copyWithin(0, sent, sent + this.#count);
      this.#flags.copyWithin(0, sent, sent + this.#count);
      this.#segmentBytes.copyWithin(0, sent, sent + this.#count);
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
