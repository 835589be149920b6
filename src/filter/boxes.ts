/**
 * Filters as sets of packets: unions of boxes. A box is a conjunction of closed ranges, one for each dimension.
 *
 * - A packet is IPv4 and a point. `ports` is 1 for UDP and TCP packets that show their ports and 0 for everything else:
 *   other protocols, and fragments after the first. A point with `ports` 0 has no place in the two port dimensions,
 *   so a box that says anything of ports holds no such packet.
 * - The boxes of a `Filter` are disjoint and canonical: two filters are the same set when their boxes are the same.
 *   They are cut into slabs along the dimensions, in their order, and equal neighbours are merged:
 *
 *        ┌───────────┐                 ┌───┬───┬───┐
 *        │   ┌───────┼───┐      =>     │ 1 │ 2 │   │      three slabs of the first dimension, each with what
 *        └───┼───────┘   │             └───┤   │ 3 │      holds for the others
 *            └───────────┘                 └───┴───┘
 *
 * - Every operation is bounded (`limits.ts`) and throws ARK_LIMIT beyond.
 */
import { ArrakisError } from '../base/errors.ts';
import { FILTER_LIMITS } from './limits.ts';

/** Index of each dimension in the ranges of a box. */
export const DIM = {
  destination: 0,
  protocol: 1,
  ports: 2,
  destinationPort: 3,
  source: 4,
  sourcePort: 5,
} as const;
export type Dimension = keyof typeof DIM;

const DIMENSIONS = 6;
/** Last point of each dimension; the first is 0. */
export const SPACE_LAST: readonly number[] = [0xffffffff, 255, 1, 65535, 0xffffffff, 65535];
const ORIGIN: readonly number[] = [0, 0, 0, 0, 0, 0];

/** IP protocol numbers (IANA). */
export const PROTOCOL = { icmp: 1, tcp: 6, udp: 17 } as const;
export const hasPorts = (protocol: number): boolean =>
  protocol === PROTOCOL.tcp || protocol === PROTOCOL.udp;

/** Inclusive ranges, indexed by DIM. */
export interface Box {
  readonly first: readonly number[];
  readonly last: readonly number[];
}

/** A set of packets in canonical form. Made by the functions of this file only. */
export interface Filter {
  readonly boxes: readonly Box[];
}

export const EVERYTHING: Filter = { boxes: [{ first: ORIGIN, last: SPACE_LAST }] };
export const NOTHING: Filter = { boxes: [] };

/** Inclusive. */
export type Range = readonly [first: number, last: number];
export type Ranges = { readonly [D in Dimension]?: Range };

/**
 * The packets within all of `ranges`; what is not named is not constrained. A range of a port keeps what has no ports
 * out, and with it every protocol but UDP and TCP. Throws ARK_BAD_ARGUMENT for a range that is none.
 */
export function within(ranges: Ranges): Filter {
  const first = [...ORIGIN];
  const last = [...SPACE_LAST];
  for (const [dimension, range] of Object.entries(ranges)) {
    const d = DIM[dimension as Dimension];
    const [from, to] = range;
    const isPoint = (n: number): boolean => Number.isInteger(n) && n >= 0 && n <= SPACE_LAST[d]!;
    if (!isPoint(from) || !isPoint(to) || from > to) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `${dimension} from ${from} to ${to} is no range`, {
        hint: `it goes from 0 to ${SPACE_LAST[d]}, the first not above the last`,
      });
    }
    first[d] = from;
    last[d] = to;
  }
  if (ranges.destinationPort !== undefined || ranges.sourcePort !== undefined) {
    first[DIM.ports] = 1;
  }
  return union({ boxes: [{ first, last }] });
}

/** What operations may cost together. Each has one of its own unless it is given one to share. */
export class Budget {
  #left: number = FILTER_LIMITS.workMax;

  /** Throws ARK_LIMIT when nothing is left. */
  spend(work: number): void {
    this.#left -= work;
    if (this.#left < 0) throw tooComplex();
  }
}

export const union = (...filters: readonly Filter[]): Filter =>
  combine(
    filters.flatMap((filter) => filter.boxes),
    [],
    (inA) => inA,
  );
export const unite = (a: Filter, b: Filter, budget?: Budget): Filter =>
  combine([...a.boxes, ...b.boxes], [], (inA) => inA, budget);
export const intersect = (a: Filter, b: Filter, budget?: Budget): Filter =>
  combine(a.boxes, b.boxes, (inA, inB) => inA && inB, budget);
/** What is in `a` and not in `b`. */
export const subtract = (a: Filter, b: Filter, budget?: Budget): Filter =>
  combine(a.boxes, b.boxes, (inA, inB) => inA && !inB, budget);
export const complement = (a: Filter, budget?: Budget): Filter => subtract(EVERYTHING, a, budget);

/** The same with source and destination exchanged: what a receiver answers with. */
export const mirror = (a: Filter): Filter => union(mirrorBoxes(a));

/** The same set as `mirror`, box by box and so not canonical: enough to match by, and never larger than `a`. */
export function mirrorBoxes(a: Filter): Filter {
  const swap = (side: readonly number[]): number[] => {
    const [destination, protocol, ports, toPort, source, fromPort] = side;
    return [source!, protocol!, ports!, fromPort!, destination!, toPort!];
  };
  return { boxes: a.boxes.map(({ first, last }) => ({ first: swap(first), last: swap(last) })) };
}

export const isEmpty = (a: Filter): boolean => a.boxes.length === 0;

/** True when every packet of `narrow` is in one of `wide`. */
export const covers = (wide: readonly Filter[], narrow: Filter): boolean =>
  isEmpty(subtract(narrow, { boxes: wide.flatMap((filter) => filter.boxes) }));

export const equals = (a: Filter, b: Filter): boolean => sameBoxes(a.boxes, b.boxes, 0);

/** True when some packet is in both: two owners may not have such filters. */
export const overlaps = (a: Filter, b: Filter): boolean =>
  a.boxes.some((one) => b.boxes.some((other) => boxesMeet(one, other)));

function boxesMeet(a: Box, b: Box): boolean {
  for (let d = 0; d < DIMENSIONS; d++) {
    if (a.first[d]! > b.last[d]! || b.first[d]! > a.last[d]!) return false;
  }
  return true;
}

/** True when the ranges of `box` for dimension `d` are the whole of it. */
export const isWhole = (box: Box, d: number): boolean =>
  box.first[d] === 0 && box.last[d] === SPACE_LAST[d];

/** Ranges of destination addresses of which `filters` together take every packet: who has them answers ARP. */
export function wholeDestinations(filters: readonly Filter[]): Range[] {
  const boxes = filters.flatMap((filter) => filter.boxes);
  const budget = new Budget();
  const whole: Range[] = [];
  for (const [first, last] of slabs(DIM.destination, boxes)) {
    const here = boxes.filter((box) => isAcross(box, DIM.destination, first, last));
    if (!isFull(DIM.destination + 1, here, false, budget)) continue;
    const before = whole.at(-1);
    if (before === undefined || before[1] + 1 !== first) whole.push([first, last]);
    else whole[whole.length - 1] = [before[0], last];
  }
  return whole;
}

/** Ranges of dimension `d` that `filters` touch at all, ascending and apart. */
export function projection(filters: readonly Filter[], d: number): Range[] {
  const all = filters
    .flatMap(({ boxes }) => boxes.map((box): Range => [box.first[d]!, box.last[d]!]))
    .sort(([a], [b]) => a - b);
  const apart: Range[] = [];
  for (const [first, last] of all) {
    const before = apart.at(-1);
    if (before === undefined || first > before[1] + 1) apart.push([first, last]);
    else apart[apart.length - 1] = [before[0], Math.max(before[1], last)];
  }
  return apart;
}

/** True when every value of dimension `d` occurs in `filter`: it does not say which it wants. */
export const admitsEvery = (filter: Filter, d: number): boolean => {
  const [first] = projection([filter], d);
  return first !== undefined && first[0] === 0 && first[1] === SPACE_LAST[d];
};

// The algebra.

/** Whether a point is wanted that is, or is not, in each of two sets. Never when it is not in the first. */
type Keep = (inA: boolean, inB: boolean) => boolean;

/** Canonical boxes of the points that are wanted. */
function combine(a: readonly Box[], b: readonly Box[], keep: Keep, budget = new Budget()): Filter {
  return { boxes: new Combination(keep, budget).slabsFrom(DIM.destination, a, b, false) };
}

/** True when nothing is left out of `boxes` in the dimensions from `d` on. `ported` as for `slabsFrom`. */
function isFull(d: number, boxes: readonly Box[], ported: boolean, budget: Budget): boolean {
  if (boxes.length === 0) return false;
  if (d === DIMENSIONS) return true;
  if (!ported && d === DIM.ports)
    return isFull(DIM.source, boxes.filter(hasPortless), false, budget);
  if (!ported && d === DIM.sourcePort) return true;
  return slabs(d, boxes).every(([first, last]) => {
    budget.spend(1 + boxes.length);
    const here = boxes.filter((box) => isAcross(box, d, first, last));
    if (d === DIM.protocol) return isFull(d + 1, here, hasPorts(first), budget);
    if (d === DIM.ports && first === 0) return isFull(DIM.source, here, false, budget);
    return isFull(d + 1, here, ported, budget);
  });
}

class Combination {
  readonly #keep: Keep;
  readonly #budget: Budget;

  constructor(keep: Keep, budget: Budget) {
    this.#keep = keep;
    this.#budget = budget;
  }

  /** Canonical for dimensions from `d` on; those before it are whole. `ported`: there are ports to look at. */
  slabsFrom(d: number, a: readonly Box[], b: readonly Box[], ported: boolean): Box[] {
    if (a.length === 0) return [];
    if (d === DIMENSIONS) return this.#keep(true, b.length > 0) ? [REST] : [];
    if (!ported) {
      // The two dimensions of ports are whole then, and a protocol that has none has one point in the third.
      if (d === DIM.ports) {
        return this.slabsFrom(DIM.source, a.filter(hasPortless), b.filter(hasPortless), false);
      }
      if (d === DIM.sourcePort) return this.slabsFrom(DIMENSIONS, a, b, false);
    }
    const result: Box[] = [];
    /** Where the boxes of the slab before begin in `result`. */
    let before = 0;
    for (const [first, last] of slabs(d, a, b)) {
      this.#budget.spend(1 + a.length + b.length + result.length - before);
      const isIn = (box: Box): boolean => isAcross(box, d, first, last);
      const rest = this.#rest(d, first, a.filter(isIn), b.filter(isIn), ported);
      if (rest.length === 0) continue;
      if (continues(result, before, rest, d, first)) {
        for (let i = before; i < result.length; i++) result[i] = at(result[i]!, d, null, last);
        continue;
      }
      before = result.length;
      for (const box of rest) result.push(at(box, d, first, last));
      if (result.length > FILTER_LIMITS.partialBoxesMax) throw tooComplex();
    }
    return result;
  }

  /** What holds for the other dimensions in the slab of `d` that begins at `first`. */
  #rest(d: number, first: number, a: Box[], b: Box[], ported: boolean): Box[] {
    if (d === DIM.protocol) return this.slabsFrom(d + 1, a, b, hasPorts(first));
    if (d === DIM.ports && first === 0) return this.slabsFrom(DIM.source, a, b, false);
    return this.slabsFrom(d + 1, a, b, ported);
  }
}

/** True when `box` has all of first..last in dimension `d`. */
const isAcross = (box: Box, d: number, first: number, last: number): boolean =>
  box.first[d]! <= first && box.last[d]! >= last;

const hasPortless = (box: Box): boolean => box.first[DIM.ports] === 0;

/** Whole in every dimension: what is left when all of them were looked at. */
const REST: Box = { first: ORIGIN, last: SPACE_LAST };

/** `box` with another range in dimension `d`. */
function at(box: Box, d: number, first: number | null, last: number): Box {
  return {
    first: first === null ? box.first : box.first.with(d, first),
    last: box.last.with(d, last),
  };
}

/** True when the slab whose boxes begin at `from` ends where this one begins, and has the same `rest`. */
function continues(
  boxes: readonly Box[],
  from: number,
  rest: readonly Box[],
  d: number,
  first: number,
): boolean {
  if (boxes.length === 0 || boxes[from]!.last[d]! + 1 !== first) return false;
  return sameBoxes(boxes.slice(from), rest, d + 1);
}

function sameBoxes(a: readonly Box[], b: readonly Box[], from: number): boolean {
  if (a.length !== b.length) return false;
  return a.every((box, i) => {
    for (let d = from; d < DIMENSIONS; d++) {
      if (box.first[d] !== b[i]!.first[d] || box.last[d] !== b[i]!.last[d]) return false;
    }
    return true;
  });
}

/** Points of a dimension at which the rules change, whatever the boxes say. */
const CUTS: readonly (readonly number[])[] = [
  [0],
  [0, PROTOCOL.tcp, PROTOCOL.tcp + 1, PROTOCOL.udp, PROTOCOL.udp + 1],
  [0, 1],
  [0],
  [0],
  [0],
];

/** The ranges into which the boxes cut dimension `d`, ascending; each is in or out of each box. */
function slabs(d: number, ...lists: (readonly Box[])[]): Range[] {
  const cuts = new Set<number>(CUTS[d]);
  for (const list of lists) {
    for (const box of list) {
      cuts.add(box.first[d]!);
      cuts.add(box.last[d]! + 1);
    }
  }
  const firsts = [...cuts].filter((cut) => cut <= SPACE_LAST[d]!).sort((x, y) => x - y);
  return firsts.map((first, i) => [first, (firsts[i + 1] ?? SPACE_LAST[d]! + 1) - 1]);
}

function tooComplex(): ArrakisError {
  return new ArrakisError('ARK_LIMIT', 'the filter falls into too many pieces', {
    hint: 'name fewer ranges, or make several filters of it',
  });
}
