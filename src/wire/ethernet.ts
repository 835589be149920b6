/**
 * Ethernet II (RFC 894). Every function takes the frame's view and the byte offset of the header in it.
 * A MAC address is its upper 16 bits (`Hi`) and its lower 32 as an int32 (`Lo`): neither ever becomes a heap number.
 */
import { formatMac, macOf } from '../base/address.ts';

const DST = 0;
const SRC = 6;
const TYPE = 12;
export const HEADER_LEN = 14;

/** EtherTypes (IANA). Smaller values than 0x0600 are IEEE 802.3 lengths. */
export const TYPE_IPV4 = 0x0800;
export const TYPE_ARP = 0x0806;
/** A customer VLAN's tag (IEEE 802.1Q, section 9.6): this type, then 3 bits priority, 1 bit drop eligible, 12 bits VLAN. */
export const TYPE_VLAN = 0x8100;
export const VLAN_TAG_LEN = 4;
const VLAN_ID_MASK = 0xfff;
export const TYPE_IPV6 = 0x86dd;
export const TYPE_MIN = 0x0600;

/** Payload length when a whole Ethernet II header stands between `at` and `end`; otherwise -1. */
export function check(frame: DataView, at: number, end: number): number {
  if (end - at < HEADER_LEN) return -1;
  return frame.getUint16(at + TYPE) < TYPE_MIN ? -1 : end - at - HEADER_LEN;
}

export const dstHi = (frame: DataView, at: number): number => frame.getUint16(at + DST);
export const dstLo = (frame: DataView, at: number): number => frame.getInt32(at + DST + 2);
export const srcHi = (frame: DataView, at: number): number => frame.getUint16(at + SRC);
export const srcLo = (frame: DataView, at: number): number => frame.getInt32(at + SRC + 2);
export const type = (frame: DataView, at: number): number => frame.getUint16(at + TYPE);

/** True for a broadcast or multicast address: the lowest bit of its first byte (IEEE 802, section 8.2.2). */
export const isGroup = (macHi: number): boolean => (macHi & 0x0100) !== 0;

/** True for the address of an IPv4 multicast group: 01:00:5e and 23 bits of the group (RFC 1112, section 6.4). */
export const isIpv4Group = (macHi: number, macLo: number): boolean =>
  macHi === 0x0100 && macLo >>> 23 === 0x5e000000 >>> 23;

export function setDst(frame: DataView, at: number, hi: number, lo: number): void {
  frame.setUint16(at + DST, hi);
  frame.setInt32(at + DST + 2, lo);
}

export function setSrc(frame: DataView, at: number, hi: number, lo: number): void {
  frame.setUint16(at + SRC, hi);
  frame.setInt32(at + SRC + 2, lo);
}

export function setType(frame: DataView, at: number, value: number): void {
  frame.setUint16(at + TYPE, value);
}

/** VLAN identifier of a tagged frame of at least HEADER_LEN + VLAN_TAG_LEN bytes; 0: a priority alone. */
export const vlanId = (frame: DataView, at: number): number =>
  frame.getUint16(at + HEADER_LEN) & VLAN_ID_MASK;

/** Take the tag out of a frame: it starts VLAN_TAG_LEN bytes later, by the same addresses. */
export function removeTag(frame: DataView, at: number): void {
  frame.setInt32(at + 12, frame.getInt32(at + 8));
  frame.setInt32(at + 8, frame.getInt32(at + 4));
  frame.setInt32(at + 4, frame.getInt32(at));
}

/** Put a tag into a frame: it starts VLAN_TAG_LEN bytes earlier. */
export function insertTag(frame: DataView, at: number, vlan: number): void {
  frame.setInt32(at - 4, frame.getInt32(at));
  frame.setInt32(at, frame.getInt32(at + 4));
  frame.setInt32(at + 4, frame.getInt32(at + 8));
  frame.setInt32(at + 8, (TYPE_VLAN << 16) | vlan | 0);
}

/** `02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff 0x0806`. */
export function format(frame: DataView, at: number): string {
  const src = formatMac(macOf(srcHi(frame, at), srcLo(frame, at) >>> 0));
  const dst = formatMac(macOf(dstHi(frame, at), dstLo(frame, at) >>> 0));
  return `${src} > ${dst} 0x${type(frame, at).toString(16).padStart(4, '0')}`;
}
