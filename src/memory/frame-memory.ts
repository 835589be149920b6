/** Packet memory: one region of equal buffers, with the views that drivers, stack and application share. */
import { assert } from '../base/assert.ts';

/** No frame was free: a handle that no buffer has. */
export const NO_FRAME = 0xffffffff;

/** Region with its shared views. All of them cover the whole region from offset 0. */
export interface FrameMemory {
  readonly view: DataView;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  /** Bytes of one buffer, a power of two. */
  readonly frameSize: number;
  /** Bytes kept free before a frame in its buffer. */
  readonly headroom: number;
  /** Buffers that a pool manages. */
  readonly frameCount: number;
}

/** The views over `buffer`. Made once per region and shared: never per packet. */
export function frameMemory(
  buffer: ArrayBuffer,
  layout: { frameSize: number; headroom: number; frameCount: number },
): FrameMemory {
  assert(buffer.byteLength % 4 === 0, 'a region is a whole number of words');
  assert(layout.headroom < layout.frameSize, 'headroom fits in a frame');
  return {
    view: new DataView(buffer),
    u8: new Uint8Array(buffer),
    u16: new Uint16Array(buffer),
    u32: new Uint32Array(buffer),
    ...layout,
  };
}
