/** Whole IPv6 frames as bytes, for tests: addresses as text, messages by hand, checksums by the plain definition. */
import { macHi, macLo, parseIpv6, parseMac } from '../../src/base/address.ts';
import * as ethernet from '../../src/wire/ethernet.ts';
import * as ipv6 from '../../src/wire/ipv6.ts';
import { viewOfBytes } from './frames.ts';

export interface Host6 {
  readonly mac: number;
  readonly ip: string;
}

/** The host under test, by its link-local address; one on its link, by two of its addresses; and a router. */
export const US6: Host6 = { mac: parseMac('02:00:00:00:00:02'), ip: 'fe80::ff:fe00:2' };
export const PEER6: Host6 = { mac: parseMac('02:00:00:00:00:01'), ip: 'fe80::ff:fe00:1' };
export const PEER6_GLOBAL: Host6 = { mac: PEER6.mac, ip: '2001:db8::1' };
export const US6_GLOBAL: Host6 = { mac: US6.mac, ip: '2001:db8::2' };
export const ROUTER6: Host6 = { mac: parseMac('02:00:00:00:00:09'), ip: 'fe80::9' };
export const NOBODY: Host6 = { mac: PEER6.mac, ip: '::' };
export const IP6_AT = ethernet.HEADER_LEN;
export const L4_AT6 = IP6_AT + ipv6.HEADER_LEN;

export const ICMPV6 = 58;

/** The group `ip` with the MAC that goes with it. */
export function groupHost(ip: string): Host6 {
  return { mac: 0x3333_0000_0000 + (parseIpv6(ip)[3]! >>> 0), ip };
}
export const ALL_NODES6 = groupHost('ff02::1');

/** ff02::1:ffXX:XXXX of `ip`. */
export function solicitedGroup(ip: string): Host6 {
  const low = (parseIpv6(ip)[3]! & 0xffffff) >>> 0;
  return groupHost(
    `ff02::1:ff${(low >>> 16).toString(16).padStart(2, '0')}:${(low & 0xffff).toString(16)}`,
  );
}

export function ipv6Frame(
  from: Host6,
  to: Host6,
  next: number,
  payload: Uint8Array,
  hops = 64,
): Uint8Array {
  const bytes = new Uint8Array(L4_AT6 + payload.length);
  const view = viewOfBytes(bytes);
  ethernet.setDst(view, 0, macHi(to.mac), macLo(to.mac) | 0);
  ethernet.setSrc(view, 0, macHi(from.mac), macLo(from.mac) | 0);
  ethernet.setType(view, 0, ethernet.TYPE_IPV6);
  const flow = Int32Array.of(...parseIpv6(from.ip), ...parseIpv6(to.ip));
  ipv6.emit(view, IP6_AT, payload.length, next, hops, flow, 0);
  bytes.set(payload, L4_AT6);
  return bytes;
}

/** Put the checksum of the upper layer `protocol` from `at` to the end right, by the definition (RFC 1071, section 4.1). */
export function fixChecksum6(bytes: Uint8Array, at: number, field: number, protocol: number): void {
  const view = viewOfBytes(bytes);
  const end = Math.min(bytes.length, L4_AT6 + view.getUint16(IP6_AT + 4));
  if (at + field + 2 > end) return;
  view.setUint16(at + field, 0);
  let total = protocol + (end - at);
  for (let i = IP6_AT + 8; i < L4_AT6; i += 2) total += view.getUint16(i);
  for (let i = at; i < end; i += 2) total += i + 1 < end ? view.getUint16(i) : bytes[i]! << 8;
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  view.setUint16(at + field, ~total & 0xffff || (protocol === 17 ? 0xffff : 0));
}

export function udp6Frame(
  from: Host6 & { port: number },
  to: Host6 & { port: number },
  payload: Uint8Array,
): Uint8Array {
  const datagram = new Uint8Array(8 + payload.length);
  const view = viewOfBytes(datagram);
  view.setUint16(0, from.port);
  view.setUint16(2, to.port);
  view.setUint16(4, datagram.length);
  datagram.set(payload, 8);
  const bytes = ipv6Frame(from, to, 17, datagram);
  fixChecksum6(bytes, L4_AT6, 6, 17);
  return bytes;
}

/** An ICMPv6 message: `body` is all behind the checksum. */
export function icmp6Frame(
  from: Host6,
  to: Host6,
  type: number,
  code: number,
  body: Uint8Array,
  hops = 255,
): Uint8Array {
  const bytes = ipv6Frame(from, to, ICMPV6, Uint8Array.of(type, code, 0, 0, ...body), hops);
  fixChecksum6(bytes, L4_AT6, 2, ICMPV6);
  return bytes;
}

export const bytesOf6 = (ip: string): number[] =>
  [...parseIpv6(ip)].flatMap((word) => [24, 16, 8, 0].map((shift) => (word >>> shift) & 255));
const macBytes = (mac: number): number[] => [
  ...Buffer.from(mac.toString(16).padStart(12, '0'), 'hex'),
];
/** A link-layer address option: 1 source, 2 target. */
export const macOption = (kind: number, mac: number): number[] => [kind, 1, ...macBytes(mac)];

export const echo6Frame = (from: Host6, to: Host6, body: Uint8Array, type = 128): Uint8Array =>
  icmp6Frame(from, to, type, 0, Uint8Array.of(0, 1, 0, 2, ...body), 64);

/** A question who has `target`: to its group, with the asker's MAC unless it is NOBODY. */
export function solicitation(from: Host6, target: string, to = solicitedGroup(target)): Uint8Array {
  const option = from.ip === '::' ? [] : macOption(1, from.mac);
  return icmp6Frame(from, to, 135, 0, Uint8Array.of(0, 0, 0, 0, ...bytesOf6(target), ...option));
}

/** `flags`: 0x80 router, 0x40 solicited, 0x20 override. */
export function advertisement(
  from: Host6,
  to: Host6,
  target: string,
  flags: number,
  mac: number | null = from.mac,
): Uint8Array {
  const option = mac === null ? [] : macOption(2, mac);
  return icmp6Frame(
    from,
    to,
    136,
    0,
    Uint8Array.of(flags, 0, 0, 0, ...bytesOf6(target), ...option),
  );
}

export interface RouterMessage {
  readonly lifetime?: number;
  readonly hopLimit?: number;
  readonly flags?: number;
  readonly mtu?: number;
  readonly retransMs?: number;
  readonly prefixes?: readonly {
    readonly prefix: string;
    readonly length?: number;
    /** 0x80 on the link, 0x40 for addresses. */
    readonly flags?: number;
    readonly valid?: number;
    readonly preferred?: number;
  }[];
}

const word = (value: number): number[] => [24, 16, 8, 0].map((shift) => (value >>> shift) & 255);

/** What a router says to all. */
export function routerAdvertisement(from: Host6, message: RouterMessage = {}): Uint8Array {
  const { lifetime = 1800, hopLimit = 64, flags = 0, mtu, retransMs = 0, prefixes = [] } = message;
  const options = [...macOption(1, from.mac)];
  if (mtu !== undefined) options.push(5, 1, 0, 0, ...word(mtu));
  for (const p of prefixes) {
    const { prefix, length = 64, flags: bits = 0xc0, valid = 86_400, preferred = 14_400 } = p;
    options.push(3, 4, length, bits, ...word(valid), ...word(preferred), 0, 0, 0, 0);
    options.push(...bytesOf6(prefix));
  }
  const fixed = [hopLimit, flags, lifetime >>> 8, lifetime & 255, 0, 0, 0, 0, ...word(retransMs)];
  return icmp6Frame(from, ALL_NODES6, 134, 0, Uint8Array.from([...fixed, ...options]));
}

/** The frame with `headers` between its IPv6 header and its payload; `first` is what they begin with. */
export function withExtensions(frame: Uint8Array, first: number, headers: Uint8Array): Uint8Array {
  const out = new Uint8Array(frame.length + headers.length);
  out.set(frame.subarray(0, L4_AT6));
  out.set(headers, L4_AT6);
  out.set(frame.subarray(L4_AT6), L4_AT6 + headers.length);
  const view = viewOfBytes(out);
  view.setUint16(IP6_AT + 4, view.getUint16(IP6_AT + 4) + headers.length);
  view.setUint8(IP6_AT + 6, first);
  return out;
}

/** `frame` in pieces of at most `step` payload bytes, a multiple of 8. */
export function fragments6(frame: Uint8Array, step: number, id = 1): Uint8Array[] {
  const next = frame[IP6_AT + 6]!;
  const payload = frame.subarray(L4_AT6);
  const pieces: Uint8Array[] = [];
  for (let offset = 0; offset < payload.length; offset += step) {
    const part = payload.subarray(offset, offset + step);
    const more = offset + step < payload.length ? 1 : 0;
    const header = [next, 0, (offset | more) >>> 8, (offset | more) & 255, ...word(id)];
    const base = frame.slice(0, L4_AT6 + part.length);
    base.set(part, L4_AT6);
    viewOfBytes(base).setUint16(IP6_AT + 4, part.length);
    pieces.push(withExtensions(base, 44, Uint8Array.from(header)));
  }
  return pieces;
}
