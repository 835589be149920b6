/** Which queue of a VNIC gets a frame: device/flow-hash.ts, step by step, in eBPF. */
import { FLOW_HASH_BITS, FLOW_MIX, FLOW_SHIFT } from '../../../device/flow-hash.ts';
import {
  Assembler,
  R0,
  R1,
  R2,
  R3,
  R4,
  R5,
  R9,
  R10,
  type Register,
} from '../../../ebpf/assembler.ts';
import {
  DATA,
  DATA_END,
  ETH_TYPE,
  ETHERTYPE_IPV4,
  entry,
  headerEnd,
  IP_DST,
  IP_FRAGMENT,
  IP_MIN_END,
  IP_PROTOCOL,
  IP_SRC,
  need,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  redirect,
} from './common.ts';
import { QUEUES_PER_VNIC_LOG2 } from './maps.ts';

/** Stack: queues of the VNIC that gets the frame, and the slot of the one that does. */
const QUEUES = -16;
export const SLOT = -20;
/** "More fragments" and the offset, as a 16-bit load sees them. */
const IP_FRAGMENT_MASK = 0xff3f;

/** Keep what the flow's value at R0 says of its owner: R9 = id, and its queues on the stack. Destroys R1. */
export function keepOwner(asm: Assembler): void {
  asm.ldx(4, R9, R0, 0).ldx(1, R1, R0, 5).stx(4, R10, QUEUES, R1);
}

/**
 * Put the slot of the queue of VNIC R9 that the frame's flow is on at SLOT on the stack. At least the headers of Ethernet
 * and IPv4 were found to be there. Destroys R1 to R5.
 */
export function chooseByFlow(asm: Assembler): void {
  asm.mov(R4, R9).lshImm(R4, QUEUES_PER_VNIC_LOG2);
  addPairOfFlow(asm, R4);
  asm.stx(4, R10, SLOT, R4);
}

/** End the program: the frame goes to the queue whose slot was chosen, by `map`. */
export function redirectToSlot(asm: Assembler, map: [number, string], otherwise: number): void {
  asm.ldx(4, R4, R10, SLOT);
  redirect(asm, map, R4, otherwise);
}

/** A program that returns the pair of a frame's flow among `queues`; `queues` for one too short. For tests. */
export function pairProgram(queues: number): Assembler {
  const asm = new Assembler();
  entry(asm);
  asm.movImm(R4, queues);
  need(asm, IP_MIN_END, 'end');
  asm.stImm(4, R10, QUEUES, queues).movImm(R4, 0);
  addPairOfFlow(asm, R4);
  return asm.label('end').mov(R0, R4).exit();
}

/** `to` += the pair of this frame's flow among those on the stack. Destroys R1 to R3 and R5. */
function addPairOfFlow(asm: Assembler, to: Register): void {
  const ports = asm.fresh('ports');
  const mix = asm.fresh('mix');
  const done = asm.fresh('spread');
  asm.ldx(4, R5, R10, QUEUES).jeqImm(R5, 1, done);
  asm.ldx(2, R1, DATA, ETH_TYPE).jneImm(R1, ETHERTYPE_IPV4, done);
  asm.ldx(1, R1, DATA, IP_PROTOCOL).jeqImm(R1, PROTOCOL_UDP, ports).jneImm(R1, PROTOCOL_TCP, done);
  asm.label(ports).movImm(R3, 0);
  asm.ldx(2, R1, DATA, IP_FRAGMENT).andImm(R1, IP_FRAGMENT_MASK).jneImm(R1, 0, mix);
  headerEnd(asm, R2);
  asm.mov(R1, R2).addImm(R1, 4).jgt(R1, DATA_END, mix);
  asm.ldx(2, R3, R2, 0).be(R3, 16).ldx(2, R1, R2, 2).be(R1, 16).add(R3, R1);
  asm.label(mix).mul32Imm(R3, FLOW_MIX.ports);
  asm.ldx(4, R1, DATA, IP_SRC).ldx(4, R2, DATA, IP_DST).xor32(R1, R2).be(R1, 32).xor32(R1, R3);
  asm.mul32Imm(R1, FLOW_MIX.first).mov32(R2, R1).rsh32Imm(R2, FLOW_SHIFT.first).xor32(R1, R2);
  asm.mul32Imm(R1, FLOW_MIX.second).rsh32Imm(R1, FLOW_SHIFT.second);
  asm.mul32(R1, R5).rsh32Imm(R1, FLOW_HASH_BITS).add(to, R1);
  asm.label(done);
}
