import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatNumber, formatTable } from './table.ts';

test('a table pads text to the left, numbers to the right, and leaves no trailing spaces', () => {
  const text = formatTable(
    ['name', 'packets', 'state'],
    [
      ['a', 5, 'up'],
      ['longer', 12345, 'down'],
    ],
  );
  assert.equal(text, 'name    packets  state\na             5  up\nlonger    12345  down');
});

test('numbers have thousands separators', () => {
  assert.equal(formatNumber(1234567.8), '1,234,568');
  assert.equal(formatNumber(22.456, 1), '22.5');
});
