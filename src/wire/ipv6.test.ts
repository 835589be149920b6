/** IPv6 formats: each whole, at every truncation, and as a line of text. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { viewOfBytes } from '../../test/support/frames.ts';
import {
  advertisement,
  echo6Frame,
  fragments6,
  icmp6Frame,
  L4_AT6,
  PEER6,
  ROUTER6,
  routerAdvertisement,
  solicitation,
  US6,
  udp6Frame,
  withExtensions,
} from '../../test/support/frames6.ts';
import { HeaderWalk, WALK } from './extensions.ts';
import { formatFrame } from './format.ts';
import * as icmpv6 from './icmpv6.ts';
import * as ipv6 from './ipv6.ts';
import * as mld from './mld.ts';
import * as ndp from './ndp.ts';
import * as udp from './udp.ts';

const BODY = new Uint8Array(16);
const DATAGRAM = udp6Frame({ ...PEER6, port: 1024 }, { ...US6, port: 7 }, BODY);
const line = (bytes: Uint8Array, length = bytes.length): string =>
  formatFrame(viewOfBytes(bytes), 0, length);

describe('check', () => {
  test('the header: version, and a length within the frame', () => {
    const view = viewOfBytes(DATAGRAM);
    assert.equal(ipv6.check(view, 14, DATAGRAM.length), 24);
    for (let end = 14; end < DATAGRAM.length; end++) assert.equal(ipv6.check(view, 14, end), -1);
    const other = DATAGRAM.slice();
    other[14] = 0x45;
    assert.equal(ipv6.check(viewOfBytes(other), 14, other.length), -1);
  });

  test('UDP has a checksum, over the addresses too', () => {
    const view = viewOfBytes(DATAGRAM.slice());
    assert.ok(udp.checksumIsValid6(view, L4_AT6, 16, 14));
    view.setUint8(20 + 16, 1);
    assert.ok(!udp.checksumIsValid6(view, L4_AT6, 16, 14));
    view.setUint16(L4_AT6 + 6, 0);
    assert.ok(!udp.checksumIsValid6(view, L4_AT6, 16, 14), 'none is wrong');
  });

  test('options of discovery: whole, not empty, not too many', () => {
    const good = routerAdvertisement(ROUTER6, { prefixes: [{ prefix: '2001:db8::' }] });
    const view = viewOfBytes(good);
    for (let end = L4_AT6; end <= good.length; end++) {
      const isWhole = [16, 24, 56].includes(end - L4_AT6);
      assert.equal(ndp.check(view, L4_AT6, end, ndp.ROUTER_ADVERTISEMENT), isWhole, `${end}`);
    }
    view.setUint8(L4_AT6 + 17, 0);
    assert.ok(!ndp.check(view, L4_AT6, good.length, ndp.ROUTER_ADVERTISEMENT));
  });

  test('the times of MLD are floating (RFC 3810, section 5.1.3)', () => {
    const view = new DataView(new ArrayBuffer(24));
    for (const [code, ms] of [
      [1000, 1000],
      [0x7fff, 32_767],
      [0x8000, 32_768],
      [0xffff, 8_387_584],
    ] as const) {
      view.setUint16(4, code);
      assert.equal(mld.maxResponseMs(view, 0), ms);
    }
  });
});

test('extension headers at every truncation are malformed', () => {
  const headers = Uint8Array.of(
    60,
    0,
    5,
    2,
    0,
    0,
    1,
    0,
    43,
    1,
    1,
    12,
    ...new Uint8Array(12),
    17,
    0,
    4,
    0,
    0,
    0,
    0,
    0,
  );
  const bytes = withExtensions(DATAGRAM, 0, headers);
  const view = viewOfBytes(bytes);
  const walk = new HeaderWalk();
  for (let end = L4_AT6; end < L4_AT6 + headers.length; end++) {
    assert.equal(walk.run(view, L4_AT6, end, 0, 20, true), WALK.malformed);
  }
  assert.equal(walk.run(view, L4_AT6, bytes.length, 0, 20, true), WALK.payload);
  assert.deepEqual([walk.protocol, walk.payloadAt], [17, L4_AT6 + headers.length]);
});

describe('format', () => {
  test('a line for each kind of frame', () => {
    const path = 'fe80::ff:fe00:1 > fe80::ff:fe00:2';
    assert.equal(line(DATAGRAM), `${path} UDP 1024 > 7 len 16`);
    assert.equal(line(echo6Frame(PEER6, US6, BODY)), `${path} ICMPv6 echo request id 1 seq 2`);
    assert.equal(line(icmp6Frame(PEER6, US6, 1, 4, BODY)), `${path} ICMPv6 unreachable code 4`);
    assert.equal(line(solicitation(PEER6, '::5', US6)), `${path} ND who-has ::5`);
    assert.equal(
      line(advertisement(PEER6, US6, '::5', 0x20)),
      `${path} ND ::5 is-at 02:00:00:00:00:01`,
    );
    assert.equal(line(advertisement(PEER6, US6, '::5', 0x20, null)), `${path} ND ::5 is there`);
    assert.equal(
      line(routerAdvertisement(ROUTER6)),
      'fe80::9 > ff02::1 ND router advertisement lifetime 1800',
    );
    const [piece] = fragments6(DATAGRAM, 16);
    assert.equal(line(piece!), `${path} hops 64 len 24 next 44 fragment`);
    assert.equal(
      line(withExtensions(DATAGRAM, 43, Uint8Array.of(17, 0, 0, 1, 0, 0, 0, 0))),
      `${path} hops 64 len 32 next 43 bad extension header`,
    );
  });

  test('every truncation has one, too', () => {
    for (const bytes of [DATAGRAM, solicitation(PEER6, '::5'), routerAdvertisement(ROUTER6)]) {
      for (let length = 0; length < bytes.length; length++)
        assert.match(line(bytes, length), /^bad /);
    }
    assert.equal(icmpv6.isError(127) && !icmpv6.isError(128), true);
  });
});
