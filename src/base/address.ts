/**
 * Addresses as numbers. An IPv4 address is a uint32 in host order (10.0.0.1 = 0x0a000001); a MAC address is
 * a safe integer below 2^48. Text is parsed here, once, on the control path.
 */
import { ArrakisError } from './errors.ts';

export type Ipv4 = number;
export type Mac = number;

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
