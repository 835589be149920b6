import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArrakisError } from '../base/errors.ts';
import { FILTER_LIMITS } from '../filter/limits.ts';
import { BadRequest, errorToWire, parseFromDaemon, parseReply, parseRequest } from './protocol.ts';

const refusedWith = (id: number, code: string) => (error: unknown) =>
  error instanceof BadRequest && error.id === id && error.code === code;

test('a request comes apart into id, operation and arguments', () => {
  const request = parseRequest('{"id":7,"op":"vnic.close","vnic":3}', 0);
  assert.deepEqual(request, { id: 7, op: 'vnic.close', args: { vnic: 3 } });
});

test('a refusal carries the id as soon as it is known', () => {
  const cases: [string, number, string][] = [
    ['', 0, 'ARK_BAD_MESSAGE'],
    ['"x"', 0, 'ARK_BAD_MESSAGE'],
    ['{"id":"7","op":"list"}', 0, 'ARK_BAD_MESSAGE'],
    ['{"id":7,"op":"nothing"}', 7, 'ARK_UNKNOWN_OPERATION'],
    ['{"id":7,"op":"toString"}', 7, 'ARK_UNKNOWN_OPERATION'],
    ['{"id":7,"op":"list","more":1}', 7, 'ARK_BAD_MESSAGE'],
    ['{"id":7,"op":"vnic.open","name":"a","spec":{"device":"soft0"}}', 7, 'ARK_BAD_MESSAGE'],
    ['{"id":7,"op":"vnic.open","spec":{"device":"soft0","frames":300}}', 7, 'ARK_BAD_MESSAGE'],
    ['{"id":7,"op":"vnic.open","spec":{"device":"so/ft0"}}', 7, 'ARK_BAD_MESSAGE'],
    ['{"id":7,"op":"filter.set","vnic":1,"filters":[{}]}', 7, 'ARK_BAD_MESSAGE'],
    ['{"id":7,"op":"filter.add","vnic":1,"direction":"both","text":"udp"}', 7, 'ARK_BAD_MESSAGE'],
    ['{"id":7,"op":"list","__proto__":{}}', 0, 'ARK_BAD_MESSAGE'],
  ];
  for (const [text, id, code] of cases) {
    assert.throws(() => parseRequest(text, 0), refusedWith(id, code), text);
  }
});

test('descriptors are counted', () => {
  const capture = '{"id":7,"op":"capture.start","vnic":1}';
  assert.equal(parseRequest(capture, 1).op, 'capture.start');
  assert.throws(() => parseRequest(capture, 0), refusedWith(7, 'ARK_BAD_MESSAGE'));
  assert.throws(() => parseRequest('{"id":7,"op":"list"}', 1), refusedWith(7, 'ARK_BAD_MESSAGE'));
});

test('a filter is text of bounded length', () => {
  const add = (text: string) =>
    parseRequest(JSON.stringify({ id: 7, op: 'filter.add', vnic: 1, text }), 0);
  assert.deepEqual(add('udp').args, { vnic: 1, text: 'udp' });
  assert.throws(
    () => add('x'.repeat(FILTER_LIMITS.textMax + 1)),
    refusedWith(7, 'ARK_BAD_MESSAGE'),
  );
});

test('errors cross the wire with code, message and hint', () => {
  const error = new ArrakisError('ARK_IN_USE', 'taken', { hint: 'wait' });
  const text = JSON.stringify({ id: 3, ok: false, error: errorToWire(error) });
  const message = parseFromDaemon(text);
  assert.ok(message?.kind === 'error' && message.id === 3);
  assert.equal(message.error.code, 'ARK_IN_USE');
  assert.equal(message.error.message, 'taken');
  assert.equal(message.error.hint, 'wait');
});

test('the text of a defect stays in the daemon', () => {
  const wire = errorToWire(new TypeError('secret'));
  assert.equal(wire.code, 'ARK_INTERNAL');
  assert.doesNotMatch(wire.message, /secret/);
});

test('a reply may gain fields, and may not lack one', () => {
  assert.deepEqual(parseReply('domain.prepare', { domain: 1, vnics: ['a'], later: true }), {
    domain: 1,
    vnics: ['a'],
  });
  assert.throws(() => parseReply('domain.prepare', { domain: 1 }), /different versions|vnics/);
});

test('an event of a later version is passed over, a broken one is not', () => {
  assert.equal(parseFromDaemon('{"event":"vnic.moved","vnic":1}'), null);
  assert.throws(() => parseFromDaemon('{"event":"vnic.gone"}'), ArrakisError);
  const gone = parseFromDaemon('{"event":"vnic.gone","vnic":1,"reason":"x"}');
  assert.deepEqual(gone, { kind: 'event', name: 'vnic.gone', body: { vnic: 1, reason: 'x' } });
  for (const text of ['', 'null', '7', '{"id":1}', '{"ok":true}']) {
    assert.throws(() => parseFromDaemon(text), ArrakisError, text);
  }
});
