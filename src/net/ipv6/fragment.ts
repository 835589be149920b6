/**
 * A packet that is longer than its way carries, cut into pieces by its sender, who alone may (RFC 8200, section 4.5). The
 * first piece stays in its frame; the others are copied into frames of their own, or nothing is sent.
 */
import { NO_FRAME } from '../../device/nic.ts';
import * as ethernet from '../../wire/ethernet.ts';
import { emitFragment, FRAGMENT, FRAGMENT_LEN } from '../../wire/extensions.ts';
import * as wire from '../../wire/ipv6.ts';
import type { Link } from '../link.ts';

const HEADERS = ethernet.HEADER_LEN + wire.HEADER_LEN;

/** Payload bytes of a piece that is not the last, on a way that carries `mtu`: a multiple of 8. */
export const pieceLength = (mtu: number): number => (mtu - wire.HEADER_LEN - FRAGMENT_LEN) & ~7;

/**
 * Send the packet of `length` bytes, Ethernet header included, in `frame`: pieces of at most `mtu`, with identification `id`.
 * Takes the frame. `deliver` takes each piece; it returns false when it dropped it. False when a piece was dropped.
 */
export function sendPieces6(
  link: Link,
  frame: number,
  length: number,
  mtu: number,
  id: number,
  deliver: (piece: number, length: number) => boolean,
): boolean {
  const { view, u8, counters } = link;
  const payload = length - HEADERS;
  const step = pieceLength(mtu);
  const next = wire.nextHeader(view, frame + ethernet.HEADER_LEN);
  const pieces: number[] = [frame];
  for (let offset = step; offset < payload; offset += step) {
    const piece = link.alloc();
    if (piece === NO_FRAME) {
      counters.noFrame++;
      for (const made of pieces) link.free(made);
      return false;
    }
    pieces.push(piece);
    const from = frame + HEADERS + offset;
    const bytes = Math.min(step, payload - offset);
    u8.copyWithin(piece, frame, frame + HEADERS);
    u8.copyWithin(piece + HEADERS + FRAGMENT_LEN, from, from + bytes);
  }
  // The others have theirs: what is left of the first makes room for the header.
  u8.copyWithin(frame + HEADERS + FRAGMENT_LEN, frame + HEADERS, frame + HEADERS + step);
  counters.txFragmented++;
  let sent = true;
  pieces.forEach((piece, i) => {
    const offset = i * step;
    const bytes = Math.min(step, payload - offset);
    const ip = piece + ethernet.HEADER_LEN;
    wire.setNextHeader(view, ip, FRAGMENT);
    wire.setPayloadLength(view, ip, FRAGMENT_LEN + bytes);
    emitFragment(view, piece + HEADERS, next, offset, i < pieces.length - 1, id);
    if (!deliver(piece, HEADERS + FRAGMENT_LEN + bytes)) sent = false;
  });
  return sent;
}
