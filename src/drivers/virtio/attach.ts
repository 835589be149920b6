/**
 * The control plane's half of the virtio network driver: how one region holds queue pairs and their frames.
 *
 *   0        REGION_RESERVED                ringsEnd        firstFrame                                 regionBytes
 *   | unused | per pair: receive, transmit ring | up to a frame | per pair: frameCount buffers of frameSize | to a page |
 *
 * Offsets into the region are also the guest addresses that descriptors carry.
 */
import type { Mac } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import { FRAME_LENGTH_MIN } from '../../device/sendable.ts';
import { memfdSealed } from '../../ffi/memory.ts';
import { isRingSize, NET_HEADER_LEN, splitLayout } from '../../ring/split-layout.ts';
import { REGION_RESERVED } from './regs.ts';

const PAGE = 4096;
const CACHE_LINE = 64;
/** Queue pairs of one VNIC. */
export const PAIRS_MAX = 8;
/** Handles stay small integers in V8, and every offset stays positive under bit operations. */
export const REGION_BYTES_MAX = 0x7fff_0000;
/** Bounds of a buffer: it holds a full Ethernet frame at least, and a length fits in 16 bits. */
export const FRAME_SIZE_MIN = 2048;
export const FRAME_SIZE_MAX = 65536;
/** The smallest and largest MTU that IPv4 (RFC 791) knows. */
export const MTU_MIN = 68;
export const MTU_MAX = 65535 - FRAME_LENGTH_MIN;

/** What an application gets beside the descriptors `region` and `socket`: plain JSON. */
export interface VirtioGrant {
  readonly mac: Mac;
  readonly mtu: number;
  /** Queue pairs, each with rings and frames of its own. Default 1. */
  readonly pairs?: number;
  /** Entries of each of the two rings of a pair; a power of two. */
  readonly ringSize: number;
  /** Bytes of a buffer; a power of two. */
  readonly frameSize: number;
  /** Bytes before a frame in its buffer; at least the 12 of virtio_net_hdr. */
  readonly headroom: number;
  /** Of each pair. At least two rings' worth: one to receive into, one to send. */
  readonly frameCount: number;
  readonly regionBytes: number;
}

export interface RingLayout {
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  readonly end: number;
}

/** Rings of one queue pair. */
export interface PairRings {
  readonly rx: RingLayout;
  readonly tx: RingLayout;
}

export interface VirtioGeometry {
  /** By pair. */
  readonly rings: readonly PairRings[];
  readonly ringsEnd: number;
  /** Of the first pair; those of the next are `pairBytes` further on. */
  readonly firstFrame: number;
  readonly pairBytes: number;
  /** A whole number of pages. */
  readonly regionBytes: number;
}

/** Where everything lies in a region. Throws ARK_BAD_ARGUMENT for sizes that cannot be, ARK_LIMIT for too large. */
export function virtioGeometry(sizes: {
  ringSize: number;
  frameSize: number;
  frameCount: number;
  pairs?: number;
}): VirtioGeometry {
  const { ringSize, frameSize, frameCount, pairs = 1 } = sizes;
  require(Number.isInteger(pairs) &&
    pairs >= 1 &&
    pairs <= PAIRS_MAX, `${pairs} queue pairs are not from 1 to ${PAIRS_MAX}`);
  require(isRingSize(ringSize), `ring size ${ringSize} is not a power of two up to 32768`);
  require(isPowerOfTwo(frameSize) &&
    frameSize >= FRAME_SIZE_MIN &&
    frameSize <=
      FRAME_SIZE_MAX, `frame size ${frameSize} is not a power of two from ${FRAME_SIZE_MIN} to ${FRAME_SIZE_MAX}`);
  require(Number.isInteger(frameCount) &&
    frameCount >= 2 * ringSize, `${frameCount} frames do not fill two rings of ${ringSize}`);
  const rings: PairRings[] = [];
  let ringsEnd = REGION_RESERVED;
  for (let pair = 0; pair < pairs; pair++) {
    const rx = splitLayout(ringsEnd, ringSize);
    const tx = splitLayout(rx.end, ringSize);
    rings.push({ rx, tx });
    // Threads on different cores write into neighbouring rings: not within one cache line.
    ringsEnd = roundUp(tx.end, CACHE_LINE);
  }
  const pairBytes = frameCount * frameSize;
  const firstFrame = roundUp(ringsEnd, frameSize);
  const regionBytes = roundUp(firstFrame + pairs * pairBytes, PAGE);
  if (regionBytes > REGION_BYTES_MAX) {
    throw new ArrakisError('ARK_LIMIT', `a region of ${regionBytes} bytes is too large`, {
      hint: `ask for fewer or smaller frames: a region has at most ${REGION_BYTES_MAX} bytes`,
    });
  }
  return { rings, ringsEnd, firstFrame, pairBytes, regionBytes };
}

/** The geometry of a grant that came over a socket. Throws ARK_BAD_ARGUMENT or ARK_LIMIT where it makes no sense. */
export function checkGrant(grant: VirtioGrant): VirtioGeometry {
  const geometry = virtioGeometry(grant);
  const { mtu, headroom, frameSize } = grant;
  require(Number.isInteger(mtu) &&
    mtu >= MTU_MIN &&
    mtu <= MTU_MAX, `MTU ${mtu} is not from ${MTU_MIN} to ${MTU_MAX}`);
  require(Number.isInteger(headroom) &&
    headroom >=
      NET_HEADER_LEN, `headroom ${headroom} does not hold the ${NET_HEADER_LEN}-byte virtio_net_hdr`);
  require(headroom + FRAME_LENGTH_MIN + mtu <=
    frameSize, `a frame of MTU ${mtu} behind ${headroom} bytes does not fit in ${frameSize}`);
  require(grant.regionBytes ===
    geometry.regionBytes, `a region of ${grant.regionBytes} bytes is not the ${geometry.regionBytes} that its parts need`);
  return geometry;
}

/** A zeroed region for `grant`, sealed, ready to be shared. The caller owns the descriptor. */
export function createRegion(grant: VirtioGrant): number {
  return memfdSealed('arrakis-vnic', checkGrant(grant).regionBytes);
}

function require(condition: boolean, text: string): void {
  if (!condition) throw new ArrakisError('ARK_BAD_ARGUMENT', text);
}

const isPowerOfTwo = (n: number): boolean => Number.isInteger(n) && n > 0 && (n & (n - 1)) === 0;

const roundUp = (value: number, to: number): number => Math.ceil(value / to) * to;
