/**
 * The window that we advertise. Its right edge never goes back, and moves on only by a worthwhile step (RFC 9293, section
 * 3.8.6.2.2). The buffer behind it grows while the peer fills it within two round trips.
 */
import { NET_LIMITS } from '../limits.ts';
import { seqDiff } from './seq.ts';
import type { Tcb } from './tcb.ts';

const FIELD_MAX = 0xffff;

/** The scale by which the largest buffer fits in the field (RFC 7323, section 2.3). */
export function scaleForLargest(): number {
  let scale = 0;
  while (NET_LIMITS.tcpReceiveBufferBytesMax >>> scale > FIELD_MAX) scale++;
  return scale;
}

/** Bytes that the owner has left room for. */
const space = (tcb: Tcb): number => Math.max(0, tcb.rcvBuf - tcb.pendingBytes - tcb.heldBytes);

/** How far the right edge would move. */
export function opening(tcb: Tcb): number {
  return (tcb.rcvNxt + space(tcb) - tcb.rcvAdv) | 0;
}

/** A step that is worth a segment of its own, or to be told with one that goes anyhow. */
export function isWorthwhile(tcb: Tcb, bytes: number): boolean {
  return bytes >= Math.min(tcb.rcvBuf >>> 1, Math.max(tcb.rcvMss, tcb.pathMss));
}

/** The window field for a segment that goes now; from then on the peer may send up to `rcvAdv`. */
export function advertise(tcb: Tcb, isSyn: boolean): number {
  const scale = isSyn ? 0 : tcb.rcvScale;
  const old = Math.max(0, seqDiff(tcb.rcvAdv, tcb.rcvNxt));
  let bytes = old;
  if (isWorthwhile(tcb, opening(tcb))) bytes = Math.max(old, space(tcb));
  // Rounded up to keep an edge that was promised, down for a new one.
  const unit = (1 << scale) - 1;
  const field = Math.min(FIELD_MAX, (bytes === old ? bytes + unit : bytes) >>> scale);
  const edge = (tcb.rcvNxt + (field << scale)) | 0;
  if (seqDiff(edge, tcb.rcvAdv) > 0) tcb.rcvAdv = edge;
  return field;
}

/** Bytes came in order: was the window what the peer waited for? */
export function tuneBuffer(tcb: Tcb): void {
  if (seqDiff(tcb.rcvNxt, tcb.tuneSeq) < 0) return;
  const { nowUs } = tcb.stack;
  const tookUs = (nowUs - tcb.tuneUs) | 0;
  const { srttUs } = tcb.recovery.rtt;
  const isLimit = srttUs > 0 && tookUs >= 0 && tookUs <= 2 * srttUs;
  // Behind a gap, all of it would have to be kept: no more than there are frames for.
  const { held } = tcb.stack;
  const max = Math.min(NET_LIMITS.tcpReceiveBufferBytesMax, (held.max - held.count) * tcb.rcvMss);
  if (isLimit && tcb.rcvScale > 0 && 2 * tcb.rcvBuf <= max) tcb.rcvBuf *= 2;
  tcb.tuneSeq = (tcb.rcvNxt + tcb.rcvBuf) | 0;
  tcb.tuneUs = nowUs;
}
