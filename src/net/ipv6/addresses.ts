/**
 * The interface's own IPv6 addresses (RFC 4862), and which of them to send from (RFC 6724).
 *
 *   (free) --add--> tentative --dadTransmits unanswered--> preferred --preferred lifetime--> deprecated --valid--> (free)
 *                       |
 *                   somebody has it: duplicate, and stays that, so that no router brings it back
 *
 * A tentative address receives nothing but neighbour discovery about itself (section 5.4).
 */

import {
  commonPrefix,
  copy,
  isSame,
  isUniqueLocal,
  SCOPE,
  scopeOf,
  set,
  solicitedNode,
} from '../../base/ipv6.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import type { ControlOutput } from './control.ts';
import type { Groups6 } from './groups.ts';

const FREE = 0;
const DUPLICATE = 1;
const TENTATIVE = 2;
const DEPRECATED = 3;
const PREFERRED = 4;
const STATE_NAMES = ['free', 'duplicate', 'tentative', 'deprecated', 'preferred'] as const;
export type AddressState = (typeof STATE_NAMES)[number];

/** Where an address is from. */
export const ORIGIN = { linkLocal: 0, configured: 1, router: 2 } as const;

const MAX = NET_LIMITS.addresses6Max;

export interface AddressOptions {
  readonly dadTransmits: number;
  /** The kernel has them, too: nothing is asked, sent or joined for them. */
  readonly isShared: boolean;
  /** Between solicitations; a router may change it. */
  retransMs: number;
}

/** What the owner of the table is told. */
export interface AddressEvents {
  assigned(index: number): void;
  duplicate(index: number): void;
}

export class AddressTable {
  /** Four words for each index. */
  readonly words = new Int32Array(MAX * 4);
  readonly prefix = new Uint8Array(MAX);
  readonly origin = new Uint8Array(MAX);
  /** How many duplicates came before it (RFC 7217: DAD_Counter). */
  readonly attempt = new Uint8Array(MAX);
  readonly validUntilMs = new Float64Array(MAX);
  readonly preferredUntilMs = new Float64Array(MAX);
  readonly options: AddressOptions;
  events: AddressEvents = { assigned: () => {}, duplicate: () => {} };
  nextDueMs = Number.POSITIVE_INFINITY;
  readonly #link: Link;
  readonly #control: ControlOutput;
  readonly #groups: Groups6;
  readonly #state = new Uint8Array(MAX);
  readonly #sent = new Uint8Array(MAX);
  readonly #dueMs = new Float64Array(MAX);
  readonly #group = new Int32Array(4);

  constructor(link: Link, control: ControlOutput, groups: Groups6, options: AddressOptions) {
    this.#link = link;
    this.#control = control;
    this.#groups = groups;
    this.options = options;
  }

  /** Index of the address at `i` of `w`, whatever its state; -1: we do not have it. */
  find(w: Int32Array, i: number): number {
    const { words } = this;
    for (let index = 0; index < MAX; index++) {
      if (isSame(words, index * 4, w, i) && this.#state[index] !== FREE) return index;
    }
    return -1;
  }

  /** True when packets to it are ours, and we may send from it. */
  has(w: Int32Array, i: number): boolean {
    const index = this.find(w, i);
    return index >= 0 && this.#state[index]! >= DEPRECATED;
  }

  isTentative(index: number): boolean {
    return this.#state[index] === TENTATIVE;
  }

  isAssigned(index: number): boolean {
    return this.#state[index]! >= DEPRECATED;
  }

  stateOf(index: number): AddressState {
    return STATE_NAMES[index < 0 ? FREE : this.#state[index]!]!;
  }

  /** The indices in use, for people and tests. */
  used(): number[] {
    return [...this.#state.keys()].filter((index) => this.#state[index] !== FREE);
  }

  /** Have the address at `i` of `w` from now on. Its index; -1 when there are too many, or it is there. */
  add(w: Int32Array, i: number, prefix: number, origin: number, attempt = 0): number {
    const index = this.#state.indexOf(FREE);
    if (index < 0 || this.find(w, i) >= 0) return -1;
    const { isShared } = this.options;
    solicitedNode(w, i, this.#group, 0);
    if (!isShared && !this.#groups.join(this.#group, 0)) return -1;
    copy(w, i, this.words, index * 4);
    this.prefix[index] = prefix;
    this.origin[index] = origin;
    this.attempt[index] = attempt;
    this.validUntilMs[index] = Number.POSITIVE_INFINITY;
    this.preferredUntilMs[index] = Number.POSITIVE_INFINITY;
    this.#state[index] = isShared ? PREFERRED : TENTATIVE;
    this.#sent[index] = 0;
    this.#dueMs[index] = isShared ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
    if (!isShared) this.nextDueMs = Number.NEGATIVE_INFINITY;
    return index;
  }

  /** How long an address from a router lasts, in ms from now; Infinity: without end. */
  setLifetimes(index: number, validMs: number, preferredMs: number): void {
    const { nowMs } = this.#link;
    this.validUntilMs[index] = nowMs + validMs;
    this.preferredUntilMs[index] = nowMs + preferredMs;
    if (this.#state[index] === DEPRECATED && preferredMs > 0) this.#state[index] = PREFERRED;
    this.nextDueMs = Number.NEGATIVE_INFINITY;
  }

  /** Somebody else has a tentative address, or is about to have it. */
  conflict(index: number): void {
    this.#state[index] = DUPLICATE;
    this.#dueMs[index] = Number.POSITIVE_INFINITY;
    this.#link.counters.addressDuplicate++;
    this.#leave(index);
    this.events.duplicate(index);
  }

  /** Index of the address to send from to the one at `i` of `w` (RFC 6724, section 5); -1: there is none. */
  sourceFor(w: Int32Array, i: number): number {
    let best = -1;
    for (let index = 0; index < MAX; index++) {
      if (this.#state[index]! < DEPRECATED) continue;
      if (best < 0 || this.#isBetter(index, best, w, i)) best = index;
    }
    // A link-local source reaches nobody beyond its link.
    if (best < 0 || scopeOf(this.words, best * 4) >= scopeOf(w, i)) return best;
    return scopeOf(w, i) <= SCOPE.link || scopeOf(this.words, best * 4) > SCOPE.link ? best : -1;
  }

  #isBetter(a: number, b: number, w: Int32Array, i: number): boolean {
    const { words } = this;
    const [x, y] = [a * 4, b * 4];
    // Rule 2: the smallest scope that is not smaller than the destination's; else the largest.
    const [scope, scopeA, scopeB] = [scopeOf(w, i), scopeOf(words, x), scopeOf(words, y)];
    if (scopeA !== scopeB) {
      return scopeA < scopeB ? scopeA >= scope : scopeB < scope;
    }
    // Rule 3: preferred before deprecated.
    if (this.#state[a] !== this.#state[b]) return this.#state[a]! > this.#state[b]!;
    // Rule 6: unique local addresses among themselves.
    const local = isUniqueLocal(w, i);
    const isMatch = isUniqueLocal(words, x) === local;
    if (isMatch !== (isUniqueLocal(words, y) === local)) return isMatch;
    // Rules 1 and 8: the longest common prefix, as far as the subnet reaches.
    const commonA = Math.min(commonPrefix(words, x, w, i), this.prefix[a]!);
    const commonB = Math.min(commonPrefix(words, y, w, i), this.prefix[b]!);
    return commonA > commonB;
  }

  /** Ask whether others have tentative addresses, and end what has lasted. How much there was to do. */
  tick(): number {
    const { nowMs } = this.#link;
    if (nowMs < this.nextDueMs) return 0;
    let done = 0;
    let next = Number.POSITIVE_INFINITY;
    for (let index = 0; index < MAX; index++) {
      if (this.#state[index] === FREE) continue;
      if (this.#state[index] === TENTATIVE && this.#dueMs[index]! <= nowMs) {
        this.#probe(index);
        done++;
      }
      this.#expire(index, nowMs);
      const state = this.#state[index]!;
      if (state === TENTATIVE) next = Math.min(next, this.#dueMs[index]!);
      if (state === PREFERRED) next = Math.min(next, this.preferredUntilMs[index]!);
      if (state !== FREE) next = Math.min(next, this.validUntilMs[index]!);
    }
    this.nextDueMs = next;
    return done;
  }

  #probe(index: number): void {
    if (this.#sent[index] === this.options.dadTransmits) {
      this.#state[index] = PREFERRED;
      this.events.assigned(index);
      return;
    }
    set(this.#control.flow, 0, 0, 0, 0, 0);
    if (this.#control.solicit(this.words, index * 4, false, 0, 0)) this.#sent[index]!++;
    this.#dueMs[index] = this.#link.nowMs + this.options.retransMs;
  }

  #expire(index: number, nowMs: number): void {
    if (this.#state[index] === PREFERRED && this.preferredUntilMs[index]! <= nowMs) {
      this.#state[index] = DEPRECATED;
    }
    if (this.validUntilMs[index]! > nowMs) return;
    if (this.#state[index] !== DUPLICATE) this.#leave(index);
    this.#state[index] = FREE;
  }

  #leave(index: number): void {
    if (this.options.isShared) return;
    solicitedNode(this.words, index * 4, this.#group, 0);
    this.#groups.leave(this.#group, 0);
  }
}
