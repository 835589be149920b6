/**
 * Neighbour discovery messages (RFC 4861, section 4) and their options. Every function takes the frame's view and the
 * byte offset of the ICMPv6 message. They are all of ICMPv6 type, code 0, and a hop limit of HOP_LIMIT: nobody but a
 * neighbour can send them.
 */
import { formatIpv6 } from '../base/address.ts';
import { readAddress, writeAddress } from './ipv6.ts';

export const ROUTER_SOLICITATION = 133;
export const ROUTER_ADVERTISEMENT = 134;
export const NEIGHBOUR_SOLICITATION = 135;
export const NEIGHBOUR_ADVERTISEMENT = 136;
export const REDIRECT = 137;
export const HOP_LIMIT = 255;

const FLAGS = 4;
const TARGET = 8;
export const SOLICITATION_LEN = 24;
export const ROUTER_SOLICITATION_LEN = 8;

/** Flags of a neighbour advertisement, in the word after the checksum. */
export const FLAG = {
  router: 0x80000000 | 0,
  solicited: 0x40000000,
  override: 0x20000000,
} as const;

/** Options (section 4.6). Lengths are in bytes here. */
export const OPTION = { sourceMac: 1, targetMac: 2, prefix: 3, mtu: 5 } as const;
const OPTION_LENGTHS: Readonly<Record<number, number>> = { 1: 8, 2: 8, 3: 32, 5: 8 };
export const MAC_OPTION_LEN = 8;
/** Options in one message: what has more is not from a router that means well. */
const OPTIONS_MAX = 32;

/** Bytes before the options of each type of message. */
const FIXED: Readonly<Record<number, number>> = {
  [ROUTER_SOLICITATION]: ROUTER_SOLICITATION_LEN,
  [ROUTER_ADVERTISEMENT]: 16,
  [NEIGHBOUR_SOLICITATION]: SOLICITATION_LEN,
  [NEIGHBOUR_ADVERTISEMENT]: SOLICITATION_LEN,
  [REDIRECT]: 40,
};

export const isNdp = (type: number): boolean => type >= ROUTER_SOLICITATION && type <= REDIRECT;

/** True when the message of ICMPv6 type `type`, code 0, is long enough and its options end with it, none of them empty. */
export function check(frame: DataView, at: number, end: number, type: number): boolean {
  const fixed = FIXED[type];
  if (fixed === undefined || end - at < fixed || frame.getUint8(at + 1) !== 0) return false;
  let option = at + fixed;
  for (let count = 0; option < end; count++) {
    if (count === OPTIONS_MAX || end - option < 8) return false;
    const length = 8 * frame.getUint8(option + 1);
    if (length === 0 || length > end - option) return false;
    option += length;
  }
  return true;
}

/** After `check`: where the first option of kind `option` stands, of the length that it has to have; -1: nowhere. */
export function findOption(
  frame: DataView,
  at: number,
  end: number,
  type: number,
  option: number,
): number {
  return nextOption(frame, at + FIXED[type]!, end, option);
}

/** After `check`: the same from `from` on, which is where an option begins. */
export function nextOption(frame: DataView, from: number, end: number, option: number): number {
  for (let i = from; i < end; i += 8 * frame.getUint8(i + 1)) {
    const length = 8 * frame.getUint8(i + 1);
    if (frame.getUint8(i) === option && length === OPTION_LENGTHS[option]) return i;
  }
  return -1;
}

export const optionEnd = (frame: DataView, at: number): number => at + 8 * frame.getUint8(at + 1);

/** The MAC address in a link-layer address option. */
export const macHi = (frame: DataView, at: number): number => frame.getUint16(at + 2);
export const macLo = (frame: DataView, at: number): number => frame.getInt32(at + 4);

export const flags = (frame: DataView, at: number): number => frame.getInt32(at + FLAGS);
export const readTarget = (frame: DataView, at: number, words: Int32Array, to: number): void =>
  readAddress(frame, at + TARGET, words, to);
/** Of a redirect: what is reached by its target. */
export const readRedirected = (frame: DataView, at: number, words: Int32Array, to: number): void =>
  readAddress(frame, at + TARGET + 16, words, to);

/** Of a router advertisement: 0 where the router does not say. */
export const curHopLimit = (frame: DataView, at: number): number => frame.getUint8(at + 4);
/** Preference of the router (RFC 4191, section 2.1): 1 high, 0 medium, -1 low. */
export function preference(frame: DataView, at: number): number {
  const bits = (frame.getUint8(at + 5) >>> 3) & 3;
  return bits === 1 ? 1 : bits === 3 ? -1 : 0;
}
/** Seconds. */
export const routerLifetime = (frame: DataView, at: number): number => frame.getUint16(at + 6);
/** Milliseconds. */
export const reachableTime = (frame: DataView, at: number): number => frame.getUint32(at + 8);
export const retransTimer = (frame: DataView, at: number): number => frame.getUint32(at + 12);

/** Of a prefix information option. */
export const prefixLength = (frame: DataView, at: number): number => frame.getUint8(at + 2);
export const isOnLink = (frame: DataView, at: number): boolean =>
  (frame.getUint8(at + 3) & 0x80) !== 0;
export const isAutonomous = (frame: DataView, at: number): boolean =>
  (frame.getUint8(at + 3) & 0x40) !== 0;
/** Seconds; 0xffffffff: without end. */
export const validLifetime = (frame: DataView, at: number): number => frame.getUint32(at + 4);
export const preferredLifetime = (frame: DataView, at: number): number => frame.getUint32(at + 8);
export const readPrefix = (frame: DataView, at: number, words: Int32Array, to: number): void =>
  readAddress(frame, at + 16, words, to);
/** Of an MTU option. */
export const mtu = (frame: DataView, at: number): number => frame.getUint32(at + 4);

/** Write flags and target of a neighbour solicitation (flags 0) or advertisement. */
export function emitTarget(
  frame: DataView,
  at: number,
  flagBits: number,
  words: Int32Array,
  from: number,
): void {
  frame.setInt32(at + FLAGS, flagBits);
  writeAddress(frame, at + TARGET, words, from);
}

export function emitMac(frame: DataView, at: number, option: number, hi: number, lo: number): void {
  frame.setUint16(at, (option << 8) | 1);
  frame.setUint16(at + 2, hi);
  frame.setInt32(at + 4, lo);
}

const target = new Int32Array(4);

/** `ND who-has fe80::2`, `ND fe80::2 is-at 02:00:00:00:00:02`, `ND router advertisement`. */
export function format(frame: DataView, at: number, end: number, type: number): string {
  if (type === ROUTER_SOLICITATION) return 'ND router solicitation';
  if (type === ROUTER_ADVERTISEMENT) {
    return `ND router advertisement lifetime ${routerLifetime(frame, at)}`;
  }
  readTarget(frame, at, target, 0);
  const text = formatIpv6(target);
  if (type === NEIGHBOUR_SOLICITATION) return `ND who-has ${text}`;
  if (type === REDIRECT) return `ND redirect to ${text}`;
  const option = findOption(frame, at, end, type, OPTION.targetMac);
  if (option < 0) return `ND ${text} is there`;
  const mac = Buffer.from(frame.buffer, frame.byteOffset + option + 2, 6).toString('hex');
  return `ND ${text} is-at ${mac.replace(/(..)(?=.)/g, '$1:')}`;
}
