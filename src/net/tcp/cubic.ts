/**
 * CUBIC (RFC 9438), with HyStart++ (RFC 9406) for its slow start. The window follows a cubic of the time since the last
 * reduction, or what Reno would have when that is more.
 *
 * The names are the RFC's: W_max, K, W_est; in segments and seconds, as the formulas are. They are doubles in fields of
 * their own, which V8 writes in place.
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
const SLOW_START_SEGMENTS = 8;
const SLOW_START_SEGMENTS_AFTER_RTO = 1;

export class Cubic implements CongestionControl {
  readonly name = 'cubic';
  window = 0;
  threshold = THRESHOLD_NONE;
  #mss = 0;
  readonly #hystart = new HyStart();
  #hasEpoch = false;
  #isAfterRto = false;
  #epochUs = 0;
  #lastAckUs = 0;
  /** Window before the last reduction and when the epoch began; in segments. */
  #wMax = 0.5;
  #wPrior = 0.5;
  #k = 0.5;
  #wEst = 0.5;
  /** A part of a byte that the window has grown by. */
  #rest = 0.5;
  #priorWindow = 0;
  #priorThreshold = 0;
  #priorWMax = 0.5;

  constructor() {
    // Fields that were once a fraction stay doubles.
    this.#wMax = this.#wPrior = this.#k = this.#wEst = this.#rest = this.#priorWMax = 0;
  }

  start(mss: number): void {
    this.#mss = mss;
    this.window = initialWindow(mss);
  }

  setMss(mss: number): void {
    const scale = this.#mss / mss;
    this.#mss = mss;
    this.window = Math.max(this.window, mss);
    this.#wMax *= scale;
    this.#wPrior *= scale;
    this.#wEst *= scale;
    this.#priorWMax *= scale;
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
    if (this.threshold === THRESHOLD_NONE) {
      this.#hystart.onSample(rtt.latestUs);
      if (this.#hystart.isConservative) grow = Math.ceil(grow / CSS_GROWTH_DIVISOR);
    }
    this.window = Math.min(this.window + grow, WINDOW_MAX);
  }

  onRound(): void {
    if (this.threshold === THRESHOLD_NONE && this.#hystart.onRound()) this.threshold = this.window;
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
    const alpha = this.#wEst < this.#wPrior ? ALPHA : 1;
    this.#wEst += (alpha * acked) / this.window;
    const t = elapsed / 1e6;
    const now = C * (t - this.#k) ** 3 + this.#wMax;
    let grow: number;
    if (now < this.#wEst) {
      grow = Math.max(0, this.#wEst - cwnd) * mss;
    } else {
      const ahead = C * (t + srttUs / 1e6 - this.#k) ** 3 + this.#wMax;
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
    if (this.#wMax > cwnd) {
      this.#k = Math.cbrt((this.#wMax - cwnd) / C);
    } else {
      this.#wMax = cwnd;
      this.#k = 0;
    }
  }

  /** Sections 4.6 and 4.7. */
  onLoss(flight: number): void {
    this.#priorWindow = this.window;
    this.#priorThreshold = this.threshold;
    this.#priorWMax = this.#wMax;
    const cwnd = this.window / this.#mss;
    this.#wMax = cwnd < this.#wMax ? (cwnd * (1 + BETA)) / 2 : cwnd;
    this.#wPrior = cwnd;
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
    this.window = Math.max(this.window, this.#priorWindow);
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
