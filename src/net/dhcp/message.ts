/**
 * DHCP messages (RFC 2131, section 2; options: RFC 2132; lists of routes: RFC 3442). From a UDP payload to an object and back:
 * they are few, so nothing here is for speed. Addresses are Ipv4 numbers.
 */
import type { Ipv4, Mac } from '../../base/address.ts';
import { macHi, macLo } from '../../base/address.ts';

/** Fixed part: op 0, htype 1, hlen 2, hops 3, xid 4, secs 8, flags 10, ciaddr 12, yiaddr 16, siaddr 20, giaddr 24, chaddr 28. */
const FIXED_LEN = 236;
const COOKIE = 0x63825363;
const OPTIONS_AT = FIXED_LEN + 4;
/** BOOTP relays want so much (RFC 1542, section 2.1). */
const LENGTH_MIN = 300;
const BOOT_REQUEST = 1;
const BOOT_REPLY = 2;
const ETHERNET = 1;
const BROADCAST_FLAG = 0x8000;
/** Places for options besides the end: file and sname, when option 52 says so. */
const FILE = { at: 108, length: 128 } as const;
const SNAME = { at: 44, length: 64 } as const;

export const DHCP = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
  release: 7,
} as const satisfies Record<string, number>;

export const OPTION = {
  pad: 0,
  subnetMask: 1,
  router: 3,
  dns: 6,
  hostName: 12,
  domain: 15,
  mtu: 26,
  requestedAddress: 50,
  leaseSeconds: 51,
  overload: 52,
  type: 53,
  server: 54,
  parameters: 55,
  renewalSeconds: 58,
  rebindingSeconds: 59,
  clientId: 61,
  routes: 121,
  end: 255,
} as const satisfies Record<string, number>;

/** What a client says. */
export interface ClientMessage {
  readonly type: number;
  readonly xid: number;
  readonly seconds: number;
  readonly mac: Mac;
  /** Our address, when we have it and answer to ARP for it; otherwise 0, and the answer is to be broadcast. */
  readonly clientAddress: Ipv4;
  readonly options: readonly (readonly [code: number, bytes: Uint8Array])[];
}

/** What a server says, checked. */
export interface ServerMessage {
  readonly type: number;
  readonly xid: number;
  readonly address: Ipv4;
  readonly options: ReadonlyMap<number, Uint8Array>;
}

export function ipv4Bytes(address: Ipv4): Uint8Array {
  return Uint8Array.of(address >>> 24, address >>> 16, address >>> 8, address);
}

export function emitClient(message: ClientMessage): Uint8Array {
  const { type, xid, seconds, mac, clientAddress, options } = message;
  const all = [[OPTION.type, Uint8Array.of(type)] as const, ...options];
  const length = OPTIONS_AT + all.reduce((sum, [, bytes]) => sum + 2 + bytes.length, 1);
  const out = new Uint8Array(Math.max(LENGTH_MIN, length));
  const view = new DataView(out.buffer);
  out.set([BOOT_REQUEST, ETHERNET, 6, 0]);
  view.setUint32(4, xid);
  view.setUint16(8, Math.min(seconds, 0xffff));
  view.setUint16(10, clientAddress === 0 ? BROADCAST_FLAG : 0);
  view.setUint32(12, clientAddress);
  view.setUint16(28, macHi(mac));
  view.setUint32(30, macLo(mac));
  view.setUint32(FIXED_LEN, COOKIE);
  let at = OPTIONS_AT;
  for (const [code, bytes] of all) {
    out.set([code, bytes.length], at);
    out.set(bytes, at + 2);
    at += 2 + bytes.length;
  }
  out[at] = OPTION.end;
  return out;
}

/** The server's message in `bytes` when it is whole and for this client (`xid`, `mac`); otherwise null. */
export function parseServer(bytes: Uint8Array, xid: number, mac: Mac): ServerMessage | null {
  if (bytes.length < OPTIONS_AT) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isReply = bytes[0] === BOOT_REPLY && bytes[1] === ETHERNET && bytes[2] === 6;
  if (!isReply || view.getUint32(4) !== xid || view.getUint32(FIXED_LEN) !== COOKIE) return null;
  if (view.getUint16(28) !== macHi(mac) || view.getUint32(30) !== macLo(mac)) return null;
  const options = new Map<number, Uint8Array>();
  if (!collect(bytes, OPTIONS_AT, bytes.length, options)) return null;
  const overload = options.get(OPTION.overload)?.[0] ?? 0;
  if ((overload & 1) !== 0 && !collect(bytes, FILE.at, FILE.at + FILE.length, options)) return null;
  if ((overload & 2) !== 0 && !collect(bytes, SNAME.at, SNAME.at + SNAME.length, options)) {
    return null;
  }
  const type = options.get(OPTION.type);
  if (type?.length !== 1) return null;
  return { type: type[0]!, xid, address: view.getUint32(16), options };
}

/** Read options from `at` to `end`; parts of one option are joined (RFC 3396). False when one lies about its length. */
function collect(
  bytes: Uint8Array,
  from: number,
  end: number,
  into: Map<number, Uint8Array>,
): boolean {
  for (let at = from; at < end; ) {
    const code = bytes[at]!;
    if (code === OPTION.end) return true;
    if (code === OPTION.pad) {
      at++;
      continue;
    }
    const length = bytes[at + 1];
    if (length === undefined || at + 2 + length > end) return false;
    const part = bytes.slice(at + 2, at + 2 + length);
    const before = into.get(code);
    into.set(code, before === undefined ? part : Uint8Array.from([...before, ...part]));
    at += 2 + length;
  }
  return true;
}

/** An unsigned number of exactly `size` bytes, or null. */
export function numberOf(message: ServerMessage, code: number, size: 2 | 4): number | null {
  const bytes = message.options.get(code);
  if (bytes?.length !== size) return null;
  return bytes.reduce((value, byte) => value * 256 + byte, 0);
}

/** A list of addresses; empty when there is none or it is malformed. */
export function addressesOf(message: ServerMessage, code: number): Ipv4[] {
  const bytes = message.options.get(code) ?? new Uint8Array(0);
  if (bytes.length % 4 !== 0) return [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 4 }, (_, i) => view.getUint32(i * 4));
}

export interface DhcpRoute {
  readonly dst: Ipv4;
  readonly prefix: number;
  readonly gateway: Ipv4;
}

/** Classless routes (RFC 3442); null when there are none, or they are malformed. */
export function routesOf(message: ServerMessage): DhcpRoute[] | null {
  const bytes = message.options.get(OPTION.routes);
  if (bytes === undefined) return null;
  const routes: DhcpRoute[] = [];
  for (let at = 0; at < bytes.length; ) {
    const prefix = bytes[at]!;
    const significant = Math.ceil(prefix / 8);
    if (prefix > 32 || at + 1 + significant + 4 > bytes.length) return null;
    const number = (from: number, count: number, size: number): number => {
      let value = 0;
      for (let i = 0; i < size; i++) value = value * 256 + (i < count ? bytes[from + i]! : 0);
      return value;
    };
    const dst = number(at + 1, significant, 4);
    routes.push({ dst, prefix, gateway: number(at + 1 + significant, 4, 4) });
    at += 1 + significant + 4;
  }
  return routes;
}
