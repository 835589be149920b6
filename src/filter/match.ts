/**
 * Filters compiled for JavaScript: one typed array, compared in place. Immutable: other filters are another matcher.
 * The caller has parsed the packet; see ebpf.ts for the same in the kernel.
 */
import { DIM, type Filter } from './boxes.ts';

/** Words for one box: first and last of each dimension, in this order. */
const STRIDE = 12;
const ORDER = [
  DIM.destination,
  DIM.protocol,
  DIM.source,
  DIM.ports,
  DIM.destinationPort,
  DIM.sourcePort,
] as const;

export class Matcher {
  readonly #ranges: Uint32Array;

  constructor(filters: readonly Filter[]) {
    const boxes = filters.flatMap((filter) => filter.boxes);
    this.#ranges = Uint32Array.from(
      boxes.flatMap(({ first, last }) => ORDER.flatMap((d) => [first[d]!, last[d]!])),
    );
  }

  /** Whether a filter takes the packet. Ports of one that shows none are -1, both. Addresses are uint32. */
  match(
    destination: number,
    protocol: number,
    source: number,
    destinationPort: number,
    sourcePort: number,
  ): boolean {
    const r = this.#ranges;
    for (let i = 0; i < r.length; i += STRIDE) {
      if (destination < r[i]! || destination > r[i + 1]!) continue;
      if (protocol < r[i + 2]! || protocol > r[i + 3]!) continue;
      if (source < r[i + 4]! || source > r[i + 5]!) continue;
      if (destinationPort < 0) {
        if (r[i + 6] === 0) return true;
        continue;
      }
      if (r[i + 7] === 0) continue;
      if (destinationPort < r[i + 8]! || destinationPort > r[i + 9]!) continue;
      if (sourcePort >= r[i + 10]! && sourcePort <= r[i + 11]!) return true;
    }
    return false;
  }

  /** Whether some packet from `source` is taken. */
  hasSource(source: number): boolean {
    const r = this.#ranges;
    for (let i = 0; i < r.length; i += STRIDE) {
      if (source >= r[i + 4]! && source <= r[i + 5]!) return true;
    }
    return false;
  }
}

/** Ranges of numbers, compared in place. */
export class RangeSet {
  readonly #ranges: Uint32Array;

  constructor(ranges: readonly (readonly [number, number])[]) {
    this.#ranges = Uint32Array.from(ranges.flat());
  }

  has(value: number): boolean {
    const r = this.#ranges;
    for (let i = 0; i < r.length; i += 2) if (value >= r[i]! && value <= r[i + 1]!) return true;
    return false;
  }
}
