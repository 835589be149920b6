/** Fragments, received by the whole stack: what comes together, what is refused, and what it may cost. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeQueue, type FakeQueueOptions } from '../../test/support/fake-queue.ts';
import { cut, fragment } from '../../test/support/fragments.ts';
import {
  echoFrame,
  ipv4Frame,
  OTHER,
  PEER,
  US,
  udpFrame,
  viewOfBytes,
} from '../../test/support/frames.ts';
import { formatFrame } from '../wire/format.ts';
import { RX_OUTCOMES } from './counters.ts';
import { NetInterface } from './interface.ts';
import { NET_LIMITS } from './limits.ts';

const PORT = 7;

function start(options: FakeQueueOptions = {}) {
  const queue = new FakeQueue({ frameCount: 512, ...options });
  const net = new NetInterface({ queue, mac: US.mac, address: US.ip, prefix: 24 });
  const got: Uint8Array[] = [];
  const large: Uint8Array[] = [];
  net.udp.bind(PORT, (_frame, at, length) => got.push(queue.memory.u8.slice(at, at + length)), {
    onLarge: (payload) => large.push(payload.slice()),
  });
  const receive = (frames: Uint8Array[], nowMs = 0): Uint8Array[] => {
    for (const frame of frames) {
      queue.inject(frame);
      net.poll(nowMs);
    }
    return queue.takeSent();
  };
  const expectNothingHeld = () => {
    assert.equal(net.fragmentsHeld, 0);
    assert.equal(queue.framesAvailable, queue.memory.frameCount);
    const outcomes = RX_OUTCOMES.reduce((sum, name) => sum + net.counters[name], 0);
    assert.equal(outcomes, net.counters.rxFrames, 'one outcome each');
  };
  return { queue, net, got, large, receive, expectNothingHeld };
}

const body = (length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => i * 31 + (i >> 8));
const datagram = (length: number, from = PEER): Uint8Array =>
  udpFrame({ ...from, port: 1024 }, { ...US, port: PORT }, body(length));

/** Every order of a few things. */
function orders<T>(things: readonly T[]): T[][] {
  if (things.length < 2) return [[...things]];
  return things.flatMap((first, i) =>
    orders([...things.slice(0, i), ...things.slice(i + 1)]).map((rest) => [first, ...rest]),
  );
}

describe('what comes together', () => {
  test('in every order, once, and as it was sent', () => {
    for (const pieces of orders(cut(datagram(700), 200))) {
      const { receive, got, net, expectNothingHeld } = start();
      receive(pieces);
      assert.deepEqual(got, [body(700)]);
      assert.equal(net.counters.fragment, pieces.length - 1);
      assert.equal(net.counters.rxUdp, 1);
      expectNothingHeld();
    }
  });

  test('two datagrams of one sender, and the same identification from two senders', () => {
    const { receive, got, expectNothingHeld } = start();
    const sets = [cut(datagram(300), 160, 1), cut(datagram(400), 160, 2)];
    const theirs = cut(datagram(500, OTHER), 160, 1);
    for (let i = 0; i < 4; i++) receive([...sets, theirs].flatMap((set) => set.slice(i, i + 1)));
    assert.deepEqual(got.map(({ length }) => length).sort(), [300, 400, 500]);
    expectNothingHeld();
  });

  test('a repeated piece is dropped alone', () => {
    const { receive, got, net, expectNothingHeld } = start();
    const [first, second, third] = cut(datagram(500), 200) as [Uint8Array, Uint8Array, Uint8Array];
    receive([third, first, first, third, second]);
    assert.deepEqual(got, [body(500)]);
    assert.equal(net.counters.badFragment, 2);
    expectNothingHeld();
  });

  test('longer than a frame: gathered, up to the longest there is', () => {
    for (const length of [2500, 65_507]) {
      const { receive, got, large, expectNothingHeld } = start();
      receive(cut(datagram(length), 1480).reverse());
      assert.deepEqual(large, [body(length)]);
      assert.deepEqual(got, []);
      expectNothingHeld();
    }
  });

  test('nobody takes long datagrams: dropped and counted', () => {
    const { receive, net, expectNothingHeld } = start();
    net.udp.unbind(PORT);
    net.udp.bind(PORT, () => assert.fail('delivered'));
    receive(cut(datagram(4000), 1480));
    assert.equal(net.counters.tooLarge, 1);
    expectNothingHeld();
  });

  test('an echo request in pieces is answered', () => {
    const { receive, expectNothingHeld } = start();
    const sent = receive(cut(echoFrame(PEER, US, body(600)), 304));
    assert.deepEqual(
      sent.map((f) => formatFrame(viewOfBytes(f), 0, f.length)),
      ['10.0.0.2 > 10.0.0.1 ICMP echo reply id 1 seq 2'],
    );
    expectNothingHeld();
  });

  test('a wrong checksum over all pieces', () => {
    const { receive, got, net, expectNothingHeld } = start();
    const pieces = cut(datagram(400), 200);
    pieces[1]![40]! ^= 1;
    receive(pieces);
    assert.deepEqual(got, []);
    assert.equal(net.counters.badChecksum, 1);
    expectNothingHeld();
  });
});

describe('what is refused', () => {
  test('an overlap poisons the datagram: nothing of it is delivered, also not afterwards (RFC 5722)', () => {
    const whole = datagram(600);
    const overlaps: [number, number, boolean][] = [
      [0, 208, true],
      [192, 200, true],
      [200, 208, true],
      [392, 216, false],
    ];
    for (const [offset, length, more] of overlaps) {
      const { receive, got, net, expectNothingHeld } = start();
      const pieces = cut(whole, 200);
      receive([...pieces.slice(0, 2), fragment(whole, 99, offset, length, more), ...pieces]);
      receive(pieces);
      assert.deepEqual(got, [], `${offset}+${length}`);
      assert.equal(net.counters.reassemblyRefused, 1);
      expectNothingHeld();
      receive(pieces, NET_LIMITS.reassemblyV4Ms);
      assert.deepEqual(got, [body(600)], 'after its time, the identification may be used again');
    }
  });

  test('two ends, or bytes beyond the end', () => {
    const whole = datagram(600);
    const contradictions = [
      [fragment(whole, 99, 400, 208, false), fragment(whole, 99, 200, 200, false)],
      [fragment(whole, 99, 200, 200, false), fragment(whole, 99, 400, 208, true)],
      [fragment(whole, 99, 400, 200, true), fragment(whole, 99, 200, 200, false)],
      [fragment(whole, 99, 400, 208, false), fragment(whole, 99, 400, 208, true)],
    ];
    for (const pieces of contradictions) {
      const { receive, net, expectNothingHeld } = start();
      receive(pieces);
      assert.equal(net.counters.reassemblyRefused, 1);
      expectNothingHeld();
    }
  });

  test('tiny pieces, odd lengths, nothing at all, and beyond 65,535 bytes (RFC 1858, "ping of death")', () => {
    const whole = datagram(1400);
    const bad = [
      fragment(whole, 1, 0, 8, true),
      fragment(whole, 2, 0, NET_LIMITS.fragmentLengthMin - 8, true),
      fragment(whole, 3, 0, 100, true),
      fragment(whole, 4, 200, 0, false),
      fragment(whole, 5, 65_528 & ~7, 1408, false),
    ];
    const { receive, net, expectNothingHeld } = start();
    receive(bad);
    assert.equal(net.counters.badFragment, bad.length);
    expectNothingHeld();
  });
});

describe('what it may cost', () => {
  test('time is up: the frames come back, and the sender is told when it was the first piece', () => {
    const { receive, net, queue, expectNothingHeld } = start();
    const pieces = cut(datagram(700), 200);
    receive([pieces[0]!]);
    receive([fragment(datagram(700), 5, 200, 200, true)]);
    assert.equal(net.fragmentsHeld, 2);
    assert.equal(net.nextTimerMs, NET_LIMITS.reassemblyV4Ms);
    net.poll(NET_LIMITS.reassemblyV4Ms - 1);
    assert.equal(net.fragmentsHeld, 2);
    net.poll(NET_LIMITS.reassemblyV4Ms);
    const sent = queue.takeSent();
    net.poll(NET_LIMITS.reassemblyV4Ms);
    assert.equal(sent.length, 1);
    assert.deepEqual([sent[0]![34], sent[0]![35]], [11, 1]);
    assert.equal(net.counters.reassemblyTimeout, 2);
    assert.equal(net.nextTimerMs, Number.POSITIVE_INFINITY);
    expectNothingHeld();
  });

  test('one sender keeps no more than its share, and takes nothing from others', () => {
    const { receive, got, net } = start();
    const victim = cut(datagram(700, OTHER), 200);
    receive(victim.slice(0, 2));
    for (let id = 1000; id < 1400; id++) receive([fragment(datagram(400), id, 0, 200, true)]);
    assert.ok(net.fragmentsHeld <= NET_LIMITS.reassemblyFramesMax / 2 + 2);
    receive(victim.slice(2));
    assert.deepEqual(got, [body(700)]);
    net.close();
  });

  test('many senders keep no more than all may, and the greediest loses first', () => {
    const { receive, got, net, queue } = start();
    const victim = cut(datagram(700, OTHER), 200);
    receive(victim.slice(0, 2));
    const from = (i: number) => ({ mac: PEER.mac, ip: (0x0a000014 + (i % 100)) >>> 0 });
    for (let i = 0; i < 1000; i++) {
      const whole = datagram(1400, from(i));
      receive([200, 400, 600].map((offset) => fragment(whole, i, offset, 200, true)));
    }
    assert.ok(net.fragmentsHeld <= NET_LIMITS.reassemblyFramesMax);
    assert.ok(net.counters.reassemblyFull > 500);
    receive(victim.slice(2));
    assert.deepEqual(got, [body(700)]);
    net.close();
    assert.equal(queue.framesAvailable, 512);
  });

  test('a small pool keeps a quarter at most', () => {
    const { receive, net, queue } = start({ frameCount: 16 });
    for (let id = 0; id < 100; id++) receive([fragment(datagram(400), id, 0, 200, true)]);
    assert.ok(net.fragmentsHeld <= 4);
    assert.ok(queue.framesAvailable >= 12);
    net.close();
    assert.equal(queue.framesAvailable, 16);
  });

  test('a protocol that nobody has, whole at last, is reported', () => {
    const { receive, net, expectNothingHeld } = start();
    const sent = receive(cut(ipv4Frame(PEER, US, 132, body(400)), 200));
    assert.equal(net.counters.noProtocol, 1);
    assert.deepEqual([sent[0]![34], sent[0]![35]], [3, 2]);
    expectNothingHeld();
  });
});
