/**
 * Writes pcapng (draft-ietf-opsawg-pcapng, sections 4.1 to 4.3): what Wireshark and tcpdump read.
 *
 *   SHB   0a0d0d0a | length | 1a2b3c4d | 1.0 | section length -1 | length
 *   IDB   1 | length | link type u16, 0 | snaplen | options: if_name, if_tsresol 9 | length
 *   EPB   6 | length | interface | time high, low (ns) | captured | original | bytes, padded | options | length
 *         options of a packet: epb_flags (direction), epb_dropcount when packets were lost before it
 *
 * - One bounded buffer between the packets and the sink. A packet that does not fit is dropped and counted, never
 *   waited for, and no block is ever torn: what the sink does not take stays for the next flush.
 * - Nothing is allocated per packet.
 */
import { assert } from '../base/assert.ts';

/** Takes a prefix of `bytes`, at once, and returns its length: 0 when it can take nothing now. Must not keep `bytes`. */
export type CaptureSink = (bytes: Uint8Array) => number;

/** Direction of a packet, as in bits 0 and 1 of epb_flags. */
export const INBOUND = 1;
export const OUTBOUND = 2;
export type Direction = typeof INBOUND | typeof OUTBOUND;

export interface PcapngOptions {
  /** Bytes kept of each packet. Default 65,535. */
  readonly snapLength?: number;
  /** Bytes of the buffer before the sink. Default 1 MiB; at least a header and two packets of `snapLength`. */
  readonly bufferBytes?: number;
  /** Name of the interface in the file. Default "arrakis". */
  readonly interfaceName?: string;
  /**
   * Number of the interface, when the file has several and its headers are written by somebody else (`pcapngHeaders`).
   * Default: the writer begins the file, which has one interface.
   */
  readonly interfaceId?: number;
}

const LINKTYPE_ETHERNET = 1;
const BLOCK_SHB = 0x0a0d0d0a;
const BLOCK_IDB = 1;
const BLOCK_EPB = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const OPT_IF_NAME = 2;
const OPT_IF_TSRESOL = 9;
const OPT_EPB_FLAGS = 2;
const OPT_EPB_DROPCOUNT = 4;
const SHB_LEN = 28;
/** Fixed part of an EPB, and the options that every one carries (epb_flags, opt_endofopt), and its last length. */
const EPB_HEADER_LEN = 28;
const EPB_TAIL_LEN = 8 + 4 + 4;
const DROPCOUNT_LEN = 12;
const INTERFACE_NAME_MAX = 255;
const TWO_32 = 0x1_0000_0000;

const DEFAULT_NAME = 'arrakis';

const pad4 = (n: number): number => (n + 3) & ~3;

export class PcapngWriter {
  /** Packets written, and packets lost because the sink was slower than they came. */
  packets = 0;
  drops = 0;
  readonly #sink: CaptureSink;
  readonly #snapLength: number;
  readonly #interfaceId: number;
  readonly #buffer: Buffer;
  #used = 0;
  /** Lost since the last packet that was written. */
  #dropsUntold = 0;

  /** Puts the headers of a file, if it begins one, into the buffer; nothing reaches the sink before `flush` or half a buffer. */
  constructor(sink: CaptureSink, options: PcapngOptions = {}) {
    this.#sink = sink;
    this.#snapLength = options.snapLength ?? 65535;
    assert(this.#snapLength > 0, 'a capture keeps something of a packet');
    const leastBytes = 1024 + 2 * (this.#snapLength + 128);
    this.#buffer = Buffer.alloc(Math.max(options.bufferBytes ?? 1 << 20, leastBytes));
    this.#interfaceId = options.interfaceId ?? 0;
    if (options.interfaceId !== undefined) return;
    const headers = pcapngHeaders([options.interfaceName ?? DEFAULT_NAME], this.#snapLength);
    this.#buffer.set(headers);
    this.#used = headers.length;
  }

  /** Bytes that wait for the sink. */
  get pending(): number {
    return this.#used;
  }

  /**
   * Record the frame of `length` bytes at `at`. `timeNs` is nanoseconds since 1970 as a double: of today's dates that
   * keeps 256 ns, of a simulation's small times every one. False when it was dropped.
   */
  packet(
    bytes: Uint8Array,
    at: number,
    length: number,
    direction: Direction,
    timeNs: number,
  ): boolean {
    const captured = Math.min(length, this.#snapLength);
    const to = this.#begin(captured, length, timeNs);
    if (to < 0) return false;
    this.#copy(bytes, at, captured, to);
    this.#end(to + captured, direction);
    return true;
  }

  /** The same for a packet whose `pieces` pieces are the entries of a batch from `first` on. */
  packetOfPieces(
    bytes: Uint8Array,
    frames: Uint32Array,
    lengths: Uint16Array,
    first: number,
    pieces: number,
    direction: Direction,
    timeNs: number,
  ): boolean {
    let length = 0;
    for (let i = first; i < first + pieces; i++) length += lengths[i]!;
    let left = Math.min(length, this.#snapLength);
    let to = this.#begin(left, length, timeNs);
    if (to < 0) return false;
    for (let i = first; i < first + pieces; i++) {
      const size = Math.min(left, lengths[i]!);
      this.#copy(bytes, frames[i]!, size, to);
      to += size;
      left -= size;
    }
    this.#end(to, direction);
    return true;
  }

  /** Make room and write what stands before the bytes: where those go, or -1 when the packet was dropped. */
  #begin(captured: number, length: number, timeNs: number): number {
    const untold = this.#dropsUntold > 0 ? DROPCOUNT_LEN : 0;
    const total = EPB_HEADER_LEN + pad4(captured) + EPB_TAIL_LEN + untold;
    if (this.#used + total > this.#buffer.length) this.flush();
    if (this.#used + total > this.#buffer.length) {
      this.drops++;
      this.#dropsUntold++;
      return -1;
    }
    return this.#epbHeader(total, captured, length, timeNs);
  }

  #copy(bytes: Uint8Array, at: number, length: number, to: number): void {
    const buffer = this.#buffer;
    for (let i = 0; i < length; i++) buffer[to + i] = bytes[at + i]!;
  }

  /** What stands behind the bytes, which end at `end`. */
  #end(end: number, direction: Direction): void {
    const buffer = this.#buffer;
    let to = end;
    // The padding may hold bytes of an earlier block. Blocks begin on a word, and so do their bytes.
    for (; (to & 3) !== (this.#used & 3); to++) buffer[to] = 0;
    to = this.#option(to, OPT_EPB_FLAGS, 4);
    to = buffer.writeUInt32LE(direction, to);
    if (this.#dropsUntold > 0) {
      to = this.#option(to, OPT_EPB_DROPCOUNT, 8);
      to = buffer.writeUInt32LE(this.#dropsUntold % TWO_32, to);
      to = buffer.writeUInt32LE(Math.floor(this.#dropsUntold / TWO_32), to);
      this.#dropsUntold = 0;
    }
    to = this.#option(to, 0, 0);
    this.#used = buffer.writeUInt32LE(to + 4 - this.#used, to);
    this.packets++;
  }

  /** Call after each batch: hands over what there is once the buffer is half full. */
  batchEnd(): void {
    if (this.#used * 2 > this.#buffer.length) this.flush();
  }

  /** Offer the sink everything. Bytes that it did not take. */
  flush(): number {
    if (this.#used === 0) return 0;
    const taken = this.#sink(this.#buffer.subarray(0, this.#used));
    assert(taken >= 0 && taken <= this.#used, 'a sink takes a prefix');
    this.#buffer.copyWithin(0, taken, this.#used);
    this.#used -= taken;
    return this.#used;
  }

  /** Everything up to the packet's bytes; where those go. */
  #epbHeader(total: number, captured: number, length: number, timeNs: number): number {
    const buffer = this.#buffer;
    const high = Math.floor(timeNs / TWO_32);
    let to = buffer.writeUInt32LE(BLOCK_EPB, this.#used);
    to = buffer.writeUInt32LE(total, to);
    to = buffer.writeUInt32LE(this.#interfaceId, to);
    to = buffer.writeUInt32LE(high, to);
    to = buffer.writeUInt32LE(Math.floor(timeNs - high * TWO_32), to);
    to = buffer.writeUInt32LE(captured, to);
    return buffer.writeUInt32LE(length, to);
  }

  #option(at: number, code: number, length: number): number {
    return writeOption(this.#buffer, at, code, length);
  }
}

function writeOption(buffer: Buffer, at: number, code: number, length: number): number {
  return buffer.writeUInt16LE(length, buffer.writeUInt16LE(code, at));
}

/** The beginning of a file: a section, and an interface of each name, numbered in this order. */
export function pcapngHeaders(interfaceNames: readonly string[], snapLength: number): Buffer {
  const section = Buffer.alloc(SHB_LEN);
  let to = section.writeUInt32LE(BLOCK_SHB, 0);
  to = section.writeUInt32LE(SHB_LEN, to);
  to = section.writeUInt32LE(BYTE_ORDER_MAGIC, to);
  to = section.writeUInt16LE(1, to);
  to = section.writeUInt16LE(0, to);
  // Section length -1: not known when the section begins.
  to = section.writeUInt32LE(0xffffffff, to);
  to = section.writeUInt32LE(0xffffffff, to);
  section.writeUInt32LE(SHB_LEN, to);
  return Buffer.concat([
    section,
    ...interfaceNames.map((name) => interfaceBlock(name, snapLength)),
  ]);
}

function interfaceBlock(interfaceName: string, snapLength: number): Buffer {
  const name = Buffer.from(interfaceName).subarray(0, INTERFACE_NAME_MAX);
  const total = 16 + (4 + pad4(name.length)) + 8 + 4 + 4;
  const block = Buffer.alloc(total);
  let to = block.writeUInt32LE(BLOCK_IDB, 0);
  to = block.writeUInt32LE(total, to);
  to = block.writeUInt16LE(LINKTYPE_ETHERNET, to);
  to = block.writeUInt16LE(0, to);
  to = block.writeUInt32LE(snapLength, to);
  to = writeOption(block, to, OPT_IF_NAME, name.length);
  name.copy(block, to);
  to = writeOption(block, to + pad4(name.length), OPT_IF_TSRESOL, 1);
  block[to] = 9;
  to = writeOption(block, to + 4, 0, 0);
  block.writeUInt32LE(total, to);
  return block;
}
