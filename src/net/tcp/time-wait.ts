/**
 * Flows in TIME-WAIT: a few numbers each, no connection. What is asked of them is to acknowledge a FIN that comes again,
 * and to keep old segments from a new connection, unless that one is clearly newer (RFC 9293, section 3.6.1; RFC 6191).
 */
import * as wire from '../../wire/tcp.ts';
import { NET_LIMITS } from '../limits.ts';
import { sendBare } from './bare.ts';
import type { Segment } from './segment.ts';
import { seqDiff } from './seq.ts';
import type { TcpStack } from './stack.ts';
import type { Tcb } from './tcb.ts';

/** Words of a record, by the id of the flow. */
const STRIDE = 6;
const RCV_NXT = 0;
const SND_NXT = 1;
const TS_RECENT = 2;
const HAS_TIMESTAMPS = 3;
const DUE_MS = 4;
const TS_OFFSET = 5;
/** Ids of flows that have left may stay listed: as many as are here, and so many. */
const LISTED_SPARE = 1024;

export class TimeWaits {
  readonly #stack: TcpStack;
  #records = new Int32Array(0);
  /** Flows in this state. */
  count = 0;
  /** Their ids in the order in which they came, for the one that makes room; ids that left stay until they are found. */
  readonly #order: number[] = [];
  #first = 0;

  constructor(stack: TcpStack) {
    this.#stack = stack;
  }

  /** Take the flow of `tcb` over. Beyond the limit, the oldest goes. */
  add(tcb: Tcb): void {
    if (this.count === NET_LIMITS.tcpTimeWaitMax) this.evict();
    const { id } = tcb;
    this.#grow();
    const at = id * STRIDE;
    const records = this.#records;
    records[at + RCV_NXT] = tcb.rcvNxt;
    records[at + SND_NXT] = tcb.recovery.queue.nxt;
    records[at + TS_RECENT] = tcb.tsRecent;
    records[at + HAS_TIMESTAMPS] = tcb.hasTimestamps ? 1 : 0;
    records[at + TS_OFFSET] = tcb.tsOffset;
    this.count++;
    if (this.listed > LISTED_SPARE + 2 * this.count) this.#prune();
    this.#order.push(id);
    this.#restart(id);
  }

  /** Ids that are listed, in this state or left. */
  get listed(): number {
    return this.#order.length - this.#first;
  }

  /** The sequence number that a new connection of this flow starts beyond. */
  nextIss(id: number): number {
    return (this.#records[id * STRIDE + SND_NXT]! + 65_536) | 0;
  }

  /** A segment came for the flow. True when it is a SYN that may start a new connection: the flow is then forgotten. */
  receive(id: number, segment: Segment): boolean {
    const at = id * STRIDE;
    const { options } = segment;
    const { counters } = this.#stack;
    const hasTimestamps = this.#records[at + HAS_TIMESTAMPS] === 1 && options.hasTimestamps;
    const age = seqDiff(options.tsValue, this.#records[at + TS_RECENT]!);
    if (segment.has(wire.RST)) {
      // RFC 1337: a reset does not end the wait.
      counters.tcpUnexpected++;
      return false;
    }
    if (segment.has(wire.SYN) && !segment.has(wire.ACK_FLAG)) {
      const isNewer = hasTimestamps
        ? age > 0 || (age === 0 && seqDiff(segment.seq, this.#records[at + RCV_NXT]!) > 0)
        : seqDiff(segment.seq, this.#records[at + RCV_NXT]!) > 0;
      if (isNewer) {
        this.forget(id);
        return true;
      }
    }
    if (hasTimestamps && age < 0) counters.tcpPaws++;
    else if (segment.has(wire.FIN)) this.#restart(id);
    this.#acknowledge(id, segment);
    return false;
  }

  /** The wheel says that the flow may be due. */
  onDue(id: number): void {
    const due = this.#records[id * STRIDE + DUE_MS]!;
    if (seqDiff(this.#stack.nowMs, due) >= 0) this.forget(id);
    else this.#stack.wheel.schedule(id, due);
  }

  forget(id: number): void {
    this.#stack.wheel.cancel(id);
    this.#stack.table.remove(id);
    this.#records[id * STRIDE + DUE_MS] = 0;
    this.#records[id * STRIDE + HAS_TIMESTAMPS] = -1;
    this.count--;
    if (this.count === 0) {
      this.#order.length = 0;
      this.#first = 0;
    }
  }

  /** The flow that has waited longest makes room. False when there is none. */
  evict(): boolean {
    while (this.#first < this.#order.length) {
      const id = this.#order[this.#first++]!;
      // Ids are used again: only one that is in this state is a record of ours.
      if (!this.has(id)) continue;
      this.#stack.counters.tcpTimeWaitEvicted++;
      this.forget(id);
      this.#compact();
      return true;
    }
    return false;
  }

  has(id: number): boolean {
    const at = id * STRIDE;
    return (
      at < this.#records.length &&
      this.#records[at + HAS_TIMESTAMPS] !== -1 &&
      this.#records[at + DUE_MS] !== 0
    );
  }

  #acknowledge(id: number, segment: Segment): void {
    const stack = this.#stack;
    const at = id * STRIDE;
    const records = this.#records;
    // An acknowledgement that says nothing new needs no answer, or two ends would go on for ever.
    if (segment.space === 0 && segment.seq === records[at + RCV_NXT]) return;
    sendBare(stack, segment, {
      seq: records[at + SND_NXT]!,
      ack: records[at + RCV_NXT]!,
      flags: wire.ACK_FLAG,
      window: 0xffff,
      hasTimestamps: records[at + HAS_TIMESTAMPS] === 1,
      tsValue: (stack.nowMs + records[at + TS_OFFSET]!) | 0,
      tsEcho: records[at + TS_RECENT]!,
    });
  }

  #restart(id: number): void {
    const due = (this.#stack.nowMs + NET_LIMITS.tcpTimeWaitMs) | 0;
    // 0 says that there is no record.
    this.#records[id * STRIDE + DUE_MS] = due === 0 ? 1 : due;
    this.#stack.wheel.schedule(id, due);
  }

  #grow(): void {
    const words = this.#stack.table.size * STRIDE;
    if (this.#records.length >= words) return;
    const records = new Int32Array(words);
    records.set(this.#records);
    this.#records = records;
  }

  /** Forget the ids that have left: with flows that come and go without end, nobody else would. */
  #prune(): void {
    const order = this.#order;
    const kept = new Set<number>();
    // From the newest on: an id that was used again counts from then.
    for (let i = order.length - 1; i >= this.#first; i--) {
      if (this.has(order[i]!)) kept.add(order[i]!);
    }
    order.length = 0;
    for (const id of kept) order.push(id);
    order.reverse();
    this.#first = 0;
  }

  #compact(): void {
    if (this.#first < 1024 || 2 * this.#first < this.#order.length) return;
    this.#order.splice(0, this.#first);
    this.#first = 0;
  }
}
