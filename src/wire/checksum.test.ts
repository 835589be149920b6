import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex, viewOfBytes } from '../../test/support/frames.ts';
import { Random } from '../../test/support/random.ts';
import * as checksum from './checksum.ts';

/** The definition, a word at a time (RFC 1071, section 4.1). */
function plainSum(bytes: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2) total += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

test('RFC 1071, section 3: the example sums to ddf2', () => {
  assert.equal(checksum.sum(viewOfBytes(hex('0001 f203 f4f5 f6f7')), 0, 8), 0xddf2);
  assert.equal(checksum.finish(0xddf2), 0x220d);
});

test('RFC 1624, section 4: the example updates to 0000', () => {
  assert.equal(checksum.update(0xdd2f, 0x5555, 0x3285), 0x0000);
});

test('the sum agrees with the definition at every offset, length and content', () => {
  const random = new Random(1);
  const bytes = Uint8Array.from({ length: 300 }, () => random.below(256));
  const view = viewOfBytes(bytes);
  for (let at = 0; at < 5; at++) {
    for (let length = 0; at + length <= bytes.length; length++) {
      assert.equal(checksum.sum(view, at, length), plainSum(bytes.subarray(at, at + length)));
    }
  }
});

test('the longest sum of the largest words does not overflow', () => {
  const bytes = new Uint8Array(65_535).fill(0xff);
  assert.equal(checksum.sum(viewOfBytes(bytes), 0, bytes.length), plainSum(bytes));
});

test('an update equals a new sum', () => {
  const random = new Random(2);
  for (let i = 0; i < 1000; i++) {
    const bytes = Uint8Array.from({ length: 20 }, () => random.below(256));
    const view = viewOfBytes(bytes);
    const before = checksum.finish(checksum.sum(view, 0, 20));
    const [was, is] = [view.getUint16(8), random.below(65536)];
    view.setUint16(8, is);
    const updated = checksum.update(before, was, is);
    assert.ok(checksum.isValid(checksum.sum(view, 0, 20) + updated));
  }
});
