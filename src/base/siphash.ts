/**
 * SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed hash of 64 bits, for what a peer must not guess. No `bigint`: a
 * 64-bit word is two int32, upper and lower.
 */

/** Bytes of a key. */
export const SIPHASH_KEY_LEN = 16;

/** v0 to v3, upper and lower halves. One for all: every hash begins anew. */
const v = new Int32Array(8);
const encoded = new DataView(new ArrayBuffer(8));

/** v[a] += v[b]; indices are of the upper halves. */
function add(a: number, b: number): void {
  const low = (v[a + 1]! >>> 0) + (v[b + 1]! >>> 0);
  v[a + 1] = low | 0;
  v[a] = (v[a]! + v[b]! + (low > 0xffffffff ? 1 : 0)) | 0;
}

/** v[a] rotated left by `bits`, below 32. */
function rotate(a: number, bits: number): void {
  const [hi, lo] = [v[a]!, v[a + 1]!];
  v[a] = (hi << bits) | (lo >>> (32 - bits));
  v[a + 1] = (lo << bits) | (hi >>> (32 - bits));
}

function swapHalves(a: number): void {
  const hi = v[a]!;
  v[a] = v[a + 1]!;
  v[a + 1] = hi;
}

function xor(a: number, b: number): void {
  v[a]! ^= v[b]!;
  v[a + 1]! ^= v[b + 1]!;
}

function rounds(count: number): void {
  for (let i = 0; i < count; i++) {
    add(0, 2);
    rotate(2, 13);
    xor(2, 0);
    swapHalves(0);
    add(4, 6);
    rotate(6, 16);
    xor(6, 4);
    add(0, 6);
    rotate(6, 21);
    xor(6, 0);
    add(4, 2);
    rotate(2, 17);
    xor(2, 4);
    swapHalves(4);
  }
}

function absorb(lo: number, hi: number): void {
  v[6]! ^= hi;
  v[7]! ^= lo;
  rounds(2);
  v[0]! ^= hi;
  v[1]! ^= lo;
}

/** Hash `message` under `key`, SIPHASH_KEY_LEN bytes, into `out`: upper and lower half, int32. */
export function siphash(key: Uint8Array, message: Uint8Array, out: Int32Array): void {
  const keyView = new DataView(key.buffer, key.byteOffset, SIPHASH_KEY_LEN);
  const k = [4, 0, 12, 8].map((at) => keyView.getInt32(at, true));
  const start = [
    0x736f6d65, 0x70736575, 0x646f7261, 0x6e646f6d, 0x6c796765, 0x6e657261, 0x74656462,
  ];
  [...start, 0x79746573].forEach((word, i) => {
    v[i] = word ^ k[i & 3]!;
  });
  const view = new DataView(message.buffer, message.byteOffset, message.length);
  const whole = message.length & ~7;
  for (let i = 0; i < whole; i += 8) absorb(view.getInt32(i, true), view.getInt32(i + 4, true));
  encoded.setInt32(0, 0);
  encoded.setInt32(4, 0);
  for (let i = whole; i < message.length; i++) encoded.setUint8(i - whole, message[i]!);
  encoded.setUint8(7, message.length);
  absorb(encoded.getInt32(0, true), encoded.getInt32(4, true));
  v[5]! ^= 0xff;
  rounds(4);
  out[0] = v[0]! ^ v[2]! ^ v[4]! ^ v[6]!;
  out[1] = v[1]! ^ v[3]! ^ v[5]! ^ v[7]!;
}
