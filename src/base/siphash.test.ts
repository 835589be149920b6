import assert from 'node:assert/strict';
import { test } from 'node:test';
import { siphash } from './siphash.ts';

const count = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i);

test('the vectors of the paper (appendix A) and of its authors', () => {
  for (const [length, text] of [
    [0, '726fdb47dd0e0e31'],
    [1, '74f839c593dc67fd'],
    [7, 'ab0200f58b01d137'],
    [8, '93f5f5799a932462'],
    [15, 'a129ca6149be45e5'],
  ] as const) {
    const out = new Int32Array(2);
    siphash(count(16), count(length), out);
    const [hi, lo] = [...out].map((word) => (word >>> 0).toString(16).padStart(8, '0'));
    assert.equal(`${hi}${lo}`, text, `${length} bytes`);
  }
});
