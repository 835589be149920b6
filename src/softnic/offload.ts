/**
 * Offloads of the software NIC (virtio 1.2, sections 5.1.6.2 and 5.1.6.4): what a sender left to the device, carried with
 * its frame, and done here for receivers that did not ask for such frames.
 *
 * - A sender's header is hostile until `check`: an unfinished checksum is where TCP or UDP has its own, and only there; a
 *   frame to be cut is TCP, and none of its segments is longer than the sender's link carries.
 * - UDP checksums are finished before anybody receives the frame: who answers in place copies them.
 * - All of it happens in staging memory, which nobody else can change.
 */
import type { Arena } from '../ffi/arena.ts';
import {
  F_DATA_VALID,
  F_NEEDS_CSUM,
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  NetHeader,
} from '../ring/net-header.ts';
import * as checksum from '../wire/checksum.ts';
import { type FrameFields, KIND } from './match.ts';

const TCP = 6;
const UDP = 17;
const TCP_CHECKSUM = 16;
const UDP_CHECKSUM = 6;
const TCP_DATA_OFFSET = 12;
const TCP_FLAGS = 13;
const TCP_SEQUENCE = 4;
const TCP_HEADER_MIN = 20;
/** FIN and PSH: of the last segment only. */
const FLAGS_LAST_ONLY = 0x09;
const FLAG_CWR = 0x80;
const IPV4_TOTAL_LENGTH = 2;
const IPV4_ID = 4;
const IPV4_CHECKSUM = 10;
const IPV4_SRC = 12;
const IPV6_PAYLOAD_LENGTH = 4;
const IPV6_SRC = 8;
const IPV6_HEADER_LEN = 40;
const ETH_HEADER_LEN = 14;
/** The smallest segments that a VNIC may have cut: each costs the device a walk and a copy. The kernel may have Linux's smallest. */
const GSO_SIZE_MIN = 256;
const GSO_SIZE_MIN_KERNEL = 48;
/** One frame of any size, with the place that keeps its alignment. */
const PLACE_BYTES = 128 * 1024;
/** Longest frame that is cut: what an IPv4 length counts, and the Ethernet header. */
export const GSO_FRAME_MAX = 65_535 + ETH_HEADER_LEN;

/** Room before a frame in staging memory, for the header of whoever sends it on; keeps the alignment of a cache line. */
const SLACK = 64;

/** Memory whose frames are looked at: `view` begins at arena offset `base`. */
export interface FrameWindow {
  readonly base: number;
  readonly view: DataView;
}

/** Private memory of the device: a place for one frame that is looked at, and one for a segment that is cut from it. */
export class Staging implements FrameWindow {
  /** Arena offsets: of the memory, of the frame's place, of the segment's place. */
  readonly base: number;
  readonly at: number;
  readonly scratch: number;
  /** From `base` on. */
  readonly view: DataView;

  constructor(arena: Arena) {
    this.base = arena.mapPrivate(2 * PLACE_BYTES);
    this.at = this.base + SLACK;
    this.scratch = this.base + PLACE_BYTES + SLACK;
    this.view = new DataView(arena.u8.buffer, this.base, 2 * PLACE_BYTES);
  }
}

/** Takes one segment: a whole frame in staging memory. False when it dropped it, and would the rest. */
export interface SegmentSink {
  segment(at: number, length: number): boolean;
}

/** A frame's offloads. One object for each sender; `header` is what came with the frame that is being handled. */
export class Offload {
  readonly header = new NetHeader();
  readonly #arena: Arena;
  readonly #staging: Staging;
  #isIpv6 = false;
  /** Where the TCP or UDP header begins, from the frame's start. */
  #transportAt = 0;

  readonly #gsoSizeMin: number;

  constructor(arena: Arena, staging: Staging, ofKernel = false) {
    this.#arena = arena;
    this.#staging = staging;
    this.#gsoSizeMin = ofKernel ? GSO_SIZE_MIN_KERNEL : GSO_SIZE_MIN;
  }

  /** False: nothing to do for the frame. */
  get isSet(): boolean {
    return !this.header.isPlain;
  }

  get isSegmented(): boolean {
    return this.header.gsoType !== GSO_NONE;
  }

  /** Segments that the frame of `length` bytes becomes, and the bytes of all of them on a wire. */
  segments(length: number): number {
    const { gsoSize, gsoType, headerLength } = this.header;
    return gsoType === GSO_NONE ? 1 : Math.max(1, Math.ceil((length - headerLength) / gsoSize));
  }

  wireBytes(length: number): number {
    return length + (this.segments(length) - 1) * this.header.headerLength;
  }

  /**
   * Hold the header against the frame at `at`, whose fields were parsed. False: it lies, and the frame is dropped. What the
   * device needs of it is derived from the frame, not believed.
   */
  check(frame: FrameFields, at: number, length: number, frameLengthMax: number): boolean {
    const { header } = this;
    // A sender's claim that its checksum is right is worth nothing.
    header.flags &= ~F_DATA_VALID;
    if (header.isPlain) return length <= frameLengthMax;
    if ((header.flags & F_NEEDS_CSUM) === 0 || header.flags !== F_NEEDS_CSUM) return false;
    if (frame.transportAt === 0 || frame.srcPort < 0) return false;
    const { protocol, transportAt } = frame;
    const isTcp = protocol === TCP;
    if (!isTcp && protocol !== UDP) return false;
    const field = isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    if (header.checksumStart !== transportAt || header.checksumOffset !== field) return false;
    if (transportAt + field + 2 > length) return false;
    this.#isIpv6 = frame.kind !== KIND.ipv4;
    this.#transportAt = transportAt;
    if (header.gsoType === GSO_NONE) {
      header.headerLength = 0;
      header.gsoSize = 0;
      return length <= frameLengthMax;
    }
    if (!isTcp || header.gsoType !== (this.#isIpv6 ? GSO_TCPV6 : GSO_TCPV4)) return false;
    if (transportAt + TCP_HEADER_MIN > length || length > GSO_FRAME_MAX) return false;
    const tcpLength = (this.#arena.u8[at + transportAt + TCP_DATA_OFFSET]! >>> 4) * 4;
    const headers = transportAt + tcpLength;
    if (tcpLength < TCP_HEADER_MIN || headers > length) return false;
    if (header.gsoSize < this.#gsoSizeMin || headers + header.gsoSize > frameLengthMax)
      return false;
    header.headerLength = headers;
    return true;
  }

  /** Finish the checksum in place, so that the frame needs nothing more. Not of a frame that is to be cut. */
  finish(at: number, length: number): void {
    const { header } = this;
    if ((header.flags & F_NEEDS_CSUM) === 0) return;
    const { view, base } = this.#staging;
    const start = at - base + header.checksumStart;
    // The field holds the pseudo header's sum, and is summed up with the rest.
    const value = checksum.finish(checksum.sum(view, start, length - header.checksumStart));
    // RFC 768: 0 would mean that there is none.
    view.setUint16(start + header.checksumOffset, value === 0 ? 0xffff : value);
    header.clear();
  }

  /** UDP never leaves unfinished. */
  finishUdp(frame: FrameFields, at: number, length: number): void {
    if (frame.protocol === UDP) this.finish(at, length);
  }

  /** Cut the frame at `at` as its header says, checksums finished, and give the segments to `sink` while it takes them. */
  cut(at: number, length: number, sink: SegmentSink): void {
    const { headerLength, gsoSize } = this.header;
    const arena = this.#arena;
    const { view, base, scratch } = this.#staging;
    const to = scratch + (at & 3);
    const payload = length - headerLength;
    const sequence = view.getInt32(at - base + this.#transportAt + TCP_SEQUENCE);
    let index = 0;
    for (let done = 0; done < payload || index === 0; index++) {
      const size = Math.min(gsoSize, payload - done);
      arena.u8.copyWithin(to, at, at + headerLength);
      arena.u8.copyWithin(
        to + headerLength,
        at + headerLength + done,
        at + headerLength + done + size,
      );
      const isLast = done + size >= payload;
      this.#fixIp(to, headerLength + size, index);
      this.#fixTcp(to, headerLength + size, (sequence + done) | 0, index === 0, isLast);
      done += size;
      if (!sink.segment(to, headerLength + size)) return;
    }
  }

  #fixIp(at: number, length: number, index: number): void {
    const { view, base } = this.#staging;
    const ip = at - base + ETH_HEADER_LEN;
    if (this.#isIpv6) {
      view.setUint16(ip + IPV6_PAYLOAD_LENGTH, length - ETH_HEADER_LEN - IPV6_HEADER_LEN);
      return;
    }
    view.setUint16(ip + IPV4_TOTAL_LENGTH, length - ETH_HEADER_LEN);
    view.setUint16(ip + IPV4_ID, view.getUint16(ip + IPV4_ID) + index);
    view.setUint16(ip + IPV4_CHECKSUM, 0);
    const sum = checksum.sum(view, ip, this.#transportAt - ETH_HEADER_LEN);
    view.setUint16(ip + IPV4_CHECKSUM, checksum.finish(sum));
  }

  #fixTcp(at: number, length: number, sequence: number, isFirst: boolean, isLast: boolean): void {
    const { view, base } = this.#staging;
    const tcp = at - base + this.#transportAt;
    let flags = view.getUint8(tcp + TCP_FLAGS);
    if (!isLast) flags &= ~FLAGS_LAST_ONLY;
    if (!isFirst) flags &= ~FLAG_CWR;
    view.setUint8(tcp + TCP_FLAGS, flags);
    view.setInt32(tcp + TCP_SEQUENCE, sequence);
    view.setUint16(tcp + TCP_CHECKSUM, 0);
    const tcpLength = length - this.#transportAt;
    const sum = checksum.sum(view, tcp, tcpLength) + this.#pseudoHeader(at, tcpLength);
    view.setUint16(tcp + TCP_CHECKSUM, checksum.finish(sum));
  }

  /** RFC 9293, section 3.1; RFC 8200, section 8.1. */
  #pseudoHeader(at: number, tcpLength: number): number {
    const { view, base } = this.#staging;
    const ip = at - base + ETH_HEADER_LEN;
    const addresses = this.#isIpv6
      ? checksum.sum(view, ip + IPV6_SRC, 32)
      : checksum.sum(view, ip + IPV4_SRC, 8);
    return addresses + TCP + tcpLength;
  }
}
