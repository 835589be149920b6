import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Random } from '../../test/support/random.ts';
import {
  type Box,
  complement,
  covers,
  DIM,
  EVERYTHING,
  equals,
  type Filter,
  hasPorts,
  intersect,
  isEmpty,
  mirror,
  NOTHING,
  overlaps,
  projection,
  type Ranges,
  SPACE_LAST,
  subtract,
  union,
  wholeDestinations,
  within,
} from './boxes.ts';

/** Coordinates of a small world: all that lies above them behaves alike. */
const SMALL = 3;
const PROTOCOLS = [0, 1, 5, 6, 7, 16, 17, 18, 255];

interface Point {
  destination: number;
  protocol: number;
  source: number;
  /** -1: shows none. */
  destinationPort: number;
  sourcePort: number;
}

/** Every packet of the small world. */
const POINTS: Point[] = [];
for (let destination = 0; destination <= SMALL + 1; destination++) {
  for (let source = 0; source <= SMALL + 1; source++) {
    for (const protocol of PROTOCOLS) {
      POINTS.push({ destination, protocol, source, destinationPort: -1, sourcePort: -1 });
      if (!hasPorts(protocol)) continue;
      for (let destinationPort = 0; destinationPort <= SMALL + 1; destinationPort++) {
        for (let sourcePort = 0; sourcePort <= SMALL + 1; sourcePort++) {
          POINTS.push({ destination, protocol, source, destinationPort, sourcePort });
        }
      }
    }
  }
}

/** Read off the definition. */
function holds(boxes: readonly Box[], p: Point): boolean {
  return boxes.some(({ first, last }) => {
    const isIn = (d: number, value: number): boolean => first[d]! <= value && value <= last[d]!;
    if (!isIn(DIM.destination, p.destination) || !isIn(DIM.source, p.source)) return false;
    if (!isIn(DIM.protocol, p.protocol)) return false;
    if (p.destinationPort < 0) return isIn(DIM.ports, 0);
    return (
      isIn(DIM.ports, 1) &&
      isIn(DIM.destinationPort, p.destinationPort) &&
      isIn(DIM.sourcePort, p.sourcePort)
    );
  });
}

function randomRange(random: Random, last: number): [number, number] {
  const a = random.below(SMALL + 1);
  const b = random.below(SMALL + 1);
  return random.oneIn(4) ? [a, last] : [Math.min(a, b), Math.max(a, b)];
}

function randomBox(random: Random): Ranges {
  const ranges: { -readonly [D in keyof Ranges]: Ranges[D] } = {};
  if (!random.oneIn(3)) ranges.destination = randomRange(random, SPACE_LAST[DIM.destination]!);
  if (!random.oneIn(3)) ranges.source = randomRange(random, SPACE_LAST[DIM.source]!);
  if (!random.oneIn(2)) {
    const [a, b] = [random.pick(PROTOCOLS), random.pick(PROTOCOLS)];
    ranges.protocol = random.oneIn(2) ? [a, a] : [Math.min(a, b), Math.max(a, b)];
  }
  if (random.oneIn(2)) ranges.destinationPort = randomRange(random, 65535);
  if (random.oneIn(3)) ranges.sourcePort = randomRange(random, 65535);
  return ranges;
}

function randomFilter(random: Random): Filter {
  const boxes = Array.from({ length: 1 + random.below(3) }, () => within(randomBox(random)));
  const filter = union(...boxes);
  return random.oneIn(3) ? complement(filter) : filter;
}

describe('the algebra, by brute force on a small world', () => {
  const ROUNDS = 150;
  /** Run `check` on random filters. */
  function rounds(what: string, check: (a: Filter, b: Filter, c: Filter) => void): void {
    test(what, () => {
      const random = new Random(0xb0c5);
      for (let i = 0; i < ROUNDS; i++) {
        check(randomFilter(random), randomFilter(random), randomFilter(random));
      }
    });
  }

  rounds('operations do to sets what they say', (a, b) => {
    const results = {
      union: union(a, b),
      intersection: intersect(a, b),
      difference: subtract(a, b),
      complement: complement(a),
      mirror: mirror(a),
    };
    let meet = false;
    let isWithin = true;
    for (const p of POINTS) {
      const [inA, inB] = [holds(a.boxes, p), holds(b.boxes, p)];
      const mirrored = {
        ...p,
        source: p.destination,
        destination: p.source,
        sourcePort: p.destinationPort,
        destinationPort: p.sourcePort,
      };
      const where = JSON.stringify(p);
      assert.equal(holds(results.union.boxes, p), inA || inB, where);
      assert.equal(holds(results.intersection.boxes, p), inA && inB, where);
      assert.equal(holds(results.difference.boxes, p), inA && !inB, where);
      assert.equal(holds(results.complement.boxes, p), !inA, where);
      assert.equal(holds(results.mirror.boxes, p), holds(a.boxes, mirrored), where);
      meet ||= inA && inB;
      isWithin &&= !inA || inB;
    }
    assert.equal(overlaps(a, b), meet);
    assert.equal(covers([b], a), isWithin);
  });

  rounds('one set, one form', (a, b, c) => {
    const same = (x: Filter, y: Filter): void => assert.deepEqual(x.boxes, y.boxes);
    same(union(a, b), union(b, a));
    same(complement(complement(a)), a);
    same(complement(union(a, b)), intersect(complement(a), complement(b)));
    same(intersect(a, union(b, c)), union(intersect(a, b), intersect(a, c)));
    same(union(subtract(a, b), intersect(a, b)), a);
    same(mirror(mirror(a)), a);
    assert.equal(equals(a, b), isEmpty(subtract(a, b)) && isEmpty(subtract(b, a)));
    assert.ok(covers([a, b], union(a, b)));
    for (const one of a.boxes) {
      for (const two of a.boxes) {
        if (one !== two) assert.equal(overlaps({ boxes: [one] }, { boxes: [two] }), false);
      }
    }
  });

  rounds('whole destinations and projections', (a, b) => {
    const whole = wholeDestinations([a, b]);
    const destinations = projection([a, b], DIM.destination);
    const inRanges = (ranges: readonly (readonly [number, number])[], n: number): boolean =>
      ranges.some(([first, last]) => first <= n && n <= last);
    for (let destination = 0; destination <= SMALL + 1; destination++) {
      const here = POINTS.filter((p) => p.destination === destination);
      const taken = here.filter((p) => holds(a.boxes, p) || holds(b.boxes, p));
      assert.equal(inRanges(whole, destination), taken.length === here.length);
      assert.equal(inRanges(destinations, destination), taken.length > 0);
    }
  });
});

test('everything and nothing', () => {
  assert.deepEqual(within({}), EVERYTHING);
  assert.deepEqual(complement(EVERYTHING), NOTHING);
  assert.deepEqual(union(), NOTHING);
  assert.deepEqual(complement(NOTHING), EVERYTHING);
});

test('a port keeps out what has none: fragments, and other protocols', () => {
  const port = within({ destinationPort: [0, 65535] });
  assert.deepEqual(
    port.boxes.map(({ first, last }) => [
      first[DIM.protocol],
      last[DIM.protocol],
      first[DIM.ports],
    ]),
    [
      [6, 6, 1],
      [17, 17, 1],
    ],
  );
  assert.equal(isEmpty(intersect(port, within({ protocol: [1, 1] }))), true);
});

test('ranges that are none are refused', () => {
  for (const range of [
    [2, 1],
    [-1, 5],
    [0, 65536],
    [0.5, 1],
    [Number.NaN, 1],
  ] as [number, number][]) {
    assert.throws(() => within({ sourcePort: range }), { code: 'ARK_BAD_ARGUMENT' });
  }
});

test('an expression that falls into too many pieces ends in time', () => {
  // Nested in every dimension at once: the worst that boxes can do to slabs.
  const nested = Array.from({ length: 60 }, (_, i) =>
    within({
      destination: [i, 1000 - i],
      source: [i * 2, 2000 - i],
      protocol: [17, 17],
      destinationPort: [i, 500 - i * 3],
      sourcePort: [i * 4, 900 - i],
    }),
  );
  const started = performance.now();
  assert.throws(
    () => {
      let all = NOTHING;
      for (const [i, filter] of nested.entries()) {
        all = i % 2 === 0 ? union(all, filter) : subtract(all, filter);
      }
    },
    { code: 'ARK_LIMIT' },
  );
  assert.ok(performance.now() - started < 20_000);
});
