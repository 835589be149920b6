/**
 * The split virtqueue in memory (virtio 1.2, section 2.7). Byte offsets, little-endian.
 *
 *   descriptor table   16 x size   { addr u64, len u32, flags u16, next u16 }       written by the driver
 *   available ring     6 + 2 x size { flags u16, idx u16, ring[size] u16, used_event u16 }   by the driver
 *   used ring          6 + 8 x size { flags u16, idx u16, ring[size] { id u32, len u32 }, avail_event u16 }  by the device
 *
 * `idx` counts up without end (mod 2^16); entry `i` stands at ring[i % size]. `used_event` is where the driver says
 * after which used entry it wants to be called; `avail_event` is the same for the device (VIRTIO_F_EVENT_IDX).
 */
export const DESC_SIZE = 16;
export const DESC_F_NEXT = 1;
export const DESC_F_WRITE = 2;
export const DESC_F_INDIRECT = 4;

export const RING_FLAGS = 0;
export const RING_IDX = 2;
export const RING_ENTRIES = 4;
export const USED_ENTRY_SIZE = 8;

/** Alignment that section 2.7 asks of each part. */
export const DESC_ALIGN = 16;
export const AVAIL_ALIGN = 2;
export const USED_ALIGN = 4;

export const RING_SIZE_MAX = 32768;

export const descBytes = (size: number): number => DESC_SIZE * size;
export const availBytes = (size: number): number => 6 + 2 * size;
export const usedBytes = (size: number): number => 6 + USED_ENTRY_SIZE * size;

export const isRingSize = (size: number): boolean =>
  Number.isInteger(size) && size > 0 && size <= RING_SIZE_MAX && (size & (size - 1)) === 0;

/** Where the parts of a queue of `size` entries lie when it is laid out from `at`, and where the next thing may. */
export function splitLayout(
  at: number,
  size: number,
): { desc: number; avail: number; used: number; end: number } {
  const desc = align(at, 64);
  const avail = align(desc + descBytes(size), 64);
  const used = align(avail + availBytes(size), 64);
  return { desc, avail, used, end: align(used + usedBytes(size), 64) };
}

function align(value: number, to: number): number {
  return (value + to - 1) & ~(to - 1);
}

/** virtio_net_hdr of virtio 1.x without mergeable buffers still has `num_buffers`: 12 bytes (section 5.1.6). */
export const NET_HEADER_LEN = 12;

/** The event-index test of section 2.7.7.2: has `event` been passed by moving from `before` to `now`? */
export const needsEvent = (event: number, now: number, before: number): boolean =>
  ((now - event - 1) & 0xffff) < ((now - before) & 0xffff);
