/** NewReno's window (RFC 5681, 6582) with appropriate byte counting (RFC 3465). */
import { type CongestionControl, initialWindow, THRESHOLD_NONE, WINDOW_MAX } from './congestion.ts';

/** Segments by which an acknowledgement may open the window in slow start (RFC 3465, section 2.3: L). */
const SLOW_START_SEGMENTS = 2;

export class NewReno implements CongestionControl {
  readonly name = 'newreno';
  window = 0;
  threshold = THRESHOLD_NONE;
  #mss = 0;
  /** Bytes acknowledged towards the next increase. */
  #acked = 0;
  /** After a timeout, an acknowledgement may be of much that had arrived before: L is 1 (RFC 3465, section 2.3). */
  #isAfterRto = false;
  #priorWindow = 0;
  #priorThreshold = 0;

  start(mss: number): void {
    this.#mss = mss;
    this.window = initialWindow(mss);
  }

  setMss(mss: number): void {
    this.#mss = mss;
    this.window = Math.max(this.window, mss);
  }

  onAck(acked: number, isLimited: boolean): void {
    if (!isLimited) return;
    const mss = this.#mss;
    if (this.window < this.threshold) {
      const most = this.#isAfterRto ? mss : SLOW_START_SEGMENTS * mss;
      this.window = Math.min(this.window + Math.min(acked, most), WINDOW_MAX);
      return;
    }
    this.#isAfterRto = false;
    this.#acked += acked;
    if (this.#acked < this.window) return;
    this.#acked -= this.window;
    this.window = Math.min(this.window + mss, WINDOW_MAX);
  }

  onRound(): void {}

  onLoss(flight: number): void {
    this.#remember();
    this.threshold = Math.max(flight >> 1, 2 * this.#mss);
    this.#acked = 0;
  }

  onExitRecovery(): void {
    this.window = this.threshold;
    this.#acked = 0;
  }

  onRto(flight: number, isFirst: boolean): void {
    if (isFirst) this.onLoss(flight);
    this.window = this.#mss;
    this.#isAfterRto = true;
  }

  onUndo(): void {
    this.window = Math.max(this.window, this.#priorWindow);
    this.threshold = Math.max(this.threshold, this.#priorThreshold);
    this.#isAfterRto = false;
  }

  onRestartAfterIdle(): void {
    this.threshold = Math.max(this.threshold, this.window - (this.window >> 2));
    this.window = Math.min(this.window, initialWindow(this.#mss));
  }

  pacingHint(srttUs: number): number {
    const gain = this.window < this.threshold ? 2 : 1.2;
    return srttUs === 0 ? 0 : Math.round((gain * this.window * 1e6) / srttUs);
  }

  #remember(): void {
    this.#priorWindow = this.window;
    this.#priorThreshold = this.threshold;
  }
}
