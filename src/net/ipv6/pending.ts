/** Frames that wait until their neighbour's MAC address is known: a few for each entry, and a bound on all. */
import * as ethernet from '../../wire/ethernet.ts';
import type { Link } from '../link.ts';

export class PendingFrames {
  readonly #link: Link;
  readonly #each: number;
  readonly #max: number;
  readonly #frames: Uint32Array;
  readonly #lengths: Uint16Array;
  /** What the device is to do with each: Burst.flags. */
  readonly #flags: Uint8Array;
  readonly #counts: Uint8Array;
  #total = 0;

  constructor(link: Link, entries: number, each: number, max: number) {
    this.#link = link;
    this.#each = each;
    this.#max = max;
    this.#frames = new Uint32Array(entries * each);
    this.#lengths = new Uint16Array(entries * each);
    this.#flags = new Uint8Array(entries * each);
    this.#counts = new Uint8Array(entries);
  }

  /**
   * Let `frame` wait; it is taken. The newest frames are the ones worth keeping. False when there is no room at all, or more
   * pieces would have to wait: TCP sends such again.
   */
  add(entry: number, frame: number, length: number): boolean {
    const link = this.#link;
    if (link.burst.count > 0) {
      link.counters.ndPendingFull++;
      link.free(frame);
      return false;
    }
    const first = entry * this.#each;
    const isFull = this.#total === this.#max;
    if (isFull && this.#counts[entry] === 0) {
      link.counters.ndPendingFull++;
      link.free(frame);
      return false;
    }
    if (isFull || this.#counts[entry] === this.#each) {
      link.counters.ndPendingFull++;
      link.free(this.#frames[first]!);
      this.#frames.copyWithin(first, first + 1, first + this.#each);
      this.#lengths.copyWithin(first, first + 1, first + this.#each);
      this.#flags.copyWithin(first, first + 1, first + this.#each);
      this.#counts[entry]!--;
      this.#total--;
    }
    link.take(frame);
    link.counters.ndPending++;
    const last = first + this.#counts[entry]!++;
    this.#frames[last] = frame;
    this.#lengths[last] = length;
    this.#flags[last] = link.burst.flags;
    link.burst.clear();
    this.#total++;
    return true;
  }

  /** Send what waits for `entry` to this MAC address. */
  release(entry: number, hi: number, lo: number): void {
    const first = entry * this.#each;
    const count = this.#empty(entry);
    for (let i = first; i < first + count; i++) {
      ethernet.setDst(this.#link.view, this.#frames[i]!, hi, lo);
      this.#link.burst.flags = this.#flags[i]!;
      this.#link.transmit(this.#frames[i]!, this.#lengths[i]!);
    }
  }

  /** Nobody answers for `entry`. */
  drop(entry: number): void {
    const first = entry * this.#each;
    const count = this.#empty(entry);
    this.#link.counters.ndFailed += count;
    for (let i = first; i < first + count; i++) this.#link.free(this.#frames[i]!);
  }

  #empty(entry: number): number {
    const count = this.#counts[entry]!;
    this.#counts[entry] = 0;
    this.#total -= count;
    return count;
  }
}
