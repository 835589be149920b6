/**
 * What the software NIC does by the clock: limits of its ports, the rate of its link, coalesced doorbells. The clock is
 * read once a turn, and only while something needs it: without limits, weights and coalescing nothing here is called.
 */
import type { RateLimit } from '../device/rate.ts';
import type { Port } from './port.ts';
import { type Pacer, pacerOf } from './rate.ts';
import { Scheduler } from './schedule.ts';

/** A sleep that ends a shorter time before a frame may go is not worth its wake-up: buckets hold longer than this. */
const HELD_SLEEP_US_MIN = 200;

export class Pace {
  /** Time of this turn: an int32 of microseconds that wraps. As old as the last `tick`. */
  nowUs = 0;
  /** Whether turns need the time. */
  isTimed = false;
  /**
   * Somebody has sent who may send more: the next frame may come at once. Not so when all who send are held back by their
   * limits. Set by the pairs, and by the loop for the uplink; the loop takes note and sets it back.
   */
  isLively = false;
  /** What all ports together may send; null: as much as this process can carry. */
  link: Pacer | null = null;
  /** Divides the link, or this process, by weight; null: the ports take turns. */
  scheduler: Scheduler | null = null;
  readonly #clock: () => number;

  /** `clock` is monotonicUs32 of ffi/clock.ts. */
  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** Read the clock: at the begin of a turn, and before a limit is set. */
  tick(): void {
    this.nowUs = this.#clock();
    this.link?.advance(this.nowUs);
  }

  setLink(limit: RateLimit, ports: readonly Port[]): void {
    this.tick();
    this.link = pacerOf(limit, this.nowUs, this.link);
    this.reset(ports);
  }

  /** The ports, or what is set for them, have changed. */
  reset(ports: readonly Port[]): void {
    this.isTimed = this.link !== null || ports.some((port) => port.isTimed);
    const isShared = this.link !== null || ports.some(({ weight }) => weight !== ports[0]!.weight);
    this.scheduler = isShared ? (this.scheduler ?? new Scheduler()) : null;
    this.scheduler?.reset(ports);
  }

  get isLinkOpen(): boolean {
    return this.link === null || this.link.open;
  }

  /** How long a sleep may last; -1: until something happens. */
  sleepUs(ports: readonly Port[]): number {
    if (!this.isTimed) return -1;
    let heldUs = this.link?.waitUs || -1;
    let ringUs = -1;
    for (let i = 0; i < ports.length; i++) {
      const port = ports[i]!;
      heldUs = earlier(heldUs, port.sendWaitUs() || -1);
      ringUs = earlier(ringUs, port.ringWaitUs());
    }
    return earlier(heldUs > 0 ? Math.max(heldUs, HELD_SLEEP_US_MIN) : -1, ringUs);
  }
}

/** The earlier of two waits, of which -1 never ends. */
const earlier = (a: number, b: number): number => (a < 0 ? b : b < 0 ? a : Math.min(a, b));
