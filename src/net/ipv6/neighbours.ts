/**
 * The IPv6 neighbour cache (RFC 4861, section 7.3): which MAC address a neighbour has, and whether it is still there.
 *
 *   (free) --send--> incomplete --answer--> reachable --reachableMs--> stale --use--> delay --5 s--> probe
 *                        |                      ^                                                      |
 *                   no answer: free             +---------------------- answer ------------------------+-- none: free
 *
 * - Bounded: sets of a few entries, frames waiting for one neighbour and for any, solicitations a second. What is known to
 *   work is never displaced by a question or a stranger (RFC 6583).
 * - Another MAC for a known neighbour never replaces the entry on its word, even where RFC 4861 would have it so (override):
 *   the next use asks everybody, while the MAC serves on. An answer to that counts, whoever it is now.
 * - When the address is shared with the kernel, neighbour discovery is not ours: nothing is sent, and neighbours are what
 *   `learnFromTraffic` saw or `setPermanent` said.
 */

import { copy, hash, isSame } from '../../base/ipv6.ts';
import * as ethernet from '../../wire/ethernet.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import { TokenBucket } from '../token-bucket.ts';
import type { AddressTable } from './addresses.ts';
import type { ControlOutput } from './control.ts';
import { PendingFrames } from './pending.ts';

const FREE = 0;
const INCOMPLETE = 1;
const STALE = 2;
const DELAY = 3;
const PROBE = 4;
const REACHABLE = 5;
const PERMANENT = 6;

const WAYS = NET_LIMITS.ndWays;
const ENTRIES = NET_LIMITS.ndSets * WAYS;
const STATE_NAMES = [
  'free',
  'incomplete',
  'stale',
  'delay',
  'probe',
  'reachable',
  'permanent',
] as const;
export type Neighbour6State = (typeof STATE_NAMES)[number];

export class Neighbours6 {
  /** What a router may change. */
  reachableMs: number = NET_LIMITS.ndReachableMs;
  retransMs: number = NET_LIMITS.ndRetransMs;
  nextDueMs = Number.POSITIVE_INFINITY;
  readonly #link: Link;
  readonly #control: ControlOutput;
  readonly #addresses: AddressTable;
  readonly #asks: boolean;
  readonly #words = new Int32Array(ENTRIES * 4);
  readonly #state = new Uint8Array(ENTRIES);
  readonly #macHi = new Uint16Array(ENTRIES);
  readonly #macLo = new Int32Array(ENTRIES);
  /** The MAC is in doubt: ask everybody, not only its owner. */
  readonly #doubt = new Uint8Array(ENTRIES);
  readonly #confirmedMs = new Float64Array(ENTRIES);
  readonly #tries = new Uint8Array(ENTRIES);
  /** When a question is due. */
  readonly #dueMs = new Float64Array(ENTRIES).fill(Number.POSITIVE_INFINITY);
  readonly #pending: PendingFrames;
  readonly #bucket = new TokenBucket(NET_LIMITS.ndSolicitsPerSecond, NET_LIMITS.ndSolicitBurst);

  /** `asks` is false when the kernel does neighbour discovery. */
  constructor(link: Link, control: ControlOutput, addresses: AddressTable, asks: boolean) {
    this.#link = link;
    this.#control = control;
    this.#addresses = addresses;
    this.#asks = asks;
    const { ndPendingPerNeighbour, ndPendingMax } = NET_LIMITS;
    this.#pending = new PendingFrames(link, ENTRIES, ndPendingPerNeighbour, ndPendingMax);
  }

  /** Send a frame whose headers are complete but for the Ethernet destination to the neighbour at `i` of `w`. Takes it. */
  deliver(w: Int32Array, i: number, frame: number, length: number): boolean {
    const link = this.#link;
    let entry = this.#find(w, i);
    if (entry >= 0 && this.#state[entry]! >= STALE) {
      if (this.#asks) this.#use(entry);
      ethernet.setDst(link.view, frame, this.#macHi[entry]!, this.#macLo[entry]!);
      return link.transmit(frame, length);
    }
    if (!this.#asks) {
      link.counters.noNeighbour++;
      link.free(frame);
      return false;
    }
    if (entry < 0) {
      entry = this.#claim(w, i, STALE);
      if (entry >= 0) this.#ask(entry, INCOMPLETE);
    }
    if (entry < 0) {
      link.counters.ndPendingFull++;
      link.free(frame);
      return false;
    }
    return this.#pending.add(entry, frame, length);
  }

  /** A neighbour that somebody who knows has told us; never displaced. False when its set is full of such. */
  setPermanent(w: Int32Array, i: number, hi: number, lo: number): boolean {
    let entry = this.#find(w, i);
    if (entry < 0) entry = this.#claim(w, i, REACHABLE);
    if (entry < 0) return false;
    this.#confirm(entry, hi, lo, PERMANENT);
    return true;
  }

  /** The address is shared with the kernel: who sent us a packet over this link is a neighbour. */
  learnFromTraffic(w: Int32Array, i: number, hi: number, lo: number): void {
    let entry = this.#find(w, i);
    if (entry < 0) entry = this.#claim(w, i, REACHABLE);
    if (entry >= 0 && this.#state[entry] !== PERMANENT) this.#confirm(entry, hi, lo, STALE);
  }

  /** Somebody says of himself in a question or a router's message that he is at this MAC (sections 6.2.6 and 7.2.3). */
  learn(w: Int32Array, i: number, hi: number, lo: number): void {
    const entry = this.#find(w, i);
    if (entry < 0) {
      const claimed = this.#claim(w, i, STALE);
      if (claimed >= 0) this.#confirm(claimed, hi, lo, STALE);
    } else if (this.#state[entry] === INCOMPLETE) {
      this.#confirm(entry, hi, lo, STALE);
    } else this.#contradict(entry, hi, lo);
  }

  /**
   * An advertisement about `w`: the MAC that it gives, and whether it says that it answers us (section 7.2.5). True when
   * it is from whom we take for the neighbour.
   */
  advertised(w: Int32Array, i: number, hi: number, lo: number, solicited: boolean): boolean {
    const entry = this.#find(w, i);
    if (entry < 0) return false;
    const state = this.#state[entry]!;
    const isAsked = state === INCOMPLETE || state === PROBE;
    if (isAsked) this.#confirm(entry, hi, lo, solicited ? REACHABLE : STALE);
    else this.#contradict(entry, hi, lo);
    return this.#isAt(entry, hi, lo);
  }

  /** The transport has heard from the neighbour what only an answer to us can be (section 7.3.1). */
  confirmReachable(w: Int32Array, i: number): void {
    const entry = this.#find(w, i);
    if (entry < 0 || this.#state[entry]! < STALE || this.#doubt[entry] === 1) return;
    if (this.#state[entry] === PERMANENT) return;
    this.#confirm(entry, this.#macHi[entry]!, this.#macLo[entry]!, REACHABLE);
  }

  /** True when there is, or was lately, an answer from it: of several routers, such are taken first (section 6.3.6). */
  isKnown(w: Int32Array, i: number): boolean {
    const entry = this.#find(w, i);
    return entry >= 0 && this.#state[entry]! >= STALE;
  }

  stateOf(w: Int32Array, i: number): Neighbour6State {
    const entry = this.#find(w, i);
    return STATE_NAMES[entry < 0 ? FREE : this.#state[entry]!]!;
  }

  /** Ask where an answer is due, give up where it has been for long. Returns how much there was to do. */
  tick(): number {
    const { nowMs } = this.#link;
    if (nowMs < this.nextDueMs) return 0;
    let due = 0;
    let next = Number.POSITIVE_INFINITY;
    for (let entry = 0; entry < ENTRIES; entry++) {
      if (this.#dueMs[entry]! <= nowMs) {
        due++;
        if (this.#state[entry] === DELAY) this.#state[entry] = PROBE;
        if (this.#tries[entry]! < NET_LIMITS.ndTriesMax) this.#solicit(entry, nowMs);
        else this.#forget(entry);
      }
      next = Math.min(next, this.#dueMs[entry]!);
    }
    this.nextDueMs = next;
    return due;
  }

  /** Give every waiting frame back to the pool and forget all. */
  clear(): void {
    for (let entry = 0; entry < ENTRIES; entry++) this.#forget(entry);
    this.nextDueMs = Number.POSITIVE_INFINITY;
  }

  #find(w: Int32Array, i: number): number {
    const first = this.#set(w, i);
    for (let entry = first; entry < first + WAYS; entry++) {
      if (this.#state[entry] !== FREE && isSame(this.#words, entry * 4, w, i)) return entry;
    }
    return -1;
  }

  #set(w: Int32Array, i: number): number {
    return (hash(w, i) & (NET_LIMITS.ndSets - 1)) * WAYS;
  }

  #isAt(entry: number, hi: number, lo: number): boolean {
    return this.#macHi[entry] === hi && this.#macLo[entry] === lo;
  }

  /** An entry for `w` in place of the least useful of its set, of a state up to `most`; -1 when all are worth more. */
  #claim(w: Int32Array, i: number, most: number): number {
    const first = this.#set(w, i);
    let best = -1;
    for (let entry = first; entry < first + WAYS; entry++) {
      const state = this.#state[entry]!;
      if (state > most) continue;
      const isBetter =
        best < 0 ||
        state < this.#state[best]! ||
        (state === this.#state[best] && this.#confirmedMs[entry]! < this.#confirmedMs[best]!);
      if (isBetter) best = entry;
    }
    if (best < 0) return -1;
    this.#forget(best);
    copy(w, i, this.#words, best * 4);
    this.#confirmedMs[best] = this.#link.nowMs;
    return best;
  }

  /** Somebody claims to be the neighbour, and we did not ask: another MAC puts the entry in doubt. */
  #contradict(entry: number, hi: number, lo: number): void {
    if (this.#state[entry] === PERMANENT || this.#state[entry] === INCOMPLETE) return;
    if (this.#isAt(entry, hi, lo)) return;
    this.#doubt[entry] = 1;
    // A question that is out already is not delayed; without one, the next use asks.
    if (this.#state[entry] !== PROBE) this.#rest(entry, STALE);
  }

  /** The MAC is this, and frames that waited for it leave. */
  #confirm(entry: number, hi: number, lo: number, state: number): void {
    this.#macHi[entry] = hi;
    this.#macLo[entry] = lo;
    this.#doubt[entry] = 0;
    this.#confirmedMs[entry] = this.#link.nowMs;
    this.#rest(entry, state);
    this.#pending.release(entry, hi, lo);
  }

  /** In `state` from now on, with nothing to ask. */
  #rest(entry: number, state: number): void {
    this.#state[entry] = state;
    this.#tries[entry] = 0;
    this.#dueMs[entry] = Number.POSITIVE_INFINITY;
  }

  /** An entry in use: stale when it was confirmed long ago, and then asked for while its MAC serves on. */
  #use(entry: number): void {
    const { nowMs } = this.#link;
    if (this.#state[entry] === REACHABLE) {
      if (nowMs - this.#confirmedMs[entry]! < this.reachableMs) return;
      this.#state[entry] = STALE;
    }
    if (this.#state[entry] !== STALE) return;
    if (this.#doubt[entry] === 1) {
      this.#ask(entry, PROBE);
      return;
    }
    this.#state[entry] = DELAY;
    this.#dueMs[entry] = nowMs + NET_LIMITS.ndDelayFirstProbeMs;
    this.nextDueMs = Math.min(this.nextDueMs, this.#dueMs[entry]!);
  }

  /** Ask in the next `tick`: frames are also sent between turns, when the time of the last one may be long past. */
  #ask(entry: number, state: number): void {
    this.#state[entry] = state;
    this.#tries[entry] = 0;
    this.#dueMs[entry] = Number.NEGATIVE_INFINITY;
    this.nextDueMs = Number.NEGATIVE_INFINITY;
  }

  #solicit(entry: number, nowMs: number): void {
    const link = this.#link;
    this.#tries[entry]!++;
    this.#dueMs[entry] = nowMs + this.retransMs;
    if (!this.#bucket.take(nowMs)) {
      link.counters.ndLimited++;
      return;
    }
    const { flow } = this.#control;
    const at = entry * 4;
    const source = this.#addresses.sourceFor(this.#words, at);
    if (source < 0) return;
    copy(this.#addresses.words, source * 4, flow, 0);
    const isProbe = this.#state[entry] === PROBE && this.#doubt[entry] === 0;
    this.#control.solicit(this.#words, at, isProbe, this.#macHi[entry]!, this.#macLo[entry]!);
  }

  #forget(entry: number): void {
    this.#pending.drop(entry);
    this.#rest(entry, FREE);
    this.#doubt[entry] = 0;
  }
}
