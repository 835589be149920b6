/**
 * The two forms of a filter, JavaScript and eBPF in the kernel, against each other: random filters, and packets near the
 * edges of their boxes, whole and damaged. A pair is one packet and one filter.
 *
 * ARRAKIS_FUZZ_PAIRS says how many (default 240,000, a few seconds): ARRAKIS_FUZZ_PAIRS=5e6 npm test -- fuzz/filter
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  DATA,
  ETH_TYPE,
  ETHERTYPE_IPV4,
  entry,
  IP_MIN_END,
  need,
} from '../../src/drivers/af-xdp/programs/common.ts';
import { checkIpv4, storeFields } from '../../src/drivers/af-xdp/programs/fields.ts';
import { Assembler, R0, R1, R2, R9, R10 } from '../../src/ebpf/assembler.ts';
import {
  createMap,
  loadXdpProgram,
  mapLookup,
  mapUpdate,
  runXdpProgram,
  u32,
} from '../../src/ffi/bpf.ts';
import { closeFd } from '../../src/ffi/fd.ts';
import { type Box, DIM, type Filter, union, within } from '../../src/filter/boxes.ts';
import { FilterBuilder, filter } from '../../src/filter/build.ts';
import { emitFilters } from '../../src/filter/ebpf.ts';
import { formatFilter } from '../../src/filter/format.ts';
import { FILTER_LIMITS } from '../../src/filter/limits.ts';
import { FilterSet, FrameFields, KIND } from '../../src/softnic/match.ts';
import { withOptions } from '../support/frames.ts';
import { rootMissing } from '../support/privilege.ts';
import { Random } from '../support/random.ts';

const SEED = 0xf117e4;
const PAIRS = Number(process.env.ARRAKIS_FUZZ_PAIRS ?? 240_000);
/** A run of a program costs up to a millisecond, whatever the program does: so it tries many filters. */
const FILTERS_PER_PROGRAM = 120;
const PACKETS_PER_PROGRAM = 200;
/** Verdicts in one word of the result. */
const WORD_BITS = 30;
const WORDS = FILTERS_PER_PROGRAM / WORD_BITS;
/** What a program returns. */
const GOOD = 1;
const REFUSED = 2;

/** Writes the bit of each filter that takes the packet into `results`; REFUSED for what is no good IPv4 packet. */
function verdictProgram(filters: readonly Filter[], results: number): Assembler {
  const asm = new Assembler();
  entry(asm);
  need(asm, IP_MIN_END, 'refused');
  asm.ldx(2, R1, DATA, ETH_TYPE).jneImm(R1, ETHERTYPE_IPV4, 'refused');
  checkIpv4(asm, 'refused');
  asm.stImm(4, R10, -4, 0).ldMapFd(R1, results, 'results').mov(R2, R10).addImm(R2, -4);
  asm.call('map_lookup_elem').jeqImm(R0, 0, 'refused').mov(R9, R0);
  storeFields(asm);
  filters.forEach((one, i) => {
    if (i % WORD_BITS === 0) asm.movImm(R0, 0);
    emitFilters(asm, [one], `match${i}`);
    asm
      .ja(`next${i}`)
      .label(`match${i}`)
      .addImm(R0, 2 ** (i % WORD_BITS))
      .label(`next${i}`);
    if (i % WORD_BITS === WORD_BITS - 1) asm.stx(4, R9, 4 * Math.floor(i / WORD_BITS), R0);
  });
  asm.movImm(R0, GOOD).exit();
  asm.label('refused').movImm(R0, REFUSED).exit();
  return asm;
}

function randomFilter(random: Random): Filter {
  let all: FilterBuilder = new FilterBuilder(randomPart(random));
  for (let n = random.below(4); n > 0; n--) {
    const part = randomPart(random);
    all = random.oneIn(3) ? all.and(new FilterBuilder(part).not()) : all.or(part);
  }
  const { length } = all.boxes;
  return length === 0 || length > FILTER_LIMITS.boxesMax ? filter : all;
}

function randomPart(random: Random): Filter {
  const range = (max: number): [number, number] => {
    const base = random.pick([0, 7, max - 3, 0x7fffffff, 0x80000000, 0x0a090002, 80, 65535]);
    const first = Math.min(max, base + random.below(3));
    const last = random.oneIn(3)
      ? first
      : Math.min(max, first + random.below(1 + random.pick([2, 300, 0x1000000])));
    return [first, last];
  };
  let part: Filter = filter;
  if (random.oneIn(2))
    part = new FilterBuilder(part).and(within({ destination: range(0xffffffff) }));
  if (random.oneIn(2)) part = new FilterBuilder(part).and(within({ source: range(0xffffffff) }));
  if (random.oneIn(2))
    part = new FilterBuilder(part).protocol(random.pick([1, 6, 17, 17, 0, 255, 132]));
  if (random.oneIn(3))
    part = new FilterBuilder(part).and(within({ destinationPort: range(65535) }));
  if (random.oneIn(3)) part = new FilterBuilder(part).and(within({ sourcePort: range(65535) }));
  return part;
}

/** A value at, beside or far from an edge of a box that some filter has. */
function nearEdge(random: Random, boxes: readonly Box[], d: number, max: number): number {
  if (boxes.length === 0 || random.oneIn(8)) return random.uint32() % (max + 1);
  const box = random.pick(boxes);
  const edge = random.oneIn(2) ? box.first[d]! : box.last[d]!;
  return Math.max(0, Math.min(max, edge + random.below(3) - 1));
}

/** A frame near the edges of `boxes`, perhaps a fragment, with options, damaged or cut. */
function randomFrame(random: Random, boxes: readonly Box[]): Uint8Array {
  const protocol = random.oneIn(3)
    ? nearEdge(random, boxes, DIM.protocol, 255)
    : random.pick([1, 6, 17, 17]);
  let bytes: Uint8Array = new Uint8Array(14 + 20 + random.pick([0, 2, 3, 4, 5, 8, 20]));
  const view = new DataView(bytes.buffer);
  view.setUint16(12, 0x0800);
  view.setUint8(14, 0x45);
  view.setUint16(16, bytes.length - 14);
  if (random.oneIn(5)) view.setUint16(20, random.pick([1, 0x2000, 0x2001, 0x4000, 0x1fff, 0xe000]));
  view.setUint8(23, protocol);
  view.setUint32(26, nearEdge(random, boxes, DIM.source, 0xffffffff));
  view.setUint32(30, nearEdge(random, boxes, DIM.destination, 0xffffffff));
  if (bytes.length >= 38) {
    view.setUint16(34, nearEdge(random, boxes, DIM.sourcePort, 65535));
    view.setUint16(36, nearEdge(random, boxes, DIM.destinationPort, 65535));
  }
  if (random.oneIn(6)) bytes = withOptions(bytes, new Uint8Array(4 * (1 + random.below(10))));
  if (random.oneIn(6)) {
    // Padding, as a short frame has on the wire.
    const padded = new Uint8Array(bytes.length + random.below(20));
    padded.set(bytes);
    bytes = padded;
  }
  if (random.oneIn(10)) bytes = bytes.slice(0, 14 + random.below(bytes.length - 13));
  if (random.oneIn(10)) bytes[12 + random.below(Math.min(12, bytes.length - 12))] = random.uint32();
  if (random.oneIn(30)) bytes.set([0x08, 0x06], 12);
  if (random.oneIn(30)) bytes.set([0x86, 0xdd], 12);
  return bytes;
}

/** One generation of filters, in both forms. */
class Subject {
  readonly #filters: readonly Filter[];
  readonly #matchers: readonly FilterSet[];
  readonly #results: number;
  readonly #program: number;
  readonly #words = Buffer.alloc(4 * WORDS);
  readonly #fields = new FrameFields();
  readonly seen = { matched: 0, missed: 0, refused: 0 };

  constructor(filters: readonly Filter[]) {
    this.#filters = filters;
    this.#matchers = filters.map((one) => new FilterSet(0, [one]));
    const shape = { keyBytes: 4, valueBytes: 4 * WORDS, entriesMax: 1 };
    this.#results = createMap({ type: 'hash', name: 'ark_fuzz', ...shape });
    mapUpdate(this.#results, u32(0), this.#words);
    this.#program = loadXdpProgram('ark_fuzz', verdictProgram(filters, this.#results).encode());
  }

  run(bytes: Uint8Array): void {
    const fields = this.#fields;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const good = fields.parse(view, 0, bytes.length) === 0 && fields.kind === KIND.ipv4;
    const frame = (): string => `frame ${Buffer.from(bytes).toString('hex')} (seed ${SEED})`;
    assert.equal(runXdpProgram(this.#program, bytes), good ? GOOD : REFUSED, frame());
    if (!good) {
      this.seen.refused += FILTERS_PER_PROGRAM;
      return;
    }
    mapLookup(this.#results, u32(0), this.#words);
    this.#matchers.forEach((matcher, i) => {
      const word = this.#words.readUInt32LE(4 * Math.floor(i / WORD_BITS));
      const inKernel = (word & (1 << (i % WORD_BITS))) !== 0;
      const here = matcher.receives(fields);
      this.seen[here ? 'matched' : 'missed']++;
      if (here === inKernel) return;
      assert.fail(
        `only ${here ? 'JavaScript' : 'eBPF'} takes it: ${formatFilter(this.#filters[i]!)}, ${frame()}`,
      );
    });
  }

  close(): void {
    closeFd(this.#program);
    closeFd(this.#results);
  }
}

describe('filters in JavaScript and in the kernel', { skip: rootMissing() }, () => {
  test(`agree on ${PAIRS} pairs of packet and filter`, () => {
    const random = new Random(SEED);
    const total = { matched: 0, missed: 0, refused: 0 };
    let pairs = 0;
    while (pairs < PAIRS) {
      const filters = Array.from({ length: FILTERS_PER_PROGRAM }, () => randomFilter(random));
      const boxes = filters.flatMap((one) => one.boxes);
      const subject = new Subject(filters);
      try {
        for (let n = 0; n < PACKETS_PER_PROGRAM; n++) subject.run(randomFrame(random, boxes));
      } finally {
        subject.close();
      }
      for (const what of ['matched', 'missed', 'refused'] as const)
        total[what] += subject.seen[what];
      pairs = total.matched + total.missed + total.refused;
    }
    for (const [what, count] of Object.entries(total)) {
      assert.ok(count > pairs / 50, `${count} of ${pairs} pairs were ${what}`);
    }
  });
});

test('filters of this fuzzing have boxes of every shape', () => {
  const random = new Random(SEED);
  const boxes = union(within({ protocol: [17, 17] })).boxes.concat(
    Array.from({ length: 300 }, () => randomFilter(random)).flatMap((one) => one.boxes),
  );
  for (const [name, d] of Object.entries(DIM)) {
    assert.ok(
      boxes.some((box) => box.first[d] === box.last[d]),
      `${name}: a point`,
    );
    if (d === DIM.ports) continue;
    assert.ok(
      boxes.some((box) => box.first[d]! > 0 && box.first[d]! < box.last[d]!),
      `${name}: a range`,
    );
  }
});
