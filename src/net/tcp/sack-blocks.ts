/** The SACK option that we send (RFC 2018, RFC 2883). */
import * as wire from '../../wire/tcp.ts';
import type { ReceiveQueue } from './receive-queue.ts';
import { seqDiff } from './seq.ts';
import type { Tcb } from './tcb.ts';

const BLOCK_LEN = 8;
const SACK_HEADER_LEN = 4;
/** Blocks that fit beside timestamps. */
const BLOCKS_MAX_TIMESTAMPS = 3;

/** The blocks of one segment, left and right edges in turns. One for all: they are written before anything else happens. */
const edges = new Int32Array(2 * wire.SACK_BLOCKS_MAX);
let count = 0;

/**
 * Choose the blocks to tell; the length of their option, 0 when there is nothing to say. A duplicate comes first, then
 * the block that grew last, then those before it (RFC 2018, section 4).
 */
export function chooseSackBlocks(tcb: Tcb): number {
  count = 0;
  if (tcb.dsackLeft !== tcb.dsackRight) {
    add(tcb.dsackLeft, tcb.dsackRight);
    tcb.dsackLeft = tcb.dsackRight;
  }
  const { received } = tcb;
  if (received !== null && received.count > 0) {
    chooseRanges(received, tcb.rcvNxt, count, tcb.hasTimestamps);
  }
  return count === 0 ? 0 : SACK_HEADER_LEN + count * BLOCK_LEN;
}

/** Write what `chooseSackBlocks` chose. */
export function writeSackBlocks(view: DataView, at: number): void {
  wire.emitSackHeader(view, at, count);
  for (let i = 0; i < count; i++) {
    const block = at + SACK_HEADER_LEN + i * BLOCK_LEN;
    wire.emitSackBlock(view, block, edges[2 * i]!, edges[2 * i + 1]!);
  }
}

function add(left: number, right: number): void {
  edges[2 * count] = left;
  edges[2 * count + 1] = right;
  count++;
}

function chooseRanges(
  queue: ReceiveQueue,
  rcvNxt: number,
  first: number,
  hasTimestamps: boolean,
): void {
  const max = hasTimestamps ? BLOCKS_MAX_TIMESTAMPS : wire.SACK_BLOCKS_MAX;
  for (let i = 0; i < queue.recentCount && count < max; i++) {
    addRangeOf(queue, queue.recent[i]!, rcvNxt, first);
  }
  for (let i = 0; i < queue.count && count < max; i++) {
    addRangeOf(queue, queue.seq(i), rcvNxt, first);
  }
  // Next time the blocks come in this order, behind whatever is newer by then.
  queue.recentCount = count - first;
  for (let i = first; i < count; i++) queue.recent[i - first] = edges[2 * i]!;
}

/** Add the block that `seq` lies in, unless it is there already or was taken in order meanwhile. */
function addRangeOf(queue: ReceiveQueue, seq: number, rcvNxt: number, first: number): void {
  if (seqDiff(seq, rcvNxt) <= 0) return;
  for (let i = first; i < count; i++) {
    if ((seq - edges[2 * i]!) >>> 0 < (edges[2 * i + 1]! - edges[2 * i]!) >>> 0) return;
  }
  let i = 0;
  while (i < queue.count) {
    const left = queue.seq(i);
    let right = queue.seqEnd(i);
    for (i++; i < queue.count && queue.seq(i) === right; i++) right = queue.seqEnd(i);
    if ((seq - left) >>> 0 < (right - left) >>> 0) {
      add(left, right);
      return;
    }
  }
}
