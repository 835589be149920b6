/**
 * One TCP sender's half and a receiver in virtual time, with a bottleneck between them that drops, reorders, duplicates
 * and delays by a seed. The receiver checks each byte by its place in the stream.
 */
import assert from 'node:assert/strict';
import { type FrameMemory, frameMemory, NO_FRAME } from '../../src/memory/frame-memory.ts';
import { FramePool } from '../../src/memory/frame-pool.ts';
import { AckScratch } from '../../src/net/tcp/ack.ts';
import type { CongestionControl } from '../../src/net/tcp/congestion.ts';
import {
  newRecoveryCounters,
  Recovery,
  type RecoveryCounters,
} from '../../src/net/tcp/recovery.ts';
import { RTO_LIMITS } from '../../src/net/tcp/rtt.ts';
import { SackReader } from '../../src/net/tcp/sack.ts';
import { SegmentStore } from '../../src/net/tcp/segment-store.ts';
import { SEG, type SendQueue } from '../../src/net/tcp/send-queue.ts';
import { Random } from './random.ts';
import { EventQueue, PathReceiver, type ReceiverOptions } from './tcp-receiver.ts';

export const PAYLOAD_OFFSET = 128;
const HEADER_LEN = 52;
/** More events than any path has, and more segments than fit in a turn. */
const TURNS_MAX = 1_000_000;
const SENT_MAX = 10_000;

export interface PathOptions extends ReceiverOptions {
  seed: number;
  congestion: CongestionControl;
  iss: number;
  mss: number;
  /** Bytes of the stream. */
  total: number;
  /** Of the bottleneck. */
  bytesPerSecond: number;
  queueBytes: number;
  /** One way. */
  delayUs: number;
  /** Probabilities in a million: of data, of acknowledgements. */
  loss: number;
  /** Each so many segments, one is lost; 0: none. What formulas of throughput assume. */
  lossEvery: number;
  ackLoss: number;
  reorder: number;
  /** How much later an overtaken packet comes. */
  reorderUs: number;
  duplicate: number;
  /** The application gives so many bytes, then pauses for so long; 0: everything at once. */
  burstBytes: number;
  pauseUs: number;
  pacingBytesPerSecond: number;
  timeMaxUs: number;
}

export const PATH_DEFAULTS: Omit<PathOptions, 'congestion'> = {
  seed: 1,
  iss: 1000,
  mss: 1448,
  total: 1_000_000,
  bytesPerSecond: 12_500_000,
  queueBytes: 200_000,
  delayUs: 10_000,
  loss: 0,
  lossEvery: 0,
  ackLoss: 0,
  reorder: 0,
  reorderUs: 0,
  duplicate: 0,
  burstBytes: 0,
  pauseUs: 0,
  pacingBytesPerSecond: 0,
  timeMaxUs: 3_600_000_000,
  hasSack: true,
  hasDsack: true,
  hasTimestamps: true,
  delayAckUs: 40_000,
  windowBytes: 4_000_000,
};

export const byteAt = (offset: number): number => (offset * 7 + (offset >> 8) * 13) & 255;

/** Frames for tests: a pool of `count`, as `SendFrames`. */
export class TestFrames {
  readonly memory: FrameMemory;
  readonly pool: FramePool;

  constructor(count: number, frameSize = 2048) {
    const buffer = new ArrayBuffer(count * frameSize);
    this.memory = frameMemory(buffer, { frameSize, headroom: 64, frameCount: count });
    this.pool = new FramePool(this.memory, 0);
  }
  alloc(): number {
    return this.pool.alloc();
  }
  free(frame: number): void {
    this.pool.free(frame);
  }
  isShared(frame: number): boolean {
    return this.pool.isShared(frame);
  }
}

/** One pool for all paths, which come one after the other and give everything back. */
const FRAME_COUNT = 4096;
let frames = new TestFrames(FRAME_COUNT);

/** The counters of the queue, counted anew. */
export function checkCounters(queue: SendQueue): void {
  let inFlight = 0;
  let sacked = 0;
  let lost = 0;
  let sackedSegments = 0;
  let seq = queue.una;
  for (let i = 0; i < queue.count; i++) {
    if (queue.seq(i) !== seq) assert.fail('segments follow each other');
    seq = queue.seqEnd(i);
    if (i >= queue.unsent) continue;
    const flags = queue.flags(i);
    const bytes = queue.seqLength(i);
    if (flags & SEG.sacked) sackedSegments++;
    if (flags & SEG.sacked) sacked += bytes;
    else if (flags & SEG.lost) lost += bytes;
    else inFlight += bytes;
  }
  assert.equal(seq, queue.end);
  assert.equal(queue.inFlight, inFlight);
  assert.equal(queue.sacked, sacked);
  assert.equal(queue.lost, lost);
  assert.equal(queue.sackedSegments, sackedSegments);
  assert.equal(queue.outstanding, inFlight + sacked + lost);
}

export interface PathResult {
  durationUs: number;
  bytesPerSecond: number;
  /** Of the second half of the stream: without what slow start has to do with it. */
  lateBytesPerSecond: number;
  counters: RecoveryCounters;
  recovery: Recovery;
  dropped: number;
  receiver: PathReceiver;
  /** Largest window seen. */
  windowMax: number;
}

/** Send `total` bytes and FIN. Fails when that takes longer than `timeMaxUs`, or nothing is left to wait for. */
export function runPath(given: Partial<PathOptions> & Pick<PathOptions, 'congestion'>): PathResult {
  try {
    return new Path({ ...PATH_DEFAULTS, ...given }).run();
  } catch (error) {
    frames = new TestFrames(FRAME_COUNT);
    throw error;
  }
}

/** The bottleneck and the sender's connection. */
class Path {
  readonly #o: PathOptions;
  readonly #random: Random;
  readonly #events = new EventQueue();
  readonly #frames = frames;
  readonly #counters = newRecoveryCounters();
  readonly #recovery: Recovery;
  readonly #receiver: PathReceiver;
  readonly #ack = new AckScratch();
  #now = 0;
  #base = 0;
  #given = 0;
  #allowed: number;
  #isFinGiven = false;
  #busyUntil = 0;
  #dropped = 0;
  #windowEnd: number;
  #armedFor = -1;
  #windowMax = 0;
  #turns = 0;
  #halfAt = -1;
  #carried = 0;

  constructor(o: PathOptions) {
    this.#o = o;
    this.#random = new Random(o.seed);
    // So that the clock of 32 bits wraps in the middle of some runs.
    this.#base = this.#random.below(2) === 0 ? 0x7fffffff - 3_000_000 : this.#random.uint32();
    this.#allowed = o.burstBytes === 0 ? o.total : Math.min(o.total, o.burstBytes);
    this.#recovery = new Recovery(
      {
        frames: this.#frames,
        store: new SegmentStore(),
        sacks: new SackReader(),
        limits: RTO_LIMITS,
        counters: this.#counters,
        payloadOffset: PAYLOAD_OFFSET,
        timestampTickUs: 1000,
      },
      o.congestion,
    );
    this.#recovery.pacingBytesPerSecond = o.pacingBytesPerSecond;
    this.#windowEnd = (o.iss + 1 + o.windowBytes) | 0;
    this.#receiver = new PathReceiver(o, (o.iss + 1) | 0, this.#events, (...ack) =>
      this.#carryAck(...ack),
    );
  }

  get #clock(): number {
    return (this.#base + this.#now) | 0;
  }

  run(): PathResult {
    const { queue } = this.#recovery;
    const o = this.#o;
    this.#recovery.start(o.iss);
    queue.appendSyn();
    this.#recovery.onSent(this.#recovery.nextToSend(this.#clock, o.iss), this.#clock);
    this.#now += 2 * o.delayUs;
    this.#ack.set((o.iss + 1) | 0, false);
    assert.equal(this.#recovery.onAck(this.#ack, this.#clock), 1);
    this.#recovery.open(o.mss, o.hasSack, this.#clock);
    const start = this.#now;
    if (this.#allowed < o.total) this.#events.add(this.#now + o.pauseUs, () => this.#allowMore());
    this.#step();
    while (!this.#isFinGiven || queue.count > 0) {
      const at = this.#events.nextAt;
      if (at < 0) assert.fail(`nothing is left to wait for: ${this.#state()}`);
      if (at - start >= o.timeMaxUs) assert.fail(`not done: ${this.#state()}`);
      if (++this.#turns > TURNS_MAX) assert.fail(`no end of turns: ${this.#state()}`);
      this.#now = Math.max(this.#now, at);
      this.#events.runNext();
      if (this.#halfAt < 0 && 2 * this.#receiver.received >= o.total) this.#halfAt = this.#now;
      this.#step();
    }
    assert.equal(this.#receiver.received, o.total, 'everything arrived');
    assert.equal(this.#frames.pool.available, FRAME_COUNT, 'every frame came back');
    const durationUs = this.#now - start;
    return {
      durationUs,
      bytesPerSecond: (o.total * 1e6) / durationUs,
      lateBytesPerSecond: (o.total * 5e5) / (this.#now - this.#halfAt),
      counters: this.#counters,
      recovery: this.#recovery,
      dropped: this.#dropped,
      receiver: this.#receiver,
      windowMax: this.#windowMax,
    };
  }

  #state(): string {
    const { queue, congestion, phase, isArmed, isPaced } = this.#recovery;
    const { inFlight, sacked, lost, queued, outstanding, count, unsent } = queue;
    const state = { inFlight, sacked, lost, queued, outstanding, count, unsent, phase, isArmed };
    const { window, threshold } = congestion;
    return JSON.stringify({ ...state, isPaced, window, threshold, given: this.#given });
  }

  #allowMore(): void {
    this.#allowed = Math.min(this.#o.total, this.#allowed + this.#o.burstBytes);
    if (this.#allowed < this.#o.total) {
      this.#events.add(this.#now + this.#o.pauseUs, () => this.#allowMore());
    }
  }

  /** Give, send, and set the timer, as a connection does after everything that happens. */
  #step(): void {
    const recovery = this.#recovery;
    this.#give();
    for (let sent = 0; ; sent++) {
      if (sent > SENT_MAX) assert.fail(`no end of segments: ${this.#state()}`);
      let i = recovery.nextToRetransmit(this.#clock);
      if (i < 0 && !recovery.isPaced) i = recovery.nextToSend(this.#clock, this.#windowEnd);
      if (i < 0) break;
      this.#transmit(i);
      recovery.onSent(i, this.#clock);
    }
    if (this.#random.oneIn(64)) checkCounters(recovery.queue);
    this.#windowMax = Math.max(this.#windowMax, recovery.congestion.window);
    this.#setTimer();
  }

  #setTimer(): void {
    const { isPaced, isArmed, nextSendUs, deadlineUs } = this.#recovery;
    let wait = isArmed ? (deadlineUs - this.#clock) | 0 : 0x7fffffff;
    if (isPaced) wait = Math.min(wait, (nextSendUs - this.#clock) | 0);
    if (wait === 0x7fffffff) return;
    const at = this.#now + Math.max(0, wait);
    if (this.#armedFor === at) return;
    this.#armedFor = at;
    this.#events.add(at, () => {
      // Another has taken its place.
      if (this.#armedFor !== at) return;
      this.#armedFor = -1;
      this.#recovery.onTimer(this.#clock);
    });
  }

  #give(): void {
    const { queue } = this.#recovery;
    const { mss, total } = this.#o;
    const { u8 } = this.#frames.memory;
    while (this.#given < this.#allowed && queue.count < 3000) {
      const room = queue.tailRoom(mss);
      let at = 0;
      let frame = NO_FRAME;
      if (room > 0) at = queue.tailAt;
      else {
        frame = this.#frames.alloc();
        if (frame === NO_FRAME) return;
        at = frame + PAYLOAD_OFFSET;
      }
      const most = Math.min(room > 0 ? room : mss, this.#allowed - this.#given);
      const length = this.#random.oneIn(8) ? 1 + this.#random.below(most) : most;
      for (let i = 0; i < length; i++) u8[at + i] = byteAt(this.#given + i);
      if (room > 0) queue.growTail(length, 0);
      else queue.append(frame, at, length, SEG.open);
      this.#given += length;
    }
    if (this.#given === total && !this.#isFinGiven) {
      this.#isFinGiven = true;
      queue.appendFin();
    }
  }

  #chance(perMillion: number): boolean {
    return perMillion > 0 && this.#random.below(1_000_000) < perMillion;
  }

  #transmit(index: number): void {
    const { queue } = this.#recovery;
    const o = this.#o;
    const seq = queue.seq(index);
    const length = queue.length(index);
    const isFin = (queue.flags(index) & SEG.fin) !== 0;
    assert.ok(length <= this.#recovery.mss, 'no segment is larger than the path takes');
    const offset = (seq - o.iss - 1) | 0;
    const at = queue.at(index);
    const { u8 } = this.#frames.memory;
    for (let i = 0; i < length; i += 97) assert.equal(u8[at + i], byteAt(offset + i), 'its bytes');
    const isNth = o.lossEvery > 0 && ++this.#carried % o.lossEvery === 0;
    if (isNth || this.#chance(o.loss)) {
      this.#dropped++;
      return;
    }
    const stamp = this.#now;
    const copies = this.#chance(o.duplicate) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const backlog = Math.max(0, this.#busyUntil - this.#now);
      if ((backlog * o.bytesPerSecond) / 1e6 > o.queueBytes) {
        this.#dropped++;
        continue;
      }
      const took = ((length + HEADER_LEN) * 1e6) / o.bytesPerSecond;
      this.#busyUntil = Math.max(this.#busyUntil, this.#now) + took;
      const late = this.#chance(o.reorder) ? 1 + this.#random.below(o.reorderUs) : 0;
      const arrival = this.#busyUntil + o.delayUs + late;
      this.#events.add(arrival, (now) => this.#receiver.receive(now, seq, length, isFin, stamp));
    }
  }

  #carryAck(now: number, seq: number, echo: number, isPure: boolean, blocks: number[]): void {
    const o = this.#o;
    if (this.#chance(o.ackLoss)) return;
    const late = this.#chance(o.reorder) ? 1 + this.#random.below(o.reorderUs) : 0;
    this.#events.add(now + o.delayUs + late, () => {
      const ack = this.#ack;
      ack.set(seq, isPure);
      if (o.hasTimestamps) {
        ack.hasEcho = true;
        ack.echoUs = (this.#base + echo - (echo % 1000)) | 0;
      }
      for (let i = 0; i < blocks.length; i += 2) ack.addSack(blocks[i]!, blocks[i + 1]!);
      const end = (seq + o.windowBytes) | 0;
      if (((end - this.#windowEnd) | 0) > 0) this.#windowEnd = end;
      assert.ok(this.#recovery.onAck(ack, this.#clock) >= 0, 'it acknowledges what was sent');
    });
  }
}
