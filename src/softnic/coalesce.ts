/**
 * When to ring a queue's doorbell that is to be coalesced. The driver's wish to be called is remembered until it is
 * rung: a frame waits at most `usecs`, whatever happens meanwhile. A driver that polls again in between is rung in
 * vain once, which it takes for a wake-up without frames.
 */
import type { Coalescing } from '../device/coalescing.ts';

export class Coalescer {
  readonly #usecs: number;
  readonly #frames: number;
  #isOwed = false;
  #sinceUs = 0;
  #waiting = 0;

  constructor({ usecs, frames }: Coalescing) {
    this.#usecs = usecs;
    this.#frames = frames;
  }

  /** `count` frames were shown to the driver; `wanted`: it asked to be called for them. */
  add(count: number, wanted: boolean, nowUs: number): void {
    if (wanted && !this.#isOwed) {
      this.#isOwed = true;
      this.#sinceUs = nowUs;
    }
    if (this.#isOwed) this.#waiting += count;
  }

  /** Whether to ring now. It is then rung: nothing is owed. */
  take(nowUs: number): boolean {
    if (!this.#isOwed) return false;
    const isFull = this.#frames > 0 && this.#waiting >= this.#frames;
    if (!isFull && this.waitUs(nowUs) > 0) return false;
    this.#isOwed = false;
    this.#waiting = 0;
    return true;
  }

  /** Microseconds until the ring is due; -1 when none is owed. */
  waitUs(nowUs: number): number {
    if (!this.#isOwed) return -1;
    return Math.max(0, this.#usecs - ((nowUs - this.#sinceUs) >>> 0));
  }
}
