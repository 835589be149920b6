/**
 * Loss without SACK: three duplicate acknowledgements, and partial ones in recovery (RFC 5681, section 3.2; RFC 6582).
 * A duplicate says that a segment has arrived, and not which: its bytes only leave the pipe.
 */
import { DUP_THRESHOLD } from './rack.ts';
import { PHASE, type Phase } from './recovery-types.ts';
import type { SendQueue } from './send-queue.ts';

export class DupAcks {
  /** Bytes that have arrived out of order, as duplicates say. */
  bytes = 0;
  #count = 0;

  reset(): void {
    this.bytes = this.#count = 0;
  }

  /**
   * An acknowledgement that advanced by `acked` bytes. In recovery it is a partial one: the next segment is lost too,
   * and all but one of those that it covers had been counted as arrived. True when something was found lost.
   */
  onAdvance(queue: SendQueue, acked: number, phase: Phase, mss: number): boolean {
    this.#count = 0;
    if (phase !== PHASE.recovery || queue.outstanding === 0) {
      this.bytes = 0;
      return false;
    }
    this.bytes = Math.max(0, this.bytes - Math.max(0, acked - mss));
    return queue.markLost(0);
  }

  /**
   * A duplicate, with data outstanding. `mayEnter`: it is of data sent after the last recovery. Returns the segments
   * found lost: the oldest, with the third.
   */
  onDuplicate(queue: SendQueue, phase: Phase, mss: number, mayEnter: boolean): number {
    this.#count++;
    this.bytes = Math.min(this.bytes + mss, queue.inFlight);
    if (phase !== PHASE.open || !mayEnter || this.#count < DUP_THRESHOLD) return 0;
    return queue.markLost(0) ? 1 : 0;
  }
}
