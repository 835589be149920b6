/**
 * One queue pair of a port. Names are the VNIC's: it receives (`rx`) what we write into its receive queue, and sends
 * (`tx`) what we read from its transmit queue.
 *
 * - `poll` takes a batch from the transmit queue, a private copy of one frame at a time, and gives each to the switch.
 * - `deliver` copies a frame from staging memory into the next receive buffer. `publish` ends the batch of both.
 * - What it sends beyond its limit stays in the ring until its time; what it receives beyond its limit is dropped and
 *   counted.
 * - Without a driver, or when a queue is broken, the pair drops: the device goes on.
 */
import { type Coalescing, NOT_COALESCED } from '../device/coalescing.ts';
import { DROP } from '../device/drops.ts';
import type { Arena } from '../ffi/arena.ts';
import { signalPeer } from '../ffi/peer-eventfd.ts';
import { GSO_TCPV4, GSO_TCPV6, NetHeader } from '../ring/net-header.ts';
import { type SplitDevice, VIOLATION, type Violation } from '../ring/split-device.ts';
import { NET_HEADER_LEN } from '../ring/split-layout.ts';
import type { VhostBackend } from '../ring/vhost-backend.ts';
import { FEATURE, hasFeature } from '../ring/vhost-user.ts';
import { Coalescer } from './coalesce.ts';
import { ETH_HEADER_LEN } from './match.ts';
import { GSO_FRAME_MAX, Offload, type SegmentSink, type Staging } from './offload.ts';
import type { Pace } from './pace.ts';
import type { FrameSink, Port } from './port.ts';
import { QueueLimits } from './rate.ts';
import { MIN_FRAME_BYTES, type Sender } from './schedule.ts';

/** Byte of `num_buffers` in virtio_net_hdr. */
const NUM_BUFFERS = 10;
/**
 * Chains that one frame may fill at the receiver, and what each of them has room for at least: so the longest frame always
 * fits. A driver with smaller ones gets no frame that needs several, at the cost of a look at two of them.
 */
const MERGED_MAX = 64;
const MERGED_ROOM_MIN = 1040;
/** Descriptors of a chain to receive into: a header and 64 KiB in pages, as Linux makes them. More cost others their time. */
const RECEIVE_SEGMENTS_MAX = 20;

const PLAIN_HEADER = new NetHeader();

/** Chains that one pair may send in a turn of a port whose pairs have weights. */
const PAIR_BATCH = 64;
/** No bound of `poll`; a small integer, to be compared as one. */
export const ANY_BYTES = 2 ** 30;

export class QueuePair implements Sender<FrameSink>, SegmentSink {
  readonly index: number;
  rxPackets = 0;
  rxBytes = 0;
  /** Frames of this pair that were let out. */
  txPackets = 0;
  txBytes = 0;
  /** Frames that found no receive buffer: its thread is behind, or gone. */
  noBuffer = 0;
  /** Descriptors that the last `poll` walked, and bytes that it took; a frame counts as at least a link's shortest, at most its longest. */
  descriptors = 0;
  bytes = 0;
  readonly sendLimits = new QueueLimits();
  readonly receiveLimits = new QueueLimits();
  /** Share of what its port may send, beside the port's other pairs. */
  weight = 1;
  deficit = 0;
  /** Why one of its queues is broken; null when none is. */
  brokenReason: string | null = null;
  /** The control plane has not heard of that yet. */
  isBreakUntold = false;

  readonly #port: Port;
  readonly #arena: Arena;
  readonly #staging: Staging;
  /** What came with the frame that is being sent. */
  protected readonly offload: Offload;
  /** Its driver may leave checksums, or the cutting of TCP, to the device; takes such frames; takes several buffers a frame. */
  #sendsOffloads = false;
  #takesUnfinished = false;
  #takesTcp4 = false;
  #takesTcp6 = false;
  #isMergeable = false;
  readonly #heads = new Uint16Array(MERGED_MAX);
  readonly #written = new Uint32Array(MERGED_MAX);
  readonly #frameLengthMax: number;
  readonly #pace: Pace;
  /** Indices of its virtqueues (virtio 1.2, section 5.1.2). */
  readonly #receiveQueue: number;
  readonly #transmitQueue: number;
  #session: VhostBackend | null = null;
  #rx: SplitDevice | null = null;
  #tx: SplitDevice | null = null;
  #txEnabled = false;
  #rxTouched = false;
  #rxCallFd = -1;
  #txCallFd = -1;
  #bell: Coalescer | null = null;
  /** Of `rxPackets`, those that the driver was shown. */
  #shownPackets = 0;

  constructor(port: Port, index: number, arena: Arena, staging: Staging, pace: Pace) {
    this.#pace = pace;
    this.index = index;
    this.#port = port;
    this.#arena = arena;
    this.#staging = staging;
    this.offload = new Offload(arena, staging);
    this.#frameLengthMax = port.frameLengthMax;
    this.#receiveQueue = 2 * index;
    this.#transmitQueue = 2 * index + 1;
  }

  /** Whether it takes frames for its VNIC. */
  get receives(): boolean {
    return this.#rx !== null;
  }

  /** Whether its driver runs both queues. */
  get running(): boolean {
    return this.#rx !== null && this.#tx !== null && this.#txEnabled;
  }

  /** Look at the session's rings again. */
  refresh(session: VhostBackend | null): void {
    const receive = this.#receiveQueue;
    const transmit = this.#transmitQueue;
    this.#session = session;
    this.#rx = session?.isEnabled(receive) ? session.ring(receive) : null;
    this.#tx = session?.ring(transmit) ?? null;
    this.#txEnabled = session?.isEnabled(transmit) ?? false;
    this.#rxCallFd = session?.callFd(receive) ?? -1;
    this.#txCallFd = session?.callFd(transmit) ?? -1;
    this.#rxTouched = false;
    this.#negotiate(session?.features ?? 0n);
    const before = this.brokenReason;
    this.brokenReason = session?.brokenReason(receive) ?? session?.brokenReason(transmit) ?? null;
    this.isBreakUntold = this.brokenReason !== null && (before === null || this.isBreakUntold);
    if (this.brokenReason === null) return;
    // One ring that lies ends both: whoever has them is not to be believed.
    this.#rx = null;
    this.#tx = null;
  }

  /** Virtio 1.2, section 5.1.3.1: cutting needs checksums. */
  #negotiate(features: bigint): void {
    const has = (bit: number): boolean => hasFeature(features, bit);
    this.#sendsOffloads = has(FEATURE.VIRTIO_NET_F_CSUM);
    this.#takesUnfinished = has(FEATURE.VIRTIO_NET_F_GUEST_CSUM);
    this.#takesTcp4 = this.#takesUnfinished && has(FEATURE.VIRTIO_NET_F_GUEST_TSO4);
    this.#takesTcp6 = this.#takesUnfinished && has(FEATURE.VIRTIO_NET_F_GUEST_TSO6);
    this.#isMergeable = has(FEATURE.VIRTIO_NET_F_MRG_RXBUF);
  }

  /**
   * Take up to `chainsMax` frames from the VNIC and give them to `sink`; the turn ends early once `descriptorsMax`
   * descriptors were walked or `bytesMax` bytes taken, and where its limits end. How many chains were taken.
   */
  poll(sink: FrameSink, chainsMax: number, descriptorsMax: number, bytesMax = ANY_BYTES): number {
    const tx = this.#tx;
    this.descriptors = 0;
    this.bytes = 0;
    if (tx === null || this.sendWaitUs() > 0) return 0;
    const count = Math.min(tx.available(), chainsMax);
    if (count === 0) return 0;
    const { txPackets, txBytes } = this.#port;
    let taken = 0;
    let budget = descriptorsMax;
    const limits = this.sendLimits;
    const isLimited = limits.isSet;
    let bytes = 0;
    for (; taken < count && budget > 0 && bytes < bytesMax; taken++) {
      if (isLimited && !limits.open) break;
      const total = tx.take();
      if (total < 0) break;
      budget -= tx.segmentCount;
      if (tx.readableCount !== tx.segmentCount) {
        tx.broken(VIOLATION.direction);
        break;
      }
      this.offload.header.clear();
      if (this.#txEnabled) this.takeFrame(tx, total, sink);
      tx.complete(0);
      if (this.offload.isSegmented) {
        const length = total - NET_HEADER_LEN;
        budget -= this.offload.segments(length);
        bytes += this.offload.wireBytes(length);
        if (isLimited) this.#chargeSegments(length);
        continue;
      }
      // A chain may claim gigabytes. No frame has more than this, and what is shared is not charged for more.
      const length = Math.min(total - NET_HEADER_LEN, this.#frameLengthMax);
      bytes += Math.max(length, MIN_FRAME_BYTES);
      if (isLimited) limits.charge(Math.max(length, 0));
    }
    if (taken > 0 && (!isLimited || limits.open)) this.#pace.isLively = true;
    this.descriptors = descriptorsMax - budget;
    this.bytes = bytes;
    this.txPackets += this.#port.txPackets - txPackets;
    this.txBytes += this.#port.txBytes - txBytes;
    if (tx.publish() && this.#txCallFd >= 0) signalPeer(this.#txCallFd);
    if (tx.violation !== 0) this.#break(this.#transmitQueue, tx);
    return taken;
  }

  /** A frame that is cut costs its limits what its segments would. */
  #chargeSegments(length: number): void {
    const { offload, sendLimits } = this;
    const { headerLength, gsoSize } = offload.header;
    for (let left = length - headerLength; left > 0; left -= gsoSize) {
      sendLimits.charge(headerLength + Math.min(left, gsoSize));
    }
  }

  /** Copy the chain's frame to staging memory, with what its header asks for if that was negotiated. */
  protected takeFrame(tx: SplitDevice, total: number, sink: FrameSink): void {
    const length = total - NET_HEADER_LEN;
    if (length < ETH_HEADER_LEN) {
      this.#port.drops[DROP.truncated]!++;
      return;
    }
    if (this.#sendsOffloads) this.#readHeader(tx);
    const { offload } = this;
    if (length > (offload.isSegmented ? GSO_FRAME_MAX : this.#frameLengthMax)) {
      offload.header.clear();
      this.#port.drops[DROP.tooLong]!++;
      return;
    }
    // The copy keeps the frame's place in its word, so that whole words can be copied.
    let { at } = this.#staging;
    if (tx.segmentCount === 1) {
      const from = tx.segmentAt[0]! + NET_HEADER_LEN;
      at += from & 3;
      this.#arena.copy(at, from, length);
    } else {
      this.#gather(tx, at);
    }
    sink.fromPort(this.#port, at, length, offload);
  }

  /** The virtio_net_hdr at the start of the chain, which has room for it and a frame. */
  #readHeader(tx: SplitDevice): void {
    const { u8 } = this.#arena;
    if (tx.segmentLength[0]! >= NET_HEADER_LEN) {
      this.offload.header.read(u8, tx.segmentAt[0]!);
      return;
    }
    // Cut in the middle: put together where the frame will be.
    const to = this.#staging.at;
    for (let i = 0, segment = 0, at = 0; i < NET_HEADER_LEN; i++, at++) {
      while (at === tx.segmentLength[segment]) {
        segment++;
        at = 0;
      }
      u8[to + i] = u8[tx.segmentAt[segment]! + at]!;
    }
    this.offload.header.read(u8, to);
  }

  #gather(tx: SplitDevice, to: number): void {
    let skip = NET_HEADER_LEN;
    let at = to;
    for (let i = 0; i < tx.segmentCount; i++) {
      const length = tx.segmentLength[i]!;
      const skipped = Math.min(skip, length);
      this.#arena.copy(at, tx.segmentAt[i]! + skipped, length - skipped);
      at += length - skipped;
      skip -= skipped;
    }
  }

  /**
   * Give the VNIC a frame from staging memory: it is its own copy. Counted as a drop when that cannot be. What its
   * sender left undone is done here, when this driver did not ask for such frames.
   */
  deliver(at: number, length: number, offload: Offload): void {
    if (offload.isSet) {
      const { gsoType } = offload.header;
      const takesTcp =
        gsoType === GSO_TCPV4 ? this.#takesTcp4 : gsoType === GSO_TCPV6 && this.#takesTcp6;
      if (offload.isSegmented && !takesTcp) {
        offload.cut(at, length, this);
        return;
      }
      if (!this.#takesUnfinished) offload.finish(at, length);
    }
    this.#put(at, length, offload.isSet ? offload : null);
  }

  segment(at: number, length: number): boolean {
    return this.#put(at, length, null);
  }

  /** False when it was dropped: the next one would be as well. */
  #put(at: number, length: number, offload: Offload | null): boolean {
    const rx = this.#rx;
    const ready = rx === null ? 0 : rx.ready();
    if (rx === null || ready <= 0) {
      this.#port.drops[DROP.noBuffer]!++;
      this.noBuffer++;
      if (ready < 0) this.#rxTouched = true;
      return false;
    }
    const wire = offload === null ? length : offload.wireBytes(length);
    if (this.receiveLimits.isSet && !this.receiveLimits.admit(wire, this.#pace.nowUs)) {
      this.#port.drops[DROP.rateExceeded]!++;
      return false;
    }
    this.#rxTouched = true;
    const room = this.#takeRoom(rx);
    if (room < 0) return false;
    const total = NET_HEADER_LEN + length;
    if (room < total) {
      const isMerged = room >= MERGED_ROOM_MIN && rx.segmentLength[0]! >= NET_HEADER_LEN;
      if (this.#isMergeable && isMerged) return this.#merge(rx, room, at, length, offload);
      // The buffer stays for a frame that fits.
      rx.untake();
      this.#port.drops[DROP.tooLong]!++;
      return false;
    }
    if (rx.segmentLength[0]! >= total) {
      const to = rx.segmentAt[0]!;
      this.#writeHeader(to, offload);
      this.#arena.copy(to + NET_HEADER_LEN, at, length);
    } else {
      this.#scatter(rx, 0, total, at, offload);
    }
    rx.complete(total);
    this.#count(length, offload);
    return true;
  }

  /** Take the next chain to receive into: its bytes, or a violation that breaks the ring. */
  #takeRoom(rx: SplitDevice): number {
    const room = rx.take();
    if (room < 0) return room;
    if (rx.readableCount !== 0) return rx.broken(VIOLATION.direction);
    if (rx.segmentCount > RECEIVE_SEGMENTS_MAX) return rx.broken(VIOLATION.longChain);
    return room;
  }

  #count(length: number, offload: Offload | null): void {
    this.rxPackets += offload === null ? 1 : offload.segments(length);
    this.rxBytes += length;
  }

  #writeHeader(at: number, offload: Offload | null): void {
    if (offload !== null) offload.header.write(this.#arena.u8, at, 1);
    else if ((at & 3) === 0) {
      const { u32 } = this.#arena;
      const word = at >>> 2;
      u32[word] = 0;
      u32[word + 1] = 0;
      // num_buffers is 1 (virtio 1.2, section 5.1.6.3).
      u32[word + 2] = 0x1_0000;
    } else {
      PLAIN_HEADER.write(this.#arena.u8, at, 1);
    }
  }

  /**
   * Bytes `[from, to)` of header and frame into the chain that was just taken, wherever the driver has cut it. The frame
   * stands at `at`.
   */
  #scatter(rx: SplitDevice, from: number, to: number, at: number, offload: Offload | null): void {
    const { u8 } = this.#arena;
    const header = offload === null ? PLAIN_HEADER : offload.header;
    let done = from;
    for (let i = 0; i < rx.segmentCount && done < to; i++) {
      const place = rx.segmentAt[i]!;
      const room = Math.min(rx.segmentLength[i]!, to - done);
      let used = 0;
      for (; used < room && done + used < NET_HEADER_LEN; used++) {
        u8[place + used] = header.byte(done + used, 1);
      }
      this.#arena.copy(place + used, at + done + used - NET_HEADER_LEN, room - used);
      done += room;
    }
  }

  /**
   * Header and frame over several chains (section 5.1.6.4, VIRTIO_NET_F_MRG_RXBUF), of which the first is taken, has
   * `firstRoom` bytes, and the header in one piece. With too few there, all of them stay for the next frame.
   */
  #merge(
    rx: SplitDevice,
    firstRoom: number,
    at: number,
    length: number,
    offload: Offload | null,
  ): boolean {
    const total = NET_HEADER_LEN + length;
    const first = rx.segmentAt[0]!;
    let room = firstRoom;
    let taken = 0;
    for (let done = 0; ; ) {
      const size = Math.min(room, total - done);
      this.#scatter(rx, done, done + size, at, offload);
      this.#heads[taken] = rx.head;
      this.#written[taken++] = size;
      done += size;
      if (done === total) break;
      if (taken === MERGED_MAX || rx.ready() <= 0) {
        rx.rewind(taken);
        this.#port.drops[DROP.noBuffer]!++;
        this.noBuffer++;
        return false;
      }
      room = this.#takeRoom(rx);
      if (room < 0) return false;
      if (room < MERGED_ROOM_MIN) {
        rx.rewind(taken + 1);
        this.#port.drops[DROP.tooLong]!++;
        return false;
      }
    }
    const { u8 } = this.#arena;
    u8[first + NUM_BUFFERS] = taken;
    u8[first + NUM_BUFFERS + 1] = 0;
    for (let i = 0; i < taken; i++) rx.completeHead(this.#heads[i]!, this.#written[i]!);
    this.#count(length, offload);
    return true;
  }
  /** Show the VNIC what was delivered since the last time, and call it if it wants to be called. */
  publish(): void {
    if (this.#rxTouched) this.#show();
    if (this.#bell?.take(this.#pace.nowUs)) this.#ring();
  }

  #ring(): void {
    if (this.#rxCallFd >= 0) signalPeer(this.#rxCallFd);
  }

  #show(): void {
    this.#rxTouched = false;
    const rx = this.#rx;
    if (rx === null) return;
    const wanted = rx.publish();
    if (this.#bell === null) {
      if (wanted) this.#ring();
    } else {
      this.#bell.add(this.rxPackets - this.#shownPackets, wanted, this.#pace.nowUs);
      this.#shownPackets = this.rxPackets;
    }
    if (rx.violation !== 0) this.#break(this.#receiveQueue, rx);
  }

  #break(queue: number, ring: SplitDevice): void {
    this.#port.drops[DROP.badDescriptor]!++;
    this.#session?.breakRing(queue, ring.violation as Violation);
    // The loop refreshes the port soon; until then the ring must not be found broken again.
    if (queue === this.#transmitQueue) this.#tx = null;
    else this.#rx = null;
  }

  /** Microseconds until it may send; 0: now. */
  sendWaitUs(): number {
    const limits = this.sendLimits;
    if (!limits.isSet) return 0;
    limits.advance(this.#pace.nowUs);
    return limits.waitUs;
  }

  /** Microseconds until a coalesced doorbell is due; -1: none is. */
  ringWaitUs(): number {
    return this.#bell === null ? -1 : this.#bell.waitUs(this.#pace.nowUs);
  }

  /** Coalesce the doorbell of its receive queue. What is owed by then is rung. */
  setCoalescing(coalescing: Coalescing): void {
    if (this.ringWaitUs() >= 0) this.#ring();
    this.#bell = coalescing.usecs === NOT_COALESCED.usecs ? null : new Coalescer(coalescing);
    this.#shownPackets = this.rxPackets;
  }

  /** Whether turns need the time for it. */
  get isTimed(): boolean {
    return this.sendLimits.isSet || this.receiveLimits.isSet || this.#bell !== null;
  }

  serve(sink: FrameSink, bytes: number): number {
    this.poll(sink, PAIR_BATCH, 2 * PAIR_BATCH, bytes);
    return this.bytes;
  }

  isReady(): boolean {
    return this.#tx !== null && this.#tx.ready() > 0 && this.sendWaitUs() === 0;
  }

  /** Ask to be kicked when the VNIC sends. False when it already has. One that may not send now is not asked. */
  arm(): boolean {
    return this.#tx === null || this.sendWaitUs() > 0 || this.#tx.arm();
  }

  disarm(): void {
    this.#tx?.disarm();
  }

  stats(): Record<string, number> {
    const { index: queue, rxPackets, rxBytes, txPackets, txBytes, noBuffer } = this;
    return { queue, rxPackets, rxBytes, txPackets, txBytes, noBuffer };
  }
}
