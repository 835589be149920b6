/**
 * Filters compiled for JavaScript: one typed array, compared in place. Immutable: other filters are another matcher.
 * The caller has parsed the packet; see ebpf.ts for the same in the kernel.
 */
import { type Box, DIM, type Filter, isWhole } from './boxes.ts';

/**
 * Words for one box: first and last destination, first and last source, whether that is all, and first and last of the
 * other dimensions. Addresses are biased by 2^31: so they compare as 32-bit integers, which half of them are not.
 */
const STRIDE = 13;
const OTHERS = [DIM.protocol, DIM.ports, DIM.destinationPort, DIM.sourcePort] as const;
const BIAS = 0x80000000;

function words({ first, last }: Box): number[] {
  const addresses = [DIM.destination, DIM.source].flatMap((d) => [first[d]!, last[d]!]);
  const isAll = OTHERS.every((d) => isWhole({ first, last }, d));
  return [
    ...addresses.map((address) => address ^ BIAS),
    isAll ? 1 : 0,
    ...OTHERS.flatMap((d) => [first[d]!, last[d]!]),
  ];
}

export class Matcher {
  readonly #words: Int32Array;

  constructor(filters: readonly Filter[]) {
    this.#words = Int32Array.from(filters.flatMap(({ boxes }) => boxes.flatMap(words)));
  }

  /** Whether a filter takes the packet. Ports of one that shows none are -1, both. Addresses are uint32. */
  match(
    destination: number,
    protocol: number,
    source: number,
    destinationPort: number,
    sourcePort: number,
  ): boolean {
    const w = this.#words;
    const to = destination ^ BIAS;
    const from = source ^ BIAS;
    for (let i = 0; i < w.length; i += STRIDE) {
      if (to < w[i]! || to > w[i + 1]! || from < w[i + 2]! || from > w[i + 3]!) continue;
      if (w[i + 4] === 1) return true;
      if (protocol < w[i + 5]! || protocol > w[i + 6]!) continue;
      if (destinationPort < 0) {
        if (w[i + 7] === 0) return true;
        continue;
      }
      if (w[i + 8] === 0) continue;
      if (destinationPort < w[i + 9]! || destinationPort > w[i + 10]!) continue;
      if (sourcePort >= w[i + 11]! && sourcePort <= w[i + 12]!) return true;
    }
    return false;
  }

  /** Whether some packet from `source` is taken. */
  hasSource(source: number): boolean {
    const w = this.#words;
    const from = source ^ BIAS;
    for (let i = 0; i < w.length; i += STRIDE) {
      if (from >= w[i + 2]! && from <= w[i + 3]!) return true;
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
