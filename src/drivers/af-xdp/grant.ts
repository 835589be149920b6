/** What an application gets to know about its AF_XDP VNIC: plain data that crosses the control socket as JSON. */
import type { Mac } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import type { XdpMode } from '../../ffi/bpf.ts';
import { XDP_PACKET_HEADROOM } from '../../ffi/xsk.ts';

export interface AfXdpGrant {
  readonly mac: Mac;
  /** Bytes of layer 3 that a frame may carry. */
  readonly mtu: number;
  readonly frameSize: 2048 | 4096;
  /** Where the kernel puts a received frame in its buffer. */
  readonly headroom: number;
  /** Of each pair. */
  readonly frameCount: number;
  /** Queue pairs, each with a socket of its own and as large a share of the frames. */
  readonly pairs: number;
  /** Entries of each of the four rings of a pair. */
  readonly ringSize: number;
  readonly regionBytes: number;
  readonly mode: XdpMode;
  readonly zeroCopy: boolean;
}

export type AfXdpGeometry = Pick<AfXdpGrant, 'frameSize' | 'frameCount' | 'ringSize'> & {
  readonly pairs?: number;
};

export const ETHERNET_HEADER_LEN = 14;
export const RING_SIZE_MIN = 64;
export const RING_SIZE_MAX = 8192;
export const FRAME_COUNT_MAX = 65536;
export const PAIRS_MAX = 8;

const isPowerOfTwo = (n: number): boolean => Number.isInteger(n) && n > 0 && (n & (n - 1)) === 0;

/** Throws ARK_BAD_ARGUMENT unless rings and memory can be made like that. */
export function checkGeometry(geometry: AfXdpGeometry): void {
  const { frameSize, frameCount, ringSize, pairs = 1 } = geometry;
  const refuse = (text: string, hint: string): never => {
    throw new ArrakisError('ARK_BAD_ARGUMENT', text, { hint });
  };
  if (frameSize !== 2048 && frameSize !== 4096) {
    refuse(`frames of ${frameSize} bytes`, 'use 2048 or 4096');
  }
  if (!Number.isInteger(pairs) || pairs < 1 || pairs > PAIRS_MAX) {
    refuse(`${pairs} queue pairs`, `use 1 to ${PAIRS_MAX}`);
  }
  if (!isPowerOfTwo(ringSize) || ringSize < RING_SIZE_MIN || ringSize > RING_SIZE_MAX) {
    refuse(
      `rings of ${ringSize} entries`,
      `use a power of two from ${RING_SIZE_MIN} to ${RING_SIZE_MAX}`,
    );
  }
  if (!isPowerOfTwo(frameCount) || frameCount < ringSize || frameCount > FRAME_COUNT_MAX) {
    refuse(
      `${frameCount} frames for rings of ${ringSize}`,
      `use a power of two from the ring size to ${FRAME_COUNT_MAX}`,
    );
  }
}

/** Largest MTU of which every frame fits behind the headroom of one buffer. */
export const mtuOfFrameSize = (frameSize: number): number =>
  frameSize - XDP_PACKET_HEADROOM - ETHERNET_HEADER_LEN;
