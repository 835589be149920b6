import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isFresh, parseHttpDate, selectRange } from './conditions.ts';

const DATE = 'Sun, 06 Nov 1994 08:49:37 GMT';
const file = { etag: '"a-1"', modifiedS: 784_111_777 };

describe('conditional requests', () => {
  test('dates', () => {
    assert.equal(parseHttpDate(DATE), 784_111_777);
    for (const bad of ['', 'Sunday, 06-Nov-94 08:49:37 GMT', '1994', `${DATE}x`]) {
      assert.ok(Number.isNaN(parseHttpDate(bad)));
    }
  });

  test('what the client has', () => {
    assert.ok(isFresh(file, '"a-1"', null));
    assert.ok(isFresh(file, '"b", W/"a-1"', null));
    assert.ok(isFresh(file, '*', null));
    assert.ok(!isFresh(file, '"b"', DATE), 'the tag goes before the date');
    assert.ok(!isFresh(file, 'a-1', null));
    assert.ok(isFresh(file, null, DATE));
    assert.ok(isFresh(file, null, 'Sun, 06 Nov 1994 08:49:38 GMT'));
    assert.ok(!isFresh(file, null, 'Sun, 06 Nov 1994 08:49:36 GMT'));
    assert.ok(!isFresh(file, null, 'yesterday'));
    assert.ok(!isFresh(file, null, null));
  });

  test('ranges', () => {
    const of = (range: string, ifRange: string | null = null) =>
      selectRange(range, ifRange, 100, file);
    assert.deepEqual(of('bytes=0-9'), { first: 0, end: 10 });
    assert.deepEqual(of('bytes=90-'), { first: 90, end: 100 });
    assert.deepEqual(of('bytes=90-1000'), { first: 90, end: 100 });
    assert.deepEqual(of('bytes=-10'), { first: 90, end: 100 });
    assert.deepEqual(of('bytes=-1000'), { first: 0, end: 100 });
    assert.equal(of('bytes=100-'), 'unsatisfiable');
    assert.equal(of('bytes=-0'), 'unsatisfiable');
    for (const all of ['bytes=9-0', 'bytes=-', 'bytes=0-1,3-4', 'lines=0-1', 'bytes=a-b', '']) {
      assert.equal(of(all), null, all);
    }
    assert.deepEqual(of('bytes=0-0', '"a-1"'), { first: 0, end: 1 });
    assert.deepEqual(of('bytes=0-0', DATE), { first: 0, end: 1 });
    for (const other of ['"b"', 'W/"a-1"', 'Sun, 06 Nov 1994 08:49:38 GMT']) {
      assert.equal(of('bytes=0-0', other), null, other);
    }
  });

  test('no range of an empty file', () => {
    assert.equal(selectRange('bytes=0-', null, 0, file), 'unsatisfiable');
  });
});
