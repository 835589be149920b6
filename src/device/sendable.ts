/** What every driver checks on a frame before it goes out, so that all of them refuse the same. */
import type { FrameMemory } from '../memory/frame-memory.ts';

/** Bytes of an Ethernet header: the shortest frame that a queue takes. */
export const FRAME_LENGTH_MIN = 14;

/** True when `length` bytes at `frame` lie within one buffer of the region, behind its headroom, and are a frame's length. */
export function isSendable(
  memory: FrameMemory,
  frame: number,
  length: number,
  lengthMax: number,
): boolean {
  const offset = frame & (memory.frameSize - 1);
  return (
    length >= FRAME_LENGTH_MIN &&
    length <= lengthMax &&
    offset >= memory.headroom &&
    offset + length <= memory.frameSize &&
    frame + length <= memory.u8.length
  );
}
