/**
 * Nearly right segments in every state of TCP (ARRAKIS_FUZZ_SEGMENTS=5000000 sends more of them). Nothing throws, what is
 * sent is well formed, every frame comes back, and a connection beside it goes on undisturbed.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PEER, toHex } from '../support/frames.ts';
import { Random } from '../support/random.ts';
import { TCP_SEEDS } from './corpus/tcp.ts';
import { FuzzHost, RawPeer, STATES, type StateName } from './tcp/host.ts';
import { nearlyRight } from './tcp/mutate.ts';

const SEGMENTS = Number(process.env.ARRAKIS_FUZZ_SEGMENTS ?? 110_000);
const SEED = Number(process.env.ARRAKIS_FUZZ_SEED ?? 20260301);
const SEGMENTS_PER_CONNECTION = 20;
const NEIGHBOUR = { mac: PEER.mac, ip: PEER.ip + 40 };

/** An established connection that says something, hears it again, and must not notice anything else. */
class Neighbour {
  readonly peer: RawPeer;
  #said = 0;

  constructor(host: FuzzHost) {
    host.net.setNeighbour(NEIGHBOUR.ip, NEIGHBOUR.mac);
    this.peer = new RawPeer(host, NEIGHBOUR, 1234, 77, true);
    this.peer.open();
  }

  check(): void {
    const { peer } = this;
    const text = `still here ${this.#said++}`;
    const answers = peer.send({ flags: 'PA', data: new Uint8Array(Buffer.from(text)) });
    const heard = answers.map(({ data }) => Buffer.from(data).toString()).join('');
    assert.equal(heard, text, 'the neighbour is answered');
    peer.send();
    peer.host.pass(50);
    assert.equal(peer.owner.closedAs, null);
  }
}

/** `count` segments against connections in `state`; a failure tells which frame of which connection did it. */
function attack(state: StateName, count: number, seed: number): FuzzHost {
  const random = new Random(seed);
  const host = new FuzzHost();
  const neighbour = new Neighbour(host);
  let port = 2000;
  for (let sent = 0; sent < count; ) {
    port = port === 39_999 ? 2000 : port + 1;
    const peer = new RawPeer(host, PEER, port, random.uint32());
    peer.enter(state);
    let frame = new Uint8Array(0);
    try {
      for (let i = 0; i < SEGMENTS_PER_CONNECTION; i++, sent++) {
        frame = Uint8Array.from(nearlyRight(random, peer));
        peer.note(host.inject(frame));
        if (random.oneIn(4)) peer.note(host.pass(random.pick([1, 10, 50, 300, 3000])));
        if (random.oneIn(8)) say(random, peer);
      }
      peer.leave(neighbour.peer.owner);
      neighbour.check();
      host.checkAtRest();
    } catch (cause) {
      const what = (cause as Error).message;
      const where = `${state}, seed ${seed}, segment ${sent}`;
      throw new Error(`${what}\n${where}: ${toHex(frame)}`, { cause });
    }
  }
  return host;
}

/** The owner does something meanwhile. */
function say(random: Random, peer: RawPeer): void {
  const { connection } = peer.owner;
  if (connection === null) return;
  const bytes = new Uint8Array(random.pick([1, 100, 3000]));
  switch (random.below(5)) {
    case 0:
      connection.pause();
      break;
    case 1:
      connection.resume();
      break;
    case 2:
      connection.end();
      break;
    default:
      connection.write(bytes, 0, bytes.length);
  }
  peer.note(peer.host.turn());
}

for (const state of STATES) {
  const count = Math.ceil(SEGMENTS / STATES.length);
  test(`${state}: ${count} nearly right segments, seed ${SEED}`, (t) => {
    const host = attack(state, count, SEED);
    t.diagnostic(JSON.stringify(host.net.counters).replace(/"\w+":0,?/g, ''));
  });
}

for (const [state, seed] of TCP_SEEDS) {
  test(`corpus: ${state}, seed ${seed}`, () => {
    attack(state, 2000, seed);
  });
}

test('a flood of SYNs: bounded memory, cookies, and who means it gets in', () => {
  const host = new FuzzHost({ backlog: 16 });
  const neighbour = new Neighbour(host);
  const random = new Random(SEED);
  for (let i = 0; i < 20_000; i++) {
    const from = { mac: PEER.mac, ip: 0xc0000000 + random.below(0x1000000) };
    const peer = new RawPeer(host, from, 1 + random.below(65_535), random.uint32());
    peer.send({ flags: 'S', options: { mss: 1460 } });
    if (i % 1000 === 0) neighbour.check();
  }
  assert.ok(host.net.tcp.connectionCount <= 17, 'handshakes are few');
  assert.ok(host.net.counters.tcpCookiesSent > 19_000);
  const honest = new RawPeer(host, PEER, 5555, 4711, true);
  honest.open();
  const [echo] = honest.send({ data: new Uint8Array([1, 2, 3]) });
  assert.deepEqual([...(echo?.data ?? [])], [1, 2, 3]);
  const liar = new RawPeer(host, PEER, 5556, 4711);
  for (let i = 0; i < 10_000; i++) {
    liar.ack = random.uint32();
    const answers = liar.send();
    assert.ok(
      answers.every(({ flags }) => flags.startsWith('R')),
      'a guessed cookie is none',
    );
  }
  neighbour.check();
  honest.leave(neighbour.peer.owner);
  host.checkAtRest();
});

test('guessing: RST, SYN and data at every window of the sequence space do not end a connection', () => {
  const host = new FuzzHost();
  const peer = new RawPeer(host, PEER, 7000, 123_456, true);
  peer.open();
  const before = peer.owner.received;
  let answers = 0;
  for (const flags of ['R', 'S', 'A']) {
    const data = new Uint8Array(flags === 'A' ? 3 : 0).fill(0xee);
    for (let step = 1; step < 2 ** 16; step += flags === 'S' ? 8 : 1) {
      const seq = (peer.seq + step * 0xffff - 5) >>> 0;
      if (seq === peer.seq) continue;
      const ack = (peer.ack + 0x40000000) >>> 0;
      answers += host.inject(peer.frame({ flags, seq, ack, data })).length;
    }
  }
  assert.equal(peer.owner.closedAs, null, 'it is still open');
  assert.equal(peer.owner.received, before, 'nothing was put in');
  assert.ok(answers < 2 ** 17 + 1000, `${answers} answers`);
  peer.leave();
  host.checkAtRest();
});

for (const window of [1, 2, 7, 100]) {
  test(`a peer with a window of ${window} gets everything, in the end`, () => {
    const host = new FuzzHost();
    const peer = new RawPeer(host, PEER, 7100 + window, 1);
    peer.options = { mss: 88 };
    peer.open();
    const bytes = Uint8Array.from({ length: 300 }, (_, i) => i & 255);
    peer.owner.connection!.write(bytes, 0, bytes.length);
    const got: number[] = [];
    const start = peer.ack;
    let segments = peer.note(host.turn());
    for (let round = 0; got.length < bytes.length; round++) {
      assert.ok(round < 5000, `${got.length} bytes`);
      for (const { seq, data } of segments) {
        const at = (seq - start) >>> 0;
        if (at === got.length) got.push(...data);
      }
      peer.ack = (start + got.length) >>> 0;
      segments = peer.note(host.inject(peer.frame({ window })));
      if (segments.length === 0) segments = peer.note(host.pass(250));
    }
    assert.deepEqual(got.slice(0, 300), [...bytes]);
    peer.leave();
    host.checkAtRest();
  });
}
