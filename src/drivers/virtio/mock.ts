/**
 * Plays the device's end for tests, in the same thread: answers the handshake, and works the rings when told to.
 *
 * - `preloadAnswers` puts the answers into the socket before the driver asks, since the driver blocks for them.
 * - `MockDevice.accept` then reads what the driver sent: features, memory, rings, eventfds.
 * - It shares no code with the driver's side of the rings, so that one's mistake is not the other's.
 * - `misbehave` methods write what no honest device would.
 */
import { assert } from '../../base/assert.ts';
import { closeAll, eventfdSignal } from '../../ffi/fd.ts';
import { type Mapping, mapShared } from '../../ffi/memory.ts';
import { receiveMessage, sendMessage } from '../../ffi/unix.ts';
import { NET_HEADER_LEN, needsEvent } from '../../ring/split-layout.ts';
import {
  decodeHeader,
  decodeMemTable,
  decodeU64,
  decodeVringAddr,
  decodeVringState,
  encodeMessage,
  encodeU64,
  FEATURE,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  featureSet,
  HEADER_LEN,
  hasFeature,
  PROTOCOL_FEATURE,
  REQ,
} from '../../ring/vhost-user.ts';
import { RECEIVEQ, TRANSMITQ } from './regs.ts';

export interface MockFeatures {
  readonly eventIdx: boolean;
  /** VHOST_USER_F_PROTOCOL_FEATURES with REPLY_ACK. */
  readonly replyAck: boolean;
}

const PER_RING = [
  REQ.SET_VRING_NUM,
  REQ.SET_VRING_BASE,
  REQ.SET_VRING_ADDR,
  REQ.SET_VRING_ERR,
  REQ.SET_VRING_CALL,
  REQ.SET_VRING_KICK,
];
/** The requests that are acknowledged when REPLY_ACK is on, in the driver's order. */
export const ACKNOWLEDGED: readonly number[] = [
  ...[REQ.SET_OWNER, REQ.SET_FEATURES, REQ.SET_MEM_TABLE],
  ...PER_RING,
  ...PER_RING,
  ...[REQ.SET_VRING_ENABLE, REQ.SET_VRING_ENABLE],
];

/** Write the answers to a whole handshake into the device's end of the socket. `refuse` is one to answer with 1. */
export function preloadAnswers(socket: number, features: MockFeatures, refuse = 0): void {
  const answer = (request: number, value: bigint): void => {
    const message = encodeMessage(request, encodeU64(value), FLAG_REPLY);
    assert(sendMessage(socket, message) === message.length, 'answers fit into the socket');
  };
  let offered = featureSet(FEATURE.VIRTIO_F_VERSION_1, FEATURE.VIRTIO_NET_F_MRG_RXBUF);
  if (features.eventIdx) offered |= featureSet(FEATURE.VIRTIO_RING_F_EVENT_IDX);
  if (features.replyAck) offered |= featureSet(FEATURE.VHOST_USER_F_PROTOCOL_FEATURES);
  answer(REQ.GET_FEATURES, offered);
  if (features.replyAck) {
    answer(REQ.GET_PROTOCOL_FEATURES, featureSet(PROTOCOL_FEATURE.REPLY_ACK, PROTOCOL_FEATURE.MTU));
    for (const request of ACKNOWLEDGED) answer(request, request === refuse ? 1n : 0n);
  }
  answer(REQ.GET_FEATURES, offered);
}

/** One ring as the device sees it. */
interface MockRing {
  size: number;
  desc: number;
  avail: number;
  used: number;
  kickFd: number;
  callFd: number;
  errFd: number;
  enabled: boolean;
  availSeen: number;
  usedIdx: number;
}

const newRing = (): MockRing => ({
  size: 0,
  desc: 0,
  avail: 0,
  used: 0,
  kickFd: -1,
  callFd: -1,
  errFd: -1,
  enabled: false,
  availSeen: 0,
  usedIdx: 0,
});

export class MockDevice {
  /** Request numbers in the order they came. */
  readonly requests: number[] = [];
  features = 0n;
  eventIdx = false;
  /** Frames that found no receive buffer. */
  dropped = 0;
  /** By vring index: RECEIVEQ, TRANSMITQ. */
  readonly rings: readonly [MockRing, MockRing] = [newRing(), newRing()];
  readonly #socket: number;
  readonly #fds: number[] = [];
  #mapping: Mapping | null = null;
  #u8 = new Uint8Array(0);
  #u16 = new Uint16Array(0);
  #u32 = new Uint32Array(0);

  /** Read the whole handshake from `socket`, which this object then owns. */
  static accept(socket: number): MockDevice {
    const device = new MockDevice(socket);
    for (let i = 0; i < 64 && device.#message(); i++);
    assert(device.#mapping !== null, 'the driver registered its memory');
    device.wantKicks(false);
    return device;
  }

  private constructor(socket: number) {
    this.#socket = socket;
  }

  /** Ask the driver to be woken for each batch, or never. */
  wantKicks(on: boolean): void {
    for (const ring of this.rings) {
      if (this.eventIdx) {
        const event = on ? ring.availSeen : (ring.availSeen + 0x8000) & 0xffff;
        this.#u16[(ring.used + 4 + 8 * ring.size) / 2] = event;
      } else {
        this.#u16[ring.used / 2] = on ? 0 : 1;
      }
    }
  }

  /** Frames in the transmit ring that were not taken yet. */
  get waiting(): number {
    return this.#available(this.rings[TRANSMITQ]);
  }

  /** Take the next sent frame: its offset and length in the region, header excluded; null when there is none. */
  take(): { at: number; length: number; id: number; header: Uint8Array } | null {
    const ring = this.rings[TRANSMITQ];
    if (this.#available(ring) === 0) return null;
    const id = this.#next(ring);
    const at = this.#u32[ring.desc / 4 + id * 4]!;
    const length = this.#u32[ring.desc / 4 + id * 4 + 2]!;
    const header = this.#u8.slice(at, at + NET_HEADER_LEN);
    return { at: at + NET_HEADER_LEN, length: length - NET_HEADER_LEN, id, header };
  }

  /** Say that the frame with descriptor `id` was sent. */
  sent(id: number): void {
    this.#use(this.rings[TRANSMITQ], id, 0);
  }

  /** Receive `length` bytes at `from` of `bytes`: false, and counted, when the driver has posted no buffer. */
  deliver(bytes: Uint8Array, from: number, length: number): boolean {
    const ring = this.rings[RECEIVEQ];
    if (this.#available(ring) === 0) {
      this.dropped++;
      return false;
    }
    const id = this.#next(ring);
    const at = this.#u32[ring.desc / 4 + id * 4]!;
    const room = this.#u32[ring.desc / 4 + id * 4 + 2]!;
    assert(length + NET_HEADER_LEN <= room, 'the posted buffer holds a frame');
    // num_buffers is 1 (section 5.1.6.4), the rest 0.
    for (let i = 0; i < NET_HEADER_LEN; i++) this.#u8[at + i] = i === 10 ? 1 : 0;
    const to = at + NET_HEADER_LEN;
    for (let i = 0; i < length; i++) this.#u8[to + i] = bytes[from + i]!;
    this.#use(ring, id, length + NET_HEADER_LEN);
    return true;
  }

  /** Move every sent frame to the receive ring of `peer`. Frames moved or dropped. */
  forward(peer: MockDevice): number {
    const ring = this.rings[TRANSMITQ];
    const count = this.#available(ring);
    for (let i = 0; i < count; i++) {
      const id = this.#next(ring);
      const at = this.#u32[ring.desc / 4 + id * 4]! + NET_HEADER_LEN;
      const length = this.#u32[ring.desc / 4 + id * 4 + 2]! - NET_HEADER_LEN;
      peer.deliver(this.#u8, at, length);
      this.#use(ring, id, 0);
    }
    return count;
  }

  /** Bytes of the region, as the device sees it. */
  get u8(): Uint8Array {
    return this.#u8;
  }

  /** Write a used entry as told, honest or not. */
  misbehaveUsed(queue: 0 | 1, id: number, length: number): void {
    this.#use(this.rings[queue], id, length);
  }

  /** Move used.idx by `step` without entries. */
  misbehaveIdx(queue: 0 | 1, step: number): void {
    const ring = this.rings[queue];
    ring.usedIdx = (ring.usedIdx + step) & 0xffff;
    Atomics.store(this.#u16, (ring.used + 2) / 2, ring.usedIdx);
  }

  /** Overwrite every descriptor of a ring, which only the driver may write. */
  misbehaveDescriptors(queue: 0 | 1): void {
    const ring = this.rings[queue];
    this.#u32.fill(0xffffffff, ring.desc / 4, ring.desc / 4 + ring.size * 4);
  }

  /** Tell the driver that the ring failed. */
  signalError(queue: 0 | 1): void {
    eventfdSignal(this.rings[queue].errFd);
  }

  /** Send a message that nobody asked for. */
  misbehaveMessage(): void {
    sendMessage(this.#socket, encodeMessage(REQ.GET_FEATURES, encodeU64(0), FLAG_REPLY));
  }

  close(): void {
    closeAll([this.#socket, ...this.#fds]);
    this.#fds.length = 0;
    this.#mapping?.release();
  }

  #available(ring: MockRing): number {
    return (Atomics.load(this.#u16, (ring.avail + 2) / 2) - ring.availSeen) & 0xffff;
  }

  #next(ring: MockRing): number {
    const id = this.#u16[(ring.avail + 4) / 2 + (ring.availSeen % ring.size)]!;
    ring.availSeen = (ring.availSeen + 1) & 0xffff;
    return id;
  }

  #use(ring: MockRing, id: number, length: number): void {
    const at = (ring.used + 4) / 4 + (ring.usedIdx % ring.size) * 2;
    this.#u32[at] = id;
    this.#u32[at + 1] = length;
    const before = ring.usedIdx;
    ring.usedIdx = (before + 1) & 0xffff;
    Atomics.store(this.#u16, (ring.used + 2) / 2, ring.usedIdx);
    const wanted = this.eventIdx
      ? needsEvent(Atomics.load(this.#u16, (ring.avail + 4) / 2 + ring.size), ring.usedIdx, before)
      : (Atomics.load(this.#u16, ring.avail / 2) & 1) === 0;
    if (wanted) eventfdSignal(ring.callFd);
  }

  /** Read one message of the handshake; false after the last GET_FEATURES. */
  #message(): boolean {
    const head = Buffer.alloc(HEADER_LEN);
    const received = receiveMessage(this.#socket, head, 8);
    assert(received !== null && received.length === HEADER_LEN, 'a whole header');
    this.#fds.push(...received.fds);
    const header = decodeHeader(head);
    assert(header !== null, 'the header is well formed');
    assert(!(header.flags & FLAG_NEED_REPLY) || ACKNOWLEDGED.includes(header.request), 'expected');
    const payload = Buffer.alloc(header.size);
    if (header.size > 0) {
      const rest = receiveMessage(this.#socket, payload, 8);
      assert(rest !== null && rest.length === header.size, 'a whole payload');
      received.fds.push(...rest.fds);
      this.#fds.push(...rest.fds);
    }
    this.requests.push(header.request);
    this.#handle(header.request, payload, received.fds);
    return header.request !== REQ.GET_FEATURES || this.requests.length === 1;
  }

  #handle(request: number, payload: Buffer, fds: readonly number[]): void {
    const ringOf = (index: number): MockRing => {
      assert(index === RECEIVEQ || index === TRANSMITQ, 'one queue pair');
      return this.rings[index];
    };
    if (request === REQ.SET_FEATURES) {
      this.features = decodeU64(payload)!;
      this.eventIdx = hasFeature(this.features, FEATURE.VIRTIO_RING_F_EVENT_IDX);
    }
    if (request === REQ.SET_MEM_TABLE) {
      const [region] = decodeMemTable(payload)!;
      this.#mapping = mapShared(fds[0]!, region!.size, region!.offset);
      this.#u8 = new Uint8Array(this.#mapping.buffer);
      this.#u16 = new Uint16Array(this.#mapping.buffer);
      this.#u32 = new Uint32Array(this.#mapping.buffer);
    }
    if (request === REQ.SET_VRING_NUM) {
      const state = decodeVringState(payload)!;
      ringOf(state.index).size = state.num;
    }
    if (request === REQ.SET_VRING_ADDR) {
      const address = decodeVringAddr(payload)!;
      const ring = ringOf(address.index);
      ring.desc = address.desc;
      ring.avail = address.avail;
      ring.used = address.used;
    }
    if (request === REQ.SET_VRING_KICK) ringOf(Number(decodeU64(payload))).kickFd = fds[0]!;
    if (request === REQ.SET_VRING_CALL) ringOf(Number(decodeU64(payload))).callFd = fds[0]!;
    if (request === REQ.SET_VRING_ERR) ringOf(Number(decodeU64(payload))).errFd = fds[0]!;
    if (request === REQ.SET_VRING_ENABLE) {
      const state = decodeVringState(payload)!;
      ringOf(state.index).enabled = state.num === 1;
    }
  }
}
