/** Whole IPv4 frames cut into pieces, as a sender or a router would; and pieces that lie. */
import * as ipv4 from '../../src/wire/ipv4.ts';
import { fixIpChecksum, viewOfBytes } from './frames.ts';

const IP_AT = 14;
const L4_AT = 34;

/** One piece of the datagram whose IPv4 payload is in `frame`: `length` bytes from `offset`, a multiple of 8. */
export function fragment(
  frame: Uint8Array,
  id: number,
  offset: number,
  length: number,
  more: boolean,
): Uint8Array {
  const bytes = new Uint8Array(L4_AT + length);
  bytes.set(frame.subarray(0, L4_AT));
  bytes.set(frame.subarray(L4_AT + offset, L4_AT + offset + length), L4_AT);
  const view = viewOfBytes(bytes);
  view.setUint16(IP_AT + 2, ipv4.HEADER_LEN + length);
  view.setUint16(IP_AT + 4, id);
  view.setUint16(IP_AT + 6, (offset >> 3) | (more ? ipv4.MORE_FRAGMENTS : 0));
  fixIpChecksum(bytes);
  return bytes;
}

/** All pieces of `frame`, of `step` payload bytes each but the last. */
export function cut(frame: Uint8Array, step: number, id = 99): Uint8Array[] {
  const total = frame.length - L4_AT;
  return Array.from({ length: Math.ceil(total / step) }, (_, i) => {
    const length = Math.min(step, total - i * step);
    return fragment(frame, id, i * step, length, i * step + length < total);
  });
}
