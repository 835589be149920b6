/** The small notations of a policy file: address ranges, ports, rates, sizes, lists of processors, and back to text. */
import { formatIpv4, type Ipv4, netmask, tryParseIpv4 } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import { formatRate, parseRate } from '../../device/rate.ts';
import { LIMITS } from '../limits.ts';

export interface Interval {
  readonly first: number;
  readonly last: number;
}

const RANGE_FORM = 'write it as 10.0.0.0/24, 10.0.0.2-10.0.0.9, 10.0.0.2 or any';
const EVERYTHING: Interval = { first: 0, last: 0xffffffff };

/** Blocks that no network card may have an address from (RFC 6890, RFC 5771, RFC 1112). */
const NOT_FOR_HOSTS: readonly (Interval & { readonly what: string })[] = [
  { first: 0x00000000, last: 0x00ffffff, what: '0.0.0.0/8 is "this network"' },
  { first: 0x7f000000, last: 0x7fffffff, what: '127.0.0.0/8 is the loopback' },
  { first: 0xe0000000, last: 0xefffffff, what: '224.0.0.0/4 is multicast' },
  { first: 0xf0000000, last: 0xffffffff, what: '240.0.0.0/4 is reserved' },
];

function bad(text: string, what: string, hint: string): ArrakisError {
  return new ArrakisError('ARK_POLICY', `"${shorten(text)}" ${what}`, { hint });
}

const shorten = (text: string): string => (text.length > 60 ? `${text.slice(0, 60)}...` : text);

/** Addresses as in `RANGE_FORM`. */
export function parseAddresses(text: string): Interval {
  if (text === 'any') return EVERYTHING;
  const interval = text.includes('/') ? parseBlock(text) : parseSpan(text);
  const outside = NOT_FOR_HOSTS.find(
    ({ first, last }) => first <= interval.last && interval.first <= last,
  );
  if (outside === undefined) return interval;
  throw bad(text, `is not for hosts: ${outside.what}`, 'leave that part out');
}

function parseAddress(part: string, whole: string): Ipv4 {
  const address = tryParseIpv4(part);
  if (address === -1) throw bad(whole, 'is no range of IPv4 addresses', RANGE_FORM);
  return address;
}

function parseSpan(text: string): Interval {
  const [from = '', to, ...rest] = text.split('-').map((part) => part.trim());
  if (rest.length > 0) throw bad(text, 'is no range of IPv4 addresses', RANGE_FORM);
  const first = parseAddress(from, text);
  const last = to === undefined ? first : parseAddress(to, text);
  if (last < first) throw bad(text, 'ends before it begins', 'the lower address comes first');
  return { first, last };
}

function parseBlock(text: string): Interval {
  const [base = '', length = '', ...rest] = text.split('/');
  const prefix = /^\d{1,2}$/.test(length) ? Number(length) : 33;
  if (prefix > 32 || rest.length > 0) throw bad(text, 'has no prefix length', RANGE_FORM);
  const address = parseAddress(base, text);
  const first = (address & netmask(prefix)) >>> 0;
  if (first !== address) {
    const [block, host] = [`${formatIpv4(first)}/${prefix}`, formatIpv4(address)];
    throw bad(text, 'is an address within a block', `write ${block} for all of it, or ${host}`);
  }
  return { first, last: first + 2 ** (32 - prefix) - 1 };
}

export function formatAddresses({ first, last }: Interval): string {
  if (first === EVERYTHING.first && last === EVERYTHING.last) return 'any';
  return first === last ? formatIpv4(first) : `${formatIpv4(first)}-${formatIpv4(last)}`;
}

/** `7`, `7, 5000-5010`. */
export function parsePorts(text: string): Interval[] {
  const hint = 'write it as 7 or 7, 5000-5010; ports are 0 to 65535';
  const ports = text.split(',').map((part) => {
    const match = /^\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*$/.exec(part);
    if (match === null) throw bad(text, 'is no list of ports', hint);
    const first = Number(match[1]);
    const last = match[2] === undefined ? first : Number(match[2]);
    if (last > 65535) throw bad(text, 'has a port that does not exist', hint);
    if (last < first) throw bad(text, 'has a range that ends before it begins', hint);
    return { first, last };
  });
  if (ports.length <= LIMITS.filtersPerVnicMax) return ports;
  throw bad(text, `has more than ${LIMITS.filtersPerVnicMax} ranges`, 'join some of them');
}

const BYTES = {
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
} as const;

export function parseBytes(text: string): number {
  const hint = 'write it as 10GiB or 500MB';
  const match = /^(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-z]{1,3})$/.exec(text);
  if (match === null || !Object.hasOwn(BYTES, match[2]!)) throw bad(text, 'is no size', hint);
  const value = Math.round(Number(match[1]) * BYTES[match[2] as keyof typeof BYTES]);
  if (value === 0) throw bad(text, 'is nothing', 'leave it out to give none');
  if (!Number.isSafeInteger(value)) throw bad(text, 'is too large', hint);
  return value;
}

/** In the largest binary unit that leaves a whole number. */
export function formatBytes(value: number): string {
  for (const unit of ['TiB', 'GiB', 'MiB', 'KiB'] as const) {
    if (value % BYTES[unit] === 0) return `${value / BYTES[unit]}${unit}`;
  }
  return `${value}B`;
}

/** A rate above zero as `parseRate` of devices takes it, and not outside `min` and `max`. */
export function parseRateWithin(text: string, what: string, min: number, max: number): number {
  const value = parseRate(text, what);
  if (value >= min && value <= max) return value;
  const limits = `${what} are from ${formatRate(min)} to ${formatRate(max)} a second`;
  throw bad(text, 'is a rate that no device keeps', limits);
}

export function parseCount(text: string, max: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (value >= 1 && value <= max) return value;
  throw bad(text, 'is no number for this', `a whole number from 1 to ${max}`);
}

export function parseFlag(text: string): boolean {
  if (text === 'true' || text === 'false') return text === 'true';
  throw bad(text, 'is neither true nor false', 'write true or false');
}
