import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArrakisError } from '../../base/errors.ts';
import { LIMITS } from '../limits.ts';
import { checkRange, formatRange, rangeCovers, rangeSchema } from './range.ts';
import { parseRange } from './range-text.ts';
import { allRights, CAP_KINDS, RIGHTS, rightNames, rightsOf } from './rights.ts';
import { CapSpace } from './space.ts';

const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;
const limits = { madeMax: LIMITS.capsPerDomainMax, depthMax: LIMITS.capDepthMax };
const ALL = allRights('device');

test('a chain of 10,000 levels is refused', () => {
  const space = new CapSpace(limits);
  let cap = space.mint(1, 'device', 'soft0', ALL, null);
  assert.throws(() => {
    for (let level = 0; level < 10_000; level++) cap = space.derive(cap, 1, ALL, null);
  }, code('ARK_LIMIT'));
  assert.equal(space.size, LIMITS.capDepthMax);
  space.remove(space.of(1)[0]!);
  assert.equal(space.size, 0);
});

test('gifts are on the account of who makes them', () => {
  const space = new CapSpace({ madeMax: 3, depthMax: 9 });
  const root = space.mint(1, 'device', 'soft0', ALL, null);
  for (let n = 0; n < 3; n++) space.derive(root, 2, ALL, null);
  assert.throws(() => space.derive(root, 2, ALL, null), code('ARK_LIMIT'));
  const given = space.of(2)[0]!;
  const own = space.derive(given, 2, ALL, null);
  // What is deleted is no longer on anybody's account.
  space.remove(given);
  assert.ok(!space.has(own));
  space.derive(root, 2, ALL, null);
});

test('a circle of grants is a branch of the tree like any other', () => {
  const space = new CapSpace(limits);
  const a = space.mint(1, 'device', 'soft0', ALL, null);
  const b = space.derive(a, 2, ALL, null);
  const back = space.derive(b, 1, ALL, null);
  assert.deepEqual(space.remove(b), [back, b]);
  assert.deepEqual(space.of(1), [a]);
});

test('a handle is worth nothing with another holder, after its removal, or in another space', () => {
  const space = new CapSpace(limits);
  const a = space.mint(1, 'device', 'soft0', ALL, null);
  const other = new CapSpace(limits).mint(1, 'device', 'soft0', ALL, null);
  assert.throws(() => space.find(2, a.id), code('ARK_NOT_FOUND'));
  assert.throws(() => space.find(1, a.id + 1), code('ARK_NOT_FOUND'));
  assert.throws(() => space.derive(other, 1, ALL, null), code('ARK_NOT_FOUND'));
  space.remove(a);
  assert.throws(() => space.find(1, a.id), code('ARK_NOT_FOUND'));
  assert.throws(() => space.copy(a), code('ARK_NOT_FOUND'));
  assert.throws(() => space.onRemove(a, () => {}), code('ARK_NOT_FOUND'));
});

test('two revocations of one capability both have to end before it gives again', () => {
  const space = new CapSpace(limits);
  const a = space.mint(1, 'device', 'soft0', ALL, null);
  const b = space.derive(a, 1, ALL, null);
  space.freeze(a);
  space.freeze(a);
  space.thaw(a);
  assert.throws(() => space.derive(b, 1, ALL, null), code('ARK_NOT_PERMITTED'));
  space.thaw(a);
  space.derive(b, 1, ALL, null);
  space.freeze(b);
  space.remove(b);
  space.thaw(b);
});

test('who hears of a removal may remove more', () => {
  const space = new CapSpace(limits);
  const a = space.mint(1, 'device', 'soft0', ALL, null);
  const b = space.mint(1, 'device', 'soft0', ALL, null);
  const heard: string[] = [];
  space.onRemove(a, () => {
    heard.push('a');
    space.remove(b);
  });
  space.onRemove(b, () => heard.push('b'));
  space.remove(a);
  assert.deepEqual(heard, ['a', 'b']);
  assert.equal(space.size, 0);
});

test('a damaged snapshot is refused', () => {
  const space = new CapSpace(limits);
  const a = space.mint(1, 'device', 'soft0', ALL, null);
  space.derive(a, 1, ALL, null);
  const good = space.snapshot();
  const [first, second] = good.capabilities as [
    (typeof good.capabilities)[0],
    (typeof good.capabilities)[0],
  ];
  for (const bad of [
    { ...good, capabilities: [second, first] },
    { ...good, nextId: 2 },
    { ...good, capabilities: [first, first] },
    { ...good, capabilities: [{ ...first, range: { bytes: 1 } }] },
  ]) {
    assert.throws(() => CapSpace.restore(bad, limits), code('ARK_BAD_ARGUMENT'));
  }
});

test('rights have names, one bit each, and grant is everywhere the same', () => {
  for (const kind of CAP_KINDS) {
    const bits = Object.values<number>(RIGHTS[kind]);
    assert.equal(
      bits.reduce((sum, bit) => sum + bit, 0),
      allRights(kind),
      'no bit twice',
    );
    assert.equal(RIGHTS[kind].grant, 1);
    assert.equal(rightsOf(kind, rightNames(kind, allRights(kind))), allRights(kind));
  }
  assert.throws(() => rightsOf('device', ['read']), code('ARK_BAD_ARGUMENT'));
  assert.throws(() => rightsOf('device', ['toString']), code('ARK_BAD_ARGUMENT'));
});

test('roots have rights of their kind, and a range of their kind', () => {
  const space = new CapSpace(limits);
  for (const rights of [0, 64, -1]) {
    assert.throws(() => space.mint(0, 'device', 'x', rights, null), code('ARK_BAD_ARGUMENT'));
  }
  assert.throws(() => space.mint(0, 'device', 'x', 1, { bytes: 1 }), code('ARK_BAD_ARGUMENT'));
  assert.equal(space.size, 0);
});

test('ranges cover what they should', () => {
  const udp = { protocol: 'udp' as const, first: 10, last: 20, portFirst: 7, portLast: 9 };
  const any = { protocol: 'any' as const, first: 10, last: 20, portFirst: 0, portLast: 65535 };
  assert.ok(rangeCovers('addresses', any, udp));
  assert.ok(!rangeCovers('addresses', udp, any));
  assert.ok(!rangeCovers('addresses', udp, { ...udp, portLast: 10 }));
  assert.ok(!rangeCovers('addresses', udp, { ...udp, first: 9 }));
  assert.ok(!rangeCovers('addresses', udp, { ...udp, protocol: 'tcp' }));
  assert.ok(!rangeCovers('addresses', udp, null));
  assert.ok(rangeCovers('cores', { cpus: [0, 2] }, { cpus: [2] }));
  assert.ok(!rangeCovers('cores', { cpus: [0, 2] }, { cpus: [1] }));
  assert.ok(rangeCovers('pool', { bytes: 4 }, { bytes: 4 }));
  assert.ok(!rangeCovers('pool', { bytes: 4 }, { bytes: 5 }));
  const slow = { bitsPerSecond: 10, packetsPerSecond: null, weight: null };
  assert.ok(rangeCovers('rate', slow, { ...slow, weight: 3 }));
  assert.ok(!rangeCovers('rate', slow, { ...slow, bitsPerSecond: null }));
  assert.ok(!rangeCovers('rate', slow, { ...slow, bitsPerSecond: 11 }));
});

test('ranges from outside pass the gate only whole', () => {
  const good = { protocol: 'udp', first: 1, last: 2, portFirst: 0, portLast: 65535 };
  assert.deepEqual(rangeSchema.parse(good), good);
  assert.equal(rangeSchema.parse(null), null);
  for (const bad of [
    { ...good, first: 3 },
    { ...good, portFirst: 2, portLast: 1 },
    { ...good, protocol: 'any', portFirst: 5 },
    { ...good, extra: 1 },
    { cpus: [-1] },
    { bytes: Number.NaN },
    { bitsPerSecond: 0, packetsPerSecond: null, weight: null },
    7,
  ]) {
    assert.ok(!rangeSchema.safeParse(bad).success, JSON.stringify(bad));
  }
  assert.throws(() => checkRange('cores', { bytes: 1 }), code('ARK_BAD_ARGUMENT'));
});

test('ranges as people type them are those that they read', () => {
  for (const [kind, text] of [
    ['addresses', 'udp 10.0.0.2-10.0.0.9:7-9'],
    ['addresses', 'tcp 10.0.0.2:80'],
    ['addresses', 'any 10.0.0.2'],
    ['cores', 'cpus 0,2'],
    ['rate', '1M bit/s 50 packets/s weight 3'],
    ['rate', '50 packets/s'],
    ['rate', 'any rate'],
    ['pool', '4096 bytes'],
    ['device', 'everything'],
  ] as const) {
    assert.equal(formatRange(parseRange(kind, text)), text);
  }
  assert.equal(
    formatRange(parseRange('addresses', 'any 10.77.0.9/24')),
    'any 10.77.0.0-10.77.0.255',
  );
  assert.deepEqual(parseRange('rate', '100M bit/s'), {
    bitsPerSecond: 1e8,
    packetsPerSecond: null,
    weight: null,
  });
  for (const [kind, text] of [
    ['addresses', 'udp 10.0.0.9-10.0.0.2'],
    ['addresses', 'any 10.0.0.2:7'],
    ['addresses', 'sctp 10.0.0.2'],
    ['addresses', 'udp 10.0.0.2:70000'],
    ['addresses', 'udp 10.0.0.2/33'],
    ['cores', 'cpus x'],
    ['rate', ''],
    ['rate', '0 bit/s'],
    ['pool', 'many bytes'],
    ['device', 'cpus 0'],
  ] as const) {
    assert.throws(() => parseRange(kind, text), code('ARK_BAD_ARGUMENT'), text);
  }
});

test('ranges as people read them', () => {
  const range = {
    protocol: 'udp' as const,
    first: 0x0a000002,
    last: 0x0a000009,
    portFirst: 7,
    portLast: 9,
  };
  assert.equal(formatRange(range), 'udp 10.0.0.2-10.0.0.9:7-9');
  assert.equal(formatRange({ ...range, last: range.first, portLast: 7 }), 'udp 10.0.0.2:7');
  assert.equal(formatRange(null), 'everything');
  assert.equal(formatRange({ cpus: [0, 1] }), 'cpus 0,1');
  assert.equal(formatRange({ bytes: 4096 }), '4096 bytes');
  assert.equal(
    formatRange({ bitsPerSecond: 5, packetsPerSecond: null, weight: 2 }),
    '5 bit/s weight 2',
  );
});
