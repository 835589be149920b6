/**
 * What the header of an incoming segment says to the sender's half: one of these for a whole stack, filled by the
 * parser for each segment and read by `Recovery.onAck` before it returns. Nothing in it is trusted.
 */

/** Most SACK blocks that fit in a header's options (RFC 2018, section 3). */
export const SACK_BLOCKS_MAX = 4;

export class AckScratch {
  /** Acknowledgement number, int32. */
  seq = 0;
  /** There was a timestamp option with an echo (RFC 7323) that we could have sent. */
  hasEcho = false;
  /** The echo (TSecr) as the microsecond at which we sent that timestamp, rounded down to its tick; int32, wraps. */
  echoUs = 0;
  /** May count as a duplicate (RFC 5681, section 2): no data, no SYN or FIN, and the window as before. */
  isPure = false;
  /** SACK blocks; in order as received: the first may be a D-SACK (RFC 2883). */
  sackCount = 0;
  /** Left and right edge of each block, int32, as received. */
  readonly sackEdges = new Int32Array(2 * SACK_BLOCKS_MAX);

  /** An acknowledgement of `seq` without options. */
  set(seq: number, isPure: boolean): void {
    this.seq = seq | 0;
    this.hasEcho = false;
    this.isPure = isPure;
    this.sackCount = 0;
  }

  /** The round trip by the echo, of what was first sent at `firstSentUs`; 0 when there is none, or it cannot be one. */
  roundTripUs(firstSentUs: number, nowUs: number, tickUs: number): number {
    const us = (nowUs - this.echoUs) | 0;
    const most = ((nowUs - firstSentUs) | 0) + tickUs;
    return !this.hasEcho || us < 0 || us > most ? 0 : Math.max(1, us);
  }

  /** Note a block; those beyond the fourth are ignored. */
  addSack(left: number, right: number): void {
    if (this.sackCount === SACK_BLOCKS_MAX) return;
    this.sackEdges[2 * this.sackCount] = left;
    this.sackEdges[2 * this.sackCount + 1] = right;
    this.sackCount++;
  }
}
