/** What the XDP programs share: where fields are, the lookup in the flow table, counting, the way out. */
import type { Mac } from '../../../base/address.ts';
import { macHi, macLo } from '../../../base/address.ts';
import {
  type Assembler,
  R0,
  R1,
  R2,
  R3,
  R6,
  R7,
  R8,
  R10,
  type Register,
} from '../../../ebpf/assembler.ts';
import { COUNTS_PER_VNIC, SCOPE, type SwitchMaps } from './maps.ts';

// enum xdp_action, and struct xdp_md.
export const XDP_DROP = 1;
export const XDP_PASS = 2;
export const MD_DATA = 0;
export const MD_DATA_END = 4;
export const MD_RX_QUEUE_INDEX = 16;

// Ethernet, IPv4 (RFC 791) and ARP (RFC 826) from the frame's first byte. 16-bit constants as loaded from memory.
export const ETH_DST = 0;
/** Of the first byte of a MAC address: a group, not a station (IEEE 802). */
export const GROUP_BIT = 1;
export const ETH_SRC = 6;
export const ETH_TYPE = 12;
export const ETHERTYPE_IPV4 = 0x0008;
export const ETHERTYPE_ARP = 0x0608;
export const IP = 14;
export const IP_TOTAL_LENGTH = IP + 2;
export const IP_FRAGMENT = IP + 6;
export const IP_FRAGMENT_OFFSET_MASK = 0xff1f;
export const IP_PROTOCOL = IP + 9;
export const IP_SRC = IP + 12;
export const IP_DST = IP + 16;
export const IP_MIN_END = IP + 20;
export const ARP_ETHERNET = IP;
export const ARP_LENGTHS = IP + 4;
export const ARP_SENDER_MAC = IP + 8;
export const ARP_SENDER_IP = IP + 14;
export const ARP_TARGET_IP = IP + 24;
export const ARP_END = IP + 28;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;

// Stack.
export const KEY = -8;
export const KEY_PORT = -4;
export const KEY_PROTOCOL = -2;
export const KEY_SCOPE = -1;
export const COUNT_KEY = -12;

/** Registers that hold the same thing all through a program. */
export const DATA = R7;
export const DATA_END = R8;
export const CONTEXT = R6;

export function entry(asm: Assembler): void {
  asm.mov(CONTEXT, R1).ldx(4, DATA, R1, MD_DATA).ldx(4, DATA_END, R1, MD_DATA_END);
}

/** Go on when `bytes` of the frame are there, else to `otherwise`. */
export function need(asm: Assembler, bytes: number, otherwise: string): void {
  asm.mov(R2, DATA).addImm(R2, bytes).jgt(R2, DATA_END, otherwise);
}

/** R0 = value of the key on the stack; on to `found` when there is one. */
export function lookup(asm: Assembler, maps: SwitchMaps, found: string): void {
  asm.ldMapFd(R1, maps.flows, 'flows').mov(R2, R10).addImm(R2, KEY);
  asm.call('map_lookup_elem').jneImm(R0, 0, found);
}

/** The address at `at`, whole: what a filter of protocol 'any' covers. Falls through when nobody owns it. */
export function lookupAddress(asm: Assembler, maps: SwitchMaps, at: number, found: string): void {
  asm.ldx(4, R1, DATA, at).stx(4, R10, KEY, R1).stImm(4, R10, KEY_PORT, 0);
  lookup(asm, maps, found);
}

/**
 * Owner of an IPv4 frame's source or destination: the port first, then the protocol, then the whole address.
 * `checkIpv4` has found its header good.
 */
export function lookupFlow(
  asm: Assembler,
  maps: SwitchMaps,
  side: 'source' | 'destination',
  found: string,
): void {
  const ports = asm.fresh('ports');
  const portless = asm.fresh('portless');
  const any = asm.fresh('any');
  asm.ldx(4, R1, DATA, side === 'source' ? IP_SRC : IP_DST).stx(4, R10, KEY, R1);
  asm.stImm(4, R10, KEY_PORT, 0);
  asm.ldx(1, R1, DATA, IP_PROTOCOL).stx(1, R10, KEY_PROTOCOL, R1);
  asm.jeqImm(R1, PROTOCOL_TCP, ports).jneImm(R1, PROTOCOL_UDP, portless);
  asm.label(ports);
  asm.ldx(2, R1, DATA, IP_FRAGMENT).andImm(R1, IP_FRAGMENT_OFFSET_MASK).jneImm(R1, 0, portless);
  headerEnd(asm, R2);
  // The header was found to be good; the verifier has not seen it.
  asm.mov(R3, R2).addImm(R3, 4).jgt(R3, DATA_END, portless);
  asm.ldx(2, R3, R2, side === 'source' ? 0 : 2);
  asm.stx(2, R10, KEY_PORT, R3).stImm(1, R10, KEY_SCOPE, SCOPE.port);
  lookup(asm, maps, found);
  asm.stImm(2, R10, KEY_PORT, 0).stImm(1, R10, KEY_SCOPE, SCOPE.protocol);
  lookup(asm, maps, found);
  asm.ja(any);
  asm.label(portless).stImm(1, R10, KEY_SCOPE, SCOPE.portless);
  lookup(asm, maps, found);
  asm.label(any);
  asm.stImm(4, R10, KEY_PORT, 0);
  lookup(asm, maps, found);
}

/** `to` = where the IPv4 header ends. Destroys R1. */
export function headerEnd(asm: Assembler, to: Register): void {
  asm.ldx(1, R1, DATA, IP).andImm(R1, 0x0f).lshImm(R1, 2);
  asm.mov(to, DATA).add(to, R1).addImm(to, IP);
}

/** Add this frame to counter `which` of the VNIC whose id is in `id` (at most 32 bits, unchecked before). */
export function count(
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

export function redirect(
  asm: Assembler,
  map: [number, string],
  key: Register,
  otherwise: number,
): void {
  asm.ldMapFd(R1, map[0], map[1]).mov(R2, key).movImm(R3, otherwise);
  asm.call('redirect_map').exit();
}

export function sameMac(asm: Assembler, at: number, mac: Mac, otherwise: string): void {
  asm.ldx(4, R1, DATA, at).jne32Imm(R1, macWord(mac), otherwise);
  asm.ldx(2, R1, DATA, at + 4).jneImm(R1, macTail(mac), otherwise);
}

/** The first four bytes of a MAC as a little-endian load sees them, and the last two. */
export function macWord(mac: Mac): number {
  const head = macHi(mac) * 0x10000 + (macLo(mac) >>> 16);
  return swap16(head & 0xffff) * 0x10000 + swap16(head >>> 16);
}

export const macTail = (mac: Mac): number => swap16(macLo(mac) & 0xffff);
export const swap16 = (value: number): number => ((value & 0xff) << 8) | (value >>> 8);
