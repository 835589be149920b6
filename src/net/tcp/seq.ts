/**
 * Sequence numbers (RFC 9293, section 3.4) and times in microseconds, both as int32 that wrap: differences are taken
 * modulo 2^32 and are right while the two are less than 2^31 apart. Int32 stays a small integer in V8, uint32 does not.
 */

/** `a + bytes`, wrapped. */
export const seqAdd = (a: number, bytes: number): number => (a + bytes) | 0;
/** How far `a` is beyond `b`; negative when it is before. */
export const seqDiff = (a: number, b: number): number => (a - b) | 0;
export const seqLessThan = (a: number, b: number): boolean => ((a - b) | 0) < 0;
export const seqAtMost = (a: number, b: number): boolean => ((a - b) | 0) <= 0;
export const seqMax = (a: number, b: number): number => (((a - b) | 0) >= 0 ? a : b);
export const seqMin = (a: number, b: number): number => (((a - b) | 0) <= 0 ? a : b);
/** True for `from <= seq < to`; an empty range holds nothing. */
export const seqInRange = (seq: number, from: number, to: number): boolean =>
  (seq - from) >>> 0 < (to - from) >>> 0;

/** Microseconds from `since` until `now`; negative when `since` is still to come. Within 35 minutes. */
export const elapsedUs = (now: number, since: number): number => (now - since) | 0;
export const isBefore = (a: number, b: number): boolean => ((a - b) | 0) < 0;
