/**
 * vhost-user messages: the protocol by which a driver (the "front-end") hands its memory and virtqueues to a device
 * (the "back-end") over a Unix stream socket. Source: QEMU's docs/interop/vhost-user.rst.
 *
 *   header   request u32 | flags u32 | size u32        flags: version (2 bits, 1) | reply | need_reply
 *   payload  `size` bytes, little-endian, by request; descriptors travel beside it by SCM_RIGHTS
 *
 * - Control path: features are bigints, addresses are Numbers. An address of 2^53 or more is malformed.
 * - Decoders return null for what is malformed and never throw: the peer is hostile until checked.
 */
export const HEADER_LEN = 12;
/** Largest payload that is accepted; the largest in use is a memory table of 8 regions, 264 bytes. */
export const PAYLOAD_LEN_MAX = 512;
/** Most descriptors with one message, and most regions in a memory table. */
export const REGIONS_MAX = 8;

/** Front-end message types, by the specification's names. */
export const REQ = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SEND_RARP: 19,
  NET_SET_MTU: 20,
  SET_BACKEND_REQ_FD: 21,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  RESET_DEVICE: 34,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
} as const;

/** Feature bits, as bit numbers: virtio 1.2 sections 5.1.3, 5.2.3 and 6, and the vhost-user bit 30. */
export const FEATURE = {
  VIRTIO_NET_F_CSUM: 0,
  VIRTIO_NET_F_GUEST_CSUM: 1,
  VIRTIO_NET_F_MTU: 3,
  VIRTIO_NET_F_MAC: 5,
  VIRTIO_NET_F_GUEST_TSO4: 7,
  VIRTIO_NET_F_GUEST_TSO6: 8,
  VIRTIO_NET_F_HOST_TSO4: 11,
  VIRTIO_NET_F_HOST_TSO6: 12,
  VIRTIO_NET_F_MRG_RXBUF: 15,
  VIRTIO_NET_F_STATUS: 16,
  VIRTIO_NET_F_MQ: 22,
  VIRTIO_BLK_F_SIZE_MAX: 1,
  VIRTIO_BLK_F_SEG_MAX: 2,
  VIRTIO_BLK_F_RO: 5,
  VIRTIO_BLK_F_BLK_SIZE: 6,
  VIRTIO_BLK_F_FLUSH: 9,
  VIRTIO_RING_F_INDIRECT_DESC: 28,
  VIRTIO_RING_F_EVENT_IDX: 29,
  VHOST_USER_F_PROTOCOL_FEATURES: 30,
  VIRTIO_F_VERSION_1: 32,
} as const;

/** Protocol feature bits, as bit numbers. */
export const PROTOCOL_FEATURE = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  MTU: 4,
  BACKEND_REQ: 5,
  CONFIG: 9,
  RESET_DEVICE: 13,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
} as const;

/** The set of features with these bit numbers. */
export const featureSet = (...bits: number[]): bigint =>
  bits.reduce((set, bit) => set | (1n << BigInt(bit)), 0n);

export const hasFeature = (set: bigint, bit: number): boolean => ((set >> BigInt(bit)) & 1n) === 1n;

const VERSION = 1;
const VERSION_MASK = 3;
/** Header flags. */
export const FLAG_REPLY = 4;
export const FLAG_NEED_REPLY = 8;

/** In the u64 of SET_VRING_KICK, CALL and ERR: bits 0-7 are the ring's index, bit 8 says that no descriptor comes. */
export const VRING_INDEX_MASK = 0xff;
export const VRING_NO_FD = 0x100;

export interface MessageHeader {
  request: number;
  flags: number;
  /** Bytes of the payload. */
  size: number;
}

export interface VringState {
  index: number;
  num: number;
}

/** Where a ring's parts lie, in the front-end's own ("user") addresses. */
export interface VringAddr {
  index: number;
  flags: number;
  desc: number;
  used: number;
  avail: number;
  log: number;
}

/** One region of the front-end's memory. Its bytes start at `offset` in the descriptor that came with it. */
export interface MemRegion {
  guestAddress: number;
  size: number;
  userAddress: number;
  offset: number;
}

const VRING_STATE_LEN = 8;
const VRING_ADDR_LEN = 40;
const REGION_LEN = 32;
const TABLE_HEADER_LEN = 8;
const EMPTY = Buffer.alloc(0);

/** Header and payload as one buffer. `flags` are FLAG_REPLY and FLAG_NEED_REPLY; the version is added. */
export function encodeMessage(request: number, payload: Uint8Array = EMPTY, flags = 0): Buffer {
  const message = Buffer.alloc(HEADER_LEN + payload.length);
  message.writeUInt32LE(request, 0);
  message.writeUInt32LE(flags | VERSION, 4);
  message.writeUInt32LE(payload.length, 8);
  message.set(payload, HEADER_LEN);
  return message;
}

/** The header at the start of `buffer`; null when it is short, of another version, or claims too much. */
export function decodeHeader(buffer: Buffer): MessageHeader | null {
  if (buffer.length < HEADER_LEN) return null;
  const flags = buffer.readUInt32LE(4);
  const size = buffer.readUInt32LE(8);
  if ((flags & VERSION_MASK) !== VERSION || size > PAYLOAD_LEN_MAX) return null;
  return { request: buffer.readUInt32LE(0), flags, size };
}

export function encodeU64(value: bigint | number): Buffer {
  const payload = Buffer.alloc(8);
  payload.writeBigUInt64LE(BigInt(value));
  return payload;
}

export function decodeU64(payload: Buffer): bigint | null {
  return payload.length === 8 ? payload.readBigUInt64LE(0) : null;
}

export function encodeVringState(state: VringState): Buffer {
  const payload = Buffer.alloc(VRING_STATE_LEN);
  payload.writeUInt32LE(state.index, 0);
  payload.writeUInt32LE(state.num, 4);
  return payload;
}

export function decodeVringState(payload: Buffer): VringState | null {
  if (payload.length !== VRING_STATE_LEN) return null;
  return { index: payload.readUInt32LE(0), num: payload.readUInt32LE(4) };
}

export function encodeVringAddr(addr: VringAddr): Buffer {
  const payload = Buffer.alloc(VRING_ADDR_LEN);
  payload.writeUInt32LE(addr.index, 0);
  payload.writeUInt32LE(addr.flags, 4);
  writeAddress(payload, 8, addr.desc);
  writeAddress(payload, 16, addr.used);
  writeAddress(payload, 24, addr.avail);
  writeAddress(payload, 32, addr.log);
  return payload;
}

export function decodeVringAddr(payload: Buffer): VringAddr | null {
  if (payload.length !== VRING_ADDR_LEN) return null;
  const desc = readAddress(payload, 8);
  const used = readAddress(payload, 16);
  const avail = readAddress(payload, 24);
  const log = readAddress(payload, 32);
  if (desc < 0 || used < 0 || avail < 0 || log < 0) return null;
  return {
    index: payload.readUInt32LE(0),
    flags: payload.readUInt32LE(4),
    desc,
    used,
    avail,
    log,
  };
}

/** SET_MEM_TABLE. The descriptors go beside it, one a region, in this order. */
export function encodeMemTable(regions: readonly MemRegion[]): Buffer {
  const payload = Buffer.alloc(TABLE_HEADER_LEN + REGION_LEN * regions.length);
  payload.writeUInt32LE(regions.length, 0);
  regions.forEach((region, i) => {
    writeRegion(payload, TABLE_HEADER_LEN + i * REGION_LEN, region);
  });
  return payload;
}

/** Regions of SET_MEM_TABLE; null for none, too many, a wrong length, or a region that `readRegion` refuses. */
export function decodeMemTable(payload: Buffer): MemRegion[] | null {
  if (payload.length < TABLE_HEADER_LEN) return null;
  const count = payload.readUInt32LE(0);
  if (count === 0 || count > REGIONS_MAX) return null;
  if (payload.length !== TABLE_HEADER_LEN + count * REGION_LEN) return null;
  const regions: MemRegion[] = [];
  for (let i = 0; i < count; i++) {
    const region = readRegion(payload, TABLE_HEADER_LEN + i * REGION_LEN);
    if (region === null) return null;
    regions.push(region);
  }
  return regions;
}

/** ADD_MEM_REG and REM_MEM_REG: padding u64, then one region. */
export function encodeMemReg(region: MemRegion): Buffer {
  const payload = Buffer.alloc(8 + REGION_LEN);
  writeRegion(payload, 8, region);
  return payload;
}

export function decodeMemReg(payload: Buffer): MemRegion | null {
  return payload.length === 8 + REGION_LEN ? readRegion(payload, 8) : null;
}

function writeRegion(payload: Buffer, at: number, region: MemRegion): void {
  writeAddress(payload, at, region.guestAddress);
  writeAddress(payload, at + 8, region.size);
  writeAddress(payload, at + 16, region.userAddress);
  writeAddress(payload, at + 24, region.offset);
}

/** A region that is not empty and whose ends are addresses too; otherwise null. */
function readRegion(payload: Buffer, at: number): MemRegion | null {
  const guestAddress = readAddress(payload, at);
  const size = readAddress(payload, at + 8);
  const userAddress = readAddress(payload, at + 16);
  const offset = readAddress(payload, at + 24);
  if (guestAddress < 0 || size <= 0 || userAddress < 0 || offset < 0) return null;
  if (Math.max(guestAddress, userAddress, offset) + size > Number.MAX_SAFE_INTEGER) return null;
  return { guestAddress, size, userAddress, offset };
}

function writeAddress(payload: Buffer, at: number, address: number): void {
  payload.writeUInt32LE(address % 0x1_0000_0000, at);
  payload.writeUInt32LE(Math.floor(address / 0x1_0000_0000), at + 4);
}

/** The u64 at `at`, or -1 when it is 2^53 or more. */
function readAddress(payload: Buffer, at: number): number {
  const high = payload.readUInt32LE(at + 4);
  return high < 0x20_0000 ? high * 0x1_0000_0000 + payload.readUInt32LE(at) : -1;
}
