/**
 * IPv4 address conflict detection (RFC 5227): is an address free, telling the link that it is ours, and defending it.
 *
 *   probe: wait 0-1 s, PROBE_NUM probes 1-2 s apart, 2 s of silence --> free, or somebody has it
 *   announce: ANNOUNCE_NUM announcements 2 s apart
 *   conflict while it is ours --> the owner is told, and we announce once more, at most every 10 s (section 2.4, (c))
 *
 * - What our own MAC address sent (a switch that sends it back) is no conflict.
 * - A router that answers for others (proxy ARP) answers for whole other networks: it is believed as any other. Our address
 *   on its tongue is a conflict, as a second owner is.
 */
import { NO_FRAME } from '../device/nic.ts';
import * as wire from '../wire/arp.ts';
import * as ethernet from '../wire/ethernet.ts';
import { NET_LIMITS } from './limits.ts';
import type { Link } from './link.ts';

export interface GuardOptions {
  /**
   * Somebody else uses our address; `macHi` and `macLo` (int32) say who. It has been defended, unless it was so less than ten
   * seconds ago (`again`): then the owner had better give it up.
   */
  readonly onConflict?: (macHi: number, macLo: number, again: boolean) => void;
}

interface Probe {
  readonly address: number;
  left: number;
  readonly done: (isFree: boolean) => void;
}

export class AddressGuard {
  readonly #link: Link;
  readonly #random: () => number;
  readonly #addressOf: () => number;
  readonly #defends: boolean;
  readonly #onConflict: NonNullable<GuardOptions['onConflict']>;
  #probe: Probe | null = null;
  #probeDueMs = Number.POSITIVE_INFINITY;
  #announcements = 0;
  #announceDueMs = Number.POSITIVE_INFINITY;
  #defendedMs = Number.NEGATIVE_INFINITY;

  /** `options` null: our address is not defended. */
  constructor(
    link: Link,
    options: GuardOptions | null,
    random: () => number,
    addressOf: () => number,
  ) {
    this.#link = link;
    this.#defends = options !== null;
    this.#onConflict = options?.onConflict ?? (() => {});
    this.#random = random;
    this.#addressOf = addressOf;
  }

  get nextDueMs(): number {
    return Math.min(this.#probeDueMs, this.#announceDueMs);
  }

  /** Find out whether nobody on the link has `address` (int32); one at a time, a new one ends the one before. */
  probe(address: number, done: (isFree: boolean) => void): void {
    this.#probe = { address, left: NET_LIMITS.probeCount, done };
    this.#probeDueMs = this.#link.nowMs + this.#randomMs(0, NET_LIMITS.probeWaitMs);
  }

  /** Tell the link that our address is ours, from the next turn on. */
  announce(): void {
    this.#announcements = NET_LIMITS.announceCount;
    this.#announceDueMs = Number.NEGATIVE_INFINITY;
  }

  /** A well-formed ARP packet was received. */
  heard(sender: number, target: number, hi: number, lo: number): void {
    const link = this.#link;
    if (hi === link.macHi && lo === link.macLo) return;
    const probe = this.#probe;
    // Somebody has it, or is about to: another probe for it (section 2.1.1).
    if (
      probe !== null &&
      (sender === probe.address || (sender === 0 && target === probe.address))
    ) {
      this.#end(false);
      return;
    }
    const own = this.#addressOf();
    if (!this.#defends || own === 0 || sender !== own) return;
    const again = link.nowMs - this.#defendedMs < NET_LIMITS.defendMs;
    if (!again) {
      this.#defendedMs = link.nowMs;
      this.#send(own, own);
    }
    this.#onConflict(hi, lo, again);
  }

  /** Send what is due. How much it was. */
  tick(): number {
    const { nowMs } = this.#link;
    let done = 0;
    if (nowMs >= this.#probeDueMs) {
      this.#tickProbe();
      done++;
    }
    if (nowMs >= this.#announceDueMs) {
      const own = this.#addressOf();
      if (own !== 0) this.#send(own, own);
      this.#announcements--;
      this.#announceDueMs =
        this.#announcements > 0 ? nowMs + NET_LIMITS.announceMs : Number.POSITIVE_INFINITY;
      done++;
    }
    return done;
  }

  #tickProbe(): void {
    const probe = this.#probe!;
    if (probe.left === 0) {
      this.#end(true);
      return;
    }
    probe.left--;
    this.#send(0, probe.address);
    const pauseMs =
      probe.left > 0
        ? this.#randomMs(NET_LIMITS.probeMinMs, NET_LIMITS.probeMaxMs)
        : NET_LIMITS.announceMs;
    this.#probeDueMs = this.#link.nowMs + pauseMs;
  }

  #end(isFree: boolean): void {
    const { done } = this.#probe!;
    this.#probe = null;
    this.#probeDueMs = Number.POSITIVE_INFINITY;
    done(isFree);
  }

  #randomMs(min: number, max: number): number {
    return min + (this.#random() / 2 ** 32) * (max - min);
  }

  /** Broadcast a request for `target` from `sender`: 0 is a probe, our own for our own an announcement. */
  #send(sender: number, target: number): void {
    const link = this.#link;
    const frame = link.alloc();
    if (frame === NO_FRAME) {
      link.counters.noFrame++;
      return;
    }
    const at = frame + ethernet.HEADER_LEN;
    link.emitEthernet(frame, 0xffff, -1);
    ethernet.setType(link.view, frame, ethernet.TYPE_ARP);
    wire.emit(link.view, at, wire.OP_REQUEST);
    wire.setSender(link.view, at, link.macHi, link.macLo, sender);
    wire.setTarget(link.view, at, 0, 0, target);
    link.counters.arpRequests++;
    link.transmit(frame, ethernet.HEADER_LEN + wire.PACKET_LEN);
  }
}
