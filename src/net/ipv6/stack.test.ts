/** IPv6 turn by turn, on a device without a network. Times are milliseconds since the start. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeQueue } from '../../../test/support/fake-queue.ts';
import { US, viewOfBytes } from '../../../test/support/frames.ts';
import {
  ALL_NODES6,
  advertisement,
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
  routerAdvertisement,
  solicitation,
  solicitedGroup,
  US6,
  US6_GLOBAL,
  udp6Frame,
  withExtensions,
} from '../../../test/support/frames6.ts';
import { formatIpv6, parseIpv6 } from '../../base/address.ts';
import { formatFrame } from '../../wire/format.ts';
import { type NetCounter, RX_OUTCOMES } from '../counters.ts';
import { NetInterface, type NetOptions } from '../interface.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Ipv6Options } from './stack.ts';
import { UDP6_PAYLOAD_OFFSET } from './udp.ts';

const HELLO = new Uint8Array(Buffer.from('hello'));
const FAR6 = '2001:db8:ffff::5';
const MLD_REPORT = 'ICMPv6 MLD report code 0';
const OUR_GLOBAL = { address: parseIpv6(US6_GLOBAL.ip), prefix: 64 };

class Stack {
  readonly queue = new FakeQueue();
  readonly net: NetInterface;
  nowMs = 0;

  constructor(ipv6: Ipv6Options = {}, options: Partial<NetOptions> = {}) {
    this.net = new NetInterface({
      queue: this.queue,
      mac: US.mac,
      address: US.ip,
      prefix: 24,
      ipv6,
      random: () => 2 ** 31,
      ...options,
    });
  }

  turn(nowMs: number): this {
    this.nowMs = nowMs;
    this.net.poll(nowMs);
    return this;
  }

  receive(...frames: Uint8Array[]): this {
    for (const frame of frames) this.queue.inject(frame);
    return this.turn(this.nowMs);
  }

  send(ip: string, mark = 0, port = 7): this {
    const frame = this.net.udp6.alloc();
    this.queue.memory.u8[frame + UDP6_PAYLOAD_OFFSET] = mark;
    this.net.udp6.sendTo(frame, 1, 7, parseIpv6(ip), port);
    return this.turn(this.nowMs);
  }

  /** What was sent since the last look, a line a frame, without reports. */
  sent(): string[] {
    return this.queue
      .takeSent()
      .map((f) => formatFrame(viewOfBytes(f), 0, f.length))
      .filter((line) => !line.endsWith(MLD_REPORT));
  }

  expectSent(...lines: string[]): this {
    assert.deepEqual(this.sent(), lines);
    return this;
  }

  expectNeighbour(ip: string, state: string): this {
    assert.equal(this.net.ipv6.neighbourState(parseIpv6(ip)), state);
    return this;
  }

  /** Every frame is back, and this was counted. */
  expectCount(name: NetCounter, count = 1): this {
    assert.equal(this.net.counters[name], count, name);
    return this.expectAllFrames();
  }

  expectAllFrames(): this {
    assert.equal(this.queue.framesAvailable, this.queue.memory.frameCount);
    const { counters } = this.net;
    const outcomes = RX_OUTCOMES.reduce((total, name) => total + counters[name], 0);
    assert.equal(outcomes, counters.rxFrames, 'one outcome each');
    return this;
  }

  addresses(): string[] {
    return this.net.ipv6.list().map((a) => `${a.address}/${a.prefix} ${a.state}`);
  }
}

/** With its addresses in use, nothing asked and nothing waiting. */
function ready(ipv6: Ipv6Options = {}, options: Partial<NetOptions> = {}): Stack {
  const s = new Stack(
    { dadTransmits: 0, autoconfigure: false, addresses: [OUR_GLOBAL], ...ipv6 },
    options,
  );
  s.turn(0).turn(2_000);
  s.queue.takeSent();
  return s;
}

const toUs = (from: Host6, to: Host6 = US6_GLOBAL, payload = HELLO): Uint8Array =>
  udp6Frame({ ...from, port: 1024 }, { ...to, port: 7 }, payload);

describe('duplicate address detection (RFC 4862, section 5.4)', () => {
  test('an address is asked for from none, and in use a second later', () => {
    const s = new Stack({ autoconfigure: false, addresses: [OUR_GLOBAL] }).turn(0);
    assert.deepEqual(s.addresses(), ['fe80::ff:fe00:2/64 tentative', '2001:db8::2/64 tentative']);
    const [first] = s.queue.sent;
    assert.equal(
      Buffer.from(first!).toString('hex'),
      '3333ff00000202000000000286dd600000000018' +
        '3aff00000000000000000000000000000000ff0200000000000000000001ff000002' +
        '87007d2300000000fe80000000000000000000fffe000002',
    );
    s.expectSent(
      ':: > ff02::1:ff00:2 ND who-has fe80::ff:fe00:2',
      ':: > ff02::1:ff00:2 ND who-has 2001:db8::2',
    );
    s.turn(999).expectSent();
    s.turn(1000).expectSent();
    assert.deepEqual(s.addresses(), ['fe80::ff:fe00:2/64 preferred', '2001:db8::2/64 preferred']);
  });

  test('until then nothing but discovery is received', () => {
    const s = new Stack({ autoconfigure: false }).turn(0);
    s.sent();
    s.receive(echo6Frame(PEER6, US6, HELLO))
      .expectSent()
      .expectCount('notForUs');
    s.receive(solicitation(PEER6, US6.ip)).expectSent().expectCount('notForUs', 2);
    assert.equal(s.net.ipv6.list()[0]!.state, 'tentative');
  });

  for (const [what, frame] of [
    ['somebody has it', advertisement(PEER6, ALL_NODES6, US6_GLOBAL.ip, 0x20)],
    ['somebody else asks for it, too', solicitation(NOBODY, US6_GLOBAL.ip)],
  ] as const) {
    test(`${what}: the address is never used`, () => {
      const s = new Stack({ autoconfigure: false, addresses: [OUR_GLOBAL] }).turn(0);
      s.receive(frame).expectCount('addressDuplicate').turn(5000);
      assert.deepEqual(s.addresses(), ['fe80::ff:fe00:2/64 preferred', '2001:db8::2/64 duplicate']);
      s.sent();
      s.receive(echo6Frame(PEER6, US6_GLOBAL, HELLO)).expectSent();
    });
  }

  test('our own question, come back, is none', () => {
    const s = new Stack({ autoconfigure: false }).turn(0);
    s.receive(solicitation({ ...NOBODY, mac: US6.mac }, US6.ip)).turn(1000);
    assert.deepEqual(s.addresses(), ['fe80::ff:fe00:2/64 preferred']);
  });

  test('with the link-local address gone, nothing goes any more', () => {
    const s = new Stack({ addresses: [OUR_GLOBAL] }).turn(0);
    s.receive(advertisement(PEER6, ALL_NODES6, US6.ip, 0x20)).turn(5000);
    s.sent();
    s.receive(echo6Frame(PEER6, US6_GLOBAL, HELLO)).expectSent();
    assert.equal(s.net.nextTimerMs, Number.POSITIVE_INFINITY);
  });

  test('in use, a claim of another is counted and changes nothing', () => {
    const s = ready().receive(advertisement(PEER6, ALL_NODES6, US6_GLOBAL.ip, 0x20));
    s.expectCount('ndConflict');
    assert.deepEqual(s.addresses(), ['fe80::ff:fe00:2/64 preferred', '2001:db8::2/64 preferred']);
  });
});

describe('neighbours, answering (RFC 4861, section 7.2.4)', () => {
  test('a question is answered in place, and teaches who asked', () => {
    const s = ready().receive(solicitation(PEER6, US6.ip));
    const [answer] = s.queue.sent;
    assert.equal(
      Buffer.from(answer!).toString('hex'),
      '02000000000102000000000286dd6000000000203afffe80000000000000000000fffe000002' +
        'fe80000000000000000000fffe0000018800' +
        '1b1a60000000fe80000000000000000000fffe0000020201020000000002',
    );
    s.expectSent('fe80::ff:fe00:2 > fe80::ff:fe00:1 ND fe80::ff:fe00:2 is-at 02:00:00:00:00:02');
    s.expectNeighbour(PEER6.ip, 'stale').expectCount('ndAdverts');
  });

  test('who looks for duplicates is told by the group of all', () => {
    const s = ready().receive(solicitation(NOBODY, US6_GLOBAL.ip));
    s.expectSent('2001:db8::2 > ff02::1 ND 2001:db8::2 is-at 02:00:00:00:00:02').expectAllFrames();
  });

  test('for others, silence', () => {
    ready().receive(solicitation(PEER6, '2001:db8::77:2')).expectSent().expectCount('notForUs');
  });

  test('what is not of this link, in pieces, or malformed is dropped', () => {
    const good = solicitation(PEER6, US6.ip);
    const routed = solicitation(PEER6, US6.ip);
    routed[21] = 254;
    const coded = icmp6Frame(PEER6, solicitedGroup(US6.ip), 135, 1, good.subarray(L4_AT6 + 4));
    const empty = good.slice();
    empty[L4_AT6 + 25] = 0;
    const group = solicitation(PEER6, 'ff02::1', solicitedGroup(US6.ip));
    const anonymousWithMac = icmp6Frame(
      NOBODY,
      solicitedGroup(US6.ip),
      135,
      0,
      good.subarray(L4_AT6 + 4),
    );
    const anonymousUnicast = solicitation(NOBODY, US6.ip, US6);
    const s = ready();
    s.receive(routed, coded, group, anonymousWithMac, anonymousUnicast).expectSent();
    s.expectCount('badNd', 5).receive(empty).expectCount('badChecksum');
    s.receive(withExtensions(good, 44, Uint8Array.of(58, 0, 0, 0, 0, 0, 0, 1))).expectSent();
    s.expectCount('badNd', 6).expectNeighbour(PEER6.ip, 'free');
  });
});

describe('neighbours, asking (RFC 4861, section 7.3)', () => {
  const WHO_HAS = '2001:db8::2 > ff02::1:ff00:1 ND who-has 2001:db8::1';
  const UDP = '2001:db8::2 > 2001:db8::1 UDP 7 > 7 len 1';
  const answer = (mac = PEER6.mac, flags = 0x60): Uint8Array =>
    advertisement({ ...PEER6_GLOBAL, mac }, US6_GLOBAL, PEER6_GLOBAL.ip, flags);
  const incomplete = (): Stack =>
    ready()
      .send(PEER6_GLOBAL.ip)
      .expectSent(WHO_HAS)
      .expectNeighbour(PEER6_GLOBAL.ip, 'incomplete');
  const reachable = (): Stack =>
    incomplete().receive(answer()).expectSent(UDP).expectNeighbour(PEER6_GLOBAL.ip, 'reachable');
  const stale = (): Stack => {
    const s = reachable().turn(2000 + NET_LIMITS.ndReachableMs);
    return s.send(PEER6_GLOBAL.ip).expectSent(UDP).expectNeighbour(PEER6_GLOBAL.ip, 'delay');
  };

  test('incomplete: asked once a second, and given up after three', () => {
    const s = incomplete();
    s.turn(2999).expectSent();
    s.turn(3000).expectSent(WHO_HAS).turn(4000).expectSent(WHO_HAS);
    s.turn(5000).expectSent().expectNeighbour(PEER6_GLOBAL.ip, 'free').expectCount('ndFailed');
  });

  test('incomplete: the newest four wait', () => {
    const s = incomplete();
    for (let mark = 1; mark <= 5; mark++) s.send(PEER6_GLOBAL.ip, mark);
    s.receive(answer());
    const marks = s.queue.takeSent().map((f) => f[UDP6_PAYLOAD_OFFSET]);
    assert.deepEqual(marks, [2, 3, 4, 5]);
    s.expectCount('ndPendingFull', 2);
  });

  test('an answer that nobody asked for teaches nothing', () => {
    ready().receive(answer()).expectNeighbour(PEER6_GLOBAL.ip, 'free').expectCount('rxNd');
  });

  test('reachable, then stale: used on, asked after five seconds, and confirmed', () => {
    const s = stale();
    const now = s.nowMs;
    s.turn(now + 4999).expectSent();
    s.turn(now + 5000).expectSent('2001:db8::2 > 2001:db8::1 ND who-has 2001:db8::1');
    s.expectNeighbour(PEER6_GLOBAL.ip, 'probe').send(PEER6_GLOBAL.ip).expectSent(UDP);
    s.receive(answer()).expectNeighbour(PEER6_GLOBAL.ip, 'reachable').expectAllFrames();
  });

  test('no answer to three probes forgets it', () => {
    const s = stale();
    const now = s.nowMs;
    for (let i = 0; i < 4; i++) s.turn(now + 5000 + i * 1000);
    s.expectNeighbour(PEER6_GLOBAL.ip, 'free').expectAllFrames();
    assert.equal(s.sent().length, 3);
  });

  test('another MAC does not replace it, override or not: the next use asks everybody', () => {
    for (const claim of [
      answer(ROUTER6.mac),
      answer(ROUTER6.mac, 0x20),
      solicitation({ ...PEER6_GLOBAL, mac: ROUTER6.mac }, US6_GLOBAL.ip),
    ]) {
      const s = reachable().receive(claim).expectNeighbour(PEER6_GLOBAL.ip, 'stale');
      s.queue.takeSent();
      s.send(PEER6_GLOBAL.ip);
      const [data, question] = s.queue.takeSent();
      assert.equal(data![5], 1, 'the MAC that is known serves on');
      assert.equal(question!.subarray(0, 6).join(), [0x33, 0x33, 0xff, 0, 0, 1].join());
      s.receive(answer(ROUTER6.mac)).expectNeighbour(PEER6_GLOBAL.ip, 'reachable');
      s.send(PEER6_GLOBAL.ip);
      assert.equal(s.queue.takeSent()[0]![5], 9);
    }
  });

  test('a transport that makes progress confirms it', () => {
    const s = stale();
    s.net.ipv6.neighbours.confirmReachable(parseIpv6(PEER6_GLOBAL.ip), 0);
    s.turn(s.nowMs + 6000)
      .expectSent()
      .expectNeighbour(PEER6_GLOBAL.ip, 'reachable');
  });

  test('a scan of dead addresses is bounded, and displaces nobody who answers (RFC 6583)', () => {
    const s = reachable();
    for (let host = 0x100; host < 0x800; host++) s.send(`2001:db8::${host.toString(16)}`);
    const asked = s.queue.takeSent().length;
    assert.ok(asked <= NET_LIMITS.ndSolicitBurst + 1, `${asked} questions`);
    assert.ok(s.net.counters.ndLimited > 0);
    const waiting = s.queue.memory.frameCount - s.queue.framesAvailable;
    assert.ok(waiting <= NET_LIMITS.ndPendingMax, `${waiting} frames wait`);
    s.expectNeighbour(PEER6_GLOBAL.ip, 'reachable');
    for (let i = 1; i < 6; i++) s.turn(2000 + i * 1000);
    s.expectAllFrames();
  });

  test('a flood of strangers who ask displaces nobody who answers', () => {
    const s = reachable();
    for (let i = 0; i < 3000; i++) {
      s.receive(solicitation({ mac: ROUTER6.mac, ip: `fe80::${i.toString(16)}:7` }, US6.ip));
    }
    s.expectNeighbour(PEER6_GLOBAL.ip, 'reachable').expectAllFrames();
  });

  test('permanent: nothing received changes it', () => {
    const s = ready();
    s.net.ipv6.setNeighbour(parseIpv6(PEER6_GLOBAL.ip), PEER6.mac);
    s.receive(answer(ROUTER6.mac)).send(PEER6_GLOBAL.ip).turn(100_000);
    s.expectSent(UDP).expectNeighbour(PEER6_GLOBAL.ip, 'permanent');
  });
});

describe('routers and addresses of theirs', () => {
  const PREFIX = { prefix: '2001:db8:1::' };
  const start = (options: Ipv6Options = {}): Stack => {
    const s = new Stack(options).turn(0).turn(1000);
    const last = s.sent().at(-1);
    assert.equal(last, 'fe80::ff:fe00:2 > ff02::2 ND router solicitation');
    return s;
  };

  test('asked for three times, four seconds apart, until one answers', () => {
    const s = start();
    const asks = ['fe80::ff:fe00:2 > ff02::2 ND router solicitation'];
    s.turn(4999)
      .expectSent()
      .turn(5000)
      .expectSent(...asks)
      .turn(9000)
      .expectSent(...asks);
    s.turn(60_000).expectSent();
    const answered = start();
    answered.receive(routerAdvertisement(ROUTER6)).turn(5000).expectSent();
  });

  test('an address is made of a prefix and the MAC, and the router is the way', () => {
    const s = start().receive(routerAdvertisement(ROUTER6, { prefixes: [PREFIX] }));
    s.expectSent(':: > ff02::1:ff00:2 ND who-has 2001:db8:1::ff:fe00:2');
    s.turn(2000).send(FAR6);
    assert.equal(s.addresses()[1], '2001:db8:1::ff:fe00:2/64 preferred');
    const [frame] = s.queue.takeSent();
    assert.equal(frame![5], 9, 'by the router, whose MAC it has told');
    s.send('2001:db8:1::77').expectSent(
      '2001:db8:1::ff:fe00:2 > ff02::1:ff00:77 ND who-has 2001:db8:1::77',
    );
  });

  test('with a secret, the address says nothing of the MAC, and is the same every time', () => {
    const made = (secret: number, prefix = PREFIX): string => {
      const s = start({ secret: new Uint8Array(16).fill(secret) });
      s.receive(routerAdvertisement(ROUTER6, { prefixes: [prefix] })).turn(2000);
      return s.addresses()[1]!;
    };
    assert.match(made(1), /^2001:db8:1:.* preferred$/);
    assert.doesNotMatch(made(1), /ff:fe00/);
    assert.equal(made(1), made(1));
    assert.notEqual(made(1), made(2));
    const suffix = (text: string): string => text.split(':').slice(-3).join(':');
    assert.notEqual(suffix(made(1)), suffix(made(1, { prefix: '2001:db8:2::' })));
  });

  test('with a secret, a duplicate makes it try others, a few times', () => {
    const s = start({ secret: new Uint8Array(16).fill(3) });
    s.receive(routerAdvertisement(ROUTER6, { prefixes: [PREFIX] }));
    for (let i = 0; i < 6; i++) {
      const tentative = s.net.ipv6.list().find((a) => a.state === 'tentative');
      if (tentative === undefined) break;
      s.receive(advertisement(PEER6, ALL_NODES6, tentative.address, 0x20)).turn(s.nowMs + 1);
    }
    s.expectCount('addressDuplicate', 1 + NET_LIMITS.iidTriesMax);
    s.receive(routerAdvertisement(ROUTER6, { prefixes: [PREFIX] })).turn(s.nowMs + 5000);
    assert.ok(
      s
        .addresses()
        .slice(1)
        .every((text) => text.endsWith('duplicate')),
    );
  });

  test('lifetimes: deprecated, gone; and not ended at once by anybody (RFC 4862, section 5.5.3)', () => {
    const s = start();
    const say = (valid: number, preferred: number): Stack =>
      s.receive(routerAdvertisement(ROUTER6, { prefixes: [{ ...PREFIX, valid, preferred }] }));
    const state = (): string => s.addresses()[1]?.split(' ')[1] ?? 'gone';
    say(86_400, 100).turn(2000);
    assert.equal(state(), 'preferred');
    s.turn(101_001);
    assert.equal(state(), 'deprecated');
    say(1, 1);
    s.turn(s.nowMs + 7_199_000);
    assert.equal(state(), 'deprecated');
    s.turn(s.nowMs + 1001);
    assert.equal(state(), 'gone');
  });

  test('MTU and hop limit are taken within bounds', () => {
    const s = start().receive(routerAdvertisement(ROUTER6, { mtu: 1400, hopLimit: 55 }));
    const { ip } = s.net.ipv6;
    assert.deepEqual([ip.linkMtu, ip.hopLimit], [1400, 55]);
    for (const [mtu, hopLimit] of [
      [1279, 1],
      [9000, 0],
      [0, 31],
    ] as const) {
      s.receive(routerAdvertisement(ROUTER6, { mtu, hopLimit }));
      assert.deepEqual([ip.linkMtu, ip.hopLimit], [1400, 55]);
    }
  });

  test('the better router that answers; one that ends; a flood of others', () => {
    const s = start({ addresses: [OUR_GLOBAL] });
    const low = { mac: 0x020000000077, ip: 'fe80::77' };
    const via = (): number => {
      s.send(FAR6);
      return s.queue.takeSent().at(-1)![5]!;
    };
    s.receive(routerAdvertisement(low, { flags: 0x18 }), routerAdvertisement(ROUTER6));
    assert.equal(via(), 9);
    for (let i = 0; i < 1000; i++) {
      const flood = { mac: 0x020000000100 + i, ip: `fe80::bad:${i.toString(16)}` };
      s.receive(
        routerAdvertisement(flood, {
          prefixes: [{ prefix: `2001:db8:${(i + 256).toString(16)}::` }],
        }),
      );
    }
    assert.equal(via(), 9);
    assert.ok(s.net.ipv6.list().length <= NET_LIMITS.addresses6Max);
    s.receive(routerAdvertisement(ROUTER6, { lifetime: 0 }));
    assert.notEqual(via(), 9);
    for (let i = 1; i < 10; i++) s.turn(s.nowMs + 1000);
    s.expectAllFrames();
  });

  test('not from beyond the link, and not from a global address', () => {
    const s = start();
    const routed = routerAdvertisement(ROUTER6);
    routed[21] = 64;
    s.receive(routed, routerAdvertisement({ ...ROUTER6, ip: '2001:db8::9' }));
    s.expectCount('badNd', 2);
    assert.equal(s.net.ipv6.routes.routerCount, 0);
  });

  test('when they are not listened to', () => {
    const s = ready().receive(routerAdvertisement(ROUTER6, { prefixes: [PREFIX] }));
    s.turn(9000).send(FAR6).expectSent().expectCount('noRoute');
    assert.equal(s.addresses().length, 2);
  });
});

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
