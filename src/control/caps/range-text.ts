/**
 * Ranges as people type them, each kind in its form; `parseRange` is the inverse of `formatRange`:
 *
 *   addresses   udp 10.0.0.2-10.0.0.9:7-9    any 10.77.0.0/24    tcp 10.0.0.2:80
 *   cores       cpus 0,2-3
 *   rate        100M bit/s 50k packets/s weight 3       each part may be missing
 *   pool        4096 bytes
 *   all         everything
 */
import { netmask, parseCidr, parseIpv4 } from '../../base/address.ts';
import { parseCpus } from '../../base/cpus.ts';
import { ArrakisError } from '../../base/errors.ts';
import { parseRate } from '../../device/rate.ts';
import type { AddressRange, Range, RateRange } from './range.ts';
import { checkRange } from './range.ts';
import type { CapKind } from './rights.ts';

const FORMS: Partial<Record<CapKind, string>> = {
  addresses: 'udp 10.0.0.2-10.0.0.9:7-9, or any 10.77.0.0/24',
  cores: 'cpus 0,2-3',
  rate: '100M bit/s 50k packets/s weight 3',
  pool: '4096 bytes',
};

/** ARK_BAD_ARGUMENT with the form as hint. */
export function parseRange(kind: CapKind, text: string): Range {
  if (text === 'everything') return null;
  const range = parse(kind, text);
  if (range === null) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `"${text}" is no range of kind ${kind}`, {
      hint: `write it as ${FORMS[kind] ?? 'everything'}`,
    });
  }
  checkRange(kind, range);
  return range;
}

/** Null when `text` has not the form of `kind`. */
function parse(kind: CapKind, text: string): Range {
  if (kind === 'addresses') return parseAddresses(text);
  if (kind === 'rate') return parseRates(text);
  if (kind === 'cores') {
    const cpus = /^cpus (\S+)$/.exec(text)?.[1];
    return cpus === undefined ? null : { cpus: parseCpus(cpus) };
  }
  const bytes = kind === 'pool' ? /^(\d{1,15}) bytes$/.exec(text)?.[1] : undefined;
  return bytes === undefined ? null : { bytes: Number(bytes) };
}

function parseAddresses(text: string): AddressRange | null {
  const match = /^(any|udp|tcp|icmp) ([\d.]+)(?:(\/\d+)|-([\d.]+))?(?::(\d+)(?:-(\d+))?)?$/.exec(
    text,
  );
  if (match === null) return null;
  const [, protocol, host = '', length, end, port, portEnd] = match;
  let first = parseIpv4(host);
  let last = end === undefined ? first : parseIpv4(end);
  if (length !== undefined) {
    const { prefix } = parseCidr(host + length);
    first = (first & netmask(prefix)) >>> 0;
    last = (first | ~netmask(prefix)) >>> 0;
  }
  const portFirst = port === undefined ? 0 : Number(port);
  return {
    protocol: protocol as AddressRange['protocol'],
    first,
    last,
    portFirst,
    portLast: port === undefined ? 65535 : Number(portEnd ?? port),
  };
}

function parseRates(text: string): RateRange | null {
  if (text === 'any rate') {
    return { bitsPerSecond: null, packetsPerSecond: null, weight: null };
  }
  const match = /^(?:(\S+) bit\/s ?)?(?:(\S+) packets\/s ?)?(?:weight (\d{1,9}))?$/.exec(text);
  if (match === null || text === '') return null;
  const [, bits, packets, weight] = match;
  return {
    bitsPerSecond: bits === undefined ? null : parseRate(bits, 'rate'),
    packetsPerSecond: packets === undefined ? null : parseRate(packets, 'rate'),
    weight: weight === undefined ? null : Number(weight),
  };
}
