/** Segments that are nearly right for the state of a connection: numbers beside the right ones, any flags and options. */
import { fixIpChecksum, viewOfBytes } from '../../support/frames.ts';
import type { Random } from '../../support/random.ts';
import type { Segment, TcpOptions } from '../../support/tcp-segment.ts';
import type { RawPeer } from './host.ts';

const NEAR = [0, 0, 0, 0, 1, -1, 2, -2, 100, -100, 1460, -1460, 65_535, -65_535, 1 << 20, 1 << 31];
const LENGTHS = [0, 0, 0, 1, 2, 10, 536, 1000, 1400];
const WINDOWS = [0, 1, 2, 100, 1460, 65_535];
const FLAG_LETTERS = 'FSRPAUEC';
const USUAL_FLAGS = ['A', 'A', 'A', 'PA', 'FA', 'FPA', 'R', 'RA', 'S', 'SA', ''];

function randomFlags(random: Random): string {
  if (!random.oneIn(3)) return random.pick(USUAL_FLAGS);
  const bits = random.below(256);
  return [...FLAG_LETTERS].filter((_, i) => (bits & (1 << i)) !== 0).join('');
}

function randomBytes(random: Random, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  // Payload is never looked at: a few bytes of it are enough.
  for (let i = 0; i < length; i += 1 + (i >>> 5)) bytes[i] = random.below(256);
  return bytes;
}

function randomOptions(random: Random, peer: RawPeer): TcpOptions {
  const near = (base: number) => (base + random.pick(NEAR)) >>> 0;
  switch (random.below(8)) {
    case 0:
      return { mss: random.pick([0, 1, 88, 536, 1460, 65_535]), windowScale: random.below(256) };
    case 1:
      return { timestamps: [random.uint32(), random.pick([0, random.uint32()])] };
    case 2:
    case 3: {
      const blocks = Array.from({ length: 1 + random.below(4) }, () => {
        const left = near(peer.ack);
        return [left, (left + random.pick([0, 1, -1, 100, 1460, 1 << 30])) >>> 0] as const;
      });
      return { sack: blocks };
    }
    case 4:
      return { raw: randomBytes(random, random.below(41)) };
    default:
      return {};
  }
}

function nearSegment(random: Random, peer: RawPeer): Partial<Segment> {
  return {
    seq: (peer.seq + random.pick(NEAR) + (random.oneIn(10) ? random.uint32() : 0)) >>> 0,
    ack: (peer.ack + random.pick(NEAR) + (random.oneIn(10) ? random.uint32() : 0)) >>> 0,
    flags: randomFlags(random),
    window: random.pick(WINDOWS),
    urgent: random.oneIn(8) ? random.below(65_536) : 0,
    options: randomOptions(random, peer),
    data: randomBytes(random, random.pick(LENGTHS)),
  };
}

/** The next frame; sometimes with bits flipped in its headers, cut short, or padded. */
export function nearlyRight(random: Random, peer: RawPeer): Uint8Array {
  const segment = nearSegment(random, peer);
  const bytes = peer.frame(segment).slice(0, 1514);
  if (random.oneIn(5)) {
    const at = 14 + random.below(Math.min(60, bytes.length - 14));
    bytes[at]! ^= 1 << random.below(8);
    if (random.oneIn(2)) mend(bytes);
  }
  if (random.oneIn(20)) return bytes.slice(0, 14 + random.below(bytes.length - 13));
  if (random.oneIn(20)) {
    const padded = new Uint8Array(Math.min(1514, bytes.length + random.below(20)));
    padded.set(bytes);
    return padded;
  }
  return bytes;
}

/** Right checksums again, as far as the lengths allow. */
function mend(bytes: Uint8Array): void {
  fixIpChecksum(bytes);
  const view = viewOfBytes(bytes);
  const at = 14 + (bytes[14]! & 15) * 4;
  const end = 14 + view.getUint16(16);
  if (end > bytes.length || end - at < 20) return;
  view.setUint16(at + 16, 0);
  let sum = 6 + (end - at);
  for (let i = 26; i < 34; i += 2) sum += view.getUint16(i);
  for (let i = at; i < end; i += 2) sum += (bytes[i]! << 8) | (i + 1 < end ? bytes[i + 1]! : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(at + 16, ~sum & 0xffff);
}
