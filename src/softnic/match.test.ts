import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DROP, DROP_REASONS } from '../device/drops.ts';
import { filterOfRange } from '../filter/coverage.ts';
import { parseFilter } from '../filter/parse.ts';
import { FilterSet, FrameFields } from './match.ts';

const MAC = 0x0200_0000_0001;
const IP = 0xcb00_7105;
const PORT = 80;

/** An IPv4 frame from and to MAC, IP and PORT, so that one filter matches it both ways. */
function frame(protocol = 6, length = 60): DataView {
  const bytes = Buffer.alloc(length);
  bytes.writeUIntBE(MAC, 0, 6);
  bytes.writeUIntBE(MAC, 6, 6);
  bytes.set([8, 0, 0x45, 0, 0, length - 14], 12);
  bytes[23] = protocol;
  bytes.writeUInt32BE(IP, 26);
  bytes.writeUInt32BE(IP, 30);
  bytes.writeUInt16BE(PORT, 34);
  bytes.writeUInt16BE(PORT, 36);
  return new DataView(bytes.buffer, bytes.byteOffset, length);
}

function parsed(view: DataView): FrameFields {
  const fields = new FrameFields();
  assert.equal(fields.parse(view, 0, view.byteLength), 0);
  return fields;
}

const filter = (
  protocol: 'any' | 'udp' | 'tcp' | 'icmp',
  portFirst = 0,
  portLast = 65535,
  address = IP,
) => filterOfRange({ protocol, first: address, last: address, portFirst, portLast });

describe('filters', () => {
  for (const [what, filters, protocol, sends, receives] of [
    ['none', [], 6, 'spoofedAddress', false],
    ['any', [filter('any')], 6, null, true],
    ['any, of another protocol', [filter('any')], 89, null, true],
    ['the port', [filter('tcp', 80, 80)], 6, null, true],
    ['a range that ends before it', [filter('tcp', 1, 79)], 6, 'spoofedPort', false],
    ['a range that starts after it', [filter('tcp', 81)], 6, 'spoofedPort', false],
    ['the other transport', [filter('udp', 80, 80)], 6, 'spoofedPort', false],
    ['icmp', [filter('icmp')], 1, null, true],
    ['another address', [filter('any', 0, 65535, IP - 1)], 6, 'spoofedAddress', false],
    ['the second of two', [filter('udp'), filter('tcp', 80, 90)], 6, null, true],
  ] as const) {
    test(what, () => {
      const set = new FilterSet(MAC, filters);
      const reason = set.checkSent(parsed(frame(protocol)));
      assert.equal(reason < 0 ? null : DROP_REASONS[reason], sends);
      assert.equal(set.receives(parsed(frame(protocol))), receives);
    });
  }

  test('a later fragment has no ports: whoever speaks of ports does not get it', () => {
    const view = frame(17);
    view.setUint16(20, 1);
    const takes = (text: string): boolean =>
      new FilterSet(MAC, [parseFilter(text)]).receives(parsed(view));
    assert.equal(takes('udp dst portrange 0-65535'), false);
    assert.equal(takes('udp src port 80 or udp dst port 80'), false);
    assert.equal(takes('tcp'), false);
    assert.equal(takes('udp'), true);
    assert.equal(takes('any'), true);
    assert.equal(takes('not udp dst port 80'), true, 'it is not that');
    view.setUint16(20, 0x2000);
    assert.equal(takes('udp dst portrange 0-65535'), true, 'the first');
  });

  test('what is sent has filters of its own, or mirrors what is received', () => {
    const receive = [parseFilter('tcp dst port 80 and src port 80')];
    const verdict = (...transmit: string[]): number =>
      new FilterSet(MAC, receive, transmit.map(parseFilter)).checkSent(parsed(frame()));
    assert.equal(new FilterSet(MAC, receive).checkSent(parsed(frame())), -1);
    assert.equal(verdict('tcp src port 80'), -1);
    assert.equal(verdict('tcp src port 81', 'tcp dst port 80'), -1);
    assert.equal(verdict('tcp dst port 81'), DROP.spoofedPort);
    assert.equal(verdict('src host 10.0.0.1'), DROP.spoofedAddress);
    assert.equal(verdict(), DROP.spoofedAddress);
  });

  test('ARP goes to whoever has every packet of the address, by one filter or several', () => {
    const view = frame();
    view.setUint16(12, 0x0806);
    Buffer.from(view.buffer, view.byteOffset).set([0, 1, 8, 0, 6, 4, 0, 1], 14);
    view.setUint32(38, IP);
    const owns = (...texts: string[]): boolean =>
      new FilterSet(MAC, texts.map(parseFilter)).receives(parsed(view));
    assert.equal(owns(`dst host 203.0.113.5`), true);
    assert.equal(owns('dst net 203.0.113.0/24'), true);
    assert.equal(owns('udp', 'not udp'), true);
    assert.equal(owns('udp or not udp dst port 9'), true);
    assert.equal(owns('udp', 'tcp', 'icmp'), false);
    assert.equal(owns('not udp dst port 9'), false);
    assert.equal(owns('dst host 203.0.113.6'), false);
    assert.equal(owns(), false);
  });

  test('another source MAC is spoofed first of all', () => {
    const view = frame();
    view.setUint8(11, 9);
    assert.equal(new FilterSet(MAC, []).checkSent(parsed(view)), DROP.spoofedMac);
  });
});

describe('frames', () => {
  test('cut at any byte, a frame is refused and nothing beyond it is read', () => {
    const whole = frame();
    for (let length = 0; length < whole.byteLength; length++) {
      const cut = new DataView(whole.buffer, whole.byteOffset, length);
      assert.equal(new FrameFields().parse(cut, 0, length), -1 - DROP.truncated, `${length}`);
    }
  });

  test('a first fragment too short for ports is refused', () => {
    const view = frame();
    view.setUint16(16, 23);
    assert.equal(new FrameFields().parse(view, 0, view.byteLength), -1 - DROP.truncated);
    view.setUint16(16, 24);
    assert.equal(new FrameFields().parse(view, 0, view.byteLength), 0);
  });

  test('ports stand after the options', () => {
    const view = frame();
    view.setUint8(14, 0x46);
    view.setUint16(38, 1234);
    view.setUint16(40, 4321);
    const fields = parsed(view);
    assert.deepEqual([fields.srcPort, fields.dstPort], [1234, 4321]);
  });
});
