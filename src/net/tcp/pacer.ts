/** Pacing: a segment may go when the time that the ones before it take at the given rate has passed. */

/** What an idle sender may send at once, in time at its rate. */
const BURST_US = 1_000;

export class Pacer {
  /** From when on the next segment may go. */
  nextUs = 0;
  /** A part of a microsecond, in bytes times 1e6. */
  #rest = 0;

  mayGo(nowUs: number): boolean {
    return ((this.nextUs - nowUs) | 0) <= 0;
  }

  onSent(bytes: number, bytesPerSecond: number, nowUs: number): void {
    const earliest = (nowUs - BURST_US) | 0;
    // What lies more than a second ahead is of before a wrap, or of another rate.
    const ahead = (this.nextUs - earliest) | 0;
    const from = ahead < 0 || ahead > 60_000_000 ? earliest : this.nextUs;
    const work = bytes * 1e6 + this.#rest;
    const us = Math.floor(work / bytesPerSecond);
    this.#rest = work - us * bytesPerSecond;
    this.nextUs = (from + us) | 0;
  }
}
