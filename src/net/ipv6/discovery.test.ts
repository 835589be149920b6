/** Neighbour discovery and autoconfiguration, by state. Times are milliseconds since the start. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  ALL_NODES6,
  advertisement,
  echo6Frame,
  icmp6Frame,
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
  withExtensions,
} from '../../../test/support/frames6.ts';
import { FAR6, HELLO, OUR_GLOBAL, ready, Stack } from '../../../test/support/stack6.ts';
import { parseIpv6 } from '../../base/address.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Ipv6Options } from './stack.ts';
import { UDP6_PAYLOAD_OFFSET } from './udp.ts';

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

  test('a cache full of neighbours who answer keeps them, whoever else is asked for or asks', () => {
    const s = ready();
    const ips = Array.from({ length: 600 }, (_, i) => `2001:db8::5:${(i + 1).toString(16)}`);
    for (const ip of ips) {
      s.turn(s.nowMs + 20).send(ip);
      s.receive(advertisement({ ...PEER6, ip }, US6_GLOBAL, ip, 0x60));
    }
    const known = (): string[] =>
      ips.filter((ip) => s.net.ipv6.neighbourState(parseIpv6(ip)) === 'reachable');
    const before = known();
    assert.ok(before.length > 200, `${before.length} of ${ips.length}`);
    for (let i = 1; i < 600; i++) {
      s.send(`2001:db8::dead:${i.toString(16)}`);
      s.receive(solicitation({ ...PEER6, ip: `2001:db8::bad:${i.toString(16)}` }, US6_GLOBAL.ip));
    }
    assert.deepEqual(known(), before);
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
