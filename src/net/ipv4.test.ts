/** IPv4 beyond one datagram to one host: options, groups, ourselves, VLANs, several sockets on a port, pieces we send. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeQueue } from '../../test/support/fake-queue.ts';
import {
  arpFrame,
  hex,
  ipv4Frame,
  OTHER,
  PEER,
  US,
  udpFrame,
  viewOfBytes,
  withOptions,
} from '../../test/support/frames.ts';
import { ArrakisError } from '../base/errors.ts';
import * as igmp from '../wire/igmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { ICMP_ERROR } from './icmp-errors.ts';
import { NetInterface, type NetOptions } from './interface.ts';
import { NET_LIMITS } from './limits.ts';
import type { TcpConnection } from './tcp/api.ts';
import { UDP_PAYLOAD_MAX, UDP_PAYLOAD_OFFSET } from './udp.ts';

const HELLO = new Uint8Array(Buffer.from('hello'));
const GROUP = { mac: 0x01005e010203, ip: 0xe9010203 };
const GROUP_MAC = GROUP.mac;
const ALL_HOSTS = { mac: 0x01005e000001, ip: 0xe0000001 };
const LOCALHOST = 0x7f000001;

function start(options: Partial<NetOptions> = {}, frameCount = 256) {
  const queue = new FakeQueue({ frameCount });
  const net = new NetInterface({ queue, mac: US.mac, address: US.ip, prefix: 24, ...options });
  const receive = (bytes: Uint8Array, nowMs = 0): Uint8Array[] => {
    queue.inject(bytes);
    net.poll(nowMs);
    return queue.takeSent();
  };
  const listen = (port: number, options = {}): string[] => {
    const got: string[] = [];
    net.udp.bind(
      port,
      (frame, at, length, ip, from) => {
        const text = Buffer.from(queue.memory.u8.slice(at, at + length)).toString('latin1');
        got.push(`${text} ${ip >>> 0} ${from} ${net.udp.destinationOf(frame) >>> 0}`);
      },
      options,
    );
    return got;
  };
  const expectAllBack = () => assert.equal(queue.framesAvailable, frameCount);
  return { queue, net, receive, listen, expectAllBack };
}

const to = (target: { mac: number; ip: number }, port = 7, from = PEER) =>
  udpFrame({ ...from, port: 1024 }, { ...target, port }, HELLO);
const code = (wanted: string) => (e: unknown) => e instanceof ArrakisError && e.code === wanted;

describe('options (RFC 7126)', () => {
  const refused: [string, string][] = [
    ['a loose source route', '83 07 04 0a000009 00'],
    ['a strict source route', '89 07 04 0a000009 00'],
    ['one behind others', '01 01 44 04 05 00 83 03 04 00 00 00'],
    ['no length', '01 01 01 44'],
    ['a length of one', '44 01 00 00'],
    ['a length beyond the header', '44 09 05 00'],
  ];
  for (const [what, options] of refused) {
    test(`${what} is refused`, () => {
      const { net, receive, listen } = start();
      const got = listen(7);
      assert.deepEqual(receive(withOptions(to(US), hex(options))), []);
      assert.deepEqual(got, []);
      assert.equal(net.counters.badOptions, 1);
    });
  }

  test('others, an end with anything behind it, and none are let in', () => {
    const { receive, listen } = start();
    const got = listen(7);
    for (const options of ['01 01 01 01', '44 04 05 00', '00 83 07 04', '94 04 00 00', '']) {
      receive(withOptions(to(US), hex(options)));
    }
    assert.equal(got.length, 5);
  });
});

describe('groups', () => {
  test('what is sent to a group is received by who is in it, from whatever frame it belongs to', () => {
    const { net, receive, listen, expectAllBack } = start();
    const got = listen(7);
    receive(to(GROUP));
    assert.equal(net.counters.notForUs, 1);
    net.groups.join(GROUP.ip);
    receive(to(GROUP));
    receive(to({ mac: US.mac, ip: GROUP.ip }));
    receive(to({ mac: GROUP.mac, ip: 0xe9810203 }));
    assert.deepEqual(got, [`hello ${PEER.ip} 1024 ${GROUP.ip}`]);
    net.groups.leave(GROUP.ip);
    receive(to(GROUP));
    assert.equal(got.length, 1);
    net.poll(10_000);
    net.poll(20_000);
    expectAllBack();
  });

  test('joins count; what is no group is refused, and so is one too many', () => {
    const { net } = start();
    net.groups.join(GROUP.ip);
    net.groups.join(GROUP.ip);
    net.groups.leave(GROUP.ip);
    assert.ok(net.groups.has(GROUP.ip | 0));
    net.groups.leave(GROUP.ip);
    assert.throws(() => net.groups.leave(GROUP.ip), code('ARK_NOT_FOUND'));
    assert.throws(() => net.groups.join(PEER.ip), code('ARK_BAD_ARGUMENT'));
    for (let i = 0; i < NET_LIMITS.groupsMax; i++) net.groups.join(0xe9000000 + i);
    assert.throws(() => net.groups.join(0xe9ffffff), code('ARK_LIMIT'));
  });

  test('sent to a group: its MAC address, one hop, and a copy to ourselves unless it is not wanted', () => {
    const { queue, net, listen, expectAllBack } = start();
    net.groups.join(GROUP.ip);
    const got = listen(7);
    net.poll(0);
    queue.takeSent();
    net.udp.sendBytes(HELLO, 9, GROUP.ip, 7);
    net.udp.sendBytes(HELLO, 9, GROUP.ip, 7, { ttl: 5, loops: false });
    net.poll(0);
    const sent = queue.takeSent();
    assert.deepEqual(
      sent.map((f) => [viewOfBytes(f).getUint16(0), viewOfBytes(f).getUint32(2), f[22]]),
      [
        [0x0100, 0x5e010203, 1],
        [0x0100, 0x5e010203, 5],
      ],
    );
    assert.deepEqual(got, [`hello ${US.ip} 9 ${GROUP.ip}`]);
    net.poll(5_000);
    net.poll(5_000);
    expectAllBack();
  });

  test('a closed port of a group is not reported', () => {
    const { net, receive } = start();
    net.groups.join(GROUP.ip);
    net.poll(0);
    assert.deepEqual(
      receive(to(GROUP, 99)).filter((f) => f[23] === 1),
      [],
    );
    assert.equal(net.counters.noSocket, 1);
  });
});

describe('IGMP (RFC 3376)', () => {
  const query = (bytes: string, target = ALL_HOSTS, ttl = 1): Uint8Array => {
    const message = hex(bytes);
    const view = viewOfBytes(message);
    let sum = 0;
    for (let i = 0; i < message.length; i += 2) sum += view.getUint16(i);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    view.setUint16(2, ~sum & 0xffff);
    return ipv4Frame(PEER, target, ipv4.PROTOCOL_IGMP, message, ttl);
  };
  /** Type, record or 0, group and destination of the reports sent in `ms`, from `nowMs` on. */
  function reports(stage: ReturnType<typeof start>, nowMs: number, ms: number) {
    const found: [number, number, number, number][] = [];
    for (let at = nowMs; at < nowMs + ms; at += 50) {
      stage.net.poll(at);
      for (const frame of stage.queue.takeSent()) {
        const view = viewOfBytes(frame);
        assert.deepEqual([frame[14], frame[22], frame[23]], [0x46, 1, 2], 'router alert, one hop');
        assert.equal(view.getUint32(34), 0x94040000);
        assert.equal(igmp.check(view, 38, frame.length), 0);
        const isV3 = igmp.type(view, 38) === igmp.REPORT_V3;
        const group = isV3 ? view.getUint32(50) : view.getUint32(42);
        found.push([igmp.type(view, 38), isV3 ? frame[46]! : 0, group, view.getUint32(30)]);
      }
    }
    return found;
  }
  const V3 = 0xe0000016;

  test('a join and a leave are reported twice', () => {
    const stage = start();
    stage.net.groups.join(GROUP.ip);
    const joined = [igmp.REPORT_V3, igmp.CHANGE_TO_EXCLUDE, GROUP.ip, V3];
    assert.deepEqual(reports(stage, 0, 3000), [joined, joined]);
    stage.net.groups.leave(GROUP.ip);
    const left = [igmp.REPORT_V3, igmp.CHANGE_TO_INCLUDE, GROUP.ip, V3];
    assert.deepEqual(reports(stage, 3000, 3000), [left, left]);
    assert.equal(stage.net.nextTimerMs, Number.POSITIVE_INFINITY);
  });

  test('a query is answered within its time: a general one for all groups, another for its own', () => {
    const stage = start();
    stage.net.groups.join(GROUP.ip);
    stage.net.groups.join(0xe9000009);
    reports(stage, 0, 3000);
    stage.receive(query('11 64 0000 00000000 02 7d 0000'), 3000);
    const answers = reports(stage, 3000, 10_100);
    assert.deepEqual(answers.map((one) => one[2]).sort(), [0xe9000009, GROUP.ip]);
    assert.ok(answers.every(([, record]) => record === igmp.MODE_IS_EXCLUDE));
    const one = query('11 0a 0000 e9010203 02 7d 0000', GROUP);
    stage.receive(one, 20_000);
    assert.deepEqual(
      reports(stage, 20_000, 1100).map((answer) => answer[2]),
      [GROUP.ip],
    );
  });

  test('beside a router of version 2 or 1, its reports; and later version 3 again', () => {
    for (const [message, type] of [
      ['11 0a 0000 00000000', igmp.REPORT_V2],
      ['11 00 0000 00000000', igmp.REPORT_V1],
    ] as const) {
      const stage = start();
      stage.net.groups.join(GROUP.ip);
      reports(stage, 0, 3000);
      stage.receive(query(message), 3000);
      assert.deepEqual(reports(stage, 3000, 10_100), [[type, 0, GROUP.ip, GROUP.ip]]);
      stage.net.groups.leave(GROUP.ip);
      const leaves = reports(stage, 14_000, 3000).map(([kind, , , dst]) => [kind, dst]);
      const v2 = [igmp.LEAVE_V2, 0xe0000002];
      assert.deepEqual(leaves, type === igmp.REPORT_V2 ? [v2, v2] : []);
      stage.net.groups.join(GROUP.ip);
      const late = reports(stage, NET_LIMITS.igmpOlderRouterMs + 4000, 3000);
      assert.equal(late[0]![0], igmp.REPORT_V3);
    }
  });

  test('what has crossed a router, is cut short or wrong, is no query', () => {
    const stage = start();
    stage.net.groups.join(GROUP.ip);
    reports(stage, 0, 3000);
    const good = '11 0a 0000 00000000 02 7d 0000';
    stage.receive(query(good, ALL_HOSTS, 2), 3000);
    stage.receive(query('11 0a 0000 00000000 02 7d'), 3000);
    stage.receive(query('11 0a 0000 00000000 02 7d 0001'), 3000);
    const wrong = query(good);
    wrong[40]! ^= 1;
    stage.receive(wrong, 3000);
    assert.deepEqual(reports(stage, 3000, 2000), []);
    assert.equal(stage.net.counters.badIgmp, 3);
    assert.equal(stage.net.counters.badChecksum, 1);
  });

  test('on a shared address the kernel speaks', () => {
    const stage = start({ ownsAddress: false });
    stage.net.groups.join(GROUP.ip);
    assert.deepEqual(reports(stage, 0, 3000), []);
  });
});

describe('to ourselves', () => {
  test('our address and 127.0.0.1 go round inside, both ways; the device sees nothing', () => {
    for (const target of [US.ip, LOCALHOST]) {
      const { queue, net, listen, expectAllBack } = start();
      net.udp.bind(7, (frame, at, length) => net.udp.echoInPlace(frame, at, length));
      const got = listen(9);
      assert.ok(net.udp.sendBytes(HELLO, 9, target, 7));
      assert.equal(net.nextTimerMs, Number.NEGATIVE_INFINITY);
      for (let turns = 0; net.poll(0) > 0; turns++) assert.ok(turns < 5);
      assert.deepEqual(got, [`hello ${target} 7 ${target}`]);
      assert.deepEqual(queue.takeSent(), []);
      expectAllBack();
    }
  });

  test('a closed port of ours is refused', () => {
    const { net, listen, expectAllBack } = start();
    const errors: number[] = [];
    listen(9, { onError: (kind: number) => errors.push(kind) });
    net.udp.sendBytes(HELLO, 9, LOCALHOST, 7);
    while (net.poll(0) > 0);
    assert.deepEqual(errors, [ICMP_ERROR.refused]);
    expectAllBack();
  });

  test('from the wire, nobody has our address or a loopback one', () => {
    const { net, receive, listen } = start();
    const got = listen(7);
    receive(to(US, 7, { mac: PEER.mac, ip: LOCALHOST }));
    receive(to(US, 7, { mac: PEER.mac, ip: US.ip }));
    receive(to({ mac: US.mac, ip: LOCALHOST }));
    assert.deepEqual(got, []);
    assert.equal(net.counters.badSource, 2);
    assert.equal(net.counters.notForUs, 1);
  });

  test('a frame that its sender keeps is copied: an answer in place does not change it', () => {
    const { queue, net } = start();
    let calls = 0;
    net.udp.bind(7, (frame, at, length) => {
      calls++;
      queue.memory.u8.fill(0x21, at, at + length);
      net.udp.replyInPlace(frame, at, length);
    });
    const frame = net.udp.alloc();
    queue.memory.u8.set(HELLO, frame + UDP_PAYLOAD_OFFSET);
    queue.retain(frame);
    net.udp.sendTo(frame, 5, 9, US.ip, 7);
    while (net.poll(0) > 0);
    assert.equal(calls, 1);
    const at = frame + UDP_PAYLOAD_OFFSET;
    assert.deepEqual(queue.memory.u8.slice(at, at + 5), HELLO);
    queue.free(frame);
    assert.equal(queue.framesAvailable, queue.memory.frameCount);
  });

  test('TCP: half a megabyte to each of our addresses', () => {
    for (const address of ['10.0.0.2', '127.0.0.1']) {
      const { queue, net, expectAllBack } = start({ secret: Int32Array.of(1, 2, 3, 4) }, 1024);
      let received = 0;
      let closed = 0;
      const onClose = () => {
        closed++;
      };
      net.tcp.listen({
        port: 80,
        onConnection: () => ({
          onData: (_connection, _frame, _at, length) => {
            received += length;
          },
          onEnd: (connection) => connection.end(),
          onClose,
        }),
      });
      const bytes = new Uint8Array(500_000);
      let written = 0;
      const write = (connection: TcpConnection): void => {
        written += connection.write(bytes, written, bytes.length);
        if (written === bytes.length) connection.end();
      };
      const handlers = { onOpen: write, onDrain: write, onData: () => {}, onClose };
      net.tcp.connect({ address, port: 80, handlers });
      for (let nowMs = 0; closed < 2 && nowMs < 5000; nowMs++) net.poll(nowMs);
      assert.deepEqual([received, closed, queue.sent.length], [500_000, 2, 0]);
      net.poll(70_000);
      expectAllBack();
    }
  });

  test('too many: dropped and counted', () => {
    const { net, expectAllBack } = start();
    for (let i = 0; i < NET_LIMITS.loopQueueMax + 3; i++) net.udp.sendBytes(HELLO, 9, US.ip, 7);
    assert.equal(net.counters.loopFull, 3);
    net.close();
    expectAllBack();
  });
});

describe('VLAN (IEEE 802.1Q)', () => {
  const tagged = (bytes: Uint8Array, tag: number): Uint8Array => {
    const out = new Uint8Array(bytes.length + 4);
    out.set(bytes.subarray(0, 12));
    out.set([0x81, 0, tag >>> 8, tag & 255], 12);
    out.set(bytes.subarray(12), 16);
    return out;
  };

  test('only frames with our tag come in, whatever their priority; what goes out has it', () => {
    const { queue, net, receive, expectAllBack } = start({ vlan: 42 });
    net.udp.bind(7, (frame, at, length) => net.udp.echoInPlace(frame, at, length));
    const plain = start();
    plain.net.udp.bind(7, (frame, at, length) => plain.net.udp.echoInPlace(frame, at, length));
    const [expected] = plain.receive(to(US));
    assert.deepEqual(receive(tagged(to(US), 0xe02a)), [tagged(expected!, 42)]);
    for (const other of [
      to(US),
      tagged(to(US), 43),
      tagged(to(US), 0),
      tagged(to(US), 42).slice(0, 17),
    ]) {
      assert.deepEqual(receive(other), []);
    }
    assert.equal(net.counters.otherVlan, 4);
    net.setNeighbour(PEER.ip, PEER.mac);
    net.udp.sendBytes(HELLO, 9, PEER.ip, 7);
    net.udp.sendBytes(HELLO, 9, OTHER.ip, 7);
    net.poll(0);
    net.poll(0);
    const types = queue.takeSent().map((f) => [f[12], f[15], viewOfBytes(f).getUint16(16)]);
    assert.deepEqual(types, [
      [0x81, 42, 0x0800],
      [0x81, 42, 0x0806],
    ]);
    net.close();
    net.poll(0);
    expectAllBack();
  });

  test('without a VLAN, a tagged frame is not ours; no such VLAN', () => {
    const { net, receive } = start();
    receive(tagged(to(US), 42));
    assert.equal(net.counters.otherVlan, 1);
    for (const vlan of [0, 4095, 1.5])
      assert.throws(() => start({ vlan }), code('ARK_BAD_ARGUMENT'));
  });
});

describe('sockets', () => {
  test('ten thousand of them', () => {
    const { net, receive, listen } = start();
    for (let port = 10_000; port < 20_000; port++) net.udp.bind(port, () => {});
    const got = listen(9_999);
    receive(to(US, 9_999));
    receive(to(US, 15_000));
    assert.equal(got.length, 1);
    assert.equal(net.counters.rxUdp, 2);
    assert.equal(net.udp.socketCount, 10_001);
  });

  test('the most specific one on a port: connected, then bound to an address, then any', () => {
    const { net, receive, listen } = start();
    const any = listen(7);
    const broadcast = listen(7, { address: 0xffffffff });
    const connected = listen(7, { remote: { address: PEER.ip, port: 1024 } });
    const everybody = { mac: 0xffffffffffff, ip: 0xffffffff };
    receive(to(US, 7, OTHER));
    receive(to(everybody, 7, OTHER));
    receive(to(US));
    receive(to(everybody));
    assert.deepEqual([any.length, broadcast.length, connected.length], [1, 1, 2]);
    assert.throws(() => listen(7, { address: 0xffffffff }), code('ARK_IN_USE'));
    net.udp.unbind(7);
    receive(to(US));
    assert.equal(net.counters.noSocket, 1);
  });

  test('closing one leaves the others; its place is used again', () => {
    const { net, receive, listen } = start();
    const first = net.udp.bind(7, () => assert.fail('closed'));
    const rest = listen(7, { address: US.ip });
    net.udp.close(first);
    net.udp.close(first);
    receive(to(US));
    assert.equal(rest.length, 1);
    for (let i = 0; i < 70_000; i++) net.udp.close(net.udp.bind(8, () => {}));
    assert.equal(net.udp.socketCount, 1);
  });

  test('no checksum: taken, unless the socket wants one', () => {
    for (const needsChecksum of [false, true]) {
      const { net, receive, listen } = start();
      const got = listen(7, { needsChecksum });
      const bytes = to(US);
      viewOfBytes(bytes).setUint16(40, 0);
      receive(bytes);
      assert.equal(got.length, needsChecksum ? 0 : 1);
      assert.equal(net.counters.badChecksum, needsChecksum ? 1 : 0);
    }
  });
});

describe('longer than the path', () => {
  test('up to the longest datagram, and what was sent comes together again', () => {
    for (const length of [1473, 2000, 2100, 65_507]) {
      const { queue, net, expectAllBack } = start({}, 512);
      net.setNeighbour(PEER.ip, PEER.mac);
      const payload = Uint8Array.from({ length }, (_, i) => i * 7);
      assert.ok(net.udp.sendBytes(payload, 9, PEER.ip, 7));
      net.poll(0);
      const pieces = queue.takeSent();
      assert.ok(pieces.every((piece) => piece.length <= 1514));
      const peer = start({ mac: PEER.mac, address: PEER.ip }, 512);
      const got: Uint8Array[] = [];
      const { memory } = peer.queue;
      peer.net.udp.bind(7, (_f, at, n) => got.push(memory.u8.slice(at, at + n)), {
        onLarge: (bytes) => got.push(bytes.slice()),
        needsChecksum: true,
      });
      for (const piece of pieces.reverse()) peer.receive(piece);
      assert.deepEqual(got, [payload]);
      net.poll(0);
      expectAllBack();
      peer.expectAllBack();
    }
  });

  test('one byte more, or no frames for it: nothing is sent', () => {
    const { queue, net, expectAllBack } = start({}, 16);
    net.setNeighbour(PEER.ip, PEER.mac);
    assert.equal(net.udp.sendBytes(new Uint8Array(UDP_PAYLOAD_MAX + 1), 9, PEER.ip, 7), false);
    assert.equal(net.udp.sendBytes(new Uint8Array(UDP_PAYLOAD_MAX), 9, PEER.ip, 7), false);
    net.poll(0);
    assert.deepEqual(queue.takeSent(), []);
    assert.deepEqual([net.counters.txTooLong, net.counters.noFrame], [1, 1]);
    expectAllBack();
  });

  test('routes: the longest prefix counts', () => {
    const { queue, net } = start({ gateway: PEER.ip });
    net.setNeighbour(PEER.ip, PEER.mac);
    net.setNeighbour(OTHER.ip, OTHER.mac);
    net.setRoutes([
      { dst: 0xc0000000, prefix: 8, gateway: PEER.ip },
      { dst: 0xc0000200, prefix: 24, gateway: OTHER.ip },
    ]);
    for (const dst of [0xc0000201, 0xc0010101, 0x08080808]) net.udp.sendBytes(HELLO, 9, dst, 7);
    net.poll(0);
    const last = queue.takeSent().map((f) => f[5]);
    assert.deepEqual(last, [OTHER.mac & 255, PEER.mac & 255, PEER.mac & 255]);
  });
});

describe('whose address (RFC 5227)', () => {
  test('announced at the start, twice; a second owner is answered once in ten seconds', () => {
    const conflicts: boolean[] = [];
    const guard = {
      onConflict: (_hi: number, _lo: number, again: boolean) => conflicts.push(again),
    };
    const { queue, net, receive } = start({ guard });
    const announcements = (nowMs: number): number => {
      net.poll(nowMs);
      return queue.takeSent().filter((f) => viewOfBytes(f).getUint32(28) === US.ip).length;
    };
    assert.deepEqual([0, 1000, 2000, 5000].map(announcements), [1, 0, 1, 0]);
    const theirs = arpFrame(2, { mac: OTHER.mac, ip: US.ip }, PEER);
    assert.equal(receive(theirs, 20_000).length, 1);
    assert.equal(receive(theirs, 25_000).length, 0);
    assert.equal(receive(theirs, 31_000).length, 1);
    assert.equal(receive(arpFrame(1, US, US), 50_000).length, 0, 'our own, sent back');
    assert.deepEqual(conflicts, [false, true, false]);
  });

  test('without a guard nothing is said', () => {
    const { queue, net, receive } = start();
    net.poll(0);
    assert.deepEqual(queue.takeSent(), []);
    assert.deepEqual(receive(arpFrame(2, { mac: OTHER.mac, ip: US.ip }, PEER)), []);
  });
});

test('a group has a MAC address of its own', () =>
  assert.equal(GROUP_MAC % 2 ** 23, GROUP.ip % 2 ** 23));
