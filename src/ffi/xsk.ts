/**
 * AF_XDP sockets (linux/if_xdp.h, Documentation/networking/af_xdp.rst).
 *
 * Making one takes privilege: `openXsk` registers the packet memory and binds to a queue. Using one does not:
 * `xskRingOffsets`, `mapXskRing`, `xskSend` and `xskReceive` work on a socket that was passed to us.
 */
import { isErrno, SystemError } from '../base/errors.ts';
import { closeFd, pollOne } from './fd.ts';
import { bind, check, errnoName } from './libc.ts';
import { type Mapping, mapShared, memfdSealed, withMapped } from './memory.ts';
import {
  AF_XDP,
  bindCall,
  getsockopt,
  openSocket,
  SOCK_RAW,
  setSocketOption,
  setsockopt,
} from './socket.ts';

const sendto = bind<
  (fd: number, data: number, length: number, flags: number, addr: number, size: number) => number
>('sendto', 'long', ['int', 'uintptr_t', 'size_t', 'int', 'uintptr_t', 'uint']);
const recvfrom = bind<
  (fd: number, data: number, length: number, flags: number, addr: number, size: number) => number
>('recvfrom', 'long', ['int', 'uintptr_t', 'size_t', 'int', 'uintptr_t', 'uintptr_t']);

const SOL_XDP = 283;
const MSG_DONTWAIT = 0x40;

const XDP_MMAP_OFFSETS = 1;
const XDP_RX_RING = 2;
const XDP_TX_RING = 3;
const XDP_UMEM_REG = 4;
const XDP_UMEM_FILL_RING = 5;
const XDP_UMEM_COMPLETION_RING = 6;
const XDP_STATISTICS = 7;
const XDP_OPTIONS = 8;
const XDP_MAX_TX_SKB_BUDGET = 9;

const XDP_COPY = 1 << 1;
const XDP_USE_NEED_WAKEUP = 1 << 3;
const XDP_OPTIONS_ZEROCOPY = 1;

/** The kernel writes a received frame this far into its buffer, so that a program can prepend headers. */
export const XDP_PACKET_HEADROOM = 256;

/** In a ring's flags: the kernel sleeps until we call it. */
export const XDP_RING_NEED_WAKEUP = 1;

const PROBE_BYTES = 4096;

/** struct xdp_umem_reg grew: with flags 28 (padded to 32), before them 24 bytes. Newer fields stay zero. */
const UMEM_REG_SIZES = [32, 24] as const;

export const XSK_RINGS = ['rx', 'tx', 'fill', 'completion'] as const;
export type XskRing = (typeof XSK_RINGS)[number];
const RING_OPTION = {
  rx: XDP_RX_RING,
  tx: XDP_TX_RING,
  fill: XDP_UMEM_FILL_RING,
  completion: XDP_UMEM_COMPLETION_RING,
} as const;
const RING_PAGE_OFFSET = { rx: 0, tx: 0x80000000, fill: 0x100000000, completion: 0x180000000 };
/** Bytes of an entry: struct xdp_desc, or the address alone. */
const RING_ENTRY = { rx: 16, tx: 16, fill: 8, completion: 8 } as const;

export interface XskOptions {
  readonly ifIndex: number;
  readonly queue: number;
  /** Memory of the frames; stays the caller's, and may be closed once the socket exists. */
  readonly memfd: number;
  /** Where in it the frames of this socket begin, a multiple of 4096. Default 0. Frame addresses count from here. */
  readonly offset?: number;
  readonly regionBytes: number;
  readonly frameSize: number;
  /** Entries of each of the four rings, a power of two. */
  readonly ringSize: number;
}

/**
 * A socket bound to one queue of an interface, with its memory registered. The caller owns it. The kernel picks
 * zero-copy when the driver can. SystemError of `bind`: EBUSY when the queue is taken, EINVAL when there is none.
 */
export function openXsk(options: XskOptions): number {
  const fd = openSocket(AF_XDP, SOCK_RAW, 0);
  try {
    registerUmem(fd, options);
    for (const ring of XSK_RINGS) {
      setSocketOption(fd, SOL_XDP, RING_OPTION[ring], options.ringSize, `${ring} ring`);
    }
    allowLongSends(fd, options.ringSize);
    bindXsk(fd, options);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}

/**
 * Whether `queue` of the interface has no AF_XDP socket. Asks by trying, without zero-copy, so that the driver does not
 * notice. A queue that cannot be had for another reason counts as free: nobody has it. The kernel lets go of the attempt a
 * moment later: until then the queue seems taken to the next who asks, and `openXsk` waits.
 */
export function xskQueueIsFree(ifIndex: number, queue: number): boolean {
  const fd = openSocket(AF_XDP, SOCK_RAW, 0);
  const memfd = memfdSealed('arrakis-probe', PROBE_BYTES);
  try {
    registerUmem(fd, { memfd, regionBytes: PROBE_BYTES, frameSize: PROBE_BYTES / 2 });
    for (const ring of XSK_RINGS) setSocketOption(fd, SOL_XDP, RING_OPTION[ring], 2, ring);
    const address = xskAddress(ifIndex, queue);
    address.writeUInt16LE(XDP_COPY, 2);
    return bindCall(fd, address, address.length) >= 0 || errnoName() !== 'EBUSY';
  } finally {
    closeFd(memfd);
    closeFd(fd);
  }
}

/** struct sockaddr_xdp, without flags. */
function xskAddress(ifIndex: number, queue: number): Buffer {
  const address = Buffer.alloc(16);
  address.writeUInt16LE(AF_XDP, 0);
  address.writeUInt32LE(ifIndex, 4);
  address.writeUInt32LE(queue, 8);
  return address;
}

/** One call may then send a full ring instead of 32 frames. Kernels before 6.18 do not know it: no harm. */
function allowLongSends(fd: number, frames: number): void {
  const value = Buffer.alloc(4);
  value.writeUInt32LE(frames);
  setsockopt(fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, value, 4);
}

/** The kernel pins the pages and needs our mapping only during the call. */
function registerUmem(
  fd: number,
  options: Pick<XskOptions, 'memfd' | 'regionBytes' | 'offset' | 'frameSize'>,
): void {
  const { memfd, regionBytes, offset = 0 } = options;
  const reg = Buffer.alloc(UMEM_REG_SIZES[0]);
  reg.writeBigUInt64LE(BigInt(regionBytes), 8);
  reg.writeUInt32LE(options.frameSize, 16);
  withMapped(memfd, regionBytes, offset, (address) => {
    reg.writeBigUInt64LE(BigInt(address), 0);
    let result = -1;
    for (const size of UMEM_REG_SIZES) {
      result = setsockopt(fd, SOL_XDP, XDP_UMEM_REG, reg, size);
      if (result >= 0 || errnoName() !== 'EINVAL') break;
    }
    check(result, 'setsockopt', 'XDP_UMEM_REG', `${regionBytes} bytes`, options.frameSize);
  });
}

/** A socket that was just closed lets go of its queue a moment later, in a kernel worker. */
const BUSY_RETRIES_MAX = 100;
const BUSY_PAUSE_MS = 1;

function bindXsk(fd: number, options: XskOptions): void {
  const address = xskAddress(options.ifIndex, options.queue);
  for (let attempt = 0; ; attempt++) {
    address.writeUInt16LE(XDP_USE_NEED_WAKEUP, 2);
    if (bindCall(fd, address, 16) >= 0) return;
    let reason = errnoName();
    if (reason !== 'EBUSY' && reason !== 'ENODEV') {
      // A driver that fails to set up zero-copy may still serve copy mode.
      address.writeUInt16LE(XDP_USE_NEED_WAKEUP | XDP_COPY, 2);
      if (bindCall(fd, address, 16) >= 0) return;
      reason = errnoName();
    }
    if (reason !== 'EBUSY' || attempt === BUSY_RETRIES_MAX) {
      const { ifIndex, queue } = options;
      throw new SystemError('bind', reason, ['AF_XDP', `interface ${ifIndex}`, `queue ${queue}`]);
    }
    pollOne(fd, 0, BUSY_PAUSE_MS);
  }
}

function option(fd: number, name: number, bytes: number): Buffer {
  const value = Buffer.alloc(bytes);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes);
  check(getsockopt(fd, SOL_XDP, name, value, length), 'getsockopt', fd, `SOL_XDP ${name}`);
  return value;
}

/** True when frames go between driver and memory without a copy. */
export function xskIsZeroCopy(fd: number): boolean {
  return (option(fd, XDP_OPTIONS, 4).readUInt32LE(0) & XDP_OPTIONS_ZEROCOPY) !== 0;
}

/** struct xdp_statistics: what the kernel dropped or found wrong on this socket. In frames. */
export interface XskStatistics {
  rxDropped: number;
  rxInvalidDescs: number;
  txInvalidDescs: number;
  rxRingFull: number;
  rxFillRingEmptyDescs: number;
  txRingEmptyDescs: number;
}

export function xskStatistics(fd: number): XskStatistics {
  const value = option(fd, XDP_STATISTICS, 48);
  const at = (index: number): number => Number(value.readBigUInt64LE(index * 8));
  return {
    rxDropped: at(0),
    rxInvalidDescs: at(1),
    txInvalidDescs: at(2),
    rxRingFull: at(3),
    rxFillRingEmptyDescs: at(4),
    txRingEmptyDescs: at(5),
  };
}

/** Byte offsets within a ring's mapping (struct xdp_ring_offset). */
export interface XskRingOffsets {
  producer: number;
  consumer: number;
  desc: number;
  flags: number;
}

export function xskRingOffsets(fd: number): Record<XskRing, XskRingOffsets> {
  const value = option(fd, XDP_MMAP_OFFSETS, 128);
  const ring = (index: number): XskRingOffsets => {
    const at = (field: number): number => Number(value.readBigUInt64LE(index * 32 + field * 8));
    return { producer: at(0), consumer: at(1), desc: at(2), flags: at(3) };
  };
  return { rx: ring(0), tx: ring(1), fill: ring(2), completion: ring(3) };
}

/** Map one ring of `size` entries. The caller releases the mapping. */
export function mapXskRing(
  fd: number,
  ring: XskRing,
  size: number,
  offsets: XskRingOffsets,
): Mapping {
  return mapShared(fd, offsets.desc + size * RING_ENTRY[ring], RING_PAGE_OFFSET[ring], true);
}

/** Have the kernel send what is on the transmit ring. 0, or -1 and errno. For hot paths: unchecked. */
export const xskSend = (fd: number): number => sendto(fd, 0, 0, MSG_DONTWAIT, 0, 0);

/** Have the kernel look at the fill ring. 0, or -1 and errno. For hot paths: unchecked. */
export const xskReceive = (fd: number): number => recvfrom(fd, 0, 0, MSG_DONTWAIT, 0, 0);

/** Whether this process can make AF_XDP sockets: `denied` when only the privilege is missing. */
export function probeXsk(): 'ok' | 'denied' | 'absent' {
  try {
    closeFd(openSocket(AF_XDP, SOCK_RAW, 0));
    return 'ok';
  } catch (error) {
    return isErrno(error, 'EPERM') ? 'denied' : 'absent';
  }
}
