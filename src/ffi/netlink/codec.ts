/**
 * Netlink messages: nlmsghdr and attributes (netlink(7), rtnetlink(7), linux/netlink.h). Host byte order,
 * which here is little-endian; every message and attribute is padded to 4 bytes.
 *
 *     | length 4 | type 2 | flags 2 | sequence 4 | port 4 | family header | attribute | attribute | ...
 *     attribute: | length 2 (with this header) | type 2 | payload | padding |
 *
 * A reader never looks beyond the length it was given: what does not fit ends the walk.
 */
import { assert } from '../../base/assert.ts';

export const HEADER_LEN = 16;
const ATTRIBUTE_HEADER_LEN = 4;
/** NLA_F_NESTED and NLA_F_NET_BYTEORDER live in the upper bits of an attribute's type. */
const NLA_TYPE_MASK = 0x3fff;
const NLA_F_NESTED = 0x8000;

export const NLM_F_REQUEST = 0x01;
export const NLM_F_ACK = 0x04;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_CAPPED = 0x100;
export const NLM_F_ACK_TLVS = 0x200;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_DUMP = 0x300;
export const NLM_F_CREATE = 0x400;

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

const align4 = (n: number): number => (n + 3) & ~3;

/** One received message. `body` (what follows the header) belongs to the receiver. */
export interface Message {
  type: number;
  flags: number;
  sequence: number;
  port: number;
  body: Buffer;
}

/** Attributes by type. Of repeated ones the last counts, as in the kernel. */
export type Attributes = Map<number, Buffer>;

/** Builds the body of one request: a family header, then attributes, which may nest. */
export class MessageWriter {
  #bytes = Buffer.alloc(256);
  #length = 0;

  #reserve(length: number): number {
    const at = this.#length;
    const wanted = at + align4(length);
    if (wanted > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(wanted, this.#bytes.length * 2));
      this.#bytes.copy(larger, 0, 0, at);
      this.#bytes = larger;
    }
    this.#length = wanted;
    return at;
  }

  /** Append a header structure as it is. */
  raw(bytes: Uint8Array): this {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  attribute(type: number, payload: Uint8Array): this {
    const length = ATTRIBUTE_HEADER_LEN + payload.length;
    assert(length <= 0xffff, 'netlink attribute is too long');
    const at = this.#reserve(length);
    this.#bytes.writeUInt16LE(length, at);
    this.#bytes.writeUInt16LE(type, at + 2);
    this.#bytes.set(payload, at + ATTRIBUTE_HEADER_LEN);
    return this;
  }

  u32(type: number, value: number): this {
    const payload = Buffer.alloc(4);
    payload.writeUInt32LE(value);
    return this.attribute(type, payload);
  }

  /** A NUL-terminated string, as rtnetlink names interfaces. */
  string(type: number, value: string): this {
    return this.attribute(type, Buffer.from(`${value}\0`));
  }

  /** An attribute whose payload is what `fill` appends. */
  nest(type: number, fill: (writer: this) => void): this {
    const at = this.#reserve(ATTRIBUTE_HEADER_LEN);
    fill(this);
    assert(this.#length - at <= 0xffff, 'netlink nest is too long');
    this.#bytes.writeUInt16LE(this.#length - at, at);
    this.#bytes.writeUInt16LE(type | NLA_F_NESTED, at + 2);
    return this;
  }

  /** The body written so far. Valid until the next append. */
  body(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

/** A complete request: header and body, ready to send. */
export function emitMessage(
  type: number,
  flags: number,
  sequence: number,
  body: Uint8Array,
): Buffer {
  const message = Buffer.alloc(HEADER_LEN + align4(body.length));
  message.writeUInt32LE(HEADER_LEN + body.length, 0);
  message.writeUInt16LE(type, 4);
  message.writeUInt16LE(flags, 6);
  message.writeUInt32LE(sequence, 8);
  message.set(body, HEADER_LEN);
  return message;
}

/** The messages in one received datagram of `length` bytes. Bodies are copies. */
export function parseMessages(datagram: Buffer, length: number): Message[] {
  const messages: Message[] = [];
  for (let at = 0; at + HEADER_LEN <= length; ) {
    const size = datagram.readUInt32LE(at);
    if (size < HEADER_LEN || at + size > length) break;
    messages.push({
      type: datagram.readUInt16LE(at + 4),
      flags: datagram.readUInt16LE(at + 6),
      sequence: datagram.readUInt32LE(at + 8),
      port: datagram.readUInt32LE(at + 12),
      body: Buffer.from(datagram.subarray(at + HEADER_LEN, at + size)),
    });
    at += align4(size);
  }
  return messages;
}

/** The attributes in `bytes` from offset `at` to its end. Payloads are views of `bytes`. */
export function parseAttributes(bytes: Buffer, at = 0): Attributes {
  const attributes: Attributes = new Map();
  for (let next = at; next + ATTRIBUTE_HEADER_LEN <= bytes.length; ) {
    const length = bytes.readUInt16LE(next);
    if (length < ATTRIBUTE_HEADER_LEN || next + length > bytes.length) break;
    const type = bytes.readUInt16LE(next + 2) & NLA_TYPE_MASK;
    attributes.set(type, bytes.subarray(next + ATTRIBUTE_HEADER_LEN, next + length));
    next += align4(length);
  }
  return attributes;
}

/** The u32 attribute `type`, or null when it is absent or short. */
export function getU32(attributes: Attributes, type: number): number | null {
  const payload = attributes.get(type);
  return payload === undefined || payload.length < 4 ? null : payload.readUInt32LE(0);
}

/** The big-endian u32 attribute `type` (an IPv4 address), or null when it is absent or not 4 bytes. */
export function getU32BE(attributes: Attributes, type: number): number | null {
  const payload = attributes.get(type);
  return payload === undefined || payload.length !== 4 ? null : payload.readUInt32BE(0);
}

/** The string attribute `type` up to its NUL, or null when it is absent. */
export function getString(attributes: Attributes, type: number): string | null {
  const payload = attributes.get(type);
  if (payload === undefined) return null;
  const end = payload.indexOf(0);
  return payload.toString('utf8', 0, end < 0 ? payload.length : end);
}

/** The attributes nested in `type`; empty when it is absent. */
export function getNested(attributes: Attributes, type: number): Attributes {
  const payload = attributes.get(type);
  return payload === undefined ? new Map() : parseAttributes(payload);
}
