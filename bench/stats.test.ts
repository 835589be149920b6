import assert from 'node:assert/strict';
import { test } from 'node:test';
import { median, percentile, summarize } from './stats.ts';

test('percentiles are nearest ranks', () => {
  const sorted = Float64Array.from({ length: 1000 }, (_, i) => i + 1);
  assert.equal(percentile(sorted, 0.5), 500);
  assert.equal(percentile(sorted, 0.999), 999);
  assert.deepEqual(summarize(Float64Array.of(3, 1, 2)), { p50: 2, p99: 3, p999: 3 });
  assert.ok(Number.isNaN(percentile(new Float64Array(0), 0.5)));
});

test('the median of an even count is the mean of the middle two', () => {
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([5]), 5);
});
