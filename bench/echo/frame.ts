/** The request of the echo benchmark: 64 bytes of Ethernet, IPv4, UDP and a payload that says whose it is. */
import { type Ipv4, type Mac, macHi, macLo } from '../../src/base/address.ts';
import * as checksum from '../../src/wire/checksum.ts';

export const FRAME_LEN = 64;
/** Bytes from the frame's start to the sequence number; its complement follows. Both little-endian words. */
export const SEQUENCE = 48;
const MAGIC_AT = 44;
const MAGIC = 0x41524b21;
const IP = 14;
const UDP = 34;

export interface EchoEndpoints {
  sourceMac: Mac;
  destinationMac: Mac;
  sourceAddress: Ipv4;
  destinationAddress: Ipv4;
  sourcePort: number;
  destinationPort: number;
}

/** The 64 bytes as 16 words. Sequence 0 and its complement are in place, so the UDP checksum holds for every one. */
export function requestTemplate(e: EchoEndpoints): Uint32Array {
  const words = new Uint32Array(FRAME_LEN / 4);
  const view = new DataView(words.buffer);
  view.setUint16(0, macHi(e.destinationMac));
  view.setUint32(2, macLo(e.destinationMac));
  view.setUint16(6, macHi(e.sourceMac));
  view.setUint32(8, macLo(e.sourceMac));
  view.setUint16(12, 0x0800);
  view.setUint8(IP, 0x45);
  view.setUint16(IP + 2, FRAME_LEN - IP);
  view.setUint8(IP + 8, 64);
  view.setUint8(IP + 9, 17);
  view.setUint32(IP + 12, e.sourceAddress);
  view.setUint32(IP + 16, e.destinationAddress);
  view.setUint16(IP + 10, checksum.finish(checksum.sum(view, IP, UDP - IP)));
  view.setUint16(UDP, e.sourcePort);
  view.setUint16(UDP + 2, e.destinationPort);
  view.setUint16(UDP + 4, FRAME_LEN - UDP);
  view.setUint32(MAGIC_AT, MAGIC);
  view.setUint32(SEQUENCE + 4, 0xffffffff);
  const length = FRAME_LEN - UDP;
  const pseudo = checksum.pseudoHeader(e.sourceAddress, e.destinationAddress, 17, length);
  view.setUint16(UDP + 6, checksum.finish(pseudo + checksum.sum(view, UDP, length)));
  return words;
}

/** True for a frame that carries our payload, whoever it is addressed to. */
export function isAnswer(view: DataView, at: number, length: number): boolean {
  return length >= FRAME_LEN && view.getUint32(at + MAGIC_AT) === MAGIC;
}
