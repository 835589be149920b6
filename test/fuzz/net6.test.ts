/**
 * The IPv6 stack against nearly right frames. For every one of them: nothing throws, it has one outcome, its buffer comes
 * back (or waits for the rest of its packet), a few frames at most are sent because of it, and these are well formed, from
 * an address of ours, and no longer than they may be.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIpv6 } from '../../src/base/address.ts';
import { isSame, isUnspecified } from '../../src/base/ipv6.ts';
import { RX_OUTCOMES } from '../../src/net/counters.ts';
import { NetInterface } from '../../src/net/interface.ts';
import { NET_LIMITS } from '../../src/net/limits.ts';
import * as ethernet from '../../src/wire/ethernet.ts';
import { HeaderWalk, WALK } from '../../src/wire/extensions.ts';
import { formatFrame } from '../../src/wire/format.ts';
import * as icmp from '../../src/wire/icmpv6.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import * as ndp from '../../src/wire/ndp.ts';
import * as udp from '../../src/wire/udp.ts';
import { FakeQueue } from '../support/fake-queue.ts';
import { toHex, US, viewOfBytes } from '../support/frames.ts';
import {
  ALL_NODES6,
  advertisement,
  echo6Frame,
  fixChecksum6,
  fragments6,
  groupHost,
  icmp6Frame,
  L4_AT6,
  NOBODY,
  PEER6,
  PEER6_GLOBAL,
  ROUTER6,
  routerAdvertisement,
  solicitation,
  US6,
  US6_GLOBAL,
  udp6Frame,
  withExtensions,
} from '../support/frames6.ts';
import { Random } from '../support/random.ts';

const SEED = 20260103;
const CASES = 100_000;
const FRAMES = 256;
/** Ports of the handlers: echo, a reply of another length, one that keeps frames for a while. 10 is closed. */
const [ECHO, REPLY, HOLD] = [7, 8, 9];
const SENT_MAX = 8;

const KINDS = ['solicit', 'advertise', 'router', 'echo', 'udp', 'error', 'mld', 'pieces'] as const;
type Kind = (typeof KINDS)[number];

const bodyOf = (random: Random): Uint8Array => {
  const body = new Uint8Array(random.pick([0, 1, 5, 22, 100, 600, 1232, 1400]));
  for (let i = 0; i < body.length; i += 1 + random.below(16)) body[i] = random.below(256);
  return body;
};

function datagram(random: Random, from = random.pick([PEER6, PEER6_GLOBAL])): Uint8Array {
  const to = random.pick([US6, US6_GLOBAL, US6_GLOBAL, ALL_NODES6]);
  const port = random.pick([7, 7, 8, 9, 10]);
  return udp6Frame({ ...from, port: random.pick([1024, 7]) }, { ...to, port }, bodyOf(random));
}

function router(random: Random): Uint8Array {
  const seconds = (): number => random.pick([0, 1, 7200, 7201, 86_400, 0xffffffff]);
  const prefixes = Array.from({ length: random.below(4) }, () => ({
    prefix: random.pick(['2001:db8:1::', '2001:db8:2::', 'fe80::', 'ff02::', '::', 'fd00::']),
    length: random.pick([64, 64, 0, 48, 128, 129, 255]),
    flags: random.pick([0xc0, 0x40, 0x80, 0]),
    valid: seconds(),
    preferred: seconds(),
  }));
  const from = { ...ROUTER6, ip: random.pick([ROUTER6.ip, 'fe80::8', 'fe80::7', PEER6_GLOBAL.ip]) };
  const lifetime = random.pick([0, 1, 1800, 65535]);
  const mtu = random.pick([0, 1279, 1280, 1400, 9000, 0xffffffff]);
  const retransMs = random.pick([0, 1, 1000, 60_000, 0xffffffff]);
  const [hopLimit, flags] = [random.below(256), random.below(256)];
  return routerAdvertisement(from, { lifetime, mtu, retransMs, hopLimit, flags, prefixes });
}

/** An error about something that we may have sent. */
function error(random: Random): Uint8Array {
  const to = random.pick([PEER6_GLOBAL, { ...PEER6, ip: '2001:db8:ffff::1' }]);
  const quoted = udp6Frame({ ...US6_GLOBAL, port: 7 }, { ...to, port: 9 }, bodyOf(random)).subarray(
    14,
  );
  const word = random.pick([0, 600, 1280, 1400, 1500, 65_536, 0xffffffff]);
  const head = [24, 16, 8, 0].map((shift) => (word >>> shift) & 255);
  const body = Uint8Array.of(...head, ...quoted.subarray(0, 1280 - 48));
  return icmp6Frame(ROUTER6, US6_GLOBAL, 1 + random.below(5), random.below(8), body);
}

function validFrame(random: Random, kind: Kind): Uint8Array {
  const target = random.pick([US6.ip, US6_GLOBAL.ip, '2001:db8::99:2']);
  const peer = random.pick([PEER6, PEER6_GLOBAL, NOBODY]);
  switch (kind) {
    case 'solicit':
      return solicitation(peer, target);
    case 'advertise':
      return advertisement(
        peer,
        random.pick([US6, US6_GLOBAL, ALL_NODES6]),
        random.pick([PEER6.ip, PEER6_GLOBAL.ip, target]),
        random.below(256),
        random.pick([PEER6.mac, ROUTER6.mac, null]),
      );
    case 'router':
      return router(random);
    case 'echo':
      return echo6Frame(peer, random.pick([US6, US6_GLOBAL, ALL_NODES6]), bodyOf(random));
    case 'error':
      return error(random);
    case 'mld':
      return icmp6Frame(
        ROUTER6,
        random.pick([ALL_NODES6, groupHost('ff02::1:ff00:2')]),
        130,
        0,
        new Uint8Array(24),
        1,
      );
    case 'pieces': {
      const whole = random.oneIn(3) ? echo6Frame(PEER6, US6, bodyOf(random)) : datagram(random);
      return random.pick(fragments6(whole, random.pick([56, 400, 800]), random.below(4)));
    }
    default:
      return datagram(random);
  }
}

/** Extension headers, right or nearly. */
function extensions(random: Random, next: number): [number, Uint8Array] {
  const out: number[] = [];
  const count = random.pick([1, 1, 2, 3, 10]);
  const kinds = Array.from({ length: count }, () => random.pick([60, 60, 43, 44, 0]));
  kinds.forEach((kind, i) => {
    const following = kinds[i + 1] ?? next;
    if (kind === 44) out.push(following, 0, 0, random.pick([0, 0, 1, 8]), 0, 0, 0, random.below(3));
    else if (kind === 43) out.push(following, 0, random.below(5), random.below(2), 0, 0, 0, 0);
    else out.push(following, 0, random.pick([1, 5, 0x1e, 0x5e, 0x9e, 0xde]), 4, 0, 0, 0, 0);
  });
  return [kinds[0]!, Uint8Array.from(out)];
}

function mutatedFrame(random: Random, kind: Kind): Uint8Array {
  let bytes = validFrame(random, kind);
  if (random.oneIn(4) && bytes.length < 1400) {
    const [first, headers] = extensions(random, bytes[20]!);
    bytes = withExtensions(bytes, first, headers);
  }
  for (let left = random.below(4); left > 0; left--) {
    const at = random.oneIn(4)
      ? random.below(bytes.length)
      : 12 + random.below(Math.min(100, bytes.length - 12));
    if (random.oneIn(2)) bytes[at] = random.pick([0, 1, 2, 4, 8, 44, 58, 60, 0x7f, 0x80, 0xff]);
    else bytes[at]! ^= 1 << random.below(8);
  }
  if (!random.oneIn(4)) mend(bytes);
  if (random.oneIn(5)) return bytes.slice(0, random.below(bytes.length + 1));
  return bytes;
}

const walk = new HeaderWalk(true);

/** Make the checksum right again, as far as the headers allow: what lies inside is then looked at, too. */
function mend(bytes: Uint8Array): void {
  const view = viewOfBytes(bytes);
  const length = ipv6.check(view, 14, bytes.length);
  if (length < 0) return;
  const outcome = walk.run(view, L4_AT6, L4_AT6 + length, bytes[20]!, 20, true);
  if (outcome !== WALK.payload) return;
  if (walk.protocol === 58) fixChecksum6(bytes, walk.payloadAt, 2, 58);
  if (walk.protocol === 17) fixChecksum6(bytes, walk.payloadAt, 6, 17);
}

class Subject {
  readonly queue = new FakeQueue({ frameCount: FRAMES });
  readonly net: NetInterface;
  readonly #random: Random;
  readonly #held: number[] = [];
  readonly #words = new Int32Array(4);
  #cases = 0;

  constructor(random: Random, ownsAddress: boolean) {
    this.#random = random;
    const addresses = [{ address: parseIpv6(US6_GLOBAL.ip), prefix: 64 }];
    this.net = new NetInterface({
      queue: this.queue,
      mac: US.mac,
      address: US.ip,
      prefix: 24,
      ownsAddress,
      ipv6: { dadTransmits: ownsAddress ? 1 : 0, addresses },
      random: () => random.uint32(),
    });
    const { udp6 } = this.net;
    udp6.bind(ECHO, (frame, at, length) => udp6.echoInPlace(frame, at, length));
    udp6.bind(REPLY, (frame, at) => udp6.replyInPlace(frame, at, random.below(2100)));
    udp6.bind(HOLD, (frame) => {
      udp6.hold(frame);
      this.#held.push(frame);
    });
    for (const now of [0, 1000, 2000]) this.net.poll(now);
    this.queue.takeSent();
  }

  run(bytes: Uint8Array): void {
    this.queue.inject(bytes, this.#random.below(33));
    this.net.poll(2000 + (this.#cases++ >> 3));
    const sent = this.queue.takeSent();
    // One more turn: what the timers wanted.
    this.net.poll(2000 + (this.#cases >> 3));
    sent.push(...this.queue.takeSent());
    assert.ok(sent.length <= SENT_MAX, `${sent.length} frames for one`);
    for (const frame of sent) this.#checkSent(frame);
    if (this.#held.length > 8) for (const frame of this.#held.splice(0)) this.net.udp6.free(frame);
    const waiting = FRAMES - this.queue.framesAvailable - this.#held.length;
    const most = NET_LIMITS.ndPendingMax + this.net.fragmentsHeld;
    assert.ok(waiting >= this.net.fragmentsHeld && waiting <= most, `${waiting} frames are away`);
    const { counters } = this.net;
    const outcomes = RX_OUTCOMES.reduce((total, name) => total + counters[name], 0);
    assert.equal(counters.rxFrames, this.#cases);
    assert.equal(outcomes, this.#cases, 'one outcome each');
    assert.ok(this.net.ipv6.list().length <= NET_LIMITS.addresses6Max);
  }

  /** Nothing is lost in the end. */
  end(): void {
    for (const frame of this.#held.splice(0)) this.net.udp6.free(frame);
    this.net.close();
    this.queue.reclaim(FRAMES);
    assert.equal(this.queue.framesAvailable, FRAMES);
  }

  #checkSent(bytes: Uint8Array): void {
    const view = viewOfBytes(bytes);
    const line = formatFrame(view, 0, bytes.length);
    assert.equal(ethernet.type(view, 0), ethernet.TYPE_IPV6);
    assert.equal(ethernet.srcLo(view, 0), 2);
    const length = ipv6.check(view, 14, bytes.length);
    assert.equal(length, bytes.length - L4_AT6, 'no slack');
    assert.ok(bytes.length <= 1514);
    ipv6.readSrc(view, 14, this.#words, 0);
    const { addresses } = this.net.ipv6;
    const isOurs = addresses.used().some((i) => isSame(addresses.words, 4 * i, this.#words, 0));
    const isMulticast = ethernet.isGroup(ethernet.dstHi(view, 0));
    assert.equal(isMulticast, bytes[38] === 0xff, `the MAC goes with the address: ${line}`);
    assert.ok(isOurs || isUnspecified(this.#words, 0), line);
    const outcome = walk.run(view, L4_AT6, bytes.length, bytes[20]!, 20, true);
    if (outcome === WALK.fragment) return;
    assert.equal(outcome, WALK.payload);
    const at = walk.payloadAt;
    if (walk.protocol === 17) {
      const payload = udp.check(view, at, bytes.length);
      assert.ok(payload >= 0 && udp.checksumIsValid6(view, at, payload, 14), line);
    } else {
      assert.equal(walk.protocol, 58);
      assert.ok(icmp.check(view, at, bytes.length, 14) >= 0, line);
      const type = icmp.type(view, at);
      if (ndp.isNdp(type)) assert.ok(ndp.check(view, at, bytes.length, type) && bytes[21] === 255);
      if (icmp.isError(type)) assert.ok(bytes.length <= 14 + 1280);
    }
  }
}

function runAll(
  random: Random,
  ownsAddress: boolean,
  cases: number,
  kinds: readonly Kind[],
): Subject {
  const subject = new Subject(random, ownsAddress);
  for (let i = 0; i < cases; i++) {
    const bytes = mutatedFrame(random, random.pick(kinds));
    try {
      subject.run(bytes);
    } catch (cause) {
      throw new Error(`case ${i}: ${toHex(bytes)}`, { cause });
    }
  }
  subject.end();
  return subject;
}

test(`${CASES} nearly right frames, seed ${SEED}`, (t) => {
  const { counters } = runAll(new Random(SEED), true, CASES, KINDS).net;
  const seen = RX_OUTCOMES.filter((name) => counters[name] > 0);
  t.diagnostic(seen.map((name) => `${name} ${counters[name]}`).join(', '));
  for (const name of ['rxUdp', 'rxEcho', 'rxNd', 'rxMld', 'rxIcmpError'] as const) {
    assert.ok(counters[name] > CASES / 500, `enough are let in: ${name} ${counters[name]}`);
  }
  for (const name of [
    'badNd',
    'badExtension',
    'badChecksum',
    'badSource',
    'badQuote',
    'noSocket',
    'fragment',
  ] as const) {
    assert.ok(counters[name] > CASES / 2000, `enough are refused: ${name} ${counters[name]}`);
  }
});

test('a shared address: 20,000 nearly right frames', () => {
  const { counters } = runAll(new Random(SEED + 1), false, 20_000, KINDS).net;
  assert.equal(counters.ndSolicits + counters.ndAdverts + counters.icmpErrors + counters.rxNd, 0);
  assert.ok(counters.rxUdp > 500);
});
