/**
 * Pacing: a segment may go when the time that the ones before it take at the given rate has passed.
 * A time further ahead than `AHEAD_MAX_US` is none: the clock has wrapped since it was set, or it never was.
 */

/** What an idle sender may send at once, in time at its rate. */
const BURST_US = 1_000;
const AHEAD_MAX_US = 60_000_000;

export class Pacer {
  /** From when on the next segment may go. */
  nextUs = 0;
  /** A part of a microsecond, in bytes times 1e6. */
  #rest = 0;

  mayGo(nowUs: number): boolean {
    const ahead = (this.nextUs - nowUs) | 0;
    return ahead <= 0 || ahead > AHEAD_MAX_US;
  }

  /** `bytes` are sent now, when they may go or before. */
  onSent(bytes: number, bytesPerSecond: number, nowUs: number): void {
    const ahead = (this.nextUs - nowUs) | 0;
    const isAhead = ahead >= -BURST_US && ahead <= AHEAD_MAX_US;
    const from = isAhead ? this.nextUs : (nowUs - BURST_US) | 0;
    const work = bytes * 1e6 + this.#rest;
    const us = Math.floor(work / bytesPerSecond);
    this.#rest = work - us * bytesPerSecond;
    const latest = (nowUs + AHEAD_MAX_US) | 0;
    const next = us > AHEAD_MAX_US ? latest : (from + us) | 0;
    this.nextUs = ((next - latest) | 0) > 0 ? latest : next;
  }
}
