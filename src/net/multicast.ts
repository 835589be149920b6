/**
 * The groups that this interface is in, and IGMP about them (RFC 3376; beside older routers RFC 2236 and RFC 1112).
 *
 * - `join` counts: a group is left when everybody who joined has left. Sources are not told apart: a group is joined with
 *   "exclude nothing", and left with "include nothing".
 * - A change is reported at once and once more; a query is answered after a random part of the time that it allows.
 * - The device must let the group in, too: a VNIC's filter says which destinations it takes (docs/filters.md). On a shared
 *   address the kernel speaks IGMP, and we are silent.
 */
import type { Ipv4 } from '../base/address.ts';
import { formatIpv4 } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import { NO_FRAME } from '../device/nic.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as wire from '../wire/igmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { NET_LIMITS } from './limits.ts';
import type { Link } from './link.ts';

/** 224.0.0.1, .2 and .22: all hosts, all routers, all IGMPv3 routers. */
const ALL_HOSTS = 0xe0000001 | 0;
const ALL_ROUTERS = 0xe0000002 | 0;
const ALL_V3_ROUTERS = 0xe0000016 | 0;
/** The router alert option (RFC 2113): every router looks at the message. */
const ROUTER_ALERT = 0x94040000 | 0;
const IP_LEN = ipv4.HEADER_LEN + 4;

const isGroup = (ip: number): boolean => ip >>> 28 === 14;

interface Group {
  readonly address: number;
  members: number;
  /** Reports still to come because of a change, and of which kind; and when the next report is due. */
  changes: number;
  change: number;
  changeDueMs: number;
  answerDueMs: number;
}

export class Groups {
  readonly #link: Link;
  readonly #speaks: boolean;
  readonly #random: () => number;
  readonly #addressOf: () => number;
  readonly #groups = new Map<number, Group>();
  /** Groups that were left, with reports still to come. */
  readonly #left: Group[] = [];
  /** Until when a router of an older version is heard (RFC 3376, section 7.2.1). */
  readonly #olderUntilMs = [0, Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
  #nextDueMs = Number.POSITIVE_INFINITY;

  constructor(link: Link, speaks: boolean, random: () => number, addressOf: () => number) {
    this.#link = link;
    this.#speaks = speaks;
    this.#random = random;
    this.#addressOf = addressOf;
  }

  /** Receive what is sent to `group`, a multicast address. ARK_BAD_ARGUMENT, ARK_LIMIT. Every join takes a leave. */
  join(address: Ipv4): void {
    const ip = address | 0;
    if (!isGroup(ip)) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `${formatIpv4(address)} is no multicast group`);
    }
    const there = this.#groups.get(ip);
    if (there !== undefined) {
      there.members++;
      return;
    }
    if (this.#groups.size >= NET_LIMITS.groupsMax) {
      throw new ArrakisError(
        'ARK_LIMIT',
        `an interface is in at most ${NET_LIMITS.groupsMax} groups`,
      );
    }
    const group = newGroup(ip);
    this.#groups.set(ip, group);
    this.#announce(group, wire.CHANGE_TO_EXCLUDE);
  }

  /** Undo one `join`. ARK_NOT_FOUND when there was none. */
  leave(address: Ipv4): void {
    const group = this.#groups.get(address | 0);
    if (group === undefined) {
      throw new ArrakisError('ARK_NOT_FOUND', `${formatIpv4(address)} was not joined`);
    }
    if (--group.members > 0) return;
    this.#groups.delete(group.address);
    if (this.#left.length >= NET_LIMITS.groupsMax) this.#left.shift();
    this.#left.push(group);
    group.answerDueMs = Number.POSITIVE_INFINITY;
    this.#announce(group, wire.CHANGE_TO_INCLUDE);
  }

  /** True for a group that was joined; and, while there are any, for "all hosts", to which routers send their queries. */
  has(ip: number): boolean {
    if (this.#groups.size === 0) return false;
    return this.#groups.has(ip) || ip === ALL_HOSTS;
  }

  get nextDueMs(): number {
    return this.#nextDueMs;
  }

  /** Handle the IGMP message of `length` bytes at `at`, behind the IPv4 header at `ipAt`. Counts its outcome. */
  receive(ipAt: number, at: number, length: number): void {
    const { view, counters, nowMs } = this.#link;
    const checked = wire.check(view, at, at + length);
    // Nobody forwards IGMP: what had more than one hop to live comes from elsewhere (RFC 3376, section 4).
    if (checked < 0 || ipv4.ttl(view, ipAt) !== 1) {
      if (checked === wire.BAD_CHECKSUM) counters.badChecksum++;
      else counters.badIgmp++;
      return;
    }
    counters.rxIgmp++;
    const about = wire.group(view, at);
    const kind = wire.type(view, at);
    if (kind === wire.QUERY) {
      const version = wire.queryVersion(view, at, length);
      if (version < 3) this.#olderUntilMs[version] = nowMs + NET_LIMITS.igmpOlderRouterMs;
      this.#question(about, wire.maxResponseMs(view, at, version));
    } else if (kind === wire.REPORT_V1 || kind === wire.REPORT_V2) {
      // Somebody else has answered for the group (RFC 2236, section 3); nobody need do so twice.
      const group = this.#groups.get(about);
      if (group !== undefined && this.#version() < 3) group.answerDueMs = Number.POSITIVE_INFINITY;
    }
  }

  /** Send what is due. How much it was. */
  tick(): number {
    if (this.#link.nowMs < this.#nextDueMs) return 0;
    let sent = 0;
    for (const group of this.#groups.values()) sent += this.#tickGroup(group);
    for (const group of [...this.#left]) {
      sent += this.#tickGroup(group);
      if (group.changes === 0) this.#left.splice(this.#left.indexOf(group), 1);
    }
    this.#plan();
    return sent;
  }

  #tickGroup(group: Group): number {
    const { nowMs } = this.#link;
    let sent = 0;
    if (group.changes > 0 && nowMs >= group.changeDueMs) {
      this.#report(group.address, group.change);
      group.changes--;
      group.changeDueMs = nowMs + this.#randomMs(NET_LIMITS.igmpRepeatMs);
      sent++;
    }
    if (nowMs >= group.answerDueMs) {
      this.#report(group.address, wire.MODE_IS_EXCLUDE);
      group.answerDueMs = Number.POSITIVE_INFINITY;
      sent++;
    }
    return sent;
  }

  /** A router asks for all groups (0) or one: each answers at a time of its own, no later than an answer that is due anyway. */
  #question(about: number, withinMs: number): void {
    if (!this.#speaks) return;
    for (const group of this.#groups.values()) {
      if ((about !== 0 && group.address !== about) || group.address === ALL_HOSTS) continue;
      const dueMs = this.#link.nowMs + this.#randomMs(withinMs);
      group.answerDueMs = Math.min(group.answerDueMs, dueMs);
    }
    this.#plan();
  }

  #announce(group: Group, change: number): void {
    // Nobody reports "all hosts": everybody is in it (RFC 3376, section 6).
    if (!this.#speaks || group.address === ALL_HOSTS) return;
    group.change = change;
    group.changes = NET_LIMITS.igmpRobustness;
    group.changeDueMs = Number.NEGATIVE_INFINITY;
    this.#plan();
  }

  #plan(): void {
    let next = Number.POSITIVE_INFINITY;
    for (const group of [...this.#groups.values(), ...this.#left]) {
      if (group.changes > 0) next = Math.min(next, group.changeDueMs);
      next = Math.min(next, group.answerDueMs);
    }
    this.#nextDueMs = next;
  }

  #randomMs(max: number): number {
    return (this.#random() / 2 ** 32) * max;
  }

  /** Of the oldest router that was heard of late. */
  #version(): 1 | 2 | 3 {
    const { nowMs } = this.#link;
    if (nowMs < this.#olderUntilMs[1]!) return 1;
    return nowMs < this.#olderUntilMs[2]! ? 2 : 3;
  }

  #report(address: number, record: number): void {
    const link = this.#link;
    const version = this.#version();
    const isLeave = record === wire.CHANGE_TO_INCLUDE;
    // Version 1 has no word for leaving.
    if (version === 1 && isLeave) return;
    const frame = link.alloc();
    if (frame === NO_FRAME) {
      link.counters.noFrame++;
      return;
    }
    const at = frame + ethernet.HEADER_LEN + IP_LEN;
    let length = wire.HEADER_LEN;
    let dst = address;
    if (version === 3) {
      length = wire.emitV3(link.view, at, record, address);
      dst = ALL_V3_ROUTERS;
    } else if (isLeave) {
      wire.emitV2(link.view, at, wire.LEAVE_V2, address);
      dst = ALL_ROUTERS;
    } else wire.emitV2(link.view, at, version === 2 ? wire.REPORT_V2 : wire.REPORT_V1, address);
    link.emitEthernet(frame, 0x0100, 0x5e000000 | (dst & 0x7fffff));
    const ipAt = frame + ethernet.HEADER_LEN;
    const proto = ipv4.PROTOCOL_IGMP;
    ipv4.emit(link.view, ipAt, length + 4, 0, 1, proto, this.#addressOf(), dst);
    ipv4.setOption(link.view, ipAt, ROUTER_ALERT, length);
    link.counters.igmpReports++;
    link.transmit(frame, ethernet.HEADER_LEN + IP_LEN + length);
  }
}

function newGroup(address: number): Group {
  const never = Number.POSITIVE_INFINITY;
  return { address, members: 1, changes: 0, change: 0, changeDueMs: never, answerDueMs: never };
}
