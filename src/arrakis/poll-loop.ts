/**
 * The loop of an application on a NIC queue: polls while there is work, sleeps when there is none, and leaves Node's
 * event loop its turns.
 *
 *   spin: turn() until `spinUs` without work      -> sleep
 *         or until `turnUs` have passed           -> setImmediate, then spin on (timers, promises, sockets ran)
 *         with `yieldIdle`, after each poll without work -> setImmediate, then on
 *   sleep: arm the doorbell                       -> wait for it; when frames came meanwhile, spin at once
 *
 * While it spins without work it offers its core to whoever else is runnable there: the device that it waits for may be.
 * The clock is read once in 32 polls, so a poll that finds nothing costs what `turn` costs. Nothing is allocated
 * per turn but what setImmediate takes, once in `turnUs`.
 */
import { NIC_STATE, type NicQueue } from '../device/nic.ts';
import { monotonicUs32 } from '../ffi/clock.ts';
import { schedYield } from '../ffi/process.ts';
import { FdWatch } from '../ffi/watch.ts';

/** Polls between two looks at the clock; a power of two. */
const CLOCK_STRIDE = 32;
/** How often a device without a doorbell is looked at when idle. */
const NO_DOORBELL_MS = 1;
const WAIT_MS_MAX = 0x7fffffff;

export interface PollLoopOptions {
  /** Go to sleep after so long without work. Default 200. */
  readonly spinUs?: number;
  /** Give the event loop a turn at least this often. Default 1000. */
  readonly turnUs?: number;
  /** Microseconds from any origin, also as an int32 that wraps. Default: the monotonic clock. */
  readonly clock?: () => number;
  /** When asleep, look again after so many ms even without a doorbell; -1: only the doorbell counts. Asked at each sleep. */
  readonly timeoutMs?: () => number;
  /**
   * Give the event loop its turn after each poll that found nothing: a program of many other things then does not wait
   * for the spin, which costs some microseconds of latency. Default false.
   */
  readonly yieldIdle?: boolean;
  /** False: the sleeping loop alone does not keep the process alive. Default true. */
  readonly ref?: boolean;
  /** Told what `turn` threw, and the loop is over. Default: an uncaught exception. */
  readonly onError?: (error: unknown) => void;
}

export interface PollLoop {
  /** End it; takes effect before the next call of `turn`. Idempotent. */
  stop(): void;
  /** Poll now, even if asleep: there is something to send. */
  wake(): void;
  /** Resolves when it ended: by `stop`, or because the queue is closed, gone or broken. */
  readonly done: Promise<void>;
  /** Times it went to sleep. */
  readonly sleeps: number;
}

type LoopQueue = Pick<NicQueue, 'arm' | 'disarm' | 'doorbellFd' | 'state'>;

/**
 * Drive `turn`, which does one poll and returns how much work it found, until it is stopped. Stop it before the queue
 * is closed: the loop waits on the queue's doorbell. `Vnic.poll` sees to that.
 */
export function pollLoop(
  queue: LoopQueue,
  turn: () => number,
  options: PollLoopOptions = {},
): PollLoop {
  return new Loop(queue, turn, options);
}

class Loop implements PollLoop {
  readonly done: Promise<void>;
  sleeps = 0;
  readonly #queue: LoopQueue;
  readonly #turn: () => number;
  readonly #spinUs: number;
  readonly #turnUs: number;
  readonly #clock: () => number;
  readonly #timeoutMs: () => number;
  readonly #onError: ((error: unknown) => void) | undefined;
  readonly #yieldIdle: boolean;
  readonly #isRef: boolean;
  readonly #watch: FdWatch | null;
  #finish!: () => void;
  #stopped = false;
  #asleep = false;
  #timer: NodeJS.Timeout | null = null;
  #polls = 0;
  /** A run of polls without work was noticed, at `#idleSinceUs`. */
  #isIdle = false;
  #idleSinceUs = 0;
  readonly #run = (): void => {
    if (this.#stopped) return;
    try {
      if (this.#spin()) setImmediate(this.#run);
    } catch (error) {
      this.stop();
      if (this.#onError === undefined) throw error;
      this.#onError(error);
    }
  };

  constructor(queue: LoopQueue, turn: () => number, options: PollLoopOptions) {
    this.#queue = queue;
    this.#turn = turn;
    this.#spinUs = options.spinUs ?? 200;
    this.#turnUs = options.turnUs ?? 1000;
    this.#clock = options.clock ?? monotonicUs32;
    this.#timeoutMs = options.timeoutMs ?? (() => -1);
    this.#onError = options.onError;
    this.#yieldIdle = options.yieldIdle ?? false;
    this.#isRef = options.ref ?? true;
    this.done = new Promise((resolve) => {
      this.#finish = resolve;
    });
    // One watch for the life of the loop: while it spins, a doorbell that rings costs a callback a turn at most.
    this.#watch =
      queue.doorbellFd < 0 ? null : new FdWatch(queue.doorbellFd, () => this.#onDoorbell());
    if (!this.#isRef) this.#watch?.unref();
    setImmediate(this.#run);
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#watch?.close();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#finish();
  }

  wake(): void {
    if (!this.#asleep || this.#stopped) return;
    this.#awake();
    setImmediate(this.#run);
  }

  /** One turn of the event loop. True to be called again in the next, false when asleep or stopped. */
  #spin(): boolean {
    const turn = this.#turn;
    const beginUs = this.#clock();
    for (;;) {
      const work = turn();
      if (this.#stopped) return false;
      if (work > 0) this.#isIdle = false;
      const isYielding = this.#yieldIdle && work === 0;
      if ((++this.#polls & (CLOCK_STRIDE - 1)) !== 0) {
        if (isYielding) return true;
        continue;
      }
      const nowUs = this.#clock();
      if (work === 0) {
        if (!this.#isIdle) {
          this.#isIdle = true;
          this.#idleSinceUs = nowUs;
        } else if (((nowUs - this.#idleSinceUs) | 0) >= this.#spinUs && this.#sleep()) return false;
        if (!this.#yieldIdle) schedYield();
      }
      if (isYielding || ((nowUs - beginUs) | 0) >= this.#turnUs) return true;
    }
  }

  /** True when asleep (or over); false when there is something to poll for. */
  #sleep(): boolean {
    if (this.#queue.state !== NIC_STATE.up) {
      this.stop();
      return true;
    }
    this.#isIdle = false;
    if (!this.#queue.arm()) return false;
    this.#asleep = true;
    this.sleeps++;
    const wanted = this.#timeoutMs();
    const waitMs = this.#watch === null ? NO_DOORBELL_MS : wanted;
    if (waitMs >= 0) {
      this.#timer = setTimeout(() => this.#onTimer(), Math.min(waitMs, WAIT_MS_MAX));
      if (!this.#isRef) this.#timer.unref();
    }
    return true;
  }

  #awake(): void {
    this.#asleep = false;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#queue.disarm();
  }

  #onTimer(): void {
    this.#timer = null;
    if (!this.#asleep || this.#stopped) return;
    this.#awake();
    this.#run();
  }

  #onDoorbell(): void {
    if (!this.#asleep || this.#stopped) return;
    this.#awake();
    this.#run();
  }
}
