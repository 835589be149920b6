/**
 * One network interface of the user-level stack: one queue, one MAC address, one IPv4 address.
 *
 * - `poll` is one turn: take a batch, process each frame to completion, send what came of it, return sent frames.
 * - No clock and no randomness inside: the time is an argument.
 * - The address is owned, or shared with the host's kernel. Shared, ARP and ICMP are the kernel's: we send neither.
 * - Nothing is allocated per packet.
 */
import { type Ipv4, type Mac, macHi, macLo, netmask } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import { FRAME_FLAG, NIC_STATE, type NicQueue } from '../device/nic.ts';
import * as ethernet from '../wire/ethernet.ts';
import { PROTOCOL_UNREACHABLE } from '../wire/icmp.ts';
import * as wire from '../wire/ipv4.ts';
import { ArpCache, type NeighbourState } from './arp.ts';
import type { NetCounters } from './counters.ts';
import { IcmpLayer } from './icmp.ts';
import { Ipv4Output } from './ip-output.ts';
import { Ipv4Layer } from './ipv4.ts';
import { NET_LIMITS } from './limits.ts';
import { Link } from './link.ts';
import type { NeighbourShare } from './neighbours.ts';
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
  /** Four random words that nobody can guess; without them there is no TCP. */
  readonly secret?: Int32Array | null;
}

export class NetInterface {
  readonly counters: NetCounters;
  readonly udp: UdpLayer;
  readonly tcp: TcpLayer;
  readonly #link: Link;
  readonly #arp: ArpCache;
  readonly #ip: Ipv4Layer;
  readonly #icmp: IcmpLayer;
  readonly #ownsAddress: boolean;
  readonly #frames = new Uint32Array(NET_LIMITS.batchMax);
  readonly #lengths = new Uint16Array(NET_LIMITS.batchMax);
  /** Null where the queue has no offloads. */
  readonly #flags: Uint8Array | null;
  /** Frames of the batch, and the next one to process: a handler that throws does not lose the rest. */
  #count = 0;
  #next = 0;

  /** ARK_BAD_ARGUMENT when an option is out of range. The queue stays the caller's to close. */
  constructor(options: NetOptions) {
    const { queue, mac, address, prefix, gateway = 0 } = options;
    this.#ownsAddress = options.ownsAddress ?? true;
    const mtu = Math.min(options.mtu ?? 1500, queue.frameLengthMax - ethernet.HEADER_LEN);
    checkOptions(options, mtu);
    const link = new Link(queue, mac, mtu);
    this.#link = link;
    this.#flags = queue.offloads === 0 ? null : new Uint8Array(NET_LIMITS.batchMax);
    this.counters = link.counters;
    const share = options.neighbours ?? null;
    this.#arp = new ArpCache(link, address | 0, netmask(prefix) | 0, this.#ownsAddress, share);
    this.#ip = new Ipv4Layer(link, this.#arp, { address, prefix, gateway });
    this.#icmp = new IcmpLayer(link, this.#ip);
    this.udp = new UdpLayer(link, this.#ip, this.#ownsAddress ? this.#icmp : null);
    const out = new Ipv4Output(this.#ip, mtu);
    this.tcp = new TcpLayer(link, out, options.secret ?? null, this.#ownsAddress);
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
    if (received > 0) this.#receiveBatch();
    const due = this.#arp.tick() + this.tcp.turn();
    const sent = link.flush();
    if (received + sent + link.queued > 0) queue.kick();
    queue.reclaim(NET_LIMITS.reclaimMax);
    return queue.state === NIC_STATE.up ? received + due + sent + link.queued : 0;
  }

  /**
   * Take a batch from the device, for `poll` to process: whoever reads the clock in between has the time of the frames.
   * Returns how many frames wait.
   */
  gather(): number {
    if (this.#next === this.#count) {
      this.#next = 0;
      const max = NET_LIMITS.batchMax;
      this.#count = this.#link.queue.rxBatch(
        this.#frames,
        this.#lengths,
        max,
        this.#flags ?? undefined,
      );
    }
    return this.#count - this.#next;
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
    return Math.min(this.#arp.nextDueMs, this.tcp.nextDueMs);
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
    while (this.#next < this.#count) this.#link.queue.free(this.#frames[this.#next++]!);
    this.#arp.clear();
    this.#link.clear();
  }

  #receiveBatch(): void {
    const link = this.#link;
    try {
      while (this.#next < this.#count) {
        const i = this.#next++;
        const frame = this.#frames[i]!;
        if (this.#flags !== null) {
          const flags = this.#flags[i]!;
          if ((flags & FRAME_FLAG.more) !== 0) {
            this.#receivePieces(i, this.#flags);
            continue;
          }
          link.isChecked = (flags & FRAME_FLAG.checksum) !== 0;
        }
        link.inHand = frame;
        link.counters.rxFrames++;
        this.#receive(frame, frame + this.#lengths[i]!);
        link.settle();
      }
    } finally {
      link.settle();
    }
  }

  /** A packet of several pieces, the first at `first` in the batch: TCP that the device did not cut, or nothing for us. */
  #receivePieces(first: number, flags: Uint8Array): void {
    const { view, counters, queue, macHi: ourHi, macLo: ourLo } = this.#link;
    let count = 1;
    let total = this.#lengths[first]!;
    for (; (flags[first + count - 1]! & FRAME_FLAG.more) !== 0; count++) {
      total += this.#lengths[first + count]!;
    }
    this.#next = first + count;
    counters.rxFrames++;
    const frame = this.#frames[first]!;
    const isOurs =
      ethernet.check(view, frame, frame + this.#lengths[first]!) >= 0 &&
      ethernet.dstHi(view, frame) === ourHi &&
      ethernet.dstLo(view, frame) === ourLo &&
      (flags[first]! & FRAME_FLAG.checksum) !== 0;
    const at = frame + ethernet.HEADER_LEN;
    if (isOurs && ethernet.type(view, frame) === ethernet.TYPE_IPV4) {
      const length = this.#ip.receive(at, frame + total, true);
      const payloadAt = at + (length < 0 ? 0 : wire.headerLength(view, at));
      const isWhole = length === frame + total - payloadAt;
      if (length >= 0 && isWhole && wire.protocol(view, at) === wire.PROTOCOL_TCP) {
        if (!this.#ownsAddress) this.#ip.learn(frame, wire.src(view, at));
        const firstLength = frame + this.#lengths[first]! - payloadAt;
        this.tcp.setIpv4Flow(wire.src(view, at), wire.dst(view, at));
        this.tcp.receivePieces(this.#frames, this.#lengths, first, count, payloadAt, firstLength);
        return;
      }
      if (length >= 0) counters.noProtocol++;
    } else counters.notForUs++;
    for (let i = first; i < first + count; i++) queue.free(this.#frames[i]!);
  }

  #receive(frame: number, end: number): void {
    const { view, counters, macHi: ourHi, macLo: ourLo } = this.#link;
    if (ethernet.check(view, frame, end) < 0 || ethernet.isGroup(ethernet.srcHi(view, frame))) {
      counters.badEthernet++;
      return;
    }
    const hi = ethernet.dstHi(view, frame);
    const lo = ethernet.dstLo(view, frame);
    const isUnicast = lo === ourLo && hi === ourHi;
    if (!isUnicast && !(lo === -1 && hi === 0xffff)) {
      counters.notForUs++;
      return;
    }
    const type = ethernet.type(view, frame);
    const at = frame + ethernet.HEADER_LEN;
    if (type === ethernet.TYPE_IPV4) this.#receiveIpv4(frame, at, end, isUnicast);
    else if (type === ethernet.TYPE_ARP) this.#arp.receive(frame, at, end);
    else counters.otherProtocol++;
  }

  #receiveIpv4(frame: number, at: number, end: number, isLinkUnicast: boolean): void {
    const { view, counters } = this.#link;
    const length = this.#ip.receive(at, end, isLinkUnicast);
    if (length < 0) return;
    if (!this.#ownsAddress) this.#ip.learn(frame, wire.src(view, at));
    const payloadAt = at + wire.headerLength(view, at);
    const protocol = wire.protocol(view, at);
    if (protocol === wire.PROTOCOL_UDP) this.udp.receive(frame, payloadAt, length);
    else if (protocol === wire.PROTOCOL_TCP) this.#receiveTcp(frame, at, payloadAt, length);
    else if (!this.#ownsAddress) counters.notForUs++;
    else if (protocol === wire.PROTOCOL_ICMP) this.#icmp.receive(frame, payloadAt, length);
    else {
      counters.noProtocol++;
      this.#icmp.unreachable(frame, PROTOCOL_UNREACHABLE);
    }
  }

  /** TCP speaks with one host at a time: a segment to a broadcast address is none (RFC 9293, section 3.9.2.3). */
  #receiveTcp(frame: number, at: number, payloadAt: number, length: number): void {
    const { view, counters } = this.#link;
    if (!this.#ip.isUnicast) counters.notForUs++;
    else this.tcp.receiveIpv4(frame, payloadAt, length, wire.src(view, at), wire.dst(view, at));
  }
}

function checkOptions(options: NetOptions, mtu: number): void {
  const { mac, address, prefix, gateway = 0 } = options;
  const isIpv4 = (value: number) => Number.isInteger(value) && value >= 0 && value <= 0xffffffff;
  const top = address >>> 24;
  if (!isIpv4(address) || top === 0 || top === 127 || top >= 224) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', 'the interface needs a unicast IPv4 address');
  }
  if (!isIpv4(gateway)) throw new ArrakisError('ARK_BAD_ARGUMENT', 'gateway is no IPv4 address');
  if (!Number.isInteger(prefix) || prefix < 0 || prefix > 32) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${prefix} is not a prefix length`);
  }
  if (!Number.isSafeInteger(mac) || mac <= 0 || ethernet.isGroup(macHi(mac))) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', 'the interface needs a unicast MAC address');
  }
  // RFC 791, section 3.1: every link carries 68 bytes.
  if (!Number.isInteger(mtu) || mtu < 68) {
    throw new ArrakisError('ARK_BAD_ARGUMENT', `${mtu} is not an MTU`);
  }
}
