/**
 * Where Node's event loop and the stack meet.
 *
 *   turn:  net.turn          handlers of the stack only note what has come, and say `ready`
 *          deliver           each that is ready calls the program's code, as Node would: in the async context of its
 *                            handle, with ticks and promises after every call
 *          net.flush         what the program answered leaves in the same turn
 *
 * - The program's code never runs inside the stack, nor inside a call that the program itself makes.
 * - What the program throws is an uncaught exception. The stack stands still until it was thrown; when the program
 *   survives it, everything goes on where it was.
 * - The process stays alive for as long as there is a handle that is active and not unref'd, as with Node's own; besides
 *   that for connections that were closed and have bytes under way, as a kernel would see them off.
 */
import type { AsyncResource } from 'node:async_hooks';
import type { Turn } from '../net/index.ts';
import type { Tcp } from '../net/tcp/api.ts';
import { runTicks } from './node.ts';
import { Orphans } from './orphans.ts';
import type { Routes } from './routes.ts';

type Callback = (...args: never[]) => unknown;

/** Something that has news for the program. */
export interface Ready {
  /** Set while it stands in the list. */
  isReady: boolean;
  deliver(): void;
}

/** The stack as the host drives it: TCP, and the turns of its interface. */
export interface Stack extends Turn {
  readonly tcp: Tcp;
}

/** Something that a process which ends still sees off. */
export interface Parting {
  /** Go on ending it in order; true when nothing is under way any more. */
  part(): boolean;
  /** Break it off. */
  breakOff(): void;
}

export interface HostOptions {
  readonly net: Stack;
  readonly routes: Routes;
  readonly nowMs: () => number;
  /** Poll soon, also when asleep. */
  readonly wake: () => void;
}

/**
 * Deliveries after which the device is given what was answered so far, a power of two: peers go on with it while the rest
 * of a large turn is told.
 */
const FLUSH_STRIDE = 32;
const FOR_EVER_MS = 2 ** 31 - 1;

export class Host {
  readonly net: Stack;
  readonly routes: Routes;
  readonly nowMs: () => number;
  readonly #wake: () => void;
  #ready: Ready[] = [];
  #delivering: Ready[] = [];
  #isInTurn = false;
  /** The exception that the event loop has yet to be given. */
  #isThrowing = false;
  #active = 0;
  readonly #keepAlive: NodeJS.Timeout;
  readonly orphans: Orphans;
  /** What is open, for `finish`. */
  readonly open = new Set<Parting>();

  constructor(options: HostOptions) {
    this.net = options.net;
    this.routes = options.routes;
    this.nowMs = options.nowMs;
    this.#wake = options.wake;
    this.#keepAlive = setInterval(() => {}, FOR_EVER_MS).unref();
    this.orphans = new Orphans(this);
    this.open.add(this.orphans);
  }

  /** Handles, and connections that are seen off, that keep the process alive. */
  get active(): number {
    return this.#active;
  }

  /** One poll of everything; the work there was. */
  turn(): number {
    // Not idle: the exception comes with the next turn of the event loop, and so do we.
    if (this.#isThrowing) return 1;
    this.#isInTurn = true;
    try {
      const work = this.net.turn() + this.#deliver();
      this.orphans.expire();
      this.net.flush();
      return work;
    } catch (error) {
      this.#throwLater(error);
      return 1;
    } finally {
      this.#isInTurn = false;
    }
  }

  /** Milliseconds until a turn is due although nothing comes; -1: none is. */
  timeoutMs(): number {
    const net = this.net.timeoutMs();
    const { nextMs } = this.orphans;
    if (nextMs === Number.POSITIVE_INFINITY) return net;
    const orphans = Math.max(0, Math.ceil(nextMs - this.nowMs()));
    return net < 0 ? orphans : Math.min(net, orphans);
  }

  /** `item` is to be asked to `deliver` in this turn, or soon. */
  ready(item: Ready): void {
    if (item.isReady) return;
    item.isReady = true;
    this.#ready.push(item);
    this.changed();
  }

  /** The program had the stack send something, or set a timer: a turn is needed soon. */
  changed(): void {
    if (!this.#isInTurn) this.#wake();
  }

  /** `change` more handles keep the process alive. */
  keep(change: number): void {
    const before = this.#active;
    this.#active += change;
    if (before === 0 && this.#active > 0) this.#keepAlive.ref();
    else if (before > 0 && this.#active === 0) this.#keepAlive.unref();
  }

  /** Call the program's `callback` as Node would, in `scope`; what it returned. Throws what it throws. */
  call(
    scope: AsyncResource,
    callback: Callback,
    self: unknown,
    a?: unknown,
    b?: unknown,
    c?: unknown,
    d?: unknown,
    e?: unknown,
  ): unknown {
    const call = callback as (...args: unknown[]) => unknown;
    const result = scope.runInAsyncScope(call, self, a, b, c, d, e);
    runTicks();
    return result;
  }

  /**
   * The process ends: end every connection in order, poll for `maxMs` at most until the peers have everything, and reset
   * what is left, so that no peer waits for one who is gone. Nothing of the program is called any more.
   */
  finish(maxMs: number): void {
    const untilMs = this.nowMs() + maxMs;
    for (let isDone = false; !isDone && this.nowMs() < untilMs; ) {
      isDone = true;
      for (const each of this.open) if (!each.part()) isDone = false;
      this.net.turn();
    }
    for (const each of this.open) each.breakOff();
    this.net.flush();
  }

  /** The program goes, or the VNIC: nobody is told anything any more. */
  close(): void {
    clearInterval(this.#keepAlive);
    this.#ready = [];
  }

  #deliver(): number {
    const list = this.#ready;
    if (list.length === 0) return 0;
    // What becomes ready meanwhile waits for the next turn: the event loop is to have its own in between.
    this.#ready = this.#delivering;
    this.#delivering = list;
    let next = 0;
    try {
      while (next < list.length) {
        const item = list[next++]!;
        item.isReady = false;
        item.deliver();
        if ((next & (FLUSH_STRIDE - 1)) === 0) this.net.flush();
      }
    } finally {
      for (; next < list.length; next++) this.#ready.push(list[next]!);
      list.length = 0;
    }
    return 1;
  }

  #throwLater(error: unknown): void {
    this.#isThrowing = true;
    setImmediate(() => {
      this.#isThrowing = false;
      this.changed();
      throw error;
    });
  }
}
