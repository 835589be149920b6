/** The SACK option that we send (RFC 2018, RFC 2883). */
import * as wire from '../../wire/tcp.ts';
import { seqDiff } from './seq.ts';
import type { Tcb } from './tcb.ts';

const BLOCK_LEN = 8;
const SACK_HEADER_LEN = 4;
/** Blocks that fit beside timestamps, and without. */
const BLOCKS_MAX_TIMESTAMPS = 3;

/**
 * Write the option at `at`, unless that is negative; its length, 0 when there is nothing to say. A duplicate comes first,
 * then the block that grew last, then the others from the lowest up.
 */
export function writeSackBlocks(tcb: Tcb, at: number): number {
  const max = tcb.hasTimestamps ? BLOCKS_MAX_TIMESTAMPS : wire.SACK_BLOCKS_MAX;
  const { view } = tcb.stack.link;
  let count = 0;
  if (tcb.dsackLeft !== tcb.dsackRight) {
    if (at >= 0) {
      wire.emitSackBlock(view, at + SACK_HEADER_LEN, tcb.dsackLeft, tcb.dsackRight);
      tcb.dsackLeft = tcb.dsackRight;
    }
    count++;
  }
  count = writeRanges(tcb, at, count, max);
  if (count === 0) return 0;
  if (at >= 0) wire.emitSackHeader(view, at, count);
  return SACK_HEADER_LEN + count * BLOCK_LEN;
}

function writeRanges(tcb: Tcb, at: number, before: number, max: number): number {
  const queue = tcb.received;
  if (queue === null || queue.count === 0) return before;
  const { view } = tcb.stack.link;
  let count = before;
  // Twice over the ranges: the one with the newest bytes, then those without them.
  for (let pass = 0; pass < 2; pass++) {
    let i = 0;
    while (i < queue.count && count < max) {
      const left = queue.seq(i);
      let right = queue.seqEnd(i);
      for (i++; i < queue.count && queue.seq(i) === right; i++) right = queue.seqEnd(i);
      if (seqDiff(right, tcb.rcvNxt) <= 0) continue;
      const isNewest = (tcb.sackSeq - left) >>> 0 < (right - left) >>> 0;
      if (isNewest !== (pass === 0)) continue;
      if (at >= 0) {
        wire.emitSackBlock(view, at + SACK_HEADER_LEN + count * BLOCK_LEN, left, right);
      }
      count++;
    }
  }
  return count;
}
