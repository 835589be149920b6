/** Addresses of flows as text, on the control path. */
import { formatIpv4, formatIpv6, tryParseIpv4, tryParseIpv6 } from '../../base/address.ts';
import { copy } from '../../base/ipv6.ts';
import { isMappedIpv4, setMappedIpv4 } from '../ip-output.ts';

/** `10.0.0.2`, or IPv6 as RFC 5952 writes it. */
export function formatAddress(words: Int32Array, at: number): string {
  return isMappedIpv4(words, at) ? formatIpv4(words[at + 3]! >>> 0) : formatIpv6(words, at);
}

/** Write the address in `text` as four words. False when it is none. */
export function parseAddress(text: string, words: Int32Array, at: number): boolean {
  const ipv4 = tryParseIpv4(text);
  if (ipv4 !== -1) {
    setMappedIpv4(words, at, ipv4 | 0);
    return true;
  }
  const ipv6 = tryParseIpv6(text);
  if (ipv6 === null) return false;
  copy(ipv6, 0, words, at);
  return true;
}
