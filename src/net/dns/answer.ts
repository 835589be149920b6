/**
 * What a DNS server's answer says about one question (RFC 1035; RFC 2308 for what is not there). The codec is dns-packet's;
 * what it makes of hostile bytes is checked here.
 */
import dnsPacket, { type Packet } from 'dns-packet';

export type AddressType = 'A' | 'AAAA';

export type Answer =
  /** The addresses of the name, or of the one that it is an alias for. */
  | { readonly kind: 'addresses'; readonly addresses: readonly string[]; readonly ttlS: number }
  /** It is an alias, and the server says no more. */
  | { readonly kind: 'alias'; readonly name: string; readonly ttlS: number }
  /** There is no such name, or it has no address of this family. */
  | { readonly kind: 'nothing'; readonly ttlS: number }
  /** The server cannot, or will not: another one may. */
  | { readonly kind: 'failed' }
  /** It did not fit into a datagram. */
  | { readonly kind: 'truncated' };

/** Aliases that one answer may go through. */
const ALIASES_MAX = 8;
const ADDRESSES_MAX = 32;
/** Of a "nothing" whose zone does not say how long it may be remembered. */
const NEGATIVE_TTL_S = 30;
const RCODE_OK = 'NOERROR';
const RCODE_NO_NAME = 'NXDOMAIN';

/** Names are compared without their case (RFC 4343), and without the dot at the end. */
export const canonical = (name: string): string => name.toLowerCase().replace(/\.$/, '');

/** True for a name that can be asked for: labels of 1 to 63 bytes, 253 in all. */
export function isName(name: string): boolean {
  const text = canonical(name);
  if (text.length === 0 || text.length > 253) return false;
  return text.split('.').every((label) => /^[a-z0-9_-]{1,63}$/.test(label));
}

/** A query for `name`, recursion desired, with room for answers of `udpBytes` (RFC 6891). */
export function encodeQuery(
  id: number,
  name: string,
  type: AddressType,
  udpBytes: number,
): Uint8Array {
  const options = { name: '.', udpPayloadSize: udpBytes, extendedRcode: 0, ednsVersion: 0 };
  return dnsPacket.encode({
    type: 'query',
    id,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ type, name }],
    additionals: [{ type: 'OPT', ...options, flags: 0, flag_do: false, options: [] }],
  });
}

/** What `bytes` answer to that query; null when they are no answer to it at all. */
export function readAnswer(
  bytes: Uint8Array,
  id: number,
  name: string,
  type: AddressType,
): Answer | null {
  let packet: Packet & { rcode?: string; flag_tc?: boolean };
  try {
    packet = dnsPacket.decode(Buffer.from(bytes));
  } catch {
    return null;
  }
  const [question, ...more] = packet.questions ?? [];
  const isOurs =
    packet.type === 'response' &&
    packet.id === id &&
    more.length === 0 &&
    question?.type === type &&
    canonical(question.name) === canonical(name);
  if (!isOurs) return null;
  if (packet.rcode === RCODE_NO_NAME) return { kind: 'nothing', ttlS: negativeTtl(packet) };
  if (packet.rcode !== RCODE_OK) return { kind: 'failed' };
  const found = follow(packet, name, type);
  return found.kind === 'nothing' && packet.flag_tc === true ? { kind: 'truncated' } : found;
}

/** From the name through its aliases to addresses, as far as the answer goes. Records of other names are not looked at. */
function follow(packet: Packet, name: string, type: AddressType): Answer {
  const records = packet.answers ?? [];
  let current = canonical(name);
  let ttlS = Number.POSITIVE_INFINITY;
  for (let hops = 0; hops <= ALIASES_MAX; hops++) {
    const here = records.filter((record) => canonical(record.name) === current);
    const addresses = here.flatMap((record) =>
      record.type === type && typeof record.data === 'string'
        ? [{ address: record.data, ttlS: ttlOf(record) }]
        : [],
    );
    if (addresses.length > 0) {
      ttlS = Math.min(ttlS, ...addresses.map((one) => one.ttlS));
      const texts = [...new Set(addresses.map((one) => one.address))].slice(0, ADDRESSES_MAX);
      return { kind: 'addresses', addresses: texts, ttlS };
    }
    const alias = here.find((record) => record.type === 'CNAME');
    if (alias === undefined || alias.type !== 'CNAME') {
      if (current === canonical(name)) return { kind: 'nothing', ttlS: negativeTtl(packet) };
      const isNothing = (packet.authorities ?? []).some((record) => record.type === 'SOA');
      if (isNothing) return { kind: 'nothing', ttlS: Math.min(ttlS, negativeTtl(packet)) };
      return { kind: 'alias', name: current, ttlS };
    }
    if (!isName(alias.data)) return { kind: 'failed' };
    ttlS = Math.min(ttlS, ttlOf(alias));
    current = canonical(alias.data);
  }
  return { kind: 'failed' };
}

/** RFC 2181, section 8: a time with the top bit set is none. */
function ttlOf(record: { ttl?: number | undefined }): number {
  const ttl = record.ttl ?? 0;
  return ttl >= 2 ** 31 ? 0 : ttl;
}

/** RFC 2308, section 5: the smaller one of the SOA record's own time and its minimum. */
function negativeTtl(packet: Packet): number {
  for (const record of packet.authorities ?? []) {
    if (record.type === 'SOA')
      return Math.min(ttlOf(record), record.data.minimum ?? NEGATIVE_TTL_S);
  }
  return NEGATIVE_TTL_S;
}
