/**
 * Reading a peer's SACK blocks (RFC 2018, 2883, 6675) into the send queue. One for a stack: it holds what the last
 * acknowledgement said, and nothing of a connection.
 *
 * - A block that no receiver of ours could have sent changes nothing and is counted: it is empty or backwards, ends
 *   beyond what was sent, or begins at or before the cumulative acknowledgement (but for a D-SACK, which is first).
 * - A segment is sacked when one block covers all of it.
 */
import type { AckScratch } from './ack.ts';
import type { Rack } from './rack.ts';
import type { SendQueue } from './send-queue.ts';

/** A D-SACK about something longer ago says nothing any more. */
const DSACK_AGE_MAX = 1 << 28;

export class SackReader {
  /** The first block was a D-SACK, and its edges. */
  hasDsack = false;
  dsackLeft = 0;
  dsackRight = 0;
  /** Blocks that were refused. */
  bad = 0;

  /**
   * Mark what the blocks of `ack` cover; tells `rack` of each segment that is newly sacked. After the cumulative
   * acknowledgement was taken. Returns the number of segments.
   */
  read(ack: AckScratch, queue: SendQueue, rack: Rack, nowUs: number): number {
    this.hasDsack = false;
    this.bad = 0;
    let marked = 0;
    const edges = ack.sackEdges;
    for (let i = 0; i < ack.sackCount; i++) {
      const left = edges[2 * i]!;
      const right = edges[2 * i + 1]!;
      if (i === 0 && this.#isDsack(ack, queue)) {
        this.hasDsack = true;
        this.dsackLeft = left;
        this.dsackRight = right;
      } else if (this.#isBad(left, right, queue)) {
        // One that lies wholly below is of a packet that was overtaken by a newer acknowledgement.
        const isOld = ((right - left) | 0) > 0 && ((queue.una - right) | 0) >= 0;
        if (!isOld) this.bad++;
      } else {
        marked += this.#mark(left, right, queue, ack, rack, nowUs);
      }
    }
    return marked;
  }

  #isBad(left: number, right: number, queue: SendQueue): boolean {
    const una = queue.una;
    return ((right - left) | 0) <= 0 || ((left - una) | 0) <= 0 || ((queue.nxt - right) | 0) < 0;
  }

  /** RFC 2883, section 4: the first block is below the acknowledgement, or within the second block. */
  #isDsack(ack: AckScratch, queue: SendQueue): boolean {
    const left = ack.sackEdges[0]!;
    const right = ack.sackEdges[1]!;
    if (((right - left) | 0) <= 0 || ((queue.nxt - right) | 0) < 0) return false;
    if (((ack.seq - right) | 0) >= 0) return ((ack.seq - left) | 0) < DSACK_AGE_MAX;
    if (ack.sackCount < 2) return false;
    const outerLeft = ack.sackEdges[2]!;
    const outerRight = ack.sackEdges[3]!;
    return (
      ((left - outerLeft) | 0) >= 0 &&
      ((outerRight - right) | 0) >= 0 &&
      !this.#isBad(outerLeft, outerRight, queue)
    );
  }

  #mark(
    left: number,
    right: number,
    queue: SendQueue,
    ack: AckScratch,
    rack: Rack,
    nowUs: number,
  ): number {
    let marked = 0;
    let i = queue.find(left);
    if (((queue.seq(i) - left) | 0) < 0) i++;
    for (; i < queue.unsent && ((right - queue.seqEnd(i)) | 0) >= 0; i++) {
      if (!queue.markSacked(i)) continue;
      rack.onDelivered(queue, i, ack, nowUs);
      marked++;
    }
    return marked;
  }
}
