/**
 * CUBIC (RFC 9438), with HyStart++ (RFC 9406) for its slow start. The window follows a cubic of the time since the last
 * reduction, or what Reno would have when that is more.
 *
 * The names are the RFC's: W_max, K, W_est. Formulas are in segments and seconds, as they are there; fields are integers
 * where they can be, as each double costs a connection a box of its own.
 */
import { type CongestionControl, initialWindow, THRESHOLD_NONE, WINDOW_MAX } from './congestion.ts';
import { CSS_GROWTH_DIVISOR, HyStart } from './hystart.ts';
import type { RttEstimator } from './rtt.ts';

/** Section 5. */
export const C = 0.4;
export const BETA = 0.7;
const ALPHA = (3 * (1 - BETA)) / (1 + BETA);
/** An epoch that lasts longer begins anew, as its time would not fit in 32 bits of microseconds. */
const EPOCH_MAX_US = 1_000_000_000;
/** A smaller window overflows no queue, and a connection that stays below needs no state for it. */
const HYSTART_SEGMENTS = 16;
const SLOW_START_SEGMENTS = 8;
const SLOW_START_SEGMENTS_AFTER_RTO = 1;

export class Cubic implements CongestionControl {
  readonly name = 'cubic';
  window = 0;
  threshold = THRESHOLD_NONE;
  #mss = 0;
  /** In the first slow start, from `HYSTART_SEGMENTS` on. */
  #hystart: HyStart | null = null;
  #hasEpoch = false;
  #isAfterRto = false;
  #epochUs = 0;
  #lastAckUs = 0;
  /** In bytes: where the curve is flat, the window before the last reduction; and K in microseconds. */
  #wMax = 0;
  #wPrior = 0;
  #kUs = 0;
  /** In segments. */
  #wEst = 0;
  /** A part of a byte that the window has grown by. */
  #rest = 0;
  #priorThreshold = 0;
  #priorWMax = 0;

  start(mss: number): void {
    this.#mss = mss;
    this.window = initialWindow(mss);
  }

  setMss(mss: number): void {
    this.#wEst *= this.#mss / mss;
    this.#mss = mss;
    this.window = Math.max(this.window, mss);
  }

  onAck(acked: number, isLimited: boolean, nowUs: number, rtt: RttEstimator): void {
    if (!isLimited) {
      // The clock stands while the sender has nothing to say (section 5.8).
      if (this.#hasEpoch) this.#epochUs = (this.#epochUs + nowUs - this.#lastAckUs) | 0;
      this.#lastAckUs = nowUs;
      return;
    }
    this.#lastAckUs = nowUs;
    if (this.window < this.threshold) this.#slowStart(acked, rtt);
    else this.#avoidCongestion(acked, nowUs, rtt.srttUs);
  }

  #slowStart(acked: number, rtt: RttEstimator): void {
    const segments = this.#isAfterRto ? SLOW_START_SEGMENTS_AFTER_RTO : SLOW_START_SEGMENTS;
    let grow = Math.min(acked, segments * this.#mss);
    if (this.threshold === THRESHOLD_NONE && this.window >= HYSTART_SEGMENTS * this.#mss) {
      this.#hystart ??= new HyStart();
      this.#hystart.onSample(rtt.latestUs);
      if (this.#hystart.isConservative) grow = Math.ceil(grow / CSS_GROWTH_DIVISOR);
    }
    this.window = Math.min(this.window + grow, WINDOW_MAX);
  }

  onRound(): void {
    if (this.#hystart === null || !this.#hystart.onRound()) return;
    this.threshold = this.window;
    this.#hystart = null;
  }

  /** Sections 4.2 to 4.5. */
  #avoidCongestion(acked: number, nowUs: number, srttUs: number): void {
    const mss = this.#mss;
    const cwnd = this.window / mss;
    this.#isAfterRto = false;
    let elapsed = (nowUs - this.#epochUs) | 0;
    if (!this.#hasEpoch || elapsed < 0 || elapsed > EPOCH_MAX_US) {
      this.#startEpoch(cwnd, nowUs);
      elapsed = 0;
    }
    const alpha = this.#wEst * mss < this.#wPrior ? ALPHA : 1;
    this.#wEst += (alpha * acked) / this.window;
    const wMax = this.#wMax / mss;
    const fromK = (elapsed - this.#kUs) / 1e6;
    const now = C * fromK ** 3 + wMax;
    let grow: number;
    if (now < this.#wEst) {
      grow = Math.max(0, this.#wEst - cwnd) * mss;
    } else {
      const ahead = C * (fromK + srttUs / 1e6) ** 3 + wMax;
      const target = Math.min(Math.max(ahead, cwnd), 1.5 * cwnd);
      grow = ((target - cwnd) / cwnd) * acked;
    }
    grow += this.#rest;
    const whole = Math.floor(grow);
    this.#rest = grow - whole;
    this.window = Math.min(this.window + whole, WINDOW_MAX);
  }

  #startEpoch(cwnd: number, nowUs: number): void {
    this.#hasEpoch = true;
    this.#epochUs = nowUs;
    this.#wEst = cwnd;
    this.#wMax = Math.max(this.#wMax, this.window);
    this.#kUs = Math.round(Math.cbrt((this.#wMax / this.#mss - cwnd) / C) * 1e6);
  }

  /** Sections 4.6 and 4.7. */
  onLoss(flight: number): void {
    const { window } = this;
    this.#priorThreshold = this.threshold;
    this.#priorWMax = this.#wMax;
    this.#wMax = window < this.#wMax ? Math.round((window * (1 + BETA)) / 2) : window;
    this.#wPrior = window;
    this.#hystart = null;
    this.threshold = Math.max(Math.floor(flight * BETA), 2 * this.#mss);
    this.#hasEpoch = false;
  }

  onExitRecovery(): void {
    this.window = this.threshold;
    this.#hasEpoch = false;
  }

  onRto(flight: number, isFirst: boolean): void {
    if (isFirst) this.onLoss(flight);
    this.window = this.#mss;
    this.#isAfterRto = true;
    this.#hasEpoch = false;
  }

  /** Section 4.9. */
  onUndo(): void {
    this.window = Math.max(this.window, this.#wPrior);
    this.threshold = Math.max(this.threshold, this.#priorThreshold);
    this.#wMax = this.#priorWMax;
    this.#isAfterRto = false;
    this.#hasEpoch = false;
  }

  onRestartAfterIdle(): void {
    this.threshold = Math.max(this.threshold, this.window - (this.window >> 2));
    this.window = Math.min(this.window, initialWindow(this.#mss));
    this.#hasEpoch = false;
  }

  pacingHint(srttUs: number): number {
    const gain = this.window < this.threshold ? 2 : 1.2;
    return srttUs === 0 ? 0 : Math.round((gain * this.window * 1e6) / srttUs);
  }
}
