/**
 * Rings of segment records for the send queues of one stack: typed arrays by size, handed from connection to connection,
 * so that an idle connection has none and a busy one allocates none after the first.
 */

/** Words of one record. The names are offsets; who reads a record multiplies the position by this. */
export const SEGMENT_WORDS = 8;
export const SEGMENT = {
  /** Handle of the frame, or -1 when the segment carries no bytes (SYN, FIN). */
  frame: 0,
  /** Byte of the region where its payload starts. */
  at: 1,
  /** Payload bytes. */
  length: 2,
  /** Sequence number of its first byte (or of SYN or FIN). */
  seq: 3,
  flags: 4,
  /** When it was sent last, and first: wrapping microseconds. */
  sentUs: 5,
  firstSentUs: 6,
  /** Times it was sent. */
  sends: 7,
} as const satisfies Record<string, number>;

/** Smallest ring, in segments, and how many rings of a size are kept for the next connection. */
const CAPACITY_MIN_LOG2 = 3;
const CAPACITY_MAX_LOG2 = 20;
const KEPT_WORDS_MAX = 1 << 18;

export class SegmentStore {
  /** Free rings by the logarithm of their capacity. */
  readonly #free: Int32Array[][] = [];
  readonly #empty = new Int32Array(0);

  constructor() {
    for (let i = 0; i <= CAPACITY_MAX_LOG2; i++) this.#free.push([]);
  }

  /** The ring of a queue without segments. */
  get none(): Int32Array {
    return this.#empty;
  }

  /** A ring of at least `segments` records, a power of two, with whatever stood in it. */
  take(segments: number): Int32Array {
    let log2 = CAPACITY_MIN_LOG2;
    while (1 << log2 < segments) log2++;
    return this.#free[log2]!.pop() ?? new Int32Array(SEGMENT_WORDS << log2);
  }

  /** Take a ring back. */
  give(ring: Int32Array): void {
    if (ring.length === 0) return;
    const free = this.#free[31 - Math.clz32(ring.length / SEGMENT_WORDS)]!;
    if ((free.length + 1) * ring.length <= KEPT_WORDS_MAX) free.push(ring);
  }
}
