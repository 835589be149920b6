/**
 * A pacer: the token bucket of RFC 2697 kept as the time that the frames so far take at the limit (ITU-T I.371, the
 * generic cell rate algorithm). A frame may pass while that time is at most BURST_US ahead of the clock; then its own time
 * is added, so a frame of any length passes and is paid for afterwards.
 *
 *              passes         waits
 *   now ------------------|--------------> backlog
 *                      BURST_US
 *
 * No clock of its own: `nowUs` is an int32 that wraps, as ffi/clock.ts gives it.
 */
import { BURST_US, costsUs, type RateLimit } from '../device/rate.ts';

// Doubles in an array are changed in place; as fields they might be boxed.
const BACKLOG = 0;
const LAST = 1;

/** A small integer, beyond what goes in a turn. */
const ROOM_MAX = 2 ** 30;

export class Pacer {
  readonly limit: RateLimit;
  readonly #usPerByte: number;
  readonly #usPerFrame: number;
  readonly #state = new Float64Array(2);

  /**
   * Nothing is saved up at first, and what is owed under the limit `before` is owed still, as time: whoever changes a
   * limit again and again gains nothing by it.
   */
  constructor(limit: RateLimit, nowUs: number, before: Pacer | null = null) {
    const { perByte, perFrame } = costsUs(limit);
    this.limit = limit;
    this.#usPerByte = perByte;
    this.#usPerFrame = perFrame;
    before?.advance(nowUs);
    this.#state[BACKLOG] = BURST_US + (before?.waitUs ?? 0);
    this.#state[LAST] = nowUs;
  }

  /** Let the time pass until `nowUs`. */
  advance(nowUs: number): void {
    const state = this.#state;
    // After a pause of over 71 minutes this is too short: the bucket may then not be full yet, and never too full.
    const elapsed = (nowUs - state[LAST]!) >>> 0;
    state[LAST] = nowUs;
    state[BACKLOG] = Math.max(0, state[BACKLOG]! - elapsed);
  }

  /** Whether a frame may pass at the time of the last `advance`. */
  get open(): boolean {
    return this.#state[BACKLOG]! <= BURST_US;
  }

  /** Microseconds from the last `advance` until a frame may pass, rounded up; 0: now. */
  get waitUs(): number {
    return Math.max(0, Math.ceil(this.#state[BACKLOG]! - BURST_US));
  }

  /** Bytes after which it closes, if they pass now. 0 when it is not open. */
  get roomBytes(): number {
    if (!this.open) return 0;
    if (this.#usPerByte === 0) return ROOM_MAX;
    const bytes = (BURST_US - this.#state[BACKLOG]!) / this.#usPerByte;
    return Math.floor(Math.min(bytes, ROOM_MAX - 1)) + 1;
  }

  /** A frame of `length` bytes has passed. */
  charge(length: number): void {
    this.#state[BACKLOG]! += Math.max(length * this.#usPerByte, this.#usPerFrame);
  }
}

/**
 * What one queue may carry in one direction: its own limit and that of its VNIC, whose pacer all its queues share. A
 * frame has to pass both.
 */
export class QueueLimits {
  #shared: Pacer | null = null;
  #own: Pacer | null = null;
  /** False: nothing is limited, and no other call is needed. */
  isSet = false;

  /** `shared` is the VNIC's, null for none. */
  share(shared: Pacer | null): void {
    this.#shared = shared;
    this.isSet = shared !== null || this.#own !== null;
  }

  set(limit: RateLimit, nowUs: number): void {
    this.#own = pacerOf(limit, nowUs, this.#own);
    this.isSet = this.#shared !== null || this.#own !== null;
  }

  advance(nowUs: number): void {
    this.#shared?.advance(nowUs);
    this.#own?.advance(nowUs);
  }

  get open(): boolean {
    return (this.#shared === null || this.#shared.open) && (this.#own === null || this.#own.open);
  }

  /** As of the last `advance`. */
  get waitUs(): number {
    return Math.max(this.#shared?.waitUs ?? 0, this.#own?.waitUs ?? 0);
  }

  charge(length: number): void {
    this.#shared?.charge(length);
    this.#own?.charge(length);
  }

  /** Let a frame pass, if it may: a policer. One that may not is charged to nobody. */
  admit(length: number, nowUs: number): boolean {
    this.advance(nowUs);
    if (!this.open) return false;
    this.charge(length);
    return true;
  }
}

/** The limit's pacer; null for none. What is owed under the limit before stays owed. */
export function pacerOf(limit: RateLimit, nowUs: number, before: Pacer | null): Pacer | null {
  if (limit.bitsPerSecond === null && limit.packetsPerSecond === null) return null;
  const isSame =
    before !== null &&
    before.limit.bitsPerSecond === limit.bitsPerSecond &&
    before.limit.packetsPerSecond === limit.packetsPerSecond;
  return isSame ? before : new Pacer(limit, nowUs, before);
}
