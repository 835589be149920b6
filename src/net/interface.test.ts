/** The stack as a whole, turn by turn, on a device without a network. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeQueue, type FakeQueueOptions } from '../../test/support/fake-queue.ts';
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
import { netmask } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import { formatFrame } from '../wire/format.ts';
import { type NetCounter, RX_OUTCOMES } from './counters.ts';
import { NetInterface, type NetOptions } from './interface.ts';
import { NET_LIMITS } from './limits.ts';
import { UDP_PAYLOAD_OFFSET } from './udp.ts';

const HELLO = new Uint8Array(Buffer.from('hello'));
const BROADCAST = { mac: 0xffffffffffff, ip: 0xffffffff };
const SUBNET = { mac: 0xffffffffffff, ip: (US.ip | ~netmask(24)) >>> 0 };

function start(options: Partial<NetOptions> = {}, queueOptions: FakeQueueOptions = {}) {
  const queue = new FakeQueue(queueOptions);
  const net = new NetInterface({ queue, mac: US.mac, address: US.ip, prefix: 24, ...options });
  return { queue, net };
}

/** `bytes` received in one turn at `nowMs`; what was sent because of it. */
function receive(net: NetInterface, queue: FakeQueue, bytes: Uint8Array, nowMs = 0): Uint8Array[] {
  queue.inject(bytes);
  net.poll(nowMs);
  return queue.takeSent();
}

/** Exactly one outcome was counted, `name`, and no frame is lost. */
function expectOutcome(net: NetInterface, queue: FakeQueue, name: NetCounter): void {
  const counted = RX_OUTCOMES.filter((outcome) => net.counters[outcome] > 0);
  assert.deepEqual(counted, [name]);
  assert.equal(queue.framesAvailable, queue.memory.frameCount);
}

const lines = (frames: Uint8Array[]) => frames.map((f) => formatFrame(viewOfBytes(f), 0, f.length));

const toUs = (payload = HELLO, to: { mac: number; ip: number } = US) =>
  udpFrame({ ...PEER, port: 1024 }, { ...to, port: 7 }, payload);

describe('UDP', () => {
  test('an echo in place is bit for bit what another implementation sends', () => {
    const { queue, net } = start();
    net.udp.bind(7, (frame, at, length) => net.udp.echoInPlace(frame, at, length));
    const [reply] = receive(net, queue, toUs());
    assert.equal(
      toHex(reply!),
      '02000000000102000000000208004500002100014000401126c90a0000020a00000100070400000da3f868656c6c6f',
    );
    expectOutcome(net, queue, 'rxUdp');
  });

  test('the handler gets the payload, the sender, and an int32 address', () => {
    const { queue, net } = start();
    const calls: unknown[] = [];
    net.udp.bind(7, (frame, at, length, srcIp, srcPort) => {
      const text = Buffer.from(queue.memory.u8.slice(at, at + length)).toString();
      calls.push([at - frame, text, srcIp, srcIp >>> 0, srcPort]);
    });
    receive(net, queue, udpFrame({ ...FAR, port: 53 }, { ...US, port: 7 }, HELLO));
    assert.deepEqual(calls, [[UDP_PAYLOAD_OFFSET, 'hello', FAR.ip | 0, FAR.ip, 53]]);
    expectOutcome(net, queue, 'rxUdp');
  });

  test('a reply of another length and content has a right checksum', () => {
    const { queue, net } = start();
    net.udp.bind(7, (frame, at) => {
      queue.memory.u8.set(Buffer.from('goodbye!'), at);
      net.udp.replyInPlace(frame, at, 8);
    });
    const [reply] = receive(net, queue, toUs());
    const back = start({ address: PEER.ip, mac: PEER.mac });
    let text = '';
    back.net.udp.bind(1024, (_frame, at, length) => {
      text = Buffer.from(back.queue.memory.u8.slice(at, at + length)).toString();
    });
    receive(back.net, back.queue, reply!);
    assert.equal(text, 'goodbye!');
  });

  test('options are tolerated, and cut out of the answer', () => {
    for (const answer of ['echoInPlace', 'replyInPlace'] as const) {
      const { queue, net } = start();
      net.udp.bind(7, (frame, at, length) => net.udp[answer](frame, at, length));
      const [reply] = receive(net, queue, withOptions(toUs(), hex('07 07 04 00000000 00')));
      assert.equal(reply?.length, 47);
      assert.deepEqual(lines([reply!]), ['10.0.0.2 > 10.0.0.1 UDP 7 > 1024 len 5']);
      expectOutcome(net, queue, 'rxUdp');
    }
  });

  test('a broadcast is delivered, and answered from our own address', () => {
    for (const to of [BROADCAST, SUBNET]) {
      const { queue, net } = start();
      net.udp.bind(7, (frame, at, length) => net.udp.echoInPlace(frame, at, length));
      const [reply] = receive(net, queue, toUs(HELLO, to));
      assert.deepEqual(lines([reply!]), ['10.0.0.2 > 10.0.0.1 UDP 7 > 1024 len 5']);
      const back = start({ address: PEER.ip, mac: PEER.mac });
      back.net.udp.bind(1024, () => {});
      receive(back.net, back.queue, reply!);
      expectOutcome(back.net, back.queue, 'rxUdp');
    }
  });

  test('a frame without a checksum is accepted, and its echo has one', () => {
    const { queue, net } = start();
    net.udp.bind(7, (frame, at, length) => net.udp.echoInPlace(frame, at, length));
    const bytes = toUs();
    viewOfBytes(bytes).setUint16(40, 0);
    const [reply] = receive(net, queue, bytes);
    assert.equal(viewOfBytes(reply!).getUint16(40), 0xa3f8);
  });

  test('a wrong checksum, a lying length', () => {
    const wrong = start();
    const bytes = toUs();
    bytes[44]! ^= 1;
    assert.deepEqual(receive(wrong.net, wrong.queue, bytes), []);
    expectOutcome(wrong.net, wrong.queue, 'badChecksum');
    const lying = start();
    const long = toUs();
    viewOfBytes(long).setUint16(38, 14);
    receive(lying.net, lying.queue, long);
    expectOutcome(lying.net, lying.queue, 'badUdp');
  });

  test("a held frame is the handler's, until it replies in it or frees it", () => {
    const { queue, net } = start();
    const held: number[] = [];
    net.udp.bind(7, (frame) => {
      net.udp.hold(frame);
      held.push(frame);
    });
    receive(net, queue, toUs());
    receive(net, queue, toUs());
    assert.equal(queue.framesAvailable, queue.memory.frameCount - 2);
    net.udp.echoInPlace(held[0]!, held[0]! + UDP_PAYLOAD_OFFSET, 5);
    net.udp.free(held[1]!);
    assert.equal(net.flush(), 1);
    net.poll(1);
    assert.equal(queue.takeSent().length, 1);
    expectOutcome(net, queue, 'rxUdp');
  });

  test('a handler that throws loses no frame, and the next turn goes on with the batch', () => {
    const { queue, net } = start();
    let calls = 0;
    net.udp.bind(7, (frame, at, length) => {
      if (++calls === 2) throw new Error('handler');
      net.udp.echoInPlace(frame, at, length);
    });
    for (let i = 0; i < 4; i++) queue.inject(toUs());
    assert.throws(() => net.poll(0), /handler/);
    net.poll(0);
    assert.equal(queue.takeSent().length, 3);
    assert.equal(queue.framesAvailable, queue.memory.frameCount);
  });

  test('a reply that does not fit in the buffer is dropped and counted; one longer than the link goes in pieces', () => {
    const { queue, net } = start({ mtu: 576 });
    net.udp.bind(7, (frame, at) => {
      assert.equal(net.udp.replyInPlace(frame, at, 2048), false);
    });
    net.udp.bind(9, (frame, at) => {
      assert.equal(net.udp.replyInPlace(frame, at, 549), true);
    });
    net.udp.bind(8, (frame, at) => {
      assert.equal(net.udp.replyInPlace(frame, at, 548), true);
    });
    assert.deepEqual(receive(net, queue, toUs()), []);
    assert.equal(net.counters.txTooLong, 1);
    const other = udpFrame({ ...PEER, port: 1024 }, { ...US, port: 8 }, HELLO);
    assert.equal(receive(net, queue, other)[0]?.length, 590);
    const third = udpFrame({ ...PEER, port: 1024 }, { ...US, port: 9 }, HELLO);
    const pieces = receive(net, queue, third).map(({ length }) => length);
    assert.deepEqual(pieces, [34 + 552, 34 + 5]);
  });

  test('binding: refused twice, for no port, beyond the limit; unbound again', () => {
    const { net } = start();
    const handler = () => {};
    net.udp.bind(7, handler);
    const code = (wanted: string) => (e: unknown) => e instanceof ArrakisError && e.code === wanted;
    assert.throws(() => net.udp.bind(7, handler), code('ARK_IN_USE'));
    assert.throws(() => net.udp.bind(0, handler), code('ARK_BAD_ARGUMENT'));
    assert.throws(() => net.udp.bind(65536, handler), code('ARK_BAD_ARGUMENT'));
    for (let i = 1; i < NET_LIMITS.udpSocketsMax; i++) net.udp.bind(1000 + i, handler);
    assert.throws(() => net.udp.bind(9, handler), code('ARK_LIMIT'));
    net.udp.unbind(7);
    net.udp.unbind(7);
    net.udp.bind(9, handler);
  });
});

describe('what is not for us', () => {
  const cases: [NetCounter, string, Uint8Array][] = [
    ['badEthernet', 'half a header', hex('020000000002 0200')],
    [
      'badEthernet',
      'a group as sender',
      udpFrame({ mac: 0x010000000001, ip: PEER.ip, port: 1 }, { ...US, port: 7 }, HELLO),
    ],
    ['notForUs', 'another MAC', toUs(HELLO, { mac: OTHER.mac, ip: US.ip })],
    ['notForUs', 'a multicast MAC', toUs(HELLO, { mac: 0x01005e000001, ip: 0xe0000001 })],
    ['notForUs', 'another address', toUs(HELLO, { mac: US.mac, ip: OTHER.ip })],
    ['notForUs', 'our address in a link broadcast', toUs(HELLO, { mac: BROADCAST.mac, ip: US.ip })],
    ['otherProtocol', 'IPv6', hex('020000000002 020000000001 86dd 60000000')],
    [
      'badSource',
      'from our own address',
      udpFrame({ mac: PEER.mac, ip: US.ip, port: 1 }, { ...US, port: 7 }, HELLO),
    ],
    [
      'badSource',
      'from the subnet broadcast',
      udpFrame({ ...SUBNET, mac: PEER.mac, port: 1 }, { ...US, port: 7 }, HELLO),
    ],
    [
      'badSource',
      'from loopback',
      udpFrame({ mac: PEER.mac, ip: 0x7f000001, port: 1 }, { ...US, port: 7 }, HELLO),
    ],
    [
      'badSource',
      'from a multicast address',
      udpFrame({ mac: PEER.mac, ip: 0xe0000001, port: 1 }, { ...US, port: 7 }, HELLO),
    ],
    [
      'badSource',
      'from 0.0.0.0',
      udpFrame({ mac: PEER.mac, ip: 0, port: 1 }, { ...US, port: 7 }, HELLO),
    ],
    ['noProtocol', 'SCTP', ipv4Frame(PEER, US, 132, new Uint8Array(20))],
    ['badTcp', 'a header of no length', ipv4Frame(PEER, US, 6, new Uint8Array(20))],
    ['badIp', 'a header alone', toUs().slice(0, 33)],
  ];
  for (const [name, what, bytes] of cases) {
    test(`${name}: ${what}`, () => {
      const { queue, net } = start();
      net.udp.bind(7, () => assert.fail('delivered'));
      receive(net, queue, bytes);
      expectOutcome(net, queue, name);
    });
  }
});

describe('ICMP', () => {
  const PING = echoFrame(PEER, US, new Uint8Array(Buffer.from('abcdefgh')));

  test('an echo request is answered in place, bit for bit', () => {
    const { queue, net } = start();
    const [reply] = receive(net, queue, PING);
    assert.equal(
      toHex(reply!),
      '02000000000102000000000208004500002400014000400126d60a0000020a00000100006e67000100026162636465666768',
    );
    expectOutcome(net, queue, 'rxEcho');
  });

  test('an echo to a broadcast address, and a reply that nobody asked for, are not answered', () => {
    const { queue, net } = start();
    assert.deepEqual(receive(net, queue, echoFrame(PEER, BROADCAST, HELLO)), []);
    assert.deepEqual(receive(net, queue, echoFrame(PEER, US, HELLO, 0)), []);
    expectOutcome(net, queue, 'rxIcmp');
  });

  test('a wrong checksum, half a message', () => {
    const wrong = start();
    const bytes = PING.slice();
    bytes[44]! ^= 1;
    receive(wrong.net, wrong.queue, bytes);
    expectOutcome(wrong.net, wrong.queue, 'badChecksum');
    const half = start();
    receive(half.net, half.queue, ipv4Frame(PEER, US, 1, new Uint8Array(7)));
    expectOutcome(half.net, half.queue, 'badIcmp');
  });

  test('a closed port is reported, bit for bit', () => {
    const { queue, net } = start();
    const bytes = udpFrame({ ...PEER, port: 1024 }, { ...US, port: 9 }, HELLO);
    const [error] = receive(net, queue, bytes);
    assert.equal(
      toHex(error!),
      '02000000000102000000000208004500003d00014000400126bd0a0000020a0000010303111e000000004500002100074000401126c30a0000010a00000204000009000da3f668656c6c6f',
    );
    expectOutcome(net, queue, 'noSocket');
  });

  test('a report quotes no more than fits in 576 bytes, or in the MTU', () => {
    const long = toUs(new Uint8Array(1400));
    const normal = start();
    assert.equal(receive(normal.net, normal.queue, long)[0]?.length, 14 + 576);
    const small = start({ mtu: 100 });
    assert.equal(receive(small.net, small.queue, long)[0]?.length, 14 + 100);
  });

  test('no report for a broadcast, nor faster than the limit', () => {
    const { queue, net } = start();
    assert.deepEqual(receive(net, queue, toUs(HELLO, BROADCAST)), []);
    let reports = 0;
    for (let i = 0; i < NET_LIMITS.icmpErrorBurst + 10; i++) {
      reports += receive(net, queue, toUs(), 1000).length;
    }
    assert.equal(reports, NET_LIMITS.icmpErrorBurst);
    assert.equal(net.counters.icmpLimited, 10);
    assert.equal(receive(net, queue, toUs(), 1010).length, 1, 'ten milliseconds later, one more');
    assert.equal(receive(net, queue, toUs(), 1010).length, 0);
    assert.equal(receive(net, queue, toUs(), 5).length, 0, 'a clock that steps back gives nothing');
  });
});

describe('sending', () => {
  function send(net: NetInterface, queue: FakeQueue, dstIp: number, length = 5): boolean {
    const frame = net.udp.alloc();
    queue.memory.u8.set(HELLO, frame + UDP_PAYLOAD_OFFSET);
    return net.udp.sendTo(frame, length, 7, dstIp, 1024);
  }

  test('to a known neighbour, bit for bit what a reply is', () => {
    const { queue, net } = start();
    net.setNeighbour(PEER.ip, PEER.mac);
    assert.ok(send(net, queue, PEER.ip));
    net.poll(0);
    assert.equal(
      toHex(queue.takeSent()[0]!),
      '02000000000102000000000208004500002100014000401126c90a0000020a00000100070400000da3f868656c6c6f',
    );
  });

  test('off the subnet by the gateway, and nowhere without one', () => {
    const { queue, net } = start({ gateway: PEER.ip });
    net.setNeighbour(PEER.ip, PEER.mac);
    assert.ok(send(net, queue, FAR.ip));
    net.poll(0);
    assert.deepEqual(lines(queue.takeSent()), ['10.0.0.2 > 203.0.113.5 UDP 7 > 1024 len 5']);
    const alone = start();
    assert.equal(send(alone.net, alone.queue, FAR.ip), false);
    assert.equal(alone.net.counters.noRoute, 1);
    assert.equal(alone.queue.framesAvailable, alone.queue.memory.frameCount);
  });

  test('to a broadcast address and to groups, which needs no neighbour; to nobody, not', () => {
    const { queue, net } = start({ gateway: PEER.ip });
    assert.ok(send(net, queue, SUBNET.ip));
    assert.ok(send(net, queue, BROADCAST.ip));
    assert.ok(send(net, queue, 0xe0000001));
    for (const ip of [0, 0xf0000001]) assert.equal(send(net, queue, ip), false);
    net.poll(0);
    assert.equal(queue.takeSent().length, 3);
    assert.equal(net.counters.noRoute, 2);
  });

  test('too long for a frame', () => {
    const { queue, net } = start();
    assert.equal(send(net, queue, PEER.ip, 2048), false);
    assert.equal(net.counters.txTooLong, 1);
    assert.equal(queue.framesAvailable, queue.memory.frameCount);
  });

  test('a full ring keeps frames queued in order; a full queue drops and counts', () => {
    const { queue, net } = start({}, { frameCount: 512 });
    net.setNeighbour(PEER.ip, PEER.mac);
    queue.txRoom = 10;
    const total = NET_LIMITS.txQueueMax + 20;
    for (let i = 0; i < total; i++) {
      const frame = net.udp.alloc();
      queue.memory.view.setUint16(frame + UDP_PAYLOAD_OFFSET, i);
      net.udp.sendTo(frame, 2, 7, PEER.ip, 1024);
    }
    // The overflow first made the device take what it could.
    assert.equal(net.counters.txFull, 10);
    assert.equal(net.counters.txFrames, 10);
    while (net.poll(0) > 0);
    const order = queue.takeSent().map((f) => viewOfBytes(f).getUint16(UDP_PAYLOAD_OFFSET));
    assert.deepEqual(
      order,
      Array.from({ length: total - 10 }, (_, i) => i),
    );
    assert.equal(queue.framesAvailable, 512);
  });

  test('one doorbell per turn, and none in a turn without work', () => {
    const { queue, net } = start();
    net.udp.bind(7, (frame, at, length) => net.udp.echoInPlace(frame, at, length));
    assert.equal(net.poll(0), 0);
    assert.equal(queue.kicks, 0);
    for (let i = 0; i < 100; i++) queue.inject(toUs());
    assert.equal(net.poll(0), 128, 'a batch received and sent');
    assert.equal(queue.kicks, 1);
    assert.equal(queue.takeSent().length, 64);
  });
});

describe('an address shared with the kernel', () => {
  const shared = () => start({ ownsAddress: false });

  test('ARP, ICMP and closed ports are not ours', () => {
    for (const bytes of [arpFrame(1, PEER, US), echoFrame(PEER, US, HELLO)]) {
      const { queue, net } = shared();
      assert.deepEqual(receive(net, queue, bytes), []);
      expectOutcome(net, queue, 'notForUs');
    }
    const { queue, net } = shared();
    assert.deepEqual(receive(net, queue, toUs()), []);
    expectOutcome(net, queue, 'noSocket');
  });

  test('a sender becomes a neighbour; an unknown one is never asked for', () => {
    const { queue, net } = shared();
    const send = () => net.udp.sendTo(net.udp.alloc(), 1, 7, PEER.ip, 1024);
    assert.equal(send(), false);
    assert.equal(net.counters.noNeighbour, 1);
    net.udp.bind(7, () => {});
    receive(net, queue, toUs());
    assert.equal(send(), true);
    for (const nowMs of [1, 100_000, 200_000]) {
      net.poll(nowMs);
      send();
    }
    net.poll(300_000);
    assert.equal(net.counters.arpRequests, 0);
    assert.equal(queue.takeSent().length, 4);
    assert.equal(net.nextTimerMs, Number.POSITIVE_INFINITY);
  });

  test('a sender off the subnet shows where the gateway is', () => {
    const { queue, net } = start({ ownsAddress: false, gateway: PEER.ip });
    net.udp.bind(7, () => {});
    receive(net, queue, udpFrame({ ...FAR, port: 5 }, { ...US, port: 7 }, HELLO));
    assert.equal(net.neighbourState(PEER.ip), 'reachable');
  });
});

describe('options', () => {
  const refused: Partial<NetOptions>[] = [
    { address: 0 },
    { address: 0x7f000001 },
    { address: 0xe0000001 },
    { address: 1.5 },
    { gateway: -1 },
    { prefix: 33 },
    { mac: 0x010000000001 },
    { mac: 0 },
    { mtu: 67 },
    { mtu: 1499.5 },
  ];
  for (const options of refused) {
    test(`${JSON.stringify(options)} is refused`, () => {
      assert.throws(() => start(options), { code: 'ARK_BAD_ARGUMENT' });
    });
  }
});

test('close gives back every frame: received, waiting for a neighbour, waiting for the device', () => {
  const { queue, net } = start();
  net.udp.bind(7, () => {
    throw new Error('handler');
  });
  for (let i = 0; i < 3; i++) queue.inject(toUs());
  assert.throws(() => net.poll(0));
  net.udp.sendTo(net.udp.alloc(), 1, 7, OTHER.ip, 1);
  net.close();
  assert.equal(queue.framesAvailable, queue.memory.frameCount);
});

test('a device that has gone is no work, whatever is queued', () => {
  const { queue, net } = start();
  net.udp.sendTo(net.udp.alloc(), 1, 7, BROADCAST.ip, 1);
  queue.state = 2;
  assert.equal(net.poll(0), 0);
});
