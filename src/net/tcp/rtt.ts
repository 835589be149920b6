/**
 * Round-trip time and retransmission timeout (RFC 6298), in microseconds. Karn's rule is the caller's: a sample is of a
 * segment that was sent once, or of a timestamp (RFC 7323, section 4).
 */
import { elapsedUs } from './seq.ts';

export interface RtoLimits {
  /** Least time beyond the round trip. RFC 6298 says one second in all; everybody has 200 ms. */
  readonly rtoMinUs: number;
  readonly rtoMaxUs: number;
}

export const RTO_LIMITS: RtoLimits = { rtoMinUs: 200_000, rtoMaxUs: 120_000_000 };

/** Until there is a sample (section 2.1), and after a SYN that was sent again (section 5.7). */
export const RTO_INITIAL_US = 1_000_000;
const RTO_AFTER_SYN_LOSS_US = 3_000_000;
/** For how long a smallest sample counts (RFC 8985, section 6.2: of a recent window). */
const MIN_WINDOW_US = 300_000_000;
/** A longer round trip is taken for this: its eightfold is an int32. */
const SAMPLE_MAX_US = 1 << 27;

export class RttEstimator {
  /** The last sample; 0 before the first. */
  latestUs = 0;
  /** Smallest sample of the last minutes; 0 before the first. */
  minUs = 0;
  /** Retransmission timeout with its backoff. */
  rtoUs = RTO_INITIAL_US;
  /** Eight times the smoothed round trip, and four times its variation: their gains then cost no precision. */
  #srtt8 = 0;
  #variance4 = 0;
  #minAtUs = 0;

  /** Smoothed round trip; 0 before the first sample. */
  get srttUs(): number {
    return this.#srtt8 >> 3;
  }
  get varianceUs(): number {
    return this.#variance4 >> 2;
  }

  /** Take a sample. Ends the backoff. */
  sample(rttUs: number, nowUs: number, limits: RtoLimits): void {
    const r = Math.min(SAMPLE_MAX_US, Math.max(1, rttUs));
    this.latestUs = r;
    if (this.minUs === 0 || r <= this.minUs || elapsedUs(nowUs, this.#minAtUs) > MIN_WINDOW_US) {
      this.minUs = r;
      this.#minAtUs = nowUs;
    }
    if (this.#srtt8 === 0) {
      this.#srtt8 = r << 3;
      this.#variance4 = r << 1;
    } else {
      const off = Math.abs((this.#srtt8 >> 3) - r);
      this.#variance4 += off - (this.#variance4 >> 2);
      this.#srtt8 = Math.max(8, this.#srtt8 + r - (this.#srtt8 >> 3));
    }
    this.endBackoff(limits);
  }

  /** The timer expired: twice as long, up to the maximum (section 5.5). */
  backOff(limits: RtoLimits): void {
    this.rtoUs = Math.min(limits.rtoMaxUs, this.rtoUs * 2);
  }

  /**
   * The timeout without backoff (section 2.3). The minimum is of what is added to the round trip: a long path without
   * variation would otherwise expire just before the answer comes.
   */
  endBackoff(limits: RtoLimits): void {
    const rto =
      this.#srtt8 === 0 ? RTO_INITIAL_US : this.srttUs + Math.max(limits.rtoMinUs, this.#variance4);
    this.rtoUs = Math.min(limits.rtoMaxUs, rto);
  }

  /** The SYN was sent again, and data comes next without a sample: three seconds (section 5.7). */
  afterSynLoss(): void {
    if (this.#srtt8 === 0) this.rtoUs = RTO_AFTER_SYN_LOSS_US;
  }
}
