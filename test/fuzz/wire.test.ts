/** The parsers on views that end where the frame ends: a read behind it throws, and an accepted length that lies fails. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as arp from '../../src/wire/arp.ts';
import * as ethernet from '../../src/wire/ethernet.ts';
import { formatFrame } from '../../src/wire/format.ts';
import * as icmp from '../../src/wire/icmp.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as udp from '../../src/wire/udp.ts';
import { hex, toHex, viewOfBytes } from '../support/frames.ts';
import { LAYERS, mutatedFrame } from '../support/mutate.ts';
import { Random } from '../support/random.ts';
import { FRAMES } from './corpus/net.ts';

const SEED = 20260101;
const CASES = 100_000;

/** Parse as deep as it goes. Returns how many layers accepted the frame. */
function parse(bytes: Uint8Array): number {
  const view = viewOfBytes(bytes);
  const end = bytes.length;
  const length = ethernet.check(view, 0, end);
  if (length < 0) return 0;
  assert.equal(length, end - 14);
  if (ethernet.type(view, 0) === ethernet.TYPE_ARP) {
    if (arp.check(view, 14, end) < 0) return 1;
    assert.ok(end >= 42 && arp.operation(view, 14) <= 2);
    return 2;
  }
  const inner = ipv4.check(view, 14, end);
  if (inner < 0) return 1;
  const at = 14 + ipv4.headerLength(view, 14);
  assert.ok(at >= 34 && at + inner <= end);
  if (ipv4.protocol(view, 14) === ipv4.PROTOCOL_ICMP) {
    const message = icmp.check(view, at, at + inner);
    if (message >= 0) assert.equal(message, inner - 8);
    return message >= 0 ? 3 : 2;
  }
  const payload = udp.check(view, at, at + inner);
  if (payload < 0) return 2;
  assert.ok(payload <= inner - 8);
  udp.checksumIsValid(view, at, payload, ipv4.src(view, 14), ipv4.dst(view, 14));
  return 3;
}

test('the corpus parses or is refused, at every truncation', () => {
  for (const { why, hex: text } of FRAMES) {
    const bytes = hex(text);
    for (let length = 0; length <= bytes.length; length++) {
      parse(bytes.slice(0, length));
      assert.ok(formatFrame(viewOfBytes(bytes), 0, length).length > 0, why);
    }
  }
});

for (const layer of LAYERS) {
  test(`${layer}: ${CASES} nearly right frames, seed ${SEED}`, () => {
    const random = new Random(SEED);
    const depths = [0, 0, 0, 0];
    for (let i = 0; i < CASES; i++) {
      const bytes = mutatedFrame(random, layer);
      try {
        depths[parse(bytes)]!++;
        if (i % 16 === 0) formatFrame(viewOfBytes(bytes), 0, bytes.length);
      } catch (cause) {
        throw new Error(`case ${i}: ${toHex(bytes)}`, { cause });
      }
    }
    // The mutations are worth something only if both happen often: refused, and parsed to the end.
    const deepest = layer === 'arp' ? depths[2]! : depths[3]!;
    assert.ok(deepest > CASES / 20 && depths[0]! + depths[1]! > CASES / 20, depths.join(' '));
  });
}

test(`noise: ${CASES} frames of random bytes, seed ${SEED}`, () => {
  const random = new Random(SEED);
  for (let i = 0; i < CASES; i++) {
    const bytes = Uint8Array.from({ length: random.below(80) }, () => random.below(256));
    parse(bytes);
  }
});
