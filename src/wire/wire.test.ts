/** The wire formats against frames that an independent implementation built, and cut off at every length. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  arpFrame,
  echoFrame,
  FAR,
  hex,
  ipv4Frame,
  OTHER,
  PEER,
  toHex,
  US,
  udpFrame,
  viewOfBytes,
  withOptions,
} from '../../test/support/frames.ts';
import * as arp from './arp.ts';
import * as ethernet from './ethernet.ts';
import { formatFrame } from './format.ts';
import * as icmp from './icmp.ts';
import * as ipv4 from './ipv4.ts';
import * as udp from './udp.ts';

const UDP =
  '020000000002020000000001080045000021000740004011 26c3 0a000001 0a000002 04000007000da3f8 68656c6c6f';
const PING =
  '020000000002020000000001080045000024000740004001 26d0 0a000001 0a000002 0800666700010002 6162636465666768';
const IP = ethernet.HEADER_LEN;
const L4 = IP + ipv4.HEADER_LEN;
const bytesOf = (text: string) => new Uint8Array(Buffer.from(text));

const format = (bytes: Uint8Array): string => formatFrame(viewOfBytes(bytes), 0, bytes.length);

describe('bit-exact frames', () => {
  test('UDP over IPv4 over Ethernet is emitted as another implementation emits it', () => {
    const frame = udpFrame({ ...PEER, port: 1024 }, { ...US, port: 7 }, bytesOf('hello'));
    assert.equal(toHex(frame), toHex(hex(UDP)));
  });

  test('so is an ICMP echo', () => {
    assert.equal(toHex(echoFrame(PEER, US, bytesOf('abcdefgh'))), toHex(hex(PING)));
  });

  test('RFC 826: an ARP request', () => {
    const frame = arpFrame(arp.OP_REQUEST, PEER, US);
    const expected =
      'ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002';
    assert.equal(toHex(frame), toHex(hex(expected)));
  });

  test('a UDP checksum that comes out as zero is sent as ones', () => {
    const frame = udpFrame({ ...PEER, port: 1024 }, { ...US, port: 7 }, hex('e7d0'));
    assert.equal(viewOfBytes(frame).getUint16(L4 + 6), 0xffff);
    assert.ok(udp.checksumIsValid(viewOfBytes(frame), L4, 2, PEER.ip | 0, US.ip | 0));
  });
});

describe('getters', () => {
  const view = viewOfBytes(hex(UDP));

  test('Ethernet', () => {
    assert.equal(ethernet.dstHi(view, 0), 0x0200);
    assert.equal(ethernet.dstLo(view, 0), 2);
    assert.equal(ethernet.srcLo(view, 0), 1);
    assert.equal(ethernet.type(view, 0), ethernet.TYPE_IPV4);
    assert.ok(ethernet.isGroup(0xffff) && ethernet.isGroup(0x0100) && !ethernet.isGroup(0x0200));
  });

  test('IPv4', () => {
    assert.equal(ipv4.headerLength(view, IP), 20);
    assert.equal(ipv4.totalLength(view, IP), 33);
    assert.equal(ipv4.id(view, IP), 7);
    assert.equal(ipv4.ttl(view, IP), 64);
    assert.equal(ipv4.protocol(view, IP), ipv4.PROTOCOL_UDP);
    assert.equal(ipv4.src(view, IP), PEER.ip);
    assert.equal(ipv4.isFragment(view, IP), false);
    const far = viewOfBytes(ipv4Frame(FAR, US, 17, new Uint8Array(8)));
    assert.equal(ipv4.src(far, IP) >>> 0, FAR.ip);
  });

  test('UDP', () => {
    assert.equal(udp.srcPort(view, L4), 1024);
    assert.equal(udp.dstPort(view, L4), 7);
    assert.equal(udp.length(view, L4), 13);
    assert.equal(udp.checksumField(view, L4), 0xa3f8);
  });
});

describe('check refuses every truncation and each lying field', () => {
  test('Ethernet', () => {
    const view = viewOfBytes(hex(UDP));
    for (let end = 0; end < 14; end++) assert.equal(ethernet.check(view, 0, end), -1);
    assert.equal(ethernet.check(view, 0, 47), 33);
    view.setUint16(12, 46);
    assert.equal(ethernet.check(view, 0, 47), -1, 'an IEEE 802.3 length');
  });

  test('ARP', () => {
    const bytes = arpFrame(arp.OP_REPLY, PEER, US);
    const view = viewOfBytes(bytes);
    for (let end = IP; end < bytes.length; end++) assert.equal(arp.check(view, IP, end), -1);
    assert.equal(arp.check(view, IP, bytes.length), 0);
    for (let at = IP; at < IP + 8; at++) {
      const lie = viewOfBytes(bytes.slice());
      lie.setUint8(at, 0x77);
      assert.equal(arp.check(lie, IP, bytes.length), -1, `byte ${at}`);
    }
  });

  test('IPv4', () => {
    const bytes = hex(UDP);
    const view = viewOfBytes(bytes);
    for (let end = IP; end < bytes.length; end++) assert.equal(ipv4.check(view, IP, end), -1);
    assert.equal(ipv4.check(view, IP, bytes.length), 13);
    assert.equal(ipv4.check(viewOfBytes(new Uint8Array(80)), IP, 80), -1, 'version 0');
    const lie = (at: number, value: number): number => {
      const copy = viewOfBytes(bytes.slice());
      copy.setUint8(at, value);
      return ipv4.check(copy, IP, bytes.length);
    };
    assert.equal(lie(IP, 0x65), -1, 'version 6');
    assert.equal(lie(IP, 0x44), -1, 'header shorter than a header');
    assert.equal(lie(IP, 0x4f), -1, 'header longer than the datagram');
    assert.equal(lie(IP + 3, 19), -1, 'total length shorter than the header');
    assert.equal(lie(IP + 2, 0x40), -1, 'total length beyond the frame');
    assert.equal(lie(IP + 8, 63), ipv4.BAD_CHECKSUM);
  });

  test('IPv4 with options, and with Ethernet padding behind it', () => {
    const bytes = withOptions(hex(UDP), hex('01010101 01010100'));
    const padded = new Uint8Array(64);
    padded.set(bytes);
    assert.equal(ipv4.check(viewOfBytes(padded), IP, padded.length), 13);
    assert.equal(ipv4.headerLength(viewOfBytes(padded), IP), 28);
  });

  test('ICMP', () => {
    const bytes = hex(PING);
    const view = viewOfBytes(bytes);
    assert.equal(icmp.check(view, L4, bytes.length), 8);
    for (let end = L4; end < bytes.length; end++) assert.ok(icmp.check(view, L4, end) < 0);
    view.setUint8(L4 + 9, 0);
    assert.equal(icmp.check(view, L4, bytes.length), icmp.BAD_CHECKSUM);
  });

  test('UDP', () => {
    const bytes = hex(UDP);
    const view = viewOfBytes(bytes);
    for (let end = L4; end < bytes.length; end++) assert.equal(udp.check(view, L4, end), -1);
    assert.equal(udp.check(view, L4, bytes.length), 5);
    assert.ok(udp.checksumIsValid(view, L4, 5, PEER.ip, US.ip));
    assert.ok(!udp.checksumIsValid(view, L4, 5, OTHER.ip, US.ip), 'the addresses are covered');
    view.setUint16(L4 + 4, 7);
    assert.equal(udp.check(view, L4, bytes.length), -1, 'shorter than a header');
    view.setUint16(L4 + 4, 14);
    assert.equal(udp.check(view, L4, bytes.length), -1, 'longer than the payload of the datagram');
    view.setUint16(L4 + 6, 0);
    assert.ok(udp.checksumIsValid(view, L4, 5, OTHER.ip, US.ip), '0 is no checksum');
  });
});

test('retype keeps an ICMP checksum right', () => {
  const bytes = hex(PING);
  const view = viewOfBytes(bytes);
  icmp.retype(view, L4, icmp.ECHO_REPLY, 0);
  assert.equal(icmp.check(view, L4, bytes.length), 8);
  assert.equal(view.getUint16(L4 + 2), 0x6e67);
});

describe('format', () => {
  test('a line for each kind of frame', () => {
    assert.equal(format(hex(UDP)), '10.0.0.1 > 10.0.0.2 UDP 1024 > 7 len 5');
    assert.equal(format(hex(PING)), '10.0.0.1 > 10.0.0.2 ICMP echo request id 1 seq 2');
    assert.equal(format(arpFrame(1, PEER, US)), 'ARP who-has 10.0.0.2 tell 10.0.0.1');
    assert.equal(format(arpFrame(2, PEER, US)), 'ARP 10.0.0.1 is-at 02:00:00:00:00:01');
    assert.equal(
      format(ipv4Frame(PEER, US, 6, new Uint8Array(20))),
      '10.0.0.1 > 10.0.0.2 ttl 64 id 7 len 40 proto 6',
    );
    assert.equal(
      format(hex('ffffffffffff 0200000000aa 88cc 60')).slice(0, 43),
      '02:00:00:00:00:aa > ff:ff:ff:ff:ff:ff 0x88c',
    );
  });

  test('every truncation of every frame has a line too', () => {
    for (const bytes of [hex(UDP), hex(PING), arpFrame(1, PEER, US)]) {
      for (let length = 0; length < bytes.length; length++) {
        assert.match(formatFrame(viewOfBytes(bytes), 0, length), /^bad |bad ARP$/);
      }
    }
  });
});
