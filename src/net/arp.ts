/**
 * The neighbour cache: which MAC address an IPv4 address on this link has (RFC 826; RFC 1122, section 2.3.2).
 *
 *   (free) --send--> incomplete --answer--> reachable --arpReachableMs or a contradiction--> stale
 *                        |                      ^                                              |
 *                   no answer: free             +------ answer ------ (used, asked again) -----+-- no answer: free
 *
 * - Bounded: sets of a few entries, the least useful displaced; frames waiting per neighbour and in all.
 * - Entries come from ARP packets that are addressed to us. Another MAC for a known neighbour never replaces the entry
 *   on its word: the entry turns stale, and the next use asks. Gratuitous ARP can do no more than that.
 * - When the address is shared with the kernel, ARP is not ours: nothing is sent, and neighbours are what
 *   `learnFromTraffic` saw or `setPermanent` said.
 * - With several threads on one address, the first hears all ARP and passes it on (neighbours.ts); each has its own cache.
 */
import { NO_FRAME } from '../device/nic.ts';
import * as wire from '../wire/arp.ts';
import * as ethernet from '../wire/ethernet.ts';
import type { AddressGuard } from './address-guard.ts';
import { NET_LIMITS } from './limits.ts';
import type { Link } from './link.ts';
import { HEARD, NeighbourRing, type NeighbourShare } from './neighbours.ts';

const FREE = 0;
const INCOMPLETE = 1;
const STALE = 2;
const REACHABLE = 3;
const PERMANENT = 4;

const WAYS = NET_LIMITS.arpWays;
const ENTRIES = NET_LIMITS.arpSets * WAYS;
const PENDING = NET_LIMITS.arpPendingPerNeighbour;
const STATE_NAMES = ['free', 'incomplete', 'stale', 'reachable', 'permanent'] as const;
export type NeighbourState = (typeof STATE_NAMES)[number];

export class ArpCache {
  readonly #link: Link;
  #address: number;
  #mask: number;
  /** ARP is ours: we answer, too. */
  readonly #speaks: boolean;
  #asks: boolean;
  /** Asks in our place, and the answer comes by `mirror`; null: we ask by ARP, or nobody does. */
  #askOther: ((ip: number) => void) | null = null;
  /** Whose word counts: without `mirror`, who sends us something shows where it is. */
  #believesTraffic = true;
  readonly #state = new Uint8Array(ENTRIES);
  readonly #ip = new Int32Array(ENTRIES);
  readonly #macHi = new Uint16Array(ENTRIES);
  readonly #macLo = new Int32Array(ENTRIES);
  /** When the entry was last confirmed. */
  readonly #confirmedMs = new Float64Array(ENTRIES);
  /** 0 when no answer is wanted; otherwise one more than the requests sent for it, and when the next is due. */
  readonly #tries = new Uint8Array(ENTRIES);
  readonly #dueMs = new Float64Array(ENTRIES);
  /** Hears every ARP packet, when our address is to be defended. */
  guard: AddressGuard | null = null;
  readonly #pendingFrame = new Uint32Array(ENTRIES * PENDING);
  readonly #pendingLength = new Uint16Array(ENTRIES * PENDING);
  /** What the device is to do with each: Burst.flags. */
  readonly #pendingFlags = new Uint8Array(ENTRIES * PENDING);
  readonly #pendingCount = new Uint8Array(ENTRIES);
  #pendingTotal = 0;
  #nextDueMs = Number.POSITIVE_INFINITY;
  /** Rings to the other threads, and the one that this thread hears by. */
  readonly #tells: readonly NeighbourRing[];
  readonly #hears: NeighbourRing | null;

  /** `address` (int32) is ours, `mask` its subnet's; `asks` is false when the kernel does ARP for it. */
  constructor(
    link: Link,
    address: number,
    mask: number,
    asks: boolean,
    share: NeighbourShare | null = null,
  ) {
    this.#link = link;
    this.#address = address;
    this.#mask = mask;
    this.#asks = asks;
    this.#speaks = asks;
    const tells = share !== null && 'tells' in share ? share.tells : [];
    this.#tells = tells.map((ring) => new NeighbourRing(ring));
    this.#hears = share !== null && 'hears' in share ? new NeighbourRing(share.hears) : null;
  }

  /** Another address and subnet from now on. What is known of neighbours stays. */
  configure(address: number, mask: number): void {
    this.#address = address;
    this.#mask = mask;
  }

  /** When `tick` next has something to do; Infinity when nothing waits. No doorbell rings for what other threads pass on. */
  get nextDueMs(): number {
    const due = this.#nextDueMs;
    if (this.#hears === null || due === Number.POSITIVE_INFINITY) return due;
    return Math.min(due, this.#link.nowMs + NET_LIMITS.arpHearMs);
  }

  /** Handle a received ARP packet at `at`. Counts its outcome; takes the frame when it becomes the reply. */
  receive(frame: number, at: number, end: number): void {
    const { view, counters } = this.#link;
    if (wire.check(view, at, end) < 0) {
      counters.badArp++;
      return;
    }
    const hi = wire.senderMacHi(view, at);
    const lo = wire.senderMacLo(view, at);
    const sender = wire.senderIp(view, at);
    if (ethernet.isGroup(hi) || (hi === 0 && lo === 0)) {
      counters.badArp++;
      return;
    }
    if (this.#speaks) this.guard?.heard(sender, wire.targetIp(view, at), hi, lo);
    if (sender === this.#address && sender !== 0) {
      counters.arpConflict++;
    } else if (!this.#speaks || wire.targetIp(view, at) !== this.#address) {
      counters.notForUs++;
      if (!this.#speaks) return;
      this.#hear(sender, hi, lo);
      this.#tell(sender, hi, lo, HEARD.other);
    } else {
      counters.rxArp++;
      const isRequest = wire.operation(view, at) === wire.OP_REQUEST;
      this.#learn(sender, hi, lo, isRequest);
      this.#tell(sender, hi, lo, isRequest ? HEARD.request : HEARD.reply);
      if (isRequest) this.#answer(frame, at, sender, hi, lo);
    }
  }

  /** The kernel does ARP for our address, and finds neighbours for us when `ask` is called with an address (int32). */
  askBy(ask: (ip: number) => void): void {
    this.#asks = true;
    this.#askOther = ask;
    this.#believesTraffic = false;
  }

  /**
   * Who does ARP for us says where `ip` is: `isSure`, now, otherwise some time ago. With that what waited is sent.
   */
  mirror(ip: number, hi: number, lo: number, isSure: boolean): void {
    let entry = this.#find(ip);
    if (entry < 0) entry = this.#claim(ip, STALE);
    if (entry < 0 || this.#state[entry] === PERMANENT) return;
    const isKnown =
      this.#state[entry] !== INCOMPLETE && this.#macHi[entry] === hi && this.#macLo[entry] === lo;
    if (isSure) this.#confirm(entry, hi, lo, REACHABLE);
    else if (!isKnown) this.#confirm(entry, hi, lo, STALE);
  }

  /** Who does ARP for us no longer knows `ip`. What waits for an answer goes on waiting. */
  unmirror(ip: number): void {
    const entry = this.#find(ip);
    if (entry < 0 || this.#state[entry] === PERMANENT || this.#state[entry] === INCOMPLETE) return;
    this.#forget(entry);
  }

  #tell(ip: number, hi: number, lo: number, heard: number): void {
    for (const ring of this.#tells) ring.put(ip, hi, lo, heard);
  }

  /** Take in what the first thread passed on. How much it was. */
  #listen(ring: NeighbourRing): number {
    let count = 0;
    for (; count < NET_LIMITS.batchMax && ring.take(); count++) {
      if (ring.heard === HEARD.other) this.#hear(ring.ip, ring.macHi, ring.macLo);
      else this.#learn(ring.ip, ring.macHi, ring.macLo, ring.heard === HEARD.request);
    }
    // What was waited for may have come: `tick` finds out when it next has to run.
    if (count > 0) this.#nextDueMs = Number.NEGATIVE_INFINITY;
    return count;
  }

  /** Send an IPv4 frame whose headers are complete but for the Ethernet destination. Takes the frame. */
  deliver(nextHop: number, frame: number, length: number): boolean {
    let entry = this.#find(nextHop);
    if (entry >= 0 && this.#state[entry]! >= STALE) {
      if (this.#asks) this.#age(entry);
      ethernet.setDst(this.#link.view, frame, this.#macHi[entry]!, this.#macLo[entry]!);
      return this.#link.transmit(frame, length);
    }
    // What the device is to do with the frame waits with it, and is not for the request that goes out now. More pieces do
    // not: TCP sends them again.
    const { burst } = this.#link;
    const { flags } = burst;
    const isWhole = burst.count === 0;
    this.#link.dropBurst();
    if (!this.#asks) {
      this.#link.counters.noNeighbour++;
      this.#link.free(frame);
      return false;
    }
    if (entry < 0) {
      entry = this.#claim(nextHop, INCOMPLETE);
      if (entry >= 0) this.#want(entry);
    }
    if (isWhole) return this.#wait(entry, frame, length, flags);
    this.#link.counters.arpPendingFull++;
    this.#link.free(frame);
    return false;
  }

  /** A neighbour that somebody who knows has told us; never displaced. False when its set is full of such. */
  setPermanent(ip: number, hi: number, lo: number): boolean {
    let entry = this.#find(ip);
    if (entry < 0) entry = this.#claim(ip, PERMANENT);
    if (entry < 0) return false;
    this.#confirm(entry, hi, lo, PERMANENT);
    return true;
  }

  /** The address is shared with the kernel: who sent us a packet over this link is a neighbour. */
  learnFromTraffic(ip: number, hi: number, lo: number): void {
    if (!this.#believesTraffic) return;
    let entry = this.#find(ip);
    if (entry < 0) entry = this.#claim(ip, STALE);
    if (entry >= 0 && this.#state[entry] !== PERMANENT) this.#confirm(entry, hi, lo, REACHABLE);
  }

  /**
   * Take in what was passed on, ask again where an answer is overdue, give up where it has been for long. Returns how
   * much there was to do.
   */
  tick(): number {
    const nowMs = this.#link.nowMs;
    let due = this.#hears === null ? 0 : this.#listen(this.#hears);
    if (nowMs < this.#nextDueMs) return due;
    let next = Number.POSITIVE_INFINITY;
    for (let entry = 0; entry < ENTRIES; entry++) {
      if (this.#tries[entry] === 0) continue;
      if (this.#dueMs[entry]! <= nowMs) {
        due++;
        if (this.#tries[entry]! <= NET_LIMITS.arpTriesMax) this.#ask(entry);
        else this.#forget(entry);
      }
      if (this.#tries[entry]! > 0) next = Math.min(next, this.#dueMs[entry]!);
    }
    this.#nextDueMs = next;
    return due;
  }

  /** What is known of `ip` (int32), for people and tests. */
  stateOf(ip: number): NeighbourState {
    const entry = this.#find(ip);
    return STATE_NAMES[entry < 0 ? FREE : this.#state[entry]!]!;
  }

  /** Give every waiting frame back to the pool and forget all. */
  clear(): void {
    for (let entry = 0; entry < ENTRIES; entry++) this.#forget(entry);
    this.#nextDueMs = Number.POSITIVE_INFINITY;
  }

  #find(ip: number): number {
    const first = this.#set(ip);
    for (let entry = first; entry < first + WAYS; entry++) {
      if (this.#ip[entry] === ip && this.#state[entry] !== FREE) return entry;
    }
    return -1;
  }

  /** First entry of the set of `ip`: Fibonacci hashing, so that neighbouring addresses spread. */
  #set(ip: number): number {
    return ((Math.imul(ip, 0x9e3779b1) >>> 16) & (NET_LIMITS.arpSets - 1)) * WAYS;
  }

  /** An entry for `ip` in place of the least useful of its set: free, incomplete, stale, reachable; then the oldest. */
  #claim(ip: number, state: number): number {
    const first = this.#set(ip);
    let best = -1;
    for (let entry = first; entry < first + WAYS; entry++) {
      if (this.#state[entry] === PERMANENT) continue;
      const isBetter =
        best < 0 ||
        this.#state[entry]! < this.#state[best]! ||
        (this.#state[entry] === this.#state[best] &&
          this.#confirmedMs[entry]! < this.#confirmedMs[best]!);
      if (isBetter) best = entry;
    }
    if (best < 0) return -1;
    this.#forget(best);
    this.#ip[best] = ip;
    this.#state[best] = state;
    this.#confirmedMs[best] = this.#link.nowMs;
    return best;
  }

  /** An ARP packet addressed to us says that `ip` is at this MAC. */
  #learn(ip: number, hi: number, lo: number, isRequest: boolean): void {
    let entry = this.#find(ip);
    if (entry < 0) {
      // An answer to a question that we did not ask teaches nothing. A probe has no sender address yet (RFC 5227,
      // section 2.1.1), and a stranger to the subnet is no neighbour.
      if (!isRequest || ip === 0 || ((ip ^ this.#address) & this.#mask) !== 0) return;
      entry = this.#claim(ip, STALE);
      if (entry >= 0) this.#confirm(entry, hi, lo, REACHABLE);
    } else if (this.#tries[entry]! > 0) {
      this.#confirm(entry, hi, lo, REACHABLE);
    } else {
      this.#hear(ip, hi, lo);
    }
  }

  /** Somebody claims `ip`, and we did not ask: agreement refreshes the entry, contradiction puts it in doubt. */
  #hear(ip: number, hi: number, lo: number): void {
    const entry = this.#find(ip);
    if (entry < 0 || this.#state[entry] === PERMANENT || this.#state[entry] === INCOMPLETE) return;
    if (this.#macHi[entry] === hi && this.#macLo[entry] === lo) {
      this.#confirm(entry, hi, lo, REACHABLE);
    } else {
      this.#state[entry] = STALE;
    }
  }

  #confirm(entry: number, hi: number, lo: number, state: number): void {
    this.#macHi[entry] = hi;
    this.#macLo[entry] = lo;
    this.#state[entry] = state;
    this.#tries[entry] = 0;
    this.#confirmedMs[entry] = this.#link.nowMs;
    const first = entry * PENDING;
    const count = this.#pendingCount[entry]!;
    this.#pendingCount[entry] = 0;
    this.#pendingTotal -= count;
    for (let i = first; i < first + count; i++) {
      ethernet.setDst(this.#link.view, this.#pendingFrame[i]!, hi, lo);
      this.#link.burst.flags = this.#pendingFlags[i]!;
      this.#link.transmit(this.#pendingFrame[i]!, this.#pendingLength[i]!);
    }
  }

  /** An entry in use: stale when it was confirmed long ago, and then asked for while its MAC serves on. */
  #age(entry: number): void {
    if (this.#state[entry] === REACHABLE) {
      if (this.#link.nowMs - this.#confirmedMs[entry]! < NET_LIMITS.arpReachableMs) return;
      this.#state[entry] = STALE;
    }
    if (this.#state[entry] === STALE && this.#tries[entry] === 0) this.#want(entry);
  }

  /** Let `frame` wait for the answer; the newest frames are the ones worth keeping (RFC 1122, section 2.3.2.2). */
  #wait(entry: number, frame: number, length: number, flags: number): boolean {
    const link = this.#link;
    if (
      entry < 0 ||
      (this.#pendingTotal === NET_LIMITS.arpPendingMax && this.#pendingCount[entry] === 0)
    ) {
      link.counters.arpPendingFull++;
      link.free(frame);
      return false;
    }
    const first = entry * PENDING;
    if (this.#pendingCount[entry] === PENDING || this.#pendingTotal === NET_LIMITS.arpPendingMax) {
      link.counters.arpPendingFull++;
      link.free(this.#pendingFrame[first]!);
      this.#pendingFrame.copyWithin(first, first + 1, first + PENDING);
      this.#pendingLength.copyWithin(first, first + 1, first + PENDING);
      this.#pendingFlags.copyWithin(first, first + 1, first + PENDING);
      this.#pendingCount[entry]!--;
      this.#pendingTotal--;
    }
    link.take(frame);
    link.counters.arpPending++;
    const last = first + this.#pendingCount[entry]!++;
    this.#pendingFrame[last] = frame;
    this.#pendingLength[last] = length;
    this.#pendingFlags[last] = flags;
    this.#pendingTotal++;
    return true;
  }

  /** Free the entry, and the frames that wait for it. */
  #forget(entry: number): void {
    const first = entry * PENDING;
    const count = this.#pendingCount[entry]!;
    this.#link.counters.arpFailed += count;
    for (let i = first; i < first + count; i++) this.#link.free(this.#pendingFrame[i]!);
    this.#pendingTotal -= count;
    this.#pendingCount[entry] = 0;
    this.#tries[entry] = 0;
    this.#state[entry] = FREE;
  }

  /** Ask in the next `tick`: frames are also sent between turns, when the time of the last one may be long past. */
  #want(entry: number): void {
    this.#tries[entry] = 1;
    this.#dueMs[entry] = Number.NEGATIVE_INFINITY;
    this.#nextDueMs = Number.NEGATIVE_INFINITY;
  }

  /** Broadcast "who has" for an entry and set its timer. */
  #ask(entry: number): void {
    const link = this.#link;
    this.#tries[entry]!++;
    this.#dueMs[entry] = link.nowMs + NET_LIMITS.arpRetryMs;
    if (this.#askOther !== null) {
      this.#askOther(this.#ip[entry]!);
      return;
    }
    const frame = link.alloc();
    if (frame === NO_FRAME) {
      link.counters.noFrame++;
      return;
    }
    const at = frame + ethernet.HEADER_LEN;
    link.emitEthernet(frame, 0xffff, -1);
    ethernet.setType(link.view, frame, ethernet.TYPE_ARP);
    wire.emit(link.view, at, wire.OP_REQUEST);
    wire.setSender(link.view, at, link.macHi, link.macLo, this.#address);
    wire.setTarget(link.view, at, 0, 0, this.#ip[entry]!);
    link.counters.arpRequests++;
    link.transmit(frame, ethernet.HEADER_LEN + wire.PACKET_LEN);
  }

  /** Turn a request for our address into its reply, in place. */
  #answer(frame: number, at: number, ip: number, hi: number, lo: number): void {
    const link = this.#link;
    ethernet.setDst(link.view, frame, hi, lo);
    ethernet.setSrc(link.view, frame, link.macHi, link.macLo);
    wire.emit(link.view, at, wire.OP_REPLY);
    wire.setSender(link.view, at, link.macHi, link.macLo, this.#address);
    wire.setTarget(link.view, at, hi, lo, ip);
    link.counters.arpReplies++;
    link.transmit(frame, ethernet.HEADER_LEN + wire.PACKET_LEN);
  }
}
