/** The program of the interface itself. */
import type { Mac } from '../../../base/address.ts';
import { DROP } from '../../../device/drops.ts';
import { Assembler, R0, R1, R2, R3, R4, R9, R10 } from '../../../ebpf/assembler.ts';
import { FIELD } from '../../../filter/ebpf.ts';
import {
  ARP_END,
  ARP_TARGET_IP,
  CONTEXT,
  count,
  DATA,
  ETH_DST,
  ETH_TYPE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  entry,
  GROUP_BIT,
  IP_MIN_END,
  lookupAddress,
  lookupFlow,
  MD_RX_QUEUE_INDEX,
  need,
  sameMac,
  XDP_DROP,
  XDP_PASS,
} from './common.ts';
import { checkIpv4, storeFields, storeWord } from './fields.ts';
import { COUNT_RX, KIND, QUEUES_PER_VNIC_LOG2, type SwitchMaps } from './maps.ts';
import { police, policeQueue } from './police.ts';
import { findOwner, findReceiver, NO_RECEIVERS, type Receiver } from './rules.ts';
import { chooseByFlow, keepOwner, redirectToSlot, SLOT } from './spread.ts';

/**
 * Receive side of the interface with this `mac`: give each VNIC its flows, and everything else to the kernel. A
 * promiscuous interface also receives frames for others: those are not ours to take, whatever address they carry.
 * Nor are those that are no good packets: the kernel counts them.
 */
export function steerProgram(
  maps: SwitchMaps,
  mac: Mac,
  receivers: readonly Receiver[] = NO_RECEIVERS,
): Assembler {
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
  checkIpv4(asm, 'pass');
  lookupFlow(asm, maps, 'destination', 'found');
  if (receivers.length > 0) storeFields(asm);
  findReceiver(asm, receivers, 'found');
  asm.ja('pass');

  asm.label('arp');
  need(asm, ARP_END, 'pass');
  lookupAddress(asm, maps, ARP_TARGET_IP, 'found');
  if (receivers.length > 0) storeWord(asm, ARP_TARGET_IP, FIELD.destination);
  findOwner(asm, receivers, 'found');
  asm.ja('pass');

  asm.label('found');
  keepOwner(asm);
  asm.ldx(1, R1, R0, 4).jeqImm(R1, KIND.switched, 'switched');
  // A socket takes frames of its own queue only. What is on no queue of the VNIC is the kernel's, as before.
  asm.ldx(2, R2, R0, 6).ldx(1, R3, R0, 5).addImm(R3, -1);
  asm.ldx(4, R1, CONTEXT, MD_RX_QUEUE_INDEX).sub(R1, R2).jgt(R1, R3, 'pass');
  asm.mov(R4, R9).lshImm(R4, QUEUES_PER_VNIC_LOG2).add(R4, R1).stx(4, R10, SLOT, R4);
  policeQueue(asm, maps, { at: SLOT }, 'receive', 'rateExceeded');
  police(asm, maps, R9, 'receive', 'rateExceeded');
  count(asm, maps, R9, COUNT_RX);
  redirectToSlot(asm, [maps.xsks, 'xsks'], XDP_PASS);
  asm.label('switched');
  chooseByFlow(asm);
  policeQueue(asm, maps, { at: SLOT }, 'receive', 'rateExceeded');
  police(asm, maps, R9, 'receive', 'rateExceeded');
  count(asm, maps, R9, COUNT_RX);
  redirectToSlot(asm, [maps.veths, 'veths'], XDP_DROP);
  asm.label('rateExceeded');
  count(asm, maps, R9, DROP.rateExceeded);
  asm.movImm(R0, XDP_DROP).exit();
  asm.label('pass').movImm(R0, XDP_PASS).exit();
  return asm;
}
