/** IPv6 addresses as text (RFC 4291, section 2.2; RFC 5952). */
import assert from 'node:assert/strict';
import { isIPv6 } from 'node:net';
import { test } from 'node:test';
import { Random } from '../../test/support/random.ts';
import { formatIpv6, parseCidr6, parseIpv6, tryParseIpv6 } from './address.ts';

test('text is parsed into four words', () => {
  for (const [text, ...words] of [
    ['::', 0, 0, 0, 0],
    ['::1', 0, 0, 0, 1],
    ['1::', 0x10000, 0, 0, 0],
    ['2001:DB8::8:800:200c:417a', 0x20010db8, 0, 0x00080800, 0x200c417a],
    ['ff02::1:ff00:2', 0xff020000 | 0, 0, 1, 0xff000002 | 0],
    ['1:2:3:4:5:6:7:8', 0x10002, 0x30004, 0x50006, 0x70008],
    ['1:2:3:4:5:6:7::', 0x10002, 0x30004, 0x50006, 0x70000],
    ['::ffff:10.0.0.2', 0, 0, 0xffff, 0x0a000002],
    ['1:2:3:4:5:6:255.255.255.255', 0x10002, 0x30004, 0x50006, -1],
  ] as const) {
    assert.deepEqual([...parseIpv6(text)], words, text);
  }
});

test('what is no address is refused', () => {
  for (const text of [
    '',
    ':',
    ':::',
    '1:',
    ':1',
    '::1::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '1::2:3:4:5:6:7:8',
    '12345::',
    'g::',
    '::1.2.3',
    '::1.2.3.4:5',
    '1.2.3.4::',
    'fe80::1%eth0',
    ' ::1',
    `::${'0'.repeat(50)}`,
  ]) {
    assert.equal(tryParseIpv6(text), null, text);
    assert.throws(() => parseIpv6(text), { code: 'ARK_BAD_ARGUMENT' });
  }
});

test('each address has one text', () => {
  for (const [text, canonical] of [
    ['2001:0db8::0001', '2001:db8::1'],
    ['2001:db8:0:0:0:0:2:1', '2001:db8::2:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['FE80:0:0:0:0:0:0:0', 'fe80::'],
    ['::ffff:a00:2', '::ffff:10.0.0.2'],
  ] as const) {
    assert.equal(formatIpv6(parseIpv6(text)), canonical);
  }
});

test('any words survive the way to text and back, and Node takes the text', () => {
  const random = new Random(6);
  for (let i = 0; i < 2000; i++) {
    const words = Int32Array.from({ length: 4 }, () =>
      random.oneIn(2) ? 0 : random.uint32() & random.pick([-1, 0xffff, 0xffff0000, 0x000f0000]),
    );
    const text = formatIpv6(words);
    assert.ok(isIPv6(text), text);
    assert.deepEqual(parseIpv6(text), words, text);
  }
});

test('prefixes', () => {
  assert.equal(parseCidr6('2001:db8::2/64').prefix, 64);
  assert.equal(parseCidr6('::1').prefix, 128);
  assert.equal(parseCidr6('::/0').prefix, 0);
  for (const text of ['::/129', '::/', '::/x', '10.0.0.1/8']) {
    assert.throws(() => parseCidr6(text), { code: 'ARK_BAD_ARGUMENT' });
  }
});
