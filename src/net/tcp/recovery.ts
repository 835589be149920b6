/**
 * The sender's half of one connection: what may be sent now, what was lost, when to look again. Pure logic: it owns the
 * send queue, the estimate of the round trip, the congestion window and the timers, and never sends itself.
 *
 * The connection's part, each time it may send (after an acknowledgement, a timer, new data):
 *
 *     while ((i = recovery.nextToRetransmit(now)) >= 0 || (i = recovery.nextToSend(now, windowEnd)) >= 0) {
 *       if (it is a short unsent segment that Nagle holds back) break;
 *       write the header before queue.at(i), retain the frame, transmit it; on failure break;
 *       recovery.onSent(i, now);
 *     }
 *
 * and then it arms its timer for `recovery.deadlineUs` while `recovery.isArmed`. Times are wrapping int32 microseconds.
 */
import { assert } from '../../base/assert.ts';
import type { AckScratch } from './ack.ts';
import type { CongestionControl } from './congestion.ts';
import { DupAcks } from './dup-acks.ts';
import { Episode } from './episode.ts';
import { Pacer } from './pacer.ts';
import { ProbeState } from './probe.ts';
import { Rack } from './rack.ts';
import { Timers, WAIT } from './recovery-timers.ts';
import { PHASE, type Phase, type RecoveryShared, TIMER, type Timer } from './recovery-types.ts';
import { RttEstimator } from './rtt.ts';
import { SEG, SendQueue } from './send-queue.ts';

/** A transmission that goes whatever the window. */
const FORCE_NONE = 0;
const FORCE_LOST = 1;
const FORCE_PROBE = 2;

export * from './recovery-types.ts';

export class Recovery {
  readonly queue: SendQueue;
  readonly rtt = new RttEstimator();
  readonly congestion: CongestionControl;
  /** Payload bytes of a full segment, options taken off. Set by `open` and `setMss`. */
  mss = 536;
  phase: Phase = PHASE.open;
  /** Retransmissions of this connection. */
  retransmits = 0;
  /** Retransmission timeouts since the last progress. */
  timeouts = 0;
  /** Send no faster than this; 0: no limit. */
  pacingBytesPerSecond = 0;
  /** True when only pacing held back what `nextToSend` or `nextToRetransmit` would give: come again at `nextSendUs`. */
  isPaced = false;
  readonly #shared: RecoveryShared;
  readonly #rack = new Rack();
  /** For a peer without SACK. */
  #dups: DupAcks | null = null;
  readonly #probe = new ProbeState();
  /** Since something was lost, until nothing can be undone any more. */
  #episode: Episode | null = null;
  /** Once there is a rate. */
  #pacer: Pacer | null = null;
  readonly #timers = new Timers();
  #isOpen = false;
  #hasSack = false;
  #force = FORCE_NONE;
  /** Recovery is over when this is acknowledged. */
  #recoverSeq = 0;
  /** Data up to here was sent while the window was what held us back. */
  #limitedSeq = 0;
  #roundSeq = 0;
  /** First sequence number beyond the peer's window, as `nextToSend` heard it. */
  #windowEnd = 0;
  #lastSentUs = 0;

  constructor(shared: RecoveryShared, congestion: CongestionControl) {
    this.#shared = shared;
    this.queue = new SendQueue(shared.frames, shared.store);
    this.congestion = congestion;
    this.#rack.echoSlackUs = shared.timestampTickUs;
  }

  /** Before the SYN: its sequence number. */
  start(iss: number): void {
    this.queue.start(iss);
    this.#rack.start(iss | 0);
    this.#recoverSeq = this.#limitedSeq = this.#roundSeq = this.#windowEnd = iss | 0;
  }

  /**
   * The handshake is done (our SYN acknowledged): whether the peer can SACK (RFC 2018), and the segment size. Sets the
   * initial window: one segment when the SYN had to be sent again (RFC 6928, section 2).
   */
  open(mss: number, hasSack: boolean, nowUs: number): void {
    assert(!this.#isOpen, 'a connection opens once');
    this.#isOpen = true;
    this.#hasSack = hasSack;
    if (!hasSack) this.#dups = new DupAcks();
    this.mss = mss;
    this.#endEpisode();
    this.congestion.start(mss, nowUs);
    if (this.retransmits > 0) {
      this.congestion.window = mss;
      this.rtt.afterSynLoss();
    }
  }

  /**
   * The path takes only (or again) `mss` bytes. What is larger is split when it is sent next, and counts as lost when it
   * is under way, which is no sign of congestion (RFC 1191, section 6.4).
   */
  setMss(mss: number, nowUs: number): void {
    const isLess = mss < this.mss;
    this.mss = mss;
    if (this.#isOpen) this.congestion.setMss(mss);
    if (!isLess) return;
    const { queue } = this;
    for (let i = 0; i < queue.unsent; i++) if (queue.length(i) > mss) queue.markLost(i);
    if (queue.outstanding > 0) this.#armRto(nowUs);
  }

  /** A deadline is set: call `onTimer` at `deadlineUs`. */
  get isArmed(): boolean {
    return this.#timers.running !== 0;
  }
  get deadlineUs(): number {
    return this.#timers.firstUs;
  }

  /** Bytes in flight, as the peer's duplicates tell too. */
  get pipe(): number {
    return Math.max(0, this.queue.inFlight - (this.#dups?.bytes ?? 0));
  }

  /** Bytes that the congestion window has room for now; a first segment always has. */
  get room(): number {
    const { pipe } = this;
    const room = this.congestion.window - pipe;
    return pipe === 0 ? Math.max(room, this.mss) : Math.max(0, room);
  }

  canSend(bytes: number): boolean {
    return this.#isOpen && bytes <= this.room;
  }

  /** From when on pacing lets the next segment go. */
  get nextSendUs(): number {
    return this.#pacer?.nextUs ?? 0;
  }

  /** Position of the lost segment (or the probe) that is to go out now, already cut to `mss`; -1: none, or not now. */
  nextToRetransmit(nowUs: number): number {
    const { queue } = this;
    this.isPaced = false;
    let index = queue.firstLost();
    if (index < 0) {
      if (this.#force !== FORCE_PROBE || queue.unsent === 0) return -1;
      if (ProbeState.canBeNew(queue, this.mss, this.#windowEnd)) return -1;
      index = queue.unsent - 1;
    }
    if (this.#force === FORCE_NONE) {
      if (this.#isOpen && Math.min(queue.length(index), this.mss) > this.room) return -1;
      if (this.#holdsPace(nowUs)) return -1;
    }
    return this.#cut(index);
  }

  /**
   * Position of the first unsent segment, cut to `mss`, when congestion window, pacing and the peer's window (first
   * sequence number beyond it) let it go as a whole; -1 otherwise. A SYN goes whatever the windows.
   */
  nextToSend(nowUs: number, windowEnd: number): number {
    const { queue } = this;
    const index = queue.unsent;
    this.isPaced = false;
    this.#windowEnd = windowEnd;
    if (index === queue.count) return -1;
    if (!this.#isOpen) return queue.flags(index) & SEG.syn ? index : -1;
    if (queue.outstanding === 0) this.#afterIdle(nowUs);
    if (this.#cut(index) < 0) return -1;
    // A FIN behind payload may stand one beyond the window: it costs the peer no memory.
    const beyond = (queue.seq(index) + Math.max(1, queue.length(index)) - windowEnd) | 0;
    if (beyond > 0) return -1;
    if (this.#force === FORCE_PROBE) return index;
    if (queue.length(index) > this.room) {
      this.#limitedSeq = queue.nxt;
      return -1;
    }
    return this.#holdsPace(nowUs) ? -1 : index;
  }

  /** The device took the segment at `index`. */
  onSent(index: number, nowUs: number): void {
    const { queue } = this;
    const isNew = index === queue.unsent;
    const bytes = queue.seqLength(index);
    const isProbe = this.#force === FORCE_PROBE;
    if (!isNew) {
      this.retransmits++;
      this.#shared.counters.retransmits++;
      if (!isProbe) this.#episode?.undo.onRetransmit(queue.seqEnd(index), nowUs);
    }
    queue.markSent(index, nowUs);
    this.#force = FORCE_NONE;
    this.#lastSentUs = nowUs;
    if (this.phase === PHASE.recovery) this.#episode?.prr.onSent(bytes);
    const rate = this.pacingBytesPerSecond;
    if (rate > 0) {
      this.#pacer ??= new Pacer();
      this.#pacer.onSent(bytes, rate, nowUs);
    }
    if (isProbe) this.#probe.onSent(!isNew, queue.nxt);
    if (isNew) {
      const { window, threshold } = this.congestion;
      if (window < threshold && 2 * queue.outstanding > window) this.#limitedSeq = queue.nxt;
    }
    if ((this.#timers.running & WAIT.rto) === 0 || index === 0 || isProbe) this.#armRto(nowUs);
    if (isNew) this.#armProbe(nowUs);
  }

  /**
   * An acknowledgement that passed the checks of RFC 9293, section 3.10.7.4, as the parser found it. Returns the bytes
   * (with SYN and FIN) newly acknowledged: 0 for a duplicate or an old one, -1 when it acknowledges what was never sent.
   * Frees what is acknowledged. Send afterwards.
   */
  onAck(ack: AckScratch, nowUs: number): number {
    const { queue } = this;
    const acked = (ack.seq - queue.una) | 0;
    if (((ack.seq - queue.nxt) | 0) > 0) return -1;
    if (acked < 0) return 0;
    const wasLimited = ((this.#limitedSeq - queue.una) | 0) > 0;
    const wasRecovering = this.phase === PHASE.recovery;
    let delivered = this.#takeCumulative(ack, acked, nowUs);
    delivered += this.#takeSacks(ack, acked, nowUs);
    if (acked > 0) this.timeouts = this.#force = 0;
    this.#checkUndo(ack, acked, nowUs);
    this.#checkEnd(nowUs);
    const dupBytes = this.#dups?.bytes ?? 0;
    const found = this.#hasSack ? this.#detect(nowUs) : this.#countDuplicate(ack, acked);
    delivered = Math.max(0, delivered + (this.#dups?.bytes ?? 0) - dupBytes);
    if (found > 0 && this.phase === PHASE.open) this.#enterRecovery(nowUs);
    if (this.phase === PHASE.recovery) {
      this.#reduce(delivered, acked > 0 && found === 0);
    } else if (this.#isOpen && acked > 0 && !wasRecovering) {
      this.congestion.onAck(acked, wasLimited, nowUs, this.rtt);
    }
    this.#afterAck(acked, nowUs);
    return acked;
  }

  /** The deadline has come (or not: then nothing happens). Send afterwards. */
  onTimer(nowUs: number): Timer {
    let what: Timer = TIMER.none;
    if (this.#timers.isDue(WAIT.reorder, nowUs)) {
      if (this.#detect(nowUs) > 0) what = TIMER.reorder;
      if (what !== TIMER.none && this.phase === PHASE.open) this.#enterRecovery(nowUs);
      if (this.phase === PHASE.recovery) this.#reduce(0, false);
    }
    if (this.#timers.isDue(WAIT.probe, nowUs) && this.#mayProbe()) {
      what = TIMER.probe;
      this.#force = FORCE_PROBE;
      this.#shared.counters.probes++;
      this.#armRto(nowUs);
    }
    if (this.#timers.isDue(WAIT.rto, nowUs)) {
      what = TIMER.rto;
      this.#onTimeout(nowUs);
    }
    return what;
  }

  /** Free everything. The connection is over. */
  close(): void {
    this.queue.clear();
    this.#endEpisode();
    this.#timers.stop();
  }

  /** Take what is acknowledged out of the queue, and samples of it. Returns the bytes that were not sacked before. */
  #takeCumulative(ack: AckScratch, acked: number, nowUs: number): number {
    const { queue } = this;
    const rack = this.#rack;
    rack.sampleUs = 0;
    rack.fackBefore = rack.fack;
    rack.minRttUs = this.rtt.minUs;
    if (acked === 0) return 0;
    let isResent = false;
    const firstSentUs = queue.firstSentUs(0);
    for (let i = 0; i < queue.unsent && ((ack.seq - queue.seqEnd(i)) | 0) >= 0; i++) {
      if (queue.flags(i) & SEG.sacked) continue;
      if (queue.sends(i) > 1) isResent = true;
      rack.onDelivered(queue, i, ack, nowUs);
    }
    const sacked = queue.sacked;
    queue.ackTo(ack.seq);
    const delivered = acked - (sacked - queue.sacked);
    // Of what is sent again, only the echo tells which one was answered (Karn).
    if (isResent) rack.sampleUs = ack.roundTripUs(firstSentUs, nowUs, rack.echoSlackUs);
    if (queue.unsent > 0 && queue.flags(0) & SEG.sacked) {
      this.#shared.counters.reneged++;
      queue.forgetSacks();
    }
    return delivered;
  }

  /** Mark what the blocks say, and take the sample. Returns the bytes newly sacked. */
  #takeSacks(ack: AckScratch, acked: number, nowUs: number): number {
    const { queue } = this;
    const { sacks, counters, limits } = this.#shared;
    const before = queue.sacked;
    sacks.hasDsack = false;
    if (this.#hasSack) {
      if (ack.sackCount > 0) {
        sacks.read(ack, queue, this.#rack, nowUs);
        counters.badSacks += sacks.bad;
        if (sacks.hasDsack) counters.dsacks++;
      }
      this.#rack.onAck(queue.una, queue.nxt, sacks.hasDsack);
      if (this.#probe.onAck(ack, acked, sacks) && this.phase === PHASE.open) {
        this.congestion.onLoss(this.congestion.window, nowUs);
        this.congestion.onExitRecovery(nowUs);
      }
    }
    if (this.#rack.sampleUs > 0) this.rtt.sample(this.#rack.sampleUs, nowUs, limits);
    return queue.sacked - before;
  }

  #checkUndo(ack: AckScratch, acked: number, nowUs: number): void {
    const { sacks, timestampTickUs } = this.#shared;
    const undo = this.#episode?.undo;
    if (undo === undefined) return;
    if (
      (acked > 0 && undo.isEchoEarlier(ack, timestampTickUs)) ||
      (sacks.hasDsack && undo.isDsackLast(sacks.dsackLeft, sacks.dsackRight, this.mss))
    ) {
      this.#undoReduction(nowUs);
    }
  }

  #undoReduction(nowUs: number): void {
    if (this.phase === PHASE.loss) this.rtt.endBackoff(this.#shared.limits);
    this.congestion.onUndo(nowUs);
    this.queue.forgetLosses();
    this.#endEpisode();
    this.#rack.hasReordering = true;
    this.#shared.counters.undone++;
    this.#setOpen();
  }

  /** Recovery is over when everything is acknowledged that was out when it began. */
  #checkEnd(nowUs: number): void {
    if (this.phase === PHASE.open || ((this.queue.una - this.#recoverSeq) | 0) < 0) {
      return;
    }
    const isUnfounded = this.#episode?.undo.onEnd() ?? false;
    if (this.phase === PHASE.recovery) this.congestion.onExitRecovery(nowUs);
    this.#rack.onExitRecovery();
    this.#setOpen();
    if (isUnfounded && this.#isOpen) this.#undoReduction(nowUs);
  }

  #startEpisode(): void {
    this.#episode ??= Episode.take();
    this.#episode.start(this.queue);
  }

  #endEpisode(): void {
    this.#episode = Episode.give(this.#episode);
  }

  #setOpen(): void {
    this.phase = PHASE.open;
    this.#dups?.reset();
  }

  /** FlightSize for a reduction: what was sent by limited transmit does not raise the threshold (RFC 5681, section 3.2). */
  get #flight(): number {
    return Math.min(this.queue.outstanding, Math.max(this.congestion.window, this.mss));
  }

  #enterRecovery(nowUs: number): void {
    const { queue } = this;
    this.#shared.counters.recoveries++;
    this.phase = PHASE.recovery;
    this.#recoverSeq = queue.nxt;
    this.congestion.onLoss(this.#flight, nowUs);
    this.#startEpisode();
    this.#probe.isOut = false;
    this.#timers.arm(WAIT.probe, 0, false);
  }

  #reduce(delivered: number, isGood: boolean): void {
    const { congestion, mss } = this;
    const prr = this.#episode?.prr;
    assert(prr !== undefined, 'recovery is an episode');
    congestion.window = prr.window(this.pipe, congestion.threshold, delivered, mss, isGood);
  }

  #detect(nowUs: number): number {
    const rack = this.#rack;
    const { queue, rtt } = this;
    const isRecovering = this.phase !== PHASE.open;
    const windowUs = rack.reorderWindowUs(queue.sackedSegments, isRecovering, rtt);
    const found = rack.detectLoss(queue, windowUs, nowUs);
    this.#timers.arm(WAIT.reorder, (nowUs + rack.waitUs) | 0, rack.waitUs > 0);
    return found;
  }

  #countDuplicate(ack: AckScratch, acked: number): number {
    const { queue, phase, mss } = this;
    const dups = this.#dups;
    if (dups === null) return 0;
    if (acked > 0) {
      // The next hole is filled whatever the window (RFC 6582, section 3.2, step 3).
      if (dups.onAdvance(queue, acked, phase, mss)) this.#force = FORCE_LOST;
      return 0;
    }
    if (!ack.isPure || phase === PHASE.loss || queue.outstanding === 0) return 0;
    const mayEnter = ((queue.una - this.#recoverSeq) | 0) > 0;
    return dups.onDuplicate(queue, phase, mss, mayEnter);
  }

  /** Rounds and timers. */
  #afterAck(acked: number, nowUs: number): void {
    const { queue } = this;
    if (((this.#limitedSeq - queue.una) | 0) < 0) this.#limitedSeq = queue.una;
    if (acked > 0 && ((queue.una - this.#roundSeq) | 0) >= 0) {
      this.#roundSeq = queue.nxt;
      if (this.#isOpen) this.congestion.onRound();
      if (this.phase === PHASE.open && this.#episode?.undo.onRound() === false) this.#endEpisode();
    }
    if (queue.outstanding === 0) {
      this.#timers.stop();
      this.#force = FORCE_NONE;
    } else if (acked > 0) {
      this.#armRto(nowUs);
      this.#armProbe(nowUs);
    } else if (!this.#mayProbe()) {
      this.#timers.arm(WAIT.probe, 0, false);
    }
  }

  #onTimeout(nowUs: number): void {
    const { queue, rtt } = this;
    const { counters, limits } = this.#shared;
    if (queue.flags(0) & SEG.sacked) {
      counters.reneged++;
      queue.forgetSacks();
    }
    const isFirst = ++this.timeouts === 1;
    counters.timeouts++;
    if (this.#isOpen) this.congestion.onRto(this.#flight, isFirst, nowUs);
    if (this.#hasSack) {
      const windowUs = this.#rack.reorderWindowUs(queue.sackedSegments, true, rtt);
      this.#rack.markOnTimeout(queue, windowUs, nowUs);
    } else {
      for (let i = 0; i < queue.unsent; i++) queue.markLost(i);
    }
    if (isFirst) this.#startEpisode();
    this.phase = PHASE.loss;
    this.#recoverSeq = queue.nxt;
    this.#dups?.reset();
    this.#probe.isOut = false;
    this.#force = FORCE_LOST;
    rtt.backOff(limits);
    this.#timers.stop();
    this.#armRto(nowUs);
  }

  /** Cut the segment to `mss`. Its position, or -1 when there is no frame for the rest. */
  #cut(index: number): number {
    const { queue, mss } = this;
    if (queue.length(index) <= mss) return index;
    return queue.split(index, mss, this.#shared.payloadOffset) ? index : -1;
  }

  #afterIdle(nowUs: number): void {
    const idleUs = (nowUs - this.#lastSentUs) | 0;
    // Negative: longer than half of the clock's turn.
    if (idleUs >= 0 && idleUs <= this.rtt.rtoUs) return;
    this.#lastSentUs = nowUs;
    this.congestion.onRestartAfterIdle(idleUs, this.rtt.rtoUs, nowUs);
  }

  #holdsPace(nowUs: number): boolean {
    this.isPaced = this.pacingBytesPerSecond > 0 && this.#pacer?.mayGo(nowUs) === false;
    return this.isPaced;
  }

  #mayProbe(): boolean {
    return this.#hasSack && this.phase === PHASE.open && this.#probe.isWorth(this.queue, this.rtt);
  }

  #armRto(nowUs: number): void {
    this.#timers.arm(WAIT.rto, (nowUs + this.rtt.rtoUs) | 0, true);
  }

  /** After the retransmission timer, which a probe comes before at the latest (RFC 8985, section 7.2). */
  #armProbe(nowUs: number): void {
    const us = ProbeState.timeoutUs(this.rtt, this.queue.unsent);
    this.#timers.armProbe((nowUs + us) | 0, this.#mayProbe());
  }
}
