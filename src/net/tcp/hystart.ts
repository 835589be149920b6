/**
 * HyStart++ (RFC 9406): leave slow start when round trips grow, before the queue overflows. After the first sign comes
 * conservative slow start; should round trips shrink again, the sign was none.
 */

/** Section 4.3. */
const RTT_THRESHOLD_MIN_US = 4_000;
const RTT_THRESHOLD_MAX_US = 16_000;
const RTT_DIVISOR = 8;
const RTT_SAMPLES = 8;
const CSS_ROUNDS = 5;
export const CSS_GROWTH_DIVISOR = 4;

export class HyStart {
  /** In conservative slow start: grow by a quarter. */
  isConservative = false;
  #roundMinUs = 0;
  #lastRoundMinUs = 0;
  /** Smallest round trip of the round in which conservative slow start began. */
  #baselineUs = 0;
  #samples = 0;
  #cssRounds = 0;

  /** Slow start begins (again). */
  reset(): void {
    this.isConservative = false;
    this.#roundMinUs = this.#lastRoundMinUs = this.#baselineUs = 0;
    this.#samples = this.#cssRounds = 0;
  }

  /** A round trip ended. True when slow start is over. */
  onRound(): boolean {
    this.#lastRoundMinUs = this.#roundMinUs;
    this.#roundMinUs = 0;
    this.#samples = 0;
    return this.isConservative && ++this.#cssRounds >= CSS_ROUNDS;
  }

  onSample(rttUs: number): void {
    if (this.#roundMinUs === 0 || rttUs < this.#roundMinUs) this.#roundMinUs = rttUs;
    if (++this.#samples < RTT_SAMPLES) return;
    if (this.isConservative) {
      if (this.#roundMinUs < this.#baselineUs) this.isConservative = false;
      return;
    }
    if (this.#lastRoundMinUs === 0) return;
    const threshold = Math.max(
      RTT_THRESHOLD_MIN_US,
      Math.min(Math.floor(this.#lastRoundMinUs / RTT_DIVISOR), RTT_THRESHOLD_MAX_US),
    );
    if (this.#roundMinUs < this.#lastRoundMinUs + threshold) return;
    this.isConservative = true;
    this.#baselineUs = this.#roundMinUs;
    this.#cssRounds = 0;
  }
}
