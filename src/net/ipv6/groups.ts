/**
 * Multicast groups of the interface, and their reports by MLDv2 (RFC 3810).
 *
 * - A change is reported mldRobustness times, each within mldReportMs; a query is answered by all groups in one report.
 * - All nodes (ff02::1) is joined always and never reported (section 6).
 * - Queries for one group, and those of version 1, are answered as if they were for all.
 */

import { copy, isSame, set } from '../../base/ipv6.ts';
import { NO_FRAME } from '../../device/nic.ts';
import * as mld from '../../wire/mld.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import { ALERTED_MESSAGE, type ControlOutput } from './control.ts';

const MAX = NET_LIMITS.groups6Max;
const { isExclude, toInclude, toExclude } = mld.RECORD_KIND;

export class Groups6 {
  readonly #link: Link;
  readonly #control: ControlOutput;
  readonly #random: () => number;
  readonly #words = new Int32Array(MAX * 4);
  /** Who wants it, and how many reports its last change is still worth. Neither: the entry is free. */
  readonly #users = new Uint8Array(MAX);
  readonly #changes = new Uint8Array(MAX);
  #changeDueMs = Number.POSITIVE_INFINITY;
  #answerDueMs = Number.POSITIVE_INFINITY;
  /** Writes the address to report from into the first words of the control flow. */
  source: (to: Int32Array) => void = (to) => set(to, 0, 0, 0, 0, 0);

  /** `random` gives numbers from 0 to 1. */
  constructor(link: Link, control: ControlOutput, random: () => number) {
    this.#link = link;
    this.#control = control;
    this.#random = random;
  }

  get nextDueMs(): number {
    return Math.min(this.#changeDueMs, this.#answerDueMs);
  }

  /** True for all nodes and for what was joined. */
  has(w: Int32Array, i: number): boolean {
    if (w[i + 3] === 1 && w[i + 1] === 0 && w[i + 2] === 0) {
      if (w[i] === (0xff020000 | 0) || w[i] === (0xff010000 | 0)) return true;
    }
    const entry = this.#find(w, i);
    return entry >= 0 && this.#users[entry]! > 0;
  }

  /** One more user of the group at `i` of `w`. False when there are too many groups. */
  join(w: Int32Array, i: number): boolean {
    let entry = this.#find(w, i);
    if (entry < 0) {
      entry = this.#users.findIndex((users, e) => users === 0 && this.#changes[e] === 0);
      if (entry < 0) return false;
      copy(w, i, this.#words, entry * 4);
    }
    if (this.#users[entry] === 255) return false;
    if (this.#users[entry]!++ === 0) this.#change(entry);
    return true;
  }

  /** One user less; without effect when there is none. */
  leave(w: Int32Array, i: number): void {
    const entry = this.#find(w, i);
    if (entry < 0 || this.#users[entry] === 0) return;
    if (--this.#users[entry]! === 0) this.#change(entry);
  }

  /** A router asks at `at`, to be answered within the time that it says. */
  query(at: number): void {
    const waitMs = mld.maxResponseMs(this.#link.view, at) * this.#random();
    this.#answerDueMs = Math.min(this.#answerDueMs, this.#link.nowMs + waitMs);
  }

  tick(): number {
    const { nowMs } = this.#link;
    let sent = 0;
    if (this.#changeDueMs <= nowMs) sent += this.#reportChanges(nowMs);
    if (this.#answerDueMs <= nowMs) {
      this.#answerDueMs = Number.POSITIVE_INFINITY;
      this.#report((entry) => (this.#users[entry]! > 0 ? isExclude : 0));
      sent++;
    }
    return sent;
  }

  #find(w: Int32Array, i: number): number {
    for (let entry = 0; entry < MAX; entry++) {
      if (this.#users[entry] === 0 && this.#changes[entry] === 0) continue;
      if (isSame(this.#words, entry * 4, w, i)) return entry;
    }
    return -1;
  }

  #change(entry: number): void {
    this.#changes[entry] = NET_LIMITS.mldRobustness;
    this.#changeDueMs = Number.NEGATIVE_INFINITY;
  }

  #reportChanges(nowMs: number): number {
    this.#report((entry) => {
      if (this.#changes[entry] === 0) return 0;
      return this.#users[entry]! > 0 ? toExclude : toInclude;
    });
    let left = 0;
    for (let entry = 0; entry < MAX; entry++) {
      if (this.#changes[entry]! > 0 && --this.#changes[entry]! > 0) left++;
    }
    const waitMs = NET_LIMITS.mldReportMs * this.#random();
    this.#changeDueMs = left > 0 ? nowMs + waitMs : Number.POSITIVE_INFINITY;
    return 1;
  }

  /** Report the groups for which `kindOf` gives a kind. */
  #report(kindOf: (entry: number) => number): void {
    const frame = this.#control.alloc();
    if (frame === NO_FRAME) return;
    const { view } = this.#link;
    const at = frame + ALERTED_MESSAGE;
    let count = 0;
    for (let entry = 0; entry < MAX; entry++) {
      const kind = kindOf(entry);
      if (kind !== 0) mld.emitRecord(view, at, count++, kind, this.#words, entry * 4);
    }
    if (count === 0) {
      this.#link.free(frame);
      return;
    }
    mld.emitReport(view, at, count);
    this.source(this.#control.flow);
    this.#control.report(frame, mld.reportLength(count));
  }
}
