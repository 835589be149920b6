/**
 * IPv6 of one interface, as its parts joined: addresses, neighbours, routers, groups, ICMPv6, UDP. `NetInterface` makes
 * one when it is asked for IPv6, gives it every IPv6 frame, and runs its timers.
 *
 * - There is always a link-local address. Others are configured, or made of what routers say.
 * - The addresses are owned, or shared with the host's kernel: then they are configured, and ND, MLD and ICMPv6 the kernel's.
 * - No clock and no randomness inside: both are arguments.
 */
import type { Ipv6, Mac } from '../../base/address.ts';
import { formatIpv6, macHi, macLo } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import { copy, isGroup, isHost, isLinkLocal, set } from '../../base/ipv6.ts';
import { SIPHASH_KEY_LEN } from '../../base/siphash.ts';
import * as ethernet from '../../wire/ethernet.ts';
import { WALK } from '../../wire/extensions.ts';
import * as icmp from '../../wire/icmpv6.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../../wire/ipv4.ts';
import * as wire from '../../wire/ipv6.ts';
import * as mld from '../../wire/mld.ts';
import * as ndp from '../../wire/ndp.ts';
import type { IcmpErrors } from '../icmp-errors.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import type { PathMtu } from '../path-mtu.ts';
import type { Reassembly } from '../reassembly.ts';
import { type AddressState, AddressTable, ORIGIN } from './addresses.ts';
import { Autoconfiguration } from './autoconfiguration.ts';
import { ControlOutput } from './control.ts';
import { Discovery } from './discovery.ts';
import { Groups6 } from './groups.ts';
import { Icmp6Layer } from './icmp.ts';
import { Ipv6Layer } from './layer.ts';
import { type Neighbour6State, Neighbours6 } from './neighbours.ts';
import { Routes6 } from './routes.ts';
import { Udp6Layer } from './udp.ts';

export interface Ipv6Options {
  /** Addresses besides the link-local one, with the prefix that is on the link. */
  readonly addresses?: readonly { readonly address: Ipv6; readonly prefix: number }[];
  /** A router, for when none says so itself. */
  readonly gateway?: Ipv6;
  /** Listen to routers, and make addresses of the prefixes that they tell. Default: true, unless the address is shared. */
  readonly autoconfigure?: boolean;
  /** 16 random bytes that stay the same over restarts: addresses then say nothing of the MAC (RFC 7217). Default: EUI-64. */
  readonly secret?: Uint8Array;
  /** Questions, a second apart, whether somebody has a new address (RFC 4862). 0: it is used at once. Default 1. */
  readonly dadTransmits?: number;
}

/** What both families have one of. */
export interface SharedParts {
  readonly paths: PathMtu;
  readonly reassembly: Reassembly;
  readonly errors: IcmpErrors;
  /** Integers from 0 to 2^32 - 1. */
  readonly random: () => number;
}

/** A transport with connections, as IPv6 calls it: TCP. */
export interface Transport6 {
  /** Where the addresses of the next segment are written: ours, then the sender's. */
  readonly flow: Int32Array;
  /** A segment of `length` bytes at `at`, to one host. Counts its outcome; takes the frame when it keeps it. */
  receive(frame: number, at: number, length: number): void;
  /**
   * The same in `count` pieces from index `first` of `frames` on, its checksum looked at by the device: the header is at `at`
   * in the first piece, which has `firstLength` bytes from there on. Takes every frame.
   */
  receivePieces(
    frames: Uint32Array,
    lengths: Uint16Array,
    first: number,
    count: number,
    at: number,
    firstLength: number,
  ): void;
}

export interface Ipv6AddressInfo {
  readonly address: string;
  readonly prefix: number;
  readonly state: AddressState;
}

export class Ipv6Stack {
  readonly udp: Udp6Layer;
  readonly ip: Ipv6Layer;
  readonly neighbours: Neighbours6;
  readonly addresses: AddressTable;
  readonly routes: Routes6;
  /** Null: there is no TCP. It sends by `ip`. */
  tcp: Transport6 | null = null;
  readonly #link: Link;
  readonly #ownsAddress: boolean;
  readonly #groups: Groups6;
  readonly #icmp: Icmp6Layer;
  readonly #discovery: Discovery;
  /** The link-local address is somebody else's: nothing goes any more (RFC 4862, section 5.4.5). */
  #isDisabled = false;

  /** ARK_BAD_ARGUMENT when an option is out of range, ARK_LIMIT. */
  constructor(link: Link, shared: SharedParts, options: Ipv6Options, ownsAddress: boolean) {
    checkOptions(link, options, ownsAddress);
    this.#link = link;
    this.#ownsAddress = ownsAddress;
    const control = new ControlOutput(link);
    const groups = new Groups6(link, control, () => shared.random() / 2 ** 32);
    const addresses = new AddressTable(link, control, groups, {
      dadTransmits: options.dadTransmits ?? 1,
      isShared: !ownsAddress,
      retransMs: NET_LIMITS.ndRetransMs,
    });
    const neighbours = new Neighbours6(link, control, addresses, ownsAddress);
    const routes = new Routes6(link, neighbours);
    const { paths, reassembly, errors, random } = shared;
    const parts = { control, addresses, neighbours, routes, groups, paths, reassembly, random };
    this.ip = new Ipv6Layer(link, parts);
    this.#icmp = new Icmp6Layer(link, this.ip, addresses, errors);
    const { secret = null, autoconfigure = ownsAddress } = options;
    const autoconfiguration = new Autoconfiguration(link, parts, autoconfigure, secret);
    this.#discovery = new Discovery(link, this.ip, { ...parts, autoconfiguration });
    this.udp = new Udp6Layer(link, this.ip, ownsAddress ? this.#icmp : null);
    this.#groups = groups;
    this.addresses = addresses;
    this.neighbours = neighbours;
    this.routes = routes;
    groups.source = (to) => {
      const source = addresses.sourceFor(ALL_NODES, 0);
      if (source < 0) set(to, 0, 0, 0, 0, 0);
      else copy(addresses.words, source * 4, to, 0);
    };
    addresses.events = {
      assigned: (index) => {
        const isFirst = addresses.origin[index] === ORIGIN.linkLocal;
        if (isFirst && autoconfigure) this.#discovery.start();
      },
      duplicate: (index) => {
        if (addresses.origin[index] === ORIGIN.linkLocal) this.#isDisabled = true;
        autoconfiguration.retry(index);
      },
    };
    if (ownsAddress) autoconfiguration.addLinkLocal();
    this.#configure(options);
  }

  #configure({ addresses = [], gateway }: Ipv6Options): void {
    for (const { address, prefix } of addresses) {
      if (this.addresses.add(address, 0, prefix, ORIGIN.configured) < 0) {
        throw new ArrakisError('ARK_LIMIT', `no room for address ${formatIpv6(address)}`);
      }
      this.routes.setPrefix(address, 0, prefix, Number.POSITIVE_INFINITY);
    }
    if (gateway !== undefined) this.routes.setRouter(gateway, 0, Number.POSITIVE_INFINITY, 0);
  }

  /** Handle the IPv6 packet at `at` of `frame`. Counts its outcome; takes the frame when it becomes an answer. */
  receive(frame: number, at: number, end: number, isLinkUnicast: boolean): void {
    const { counters } = this.#link;
    if (this.#isDisabled) {
      counters.notForUs++;
      return;
    }
    const { ip } = this;
    const outcome = ip.receive(frame, at, end, isLinkUnicast);
    if (outcome === WALK.problem && this.#ownsAddress) {
      const { code, pointer, tellsGroup } = ip.walk;
      this.#problem(code, pointer, tellsGroup);
    }
    if (outcome !== WALK.payload) return;
    if (!this.#ownsAddress) ip.learn(ip.frame);
    if (ip.protocol === PROTOCOL_UDP) this.udp.receive();
    else if (ip.protocol === PROTOCOL_TCP && this.tcp !== null) this.#receiveTcp(this.tcp);
    else if (ip.protocol === wire.PROTOCOL_ICMPV6) this.#receiveIcmp();
    else if (!this.#ownsAddress) counters.notForUs++;
    else {
      counters.noProtocol++;
      if (ip.protocol !== wire.NO_NEXT_HEADER) this.#problem(UNKNOWN_HEADER, ip.walk.nextAt, false);
    }
  }

  /** TCP speaks with one host at a time (RFC 9293, section 3.9.2.3). */
  #receiveTcp(tcp: Transport6): void {
    const { frame, flow, payloadAt, payloadEnd, isUnicast } = this.ip;
    if (!isUnicast) {
      this.#link.counters.notForUs++;
      return;
    }
    tcp.flow.set(flow);
    tcp.receive(frame, payloadAt, payloadEnd - payloadAt);
  }

  /**
   * A packet of `total` bytes, Ethernet header included, in `count` pieces from index `first` of `frames` on. True when TCP
   * took it, with every frame; otherwise its outcome is counted.
   */
  receivePieces(
    frames: Uint32Array,
    lengths: Uint16Array,
    first: number,
    count: number,
    total: number,
  ): boolean {
    const { ip, tcp } = this;
    const frame = frames[first]!;
    const end = frame + lengths[first]!;
    if (tcp === null || this.#isDisabled) {
      this.#link.counters.notForUs++;
      return false;
    }
    const length = total - ethernet.HEADER_LEN;
    if (!ip.receivePieces(frame, frame + ethernet.HEADER_LEN, end, length)) return false;
    if (!this.#ownsAddress) ip.learn(frame);
    tcp.flow.set(ip.flow);
    tcp.receivePieces(frames, lengths, first, count, ip.payloadAt, end - ip.payloadAt);
    return true;
  }

  #problem(code: number, pointer: number, tellsGroup: boolean): void {
    const { frame, payloadEnd } = this.ip;
    const offset = pointer - (frame + ethernet.HEADER_LEN);
    this.#icmp.tell(frame, payloadEnd, icmp.PARAMETER_PROBLEM, code, offset, tellsGroup);
  }

  #receiveIcmp(): void {
    const { view, counters } = this.#link;
    const { frame, payloadAt: at, payloadEnd: end } = this.ip;
    const bodyLength = icmp.check(view, at, end, frame + ethernet.HEADER_LEN);
    if (bodyLength < 0) {
      if (bodyLength === icmp.BAD_CHECKSUM) counters.badChecksum++;
      else counters.badIcmp++;
      return;
    }
    const type = icmp.type(view, at);
    if (icmp.isError(type)) this.#icmp.error(at, end, type);
    else if (!this.#ownsAddress) counters.notForUs++;
    else if (ndp.isNdp(type)) this.#discovery.receive(frame, at, end, type);
    else if (type === icmp.ECHO_REQUEST) this.#icmp.echo(frame, at, end - at);
    else if (type === mld.QUERY) this.#receiveQuery(at, end);
    else counters.rxIcmp++;
  }

  /** A query is from a router on the link (RFC 3810, section 5.1.14). */
  #receiveQuery(at: number, end: number): void {
    const { view, counters } = this.#link;
    const { ip } = this;
    const hops = wire.hopLimit(view, ip.frame + ethernet.HEADER_LEN);
    if (hops !== mld.HOP_LIMIT || !isLinkLocal(ip.flow, 4) || !mld.checkQuery(at, end)) {
      counters.badIcmp++;
      return;
    }
    counters.rxMld++;
    this.#groups.query(at);
  }

  /** The reassembly of the packet whose first piece is in `frame` has run out of time (RFC 4443, section 3.3). */
  expired(frame: number): void {
    const { view } = this.#link;
    const at = frame + ethernet.HEADER_LEN;
    const { flow } = this.ip;
    wire.readDst(view, at, flow, 0);
    wire.readSrc(view, at, flow, 4);
    this.ip.isUnicast = this.addresses.has(flow, 0);
    const end = at + wire.HEADER_LEN + wire.payloadLength(view, at);
    this.#icmp.tell(frame, end, icmp.TIME_EXCEEDED, icmp.REASSEMBLY_TIMEOUT, 0, false);
  }

  /** What is due at the link's time. How much there was to do. */
  tick(): number {
    if (this.#isDisabled || !this.#ownsAddress) return 0;
    const asked = this.addresses.tick() + this.neighbours.tick();
    return asked + this.#discovery.tick() + this.#groups.tick();
  }

  get nextDueMs(): number {
    if (this.#isDisabled || !this.#ownsAddress) return Number.POSITIVE_INFINITY;
    return Math.min(
      this.addresses.nextDueMs,
      this.neighbours.nextDueMs,
      this.#discovery.nextDueMs,
      this.#groups.nextDueMs,
    );
  }

  /** Receive what is sent to `group`, and tell routers so. ARK_BAD_ARGUMENT, ARK_LIMIT. */
  join(group: Ipv6): void {
    if (!isGroup(group, 0)) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `${formatIpv6(group)} is not a group`);
    }
    if (!this.#groups.join(group, 0)) throw new ArrakisError('ARK_LIMIT', 'too many groups');
  }

  /** One `join` less. */
  leave(group: Ipv6): void {
    this.#groups.leave(group, 0);
  }

  /** Tell the stack a neighbour's MAC address; nothing received changes it. ARK_LIMIT when there is no room. */
  setNeighbour(address: Ipv6, mac: Mac): void {
    if (!this.neighbours.setPermanent(address, 0, macHi(mac), macLo(mac) | 0)) {
      throw new ArrakisError('ARK_LIMIT', 'too many permanent neighbours');
    }
  }

  neighbourState(address: Ipv6): Neighbour6State {
    return this.neighbours.stateOf(address, 0);
  }

  /** Our addresses as they are now, for people and tests. */
  list(): Ipv6AddressInfo[] {
    const { addresses } = this;
    return addresses.used().map((index) => ({
      address: formatIpv6(addresses.words, index * 4),
      prefix: addresses.prefix[index]!,
      state: addresses.stateOf(index),
    }));
  }

  /** Give every waiting frame back to the pool. */
  clear(): void {
    this.neighbours.clear();
  }
}

/** A destination of link scope. */
const ALL_NODES = Int32Array.of(0xff020000, 0, 0, 1);
/** Code of a parameter problem: a next header that nobody here knows. */
const UNKNOWN_HEADER = 1;

function checkOptions(link: Link, options: Ipv6Options, ownsAddress: boolean): void {
  const bad = (text: string) => new ArrakisError('ARK_BAD_ARGUMENT', text);
  const { addresses = [], gateway, secret, dadTransmits = 1, autoconfigure = false } = options;
  if (link.mtu < wire.MTU_MIN) throw bad(`IPv6 needs an MTU of ${wire.MTU_MIN}`);
  for (const { address, prefix } of addresses) {
    if (address.length !== 4 || !isHost(address, 0)) throw bad('an address is that of one host');
    if (!Number.isInteger(prefix) || prefix < 0 || prefix > 128) {
      throw bad(`${prefix} is not a prefix length`);
    }
  }
  if (gateway !== undefined && (gateway.length !== 4 || !isHost(gateway, 0))) {
    throw bad('gateway is no IPv6 address');
  }
  if (secret !== undefined && secret.length !== SIPHASH_KEY_LEN) {
    throw bad(`the secret has ${SIPHASH_KEY_LEN} bytes`);
  }
  if (!Number.isInteger(dadTransmits) || dadTransmits < 0 || dadTransmits > 10) {
    throw bad('dadTransmits is from 0 to 10');
  }
  if (!ownsAddress && (autoconfigure || addresses.length === 0)) {
    throw new ArrakisError('ARK_UNSUPPORTED', 'a shared IPv6 address is configured', {
      hint: "give the interface's addresses; the kernel listens to routers",
    });
  }
}
