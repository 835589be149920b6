import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ArrakisError } from '../base/errors.ts';
import {
  bitsPerSecondSchema,
  formatLimits,
  formatRate,
  isDefault,
  isWithin,
  packetsPerSecondSchema,
  parseRate,
  UNLIMITED,
  weightSchema,
} from './rate.ts';

test('rates as people write them', () => {
  for (const [text, value] of [
    ['1', 1],
    ['64k', 64_000],
    ['100M', 1e8],
    ['2.5G', 2_500_000_000],
    ['0.5k', 500],
  ] as const) {
    assert.equal(parseRate(text, 'rate'), value);
  }
});

test('what is no rate is refused with the form as hint', () => {
  for (const text of [
    '',
    '0',
    '0k',
    '-5',
    '-5M',
    'NaN',
    'Infinity',
    '1e9',
    '5K',
    '5 M',
    '0.5',
    '1.0005k',
    'M',
  ]) {
    assert.throws(
      () => parseRate(text, 'rate'),
      (e) => e instanceof ArrakisError && e.code === 'ARK_BAD_ARGUMENT' && /64k/.test(e.hint ?? ''),
      text,
    );
  }
});

test('format and parse are inverses', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1e12 }), (value) => {
      assert.equal(parseRate(formatRate(value), 'rate'), value);
    }),
  );
});

test('numbers from another process: whole, positive, bounded', () => {
  for (const value of [0, -1, 999, 1000.5, Number.NaN, Number.POSITIVE_INFINITY, 2e12, '1000']) {
    assert.equal(bitsPerSecondSchema.safeParse(value).success, false, `${value}`);
  }
  assert.equal(bitsPerSecondSchema.safeParse(1000).success, true);
  for (const value of [0, -1, 0.5, Number.NaN]) {
    assert.equal(packetsPerSecondSchema.safeParse(value).success, false);
    assert.equal(weightSchema.safeParse(value).success, false);
  }
  assert.equal(weightSchema.safeParse(101).success, false);
});

test('a limit is within another when neither of its numbers is above', () => {
  const limit = (bitsPerSecond: number | null, packetsPerSecond: number | null) => ({
    bitsPerSecond,
    packetsPerSecond,
  });
  assert.equal(isWithin(limit(5, 5), limit(5, 5)), true);
  assert.equal(isWithin(limit(5, null), UNLIMITED), true);
  assert.equal(isWithin(limit(6, 5), limit(5, 5)), false);
  assert.equal(isWithin(limit(null, 5), limit(5, 5)), false, 'unlimited is more than any limit');
  assert.equal(isWithin(limit(5, null), limit(5, 5)), false);
});

test('a rate in words', () => {
  assert.equal(formatLimits(UNLIMITED), 'unlimited');
  assert.equal(isDefault(UNLIMITED), true);
  const rate = { bitsPerSecond: 1e8, packetsPerSecond: 50_000, weight: 3 };
  assert.equal(formatLimits(rate), '100M bit/s, 50k packets/s, weight 3');
  assert.equal(isDefault({ ...UNLIMITED, weight: 2 }), false);
});
