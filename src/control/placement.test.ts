import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from './limits.ts';
import { Placement } from './placement.ts';

const SET = [0, 1, 2, 3];

test('threads are spread, the least loaded processor first, then the lowest', () => {
  const placement = new Placement();
  assert.deepEqual(placement.choose('a', SET, 2, []), [0, 1]);
  assert.deepEqual(placement.choose('b', SET, 2, [[0, 1]]), [2, 3]);
  assert.deepEqual(placement.choose('c', SET, 1, [[0, 1], [2, 3], [0]]), [1]);
});

test('more threads than processors: each processor once', () => {
  assert.deepEqual(new Placement().choose('a', [3, 1], 5, []), [1, 3]);
});

test('an application comes back to what it had, even when others are there now', () => {
  const placement = new Placement();
  assert.deepEqual(placement.choose('a', SET, 1, [[0], [1]]), [2]);
  assert.deepEqual(placement.choose('a', SET, 1, [[2], [2], [3]]), [2]);
  assert.deepEqual(placement.choose('a', SET, 2, [[2], [3], [0]]), [2, 1], 'and spreads further');
});

test('what is not in its set any more is not taken', () => {
  const placement = new Placement();
  placement.remember('a', [7, 3]);
  assert.deepEqual(placement.choose('a', SET, 2, []), [3, 0]);
});

test('what is remembered is bounded, and the oldest is forgotten', () => {
  const placement = new Placement();
  placement.remember('first', [3]);
  for (let i = 0; i < LIMITS.placementsMax; i++) placement.remember(`program ${i}`, [1]);
  assert.deepEqual(placement.choose('first', SET, 1, []), [0]);
  assert.deepEqual(placement.choose(`program ${LIMITS.placementsMax - 1}`, SET, 1, []), [1]);
});

test('what is remembered is noted, and what is forgotten is struck out', () => {
  const noted = new Map<string, readonly number[]>();
  const placement = new Placement({
    put: (who, cpus) => noted.set(who, cpus),
    delete: (who) => noted.delete(who),
  });
  for (let i = 0; i <= LIMITS.placementsMax; i++) placement.remember(`program ${i}`, [i % 4]);
  assert.equal(noted.size, LIMITS.placementsMax);
  assert.equal(noted.has('program 0'), false);
  const next = new Placement();
  for (const [who, cpus] of noted) next.remember(who, cpus);
  assert.deepEqual(next.choose('program 3', SET, 1, [[3], [3]]), [3]);
});
