/**
 * A datagram that is longer than its way carries, cut into pieces (RFC 791, section 3.2). The first piece is built in the
 * frame that is given; the others in frames of their own, or nothing is sent: half a datagram is of no use to anybody.
 */
import * as ethernet from '../wire/ethernet.ts';
import * as wire from '../wire/ipv4.ts';
import type { Link } from './link.ts';

const HEADERS = ethernet.HEADER_LEN + wire.HEADER_LEN;

/** Payload bytes of a piece that is not the last, on a way that carries `mtu`: a multiple of 8. */
export const pieceLength = (mtu: number): number => (mtu - wire.HEADER_LEN) & ~7;

export interface Datagram {
  /** For the first piece. Its payload may stand there already. */
  readonly frame: number;
  /** The payload: `length` bytes of `source` from `from` on. */
  readonly source: Uint8Array;
  readonly from: number;
  readonly length: number;
  readonly id: number;
  readonly ttl: number;
  readonly protocol: number;
  readonly src: number;
  readonly dst: number;
}

/**
 * Send the datagram in pieces of at most `mtu`, which `deliver` addresses and takes; it returns false when it dropped one.
 * Takes the frame. False when a piece was dropped.
 */
export function sendPieces(
  link: Link,
  datagram: Datagram,
  mtu: number,
  deliver: (piece: number, length: number) => boolean,
): boolean {
  const { view, u8, counters } = link;
  const { frame, source, from, length, id, ttl, protocol, src, dst } = datagram;
  const step = pieceLength(mtu);
  const count = Math.ceil(length / step);
  if (link.queue.framesAvailable < count - 1) {
    counters.noFrame++;
    link.free(frame);
    return false;
  }
  counters.txFragmented++;
  const pieces: number[] = [];
  // From the last to the first: the first piece's frame may hold them all until then.
  for (let i = count - 1; i >= 0; i--) {
    const piece = i === 0 ? frame : link.alloc();
    const offset = i * step;
    const bytes = Math.min(step, length - offset);
    const flags = (offset >> 3) | (i < count - 1 ? wire.MORE_FRAGMENTS : 0);
    const at = piece + ethernet.HEADER_LEN;
    if (source !== u8 || i > 0) {
      u8.set(source.subarray(from + offset, from + offset + bytes), piece + HEADERS);
    }
    link.emitEthernet(piece, 0xffff, -1);
    wire.emit(view, at, bytes, id, ttl, protocol, src, dst);
    wire.setPiece(view, at, flags);
    pieces.push(piece);
  }
  let sent = true;
  for (let i = 0; i < count; i++) {
    const bytes = Math.min(step, length - i * step);
    if (!deliver(pieces[count - 1 - i]!, HEADERS + bytes)) sent = false;
  }
  return sent;
}
