/**
 * Tail loss probes (RFC 8985, section 7): when nothing comes back for two round trips, one segment is sent to learn by
 * its acknowledgement whether the last ones were lost, instead of waiting for the retransmission timeout.
 */
import type { AckScratch } from './ack.ts';
import type { RttEstimator } from './rtt.ts';
import type { SackReader } from './sack.ts';
import type { SendQueue } from './send-queue.ts';

/** What a peer may hold back its acknowledgement of a single segment (section 7.2: TLP.max_ack_delay). */
const ACK_DELAY_MAX_US = 200_000;
/** On links of microseconds, a turn of the peer's event loop takes longer than two round trips. */
const PROBE_MIN_US = 2_000;

export class ProbeState {
  /** A probe is out whose fate is not known. */
  isOut = false;
  #isRetransmission = false;
  #endSeq = 0;

  /** Microseconds from now until a probe, with `segments` in flight. Only with an estimate of the round trip. */
  static timeoutUs(rtt: RttEstimator, segments: number): number {
    return 2 * rtt.srttUs + (segments === 1 ? ACK_DELAY_MAX_US : PROBE_MIN_US);
  }

  /** Something is out, and nothing says yet that it was lost. */
  isWorth(queue: SendQueue, rtt: RttEstimator): boolean {
    const isQuiet = queue.outstanding > 0 && queue.sacked === 0 && queue.lost === 0;
    return isQuiet && rtt.srttUs > 0 && !this.isOut;
  }

  /** The probe may be of new data: a full segment, as Nagle's algorithm would hold back another, within the window. */
  static canBeNew(queue: SendQueue, mss: number, windowEnd: number): boolean {
    const i = queue.unsent;
    if (i === queue.count || queue.length(i) < mss) return false;
    return ((queue.seq(i) + mss - windowEnd) | 0) <= 0;
  }

  onSent(isRetransmission: boolean, nxt: number): void {
    this.isOut = true;
    this.#isRetransmission = isRetransmission;
    this.#endSeq = nxt;
  }

  /** Section 7.4.2. True when the probe repaired a loss, which the window has to answer for. */
  onAck(ack: AckScratch, acked: number, sacks: SackReader): boolean {
    const beyond = (ack.seq - this.#endSeq) | 0;
    if (!this.isOut || beyond < 0) return false;
    if (!this.#isRetransmission || (sacks.hasDsack && sacks.dsackRight === this.#endSeq)) {
      this.isOut = false;
    } else if (beyond > 0) {
      this.isOut = false;
      return true;
    } else if (acked === 0 && ack.isPure && ack.sackCount === 0) {
      this.isOut = false;
    }
    return false;
  }
}
