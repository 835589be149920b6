/** IPv6 turn by turn: packets, UDP, ICMPv6, extension headers, pieces, groups. Times are milliseconds since the start. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeQueue } from '../../../test/support/fake-queue.ts';
import { US, viewOfBytes } from '../../../test/support/frames.ts';
import {
  ALL_NODES6,
  echo6Frame,
  fragments6,
  groupHost,
  type Host6,
  icmp6Frame,
  ipv6Frame,
  L4_AT6,
  NOBODY,
  PEER6,
  PEER6_GLOBAL,
  ROUTER6,
  solicitation,
  US6,
  US6_GLOBAL,
  udp6Frame,
  withExtensions,
} from '../../../test/support/frames6.ts';
import { FAR6, HELLO, OUR_GLOBAL, ready, Stack, toUs } from '../../../test/support/stack6.ts';
import { formatIpv6, parseIpv6 } from '../../base/address.ts';
import { formatFrame } from '../../wire/format.ts';
import { NetInterface, type NetOptions } from '../interface.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Ipv6Options } from './stack.ts';
import { UDP6_PAYLOAD_OFFSET } from './udp.ts';

describe('where packets come from and go to', () => {
  test('the source that suits the destination (RFC 6724, section 5)', () => {
    const s = ready({
      gateway: parseIpv6(ROUTER6.ip),
      addresses: [OUR_GLOBAL, { address: parseIpv6('fd00::2'), prefix: 64 }],
    });
    for (const [to, from] of [
      ['fe80::9', US6.ip],
      ['2001:db8::9', US6_GLOBAL.ip],
      ['fd00::9', 'fd00::2'],
      ['fd11::9', 'fd00::2'],
      ['2600::1', US6_GLOBAL.ip],
      ['ff02::fb', US6.ip],
      ['ff0e::1', US6_GLOBAL.ip],
    ] as const) {
      const { addresses } = s.net.ipv6;
      const index = addresses.sourceFor(parseIpv6(to), 0);
      assert.equal(formatIpv6(addresses.words, index * 4), from, to);
    }
  });

  test('no way: only a link-local address, no router, ourselves, nobody', () => {
    const s = ready({ addresses: [] });
    s.send(FAR6).send('ff0e::1').send('::').send('::ffff:10.0.0.1');
    s.expectSent().expectCount('noRoute', 4);
  });

  test('to ourselves, inside, with an answer', () => {
    for (const ip of ['::1', US6.ip, US6_GLOBAL.ip]) {
      const s = ready();
      const heard: string[] = [];
      s.net.udp6.bind(9, (frame, at, length) => s.net.udp6.echoInPlace(frame, at, length));
      s.net.udp6.bind(7, (_frame, _at, _length, flow, port) => {
        heard.push(`${formatIpv6(flow, 4)} ${port}`);
      });
      s.send(ip, 1, 9);
      for (let i = 0; i < 3; i++) s.turn(s.nowMs + 1);
      assert.deepEqual(heard, [`${ip} 9`]);
      s.expectSent().expectAllFrames();
    }
    ready()
      .receive(toUs({ ...PEER6, ip: '::1' }, US6))
      .expectCount('badSource');
    ready()
      .receive(toUs(PEER6, { ...US6, ip: '::1' }))
      .expectCount('notForUs');
  });

  test('to a group, by its MAC, one hop far', () => {
    const s = ready().send('ff02::fb');
    const [frame] = s.queue.takeSent();
    assert.equal(frame!.subarray(0, 6).join(), [0x33, 0x33, 0, 0, 0, 0xfb].join());
    assert.equal(frame![21], 1);
  });

  test('received: addresses that cannot be, and frames that do not fit them', () => {
    const s = ready();
    s.net.udp6.bind(7, () => {});
    s.receive(toUs(groupHost('ff02::1')), toUs({ ...PEER6, ip: '::1' }), toUs(US6_GLOBAL));
    s.receive(toUs({ ...PEER6, ip: '::ffff:10.0.0.1' }), toUs(NOBODY));
    s.expectCount('badSource', 4).expectCount('badEthernet');
    s.receive(toUs(PEER6, { mac: ALL_NODES6.mac, ip: US6.ip }), toUs(PEER6, { ...US6, ip: FAR6 }));
    s.receive(toUs(PEER6, groupHost('ff02::99')))
      .expectCount('notForUs', 3)
      .expectSent();
  });
});

describe('UDP', () => {
  test('the handler gets the payload and both ends; an echo in place', () => {
    const s = ready();
    const calls: unknown[] = [];
    s.net.udp6.bind(7, (frame, at, length, flow, port) => {
      const text = Buffer.from(s.queue.memory.u8.slice(at, at + length)).toString();
      calls.push([text, formatIpv6(flow), formatIpv6(flow, 4), port]);
      s.net.udp6.echoInPlace(frame, at, length);
    });
    s.receive(toUs(PEER6_GLOBAL));
    assert.deepEqual(calls, [['hello', US6_GLOBAL.ip, PEER6_GLOBAL.ip, 1024]]);
    const [reply] = s.queue.takeSent();
    const expected = udp6Frame({ ...US6_GLOBAL, port: 7 }, { ...PEER6_GLOBAL, port: 1024 }, HELLO);
    assert.deepEqual(reply, expected);
    s.expectCount('rxUdp');
  });

  test('a reply of another length and content; to a group, from our own address', () => {
    const s = ready();
    s.net.ipv6.join(parseIpv6('ff02::fb'));
    s.net.udp6.bind(7, (frame, at) => {
      s.queue.memory.u8.set(Buffer.from('goodbye!'), at);
      s.net.udp6.replyInPlace(frame, at, 8);
    });
    const goodbye = new Uint8Array(Buffer.from('goodbye!'));
    for (const [to, from] of [
      [US6_GLOBAL, US6_GLOBAL],
      [groupHost('ff02::fb'), US6],
    ] as const) {
      const peer = from === US6 ? PEER6 : PEER6_GLOBAL;
      s.receive(toUs(peer, to));
      const expected = udp6Frame({ ...from, port: 7 }, { ...peer, port: 1024 }, goodbye);
      const [reply] = s.queue.takeSent().filter((f) => f[20] === 17);
      assert.deepEqual(reply, expected);
    }
  });

  test('held, and answered later, when other packets have come', () => {
    const s = ready();
    let held = 0;
    s.net.udp6.bind(7, (frame) => {
      s.net.udp6.hold(frame);
      held = frame;
    });
    s.receive(withExtensions(toUs(PEER6_GLOBAL), 60, Uint8Array.of(17, 0, 1, 4, 0, 0, 0, 0)));
    s.receive(echo6Frame(PEER6, US6, HELLO));
    s.sent();
    s.net.udp6.echoInPlace(held, held + UDP6_PAYLOAD_OFFSET + 8, 5);
    s.turn(3000);
    const [reply] = s.queue.takeSent();
    assert.deepEqual(
      reply,
      udp6Frame({ ...US6_GLOBAL, port: 7 }, { ...PEER6_GLOBAL, port: 1024 }, HELLO),
    );
    s.expectAllFrames();
  });

  test('without a checksum, or with a wrong one, it is dropped', () => {
    const s = ready();
    s.net.udp6.bind(7, () => assert.fail('delivered'));
    for (const value of [0, 0x1234]) {
      const frame = toUs(PEER6_GLOBAL);
      viewOfBytes(frame).setUint16(L4_AT6 + 6, value);
      s.receive(frame);
    }
    s.expectCount('badChecksum', 2);
  });

  test('longer than the link or the path: in pieces; than its buffer, not at all', () => {
    const s = ready();
    s.net.ipv6.setNeighbour(parseIpv6(PEER6_GLOBAL.ip), PEER6.mac);
    const payload = new Uint8Array(1800).map((_, i) => i * 7);
    const frame = s.net.udp6.alloc();
    s.queue.memory.u8.set(payload, frame + UDP6_PAYLOAD_OFFSET);
    s.net.udp6.sendTo(frame, payload.length, 7, parseIpv6(PEER6_GLOBAL.ip), 7);
    s.turn(3000);
    const pieces = s.queue.takeSent();
    assert.deepEqual(
      pieces.map((piece) => piece.length),
      [1510, 422],
    );
    const back = new Stack(
      {
        dadTransmits: 0,
        autoconfigure: false,
        addresses: [{ address: parseIpv6(PEER6_GLOBAL.ip), prefix: 64 }],
      },
      { mac: PEER6.mac },
    ).turn(0);
    let got = 0;
    back.net.udp6.bind(7, (f, at, length) => {
      assert.deepEqual(back.queue.memory.u8.slice(at, at + length), payload);
      got++;
      back.net.udp6.replyInPlace(f, at, length);
    });
    back.receive(...pieces.reverse()).turn(10);
    assert.equal(got, 1);
    const replies = back.queue.takeSent().filter((f) => f[20] === 44);
    assert.deepEqual(
      replies.map((piece) => piece.length),
      [1510, 422],
    );
    s.net.udp6.sendTo(s.net.udp6.alloc(), 2000, 7, parseIpv6(PEER6_GLOBAL.ip), 7);
    s.expectCount('txTooLong');
  });

  test('bind: once, a port, unbound again', () => {
    const { net } = ready();
    net.udp6.bind(7, () => {});
    assert.throws(() => net.udp6.bind(7, () => {}), { code: 'ARK_IN_USE' });
    assert.throws(() => net.udp6.bind(0, () => {}), { code: 'ARK_BAD_ARGUMENT' });
    net.udp6.unbind(7);
    net.udp6.bind(7, () => {});
  });
});

describe('ICMPv6 (RFC 4443)', () => {
  test('echo, to us and to all; never from nobody', () => {
    const s = ready().receive(echo6Frame(PEER6, US6, HELLO));
    assert.deepEqual(s.queue.takeSent()[0], echo6Frame(US6, PEER6, HELLO, 129));
    s.receive(echo6Frame(PEER6, ALL_NODES6, HELLO));
    assert.deepEqual(s.queue.takeSent()[0], echo6Frame(US6, PEER6, HELLO, 129));
    s.receive(echo6Frame(NOBODY, US6, HELLO))
      .expectSent()
      .expectCount('rxEcho', 3);
  });

  test('port unreachable quotes the packet', () => {
    const frame = toUs(PEER6_GLOBAL);
    const s = ready().receive(frame);
    const [error] = s.queue.takeSent();
    const body = Uint8Array.of(0, 0, 0, 0, ...frame.subarray(14));
    assert.deepEqual(error, icmp6Frame(US6_GLOBAL, PEER6_GLOBAL, 1, 4, body, 64));
    s.expectCount('icmpErrors');
  });

  test('an error is no longer than every link carries', () => {
    const s = ready().receive(toUs(PEER6_GLOBAL, US6_GLOBAL, new Uint8Array(1400)));
    assert.equal(s.queue.takeSent()[0]!.length, 14 + 1280);
  });

  test('an unknown next header: where it is', () => {
    const frame = withExtensions(
      ipv6Frame(PEER6, US6, 200, HELLO),
      60,
      Uint8Array.of(200, 0, 1, 4, 0, 0, 0, 0),
    );
    const s = ready().receive(frame);
    const [error] = s.queue.takeSent();
    assert.deepEqual([...error!.subarray(L4_AT6, L4_AT6 + 2)], [4, 1]);
    assert.equal(viewOfBytes(error!).getUint32(L4_AT6 + 4), 40);
    s.receive(ipv6Frame(PEER6, US6, 59, HELLO))
      .expectSent()
      .expectCount('noProtocol', 2);
  });

  test('never about an error, to a group, or from no host', () => {
    const s = ready();
    s.receive(icmp6Frame(PEER6, US6, 1, 4, new Uint8Array(60)));
    s.receive(toUs(PEER6, ALL_NODES6));
    const errorWithOption = withExtensions(
      icmp6Frame(PEER6, US6, 1, 4, new Uint8Array(60)),
      60,
      Uint8Array.of(58, 0, 0x9e, 4, 0, 0, 0, 0),
    );
    s.receive(errorWithOption);
    const bad = ipv6Frame(PEER6, ALL_NODES6, 200, HELLO);
    s.receive(bad).expectSent();
    assert.equal(s.net.counters.icmpErrors, 0);
  });

  test('a burst, then a rate', () => {
    const s = ready();
    for (let i = 0; i < 200; i++) s.receive(toUs(PEER6_GLOBAL));
    assert.equal(s.net.counters.icmpErrors, NET_LIMITS.icmpErrorBurst);
    assert.equal(s.net.counters.icmpLimited, 200 - NET_LIMITS.icmpErrorBurst);
  });

  const errorAbout = (sent: Uint8Array, type: number, code: number, word: number): Uint8Array => {
    const head = [24, 16, 8, 0].map((shift) => (word >>> shift) & 255);
    return icmp6Frame(
      ROUTER6,
      US6_GLOBAL,
      type,
      code,
      Uint8Array.of(...head, ...sent.subarray(14)),
    );
  };

  test('errors reach who sent; a path that carries less is remembered (RFC 8201)', () => {
    const s = ready({ gateway: parseIpv6(ROUTER6.ip) });
    const errors: unknown[] = [];
    s.net.udp6.bind(
      7,
      () => {},
      (e) => errors.push([e.kind, formatIpv6(e.remote), e.remotePort, e.mtu]),
    );
    const sent = udp6Frame({ ...US6_GLOBAL, port: 7 }, { ...PEER6, ip: FAR6, port: 53 }, HELLO);
    const long = sent.slice();
    viewOfBytes(long).setUint16(18, 1460);
    s.receive(errorAbout(sent, 1, 4, 0), errorAbout(long, 2, 0, 1300), errorAbout(long, 2, 0, 600));
    const told = [
      [1, FAR6, 53, 0],
      [3, FAR6, 53, 1300],
      [3, FAR6, 53, 1280],
    ];
    assert.deepEqual(errors, told);
    s.receive(errorAbout(sent, 2, 0, 1280)).expectCount('badQuote');
    s.net.ipv6.setNeighbour(parseIpv6(ROUTER6.ip), ROUTER6.mac);
    for (const [length, frames] of [
      [1280 - 48, 1],
      [1280 - 47, 2],
    ] as const) {
      s.queue.takeSent();
      s.net.udp6.sendTo(s.net.udp6.alloc(), length, 7, parseIpv6(FAR6), 7);
      s.turn(s.nowMs + 1);
      assert.equal(s.queue.takeSent().length, frames);
    }
  });

  test('not about what we cannot have sent, or what is not quoted', () => {
    const s = ready();
    s.net.udp6.bind(
      7,
      () => {},
      () => assert.fail('told'),
    );
    const foreign = udp6Frame({ ...PEER6, port: 7 }, { ...PEER6, ip: FAR6, port: 53 }, HELLO);
    const unbound = udp6Frame({ ...US6_GLOBAL, port: 8 }, { ...PEER6, ip: FAR6, port: 53 }, HELLO);
    const short = udp6Frame({ ...US6_GLOBAL, port: 7 }, { ...PEER6, ip: FAR6, port: 53 }, HELLO);
    s.receive(errorAbout(foreign, 2, 0, 1280), errorAbout(unbound, 2, 0, 1280));
    s.receive(errorAbout(short.subarray(0, 14 + 47), 2, 0, 1280)).expectCount('badQuote', 3);
    assert.equal(s.net.ipv6.ip.mtuTo(parseIpv6(FAR6), 0), 1500);
  });
});

describe('a transport above', () => {
  const segment = (to: Host6): Uint8Array => ipv6Frame(PEER6_GLOBAL, to, 6, HELLO);

  test('gets its segments with both ends, and sends them where they stand', () => {
    const s = ready();
    const { ip, neighbours } = s.net.ipv6;
    const got: string[] = [];
    s.net.ipv6.tcp = {
      flow: new Int32Array(8),
      receive(frame, at, length) {
        got.push(`${formatIpv6(this.flow)} ${formatIpv6(this.flow, 4)} ${length}`);
        s.net.udp6.hold(frame);
        neighbours.setPermanent(this.flow, 4, 0x0200, 1);
        const flow = Int32Array.of(0, ...new Array(6).fill(0), 0, ...this.flow);
        flow.fill(0, 8, 12);
        assert.ok(ip.route(flow, 8));
        assert.equal(ip.mtu(flow, 8), 1500);
        assert.ok(ip.send(at, length, 6, flow, 8));
      },
      receivePieces: () => assert.fail('it came in one'),
    };
    s.receive(segment(US6_GLOBAL));
    assert.deepEqual(got, [`${US6_GLOBAL.ip} ${PEER6_GLOBAL.ip} 5`]);
    assert.deepEqual(s.queue.takeSent(), [ipv6Frame(US6_GLOBAL, { ...PEER6_GLOBAL }, 6, HELLO)]);
    s.receive(segment(ALL_NODES6)).expectSent();
    assert.equal(got.length, 1);
  });

  test('is not cut into pieces, and may not send as others', () => {
    const s = ready();
    const { ip } = s.net.ipv6;
    const flow = Int32Array.of(...parseIpv6(US6_GLOBAL.ip), ...parseIpv6(PEER6_GLOBAL.ip));
    assert.ok(ip.route(flow, 0));
    assert.equal(ip.send(s.net.udp6.alloc() + 54, 1461, 6, flow, 0), false);
    s.expectCount('txTooLong');
    flow[3] = 99;
    assert.equal(ip.route(flow, 0), false);
  });
});

describe('extension headers (RFC 8200, section 4)', () => {
  const option = (type: number): Uint8Array => Uint8Array.of(17, 0, type, 4, 0, 0, 0, 0);
  const ok = (first: number, headers: Uint8Array): Stack => {
    const s = ready();
    s.net.udp6.bind(7, () => {});
    return s.receive(withExtensions(toUs(PEER6_GLOBAL), first, headers));
  };

  test('passed over', () => {
    for (const [first, headers] of [
      [60, option(1)],
      [60, option(0x1e)],
      [0, option(5)],
      [43, Uint8Array.of(17, 0, 4, 0, 0, 0, 0, 0)],
      [44, Uint8Array.of(17, 0, 0, 0, 0, 0, 0, 9)],
      [60, Uint8Array.of(60, 0, 0, 0, 0, 0, 0, 0, ...option(1))],
    ] as const) {
      ok(first, headers).expectCount('rxUdp');
    }
  });

  test('dropped as an option says, or told', () => {
    ok(60, option(0x5e)).expectSent().expectCount('badExtension');
    for (const type of [0x9e, 0xde]) {
      const s = ok(60, option(type));
      const [error] = s.queue.takeSent();
      assert.deepEqual([...error!.subarray(L4_AT6, L4_AT6 + 2)], [4, 2]);
      assert.equal(viewOfBytes(error!).getUint32(L4_AT6 + 4), 42);
      s.expectCount('badExtension');
    }
  });

  test('to a group, only the one option is told', () => {
    for (const [type, told] of [
      [0x9e, 1],
      [0xde, 0],
    ] as const) {
      const s = ready().receive(withExtensions(toUs(PEER6, ALL_NODES6), 60, option(type)));
      assert.equal(s.sent().length, told);
    }
  });

  test('a way to go is refused, type 0 too (RFC 5095)', () => {
    for (const type of [0, 4]) {
      const s = ok(43, Uint8Array.of(17, 0, type, 1, 0, 0, 0, 0));
      const [error] = s.queue.takeSent();
      assert.deepEqual([...error!.subarray(L4_AT6, L4_AT6 + 2)], [4, 0]);
      assert.equal(viewOfBytes(error!).getUint32(L4_AT6 + 4), 42);
    }
  });

  test('hop-by-hop in the wrong place; too many; past the end', () => {
    const late = ok(60, Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0, ...option(1)));
    assert.deepEqual([...late.queue.takeSent()[0]!.subarray(L4_AT6, L4_AT6 + 2)], [4, 1]);
    const many = Uint8Array.from(
      Array.from({ length: 20 }, (_, i) =>
        i < 19 ? [60, 0, 1, 4, 0, 0, 0, 0] : [...option(1)],
      ).flat(),
    );
    ok(60, many).expectSent().expectCount('badExtension');
    const pads = Uint8Array.from([17, 2, ...new Array(22).fill(0)]);
    ok(60, pads).expectSent().expectCount('badExtension');
    ok(60, Uint8Array.of(17, 255, 1, 4, 0, 0, 0, 0))
      .expectSent()
      .expectCount('badExtension');
    ok(60, Uint8Array.of(17, 0, 1, 5, 0, 0, 0, 0))
      .expectSent()
      .expectCount('badExtension');
  });
});

describe('pieces', () => {
  const long = new Uint8Array(1200).map((_, i) => i);
  const pieces = (): Uint8Array[] => fragments6(toUs(PEER6_GLOBAL, US6_GLOBAL, long), 400);
  const bound = (): Stack => {
    const s = ready();
    s.net.udp6.bind(7, (_frame, at, length) => {
      assert.deepEqual(s.queue.memory.u8.slice(at, at + length), long);
    });
    return s;
  };

  test('in any order, are one', () => {
    for (const order of [
      [0, 1, 2, 3],
      [3, 2, 1, 0],
      [2, 0, 3, 1],
    ]) {
      const s = bound();
      const all = pieces();
      for (const i of order) s.receive(all[i]!);
      s.expectCount('rxUdp').expectCount('reassembled');
    }
  });

  test('overlapping, nothing of it is used (RFC 5722)', () => {
    const s = bound();
    const all = pieces();
    const evil = all[1]!.slice();
    viewOfBytes(evil).setUint16(L4_AT6 + 2, 392 | 1);
    s.receive(all[0]!, evil, all[1]!, all[2]!, all[3]!).expectCount('rxUdp', 0);
  });

  test('the first without its headers is refused (RFC 7112)', () => {
    const s = bound();
    const padded = withExtensions(
      toUs(PEER6_GLOBAL, US6_GLOBAL, long),
      60,
      Uint8Array.of(17, 6, 1, 52, ...new Uint8Array(52)),
    );
    s.receive(fragments6(padded, 56)[0]!).expectCount('badFragment');
  });

  test('neighbour discovery in pieces is refused (RFC 6980)', () => {
    const padding = [200, 7, ...new Array(54).fill(0)];
    const question = icmp6Frame(
      PEER6,
      US6,
      135,
      0,
      Uint8Array.of(0, 0, 0, 0, ...parse(US6.ip), ...padding),
    );
    ready()
      .receive(...fragments6(question, 56))
      .expectSent()
      .expectCount('badNd');
  });

  test('time is up: the sender is told, if the first had come', () => {
    const s = bound()
      .receive(pieces()[0]!)
      .turn(3000)
      .turn(2000 + NET_LIMITS.reassemblyV6Ms);
    const [error] = s.queue.takeSent();
    assert.deepEqual([...error!.subarray(L4_AT6, L4_AT6 + 2)], [3, 1]);
    s.expectAllFrames();
  });
});

const parse = (ip: string): number[] =>
  [...parseIpv6(ip)].flatMap((w) => [24, 16, 8, 0].map((shift) => (w >>> shift) & 255));

describe('groups (RFC 3810)', () => {
  const query = (from: Host6, hops = 1, length = 24): Uint8Array => {
    const body = new Uint8Array(length);
    viewOfBytes(body).setUint16(0, 1000);
    return icmp6Frame(from, ALL_NODES6, 130, 0, body, hops);
  };
  const reports = (s: Stack): string[][] =>
    s.queue
      .takeSent()
      .filter((f) => f[20] === 0)
      .map((f) => {
        const view = viewOfBytes(f);
        assert.deepEqual([...f.subarray(0, 6)], [0x33, 0x33, 0, 0, 0, 0x16]);
        assert.equal(
          Buffer.from(f.subarray(L4_AT6, L4_AT6 + 8)).toString('hex'),
          '3a00050200000100',
        );
        assert.match(formatFrame(view, 0, f.length), /MLD report/);
        const at = L4_AT6 + 8;
        return Array.from({ length: view.getUint16(at + 6) }, (_, i) => {
          const record = at + 8 + i * 20;
          const words = Int32Array.from({ length: 4 }, (_, w) => view.getInt32(record + 4 + 4 * w));
          return `${view.getUint8(record)} ${formatIpv6(words)}`;
        });
      });

  test('joined and left: told twice', () => {
    const s = ready();
    s.net.ipv6.join(parseIpv6('ff02::fb'));
    s.turn(3000).turn(3499).turn(3500).turn(9000);
    assert.deepEqual(reports(s), [['4 ff02::fb'], ['4 ff02::fb']]);
    s.net.ipv6.join(parseIpv6('ff02::fb'));
    s.net.ipv6.leave(parseIpv6('ff02::fb'));
    s.turn(10_000);
    assert.deepEqual(reports(s), []);
    s.net.ipv6.leave(parseIpv6('ff02::fb'));
    s.turn(11_000).turn(12_000).turn(13_000);
    assert.deepEqual(reports(s), [['3 ff02::fb'], ['3 ff02::fb']]);
  });

  test('a query is answered with all, within its time', () => {
    const s = ready().receive(query(ROUTER6)).turn(2499);
    assert.deepEqual(reports(s), []);
    s.turn(2500);
    assert.deepEqual(reports(s), [['2 ff02::1:ff00:2']]);
  });

  test('not when it is from beyond the link, from a global address, or cut short', () => {
    const s = ready();
    s.receive(query(ROUTER6, 2), query({ ...ROUTER6, ip: '2001:db8::9' }), query(ROUTER6, 1, 22));
    s.turn(9000).expectCount('badIcmp', 3);
    assert.deepEqual(reports(s), []);
  });

  test('a limit, and what is no group', () => {
    const { ipv6 } = ready().net;
    assert.throws(() => ipv6.join(parseIpv6('2001:db8::1')), { code: 'ARK_BAD_ARGUMENT' });
    assert.throws(
      () => {
        for (let i = 0; i < 100; i++) ipv6.join(parseIpv6(`ff02::1:${i}`));
      },
      { code: 'ARK_LIMIT' },
    );
  });
});

describe('an address that the kernel has, too', () => {
  const shared = (): Stack => ready({}, { ownsAddress: false });

  test('nothing is asked, answered or reported; neighbours are who sent', () => {
    const s = shared();
    s.net.udp6.bind(7, (frame, at, length) => s.net.udp6.echoInPlace(frame, at, length));
    s.receive(
      solicitation(PEER6_GLOBAL, US6_GLOBAL.ip),
      echo6Frame(PEER6_GLOBAL, US6_GLOBAL, HELLO),
    );
    s.expectSent().send('2001:db8::55').expectSent().expectCount('noNeighbour');
    s.receive(toUs(PEER6_GLOBAL));
    assert.equal(s.sent().length, 1);
    s.send(PEER6_GLOBAL.ip).expectSent('2001:db8::2 > 2001:db8::1 UDP 7 > 7 len 1');
    s.turn(1e6).expectAllFrames();
    assert.equal(s.net.nextTimerMs, Number.POSITIVE_INFINITY);
  });

  test('a closed port is for the kernel to answer', () => {
    shared().receive(toUs(PEER6_GLOBAL)).expectSent().expectCount('noSocket');
  });
});

describe('options', () => {
  test('out of range', () => {
    const bad = (ipv6: Ipv6Options, options: Partial<NetOptions> = {}) =>
      assert.throws(() => new Stack(ipv6, options), { code: 'ARK_BAD_ARGUMENT' });
    bad({}, { mtu: 1279 });
    bad({ addresses: [{ address: parseIpv6('ff02::1'), prefix: 64 }] });
    bad({ addresses: [{ address: parseIpv6('2001:db8::1'), prefix: 129 }] });
    bad({ gateway: parseIpv6('::') });
    bad({ secret: new Uint8Array(15) });
    bad({ dadTransmits: -1 });
    assert.throws(() => new Stack({}, { ownsAddress: false }), { code: 'ARK_UNSUPPORTED' });
  });

  test('without the option there is none', () => {
    const queue = new FakeQueue();
    const net = new NetInterface({ queue, mac: US.mac, address: US.ip, prefix: 24 });
    assert.throws(() => net.udp6, { code: 'ARK_UNSUPPORTED' });
    queue.inject(echo6Frame(PEER6, US6, HELLO));
    net.poll(0);
    assert.deepEqual(queue.takeSent(), []);
    assert.equal(net.counters.otherProtocol, 1);
  });
});
