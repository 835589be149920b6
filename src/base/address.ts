/**
 * Addresses as numbers. An IPv4 address is a uint32 in host order (10.0.0.1 = 0x0a000001); a MAC address is
 * a safe integer below 2^48; an IPv6 address is four int32 words. Text is parsed here, once, on the control path.
 */
import { ArrakisError } from './errors.ts';

export type Ipv4 = number;
export type Mac = number;
/** Four int32 words, the first of which has the first 32 bits. Not to be written to by whom it is given to. */
export type Ipv6 = Int32Array;

export const MAC_BROADCAST: Mac = 0xffffffffffff;

/** The upper 16 and lower 32 bits of a MAC: the hot path compares these and never the 48-bit value. */
export const macHi = (mac: Mac): number => Math.floor(mac / 0x1_0000_0000);
export const macLo = (mac: Mac): number => mac % 0x1_0000_0000;
export const macOf = (hi: number, lo: number): Mac => hi * 0x1_0000_0000 + lo;

export function parseMac(text: string): Mac {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `"${text}" is not a MAC address`, {
      hint: 'write it as 02:00:00:00:00:01',
    });
  }
  return Number.parseInt(text.replaceAll(':', ''), 16);
}

export function formatMac(mac: Mac): string {
  const hex = mac.toString(16).padStart(12, '0');
  return (hex.match(/../g) as string[]).join(':');
}

/** The IPv4 address in `text`, or -1 when it is not one. Four decimal parts, no leading zeros. */
export function tryParseIpv4(text: string): Ipv4 | -1 {
  const parts = text.split('.');
  if (parts.length !== 4) return -1;
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part)) return -1;
    const octet = Number(part);
    if (octet > 255) return -1;
    value = value * 256 + octet;
  }
  return value;
}

export function parseIpv4(text: string): Ipv4 {
  const value = tryParseIpv4(text);
  if (value === -1) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `"${text}" is not an IPv4 address`, {
      hint: 'write it as 10.0.0.2',
    });
  }
  return value;
}

export function formatIpv4(address: Ipv4): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** `10.0.0.2/24` as address and prefix length; a bare address has prefix `defaultPrefix`. */
export function parseCidr(text: string, defaultPrefix = 32): { address: Ipv4; prefix: number } {
  const [host = '', length] = text.split('/', 2);
  const prefix =
    length === undefined ? defaultPrefix : /^\d{1,2}$/.test(length) ? Number(length) : -1;
  if (prefix < 0 || prefix > 32) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `"${text}" has no valid prefix length`, {
      hint: 'write it as 10.0.0.2/24',
    });
  }
  return { address: parseIpv4(host), prefix };
}

/** Netmask of a prefix length: `netmask(24)` is 0xffffff00. */
export function netmask(prefix: number): number {
  return prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0;
}

/** Half an IPv6 address or all of it, in groups of hexadecimal digits; null when it is not that. A dotted quad may end it. */
function groupsOf(text: string, last: boolean): number[] | null {
  if (text === '') return [];
  const groups: number[] = [];
  const parts = text.split(':');
  for (const [i, part] of parts.entries()) {
    if (/^[0-9a-f]{1,4}$/i.test(part)) {
      groups.push(Number.parseInt(part, 16));
      continue;
    }
    const quad = last && i === parts.length - 1 ? tryParseIpv4(part) : -1;
    if (quad === -1) return null;
    groups.push(quad >>> 16, quad & 0xffff);
  }
  return groups;
}

/** The IPv6 address in `text` (RFC 4291, section 2.2), without a zone; null when it is not one. */
export function tryParseIpv6(text: string): Ipv6 | null {
  const halves = text.split('::');
  if (text.length > IPV6_TEXT_MAX || halves.length > 2) return null;
  const head = groupsOf(halves[0]!, halves.length === 1);
  const tail = groupsOf(halves[1] ?? '', true);
  if (head === null || tail === null) return null;
  const zeros = 8 - head.length - tail.length;
  // `::` stands for one group or more.
  if (halves.length === 2 ? zeros < 1 : zeros !== 0) return null;
  const groups = [...head, ...new Array<number>(zeros).fill(0), ...tail];
  return Int32Array.from({ length: 4 }, (_, i) => (groups[2 * i]! << 16) | groups[2 * i + 1]!);
}

/** Longest text: six groups and a dotted quad. */
const IPV6_TEXT_MAX = 45;

export function parseIpv6(text: string): Ipv6 {
  const words = tryParseIpv6(text);
  if (words === null) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `"${text.slice(0, 64)}" is not an IPv6 address`, {
      hint: 'write it as 2001:db8::2',
    });
  }
  return words;
}

/** The one text of the address whose four words begin at `at` (RFC 5952). */
export function formatIpv6(words: ArrayLike<number>, at = 0): string {
  const word = (i: number): number => words[at + i]!;
  if (word(0) === 0 && word(1) === 0 && word(2) === 0xffff) {
    return `::ffff:${formatIpv4(word(3) >>> 0)}`;
  }
  const groups = [0, 1, 2, 3].flatMap((i) => [word(i) >>> 16, word(i) & 0xffff]);
  // The first of the longest runs of zeros, of two groups at least, becomes `::`.
  let best = 0;
  let bestLength = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > bestLength) [best, bestLength] = [i, end - i];
  }
  const text = (part: number[]): string => part.map((group) => group.toString(16)).join(':');
  if (bestLength < 2) return text(groups);
  return `${text(groups.slice(0, best))}::${text(groups.slice(best + bestLength))}`;
}

/** `2001:db8::2/64` as address and prefix length; a bare address has prefix `defaultPrefix`. */
export function parseCidr6(text: string, defaultPrefix = 128): { address: Ipv6; prefix: number } {
  const [host = '', length] = text.split('/', 2);
  const prefix =
    length === undefined ? defaultPrefix : /^\d{1,3}$/.test(length) ? Number(length) : -1;
  if (prefix < 0 || prefix > 128) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `"${text}" has no valid prefix length`, {
      hint: 'write it as 2001:db8::2/64',
    });
  }
  return { address: parseIpv6(host), prefix };
}
