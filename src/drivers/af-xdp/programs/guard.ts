/** The program of the switch end of a veth. */
import type { Mac } from '../../../base/address.ts';
import { DROP, type DropReason } from '../../../device/drops.ts';
import { Assembler, R0, R1, R2, R3, R4, R9, R10 } from '../../../ebpf/assembler.ts';
import {
  ARP_END,
  ARP_ETHERNET,
  ARP_LENGTHS,
  ARP_SENDER_IP,
  ARP_SENDER_MAC,
  ARP_TARGET_IP,
  count,
  DATA,
  DATA_END,
  ETH_SRC,
  ETH_TYPE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  entry,
  headerEnd,
  IP,
  IP_MIN_END,
  IP_SRC,
  IP_TOTAL_LENGTH,
  KEY,
  KEY_PORT,
  KEY_PROTOCOL,
  KEY_SCOPE,
  lookup,
  lookupAddress,
  lookupFlow,
  macTail,
  macWord,
  need,
  redirect,
  sameMac,
  XDP_DROP,
} from './common.ts';
import { COUNT_RX, COUNT_TX, KIND, SCOPE, type SwitchMaps, UPLINK } from './maps.ts';
import { police } from './police.ts';
import { keepOwner, redirectByFlow } from './spread.ts';

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

  asm.label('forward');
  keepOwner(asm);
  asm.ldx(1, R1, R0, 4).jneImm(R1, KIND.switched, 'noDestination');
  police(asm, maps, options, 'send', 'rateExceeded');
  police(asm, maps, R9, 'receive', 'receiverRate');
  count(asm, maps, options, COUNT_TX);
  count(asm, maps, R9, COUNT_RX);
  redirectByFlow(asm, [maps.veths, 'veths'], XDP_DROP);

  // The wire does not bring back what is for our own address: the kernel of this machine is not behind it.
  asm.label('wire');
  asm.ldx(4, R1, DATA, 0).jne32Imm(R1, macWord(options.mac), 'out');
  asm.ldx(2, R1, DATA, 4).jeqImm(R1, macTail(options.mac), 'noDestination');
  asm.label('out');
  police(asm, maps, options, 'send', 'rateExceeded');
  count(asm, maps, options, COUNT_TX);
  asm.movImm(R9, UPLINK);
  redirect(asm, [maps.veths, 'veths'], R9, XDP_DROP);

  asm.label('receiverRate');
  count(asm, maps, R9, DROP.rateExceeded);
  asm.movImm(R0, XDP_DROP).exit();
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
  'rateExceeded',
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
