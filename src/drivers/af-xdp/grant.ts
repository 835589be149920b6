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
  readonly frameCount: number;
  /** Entries of each of the four rings. */
  readonly ringSize: number;
  readonly regionBytes: number;
  readonly mode: XdpMode;
  readonly zeroCopy: boolean;
}

export type AfXdpGeometry = Pick<AfXdpGrant, 'frameSize' | 'frameCount' | 'ringSize'>;

export const ETHERNET_HEADER_LEN = 14;
export const RING_SIZE_MIN = 64;
export const RING_SIZE_MAX = 8192;
export const FRAME_COUNT_MAX = 65536;

const isPowerOfTwo = (n: number): boolean => Number.isInteger(n) && n > 0 && (n & (n - 1)) === 0;

/** Throws ARK_BAD_ARGUMENT unless rings and memory can be made like that. */
export function checkGeometry({ frameSize, frameCount, ringSize }: AfXdpGeometry): void {
  const refuse = (text: string, hint: string): never => {
    throw new ArrakisError('ARK_BAD_ARGUMENT', text, { hint });
  };
  if (frameSize !== 2048 && frameSize !== 4096) {
    refuse(`frames of ${frameSize} bytes`, 'use 2048 or 4096');
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
