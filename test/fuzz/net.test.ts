/**
 * The whole stack against nearly right frames. For every one of them: nothing throws, it has one outcome, its buffer comes
 * back, at most one datagram is sent because of it, and that is well formed, from us, and no longer than it may be.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RX_OUTCOMES } from '../../src/net/counters.ts';
import { NetInterface } from '../../src/net/interface.ts';
import { UDP_PAYLOAD_OFFSET } from '../../src/net/udp.ts';
import * as ethernet from '../../src/wire/ethernet.ts';
import * as icmp from '../../src/wire/icmp.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as udp from '../../src/wire/udp.ts';
import { FakeQueue } from '../support/fake-queue.ts';
import { hex, toHex, US, viewOfBytes } from '../support/frames.ts';
import { LAYERS, mutatedFrame } from '../support/mutate.ts';
import { Random } from '../support/random.ts';
import { FRAMES, SEEDS } from './corpus/net.ts';

const SEED = 20260102;
const CASES = 100_000;
/** Ports of the handlers: echo, a reply of another length, one that keeps frames for a while. 10 is closed. */
const [ECHO, REPLY, HOLD] = [7, 8, 9];
const REPLY_LENGTH_MAX = 1472;

class Subject {
  readonly queue = new FakeQueue({ frameCount: 64 });
  readonly net: NetInterface;
  readonly #random: Random;
  readonly #held: number[] = [];
  #received: Uint8Array = new Uint8Array(0);
  #cases = 0;

  constructor(random: Random, ownsAddress: boolean) {
    this.#random = random;
    const { queue } = this;
    this.net = new NetInterface({ queue, mac: US.mac, address: US.ip, prefix: 24, ownsAddress });
    const { udp: sockets } = this.net;
    sockets.bind(ECHO, (frame, at, length) => {
      this.#checkPayload(frame, at, length);
      sockets.echoInPlace(frame, at, length);
    });
    sockets.bind(REPLY, (frame, at, length) => {
      this.#checkPayload(frame, at, length);
      sockets.replyInPlace(frame, at, random.below(2000));
    });
    sockets.bind(HOLD, (frame, at, length) => {
      this.#checkPayload(frame, at, length);
      sockets.hold(frame);
      this.#held.push(frame);
    });
  }

  /** Receive `bytes`, and check all that may be said about what happens then. */
  run(bytes: Uint8Array): void {
    this.#received = bytes;
    this.queue.inject(bytes, this.#random.below(33));
    this.net.poll(this.#cases++ >> 3);
    const sent = this.queue.takeSent();
    assert.ok(sent.length <= 2, 'at most one frame for one, or a long reply in two pieces');
    for (const frame of sent) this.#checkSent(frame);
    if (this.#held.length > 8) for (const frame of this.#held.splice(0)) this.net.udp.free(frame);
    const held = this.#held.length + this.net.fragmentsHeld;
    assert.equal(this.queue.framesAvailable + held, 64, 'frames are conserved');
    const { counters } = this.net;
    const outcomes = RX_OUTCOMES.reduce((total, name) => total + counters[name], 0);
    assert.equal(counters.rxFrames, this.#cases);
    assert.equal(outcomes, this.#cases, 'one outcome each');
  }

  #checkPayload(frame: number, at: number, length: number): void {
    assert.ok(at >= frame + UDP_PAYLOAD_OFFSET && length >= 0);
    assert.ok(at + length <= frame + this.#received.length, 'the payload lies in the frame');
  }

  #checkSent(bytes: Uint8Array): void {
    const view = viewOfBytes(bytes);
    assert.equal(ethernet.srcHi(view, 0), 0x0200);
    assert.equal(ethernet.srcLo(view, 0), 2);
    assert.ok(!ethernet.isGroup(ethernet.dstHi(view, 0)), 'an answer goes to one host');
    if (ethernet.type(view, 0) === ethernet.TYPE_ARP) {
      assert.equal(bytes.length, 42);
      return;
    }
    assert.equal(ethernet.type(view, 0), ethernet.TYPE_IPV4);
    const length = ipv4.check(view, 14, bytes.length);
    assert.equal(length, bytes.length - 34, 'no options, no slack');
    assert.equal(ipv4.src(view, 14), US.ip);
    if (ipv4.isFragment(view, 14)) {
      assert.ok(ipv4.fragmentOffset(view, 14) > 0 || length === 1480);
      return;
    }
    const isUdp = ipv4.protocol(view, 14) === ipv4.PROTOCOL_UDP;
    if (isUdp) this.#checkUdp(view, length);
    else this.#checkIcmp(view, bytes.length, length);
  }

  #checkUdp(view: DataView, length: number): void {
    const payload = udp.check(view, 34, 34 + length);
    assert.equal(payload, length - 8);
    assert.ok(udp.checksumField(view, 34) !== 0);
    assert.ok(udp.checksumIsValid(view, 34, payload, ipv4.src(view, 14), ipv4.dst(view, 14)));
    if (udp.srcPort(view, 34) === REPLY) assert.ok(payload <= REPLY_LENGTH_MAX);
  }

  #checkIcmp(view: DataView, frameLength: number, length: number): void {
    assert.equal(icmp.check(view, 34, 34 + length), length - 8);
    if (icmp.type(view, 34) === icmp.ECHO_REPLY) {
      assert.ok(frameLength <= this.#received.length || this.net.counters.reassembled > 0);
    } else {
      assert.equal(icmp.type(view, 34), icmp.DESTINATION_UNREACHABLE);
      assert.ok(frameLength <= Math.min(14 + 576, this.#received.length + 28));
    }
  }
}

function runAll(subject: Subject, count: number, next: () => Uint8Array): void {
  for (let i = 0; i < count; i++) {
    const bytes = next();
    try {
      subject.run(bytes);
    } catch (cause) {
      throw new Error(`case ${i}: ${toHex(bytes)}`, { cause });
    }
  }
}

for (const ownsAddress of [true, false]) {
  const whose = ownsAddress ? 'our address' : 'a shared address';

  test(`${whose}: the corpus at every truncation`, () => {
    const frames = FRAMES.flatMap(({ hex: text }) => {
      const bytes = hex(text);
      return Array.from({ length: bytes.length + 1 }, (_, length) => bytes.slice(0, length));
    });
    runAll(new Subject(new Random(1), ownsAddress), frames.length, () => frames.pop()!);
  });

  for (const seed of SEEDS) {
    test(`${whose}: all layers, seed ${seed}`, () => {
      const random = new Random(seed);
      const subject = new Subject(random, ownsAddress);
      runAll(subject, 10_000, () => mutatedFrame(random, random.pick(LAYERS)));
    });
  }
}

for (const layer of LAYERS) {
  test(`${layer}: ${CASES} nearly right frames, seed ${SEED}`, (t) => {
    const random = new Random(SEED);
    const subject = new Subject(random, true);
    runAll(subject, CASES, () => mutatedFrame(random, layer));
    const { counters } = subject.net;
    t.diagnostic(RX_OUTCOMES.map((name) => `${name} ${counters[name]}`).join(', '));
    const good = counters.rxArp + counters.rxEcho + counters.rxIcmp + counters.rxUdp;
    assert.ok(good > CASES / 20, 'enough of them are let in');
    assert.ok(good < CASES * 0.95, 'enough of them are refused');
  });
}
