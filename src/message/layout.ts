/**
 * Where the parts of a message ring stand in shared memory. Two rings and nothing else make a link.
 *
 *   0     tail    u32  by the producer: bytes published, free-running        + 4  the producer has closed
 *   128   head    u32  by the consumer: bytes given back, free-running       + 4  the consumer has closed
 *   256   armed   u32  1: the consumer sleeps, ring its bell after a publish (the producer sets it back to 0)
 *   384   armed   u32  1: the producer waits for room, ring its bell after a release
 *   512   data    `capacity` bytes, a power of two
 *
 * A record is `length u32, tag u32, payload`, padded to 8 bytes, and never wraps: where it does not fit before the end
 * stands a record with the length SKIP instead. The parts are two cache lines apart, because processors fetch pairs.
 */
import { ArrakisError } from '../base/errors.ts';

export const TAIL = 0;
export const HEAD = 128;
export const CONSUMER_ARMED = 256;
export const PRODUCER_ARMED = 384;
export const DATA = 512;
/** From `TAIL` and `HEAD`: that side has closed. */
export const CLOSED = 4;

export const RECORD_HEADER = 8;
export const RECORD_ALIGN = 8;
/** Length of the record that fills the rest before the end. */
export const SKIP = -1;

export const RING_BYTES_MIN = 4096;
export const RING_BYTES_MAX = 64 * 1024 * 1024;
export const RING_BYTES_DEFAULT = 64 * 1024;

/** Bytes of memory that a ring of `capacity` takes. */
export const ringBytes = (capacity: number): number => DATA + capacity;

/** Bytes of memory that a link takes: one ring each way. */
export const linkBytes = (capacity: number): number => 2 * ringBytes(capacity);

/** The longest message: a record of half the ring fits wherever the ring has been emptied, also beside a skip. */
export const messageBytesMax = (capacity: number): number => capacity / 2 - RECORD_HEADER;

export const isRingCapacity = (capacity: number): boolean =>
  Number.isInteger(capacity) &&
  capacity >= RING_BYTES_MIN &&
  capacity <= RING_BYTES_MAX &&
  (capacity & (capacity - 1)) === 0;

/** The memory of a link with the views that both of its rings use. */
export interface LinkMemory {
  readonly words: Int32Array;
  readonly view: DataView;
  readonly bytes: Buffer;
}

/** Views of `memory`: of a mapping, or a SharedArrayBuffer between threads. It starts zeroed. ARK_BAD_ARGUMENT. */
export function linkMemory(memory: ArrayBuffer | SharedArrayBuffer): LinkMemory {
  if (memory.byteLength % 4 !== 0 || memory.byteLength < linkBytes(RING_BYTES_MIN)) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${memory.byteLength} bytes hold no link`, {
      hint: `take linkBytes(capacity), at least ${linkBytes(RING_BYTES_MIN)}`,
    });
  }
  return {
    words: new Int32Array(memory),
    view: new DataView(memory),
    bytes: Buffer.from(memory as ArrayBuffer),
  };
}
