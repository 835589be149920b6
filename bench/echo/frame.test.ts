import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as udp from '../../src/wire/udp.ts';
import { FRAME_LEN, isAnswer, requestTemplate, SEQUENCE } from './frame.ts';

test('a request is valid with every sequence number', () => {
  const words = requestTemplate({
    sourceMac: parseMac('02:00:00:00:00:01'),
    destinationMac: parseMac('02:00:00:00:00:02'),
    sourceAddress: parseIpv4('203.0.113.1'),
    destinationAddress: parseIpv4('10.0.0.2'),
    sourcePort: 40_007,
    destinationPort: 7,
  });
  const view = new DataView(words.buffer);
  for (const sequence of [0, 1, 0x1234_5678, 0xffff_ffff]) {
    words[SEQUENCE / 4] = sequence;
    words[SEQUENCE / 4 + 1] = ~sequence;
    assert.equal(ipv4.check(view, 14, FRAME_LEN), FRAME_LEN - 34);
    assert.equal(udp.check(view, 34, FRAME_LEN), FRAME_LEN - 42);
    const [from, to] = [ipv4.src(view, 14), ipv4.dst(view, 14)];
    assert.ok(udp.checksumIsValid(view, 34, FRAME_LEN - 42, from, to));
    assert.ok(isAnswer(view, 0, FRAME_LEN));
  }
  assert.ok(!isAnswer(view, 0, FRAME_LEN - 1));
});
