/** The capability space against a model that is slow and plain: an array of records, and recursion. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ArrakisError } from '../../base/errors.ts';
import { type AddressRange, type Range, rangeCovers } from './range.ts';
import { allRights, type CapKind, GRANT } from './rights.ts';
import { type Capability, CapSpace } from './space.ts';

const LIMITS = { madeMax: 40, depthMax: 6 };
const DOMAINS = 5;
const KINDS: readonly CapKind[] = ['device', 'addresses', 'vnic', 'rate', 'region'];

interface Entry {
  id: number;
  holder: number;
  kind: CapKind;
  rights: number;
  range: Range;
  parent: number | null;
  frozen: boolean;
}

/** What the space should do, said as naively as possible. Every method says 'ok' or the code of the refusal. */
class Model {
  entries: Entry[] = [];
  everIds = new Set<number>();

  get(id: number): Entry | undefined {
    return this.entries.find((entry) => entry.id === id);
  }

  depth(entry: Entry): number {
    return entry.parent === null ? 1 : 1 + this.depth(this.get(entry.parent)!);
  }

  frozen(entry: Entry): boolean {
    return entry.frozen || (entry.parent !== null && this.frozen(this.get(entry.parent)!));
  }

  below(id: number): number[] {
    return this.entries
      .filter((entry) => entry.parent === id)
      .flatMap((child) => [...this.below(child.id), child.id]);
  }

  room(parent: Entry): string {
    if (this.frozen(parent)) return 'ARK_NOT_PERMITTED';
    if (this.depth(parent) >= LIMITS.depthMax) return 'ARK_LIMIT';
    const made = this.entries.filter(
      (entry) => entry.parent !== null && this.get(entry.parent)!.holder === parent.holder,
    ).length;
    return parent.holder !== 0 && made >= LIMITS.madeMax ? 'ARK_LIMIT' : 'ok';
  }

  derive(parent: Entry, holder: number, rights: number, range: Range): string {
    if (holder !== parent.holder && (parent.rights & GRANT) === 0) return 'ARK_NOT_PERMITTED';
    if ((rights & ~parent.rights) !== 0) return 'ARK_NOT_PERMITTED';
    if (rights === 0) return 'ARK_BAD_ARGUMENT';
    if (!rangeCovers(parent.kind, parent.range, range)) return 'ARK_NOT_PERMITTED';
    return this.room(parent);
  }

  drop(ids: readonly number[]): void {
    this.entries = this.entries.filter((entry) => !ids.includes(entry.id));
  }
}

type Step =
  | { op: 'mint'; holder: number; kind: CapKind; rights: number; range: number }
  | { op: 'derive'; cap: number; holder: number; rights: number; range: number }
  | { op: 'copy' | 'delete' | 'revoke' | 'freeze' | 'thaw'; cap: number }
  | { op: 'attach'; cap: number; holder: number }
  | { op: 'find'; cap: number; holder: number }
  | { op: 'end'; holder: number }
  | { op: 'save' };

const holder = fc.integer({ min: 0, max: DOMAINS });
const cap = fc.nat(1000);
const rights = fc.nat(63);
const range = fc.nat(3);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('mint' as const),
      holder,
      kind: fc.constantFrom(...KINDS),
      rights,
      range,
    }),
  },
  {
    weight: 12,
    arbitrary: fc.record({ op: fc.constant('derive' as const), cap, holder, rights, range }),
  },
  { weight: 3, arbitrary: fc.record({ op: fc.constantFrom('copy', 'thaw'), cap }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constantFrom('delete', 'revoke', 'freeze'), cap }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('attach' as const), cap, holder }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('find' as const), cap, holder }) },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('end' as const),
      holder: fc.integer({ min: 1, max: DOMAINS }),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ op: 'save' as const }) },
) as fc.Arbitrary<Step>;

const whole: AddressRange = { protocol: 'any', first: 0, last: 100, portFirst: 0, portLast: 65535 };
const ADDRESSES: readonly Range[] = [
  null,
  whole,
  { ...whole, first: 10, last: 20 },
  { ...whole, protocol: 'udp', first: 12, last: 12, portFirst: 7, portLast: 9 },
];
const RATES: readonly Range[] = [
  null,
  { bitsPerSecond: 1000, packetsPerSecond: null, weight: null },
  { bitsPerSecond: 1000, packetsPerSecond: 10, weight: null },
  { bitsPerSecond: 500, packetsPerSecond: 10, weight: 2 },
];

function rangeOf(kind: CapKind, index: number): Range {
  if (kind === 'addresses') return ADDRESSES[index]!;
  return kind === 'rate' ? RATES[index]! : null;
}

/** Both, step by step. */
class Pair {
  space = new CapSpace(LIMITS);
  readonly model = new Model();
  caps = new Map<number, Capability>();
  /** Ids whose callbacks ran, in this order. */
  gone: number[] = [];
  operations = 0;

  run(one: Step): void {
    this.operations++;
    this.gone = [];
    if (one.op === 'mint') this.#mint(one);
    else if (one.op === 'end')
      this.#removed(this.space.removeHolder(one.holder), this.#ofHolder(one.holder));
    else if (one.op === 'save') this.#save();
    else this.#onCap(one);
    this.#check();
  }

  #mint({ holder, kind, rights, range }: Extract<Step, { op: 'mint' }>): void {
    const bits = rights & allRights(kind);
    if (bits === 0) return;
    const made = this.space.mint(holder, kind, 'x', bits, rangeOf(kind, range));
    this.#added(made, { holder, kind, rights: bits, range: rangeOf(kind, range), parent: null });
  }

  #onCap(one: Extract<Step, { cap: number }>): void {
    const { entries } = this.model;
    if (entries.length === 0) return;
    const entry = entries[one.cap % entries.length]!;
    const cap = this.caps.get(entry.id)!;
    switch (one.op) {
      case 'derive': {
        const range = rangeOf(entry.kind, one.range);
        const { holder, rights } = one;
        this.#tried(
          this.model.derive(entry, holder, rights, range),
          () => this.space.derive(cap, holder, rights, range),
          { holder, kind: entry.kind, rights, range, parent: entry.id },
        );
        break;
      }
      case 'copy': {
        const parent = entry.parent === null ? entry : this.model.get(entry.parent)!;
        const expected = this.model.frozen(entry) ? 'ARK_NOT_PERMITTED' : this.model.room(parent);
        this.#tried(expected, () => this.space.copy(cap), { ...entry, parent: parent.id });
        break;
      }
      case 'attach': {
        const { holder } = one;
        const made = {
          holder,
          kind: 'vnic' as const,
          rights: allRights('vnic'),
          range: null,
          parent: entry.id,
        };
        this.#tried(
          this.model.room(entry),
          () => this.space.attach(cap, holder, 'vnic', `vnic:${this.operations}`),
          made,
        );
        break;
      }
      case 'delete':
        this.#removed(this.space.remove(cap), [...this.model.below(entry.id), entry.id]);
        assert.deepEqual(this.space.remove(cap), [], 'twice is once');
        break;
      case 'revoke': {
        const below = this.model.below(entry.id);
        const descendants = this.space.descendants(cap);
        assert.deepEqual(sorted(descendants.map((each) => each.id)), sorted(below));
        this.#removed(this.space.revoke(cap), below);
        break;
      }
      case 'freeze':
        if (!entry.frozen) this.space.freeze(cap);
        entry.frozen = true;
        break;
      case 'thaw':
        if (entry.frozen) this.space.thaw(cap);
        entry.frozen = false;
        break;
      case 'find':
        if (one.holder === entry.holder) assert.equal(this.space.find(one.holder, entry.id), cap);
        else assert.throws(() => this.space.find(one.holder, entry.id), hasCode('ARK_NOT_FOUND'));
        break;
    }
  }

  #ofHolder(holder: number): number[] {
    const held = this.model.entries.filter((entry) => entry.holder === holder);
    return [...new Set(held.flatMap(({ id }) => [...this.model.below(id), id]))];
  }

  #tried(expected: string, act: () => Capability, entry: Omit<Entry, 'id' | 'frozen'>): void {
    if (expected === 'ok') this.#added(act(), entry);
    else assert.throws(act, hasCode(expected));
  }

  #added(cap: Capability, entry: Omit<Entry, 'id' | 'frozen'>): void {
    assert.ok(!this.model.everIds.has(cap.id), 'ids are never used again');
    this.model.everIds.add(cap.id);
    this.model.entries.push({ ...entry, id: cap.id, frozen: false });
    this.caps.set(cap.id, cap);
    this.#watch(cap);
  }

  #watch(cap: Capability): void {
    this.space.onRemove(cap, () => {
      assert.ok(!this.space.has(cap), 'the forest has changed before anybody hears of it');
      this.gone.push(cap.id);
    });
    this.space.onRemove(cap, () => assert.fail('it was taken back'))();
  }

  #removed(removed: readonly Capability[], expected: readonly number[]): void {
    const ids = removed.map((each) => each.id);
    assert.deepEqual(sorted(ids), sorted(expected));
    assert.deepEqual(this.gone, ids, 'each heard of it once, in the order of removal');
    for (const { parent, id } of removed) {
      const at = parent === null ? -1 : ids.indexOf(parent.id);
      assert.ok(at < 0 || ids.indexOf(id) < at, 'leaves first');
    }
    this.model.drop(expected);
  }

  /** Through JSON, as a restart would. Revocations under way are forgotten by it. */
  #save(): void {
    const before = this.space.snapshot();
    this.space = CapSpace.restore(JSON.parse(JSON.stringify(before)), LIMITS);
    assert.deepEqual(this.space.snapshot(), before);
    this.caps = new Map([...this.space.all()].map((cap) => [cap.id, cap]));
    for (const cap of this.caps.values()) this.#watch(cap);
    for (const entry of this.model.entries) entry.frozen = false;
  }

  #check(): void {
    const { entries } = this.model;
    assert.equal(this.space.size, entries.length);
    for (const entry of entries) {
      const cap = this.space.get(entry.id);
      assert.ok(cap !== undefined);
      const { holder, kind, rights, range, parent } = cap;
      assert.deepEqual(
        { holder, kind, rights, range, parent: parent?.id ?? null },
        {
          holder: entry.holder,
          kind: entry.kind,
          rights: entry.rights,
          range: entry.range,
          parent: entry.parent,
        },
      );
      if (parent === null || parent.object !== cap.object) continue;
      assert.equal(rights & ~parent.rights, 0, 'no right grows');
      assert.ok(rangeCovers(kind, parent.range, range), 'no range grows');
    }
    for (let holder = 0; holder <= DOMAINS; holder++) {
      const held = entries.filter((entry) => entry.holder === holder).map((entry) => entry.id);
      assert.deepEqual(
        this.space.of(holder).map((each) => each.id),
        sorted(held),
      );
    }
  }
}

const sorted = (ids: readonly number[]): number[] => [...ids].sort((a, b) => a - b);
const hasCode = (code: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === code;

test('tens of thousands of random operations agree with a plain model', () => {
  let operations = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 300, size: 'max' }), (steps) => {
      const pair = new Pair();
      for (const one of steps) pair.run(one);
      operations += pair.operations;
    }),
    { numRuns: 400 },
  );
  assert.ok(operations > 40_000, `only ${operations}`);
});
