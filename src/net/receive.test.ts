/** Packets that come in several pieces: only whole TCP for us is taken, whatever the first piece says. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeQueue } from '../../test/support/fake-queue.ts';
import { arpFrame, ipv4Frame, PEER, US } from '../../test/support/frames.ts';
import {
  ALL_NODES6,
  ipv6Frame,
  PEER6_GLOBAL,
  US6_GLOBAL,
  withExtensions,
} from '../../test/support/frames6.ts';
import { OUR_GLOBAL } from '../../test/support/stack6.ts';
import { formatIpv4 } from '../base/address.ts';
import { FRAME_FLAG, NIC_OFFLOAD } from '../device/nic.ts';
import { OP_REPLY } from '../wire/arp.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../wire/ipv4.ts';
import { type NetCounter, RX_OUTCOMES } from './counters.ts';
import { NetInterface } from './interface.ts';

const ETH_AND_IPV6 = 14 + 40;
const HOP_BY_HOP = 0;

/** ACK with 2,000 bytes, which belongs to no connection. */
function segment(headerWords = 5): Uint8Array {
  const bytes = new Uint8Array(20 + 2000);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 1000);
  view.setUint16(2, 80);
  view.setUint8(12, headerWords << 4);
  view.setUint8(13, 0x10);
  return bytes;
}

const ipv4 = (protocol = PROTOCOL_TCP): Uint8Array => ipv4Frame(PEER, US, protocol, segment());
const ipv6 = (protocol = PROTOCOL_TCP, tcp = segment()): Uint8Array =>
  ipv6Frame(PEER6_GLOBAL, US6_GLOBAL, protocol, tcp);

const cut = (bytes: Uint8Array, ...at: number[]): Uint8Array[] =>
  [0, ...at].map((from, i) => bytes.subarray(from, at[i] ?? bytes.length));

function changed(bytes: Uint8Array, at: number, value: number): Uint8Array {
  bytes[at] = value;
  return bytes;
}

function receive(pieces: readonly Uint8Array[], flags?: number): NetInterface {
  const queue = new FakeQueue({ offloads: NIC_OFFLOAD.checksum | NIC_OFFLOAD.segmentation });
  const net = new NetInterface({
    queue,
    mac: US.mac,
    address: US.ip,
    prefix: 24,
    secret: Int32Array.of(1, 2, 3, 4),
    ipv6: { dadTransmits: 0, autoconfigure: false, addresses: [OUR_GLOBAL] },
  });
  net.poll(0);
  net.poll(2000);
  queue.injectPieces(pieces, flags);
  net.poll(2001);
  net.close();
  assert.equal(queue.framesAvailable, queue.memory.frameCount, 'every frame is back');
  const outcomes = RX_OUTCOMES.reduce((total, name) => total + net.counters[name], 0);
  assert.equal(outcomes, net.counters.rxFrames, 'one outcome each');
  return net;
}

describe('a packet in pieces', () => {
  test('of TCP, over either family: each piece is a segment', () => {
    for (const bytes of [ipv4(), ipv6()]) {
      const { counters } = receive(cut(bytes, 700, 1400));
      assert.equal(counters.noConnection, 3);
      assert.ok(counters.tcpResetsSent > 0);
    }
  });

  const toGroup = ipv6Frame(PEER6_GLOBAL, { ...ALL_NODES6, mac: US.mac }, PROTOCOL_TCP, segment());
  const refused: [string, Uint8Array[], NetCounter, number?][] = [
    ['IPv4 that is not TCP', cut(ipv4(PROTOCOL_UDP), 700), 'noProtocol'],
    ['IPv6 that is not TCP', cut(ipv6(PROTOCOL_UDP), 700), 'noProtocol'],
    [
      'IPv6 with a header between',
      cut(withExtensions(ipv6(), HOP_BY_HOP, Uint8Array.of(6, 0, 1, 4, 0, 0, 0, 0)), 700),
      'noProtocol',
    ],
    ['an IPv6 header that is cut', cut(ipv6(), 40), 'badIp'],
    ['a version that the type does not say', cut(changed(ipv6(), 14, 0x40), 700), 'badIp'],
    ['a length that is not the pieces', cut(changed(ipv6(), 19, 1), 700), 'badIp'],
    ['a TCP header that is cut', cut(ipv6(), ETH_AND_IPV6 + 12), 'badTcp'],
    ['a TCP header that is too long', cut(ipv6(PROTOCOL_TCP, segment(15)), 100), 'badTcp'],
    ['a group', cut(toGroup, 700), 'noProtocol'],
    ['a checksum that nobody looked at', cut(ipv6(), 700), 'notForUs', 0],
    ['another MAC', cut(changed(ipv6(), 5, 9), 700), 'notForUs'],
    ['a type that is neither', cut(changed(ipv6(), 13, 0xde), 700), 'notForUs'],
  ];
  for (const [what, pieces, outcome, flags = FRAME_FLAG.checksum] of refused) {
    test(`refused: ${what}`, () => {
      assert.equal(receive(pieces, flags).counters[outcome], 1, outcome);
    });
  }
});

test('a SYN whose checksum is left to the device waits for its neighbour, and then leaves so', () => {
  const queue = new FakeQueue({ offloads: NIC_OFFLOAD.checksum | NIC_OFFLOAD.segmentation });
  const net = new NetInterface({
    queue,
    mac: US.mac,
    address: US.ip,
    prefix: 24,
    secret: Int32Array.of(1, 2, 3, 4),
  });
  net.poll(0);
  net.tcp.connect({ address: formatIpv4(PEER.ip), port: 80, handlers: { onData() {} } });
  net.poll(1);
  net.poll(1);
  assert.equal(queue.sent.length, 1, 'the request');
  assert.deepEqual(queue.sentFlags, [0]);
  queue.takeSent();
  queue.inject(arpFrame(OP_REPLY, PEER, US));
  net.poll(2);
  net.poll(3);
  assert.equal(queue.sent.length, 1, 'the SYN, at once');
  assert.deepEqual(queue.sentFlags, [FRAME_FLAG.checksum]);
  net.close();
});
