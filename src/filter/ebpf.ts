/**
 * Filters compiled for the kernel: comparisons of the packet's fields with constants, box after box. What match.ts does,
 * and a test holds the two to each other.
 *
 * - A box costs at most 15 instructions and calls nothing.
 * - The fields stand on the stack and are loaded for every comparison. The verifier then learns nothing of them, so that
 *   it looks at each box once: of a register it would remember what each box has found, and follow every combination.
 */
import { type Assembler, R1, R10 } from '../ebpf/assembler.ts';
import { type Box, DIM, type Filter, SPACE_LAST } from './boxes.ts';

/**
 * Where the packet's fields are on the stack: words in host order. In the upper half of each 8 bytes, where the verifier
 * keeps no track of what was stored.
 */
export const FIELD = {
  destination: -68,
  source: -76,
  protocol: -84,
  destinationPort: -92,
  sourcePort: -100,
} as const;
/** In both fields of ports, when the packet shows none. */
export const NO_PORT = 0x10000;

/** On to `match` when a filter takes the packet whose FIELDs are on the stack; else falls through. Destroys R1. */
export function emitFilters(asm: Assembler, filters: readonly Filter[], match: string): void {
  for (const { boxes } of filters) for (const box of boxes) emitBox(asm, box, match);
}

/** On to `match` when the word at `field` of the stack is in one of `ranges`; else falls through. Destroys R1. */
export function emitRanges(
  asm: Assembler,
  field: number,
  ranges: readonly (readonly [first: number, last: number])[],
  match: string,
): void {
  for (const [first, last] of ranges) {
    const next = asm.fresh('range');
    const start = asm.length;
    emitRange(asm, field, { first, last, max: SPACE_LAST[DIM.destination]! }, next);
    finish(asm, start, match, next);
  }
}

function emitBox(asm: Assembler, box: Box, match: string): void {
  const next = asm.fresh('box');
  const start = asm.length;
  const test = (field: number, d: number, max: number): void =>
    emitRange(asm, field, { first: box.first[d]!, last: box.last[d]!, max }, next);
  test(FIELD.destination, DIM.destination, SPACE_LAST[DIM.destination]!);
  test(FIELD.protocol, DIM.protocol, SPACE_LAST[DIM.protocol]!);
  test(FIELD.source, DIM.source, SPACE_LAST[DIM.source]!);
  if (box.last[DIM.ports] === 0) {
    asm.ldx(4, R1, R10, FIELD.destinationPort).jlt32Imm(R1, NO_PORT, next);
  } else if (box.first[DIM.ports] === 1) {
    // NO_PORT is above every range here, so that what shows no port fails.
    test(FIELD.destinationPort, DIM.destinationPort, NO_PORT);
    test(FIELD.sourcePort, DIM.sourcePort, SPACE_LAST[DIM.sourcePort]!);
  }
  finish(asm, start, match, next);
}

/** All tests since `start` passed: on to `match`. */
function finish(asm: Assembler, start: number, match: string, next: string): void {
  // Without a test it never goes on to `next`; but the verifier wants to see a way to every instruction.
  if (asm.length === start) asm.ldx(4, R1, R10, FIELD.destination).jlt32Imm(R1, 0, next);
  asm.ja(match).label(next);
}

interface RangeTest {
  readonly first: number;
  readonly last: number;
  /** The field is never above. */
  readonly max: number;
}

/** On to `otherwise` unless first <= field <= last. */
function emitRange(asm: Assembler, field: number, range: RangeTest, otherwise: string): void {
  const { first, last, max } = range;
  if (first === 0 && last === max) return;
  asm.ldx(4, R1, R10, field);
  if (first === last) {
    asm.jne32Imm(R1, first, otherwise);
    return;
  }
  if (first > 0) asm.jlt32Imm(R1, first, otherwise);
  if (last < max) asm.jgt32Imm(R1, last, otherwise);
}
