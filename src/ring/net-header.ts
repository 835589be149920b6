/**
 * virtio_net_hdr (virtio 1.2, section 5.1.6), 12 bytes, little-endian:
 *
 *   flags u8 | gso_type u8 | hdr_len u16 || gso_size u16 | csum_start u16 || csum_offset u16 | num_buffers u16
 *
 * A header is three words here, and an object of fields for whoever has one: nothing is allocated per packet.
 */
import { NET_HEADER_LEN } from './split-layout.ts';

/** The checksum field holds the sum of the pseudo header: the rest, from csum_start on, is to be added. */
export const F_NEEDS_CSUM = 1;
/** The checksum was looked at, and is right. */
export const F_DATA_VALID = 2;

export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;

export class NetHeader {
  flags = 0;
  gsoType: number = GSO_NONE;
  headerLength = 0;
  /** Payload bytes of each segment. */
  gsoSize = 0;
  checksumStart = 0;
  checksumOffset = 0;
  buffers = 0;

  /** It asks for nothing and tells nothing. */
  get isPlain(): boolean {
    return (this.flags | this.gsoType) === 0;
  }

  clear(): void {
    this.flags = 0;
    this.gsoType = GSO_NONE;
    this.gsoSize = 0;
    this.checksumStart = 0;
    this.checksumOffset = 0;
    this.headerLength = 0;
    this.buffers = 0;
  }

  /** Read once from bytes that somebody else may change. */
  read(u8: Uint8Array, at: number): void {
    this.flags = u8[at]!;
    this.gsoType = u8[at + 1]!;
    this.headerLength = u8[at + 2]! | (u8[at + 3]! << 8);
    this.gsoSize = u8[at + 4]! | (u8[at + 5]! << 8);
    this.checksumStart = u8[at + 6]! | (u8[at + 7]! << 8);
    this.checksumOffset = u8[at + 8]! | (u8[at + 9]! << 8);
    this.buffers = u8[at + 10]! | (u8[at + 11]! << 8);
  }

  /** Byte `index` of the header as it is written, with `buffers` for num_buffers. */
  byte(index: number, buffers: number): number {
    switch (index) {
      case 0:
        return this.flags;
      case 1:
        return this.gsoType;
      case 2:
      case 3:
        return (this.headerLength >>> ((index & 1) * 8)) & 255;
      case 4:
      case 5:
        return (this.gsoSize >>> ((index & 1) * 8)) & 255;
      case 6:
      case 7:
        return (this.checksumStart >>> ((index & 1) * 8)) & 255;
      case 8:
      case 9:
        return (this.checksumOffset >>> ((index & 1) * 8)) & 255;
      default:
        return (buffers >>> ((index & 1) * 8)) & 255;
    }
  }

  write(u8: Uint8Array, at: number, buffers: number): void {
    for (let i = 0; i < NET_HEADER_LEN; i++) u8[at + i] = this.byte(i, buffers);
  }
}
