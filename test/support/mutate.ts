/** Frames that are nearly right: valid ones with a few fields that lie, cut short or padded, checksums mended or not. */
import * as checksum from '../../src/wire/checksum.ts';
import {
  arpFrame,
  echoFrame,
  fixIpChecksum,
  ipv4Frame,
  OTHER,
  PEER,
  US,
  udpFrame,
  viewOfBytes,
  withOptions,
} from './frames.ts';
import type { Random } from './random.ts';

export const LAYERS = ['ethernet', 'arp', 'ipv4', 'icmp', 'udp'] as const;
export type Layer = (typeof LAYERS)[number];

/** Bytes of the header that a layer's mutations aim at, in a frame without options. */
const RANGE: Record<Layer, readonly [number, number]> = {
  ethernet: [0, 14],
  arp: [14, 42],
  ipv4: [14, 34],
  icmp: [34, 42],
  udp: [34, 42],
};
const TELLING = [0, 1, 2, 4, 5, 6, 7, 8, 0x45, 0x46, 0x4f, 0x7f, 0x80, 0xff];
const LENGTHS = [0, 1, 5, 22, 100, 548, 549, 1000, 1472];

/** A valid frame that exercises `layer`; sometimes broadcast, with options, or to a port that nobody has. */
function validFrame(random: Random, layer: Layer): Uint8Array {
  if (layer === 'arp') {
    return arpFrame(random.pick([1, 2]), random.pick([PEER, OTHER]), random.pick([US, US, OTHER]));
  }
  const to = random.oneIn(8) ? { mac: 0xffffffffffff, ip: 0xffffffff } : US;
  const body = new Uint8Array(random.pick(LENGTHS));
  for (let i = 0; i < body.length; i += 1 + random.below(16)) body[i] = random.below(256);
  if (layer === 'icmp') return echoFrame(PEER, to, body);
  if (layer === 'ipv4' && random.oneIn(4)) return ipv4Frame(PEER, to, random.below(256), body);
  const port = random.pick([7, 7, 8, 9, 10]);
  const frame = udpFrame({ ...PEER, port: random.pick([1024, 7]) }, { ...to, port }, body);
  const room = Math.min(10, (1514 - frame.length) >>> 2);
  return random.oneIn(4) ? withOptions(frame, new Uint8Array(4 * random.below(room + 1))) : frame;
}

/** The next nearly right frame for `layer`. 0 to 1,514 bytes. */
export function mutatedFrame(random: Random, layer: Layer): Uint8Array {
  const bytes = validFrame(random, layer);
  const [first, end] = RANGE[layer];
  for (let left = random.below(4); left > 0; left--) {
    const at = first + random.below(end - first);
    if (at >= bytes.length) continue;
    if (random.oneIn(2)) bytes[at] = random.pick(TELLING);
    else bytes[at]! ^= 1 << random.below(8);
  }
  if (layer !== 'ethernet' && layer !== 'arp' && !random.oneIn(4)) mend(bytes);
  switch (random.below(4)) {
    case 0:
      return bytes.slice(0, random.below(bytes.length + 1));
    case 1: {
      const padded = new Uint8Array(Math.min(1514, bytes.length + random.below(40)));
      padded.set(bytes);
      return padded;
    }
    default:
      return bytes;
  }
}

/** Make the checksums right again, as far as the lengths allow: what lies inside is then looked at, too. */
function mend(bytes: Uint8Array): void {
  if (bytes.length < 42) return;
  fixIpChecksum(bytes);
  const view = viewOfBytes(bytes);
  const at = 14 + (bytes[14]! & 15) * 4;
  const end = Math.min(bytes.length, 14 + view.getUint16(16));
  if (end - at < 8) return;
  if (bytes[23] === 1) {
    view.setUint16(at + 2, 0);
    view.setUint16(at + 2, checksum.finish(checksum.sum(view, at, end - at)));
  } else if (bytes[23] === 17) {
    const length = view.getUint16(at + 4);
    if (length < 8 || at + length > bytes.length) return;
    const pseudo = checksum.pseudoHeader(view.getInt32(26), view.getInt32(30), 17, length);
    view.setUint16(at + 6, 0);
    const sum = checksum.finish(pseudo + checksum.sum(view, at, length));
    view.setUint16(at + 6, sum || 0xffff);
  }
}
