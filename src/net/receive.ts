/**
 * Frames on their way in: the batch of a turn and what we sent to ourselves, each to its protocol.
 *
 * - A frame that no layer took goes back to the pool when its turn ends.
 * - A handler that throws does not lose the frames behind its own: the next turn goes on with them.
 * - What the device did not cut comes in pieces, and is TCP or nothing for us.
 */

import { GROUP_MAC_HI } from '../base/ipv6.ts';
import { FRAME_FLAG } from '../device/nic.ts';
import * as ethernet from '../wire/ethernet.ts';
import { PROTOCOL_UNREACHABLE } from '../wire/icmp.ts';
import * as wire from '../wire/ipv4.ts';
import type { ArpCache } from './arp.ts';
import type { IcmpLayer } from './icmp.ts';
import type { Ipv4Layer } from './ipv4.ts';
import type { Ipv6Stack } from './ipv6/stack.ts';
import { NET_LIMITS } from './limits.ts';
import type { Link } from './link.ts';
import type { Groups } from './multicast.ts';
import { MAPPED } from './path-mtu.ts';
import { FRAGMENT, KEY, type Reassembly } from './reassembly.ts';
import type { TcpLayer } from './tcp/layer.ts';
import type { UdpLayer } from './udp.ts';

/** Where frames go. */
export interface Layers {
  readonly arp: ArpCache;
  readonly ip: Ipv4Layer;
  readonly icmp: IcmpLayer;
  readonly udp: UdpLayer;
  readonly tcp: TcpLayer;
  readonly groups: Groups;
  readonly reassembly: Reassembly;
  /** Null: there is no IPv6. */
  readonly ipv6: Ipv6Stack | null;
}

export class Receiver {
  readonly #link: Link;
  readonly #layers: Layers;
  readonly #ownsAddress: boolean;
  readonly #frames = new Uint32Array(NET_LIMITS.batchMax);
  readonly #lengths = new Uint16Array(NET_LIMITS.batchMax);
  readonly #loopFrames = new Uint32Array(NET_LIMITS.loopQueueMax);
  readonly #loopLengths = new Uint16Array(NET_LIMITS.loopQueueMax);
  /** Null where the queue has no offloads. */
  readonly #flags: Uint8Array | null;
  /** Frames of the batch, and the next one to process: a handler that throws does not lose the rest. */
  #count = 0;
  #next = 0;
  #loopCount = 0;
  #loopNext = 0;

  constructor(link: Link, layers: Layers, ownsAddress: boolean) {
    this.#link = link;
    this.#layers = layers;
    this.#ownsAddress = ownsAddress;
    this.#flags = link.queue.offloads === 0 ? null : new Uint8Array(NET_LIMITS.batchMax);
  }

  /** Take a batch from the device when the last one is done. Returns how many frames wait. */
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

  /** Give back every frame that waits. */
  clear(): void {
    const { queue } = this.#link;
    while (this.#next < this.#count) queue.free(this.#frames[this.#next++]!);
    while (this.#loopNext < this.#loopCount) queue.free(this.#loopFrames[this.#loopNext++]!);
  }

  /** Process the frames that `gather` took. */
  receiveBatch(): void {
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
        const end = frame + this.#lengths[i]!;
        if (link.vlan < 0) this.#receive(frame, end);
        else this.#receiveTagged(frame, end);
        link.settle();
      }
    } finally {
      link.settle();
    }
  }

  /** What we sent to ourselves since the last turn. */
  receiveLooped(): void {
    const link = this.#link;
    if (link.looped === 0 && this.#loopNext === this.#loopCount) return;
    if (this.#loopNext === this.#loopCount) {
      this.#loopNext = 0;
      this.#loopCount = link.takeLooped(this.#loopFrames, this.#loopLengths);
    }
    link.isLoop = true;
    // It never left this memory: TCP may have left the sum to a device.
    link.isChecked = true;
    try {
      while (this.#loopNext < this.#loopCount) {
        const i = this.#loopNext++;
        const frame = this.#loopFrames[i]!;
        link.inHand = frame;
        link.counters.rxFrames++;
        this.#receive(frame, frame + this.#loopLengths[i]!);
        link.settle();
      }
    } finally {
      link.isLoop = false;
      link.isChecked = false;
      link.settle();
    }
  }

  /** A frame that should have our VLAN's tag: it is taken off. */
  #receiveTagged(frame: number, end: number): void {
    const { view, counters, vlan } = this.#link;
    const inner = frame + ethernet.VLAN_TAG_LEN;
    const isTagged =
      end - inner >= ethernet.HEADER_LEN && ethernet.type(view, frame) === ethernet.TYPE_VLAN;
    if (!isTagged || ethernet.vlanId(view, frame) !== vlan) {
      counters.otherVlan++;
      return;
    }
    ethernet.removeTag(view, frame);
    this.#link.inHand = inner;
    this.#receive(inner, end);
  }

  /** A packet of several pieces, the first at `first` in the batch: TCP that the device did not cut, or nothing for us. */
  #receivePieces(first: number, flags: Uint8Array): void {
    const { counters, queue } = this.#link;
    let count = 1;
    let total = this.#lengths[first]!;
    for (; (flags[first + count - 1]! & FRAME_FLAG.more) !== 0; count++) {
      total += this.#lengths[first + count]!;
    }
    this.#next = first + count;
    counters.rxFrames++;
    if (this.#takePieces(first, count, total, flags[first]!)) return;
    for (let i = first; i < first + count; i++) queue.free(this.#frames[i]!);
  }

  /** True when TCP took the packet, with every frame; otherwise its outcome is counted. */
  #takePieces(first: number, count: number, total: number, flags: number): boolean {
    const { view, counters, macHi: ourHi, macLo: ourLo } = this.#link;
    const { ipv6 } = this.#layers;
    const frame = this.#frames[first]!;
    const isOurs =
      ethernet.check(view, frame, frame + this.#lengths[first]!) >= 0 &&
      ethernet.dstHi(view, frame) === ourHi &&
      ethernet.dstLo(view, frame) === ourLo &&
      (flags & FRAME_FLAG.checksum) !== 0;
    const type = isOurs ? ethernet.type(view, frame) : 0;
    if (type === ethernet.TYPE_IPV4) return this.#takeIpv4Pieces(first, count, total);
    if (type === ethernet.TYPE_IPV6 && ipv6 !== null) {
      return ipv6.receivePieces(this.#frames, this.#lengths, first, count, total);
    }
    counters.notForUs++;
    return false;
  }

  #takeIpv4Pieces(first: number, count: number, total: number): boolean {
    const { view, counters } = this.#link;
    const { ip, tcp } = this.#layers;
    const frame = this.#frames[first]!;
    const at = frame + ethernet.HEADER_LEN;
    const length = ip.receive(at, frame + total, true);
    if (length < 0) return false;
    const payloadAt = at + wire.headerLength(view, at);
    const isWhole = length === frame + total - payloadAt;
    if (!isWhole || wire.protocol(view, at) !== wire.PROTOCOL_TCP) {
      counters.noProtocol++;
      return false;
    }
    if (!this.#ownsAddress) ip.learn(frame, wire.src(view, at));
    const firstLength = frame + this.#lengths[first]! - payloadAt;
    tcp.setIpv4Flow(wire.src(view, at), wire.dst(view, at));
    tcp.receivePieces(this.#frames, this.#lengths, first, count, payloadAt, firstLength);
    return true;
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
    const type = ethernet.type(view, frame);
    const at = frame + ethernet.HEADER_LEN;
    const { ipv6 } = this.#layers;
    if (type === ethernet.TYPE_IPV6 && ipv6 !== null) {
      if (isUnicast || hi === GROUP_MAC_HI) ipv6.receive(frame, at, end, isUnicast);
      else counters.notForUs++;
      return;
    }
    if (!isUnicast && !(lo === -1 && hi === 0xffff) && !ethernet.isIpv4Group(hi, lo)) {
      counters.notForUs++;
      return;
    }
    if (type === ethernet.TYPE_IPV4) this.#receiveIpv4(frame, at, end, isUnicast);
    else if (type === ethernet.TYPE_ARP) this.#layers.arp.receive(frame, at, end);
    else if (type === ethernet.TYPE_VLAN) counters.otherVlan++;
    else counters.otherProtocol++;
  }

  #receiveIpv4(frame: number, at: number, end: number, isLinkUnicast: boolean): void {
    const { view } = this.#link;
    const length = this.#layers.ip.receive(at, end, isLinkUnicast);
    if (length < 0) return;
    if (!this.#ownsAddress && !this.#link.isLoop) this.#layers.ip.learn(frame, wire.src(view, at));
    const { payloadAt } = this.#layers.ip;
    if (wire.isFragment(view, at)) this.#receiveFragment(frame, at, payloadAt, length);
    else if (wire.protocol(view, at) === wire.PROTOCOL_UDP) {
      this.#layers.udp.receive(frame, payloadAt, length);
    } else this.#deliver(frame, at, payloadAt, length);
  }

  /** The payload of a whole datagram, whose IPv4 header stands at `at`, to its protocol. */
  #deliver(frame: number, at: number, payloadAt: number, length: number): void {
    const { view, counters } = this.#link;
    const protocol = wire.protocol(view, at);
    if (protocol === wire.PROTOCOL_UDP) this.#layers.udp.receive(frame, payloadAt, length);
    else if (protocol === wire.PROTOCOL_TCP) this.#receiveTcp(frame, at, payloadAt, length);
    else if (protocol === wire.PROTOCOL_ICMP) this.#layers.icmp.receive(frame, payloadAt, length);
    else if (!this.#ownsAddress) counters.notForUs++;
    else if (protocol === wire.PROTOCOL_IGMP) this.#layers.groups.receive(at, payloadAt, length);
    else {
      counters.noProtocol++;
      this.#layers.icmp.unreachable(frame, PROTOCOL_UNREACHABLE);
    }
  }

  #receiveFragment(frame: number, at: number, payloadAt: number, length: number): void {
    const { view, counters } = this.#link;
    const reassembly = this.#layers.reassembly;
    const [src, dst] = [wire.src(view, at), wire.dst(view, at)];
    const protocol = wire.protocol(view, at);
    const { key } = reassembly;
    key.fill(0);
    key[KEY.source + 2] = MAPPED;
    key[KEY.source + 3] = src;
    key[KEY.destination + 2] = MAPPED;
    key[KEY.destination + 3] = dst;
    key[KEY.id] = wire.id(view, at);
    key[KEY.protocol] = protocol;
    const offset = wire.fragmentOffset(view, at);
    const more = wire.moreFragments(view, at);
    const outcome = reassembly.add(frame, payloadAt, offset, length, more);
    if (outcome === FRAGMENT.frame) {
      const first = reassembly.frame;
      const ipAt = first + ethernet.HEADER_LEN;
      wire.makeWhole(view, ipAt, reassembly.length);
      this.#deliver(first, ipAt, reassembly.payloadAt, reassembly.length);
    } else if (outcome === FRAGMENT.gathered) {
      const { gathered, length: total } = reassembly;
      if (protocol === wire.PROTOCOL_UDP) this.#layers.udp.receiveLarge(gathered, total, src, dst);
      else counters.tooLarge++;
    }
  }

  /** TCP speaks with one host at a time: a segment to a broadcast address is none (RFC 9293, section 3.9.2.3). */
  #receiveTcp(frame: number, at: number, payloadAt: number, length: number): void {
    const { view, counters } = this.#link;
    if (!this.#layers.ip.isUnicast) counters.notForUs++;
    else
      this.#layers.tcp.receiveIpv4(
        frame,
        payloadAt,
        length,
        wire.src(view, at),
        wire.dst(view, at),
      );
  }
}
