/** A TCP receiver as RFC 9293, 2018 and 2883 have it, and virtual time: for `tcp-path.ts`. */

/** Things to do in virtual time, in order; a binary heap. */
export class EventQueue {
  readonly #heap: { at: number; order: number; run: (now: number) => void }[] = [];
  #order = 0;

  /** Time of the next event, or -1. */
  get nextAt(): number {
    return this.#heap[0]?.at ?? -1;
  }

  add(at: number, run: (now: number) => void): void {
    const heap = this.#heap;
    heap.push({ at: Math.ceil(at), order: this.#order++, run });
    for (let i = heap.length - 1; i > 0; ) {
      const parent = (i - 1) >> 1;
      if (!this.#isBefore(i, parent)) break;
      this.#swap(i, parent);
      i = parent;
    }
  }

  runNext(): void {
    const heap = this.#heap;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length > 0) {
      heap[0] = last;
      for (let i = 0; ; ) {
        let least = i;
        for (const child of [2 * i + 1, 2 * i + 2]) {
          if (child < heap.length && this.#isBefore(child, least)) least = child;
        }
        if (least === i) break;
        this.#swap(i, least);
        i = least;
      }
    }
    first.run(first.at);
  }

  #isBefore(a: number, b: number): boolean {
    const x = this.#heap[a]!;
    const y = this.#heap[b]!;
    return x.at < y.at || (x.at === y.at && x.order < y.order);
  }

  #swap(a: number, b: number): void {
    const x = this.#heap[a]!;
    this.#heap[a] = this.#heap[b]!;
    this.#heap[b] = x;
  }
}

export interface ReceiverOptions {
  hasSack: boolean;
  hasDsack: boolean;
  hasTimestamps: boolean;
  /** How long an acknowledgement waits for a second segment; 0: none does. */
  delayAckUs: number;
  windowBytes: number;
}

type SendAck = (now: number, seq: number, echo: number, isPure: boolean, blocks: number[]) => void;

export class PathReceiver {
  /** Bytes of the stream in order, and segments that came twice. */
  received = 0;
  duplicates = 0;
  readonly #o: ReceiverOptions;
  readonly #first: number;
  readonly #events: EventQueue;
  readonly #send: SendAck;
  /** Offsets in sequence space: next expected, and what came early, most recent first. */
  #next = 0;
  #early: { from: number; to: number }[] = [];
  #finAt = -1;
  #echo = 0;
  #lastAcked = 0;
  #unacked = 0;
  #waits = 0;

  constructor(o: ReceiverOptions, first: number, events: EventQueue, send: SendAck) {
    this.#o = o;
    this.#first = first;
    this.#events = events;
    this.#send = send;
  }

  receive(now: number, seq: number, length: number, isFin: boolean, stamp: number): void {
    const from = (seq - this.#first) | 0;
    const to = from + length + (isFin ? 1 : 0);
    if (isFin) this.#finAt = to;
    // RFC 7323, section 4.3: of the segment that stands at the left edge of what was acknowledged.
    if (from <= this.#lastAcked && stamp >= this.#echo) this.#echo = stamp;
    const isKnown = to <= this.#next || this.#early.some((e) => e.from <= from && to <= e.to);
    if (isKnown) {
      this.duplicates++;
      this.#acknowledge(now, true, this.#o.hasDsack ? [from, to] : []);
      return;
    }
    const hadEarly = this.#early.length > 0;
    const isEarly = from > this.#next;
    this.#take(from, to);
    this.received = this.#next - (this.#finAt >= 0 && this.#next >= this.#finAt ? 1 : 0);
    this.#unacked++;
    if (isEarly || hadEarly || this.#unacked >= 2 || this.#o.delayAckUs === 0 || isFin) {
      this.#acknowledge(now, isEarly, []);
      return;
    }
    const waits = ++this.#waits;
    this.#events.add(now + this.#o.delayAckUs, (later) => {
      if (waits === this.#waits && this.#unacked > 0) this.#acknowledge(later, false, []);
    });
  }

  #take(from: number, to: number): void {
    let block = { from, to };
    const rest = this.#early.filter((e) => {
      if (e.to < block.from || e.from > block.to) return true;
      block = { from: Math.min(e.from, block.from), to: Math.max(e.to, block.to) };
      return false;
    });
    if (block.from <= this.#next) this.#next = Math.max(this.#next, block.to);
    else rest.unshift(block);
    this.#early = rest;
  }

  #acknowledge(now: number, isPure: boolean, dsack: number[]): void {
    this.#unacked = 0;
    this.#waits++;
    this.#lastAcked = this.#next;
    const blocks: number[] = [];
    if (this.#o.hasSack) {
      blocks.push(...dsack);
      const most = this.#o.hasTimestamps ? 6 : 8;
      for (const e of this.#early) if (blocks.length < most) blocks.push(e.from, e.to);
    }
    const edges = blocks.map((offset) => (this.#first + offset) | 0);
    this.#send(now, (this.#first + this.#next) | 0, this.#echo, isPure, edges);
  }
}
