/**
 * The Internet checksum (RFC 1071, updated in place by RFC 1624).
 *
 * - A sum is a one's-complement sum of big-endian 16-bit words, folded into 16 bits. Sums may be added with `+`
 *   before the last fold: a pseudo header and two pieces of a packet, say.
 * - The words are loaded little-endian, two at a time, and the result is swapped once: the sum is independent of
 *   byte order (RFC 1071, section 2(B)). A DataView makes neither alignment nor the machine's order matter.
 */

/**
 * Sum of the `length` bytes from `at`, at most 65,535 of them: more could overflow the int32 accumulators.
 * `all` wraps, `high` does not: the low halves add up to their difference (mod 2^32), which saves masking each word.
 */
export function sum(frame: DataView, at: number, length: number): number {
  let all = 0;
  let high = 0;
  let i = at | 0;
  const end = (at + length) | 0;
  for (; ((i + 16) | 0) <= end; i = (i + 16) | 0) {
    const a = frame.getInt32(i, true);
    const b = frame.getInt32((i + 4) | 0, true);
    const c = frame.getInt32((i + 8) | 0, true);
    const d = frame.getInt32((i + 12) | 0, true);
    all = (all + a + b + c + d) | 0;
    high = (high + (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16)) | 0;
  }
  let total = (high + (all - (high << 16))) | 0;
  for (; ((i + 2) | 0) <= end; i = (i + 2) | 0) total = (total + frame.getUint16(i, true)) | 0;
  // RFC 1071, section 4.1: an odd last byte counts as if a zero byte followed it.
  if (i < end) total = (total + frame.getUint8(i)) | 0;
  total = fold(total);
  return ((total & 0xff) << 8) | (total >>> 8);
}

/** `total`, below 2^32, with its carries added back in: 16 bits. */
export function fold(total: number): number {
  const once = (total & 0xffff) + (total >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** The checksum field that belongs to an added-up sum. */
export const finish = (total: number): number => ~fold(total) & 0xffff;

/** True when a sum that covers the checksum field itself says that nothing changed on the way. */
export const isValid = (total: number): boolean => fold(total) === 0xffff;

/**
 * The checksum after one 16-bit word that it covers went from `before` to `after` (RFC 1624, equation 3). Where the
 * words that it covers may all become zero, take 0xffff for a result of 0.
 */
export function update(checksum: number, before: number, after: number): number {
  return ~fold((~checksum & 0xffff) + (~before & 0xffff) + (after & 0xffff)) & 0xffff;
}

/** Sum of the pseudo header that UDP (RFC 768) and TCP (RFC 9293, section 3.1) put before theirs. */
export function pseudoHeader(src: number, dst: number, protocol: number, length: number): number {
  return (src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff) + (protocol & 0xff) + length;
}
