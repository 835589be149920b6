/**
 * The XDP programs with a mechanism taken out, composed of what the product's are composed of. Only this benchmark loads
 * them, into the links of an interface that it made: the product's have no way to leave anything out.
 *
 * They know one flow of IPv4 without compiled filters; a program of which nothing is left is a plain redirect.
 */
import type { Mac } from '../../src/base/address.ts';
import { DROP } from '../../src/device/drops.ts';
import {
  count,
  DATA,
  DATA_END,
  ETH_DST,
  ETH_SRC,
  ETH_TYPE,
  ETHERTYPE_IPV4,
  entry,
  GROUP_BIT,
  IP,
  IP_MIN_END,
  lookupFlow,
  need,
  redirect,
  sameMac,
  XDP_DROP,
  XDP_PASS,
} from '../../src/drivers/af-xdp/programs/common.ts';
import { checkIpv4 } from '../../src/drivers/af-xdp/programs/fields.ts';
import {
  COUNT_RX,
  COUNT_TX,
  KIND,
  type SwitchMaps,
  slotOf,
  UPLINK,
} from '../../src/drivers/af-xdp/programs/maps.ts';
import { police, policeQueue } from '../../src/drivers/af-xdp/programs/police.ts';
import {
  chooseByFlow,
  keepOwner,
  redirectToSlot,
  SLOT,
} from '../../src/drivers/af-xdp/programs/spread.ts';
import { Assembler, R0, R1, R4, R9, R10 } from '../../src/ebpf/assembler.ts';

/** What a program still has. */
export interface Kept {
  /** Of a guard: who sends. Of steer: whose flow it is. */
  readonly check: boolean;
  readonly counters: boolean;
}

export interface GuardOf {
  readonly id: number;
  readonly mac: Mac;
  readonly frameLengthMax: number;
}

/** Guard of VNIC `id`: as the product's, with what is `kept` and the police. */
export function guardWith(maps: SwitchMaps, vnic: GuardOf, kept: Kept): Assembler {
  const asm = new Assembler();
  entry(asm);
  need(asm, kept.check ? IP : IP_MIN_END, 'drop');
  if (kept.check) checkSender(asm, maps, vnic);
  lookupFlow(asm, maps, 'destination', 'forward');
  asm.ja('wire');
  asm.label('forward');
  keepOwner(asm);
  asm.ldx(1, R1, R0, 4).jneImm(R1, KIND.switched, 'drop');
  chooseByFlow(asm);
  policeQueue(asm, maps, { slot: slotOf(vnic.id, 0) }, 'send', 'over');
  police(asm, maps, vnic, 'send', 'over');
  policeQueue(asm, maps, { at: SLOT }, 'receive', 'drop');
  police(asm, maps, R9, 'receive', 'drop');
  if (kept.counters) {
    count(asm, maps, vnic, COUNT_TX);
    count(asm, maps, R9, COUNT_RX);
  }
  redirectToSlot(asm, [maps.veths, 'veths'], XDP_DROP);
  asm.label('wire');
  policeQueue(asm, maps, { slot: slotOf(vnic.id, 0) }, 'send', 'over');
  police(asm, maps, vnic, 'send', 'over');
  if (kept.counters) count(asm, maps, vnic, COUNT_TX);
  asm.movImm(R9, UPLINK);
  redirect(asm, [maps.veths, 'veths'], R9, XDP_DROP);
  asm.label('over');
  if (kept.counters) count(asm, maps, vnic, DROP.rateExceeded);
  asm.label('drop').movImm(R0, XDP_DROP).exit();
  return asm;
}

function checkSender(asm: Assembler, maps: SwitchMaps, vnic: GuardOf): void {
  asm.mov(R1, DATA_END).sub(R1, DATA).jgtImm(R1, vnic.frameLengthMax, 'drop');
  sameMac(asm, ETH_SRC, vnic.mac, 'drop');
  asm.ldx(2, R1, DATA, ETH_TYPE).jneImm(R1, ETHERTYPE_IPV4, 'drop');
  checkIpv4(asm, 'drop');
  lookupFlow(asm, maps, 'source', 'owner');
  asm.ja('drop').label('owner').ldx(4, R1, R0, 0).jneImm(R1, vnic.id, 'drop');
}

/** Steer of an interface with this `mac`, on which VNIC `id` is the only one, and switched. */
export function steerWith(maps: SwitchMaps, id: number, mac: Mac, kept: Kept): Assembler {
  const asm = new Assembler();
  entry(asm);
  if (kept.check) {
    need(asm, IP_MIN_END, 'pass');
    asm.ldx(1, R1, DATA, ETH_DST).andImm(R1, GROUP_BIT).jneImm(R1, 0, 'ours');
    sameMac(asm, ETH_DST, mac, 'pass');
    asm.label('ours').ldx(2, R1, DATA, ETH_TYPE).jneImm(R1, ETHERTYPE_IPV4, 'pass');
    checkIpv4(asm, 'pass');
    lookupFlow(asm, maps, 'destination', 'found');
    asm.ja('pass').label('found');
    keepOwner(asm);
    asm.ldx(1, R1, R0, 4).jneImm(R1, KIND.switched, 'pass');
  } else {
    asm.movImm(R9, id);
  }
  if (kept.check) chooseByFlow(asm);
  else asm.movImm(R4, slotOf(id, 0)).stx(4, R10, SLOT, R4);
  policeQueue(asm, maps, { at: SLOT }, 'receive', 'over');
  police(asm, maps, R9, 'receive', 'over');
  if (kept.counters) count(asm, maps, R9, COUNT_RX);
  redirectToSlot(asm, [maps.veths, 'veths'], XDP_DROP);
  asm.label('over');
  if (kept.counters) count(asm, maps, R9, DROP.rateExceeded);
  asm.movImm(R0, XDP_DROP).exit();
  if (kept.check) asm.label('pass').movImm(R0, XDP_PASS).exit();
  return asm;
}

/** Everything to one place, unread. */
export function plainRedirect(map: [number, string], slot: number, otherwise: number): Assembler {
  const asm = new Assembler();
  asm.movImm(R4, slot);
  redirect(asm, map, R4, otherwise);
  return asm;
}
