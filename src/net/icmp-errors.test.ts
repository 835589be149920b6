/** What routers and hosts say about packets that we sent: who hears of it, what it changes, and what is not believed. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeQueue } from '../../test/support/fake-queue.ts';
import { FAR, ipv4Frame, OTHER, PEER, US, viewOfBytes } from '../../test/support/frames.ts';
import * as icmp from '../wire/icmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { ICMP_ERROR } from './icmp-errors.ts';
import { NetInterface } from './interface.ts';
import { NET_LIMITS } from './limits.ts';
import { MAPPED, PathMtu } from './path-mtu.ts';
import { UDP_PAYLOAD_OFFSET } from './udp.ts';

type Heard = [kind: number, ip: number, port: number, mtu: number];

function start() {
  const queue = new FakeQueue();
  const net = new NetInterface({
    queue,
    mac: US.mac,
    address: US.ip,
    prefix: 24,
    gateway: PEER.ip,
  });
  net.setNeighbour(PEER.ip, PEER.mac);
  const heard: Heard[] = [];
  net.udp.bind(1024, () => {}, {
    onError: (kind, ip, port, mtu) => heard.push([kind, ip >>> 0, port, mtu]),
  });
  const send = (length: number): Uint8Array[] => {
    net.udp.sendBytes(new Uint8Array(length), 1024, FAR.ip, 53);
    net.poll(0);
    return queue.takeSent();
  };
  return { queue, net, heard, send };
}

/** An error of `type` and `code`, whose last header word is `rest`, about the sent `frame`; `change` the quote before. */
function error(
  frame: Uint8Array,
  type: number,
  code: number,
  rest = 0,
  change: (quote: Uint8Array) => void = () => {},
  quoted = 28,
): Uint8Array {
  const quote = frame.slice(14, 14 + quoted);
  change(quote);
  const message = new Uint8Array(8 + quote.length);
  message.set(quote, 8);
  icmp.emit(viewOfBytes(message), 0, type, code, rest, message.length);
  return ipv4Frame(OTHER, US, ipv4.PROTOCOL_ICMP, message);
}

describe('errors about what a UDP socket sent', () => {
  const kinds: [number, number, number][] = [
    ...[0, 1, 5, 6, 7, 8, 11, 12, 14, 15].map((code): [number, number, number] => [
      3,
      code,
      ICMP_ERROR.unreachable,
    ]),
    [3, 2, ICMP_ERROR.refused],
    [3, 3, ICMP_ERROR.refused],
    [3, 9, ICMP_ERROR.prohibited],
    [3, 10, ICMP_ERROR.prohibited],
    [3, 13, ICMP_ERROR.prohibited],
    [11, 0, ICMP_ERROR.hopLimit],
    [11, 1, ICMP_ERROR.reassembly],
    [12, 0, ICMP_ERROR.badHeader],
  ];
  for (const [type, code, kind] of kinds) {
    test(`type ${type} code ${code}`, () => {
      const { queue, net, heard, send } = start();
      const [sent] = send(100);
      queue.inject(error(sent!, type, code));
      net.poll(0);
      assert.deepEqual(heard, [[kind, FAR.ip, 53, 0]]);
      assert.equal(net.counters.rxIcmpError, 1);
      assert.deepEqual(queue.takeSent(), [], 'an error is never answered');
      assert.equal(queue.framesAvailable, queue.memory.frameCount);
    });
  }

  test('a path that carries less: the socket hears, and the next datagram goes in pieces', () => {
    const { queue, net, heard, send } = start();
    const [sent] = send(1400);
    assert.equal(sent!.length, 1442);
    queue.inject(error(sent!, 3, 4, 1000));
    net.poll(0);
    assert.deepEqual(heard, [[ICMP_ERROR.tooBig, FAR.ip, 53, 1000 - 28]]);
    const pieces = send(1400);
    assert.deepEqual(
      pieces.map(({ length }) => length),
      [14 + 20 + 976, 14 + 20 + 1408 - 976],
    );
    assert.equal(viewOfBytes(pieces[0]!).getUint16(20), ipv4.MORE_FRAGMENTS, 'may be fragmented');
    assert.equal(net.paths.getV4(OTHER.ip | 0, 0), 1500, 'no other path');
    net.poll(NET_LIMITS.pathMtuMs);
    net.udp.sendBytes(new Uint8Array(1400), 1024, FAR.ip, 53);
    net.poll(NET_LIMITS.pathMtuMs);
    assert.equal(queue.takeSent().length, 1, 'tried again after a while');
  });

  test('a router that does not tell: the next plateau; one that tells too little: the floor', () => {
    for (const [told, mtu] of [
      [0, 1006],
      [68, NET_LIMITS.pathMtuV4Min],
      [1, NET_LIMITS.pathMtuV4Min],
    ] as const) {
      const { queue, net, send } = start();
      const [sent] = send(1400);
      queue.inject(error(sent!, 3, 4, told));
      net.poll(0);
      assert.equal(net.paths.getV4(FAR.ip | 0, 0), mtu);
    }
  });

  test('an MTU that the packet did not exceed changes nothing', () => {
    const { queue, net, send } = start();
    const [sent] = send(1000);
    queue.inject(error(sent!, 3, 4, 1400));
    net.poll(0);
    assert.equal(net.paths.size, 0);
  });
});

describe('what is not believed', () => {
  const lies: [string, (quote: Uint8Array) => void, number?][] = [
    ['from another address than ours', (quote) => quote.set([10, 0, 0, 77], 12)],
    ['from a port that nobody has', (quote) => quote.set([0, 99], 20)],
    ['of a protocol that nobody has', (quote) => quote.set([132], 9)],
    ['not IPv4', (quote) => quote.set([0x65], 0)],
    ['a header that is too short', (quote) => quote.set([0x44], 0)],
    ['a header longer than the quote', (quote) => quote.set([0x4f], 0)],
    ['a piece without ports', (quote) => quote.set([0, 1], 6)],
    ['less than eight bytes of payload', () => {}, 27],
    ['no quote', () => {}, 0],
  ];
  for (const [what, change, length] of lies) {
    test(what, () => {
      const { queue, net, heard, send } = start();
      const [sent] = send(1400);
      queue.inject(error(sent!, 3, 4, 600, change, length));
      net.poll(0);
      assert.deepEqual(heard, []);
      assert.equal(net.counters.badQuote, 1);
      assert.equal(net.paths.size, 0);
    });
  }

  test('codes that nobody has defined', () => {
    for (const [type, code] of [
      [3, 16],
      [11, 2],
      [12, 3],
    ] as const) {
      const { queue, net, heard, send } = start();
      queue.inject(error(send(100)[0]!, type, code));
      net.poll(0);
      assert.deepEqual(heard, []);
      assert.equal(net.counters.badQuote, 1);
    }
  });

  test('a connected socket hears only of its own remote end', () => {
    const { queue, net } = start();
    const heard: number[] = [];
    net.udp.bind(2000, () => {}, {
      remote: { address: FAR.ip, port: 53 },
      onError: (kind) => heard.push(kind),
    });
    net.udp.sendBytes(new Uint8Array(10), 2000, FAR.ip, 53);
    net.poll(0);
    const [sent] = queue.takeSent();
    queue.inject(error(sent!, 3, 3, 0, (quote) => quote.set([0, 54], 22)));
    queue.inject(error(sent!, 3, 3));
    net.poll(0);
    assert.deepEqual(heard, [ICMP_ERROR.refused]);
    assert.equal(net.counters.badQuote, 1);
  });
});

describe('path MTUs', () => {
  const floor = NET_LIMITS.pathMtuV6Min;

  test('a path only shrinks, down to a floor of its family', () => {
    const paths = new PathMtu(1500);
    assert.ok(paths.learn(1, 2, 3, 4, 1400, 0));
    assert.ok(!paths.learn(1, 2, 3, 4, 1450, 0));
    assert.ok(paths.learn(1, 2, 3, 4, 100, 0));
    assert.equal(paths.get(1, 2, 3, 4, 0), floor);
    assert.equal(paths.get(1, 2, 3, 5, 0), 1500);
    assert.equal(paths.get(0, 0, MAPPED, 4, 0), 1500);
    assert.equal(paths.smallest, floor);
    assert.equal(paths.version, 2);
  });

  test('entries are bounded, and end', () => {
    const paths = new PathMtu(1500);
    for (let i = 0; i < 5000; i++) paths.learnV4(i * 7919, 1000, i);
    const max = NET_LIMITS.pathMtuSets * NET_LIMITS.pathMtuWays;
    assert.ok(paths.size <= max && paths.size > max / 2);
    for (let i = 0; i < 5000; i++) paths.getV4(i * 7919, 5000 + NET_LIMITS.pathMtuMs);
    assert.equal(paths.size, 0);
    assert.equal(paths.smallest, 1500);
  });
});

test('the payload of a datagram stands where it did', () => assert.equal(UDP_PAYLOAD_OFFSET, 42));
