/** The program of the switch end of a veth. */
import type { Mac } from '../../../base/address.ts';
import { DROP, type DropReason } from '../../../device/drops.ts';
import { Assembler, R0, R1, R9, R10 } from '../../../ebpf/assembler.ts';
import { DIM, projection } from '../../../filter/boxes.ts';
import { emitFilters, emitRanges, FIELD } from '../../../filter/ebpf.ts';
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
  IP,
  IP_SRC,
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
import { checkIpv4, storeFields, storeWord } from './fields.ts';
import { COUNT_RX, COUNT_TX, KIND, SCOPE, type SwitchMaps, slotOf, UPLINK } from './maps.ts';
import { police, policeQueue } from './police.ts';
import {
  findOwner,
  findReceiver,
  MIRRORS,
  NO_RECEIVERS,
  type Receiver,
  type Sender,
} from './rules.ts';
import { chooseByFlow, keepOwner, redirectToSlot, SLOT } from './spread.ts';

export interface GuardOptions {
  readonly id: number;
  /** Queue of the VNIC whose veth it is. Default 0. */
  readonly pair?: number;
  readonly mac: Mac;
  /** Longest frame, Ethernet header included. */
  readonly frameLengthMax: number;
  /** What it may send besides its flows. Default: nothing. */
  readonly sender?: Sender;
  /** Who receives by compiled filters. Default: nobody. */
  readonly receivers?: readonly Receiver[];
}

/** Switch end of a veth: let out what the VNIC may send, to another VNIC or to the wire; count and drop the rest. */
export function guardProgram(maps: SwitchMaps, options: GuardOptions): Assembler {
  const slot = slotOf(options.id, options.pair ?? 0);
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
  chooseByFlow(asm);
  policeQueue(asm, maps, { slot }, 'send', 'rateExceeded');
  police(asm, maps, options, 'send', 'rateExceeded');
  policeQueue(asm, maps, { at: SLOT }, 'receive', 'receiverRate');
  police(asm, maps, R9, 'receive', 'receiverRate');
  count(asm, maps, options, COUNT_TX);
  count(asm, maps, R9, COUNT_RX);
  redirectToSlot(asm, [maps.veths, 'veths'], XDP_DROP);

  // The wire does not bring back what is for our own address: the kernel of this machine is not behind it.
  asm.label('wire');
  asm.ldx(4, R1, DATA, 0).jne32Imm(R1, macWord(options.mac), 'out');
  asm.ldx(2, R1, DATA, 4).jeqImm(R1, macTail(options.mac), 'noDestination');
  asm.label('out');
  policeQueue(asm, maps, { slot }, 'send', 'rateExceeded');
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
  const { id, sender = MIRRORS, receivers = NO_RECEIVERS } = options;
  checkIpv4(asm, 'truncated');
  if (sender.filters.length + receivers.length > 0) storeFields(asm);
  if (sender.mirrorsFlows) {
    lookupFlow(asm, maps, 'source', 'owner');
    asm.ja('unlisted').label('owner').ldx(4, R1, R0, 0).jeqImm(R1, id, 'permitted');
    asm.label('unlisted');
  }
  emitFilters(asm, sender.filters, 'permitted');
  foreign(asm, maps, options);
  if (!sender.mirrorsFlows && sender.filters.length === 0) return;
  asm.label('permitted');
  lookupFlow(asm, maps, 'destination', 'forward');
  findReceiver(asm, receivers, 'forward');
  asm.ja('wire');
}

/** Not its flow: is it the address that is wrong, or only protocol or port? */
function foreign(asm: Assembler, maps: SwitchMaps, { id, sender = MIRRORS }: GuardOptions): void {
  emitRanges(asm, FIELD.source, projection(sender.filters, DIM.source), 'spoofedPort');
  if (sender.mirrorsFlows) {
    asm.ldx(4, R1, DATA, IP_SRC).stx(4, R10, KEY, R1);
    asm.stImm(2, R10, KEY_PORT, id).stImm(1, R10, KEY_PROTOCOL, 0);
    asm.stImm(1, R10, KEY_SCOPE, SCOPE.present);
    lookup(asm, maps, 'spoofedPort');
  } else if (sender.filters.length === 0) {
    // Never; but the verifier wants a way to every counter.
    asm.ldx(4, R1, DATA, IP_SRC).jlt32Imm(R1, 0, 'spoofedPort');
  }
  asm.ja('spoofedAddress');
}

function guardArp(asm: Assembler, maps: SwitchMaps, options: GuardOptions): void {
  const { id, sender = MIRRORS, receivers = NO_RECEIVERS } = options;
  asm.label('arp');
  need(asm, ARP_END, 'truncated');
  // Ethernet (1), IPv4 (0x0800), lengths 6 and 4: any other ARP is nobody's.
  asm.ldx(4, R1, DATA, ARP_ETHERNET).jne32Imm(R1, 0x00080100, 'spoofedArp');
  asm.ldx(2, R1, DATA, ARP_LENGTHS).jneImm(R1, 0x0406, 'spoofedArp');
  sameMac(asm, ARP_SENDER_MAC, options.mac, 'spoofedArp');
  lookupAddress(asm, maps, ARP_SENDER_IP, 'listed');
  asm.ja('notListed');
  asm.label('listed').ldx(4, R1, R0, 0).jeqImm(R1, id, 'sender');
  asm.label('notListed');
  if (sender.whole.length > 0) storeWord(asm, ARP_SENDER_IP, FIELD.source);
  emitRanges(asm, FIELD.source, sender.whole, 'sender');
  asm.ja('spoofedArp');
  asm.label('sender');
  lookupAddress(asm, maps, ARP_TARGET_IP, 'forward');
  if (receivers.length > 0) storeWord(asm, ARP_TARGET_IP, FIELD.destination);
  findOwner(asm, receivers, 'forward');
  asm.ja('wire');
}
