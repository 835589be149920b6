/**
 * RACK: what was sent long enough before something that has arrived is lost (RFC 8985, section 6). Its state of one
 * connection; the segments stand in the send queue.
 *
 * - It needs a peer that sends SACK. For others `Recovery` counts duplicates.
 * - A scan ends at the first segment that was sent once, and after the newest that arrived: whatever follows it was sent
 *   later still. So an acknowledgement costs time only while there are holes.
 */
import type { AckScratch } from './ack.ts';
import type { RttEstimator } from './rtt.ts';
import { SEG, type SendQueue } from './send-queue.ts';

/** Sacked segments from which a hole is taken for loss without waiting (RFC 8985, section 6.2; RFC 5681: DupThresh). */
export const DUP_THRESHOLD = 3;
/** Recoveries for which a widened window stays (section 6.2, step 4). */
const REORDER_PERSIST = 16;
/** The window never needs to be wider than a round trip, and a quarter of the smallest is its unit. */
const REORDER_MULTIPLIER_MAX = 255;

export class Rack {
  /** When the newest segment that has arrived was sent, where it ended, and how long it took; 0 before the first. */
  sentUs = 0;
  endSeq = 0;
  rttUs = 0;
  /** Highest sequence number that has arrived. */
  fack = 0;
  hasReordering = false;
  /**
   * `fack` before the acknowledgement in hand, set by the owner: only what an earlier one left missing was overtaken. The
   * blocks of one stand in any order, and tell of several segments when acknowledgements were lost.
   */
  fackBefore = 0;
  /** Of the last acknowledgement: the round trip of the segment sent last among those sent once; 0 for none. */
  sampleUs = 0;
  /** For how long to wait from now on before something that is missing is lost; 0 when nothing waits. */
  waitUs = 0;
  /** Tick of the timestamps, by which an echo may be early; and the smallest round trip. Set by the owner. */
  echoSlackUs = 0;
  minRttUs = 0;
  #multiplier = 1;
  #persist = 0;
  /** No widening by D-SACK until this is acknowledged: once a round trip. */
  #dsackRound = 0;
  #isDsackRound = false;

  start(seq: number): void {
    this.endSeq = this.fack = this.fackBefore = seq;
  }

  /** A segment arrived, as a cumulative acknowledgement or SACK says; steps 2 and 3. Once for each. */
  onDelivered(queue: SendQueue, index: number, ack: AckScratch, nowUs: number): void {
    const end = queue.seqEnd(index);
    const sent = queue.sentUs(index);
    const isOnce = queue.sends(index) === 1;
    if (((end - this.fack) | 0) > 0) this.fack = end;
    else if (isOnce && ((end - this.fackBefore) | 0) < 0) this.hasReordering = true;
    const rtt = Math.max(1, (nowUs - sent) | 0);
    if (!isOnce) {
      // It may be the first one that arrived, long after it was sent.
      if (ack.hasEcho && ((ack.echoUs - sent) | 0) <= -this.echoSlackUs) return;
      if (rtt < this.minRttUs) return;
    } else if (this.sampleUs === 0 || rtt < this.sampleUs) {
      this.sampleUs = rtt;
    }
    if (this.rttUs === 0 || this.#isAfter(sent, end)) {
      this.sentUs = sent;
      this.endSeq = end;
      this.rttUs = rtt;
    }
  }

  /** True when (`sent`, `end`) is after the newest that arrived. */
  #isAfter(sent: number, end: number): boolean {
    const later = (sent - this.sentUs) | 0;
    return later > 0 || (later === 0 && ((end - this.endSeq) | 0) > 0);
  }

  /** Step 4: what D-SACK says of the window. `isDsack`: with this acknowledgement. */
  onAck(una: number, nxt: number, isDsack: boolean): void {
    if (this.#isDsackRound && ((una - this.#dsackRound) | 0) >= 0) this.#isDsackRound = false;
    if (!isDsack || this.#isDsackRound) return;
    this.#isDsackRound = true;
    this.#dsackRound = nxt;
    this.#persist = REORDER_PERSIST;
    if (this.#multiplier < REORDER_MULTIPLIER_MAX) this.#multiplier++;
  }

  onExitRecovery(): void {
    if (this.#persist > 0 && --this.#persist === 0) this.#multiplier = 1;
  }

  /** For how long a later segment may overtake an earlier one. */
  reorderWindowUs(sackedSegments: number, isRecovering: boolean, rtt: RttEstimator): number {
    if (!this.hasReordering && (isRecovering || sackedSegments >= DUP_THRESHOLD)) return 0;
    return Math.min((this.#multiplier * rtt.minUs) >> 2, rtt.srttUs);
  }

  /** Step 5: mark what is lost. Returns how many segments; `waitUs` says when to look again. */
  detectLoss(queue: SendQueue, windowUs: number, nowUs: number): number {
    let marked = 0;
    this.waitUs = 0;
    if (this.rttUs === 0) return 0;
    for (let i = 0; i < queue.unsent; i++) {
      const flags = queue.flags(i);
      if (flags & (SEG.sacked | SEG.lost)) continue;
      const sent = queue.sentUs(i);
      const later = (this.sentUs - sent) | 0;
      // At the same time: a turn sends much in one microsecond, and only what is sent once is in order of sequence.
      const isTie = later === 0 && (flags & SEG.retransmitted) === 0;
      if (later > 0 || (isTie && ((this.endSeq - queue.seqEnd(i)) | 0) > 0)) {
        const remaining = (sent + this.rttUs + windowUs - nowUs) | 0;
        if (remaining <= 0) {
          queue.markLost(i);
          marked++;
        } else if (remaining > this.waitUs) this.waitUs = remaining;
      } else if ((flags & SEG.retransmitted) === 0) break;
    }
    return marked;
  }

  /** The retransmission timer expired: the oldest is lost, and what was sent long enough ago (section 6.3). */
  markOnTimeout(queue: SendQueue, windowUs: number, nowUs: number): void {
    for (let i = 0; i < queue.unsent; i++) {
      const remaining = (queue.sentUs(i) + this.rttUs + windowUs - nowUs) | 0;
      if (i === 0 || remaining <= 0) queue.markLost(i);
    }
  }
}
