import assert from 'node:assert/strict';
import { test } from 'node:test';
import { netmask, parseIpv4 } from '../base/address.ts';
import { ipv4In, Routes, shown } from './routes.ts';

const kernel = [
  { address: parseIpv4('127.0.0.1'), mask: netmask(8) },
  { address: parseIpv4('172.17.0.2'), mask: netmask(16) },
  { address: parseIpv4('10.77.0.1'), mask: netmask(24) },
];
const address = parseIpv4('10.77.0.2');
const lonely = new Routes({ address, prefix: 24, gateway: 0 }, kernel);
const routed = new Routes({ address, prefix: 24, gateway: parseIpv4('10.77.0.1') }, kernel);

test('where connections go', () => {
  const ways = {
    '127.0.0.1': ['loopback', 'loopback'],
    '127.8.8.8': ['loopback', 'loopback'],
    '::1': ['loopback', 'loopback'],
    '0.0.0.0': ['loopback', 'loopback'],
    '10.77.0.2': ['self', 'self'],
    '::ffff:10.77.0.2': ['self', 'self'],
    // The kernel's own end of the subnet, too: it is reached over the wire.
    '10.77.0.1': ['vnic', 'vnic'],
    '10.77.0.9': ['vnic', 'vnic'],
    '10.77.1.9': ['kernel', 'vnic'],
    '172.17.0.9': ['kernel', 'kernel'],
    '8.8.8.8': ['kernel', 'vnic'],
    '224.0.0.251': ['vnic', 'vnic'],
    '255.255.255.255': ['vnic', 'vnic'],
    '2001:db8::1': ['kernel', 'kernel'],
  };
  for (const [to, [without, with_]] of Object.entries(ways)) {
    assert.equal(lonely.toward(to), without, `${to} without a gateway`);
    assert.equal(routed.toward(to), with_, `${to} with a gateway`);
  }
});

test('whose a bound socket is', () => {
  const places = {
    '0.0.0.0': 'any',
    '::': 'any',
    '0:0:0:0:0:0:0:0': 'any',
    '::ffff:0.0.0.0': 'any',
    '10.77.0.2': 'vnic',
    '::ffff:10.77.0.2': 'vnic',
    '10.77.0.1': 'kernel',
    '127.0.0.1': 'kernel',
    '::1': 'kernel',
  };
  for (const [at, place] of Object.entries(places)) assert.equal(lonely.placeOf(at), place, at);
});

test('broadcast addresses', () => {
  assert.equal(lonely.isBroadcast(0xffffffff), true);
  assert.equal(lonely.isBroadcast(parseIpv4('10.77.0.255')), true);
  assert.equal(lonely.isBroadcast(parseIpv4('10.77.0.254')), false);
  const narrow = new Routes({ address, prefix: 31, gateway: 0 }, kernel);
  assert.equal(narrow.isBroadcast(parseIpv4('10.77.0.3')), false);
});

test('IPv4 addresses in sockets of IPv6', () => {
  assert.equal(shown('10.0.0.1', true), '::ffff:10.0.0.1');
  assert.equal(shown('10.0.0.1', false), '10.0.0.1');
  assert.equal(shown('fe80::1', true), 'fe80::1');
  assert.equal(ipv4In('::FFFF:1.2.3.4'), 0x01020304);
  assert.equal(ipv4In('::ffff:102:304'), -1);
});
