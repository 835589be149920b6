/**
 * Round-trip time and retransmission timeout (RFC 6298), in microseconds. Karn's rule is the caller's: a sample is of a
 * segment that was sent once, or of a timestamp (RFC 7323, section 4).
 */
import { elapsedUs } from './seq.ts';

export interface RtoLimits {
  /** RFC 6298 says one second; everybody has 200 ms. */
  readonly rtoMinUs: number;
  readonly rtoMaxUs: number;
}

export const RTO_LIMITS: RtoLimits = { rtoMinUs: 200_000, rtoMaxUs: 120_000_000 };

/** Until there is a sample (RFC 6298, section 2.1). */
export const RTO_INITIAL_US = 1_000_000;
/** For how long a smallest sample counts (RFC 8985, section 6.2: of a recent window). */
const MIN_WINDOW_US = 300_000_000;

export class RttEstimator {
  /** Smoothed round trip; 0 before the first sample. */
  srttUs = 0;
  varianceUs = 0;
  /** The last sample; 0 before the first. */
  latestUs = 0;
  /** Smallest sample of the last minutes; 0 before the first. */
  minUs = 0;
  /** Retransmission timeout with its backoff. */
  rtoUs = RTO_INITIAL_US;
  #minAtUs = 0;

  /**
   * Take a sample. `perRound`: how many come in a round trip, by which the gains are divided (RFC 7323, appendix G).
   * Ends the backoff.
   */
  sample(rttUs: number, nowUs: number, limits: RtoLimits, perRound = 1): void {
    const r = Math.max(1, rttUs);
    this.latestUs = r;
    if (this.minUs === 0 || r <= this.minUs || elapsedUs(nowUs, this.#minAtUs) > MIN_WINDOW_US) {
      this.minUs = r;
      this.#minAtUs = nowUs;
    }
    if (this.srttUs === 0) {
      this.srttUs = r;
      this.varianceUs = r >> 1;
    } else {
      const off = Math.abs(this.srttUs - r);
      this.varianceUs += Math.round((off - this.varianceUs) / (4 * perRound));
      this.srttUs = Math.max(1, this.srttUs + Math.round((r - this.srttUs) / (8 * perRound)));
    }
    this.endBackoff(limits);
  }

  /** The timer expired: twice as long, up to the maximum (section 5.5). */
  backOff(limits: RtoLimits): void {
    this.rtoUs = Math.min(limits.rtoMaxUs, this.rtoUs * 2);
  }

  /** The timeout without backoff (section 2.3, with a clock of 1 µs). */
  endBackoff(limits: RtoLimits): void {
    const rto = this.srttUs === 0 ? RTO_INITIAL_US : this.srttUs + Math.max(1, 4 * this.varianceUs);
    this.rtoUs = Math.min(limits.rtoMaxUs, Math.max(limits.rtoMinUs, rto));
  }
}
