/** The sender's half by its phases: segments of 100 bytes from sequence number 0, times in microseconds. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { checkCounters, PAYLOAD_OFFSET, TestFrames } from '../../../test/support/tcp-path.ts';
import { AckScratch } from './ack.ts';
import { NewReno } from './new-reno.ts';
import { newRecoveryCounters, PHASE, Recovery, TIMER } from './recovery.ts';
import { RTO_LIMITS } from './rtt.ts';
import { SackReader } from './sack.ts';
import { SegmentStore } from './segment-store.ts';
import { SEG } from './send-queue.ts';

const MSS = 100;
const RTT = 10_000;

class Sender {
  readonly frames = new TestFrames(256);
  readonly counters = newRecoveryCounters();
  readonly recovery: Recovery;
  readonly #ack = new AckScratch();
  now = 0;

  constructor(hasSack = true, segments = 20) {
    const shared = { frames: this.frames, store: new SegmentStore(), sacks: new SackReader() };
    const times = { limits: RTO_LIMITS, timestampTickUs: 1000, payloadOffset: PAYLOAD_OFFSET };
    this.recovery = new Recovery({ ...shared, ...times, counters: this.counters }, new NewReno());
    this.recovery.start(-1);
    this.recovery.queue.appendSyn();
    this.send();
    this.now += RTT;
    this.ack(0);
    this.recovery.open(MSS, hasSack, this.now);
    this.give(segments);
  }

  give(segments: number, length = MSS): void {
    for (let i = 0; i < segments; i++) {
      const frame = this.frames.alloc();
      this.recovery.queue.append(frame, frame + PAYLOAD_OFFSET, length, 0);
    }
  }

  /** Sends what may go: the sequence numbers, with `r` for those sent again. */
  send(windowEnd = 1_000_000): string[] {
    const { recovery, now } = this;
    const sent: string[] = [];
    for (;;) {
      let i = recovery.nextToRetransmit(now);
      if (i < 0 && !recovery.isPaced) i = recovery.nextToSend(now, windowEnd);
      if (i < 0) return sent;
      sent.push(`${i < recovery.queue.unsent ? 'r' : ''}${recovery.queue.seq(i)}`);
      recovery.onSent(i, now);
      checkCounters(recovery.queue);
    }
  }

  ack(seq: number, ...edges: number[]): number {
    this.#ack.set(seq, true);
    return this.#take(edges);
  }
  /** With the echo of a timestamp that was sent at `echoUs`. */
  ackEcho(seq: number, echoUs: number, ...edges: number[]): number {
    this.#ack.set(seq, true);
    this.#ack.hasEcho = true;
    this.#ack.echoUs = echoUs;
    return this.#take(edges);
  }
  #take(edges: number[]): number {
    for (let i = 0; i < edges.length; i += 2) this.#ack.addSack(edges[i]!, edges[i + 1]!);
    const acked = this.recovery.onAck(this.#ack, this.now);
    checkCounters(this.recovery.queue);
    return acked;
  }

  /** Let time pass to the deadline; what was due. */
  fire(): number {
    assert.ok(this.recovery.isArmed, 'a timer runs');
    this.now = this.recovery.deadlineUs;
    return this.recovery.onTimer(this.now);
  }
  at(us: number): this {
    this.now = us;
    return this;
  }
  get window(): number {
    return this.recovery.congestion.window;
  }
}

describe('open', () => {
  test('ten segments go at once, and one more for each that arrives, doubling', () => {
    const s = new Sender();
    assert.equal(s.send().length, 10);
    assert.equal(s.recovery.room, 0);
    s.at(2 * RTT).ack(100);
    assert.deepEqual(s.send(), ['1000', '1100']);
    assert.equal(s.recovery.rtt.srttUs, RTT);
  });

  test('an acknowledgement of what was never sent, and an old one', () => {
    const s = new Sender();
    s.send();
    assert.equal(s.ack(1001), -1);
    assert.equal(s.ack(500), 500);
    assert.equal(s.ack(400), 0);
    assert.equal(s.ack(-2_000_000), 0);
    assert.equal(s.recovery.queue.una, 500);
  });

  test('the peer’s window and the SYN sent again: one segment', () => {
    const s = new Sender();
    assert.deepEqual(s.send(250), ['0', '100']);
    const lost = new Recovery(
      {
        frames: s.frames,
        store: new SegmentStore(),
        sacks: new SackReader(),
        limits: RTO_LIMITS,
        counters: s.counters,
        payloadOffset: PAYLOAD_OFFSET,
        timestampTickUs: 1000,
      },
      new NewReno(),
    );
    lost.start(7);
    lost.queue.appendSyn();
    lost.onSent(lost.nextToSend(0, 0), 0);
    assert.equal(lost.deadlineUs, 1_000_000);
    assert.equal(lost.onTimer(1_000_000), TIMER.rto);
    assert.equal(lost.nextToRetransmit(1_000_000), 0);
    lost.onSent(0, 1_000_000);
    const ack = new AckScratch();
    ack.set(8, false);
    assert.equal(lost.onAck(ack, 1_100_000), 1);
    lost.open(MSS, true, 1_100_000);
    assert.equal(lost.congestion.window, MSS);
    assert.equal(lost.rtt.rtoUs, 3_000_000);
  });

  test('a pause longer than the timeout: the initial window again', () => {
    const s = new Sender(true, 40);
    for (let seq = 0; seq < 4000; seq += 100) {
      s.send();
      s.now += 100;
      s.ack(seq + 100);
    }
    assert.ok(s.window > 1000);
    s.now += 1_000_000;
    s.give(60);
    assert.equal(s.send().length, 10);
  });

  test('pacing: one burst, then by time', () => {
    const s = new Sender();
    s.recovery.pacingBytesPerSecond = 100_000;
    const first = s.send().length;
    assert.ok(first <= 3 && s.recovery.isPaced);
    s.now = s.recovery.nextSendUs;
    assert.equal(s.send().length, 1);
    assert.equal((s.recovery.nextSendUs - s.now) | 0, 1000);
  });
});

describe('recovery with SACK (RFC 6675, 8985)', () => {
  test('three segments beyond a hole: it is sent again at once, and the window comes down in steps', () => {
    const s = new Sender();
    s.send();
    s.at(2 * RTT).ack(0, 100, 200);
    s.ack(0, 100, 300);
    assert.equal(s.recovery.phase, PHASE.open);
    s.ack(0, 100, 400);
    assert.equal(s.recovery.phase, PHASE.recovery);
    assert.deepEqual(s.send(), ['r0']);
    for (let right = 500; right <= 1000; right += 100) s.ack(0, 100, right);
    assert.deepEqual(s.send().slice(0, 1), ['1000']);
    s.at(3 * RTT).ack(1000);
    assert.equal(s.recovery.phase, PHASE.open);
    assert.equal(s.window, 500);
    assert.equal(s.recovery.retransmits, 1);
  });

  test('fewer than three: after a quarter of the round trip, by the timer', () => {
    const s = new Sender(true, 3);
    s.send();
    s.at(2 * RTT).ack(0, 100, 300);
    assert.deepEqual(s.send(), []);
    assert.equal(s.fire(), TIMER.reorder);
    assert.equal(s.now, 2 * RTT + RTT / 4);
    assert.deepEqual(s.send(), ['r0']);
  });

  test('a retransmission that is lost is found by what was sent after it', () => {
    const s = new Sender(true, 40);
    s.send();
    s.at(2 * RTT).ack(0, 100, 1000);
    assert.deepEqual(s.send(), ['r0', '1000', '1100', '1200', '1300']);
    s.at(3 * RTT).ack(0, 100, 1400);
    assert.equal(s.send()[0], '1400', 'what was sent in the same microsecond says nothing');
    s.at(4 * RTT).ack(0, 100, 1500);
    assert.equal(s.send()[0], 'r0');
    assert.equal(s.recovery.timeouts, 0);
  });

  test('what comes only late widens the window for reordering, and is no loss', () => {
    const s = new Sender();
    s.send();
    s.at(2 * RTT).ack(0, 100, 300);
    s.ack(300);
    s.ack(300, 400, 700);
    assert.equal(s.recovery.phase, PHASE.open, 'three, and yet it waits');
    s.now += 1000;
    s.ack(700);
    assert.equal(s.recovery.retransmits, 0);
    assert.equal(s.counters.recoveries, 0);
  });

  test('a peer that takes back what it sacked', () => {
    const s = new Sender();
    s.send();
    s.at(2 * RTT).ack(0, 200, 400);
    assert.equal(s.recovery.queue.sacked, 200);
    s.ack(200);
    assert.equal(s.counters.reneged, 1);
    assert.equal(s.recovery.queue.sacked, 0);
  });
});

describe('tail loss probe (RFC 8985, section 7)', () => {
  test('the last segment again after two round trips, and its acknowledgement tells the loss', () => {
    const s = new Sender(true, 5);
    s.send();
    assert.equal(s.fire(), TIMER.probe);
    assert.equal(s.now, RTT + 2 * RTT + 2000);
    assert.deepEqual(s.send(), ['r400']);
    s.now += RTT;
    s.ack(0, 400, 500);
    assert.equal(s.recovery.phase, PHASE.recovery);
    assert.equal(s.send()[0], 'r0');
  });

  test('a probe that repaired the only loss costs the window; one that was a duplicate does not', () => {
    for (const isDuplicate of [false, true]) {
      const s = new Sender(true, 5);
      s.send();
      s.at(RTT + 5000).ack(400);
      const window = s.window;
      assert.equal(s.fire(), TIMER.probe);
      assert.deepEqual(s.send(), ['r400']);
      s.now += RTT;
      if (isDuplicate) s.ack(500, 400, 500);
      else s.ack(500);
      s.give(1);
      s.send();
      s.now += RTT;
      s.ack(600);
      assert.equal(s.window < window, !isDuplicate);
    }
  });

  test('new data is the better probe', () => {
    const s = new Sender(true, 12);
    s.send();
    assert.equal(s.fire(), TIMER.probe);
    assert.deepEqual(s.send(), ['1000']);
  });
});

describe('timeout', () => {
  const expire = (s: Sender): void => {
    for (let i = 0; i < 5; i++) if (s.fire() === TIMER.rto) return;
    assert.fail('no timeout');
  };

  test('one segment, twice the time, slow start', () => {
    const s = new Sender(false);
    s.send();
    const rto = s.recovery.rtt.rtoUs;
    expire(s);
    assert.equal(s.now, RTT + rto);
    assert.equal(s.recovery.rtt.rtoUs, 2 * rto);
    assert.deepEqual(s.send(), ['r0']);
    assert.equal(s.window, MSS);
    s.now += RTT;
    s.ack(100);
    assert.deepEqual(s.send(), ['r100', 'r200']);
    assert.equal(s.recovery.phase, PHASE.loss);
    s.ack(1000);
    assert.equal(s.recovery.phase, PHASE.open);
    assert.equal(s.recovery.timeouts, 0);
  });

  test('was for nothing: the echo is of before (RFC 4015), or the duplicates are reported', () => {
    for (const by of ['echo', 'dsack']) {
      const s = new Sender();
      s.send();
      const { window } = s;
      const sentAt = s.now;
      expire(s);
      assert.equal(s.send()[0], 'r0');
      s.now += 100;
      if (by === 'echo') s.ackEcho(100, sentAt);
      else s.ack(200, 0, 100);
      assert.equal(s.counters.undone, 1, by);
      assert.ok(s.window >= window, by);
      assert.equal(s.recovery.phase, PHASE.open);
      assert.equal(s.recovery.queue.lost, 0);
    }
  });

  test('an echo of the retransmission undoes nothing', () => {
    const s = new Sender();
    s.send();
    expire(s);
    s.send();
    const again = s.now;
    s.now += RTT;
    s.ackEcho(100, again);
    assert.equal(s.counters.undone, 0);
    assert.equal(s.recovery.phase, PHASE.loss);
  });
});

describe('without SACK (RFC 5681, 6582)', () => {
  test('the third duplicate, limited transmit, partial acknowledgements', () => {
    const s = new Sender(false, 30);
    s.send();
    s.at(2 * RTT).ack(0);
    assert.deepEqual(s.send(), ['1000'], 'a duplicate lets one go');
    s.ack(0);
    s.ack(0);
    assert.equal(s.recovery.phase, PHASE.recovery);
    assert.equal(s.send()[0], 'r0');
    s.now += RTT;
    s.ack(300);
    assert.equal(s.recovery.phase, PHASE.recovery);
    assert.equal(s.send()[0], 'r300', 'the next hole');
    s.now += RTT;
    s.ack(s.recovery.queue.nxt);
    assert.equal(s.recovery.phase, PHASE.open);
  });
});

describe('the path takes less (RFC 1191)', () => {
  test('segments are cut, sent again, and the window is as it was', () => {
    const s = new Sender(true, 5);
    s.send();
    const { window } = s;
    s.recovery.setMss(60, s.now);
    assert.equal(s.recovery.queue.lost, 500);
    assert.deepEqual(s.send().slice(0, 4), ['r0', 'r60', 'r100', 'r160']);
    assert.equal(s.window, window);
    assert.equal(s.recovery.phase, PHASE.open);
    assert.equal(s.recovery.queue.count, 10);
    s.now += RTT;
    assert.equal(s.ack(500), 500);
    s.recovery.close();
    assert.equal(s.frames.pool.available, 256);
  });

  test('a FIN goes with the last part', () => {
    const s = new Sender(true, 1);
    s.recovery.queue.appendFin();
    s.recovery.setMss(60, s.now);
    s.send();
    assert.equal(s.recovery.queue.flags(0) & SEG.fin, 0);
    assert.equal(s.recovery.queue.flags(1) & SEG.fin, SEG.fin);
    assert.equal(s.ack(101), 101);
    assert.equal(s.recovery.isArmed, false);
  });
});
