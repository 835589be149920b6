/** What a VNIC may send and receive of IPv6, frame by frame. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { viewOfBytes } from '../../test/support/frames.ts';
import {
  ALL_NODES6,
  advertisement,
  echo6Frame,
  fragments6,
  groupHost,
  type Host6,
  icmp6Frame,
  ipv6Frame,
  NOBODY,
  PEER6,
  ROUTER6,
  routerAdvertisement,
  solicitation,
  solicitedGroup,
  US6,
  udp6Frame,
  withExtensions,
} from '../../test/support/frames6.ts';
import { parseIpv6 } from '../base/address.ts';
import { DROP_REASONS } from '../device/drops.ts';
import { parseFilter } from '../filter/parse.ts';
import { Prefixes6 } from './ipv6.ts';
import { FilterSet, FrameFields } from './match.ts';

const WHOLE = [parseFilter('dst host 10.0.0.2')];
const GIVEN = '2001:db8::77';
const OF_PREFIX = '2001:db8:1::ff:fe00:2';
const prefixes = new Prefixes6();
prefixes.add(parseIpv6('2001:db8:1::'), 0);
const BODY = new Uint8Array(8);
const us = (ip: string): Host6 => ({ mac: US6.mac, ip });
const whole = new FilterSet(US6.mac, WHOLE, null, [parseIpv6(GIVEN)]);

/** Why it may not be sent; null: it may. What cannot be parsed is named, too. */
function sent(bytes: Uint8Array, set = whole): string | null {
  const fields = new FrameFields();
  const view = viewOfBytes(bytes);
  const parsed = fields.parse(view, 0, bytes.length);
  const reason = parsed < 0 ? -1 - parsed : set.checkSent(fields, view, prefixes);
  return reason < 0 ? null : DROP_REASONS[reason]!;
}

function received(bytes: Uint8Array, set = whole): boolean {
  const fields = new FrameFields();
  assert.equal(fields.parse(viewOfBytes(bytes), 0, bytes.length), 0);
  return set.receives(fields, prefixes);
}

const datagram = (from: Host6, to = PEER6): Uint8Array =>
  udp6Frame({ ...from, port: 1 }, { ...to, port: 2 }, BODY);

describe('sending', () => {
  test('from its own addresses: of its MAC, under an announced prefix, and given ones', () => {
    for (const ip of [US6.ip, OF_PREFIX, GIVEN]) assert.equal(sent(datagram(us(ip))), null, ip);
    for (const ip of [
      PEER6.ip,
      'fe80::1:ff:fe00:2:1',
      'fe80:0:0:1:0:ff:fe00:2',
      '2001:db8:2::ff:fe00:2',
      '2001:db8:1::1',
      '2001:db8::78',
      '::1',
      '::',
      'ff02::1',
      '::ffff:10.0.0.2',
    ]) {
      assert.equal(sent(datagram(us(ip))), 'spoofedAddress', ip);
    }
    assert.equal(sent(datagram({ ...us(US6.ip), mac: PEER6.mac })), 'spoofedMac');
  });

  test('from no address: only what has to be', () => {
    const nobody = us('::');
    assert.equal(sent(solicitation(nobody, US6.ip)), null);
    assert.equal(sent(icmp6Frame(nobody, groupHost('ff02::2'), 133, 0, new Uint8Array(4))), null);
    assert.equal(sent(icmp6Frame(nobody, groupHost('ff02::16'), 143, 0, new Uint8Array(24))), null);
    assert.equal(sent(echo6Frame(nobody, PEER6, BODY)), 'spoofedAddress');
    assert.equal(sent(advertisement(nobody, ALL_NODES6, US6.ip, 0x20)), 'spoofedArp');
  });

  test('neighbour discovery about itself', () => {
    const self = us(US6.ip);
    assert.equal(sent(solicitation(self, PEER6.ip)), null);
    assert.equal(sent(advertisement(self, PEER6, US6.ip, 0x60)), null);
    assert.equal(sent(advertisement(self, PEER6, GIVEN, 0x60)), null);
    assert.equal(sent(advertisement(self, PEER6, PEER6.ip, 0x60)), 'spoofedArp');
    assert.equal(sent(advertisement(self, PEER6, US6.ip, 0x60, PEER6.mac)), 'spoofedArp');
    const claim = solicitation({ ...self, mac: PEER6.mac }, PEER6.ip);
    claim.set(datagram(self).subarray(6, 12), 6);
    assert.equal(sent(claim), 'spoofedArp');
    const second = Uint8Array.of(1, 1, 2, 0, 0, 0, 0, 2, 1, 1, 2, 0, 0, 0, 0, 1);
    const twice = icmp6Frame(
      self,
      solicitedGroup(PEER6.ip),
      135,
      0,
      Uint8Array.of(0, 0, 0, 0, ...new Uint8Array(16), ...second),
    );
    assert.equal(sent(twice), 'spoofedArp');
  });

  test('no router’s messages, hidden or not', () => {
    const fake = routerAdvertisement(us(US6.ip), { prefixes: [{ prefix: '2001:db8:6::' }] });
    assert.equal(sent(fake), 'spoofedArp');
    const padding = Uint8Array.of(58, 0, 1, 4, 0, 0, 0, 0);
    assert.equal(sent(withExtensions(fake, 60, padding)), 'spoofedArp');
    assert.equal(sent(withExtensions(fake, 0, padding)), 'spoofedArp');
    assert.equal(
      sent(withExtensions(fake, 44, Uint8Array.of(58, 0, 0, 0, 0, 0, 0, 1))),
      'spoofedArp',
    );
    assert.equal(sent(fragments6(fake, 32)[0]!), 'spoofedArp');
    const deep = withExtensions(fake, 60, Uint8Array.of(58, 3, 1, 28, ...new Uint8Array(28)));
    assert.equal(sent(fragments6(deep, 32)[0]!), 'truncated');
    assert.equal(sent(fragments6(deep, 24)[0]!), 'truncated');
    assert.equal(sent(icmp6Frame(us(US6.ip), PEER6, 137, 0, new Uint8Array(36))), 'spoofedArp');
  });

  test('pieces of what is not discovery', () => {
    for (const piece of fragments6(echo6Frame(us(US6.ip), PEER6, new Uint8Array(64)), 32)) {
      assert.equal(sent(piece), null);
    }
  });

  test('a VNIC without a whole address has no IPv6, and one with filters to send by sends none', () => {
    const some = new FilterSet(US6.mac, [parseFilter('udp and dst host 10.0.0.2')]);
    assert.equal(sent(datagram(us(US6.ip)), some), 'spoofedAddress');
    assert.ok(!received(datagram(PEER6, US6), some));
    const limited = new FilterSet(US6.mac, WHOLE, [parseFilter('udp')]);
    assert.equal(sent(datagram(us(US6.ip)), limited), 'spoofedAddress');
  });

  test('cut anywhere, it is truncated or judged', () => {
    const fake = withExtensions(
      routerAdvertisement(us(US6.ip)),
      60,
      Uint8Array.of(58, 0, 1, 4, 0, 0, 0, 0),
    );
    for (let length = 14; length < fake.length; length++) {
      assert.equal(sent(fake.slice(0, length)), 'truncated');
    }
  });
});

describe('receiving', () => {
  test('to its MAC, and to groups; a question only about itself', () => {
    assert.ok(received(datagram(PEER6, US6)));
    assert.ok(received(routerAdvertisement(ROUTER6)));
    assert.ok(received(datagram(PEER6, groupHost('ff02::fb'))));
    assert.ok(received(solicitation(PEER6, US6.ip)));
    assert.ok(received(solicitation(NOBODY, OF_PREFIX)));
    assert.ok(received(solicitation(PEER6, GIVEN)));
    assert.ok(!received(solicitation(PEER6, 'fe80::1:0:2')));
    const broadcast = { mac: 0xffffffffffff, ip: 'ff02::1' };
    assert.ok(!received(datagram(PEER6, broadcast)), 'no IPv6 by broadcast');
  });
});

describe('prefixes', () => {
  const learned = (bytes: Uint8Array): boolean => {
    const fields = new FrameFields();
    const known = new Prefixes6();
    assert.equal(fields.parse(viewOfBytes(bytes), 0, bytes.length), 0);
    fields.ipv6.learnPrefixes(viewOfBytes(bytes), 14, known);
    return known.has(parseIpv6('2001:db8:5::'), 0);
  };
  const say = (flags = 0xc0, length = 64): Uint8Array =>
    routerAdvertisement(ROUTER6, { prefixes: [{ prefix: '2001:db8:5::', flags, length }] });

  test('of a router on the link, for addresses, of the usual length', () => {
    assert.ok(learned(say()));
    assert.ok(!learned(say(0x80)));
    assert.ok(!learned(say(0xc0, 48)));
    const routed = say();
    routed[21] = 64;
    assert.ok(!learned(routed));
    assert.ok(!learned(ipv6Frame(ROUTER6, ALL_NODES6, 17, BODY)));
  });

  test('are few: the newest displace the oldest', () => {
    const known = new Prefixes6();
    for (let i = 0; i < 20; i++) known.add(Int32Array.of(i, 0, 0, 0), 0);
    assert.deepEqual(
      [11, 12, 19].map((i) => known.has(Int32Array.of(i, 0, 0, 0), 0)),
      [false, true, true],
    );
  });
});
