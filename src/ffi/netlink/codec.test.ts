import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  emitMessage,
  getNested,
  getString,
  getU32,
  getU32BE,
  HEADER_LEN,
  MessageWriter,
  parseAttributes,
  parseMessages,
} from './codec.ts';

describe('netlink messages', () => {
  test('a request has the length without padding, and is padded', () => {
    const message = emitMessage(16, 5, 7, Buffer.from([1, 2, 3]));
    assert.equal(message.length, HEADER_LEN + 4);
    assert.equal(message.toString('hex'), `13000000100005000700000000000000${'01020300'}`);
  });

  test('several messages in one datagram are told apart', () => {
    const datagram = Buffer.concat([
      emitMessage(16, 0, 1, Buffer.from([1, 2, 3])),
      emitMessage(17, 2, 1, Buffer.from([4])),
    ]);
    const messages = parseMessages(datagram, datagram.length);
    assert.deepEqual(
      messages.map((message) => [message.type, message.flags, [...message.body]]),
      [
        [16, 0, [1, 2, 3]],
        [17, 2, [4]],
      ],
    );
  });

  test('a message is cut nowhere but at its end', () => {
    const whole = emitMessage(16, 0, 1, Buffer.from([1, 2, 3, 4]));
    for (let length = 0; length < whole.length; length++) {
      assert.deepEqual(parseMessages(whole, length), [], `cut to ${length} bytes`);
    }
  });

  test('lying lengths end the walk', () => {
    for (const length of [0, 1, 15, 21, 0xffffffff]) {
      const message = emitMessage(16, 0, 1, Buffer.from([1, 2, 3, 4]));
      message.writeUInt32LE(length, 0);
      assert.deepEqual(parseMessages(message, message.length), []);
    }
  });
});

describe('netlink attributes', () => {
  const body = new MessageWriter()
    .raw(Buffer.alloc(8))
    .u32(1, 0xfffffffe)
    .string(2, 'veth0')
    .nest(3, (nest) => nest.string(1, 'veth').nest(2, (inner) => inner.u32(9, 5)))
    .attribute(4, Buffer.from([10, 0, 0, 1]))
    .body();

  test('what was written is read', () => {
    const attributes = parseAttributes(body, 8);
    assert.equal(getU32(attributes, 1), 0xfffffffe);
    assert.equal(getString(attributes, 2), 'veth0');
    assert.equal(getString(getNested(attributes, 3), 1), 'veth');
    assert.equal(getU32(getNested(getNested(attributes, 3), 2), 9), 5);
    assert.equal(getU32BE(attributes, 4), 0x0a000001);
  });

  test('what is absent or short is null', () => {
    const attributes = parseAttributes(new MessageWriter().attribute(1, Buffer.alloc(2)).body());
    assert.equal(getU32(attributes, 1), null);
    assert.equal(getU32BE(attributes, 1), null);
    assert.equal(getU32(attributes, 2), null);
    assert.equal(getString(attributes, 2), null);
    assert.equal(getNested(attributes, 2).size, 0);
  });

  test('bytes cut anywhere are read without going beyond', () => {
    for (let length = 8; length <= body.length; length++) {
      const cut = Buffer.from(body.subarray(0, length));
      assert.ok(parseAttributes(cut, 8).size <= 4);
      getNested(parseAttributes(cut, 8), 3);
    }
  });

  test('lying lengths end the walk', () => {
    for (const length of [0, 3, 9, 0xffff]) {
      const bytes = new MessageWriter().u32(1, 1).body();
      bytes.writeUInt16LE(length, 0);
      assert.equal(parseAttributes(bytes).size, 0);
    }
  });

  test('a writer grows', () => {
    const long = Buffer.alloc(5000, 7);
    const bytes = new MessageWriter().attribute(1, long).u32(2, 3).body();
    const attributes = parseAttributes(Buffer.from(bytes));
    assert.deepEqual(attributes.get(1), long);
    assert.equal(getU32(attributes, 2), 3);
  });
});
