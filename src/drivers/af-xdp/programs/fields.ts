/** A packet's header, checked and read: what softnic/match.ts does in JavaScript, step by step. */
import { type Assembler, R1, R2, R3, R4, R10 } from '../../../ebpf/assembler.ts';
import { FIELD, NO_PORT } from '../../../filter/ebpf.ts';
import {
  DATA,
  DATA_END,
  headerEnd,
  IP,
  IP_DST,
  IP_FRAGMENT,
  IP_FRAGMENT_OFFSET_MASK,
  IP_MIN_END,
  IP_PROTOCOL,
  IP_SRC,
  IP_TOTAL_LENGTH,
  need,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from './common.ts';

/**
 * Go on when there is an IPv4 header with its options, and when its total length holds it, ends within the frame and has
 * room for ports where the packet must show them; else to `truncated`. Destroys R1 to R4.
 */
export function checkIpv4(asm: Assembler, truncated: string): void {
  const ports = asm.fresh('ports');
  const checked = asm.fresh('checked');
  need(asm, IP_MIN_END, truncated);
  asm.ldx(1, R1, DATA, IP).jltImm(R1, 0x45, truncated).jgtImm(R1, 0x4f, truncated);
  headerEnd(asm, R2);
  asm.jgt(R2, DATA_END, truncated);
  asm.ldx(2, R3, DATA, IP_TOTAL_LENGTH).be(R3, 16).addImm(R3, IP);
  asm.mov(R4, DATA_END).sub(R4, DATA).jgt(R3, R4, truncated);
  asm.mov(R4, R2).sub(R4, DATA).jgt(R4, R3, truncated);
  asm.ldx(1, R1, DATA, IP_PROTOCOL).jeqImm(R1, PROTOCOL_TCP, ports);
  asm.jneImm(R1, PROTOCOL_UDP, checked);
  asm.label(ports);
  asm.ldx(2, R1, DATA, IP_FRAGMENT).andImm(R1, IP_FRAGMENT_OFFSET_MASK).jneImm(R1, 0, checked);
  asm.addImm(R4, 4).jgt(R4, R3, truncated);
  asm.label(checked);
}

/** Put the FIELDs of a packet that `checkIpv4` found good on the stack. Destroys R1 to R4. */
export function storeFields(asm: Assembler): void {
  const ports = asm.fresh('ports');
  const store = asm.fresh('store');
  asm.movImm(R3, NO_PORT).movImm(R4, NO_PORT);
  asm.ldx(1, R1, DATA, IP_PROTOCOL).stx(4, R10, FIELD.protocol, R1).jeqImm(R1, PROTOCOL_TCP, ports);
  asm.jneImm(R1, PROTOCOL_UDP, store);
  asm.label(ports);
  asm.ldx(2, R1, DATA, IP_FRAGMENT).andImm(R1, IP_FRAGMENT_OFFSET_MASK).jneImm(R1, 0, store);
  headerEnd(asm, R2);
  // For the verifier: the check before was of lengths, which tells it nothing of pointers.
  asm.mov(R1, R2).addImm(R1, 4).jgt(R1, DATA_END, store);
  asm.ldx(2, R3, R2, 0).be(R3, 16).ldx(2, R4, R2, 2).be(R4, 16);
  asm.label(store);
  asm.stx(4, R10, FIELD.sourcePort, R3).stx(4, R10, FIELD.destinationPort, R4);
  storeWord(asm, IP_SRC, FIELD.source);
  storeWord(asm, IP_DST, FIELD.destination);
}

/** The big-endian word at `at` of the frame to `field` of the stack. Destroys R1. */
export function storeWord(asm: Assembler, at: number, field: number): void {
  asm.ldx(4, R1, DATA, at).be(R1, 32).stx(4, R10, field, R1);
}
