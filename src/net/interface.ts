/**
 * One network interface of the user-level stack: one queue, one MAC address, one IPv4 address, and IPv6 if it is asked for.
 *
 * - `poll` is one turn: take a batch, process each frame to completion, send what came of it, return sent frames.
 * - No clock and no randomness inside: the time is an argument.
 * - The address is owned, or shared with the host's kernel. Shared, ARP and ICMP are the kernel's: we send neither.
 * - Nothing is allocated per packet.
 */
import { type Ipv4, type Mac, macHi, macLo, netmask } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import { NIC_STATE, type NicQueue } from '../device/nic.ts';
import * as ethernet from '../wire/ethernet.ts';
import { REASSEMBLY_TIME, TIME_EXCEEDED } from '../wire/icmp.ts';
import * as wire from '../wire/ipv4.ts';
import { AddressGuard, type GuardOptions } from './address-guard.ts';
import { ArpCache, type NeighbourState } from './arp.ts';
import type { NetCounters } from './counters.ts';
import { IcmpLayer } from './icmp.ts';
import { IcmpErrors } from './icmp-errors.ts';
import { DualOutput, Ipv4Output } from './ip-output.ts';
import { Ipv4Layer } from './ipv4.ts';
import { type Ipv6Options, Ipv6Stack } from './ipv6/stack.ts';
import type { Udp6Layer } from './ipv6/udp.ts';
import { NET_LIMITS } from './limits.ts';
import { Link, NO_VLAN } from './link.ts';
import { Groups } from './multicast.ts';
import type { NeighbourShare } from './neighbours.ts';
import { PathMtu } from './path-mtu.ts';
import { Reassembly } from './reassembly.ts';
import { Receiver } from './receive.ts';
import { type NetRoute, Routes } from './routes.ts';
import { TcpLayer } from './tcp/layer.ts';
import { UdpLayer } from './udp.ts';

export interface NetOptions {
  readonly queue: NicQueue;
  readonly mac: Mac;
  readonly address: Ipv4;
  /** Length of the subnet's prefix, 0 to 32. */
  readonly prefix: number;
  /** Next hop off the subnet; 0, the default, when there is none. */
  readonly gateway?: Ipv4;
  /** False when the host's kernel has the address too, and answers ARP and ICMP for it. Default true. */
  readonly ownsAddress?: boolean;
  /** With several threads on this address: what this one gets of `shareNeighbours`. Null: it hears ARP itself. */
  readonly neighbours?: NeighbourShare | null;
  /** Longest IPv4 datagram to send, in bytes; never more than the queue carries. Default 1,500. */
  readonly mtu?: number;
  /** The VLAN that this interface is in (IEEE 802.1Q), 1 to 4094: frames carry its tag. Default: they carry none. */
  readonly vlan?: number;
  /**
   * A source of random integers, 0 to 2^32 - 1, for what a stranger should not guess and what hosts should not do at the same
   * time. Default: the same numbers every time, which is for tests.
   */
  readonly random?: () => number;
  /** Announce our address, and defend it (RFC 5227). Default: neither. Not for a shared address. */
  readonly guard?: GuardOptions;
  /** Four random words that nobody can guess; without them there is no TCP. */
  readonly secret?: Int32Array | null;
  /** IPv6, with a link-local address at least. Default: none. */
  readonly ipv6?: Ipv6Options;
}

/** What the kernel knows of the network whose address it shares with us. */
export interface KernelNetwork {
  readonly mtu: number;
  readonly routes: readonly NetRoute[];
  /** `reachable`: the kernel vouches for it now. */
  readonly neighbours: readonly {
    readonly address: Ipv4;
    readonly mac: Mac;
    readonly reachable: boolean;
  }[];
}

/** RFC 791, section 3.1: every link carries 68 bytes. */
const MTU_MIN = 68;

/** Something with timers of its own that lives on an interface: a DHCP client, a resolver. */
export interface NetTimer {
  /** Do what is due at `nowMs`. */
  tick(nowMs: number): void;
  readonly nextDueMs: number;
}

export class NetInterface {
  readonly counters: NetCounters;
  readonly udp: UdpLayer;
  /** Multicast groups: `join`, `leave`. */
  readonly groups: Groups;
  /** Is an address free? Is ours? */
  readonly guard: AddressGuard;
  /** What paths carry. */
  readonly paths: PathMtu;
  /** Errors about what was sent, for each protocol. */
  readonly icmpErrors: IcmpErrors;
  readonly tcp: TcpLayer;
  readonly #link: Link;
  readonly #arp: ArpCache;
  readonly #routes = new Routes();
  readonly #ip: Ipv4Layer;
  readonly #icmp: IcmpLayer;
  readonly #reassembly: Reassembly;
  readonly #timers: NetTimer[] = [];
  readonly #ownsAddress: boolean;
  /** The queue carries no more. */
  readonly #mtuMax: number;
  #mirrored: ReadonlySet<Ipv4> = new Set();
  readonly #receiver: Receiver;
  readonly #ipv6: Ipv6Stack | null;

  /**
   * ARK_BAD_ARGUMENT when an option is out of range. The queue stays the caller's to close. `ipv6`: for options that say
   * nothing of it, as a `Vnic` does.
   */
  constructor(options: NetOptions, ipv6 = options.ipv6) {
    const { queue, mac, address, prefix, gateway = 0, vlan = NO_VLAN } = options;
    this.#ownsAddress = options.ownsAddress ?? true;
    const headers = ethernet.HEADER_LEN + (vlan === NO_VLAN ? 0 : ethernet.VLAN_TAG_LEN);
    const mtu = Math.min(options.mtu ?? 1500, queue.frameLengthMax - headers);
    checkOptions(options, mtu);
    this.#mtuMax = queue.frameLengthMax - headers;
    const random = options.random ?? fixedSequence();
    const link = new Link(queue, mac, mtu, vlan);
    this.#link = link;
    this.counters = link.counters;
    const share = options.neighbours ?? null;
    this.#arp = new ArpCache(link, address | 0, netmask(prefix) | 0, this.#ownsAddress, share);
    this.#routes.configure(address, prefix, gateway);
    this.paths = new PathMtu(mtu);
    this.icmpErrors = new IcmpErrors(this.paths);
    this.groups = new Groups(link, this.#ownsAddress, random, () => this.#ip.address);
    const parts = { routes: this.#routes, groups: this.groups, paths: this.paths };
    const firstId = options.random === undefined ? 0 : random();
    this.#ip = new Ipv4Layer(link, this.#arp, parts, firstId);
    this.#icmp = new IcmpLayer(link, this.#ip, this.icmpErrors, this.#ownsAddress);
    this.udp = new UdpLayer(link, this.#ip, this.#icmp);
    this.icmpErrors.handle(wire.PROTOCOL_UDP, (error) =>
      error.isIpv6 ? this.udp6.failed(error) : this.udp.onIcmpError(error),
    );
    this.guard = new AddressGuard(link, options.guard ?? null, random, () => this.#ip.address);
    this.#arp.guard = this.guard;
    if (options.guard !== undefined && this.#ownsAddress && address !== 0) this.guard.announce();
    this.#reassembly = new Reassembly(link, queue.memory.frameCount);
    this.#reassembly.onExpired = (frame, _at, isIpv6) => {
      if (isIpv6) this.#ipv6?.expired(frame);
      else this.#icmp.error(frame, TIME_EXCEEDED, REASSEMBLY_TIME);
    };
    this.#ipv6 = this.#openIpv6(ipv6, options.neighbours ?? null, random);
    const ipv4Out = new Ipv4Output(this.#ip);
    const out = this.#ipv6 === null ? ipv4Out : new DualOutput(ipv4Out, this.#ipv6.ip);
    this.tcp = new TcpLayer(link, out, options.secret ?? null, this.#ownsAddress);
    this.icmpErrors.handle(wire.PROTOCOL_TCP, this.tcp.onIcmpError);
    if (this.#ipv6 !== null) this.#ipv6.tcp = this.tcp;
    this.#receiver = new Receiver(
      link,
      {
        arp: this.#arp,
        ip: this.#ip,
        icmp: this.#icmp,
        udp: this.udp,
        tcp: this.tcp,
        groups: this.groups,
        reassembly: this.#reassembly,
        ipv6: this.#ipv6,
      },
      this.#ownsAddress,
    );
  }

  #openIpv6(
    ipv6: Ipv6Options | undefined,
    neighbours: NeighbourShare | null,
    random: () => number,
  ): Ipv6Stack | null {
    if (ipv6 === undefined) return null;
    if (neighbours !== null) {
      throw new ArrakisError('ARK_UNSUPPORTED', 'one thread has IPv6', {
        hint: 'the threads of one address share what they hear of IPv4 neighbours only',
      });
    }
    const { paths, icmpErrors: errors } = this;
    const shared = { paths, errors, reassembly: this.#reassembly, random };
    return new Ipv6Stack(this.#link, shared, ipv6, this.#ownsAddress);
  }

  /** IPv6 of this interface. ARK_UNSUPPORTED when it was not asked for. */
  get ipv6(): Ipv6Stack {
    if (this.#ipv6 !== null) return this.#ipv6;
    throw new ArrakisError('ARK_UNSUPPORTED', 'the interface has no IPv6', {
      hint: 'give it the option ipv6',
    });
  }

  /** UDP over IPv6. ARK_UNSUPPORTED as `ipv6`. */
  get udp6(): Udp6Layer {
    return this.ipv6.udp;
  }

  /**
   * One turn at time `nowMs`, which never goes back; `nowUs` is the same time in microseconds, an int32 that wraps. Returns the amount of work there was: 0 means that nothing is
   * left to do until a frame arrives or `nextTimerMs` comes. Throws what a handler throws; the next turn goes on.
   */
  poll(nowMs: number, nowUs: number = Math.round(nowMs * 1000) | 0): number {
    const link = this.#link;
    const queue = link.queue;
    link.setTime(nowMs, nowUs);
    const received = this.gather();
    if (received > 0) this.#receiver.receiveBatch();
    this.#receiver.receiveLooped();
    const due = this.#tick() + this.tcp.turn();
    const sent = link.flush();
    if (received + sent + link.queued > 0) queue.kick();
    queue.reclaim(NET_LIMITS.reclaimMax);
    return queue.state === NIC_STATE.up ? received + due + sent + link.queued : 0;
  }

  #tick(): number {
    let due = this.#arp.tick() + this.groups.tick() + this.guard.tick();
    if (this.#ipv6 !== null) due += this.#ipv6.tick();
    const attached = this.#timers.length === 0 ? 0 : this.#tickAttached(this.#link.nowMs);
    return due + attached + this.#reassembly.tick() + this.#link.looped;
  }

  #tickAttached(nowMs: number): number {
    let due = 0;
    for (const timer of this.#timers) {
      if (nowMs < timer.nextDueMs) continue;
      timer.tick(nowMs);
      due++;
    }
    return due;
  }

  /** Time of the last turn. */
  get nowMs(): number {
    return this.#link.nowMs;
  }

  /** Call `timer.tick` in the turns when it is due, until `detach`. */
  attach(timer: NetTimer): void {
    this.#timers.push(timer);
  }

  detach(timer: NetTimer): void {
    const index = this.#timers.indexOf(timer);
    if (index >= 0) this.#timers.splice(index, 1);
  }

  /**
   * Take a batch from the device, for `poll` to process: whoever reads the clock in between has the time of the frames.
   * Returns how many frames wait.
   */
  gather(): number {
    return this.#receiver.gather();
  }

  /**
   * Send now what `udp.sendTo` queued outside a turn and, when the time is given, what was written to connections: they
   * measure by it, and the time of the last turn may be long past. Returns how many frames the device accepted.
   */
  flush(nowMs = -1, nowUs: number = Math.round(nowMs * 1000) | 0): number {
    if (nowMs >= 0) {
      this.#link.setTime(nowMs, nowUs);
      this.tcp.flush();
    }
    const sent = this.#link.flush();
    if (sent > 0) this.#link.queue.kick();
    return sent;
  }

  /** When `poll` must run although no frame arrives; Infinity when it need not. */
  get nextTimerMs(): number {
    if (this.#link.looped > 0) return Number.NEGATIVE_INFINITY;
    const { guard, groups } = this;
    let own = Math.min(this.#arp.nextDueMs, this.#reassembly.nextDueMs);
    for (const timer of this.#timers) own = Math.min(own, timer.nextDueMs);
    if (this.#ipv6 !== null) own = Math.min(own, this.#ipv6.nextDueMs);
    return Math.min(own, guard.nextDueMs, groups.nextDueMs, this.tcp.nextDueMs);
  }

  /** Frames that wait for the rest of their datagrams. */
  get fragmentsHeld(): number {
    return this.#reassembly.framesHeld;
  }

  /**
   * Another address, subnet and gateway (0: none) from now on; address 0: none yet, as before DHCP. What is bound stays.
   * ARK_BAD_ARGUMENT.
   */
  configure(address: Ipv4, prefix: number, gateway: Ipv4 = 0): void {
    checkAddress({ address, prefix, gateway });
    this.#ip.configure(address, prefix, gateway);
    this.#arp.configure(address | 0, netmask(prefix) | 0);
  }

  /**
   * The kernel, which shares our address, finds neighbours for us when `resolve` is called. It says by `mirror` what it
   * found; without that, neighbours are learned from what they send.
   */
  followKernel(resolve: (address: Ipv4) => void): void {
    if (this.#ownsAddress) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', 'the address is not shared with the kernel');
    }
    this.#arp.askBy((ip) => resolve(ip >>> 0));
  }

  /** What the kernel knows of the network now: its MTU, routes and neighbours in place of those before. */
  mirror(network: KernelNetwork): void {
    this.setRoutes(network.routes.slice(0, NET_LIMITS.routesMax));
    const { address, mask } = this.#routes;
    this.#ip.configure(address >>> 0, prefixOf(mask), 0);
    if (network.mtu >= MTU_MIN) this.#setMtu(Math.min(network.mtu, this.#mtuMax));
    const known = new Set(network.neighbours.map((neighbour) => neighbour.address));
    for (const gone of this.#mirrored) if (!known.has(gone)) this.#arp.unmirror(gone | 0);
    for (const { address: ip, mac, reachable } of network.neighbours) {
      this.#arp.mirror(ip | 0, macHi(mac), macLo(mac) | 0, reachable);
    }
    this.#mirrored = known;
  }

  #setMtu(mtu: number): void {
    this.#link.setMtu(mtu);
    this.paths.setLinkMtu(mtu);
  }

  /** Ways to other networks besides the gateway, in place of those before. ARK_LIMIT, ARK_BAD_ARGUMENT. */
  setRoutes(routes: readonly NetRoute[]): void {
    this.#routes.replace(routes);
  }

  /** Tell the stack a neighbour's MAC address; nothing received changes it. ARK_LIMIT when there is no room. */
  setNeighbour(address: Ipv4, mac: Mac): void {
    if (!this.#arp.setPermanent(address | 0, macHi(mac), macLo(mac) | 0)) {
      throw new ArrakisError('ARK_LIMIT', 'too many permanent neighbours');
    }
  }

  neighbourState(address: Ipv4): NeighbourState {
    return this.#arp.stateOf(address | 0);
  }

  /** End every connection, and give back every frame that the stack holds. The queue stays open. */
  close(): void {
    const { queue } = this.#link;
    try {
      this.tcp.close();
    } finally {
      if (this.#link.flush() > 0) queue.kick();
      this.#giveBack();
    }
  }

  #giveBack(): void {
    this.#receiver.clear();
    this.#arp.clear();
    this.#reassembly.clear();
    this.#ipv6?.clear();
    this.#link.clear();
  }
}

/** The same numbers every time (Numerical Recipes' linear congruential generator). */
function fixedSequence(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
}

function prefixOf(mask: number): number {
  return Math.clz32(~mask);
}

function checkOptions(options: NetOptions, mtu: number): void {
  const { mac, vlan = 1 } = options;
  checkAddress(options);
  if (!Number.isSafeInteger(mac) || mac <= 0 || ethernet.isGroup(macHi(mac))) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', 'the interface needs a unicast MAC address');
  }
  if (!Number.isInteger(vlan) || vlan < 1 || vlan > 4094) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${vlan} is no VLAN`, { hint: 'it is 1 to 4094' });
  }
  if (!Number.isInteger(mtu) || mtu < MTU_MIN) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${mtu} is not an MTU`);
  }
}

/** A unicast address with its subnet; address 0 with prefix 0: none yet. */
function checkAddress(config: Pick<NetOptions, 'address' | 'prefix' | 'gateway'>): void {
  const { address, prefix, gateway = 0 } = config;
  const isIpv4 = (value: number) => Number.isInteger(value) && value >= 0 && value <= 0xffffffff;
  const top = address >>> 24;
  const isNone = address === 0 && prefix === 0;
  if (!isIpv4(address) || (top === 0 && !isNone) || top === 127 || top >= 224) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', 'the interface needs a unicast IPv4 address');
  }
  if (!isIpv4(gateway)) throw new ArrakisError('ARK_BAD_ARGUMENT', 'gateway is no IPv4 address');
  if (!Number.isInteger(prefix) || prefix < 0 || prefix > 32) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${prefix} is not a prefix length`);
  }
}
