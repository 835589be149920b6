/** The program of the application's end of a veth. */
import { Assembler, R4 } from '../../../ebpf/assembler.ts';
import { redirect, XDP_DROP } from './common.ts';
import type { SwitchMaps } from './maps.ts';

/** Application's end of a veth: everything to its socket. */
export function deliverProgram(maps: SwitchMaps, slot: number): Assembler {
  const asm = new Assembler();
  asm.movImm(R4, slot);
  redirect(asm, [maps.xsks, 'xsks'], R4, XDP_DROP);
  return asm;
}
