/**
 * ARP for IPv4 over Ethernet (RFC 826). Every function takes the frame's view and the byte offset of the packet in it.
 * Addresses are int32 (`address | 0`), MAC addresses 16 + 32 bits, as in ethernet.ts.
 */
import { formatIpv4, formatMac, macOf } from '../base/address.ts';
import { TYPE_IPV4 } from './ethernet.ts';

const HARDWARE_TYPE = 0;
const PROTOCOL_TYPE = 2;
const HARDWARE_LEN = 4;
const OPERATION = 6;
const SENDER_MAC = 8;
const SENDER_IP = 14;
const TARGET_MAC = 18;
const TARGET_IP = 24;
export const PACKET_LEN = 28;

const HARDWARE_ETHERNET = 1;
/** Hardware and protocol address length, one byte each. */
const LENGTHS_6_4 = 0x0604;

export const OP_REQUEST = 1;
export const OP_REPLY = 2;

/** 0 (ARP has no payload) when a whole Ethernet/IPv4 request or reply stands at `at`; otherwise -1. */
export function check(frame: DataView, at: number, end: number): number {
  if (end - at < PACKET_LEN) return -1;
  if (frame.getUint16(at + HARDWARE_TYPE) !== HARDWARE_ETHERNET) return -1;
  if (frame.getUint16(at + PROTOCOL_TYPE) !== TYPE_IPV4) return -1;
  if (frame.getUint16(at + HARDWARE_LEN) !== LENGTHS_6_4) return -1;
  const op = operation(frame, at);
  return op === OP_REQUEST || op === OP_REPLY ? 0 : -1;
}

export const operation = (frame: DataView, at: number): number => frame.getUint16(at + OPERATION);
export const senderMacHi = (frame: DataView, at: number): number =>
  frame.getUint16(at + SENDER_MAC);
export const senderMacLo = (frame: DataView, at: number): number =>
  frame.getInt32(at + SENDER_MAC + 2);
export const senderIp = (frame: DataView, at: number): number => frame.getInt32(at + SENDER_IP);
export const targetIp = (frame: DataView, at: number): number => frame.getInt32(at + TARGET_IP);

/** Write the fixed part and the operation; sender and target follow with `setSender` and `setTarget`. */
export function emit(frame: DataView, at: number, op: number): void {
  frame.setUint16(at + HARDWARE_TYPE, HARDWARE_ETHERNET);
  frame.setUint16(at + PROTOCOL_TYPE, TYPE_IPV4);
  frame.setUint16(at + HARDWARE_LEN, LENGTHS_6_4);
  frame.setUint16(at + OPERATION, op);
}

export function setSender(frame: DataView, at: number, hi: number, lo: number, ip: number): void {
  frame.setUint16(at + SENDER_MAC, hi);
  frame.setInt32(at + SENDER_MAC + 2, lo);
  frame.setInt32(at + SENDER_IP, ip);
}

export function setTarget(frame: DataView, at: number, hi: number, lo: number, ip: number): void {
  frame.setUint16(at + TARGET_MAC, hi);
  frame.setInt32(at + TARGET_MAC + 2, lo);
  frame.setInt32(at + TARGET_IP, ip);
}

/** `ARP who-has 10.0.0.2 tell 10.0.0.1`, `ARP 10.0.0.2 is-at 02:00:00:00:00:02`. */
export function format(frame: DataView, at: number): string {
  const sender = formatIpv4(senderIp(frame, at));
  if (operation(frame, at) === OP_REQUEST) {
    return `ARP who-has ${formatIpv4(targetIp(frame, at))} tell ${sender}`;
  }
  const mac = formatMac(macOf(senderMacHi(frame, at), senderMacLo(frame, at) >>> 0));
  return `ARP ${sender} is-at ${mac}`;
}
