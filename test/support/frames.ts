/** Whole frames as bytes, for tests: built by the code under test where its own tests have shown it right, else by hand. */
import { MAC_BROADCAST, macHi, macLo, parseIpv4, parseMac } from '../../src/base/address.ts';
import * as arp from '../../src/wire/arp.ts';
import * as ethernet from '../../src/wire/ethernet.ts';
import * as icmp from '../../src/wire/icmp.ts';
import * as ipv4 from '../../src/wire/ipv4.ts';
import * as udp from '../../src/wire/udp.ts';

/** The host under test, and two others on its subnet 10.0.0.0/24. */
export const US = { mac: parseMac('02:00:00:00:00:02'), ip: parseIpv4('10.0.0.2') };
export const PEER = { mac: parseMac('02:00:00:00:00:01'), ip: parseIpv4('10.0.0.1') };
export const OTHER = { mac: parseMac('02:00:00:00:00:09'), ip: parseIpv4('10.0.0.9') };
/** One whose address does not fit in a small integer. */
export const FAR = { mac: parseMac('02:00:00:00:00:01'), ip: parseIpv4('203.0.113.5') };

export interface Host {
  readonly mac: number;
  readonly ip: number;
}

const IP_AT = ethernet.HEADER_LEN;
const L4_AT = IP_AT + ipv4.HEADER_LEN;

export const viewOfBytes = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Bytes of a hex dump; spaces and line ends do not matter. */
export const hex = (text: string): Uint8Array =>
  Uint8Array.from(Buffer.from(text.replace(/\s+/g, ''), 'hex'));

export const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function emitEthernet(view: DataView, from: number, to: number, type: number): void {
  ethernet.setDst(view, 0, macHi(to), macLo(to) | 0);
  ethernet.setSrc(view, 0, macHi(from), macLo(from) | 0);
  ethernet.setType(view, 0, type);
}

/** An IPv4 frame around `payload`. */
export function ipv4Frame(
  from: Host,
  to: Host,
  protocol: number,
  payload: Uint8Array,
  ttl = 64,
): Uint8Array {
  const bytes = new Uint8Array(L4_AT + payload.length);
  const view = viewOfBytes(bytes);
  emitEthernet(view, from.mac, to.mac, ethernet.TYPE_IPV4);
  ipv4.emit(view, IP_AT, payload.length, 7, ttl, protocol, from.ip | 0, to.ip | 0);
  bytes.set(payload, L4_AT);
  return bytes;
}

export function udpFrame(
  from: Host & { port: number },
  to: Host & { port: number },
  payload: Uint8Array,
): Uint8Array {
  const datagram = new Uint8Array(udp.HEADER_LEN + payload.length);
  datagram.set(payload, udp.HEADER_LEN);
  const view = viewOfBytes(datagram);
  udp.emit(view, 0, from.port, to.port, payload.length, from.ip | 0, to.ip | 0);
  return ipv4Frame(from, to, ipv4.PROTOCOL_UDP, datagram);
}

export function echoFrame(
  from: Host,
  to: Host,
  body: Uint8Array,
  kind: number = icmp.ECHO_REQUEST,
): Uint8Array {
  const message = new Uint8Array(icmp.HEADER_LEN + body.length);
  message.set(body, icmp.HEADER_LEN);
  icmp.emit(viewOfBytes(message), 0, kind, 0, 0x00010002, message.length);
  return ipv4Frame(from, to, ipv4.PROTOCOL_ICMP, message);
}

/** `op` by `from` about or to `target`; broadcast, unless it is a reply to us. */
export function arpFrame(op: number, from: Host, target: Host): Uint8Array {
  const bytes = new Uint8Array(IP_AT + arp.PACKET_LEN);
  const view = viewOfBytes(bytes);
  const isToUs = op === arp.OP_REPLY && target.ip === US.ip;
  const to = isToUs ? target.mac : MAC_BROADCAST;
  emitEthernet(view, from.mac, to, ethernet.TYPE_ARP);
  arp.emit(view, IP_AT, op);
  arp.setSender(view, IP_AT, macHi(from.mac), macLo(from.mac) | 0, from.ip | 0);
  const known = op === arp.OP_REQUEST ? 0 : target.mac;
  arp.setTarget(view, IP_AT, macHi(known), macLo(known) | 0, target.ip | 0);
  return bytes;
}

/** The IPv4 frame `bytes` with `options` (a multiple of 4 bytes) put into its header. */
export function withOptions(bytes: Uint8Array, options: Uint8Array): Uint8Array {
  const out = new Uint8Array(bytes.length + options.length);
  out.set(bytes.subarray(0, L4_AT));
  out.set(options, L4_AT);
  out.set(bytes.subarray(L4_AT), L4_AT + options.length);
  const view = viewOfBytes(out);
  const words = 5 + options.length / 4;
  view.setUint8(IP_AT, 0x40 | words);
  view.setUint16(IP_AT + 2, view.getUint16(IP_AT + 2) + options.length);
  fixIpChecksum(out);
  return out;
}

/** Make the IPv4 header checksum of a changed frame right again, by the plain definition (RFC 1071, section 4.1). */
export function fixIpChecksum(bytes: Uint8Array): void {
  const view = viewOfBytes(bytes);
  view.setUint16(IP_AT + 10, 0);
  let total = 0;
  for (let i = IP_AT; i < IP_AT + (bytes[IP_AT]! & 15) * 4 && i + 1 < bytes.length; i += 2) {
    total += view.getUint16(i);
  }
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  view.setUint16(IP_AT + 10, ~total & 0xffff);
}
