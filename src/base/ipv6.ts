/**
 * IPv6 addresses as four words from an index of an Int32Array on: comparisons and kinds (RFC 4291), without a copy or an
 * allocation. Tables keep all their addresses in one array.
 */
export const ADDRESS_WORDS = 4;

/** Addresses by their scope (RFC 4007; RFC 6724, section 3.1), a number that grows with it. */
export const SCOPE = { interface: 1, link: 2, site: 5, global: 14 } as const;

export const isSame = (a: Int32Array, i: number, b: Int32Array, j: number): boolean =>
  a[i + 3] === b[j + 3] && a[i + 2] === b[j + 2] && a[i + 1] === b[j + 1] && a[i] === b[j];

export function copy(from: Int32Array, i: number, to: Int32Array, j: number): void {
  to[j] = from[i]!;
  to[j + 1] = from[i + 1]!;
  to[j + 2] = from[i + 2]!;
  to[j + 3] = from[i + 3]!;
}

export function set(to: Int32Array, j: number, a: number, b: number, c: number, d: number): void {
  to[j] = a;
  to[j + 1] = b;
  to[j + 2] = c;
  to[j + 3] = d;
}

export const isUnspecified = (w: Int32Array, i: number): boolean =>
  (w[i]! | w[i + 1]! | w[i + 2]! | w[i + 3]!) === 0;
/** ::1. */
export const isLoopback = (w: Int32Array, i: number): boolean =>
  w[i + 3] === 1 && (w[i]! | w[i + 1]! | w[i + 2]!) === 0;
export const isGroup = (w: Int32Array, i: number): boolean => w[i]! >>> 24 === 0xff;
export const isLinkLocal = (w: Int32Array, i: number): boolean => w[i]! >>> 22 === 0x3fa;

/** An address that one host on a network may have: not ::, ::1, a group, or an IPv4 address in disguise. */
export function isHost(w: Int32Array, i: number): boolean {
  if (isGroup(w, i)) return false;
  if (w[i] !== 0 || w[i + 1] !== 0) return true;
  const third = w[i + 2]!;
  return third !== 0xffff && third !== 0;
}

export function scopeOf(w: Int32Array, i: number): number {
  const first = w[i]!;
  if (isGroup(w, i)) return (first >>> 16) & 15;
  if (isLinkLocal(w, i)) return SCOPE.link;
  return first >>> 22 === 0x3fb ? SCOPE.site : SCOPE.global;
}

/** Unique local (RFC 4193), which should speak to its own kind: a label of RFC 6724's default table. */
export const isUniqueLocal = (w: Int32Array, i: number): boolean => w[i]! >>> 25 === 0x7e;

/** Leading bits that two addresses have in common. */
export function commonPrefix(a: Int32Array, i: number, b: Int32Array, j: number): number {
  for (let k = 0; k < ADDRESS_WORDS; k++) {
    const differing = a[i + k]! ^ b[j + k]!;
    if (differing !== 0) return 32 * k + Math.clz32(differing);
  }
  return 128;
}

/** Fibonacci hashing of all words: 16 bits. */
export function hash(w: Int32Array, i: number): number {
  const mixed = Math.imul(w[i]! ^ Math.imul(w[i + 1]!, 0x85ebca6b) ^ w[i + 3]!, 0x9e3779b1);
  return Math.imul(mixed ^ (mixed >>> 15) ^ w[i + 2]!, 0x9e3779b1) >>> 16;
}

/** ff02::1:ffXX:XXXX, the group of neighbour solicitations for an address (RFC 4291, section 2.7.1). */
export function solicitedNode(w: Int32Array, i: number, to: Int32Array, j: number): void {
  set(to, j, 0xff020000 | 0, 0, 1, 0xff000000 | (w[i + 3]! & 0xffffff));
}

/** Lower half of an address from a MAC (RFC 4291, appendix A: modified EUI-64). */
export function setEui64(to: Int32Array, j: number, macHi: number, macLo: number): void {
  to[j + 2] = ((macHi ^ 0x0200) << 16) | ((macLo >>> 24) << 8) | 0xff;
  to[j + 3] = 0xfe000000 | (macLo & 0xffffff);
}

/** First bytes of the MAC of an IPv6 group; the last four are those of the group (RFC 2464, section 7). */
export const GROUP_MAC_HI = 0x3333;
