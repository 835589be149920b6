/**
 * The embedded switch: three XDP programs, driven by maps. A new filter is a map entry, never a new program.
 *
 *               steer (interface S)                guard (switch end of a veth)
 *   wire ──► S ─┬─ flow of a direct VNIC ──► its XSK          application's XSK on the other end
 *               ├─ flow of a switched one ─► its veth ══► deliver ──► XSK
 *               └─ none: XDP_PASS, the kernel's         guard ◄══ what the application sends
 *                                                         ├─ not its own address: dropped and counted
 *                                                         ├─ for another switched VNIC on S ─► its veth
 *                                                         └─ else ─► S ──► wire
 *
 * One flow table says who owns what, in both directions: a frame may be received by the owner of its destination,
 * and sent by the owner of its source.
 *
 *   key    8 bytes   address be32 | port be16 | protocol u8 | scope u8
 *   value  8 bytes   id u32 | kind u16 | queue u16       `id` indexes xsks, veths and counts
 */

import type { Mac } from '../../base/address.ts';
import { macHi, macLo } from '../../base/address.ts';
import { DROP, DROP_REASONS, type DropReason } from '../../device/drops.ts';
import {
  Assembler,
  R0,
  R1,
  R2,
  R3,
  R4,
  R6,
  R7,
  R8,
  R9,
  R10,
  type Register,
} from '../../ebpf/assembler.ts';

/** VNICs of one interface at a time. */
export const VNICS_MAX = 256;
/** Where the interface itself stands among the `veths`. */
export const UPLINK = VNICS_MAX;

export const FLOW_KEY_BYTES = 8;
export const FLOW_VALUE_BYTES = 8;
/** What a key covers. `present`: `port` is an id, and the VNIC has some filter with this address. */
export const SCOPE = { protocol: 0, port: 1, present: 2 } as const;
export const KIND = { direct: 0, switched: 1 } as const;

/** `counts`: per VNIC one entry {packets u64, bytes u64} for each drop reason, then received and sent. */
export const COUNT_RX = DROP_REASONS.length;
export const COUNT_TX = COUNT_RX + 1;
export const COUNTS_PER_VNIC = 16;
export const COUNT_WORDS = 2;

/** Descriptors of the maps. */
export interface SwitchMaps {
  readonly flows: number;
  /** XSKMAP by id. */
  readonly xsks: number;
  /** DEVMAP by id, and the interface at UPLINK. */
  readonly veths: number;
  readonly counts: number;
}

// enum xdp_action, and struct xdp_md.
const XDP_DROP = 1;
const XDP_PASS = 2;
const MD_DATA = 0;
const MD_DATA_END = 4;
const MD_RX_QUEUE_INDEX = 16;

// Ethernet, IPv4 (RFC 791) and ARP (RFC 826) from the frame's first byte. 16-bit constants as loaded from memory.
const ETH_DST = 0;
/** Of the first byte of a MAC address: a group, not a station (IEEE 802). */
const GROUP_BIT = 1;
const ETH_SRC = 6;
const ETH_TYPE = 12;
const ETHERTYPE_IPV4 = 0x0008;
const ETHERTYPE_ARP = 0x0608;
const IP = 14;
const IP_TOTAL_LENGTH = IP + 2;
const IP_FRAGMENT = IP + 6;
const IP_FRAGMENT_OFFSET_MASK = 0xff1f;
const IP_PROTOCOL = IP + 9;
const IP_SRC = IP + 12;
const IP_DST = IP + 16;
const IP_MIN_END = IP + 20;
const ARP_ETHERNET = IP;
const ARP_LENGTHS = IP + 4;
const ARP_SENDER_MAC = IP + 8;
const ARP_SENDER_IP = IP + 14;
const ARP_TARGET_IP = IP + 24;
const ARP_END = IP + 28;
const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;

// Stack.
const KEY = -8;
const KEY_PORT = -4;
const KEY_PROTOCOL = -2;
const KEY_SCOPE = -1;
const COUNT_KEY = -12;

/** Registers that hold the same thing all through a program. */
const DATA = R7;
const DATA_END = R8;
const CONTEXT = R6;

function entry(asm: Assembler): void {
  asm.mov(CONTEXT, R1).ldx(4, DATA, R1, MD_DATA).ldx(4, DATA_END, R1, MD_DATA_END);
}

/** Go on when `bytes` of the frame are there, else to `otherwise`. */
function need(asm: Assembler, bytes: number, otherwise: string): void {
  asm.mov(R2, DATA).addImm(R2, bytes).jgt(R2, DATA_END, otherwise);
}

/** R0 = value of the key on the stack; on to `found` when there is one. */
function lookup(asm: Assembler, maps: SwitchMaps, found: string): void {
  asm.ldMapFd(R1, maps.flows, 'flows').mov(R2, R10).addImm(R2, KEY);
  asm.call('map_lookup_elem').jneImm(R0, 0, found);
}

/** The address at `at`, whole: what a filter of protocol 'any' covers. Falls through when nobody owns it. */
function lookupAddress(asm: Assembler, maps: SwitchMaps, at: number, found: string): void {
  asm.ldx(4, R1, DATA, at).stx(4, R10, KEY, R1).stImm(4, R10, KEY_PORT, 0);
  lookup(asm, maps, found);
}

/**
 * Owner of an IPv4 frame's source or destination: the port first, then the protocol, then the whole address.
 * The IPv4 header has been checked to be there, with a header length of at least 20.
 */
function lookupFlow(
  asm: Assembler,
  maps: SwitchMaps,
  side: 'source' | 'destination',
  go: { found: string; truncated: string },
): void {
  const ports = asm.fresh('ports');
  const whole = asm.fresh('protocol');
  const any = asm.fresh('any');
  asm.ldx(4, R1, DATA, side === 'source' ? IP_SRC : IP_DST).stx(4, R10, KEY, R1);
  asm.stImm(4, R10, KEY_PORT, 0);
  asm.ldx(2, R1, DATA, IP_FRAGMENT).andImm(R1, IP_FRAGMENT_OFFSET_MASK).jneImm(R1, 0, any);
  asm.ldx(1, R1, DATA, IP_PROTOCOL).stx(1, R10, KEY_PROTOCOL, R1);
  asm.jeqImm(R1, PROTOCOL_TCP, ports).jneImm(R1, PROTOCOL_UDP, whole);
  asm.label(ports);
  headerEnd(asm, R2);
  asm.mov(R3, R2).addImm(R3, 4).jgt(R3, DATA_END, go.truncated);
  asm.ldx(2, R3, R2, side === 'source' ? 0 : 2);
  asm.stx(2, R10, KEY_PORT, R3).stImm(1, R10, KEY_SCOPE, SCOPE.port);
  lookup(asm, maps, go.found);
  asm.stImm(2, R10, KEY_PORT, 0).stImm(1, R10, KEY_SCOPE, SCOPE.protocol);
  asm.label(whole);
  lookup(asm, maps, go.found);
  asm.label(any);
  asm.stImm(4, R10, KEY_PORT, 0);
  lookup(asm, maps, go.found);
}

/** `to` = where the IPv4 header ends. Destroys R1. */
function headerEnd(asm: Assembler, to: Register): void {
  asm.ldx(1, R1, DATA, IP).andImm(R1, 0x0f).lshImm(R1, 2);
  asm.mov(to, DATA).add(to, R1).addImm(to, IP);
}

/** Add this frame to counter `which` of the VNIC whose id is in `id` (at most 32 bits, unchecked before). */
function count(
  asm: Assembler,
  maps: SwitchMaps,
  id: Register | { id: number },
  which: number,
): void {
  const done = asm.fresh('counted');
  if (typeof id === 'number') {
    asm.mov(R1, id).lshImm(R1, Math.log2(COUNTS_PER_VNIC)).addImm(R1, which);
    asm.stx(4, R10, COUNT_KEY, R1);
  } else {
    asm.stImm(4, R10, COUNT_KEY, id.id * COUNTS_PER_VNIC + which);
  }
  asm.ldMapFd(R1, maps.counts, 'counts').mov(R2, R10).addImm(R2, COUNT_KEY);
  asm.call('map_lookup_elem').jeqImm(R0, 0, done);
  // Per-CPU and inside NAPI: nobody else writes these words now.
  asm.ldx(8, R1, R0, 0).addImm(R1, 1).stx(8, R0, 0, R1);
  asm.mov(R2, DATA_END).sub(R2, DATA);
  asm.ldx(8, R1, R0, 8).add(R1, R2).stx(8, R0, 8, R1);
  asm.label(done);
}

function redirect(asm: Assembler, map: [number, string], key: Register, otherwise: number): void {
  asm.ldMapFd(R1, map[0], map[1]).mov(R2, key).movImm(R3, otherwise);
  asm.call('redirect_map').exit();
}

/**
 * Receive side of the interface with this `mac`: give each VNIC its flows, and everything else to the kernel. A
 * promiscuous interface also receives frames for others: those are not ours to take, whatever address they carry.
 */
export function steerProgram(maps: SwitchMaps, mac: Mac): Assembler {
  const asm = new Assembler();
  entry(asm);
  need(asm, IP_MIN_END, 'pass');
  asm.ldx(1, R1, DATA, ETH_DST).andImm(R1, GROUP_BIT).jneImm(R1, 0, 'ours');
  sameMac(asm, ETH_DST, mac, 'pass');
  asm.label('ours');
  asm
    .ldx(2, R1, DATA, ETH_TYPE)
    .jeqImm(R1, ETHERTYPE_ARP, 'arp')
    .jneImm(R1, ETHERTYPE_IPV4, 'pass');
  asm.ldx(1, R1, DATA, IP).jltImm(R1, 0x45, 'pass').jgtImm(R1, 0x4f, 'pass');
  lookupFlow(asm, maps, 'destination', { found: 'found', truncated: 'pass' });
  asm.ja('pass');

  asm.label('arp');
  need(asm, ARP_END, 'pass');
  lookupAddress(asm, maps, ARP_TARGET_IP, 'found');
  asm.ja('pass');

  asm.label('found');
  asm.ldx(4, R9, R0, 0).ldx(2, R1, R0, 4).jeqImm(R1, KIND.switched, 'switched');
  // A socket takes frames of its own queue only. Another queue's are the kernel's, as before.
  asm.ldx(2, R2, R0, 6).ldx(4, R1, CONTEXT, MD_RX_QUEUE_INDEX).sub(R1, R2).jneImm(R1, 0, 'pass');
  count(asm, maps, R9, COUNT_RX);
  redirect(asm, [maps.xsks, 'xsks'], R9, XDP_PASS);
  asm.label('switched');
  count(asm, maps, R9, COUNT_RX);
  redirect(asm, [maps.veths, 'veths'], R9, XDP_DROP);
  asm.label('pass').movImm(R0, XDP_PASS).exit();
  return asm;
}

/** Application's end of a veth: everything to its socket. */
export function deliverProgram(maps: SwitchMaps, id: number): Assembler {
  const asm = new Assembler();
  asm.movImm(R4, id);
  redirect(asm, [maps.xsks, 'xsks'], R4, XDP_DROP);
  return asm;
}

export interface GuardOptions {
  readonly id: number;
  readonly mac: Mac;
  /** Longest frame, Ethernet header included. */
  readonly frameLengthMax: number;
}

/** Switch end of a veth: let out what the VNIC may send, to another VNIC or to the wire; count and drop the rest. */
export function guardProgram(maps: SwitchMaps, options: GuardOptions): Assembler {
  const asm = new Assembler();
  entry(asm);
  need(asm, IP, 'truncated');
  asm.mov(R1, DATA_END).sub(R1, DATA).jgtImm(R1, options.frameLengthMax, 'tooLong');
  sameMac(asm, ETH_SRC, options.mac, 'spoofedMac');
  asm.ldx(2, R1, DATA, ETH_TYPE).jeqImm(R1, ETHERTYPE_ARP, 'arp');
  asm.jneImm(R1, ETHERTYPE_IPV4, 'otherProtocol');
  guardIpv4(asm, maps, options);
  guardArp(asm, maps, options);

  asm.label('forward').ldx(4, R9, R0, 0).ldx(2, R1, R0, 4);
  asm.jneImm(R1, KIND.switched, 'noDestination');
  count(asm, maps, options, COUNT_TX);
  count(asm, maps, R9, COUNT_RX);
  redirect(asm, [maps.veths, 'veths'], R9, XDP_DROP);

  // The wire does not bring back what is for our own address: the kernel of this machine is not behind it.
  asm.label('wire');
  asm.ldx(4, R1, DATA, 0).jne32Imm(R1, macWord(options.mac), 'out');
  asm.ldx(2, R1, DATA, 4).jeqImm(R1, macTail(options.mac), 'noDestination');
  asm.label('out');
  count(asm, maps, options, COUNT_TX);
  asm.movImm(R9, UPLINK);
  redirect(asm, [maps.veths, 'veths'], R9, XDP_DROP);

  for (const reason of GUARD_DROPS) {
    asm.label(reason);
    count(asm, maps, options, DROP[reason]);
    asm.movImm(R0, XDP_DROP).exit();
  }
  return asm;
}

const GUARD_DROPS = [
  'truncated',
  'tooLong',
  'spoofedMac',
  'spoofedAddress',
  'spoofedPort',
  'spoofedArp',
  'otherProtocol',
  'noDestination',
] as const satisfies readonly DropReason[];

function guardIpv4(asm: Assembler, maps: SwitchMaps, options: GuardOptions): void {
  need(asm, IP_MIN_END, 'truncated');
  asm.ldx(1, R1, DATA, IP).jltImm(R1, 0x45, 'truncated').jgtImm(R1, 0x4f, 'truncated');
  headerEnd(asm, R2);
  asm.jgt(R2, DATA_END, 'truncated');
  // The total length covers the header and ends within the frame.
  asm.ldx(2, R3, DATA, IP_TOTAL_LENGTH).be(R3, 16).addImm(R3, IP);
  asm.mov(R4, DATA_END).sub(R4, DATA).jgt(R3, R4, 'truncated');
  asm.mov(R4, R2).sub(R4, DATA).jgt(R4, R3, 'truncated');
  lookupFlow(asm, maps, 'source', { found: 'owner', truncated: 'truncated' });
  asm.ja('foreign');
  asm.label('owner').ldx(4, R1, R0, 0).jneImm(R1, options.id, 'foreign');
  lookupFlow(asm, maps, 'destination', { found: 'forward', truncated: 'truncated' });
  asm.ja('wire');
  // Not its flow: is it the address that is wrong, or only protocol or port?
  asm.label('foreign').ldx(4, R1, DATA, IP_SRC).stx(4, R10, KEY, R1);
  asm.stImm(2, R10, KEY_PORT, options.id).stImm(1, R10, KEY_PROTOCOL, 0);
  asm.stImm(1, R10, KEY_SCOPE, SCOPE.present);
  lookup(asm, maps, 'spoofedPort');
  asm.ja('spoofedAddress');
}

function guardArp(asm: Assembler, maps: SwitchMaps, options: GuardOptions): void {
  asm.label('arp');
  need(asm, ARP_END, 'truncated');
  // Ethernet (1), IPv4 (0x0800), lengths 6 and 4: any other ARP is nobody's.
  asm.ldx(4, R1, DATA, ARP_ETHERNET).jne32Imm(R1, 0x00080100, 'spoofedArp');
  asm.ldx(2, R1, DATA, ARP_LENGTHS).jneImm(R1, 0x0406, 'spoofedArp');
  sameMac(asm, ARP_SENDER_MAC, options.mac, 'spoofedArp');
  lookupAddress(asm, maps, ARP_SENDER_IP, 'sender');
  asm.ja('spoofedArp');
  asm.label('sender').ldx(4, R1, R0, 0).jneImm(R1, options.id, 'spoofedArp');
  lookupAddress(asm, maps, ARP_TARGET_IP, 'forward');
  asm.ja('wire');
}

function sameMac(asm: Assembler, at: number, mac: Mac, otherwise: string): void {
  asm.ldx(4, R1, DATA, at).jne32Imm(R1, macWord(mac), otherwise);
  asm.ldx(2, R1, DATA, at + 4).jneImm(R1, macTail(mac), otherwise);
}

/** The first four bytes of a MAC as a little-endian load sees them, and the last two. */
function macWord(mac: Mac): number {
  const head = macHi(mac) * 0x10000 + (macLo(mac) >>> 16);
  return swap16(head & 0xffff) * 0x10000 + swap16(head >>> 16);
}

const macTail = (mac: Mac): number => swap16(macLo(mac) & 0xffff);
const swap16 = (value: number): number => ((value & 0xff) << 8) | (value >>> 8);
