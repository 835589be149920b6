/** Addresses of flows as text, on the control path. */
import { formatIpv4, tryParseIpv4 } from '../../base/address.ts';
import { isMappedIpv4, setMappedIpv4 } from '../ip-output.ts';

/** `10.0.0.2`, or IPv6 as RFC 5952 writes it. */
export function formatAddress(words: Int32Array, at: number): string {
  if (isMappedIpv4(words, at)) return formatIpv4(words[at + 3]! >>> 0);
  const groups: number[] = [];
  for (let i = at; i < at + 4; i++) groups.push(words[i]! >>> 16, words[i]! & 0xffff);
  const run = longestZeroRun(groups);
  const hex = (part: number[]): string => part.map((group) => group.toString(16)).join(':');
  if (run.length < 2) return hex(groups);
  return `${hex(groups.slice(0, run.at))}::${hex(groups.slice(run.at + run.length))}`;
}

function longestZeroRun(groups: readonly number[]): { at: number; length: number } {
  let best = { at: 0, length: 0 };
  for (let at = 0; at < groups.length; at++) {
    let length = 0;
    while (groups[at + length] === 0) length++;
    if (length > best.length) best = { at, length };
  }
  return best;
}

/** Write the address in `text` as four words. False when it is none. */
export function parseAddress(text: string, words: Int32Array, at: number): boolean {
  const ip = tryParseIpv4(text);
  if (ip !== -1) {
    setMappedIpv4(words, at, ip | 0);
    return true;
  }
  const halves = text.split('::');
  if (halves.length > 2 || !text.includes(':')) return false;
  const parts = halves.map((half) => (half === '' ? [] : half.split(':')));
  const given = parts.reduce((sum, part) => sum + part.length, 0);
  if (halves.length === 2 ? given > 7 : given !== 8) return false;
  const zeros: string[] = new Array(8 - given).fill('0');
  const groups = halves.length === 2 ? [...parts[0]!, ...zeros, ...parts[1]!] : parts[0]!;
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return false;
  const values = groups.map((group) => Number.parseInt(group, 16));
  for (let i = 0; i < 4; i++) words[at + i] = (values[2 * i]! << 16) | values[2 * i + 1]!;
  return true;
}
