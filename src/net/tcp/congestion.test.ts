/** NewReno, CUBIC, HyStart++ and PRR by the numbers of their RFCs. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { initialWindow, THRESHOLD_NONE } from './congestion.ts';
import { BETA, C, Cubic } from './cubic.ts';
import { HyStart } from './hystart.ts';
import { NewReno } from './new-reno.ts';
import { Prr } from './prr.ts';
import { RTO_LIMITS, RttEstimator } from './rtt.ts';

const MSS = 1000;

test('the initial window (RFC 6928): ten segments, at most 14,600 bytes or two of them', () => {
  assert.equal(initialWindow(1000), 10_000);
  assert.equal(initialWindow(1460), 14_600);
  assert.equal(initialWindow(8960), 17_920);
});

describe('NewReno', () => {
  const opened = (): NewReno => {
    const reno = new NewReno();
    reno.start(MSS);
    return reno;
  };

  test('slow start: what was acknowledged, at most two segments at a time (RFC 3465)', () => {
    const reno = opened();
    reno.onAck(500, true);
    assert.equal(reno.window, 10_500);
    reno.onAck(9000, true);
    assert.equal(reno.window, 12_500);
    reno.onAck(9000, false);
    assert.equal(reno.window, 12_500, 'a window that is not used does not grow');
  });

  test('avoidance: one segment for each window', () => {
    const reno = opened();
    reno.threshold = reno.window;
    for (let i = 0; i < 9; i++) reno.onAck(MSS, true);
    assert.equal(reno.window, 10_000);
    reno.onAck(MSS, true);
    assert.equal(reno.window, 11_000);
  });

  test('loss halves what was outstanding, a timeout leaves one segment, and both can be undone', () => {
    const reno = opened();
    reno.window = 40_000;
    reno.onLoss(40_000);
    reno.onExitRecovery();
    assert.equal(reno.window, 20_000);
    reno.onRto(3000, true);
    assert.deepEqual([reno.window, reno.threshold], [MSS, 2 * MSS]);
    reno.onRto(1000, false);
    assert.equal(reno.threshold, 2 * MSS);
    reno.onUndo();
    assert.deepEqual([reno.window, reno.threshold], [20_000, 20_000]);
  });

  test('after idling: the initial window again, and slow start to three quarters', () => {
    const reno = opened();
    reno.window = 40_000;
    reno.threshold = 20_000;
    reno.onRestartAfterIdle();
    assert.deepEqual([reno.window, reno.threshold], [10_000, 30_000]);
  });
});

describe('CUBIC', () => {
  const rtt = new RttEstimator();
  rtt.sample(100_000, 0, RTO_LIMITS);

  /** After a loss at 1,000 segments; one acknowledgement a millisecond, of a window each round trip. */
  const afterLoss = () => {
    const cubic = new Cubic();
    cubic.start(MSS);
    cubic.window = 1000 * MSS;
    cubic.onLoss(cubic.window);
    cubic.onExitRecovery();
    return cubic;
  };
  const runUntil = (cubic: Cubic, fromMs: number, toMs: number): void => {
    for (let ms = fromMs; ms < toMs; ms++) {
      // The clock of this run wraps on the way.
      const nowUs = (0x7fff0000 + ms * 1000) | 0;
      cubic.onAck(cubic.window / 100, true, nowUs, rtt);
    }
  };

  test('the reduction is by 0.7', () => {
    assert.equal(afterLoss().window, 700 * MSS);
  });

  test('the curve: W_max again at K, flat there, and what the formula says around it', () => {
    const cubic = afterLoss();
    const k = Math.cbrt((1000 * (1 - BETA)) / C);
    let from = 0;
    for (const t of [1, 3, 6, k, 11, 13]) {
      runUntil(cubic, from, t * 1000);
      from = Math.ceil(t * 1000);
      const expected = C * (t - k) ** 3 + 1000;
      const got = cubic.window / MSS;
      assert.ok(Math.abs(got / expected - 1) < 0.015, `at ${t} s: ${got}, not ${expected}`);
    }
  });

  test('where Reno would have more, its window (section 4.3)', () => {
    const short = new RttEstimator();
    short.sample(1000, 0, RTO_LIMITS);
    const cubic = new Cubic();
    cubic.start(MSS);
    cubic.window = 20 * MSS;
    cubic.onLoss(20 * MSS);
    cubic.onExitRecovery();
    // Ten round trips of a millisecond: W_est grows by alpha = 3 * 0.3 / 1.7 each.
    for (let i = 1; i <= 10; i++) cubic.onAck(cubic.window, true, i * 1000, short);
    const expected = 14 + (10 * 3 * 0.3) / 1.7;
    assert.ok(Math.abs(cubic.window / MSS - expected) < 0.2, `${cubic.window}`);
  });

  test('fast convergence: a loss below the last one leaves room to others (section 4.7)', () => {
    const cubic = afterLoss();
    cubic.onLoss(700 * MSS);
    cubic.onExitRecovery();
    const k = Math.cbrt((700 * 0.85 - 490) / C);
    runUntil(cubic, 0, k * 1000);
    assert.ok(Math.abs(cubic.window / MSS / (700 * 0.85) - 1) < 0.015, `${cubic.window}`);
  });

  test('time in which the sender had nothing to say does not count (section 5.8)', () => {
    const cubic = afterLoss();
    runUntil(cubic, 0, 1000);
    const before = cubic.window;
    for (let ms = 1000; ms < 60_000; ms++) {
      cubic.onAck(MSS, false, (0x7fff0000 + ms * 1000) | 0, rtt);
    }
    runUntil(cubic, 60_000, 60_010);
    assert.ok(cubic.window < before * 1.02, `${before} to ${cubic.window}`);
  });

  test('an undone loss gives everything back', () => {
    const cubic = afterLoss();
    cubic.onUndo();
    assert.deepEqual([cubic.window, cubic.threshold], [1000 * MSS, THRESHOLD_NONE]);
  });
});

describe('HyStart++ (RFC 9406)', () => {
  const round = (hystart: HyStart, us: number): boolean => {
    for (let i = 0; i < 8; i++) hystart.onSample(us);
    return hystart.onRound();
  };

  test('a round trip longer by an eighth: five conservative rounds, then avoidance', () => {
    const hystart = new HyStart();
    assert.equal(round(hystart, 80_000), false);
    for (let i = 0; i < 8; i++) hystart.onSample(89_999);
    assert.equal(hystart.isConservative, false);
    hystart.onRound();
    for (let i = 0; i < 8; i++) hystart.onSample(101_300);
    assert.equal(hystart.isConservative, true);
    for (let i = 0; i < 4; i++) assert.equal(round(hystart, 101_300), false);
    assert.equal(round(hystart, 101_300), true);
  });

  test('when it gets shorter again, it was no sign', () => {
    const hystart = new HyStart();
    round(hystart, 80_000);
    round(hystart, 100_000);
    assert.equal(hystart.isConservative, true);
    round(hystart, 99_000);
    assert.equal(hystart.isConservative, false);
  });

  test('less than 4 ms is no sign', () => {
    const hystart = new HyStart();
    round(hystart, 100);
    round(hystart, 4000);
    assert.equal(hystart.isConservative, false);
  });
});

describe('PRR (RFC 6937)', () => {
  test('one of twenty lost, threshold half: a segment for every second acknowledgement', () => {
    const prr = new Prr();
    prr.start(20 * MSS);
    let pipe = 19 * MSS;
    let sent = 0;
    for (let ack = 0; ack < 19; ack++) {
      pipe -= MSS;
      const window = prr.window(pipe, 10 * MSS, MSS, MSS, false);
      while (window - pipe >= MSS) {
        prr.onSent(MSS);
        pipe += MSS;
        sent++;
      }
    }
    assert.equal(sent, 10);
    assert.equal(pipe, 10 * MSS);
  });

  test('many lost: grows back by one more for each acknowledgement that advances, and not otherwise', () => {
    const prr = new Prr();
    prr.start(20 * MSS);
    prr.onSent(MSS);
    assert.equal(prr.window(4 * MSS, 10 * MSS, MSS, MSS, true) - 4 * MSS, 2 * MSS);
    prr.onSent(2 * MSS);
    assert.equal(prr.window(5 * MSS, 10 * MSS, MSS, MSS, false) - 5 * MSS, MSS);
  });
});
