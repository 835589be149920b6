/**
 * Fragments that are nearly right: pieces of a few datagrams of a few senders in any order, repeated, shortened, moved,
 * tiny and overlapping. For every one of them: it has one outcome, no frame is lost, what is held stays within the limits;
 * and what is delivered is what one of the senders wrote, never a mixture.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RX_OUTCOMES } from '../../src/net/counters.ts';
import { NetInterface } from '../../src/net/interface.ts';
import { NET_LIMITS } from '../../src/net/limits.ts';
import { FakeQueue } from '../support/fake-queue.ts';
import { cut, fragment } from '../support/fragments.ts';
import { toHex, US, udpFrame } from '../support/frames.ts';
import { Random } from '../support/random.ts';

const CASES = Number(process.env.ARRAKIS_FUZZ_FRAGMENTS ?? 100_000);
const SEED = 20260711;
const FRAMES = 256;
const SENDERS = 4;
const IDS = 8;
const STEPS = [48, 56, 104, 200, 512, 1480];
const LENGTHS = [60, 100, 300, 700, 1400, 1900, 3000, 9000];

/** Sender, identification and the byte that all of the payload consists of: a mixture shows. */
interface Sending {
  readonly frame: Uint8Array;
  readonly id: number;
  readonly pieces: Uint8Array[];
}

function sending(random: Random): Sending {
  const sender = random.below(SENDERS);
  const id = random.below(IDS);
  const from = { mac: 0x020000000001, ip: 0x0a000020 + sender, port: 1024 };
  const payload = new Uint8Array(random.pick(LENGTHS)).fill(1 + random.below(255));
  const frame = udpFrame(from, { ...US, port: 7 }, payload);
  return { frame, id, pieces: cut(frame, random.pick(STEPS), id) };
}

/** The next frame to receive: a right piece of one of `under` way, or one that lies. */
function next(random: Random, under: Sending[]): Uint8Array {
  const index = random.below(under.length);
  const { frame, id, pieces } = under[index]!;
  if (!random.oneIn(12)) {
    const piece = pieces.splice(random.oneIn(4) ? random.below(pieces.length) : 0, 1)[0]!;
    if (pieces.length === 0) under[index] = sending(random);
    return piece;
  }
  const total = frame.length - 34;
  const offset = 8 * random.below(Math.ceil(total / 8) + 2);
  const length = Math.min(1480, random.pick([0, 7, 8, 16, 40, 48, 64, 200, 1480]));
  const bytes = fragment(frame, id, Math.min(offset, total & ~7), length, random.oneIn(2));
  return random.oneIn(8) ? bytes.slice(0, random.below(bytes.length + 1)) : bytes;
}

test(`${CASES} tiny, overlapping and right fragments, seed ${SEED}`, (t) => {
  const random = new Random(SEED);
  const queue = new FakeQueue({ frameCount: FRAMES });
  const net = new NetInterface({ queue, mac: US.mac, address: US.ip, prefix: 24 });
  let delivered = 0;
  const check = (payload: Uint8Array): void => {
    delivered++;
    assert.ok(LENGTHS.includes(payload.length), 'a length that was sent');
    assert.ok(
      payload.every((byte) => byte === payload[0]),
      'one sender wrote all of it',
    );
  };
  net.udp.bind(7, (_frame, at, length) => check(queue.memory.u8.subarray(at, at + length)), {
    onLarge: check,
    needsChecksum: true,
  });
  const under = Array.from({ length: 6 }, () => sending(random));
  for (let i = 0; i < CASES; i++) {
    const bytes = next(random, under);
    try {
      queue.inject(bytes);
      net.poll(i * 20);
      queue.sent.length = 0;
      assert.equal(queue.framesAvailable + net.fragmentsHeld, FRAMES, 'frames are conserved');
      assert.ok(net.fragmentsHeld <= NET_LIMITS.reassemblyFramesMax);
    } catch (cause) {
      throw new Error(`case ${i}: ${toHex(bytes)}`, { cause });
    }
  }
  const { counters } = net;
  const outcomes = RX_OUTCOMES.reduce((sum, name) => sum + counters[name], 0);
  assert.equal(outcomes, CASES, 'one outcome each');
  t.diagnostic(
    `delivered ${delivered}, refused ${counters.reassemblyRefused}, in time ${counters.reassemblyTimeout}`,
  );
  assert.ok(delivered > CASES / 200, 'enough come together');
  assert.ok(counters.reassemblyRefused > CASES / 1000, 'enough are refused');
  net.close();
  assert.equal(queue.framesAvailable, FRAMES);
});
