/**
 * An assembler for eBPF (RFC 9669), as far as our programs need it.
 *
 * - One method per instruction, named as in the RFC; each appends and returns the assembler.
 * - A label is a string; jumps may go forward only (the verifier would have to prove that a loop ends).
 * - `encode` gives the bytes for bpf(2); `format` the same program for people, in the notation of the verifier.
 *
 *   instruction: opcode u8 | dst:4 src:4 | offset s16 | imm s32, little-endian
 */
import { ArrakisError } from '../base/errors.ts';

export type Register = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;
/** Return value. */
export const R0 = 0;
/** Arguments; a call destroys them. At entry R1 is the context. */
export const R1 = 1;
export const R2 = 2;
export const R3 = 3;
export const R4 = 4;
export const R5 = 5;
/** Kept by calls. */
export const R6 = 6;
export const R7 = 7;
export const R8 = 8;
export const R9 = 9;
/** Frame pointer, read-only: the stack lies below it. */
export const R10 = 10;

/** Bytes of a memory access. */
export type Width = 1 | 2 | 4 | 8;
const WIDTH_BITS = { 1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18 } as const;

const ALU64 = {
  add: 0x07,
  sub: 0x17,
  mul: 0x27,
  and: 0x57,
  lsh: 0x67,
  rsh: 0x77,
  mov: 0xb7,
} as const;
const ALU32 = { mul: 0x24, xor: 0xa4, rsh: 0x74, mov: 0xb4 } as const;
const JUMP = { jeq: 0x15, jgt: 0x25, jne: 0x55, jlt: 0xa5 } as const;
const SIGN = {
  add: '+=',
  sub: '-=',
  and: '&=',
  lsh: '<<=',
  rsh: '>>=',
  mul: '*=',
  xor: '^=',
  mov: '=',
  jeq: '==',
  jgt: '>',
  jne: '!=',
  jlt: '<',
} as const;
const FROM_REGISTER = 0x08;
const JUMP32 = { jgt: 0x26, jne: 0x56, jlt: 0xa6 } as const;
const LDX = 0x61;
const STX = 0x63;
const ST = 0x62;
/** BPF_STX with mode ATOMIC, 64 bits; which operation is in the immediate (RFC 9669, section 5.3). */
const ATOMIC64 = 0xdb;
const ATOMIC = { add: 0x00, cmpxchg: 0xf1 } as const;
const BYTESWAP_BE = 0xdc;
const JA = 0x05;
const CALL = 0x85;
const EXIT = 0x95;
const LD_IMM64 = 0x18;
const PSEUDO_MAP_FD = 1;
const OFFSET_MAX = 0x7fff;

/** Helper functions by name (enum bpf_func_id). */
export const HELPER = { map_lookup_elem: 1, ktime_get_ns: 5, redirect_map: 51 } as const;

interface Instruction {
  readonly opcode: number;
  readonly dst: number;
  readonly src: number;
  readonly offset: number;
  readonly imm: number;
  /** Jump target, resolved by `encode`. */
  readonly label: string | null;
  readonly text: string;
}

function misuse(text: string): ArrakisError {
  return new ArrakisError('ARK_INTERNAL', `eBPF assembler: ${text}`);
}

export class Assembler {
  readonly #code: Instruction[] = [];
  readonly #labels = new Map<string, number>();
  #generated = 0;

  #emit(text: string, opcode: number, fields: Partial<Instruction> = {}): this {
    const instruction = { opcode, dst: 0, src: 0, offset: 0, imm: 0, label: null, text, ...fields };
    if (instruction.offset < -0x8000 || instruction.offset > 0x7fff)
      throw misuse(`offset: ${text}`);
    if (instruction.imm < -0x80000000 || instruction.imm > 0xffffffff) throw misuse(`imm: ${text}`);
    this.#code.push(instruction);
    return this;
  }

  /** Instructions so far; a 64-bit load counts as two. */
  get length(): number {
    return this.#code.length;
  }

  /** The next instruction is `name`. */
  label(name: string): this {
    if (this.#labels.has(name)) throw misuse(`label ${name} is there twice`);
    this.#labels.set(name, this.#code.length);
    return this;
  }

  /** A label that nobody else uses, for code that is generated more than once. */
  fresh(stem: string): string {
    return `${stem}.${++this.#generated}`;
  }

  #alu(name: keyof typeof ALU64, dst: Register, src: Register): this {
    const opcode = ALU64[name] | FROM_REGISTER;
    return this.#emit(`r${dst} ${SIGN[name]} r${src}`, opcode, { dst, src });
  }

  #aluImm(name: keyof typeof ALU64, dst: Register, imm: number): this {
    return this.#emit(`r${dst} ${SIGN[name]} ${imm}`, ALU64[name], { dst, imm });
  }

  mov = (dst: Register, src: Register): this => this.#alu('mov', dst, src);
  movImm = (dst: Register, imm: number): this => this.#aluImm('mov', dst, imm);
  add = (dst: Register, src: Register): this => this.#alu('add', dst, src);
  addImm = (dst: Register, imm: number): this => this.#aluImm('add', dst, imm);
  sub = (dst: Register, src: Register): this => this.#alu('sub', dst, src);
  andImm = (dst: Register, imm: number): this => this.#aluImm('and', dst, imm);
  lshImm = (dst: Register, imm: number): this => this.#aluImm('lsh', dst, imm);
  rshImm = (dst: Register, imm: number): this => this.#aluImm('rsh', dst, imm);
  mul = (dst: Register, src: Register): this => this.#alu('mul', dst, src);

  #alu32(name: keyof typeof ALU32, dst: Register, src: Register): this {
    return this.#emit(`w${dst} ${SIGN[name]} w${src}`, ALU32[name] | FROM_REGISTER, { dst, src });
  }

  #alu32Imm(name: keyof typeof ALU32, dst: Register, imm: number): this {
    return this.#emit(`w${dst} ${SIGN[name]} ${hex(imm)}`, ALU32[name], { dst, imm });
  }

  // On the low 32 bits; the upper ones become zero.
  mov32 = (dst: Register, src: Register): this => this.#alu32('mov', dst, src);
  xor32 = (dst: Register, src: Register): this => this.#alu32('xor', dst, src);
  mul32 = (dst: Register, src: Register): this => this.#alu32('mul', dst, src);
  mul32Imm = (dst: Register, imm: number): this => this.#alu32Imm('mul', dst, imm);
  rsh32Imm = (dst: Register, imm: number): this => this.#alu32Imm('rsh', dst, imm);

  /** Between network order and the machine's, in the low 16 or 32 bits; the rest becomes zero. */
  be(dst: Register, bits: 16 | 32): this {
    return this.#emit(`r${dst} = be${bits} r${dst}`, BYTESWAP_BE, { dst, imm: bits });
  }

  /** dst = *(width *)(src + offset), zero-extended. */
  ldx(width: Width, dst: Register, src: Register, offset: number): this {
    const text = `r${dst} = ${memory(width, src, offset)}`;
    return this.#emit(text, LDX | WIDTH_BITS[width], { dst, src, offset });
  }

  /** *(width *)(dst + offset) = src */
  stx(width: Width, dst: Register, offset: number, src: Register): this {
    const text = `${memory(width, dst, offset)} = r${src}`;
    return this.#emit(text, STX | WIDTH_BITS[width], { dst, src, offset });
  }

  /** *(width *)(dst + offset) = imm */
  stImm(width: Width, dst: Register, offset: number, imm: number): this {
    const text = `${memory(width, dst, offset)} = ${imm}`;
    return this.#emit(text, ST | WIDTH_BITS[width], { dst, offset, imm });
  }

  /** Atomically: *(u64 *)(dst + offset) += src */
  atomicAdd(dst: Register, offset: number, src: Register): this {
    const text = `lock ${memory(8, dst, offset)} += r${src}`;
    return this.#emit(text, ATOMIC64, { dst, src, offset, imm: ATOMIC.add });
  }

  /** Atomically: if *(u64 *)(dst + offset) is r0 it becomes src. r0 = what was there. */
  atomicCmpxchg(dst: Register, offset: number, src: Register): this {
    const text = `r0 = cmpxchg(${memory(8, dst, offset)}, r0, r${src})`;
    return this.#emit(text, ATOMIC64, { dst, src, offset, imm: ATOMIC.cmpxchg });
  }

  #jump(name: keyof typeof JUMP, dst: Register, src: Register, label: string): this {
    const text = `if r${dst} ${SIGN[name]} r${src} goto ${label}`;
    return this.#emit(text, JUMP[name] | FROM_REGISTER, { dst, src, label });
  }

  #jumpImm(name: keyof typeof JUMP, dst: Register, imm: number, label: string): this {
    const text = `if r${dst} ${SIGN[name]} ${imm} goto ${label}`;
    return this.#emit(text, JUMP[name], { dst, imm, label });
  }

  jgt = (dst: Register, src: Register, label: string): this => this.#jump('jgt', dst, src, label);
  jeqImm = (dst: Register, imm: number, label: string): this =>
    this.#jumpImm('jeq', dst, imm, label);
  jneImm = (dst: Register, imm: number, label: string): this =>
    this.#jumpImm('jne', dst, imm, label);
  jgtImm = (dst: Register, imm: number, label: string): this =>
    this.#jumpImm('jgt', dst, imm, label);
  jltImm = (dst: Register, imm: number, label: string): this =>
    this.#jumpImm('jlt', dst, imm, label);

  #jump32Imm(name: keyof typeof JUMP32, dst: Register, imm: number, label: string): this {
    const text = `if w${dst} ${SIGN[name]} ${hex(imm)} goto ${label}`;
    return this.#emit(text, JUMP32[name], { dst, imm, label });
  }

  // These compare the low 32 bits, unsigned: an immediate is sign-extended to 64 otherwise.
  jne32Imm = (dst: Register, imm: number, label: string): this =>
    this.#jump32Imm('jne', dst, imm, label);
  jgt32Imm = (dst: Register, imm: number, label: string): this =>
    this.#jump32Imm('jgt', dst, imm, label);
  jlt32Imm = (dst: Register, imm: number, label: string): this =>
    this.#jump32Imm('jlt', dst, imm, label);

  ja(label: string): this {
    return this.#emit(`goto ${label}`, JA, { label });
  }

  call(helper: keyof typeof HELPER): this {
    return this.#emit(`call bpf_${helper}`, CALL, { imm: HELPER[helper] });
  }

  /** dst = the map behind descriptor `fd` of the process that loads the program. */
  ldMapFd(dst: Register, fd: number, name: string): this {
    this.#emit(`r${dst} = map ${name}`, LD_IMM64, { dst, src: PSEUDO_MAP_FD, imm: fd });
    return this.#emit('', 0);
  }

  exit(): this {
    return this.#emit('exit', EXIT);
  }

  #target(instruction: Instruction, at: number): number {
    const target = this.#labels.get(instruction.label!);
    if (target === undefined) throw misuse(`label ${instruction.label} is not defined`);
    if (target <= at) throw misuse(`jump back to ${instruction.label}`);
    if (target >= this.#code.length) throw misuse(`label ${instruction.label} is past the end`);
    if (target - at > OFFSET_MAX) {
      throw new ArrakisError(
        'ARK_LIMIT',
        `an eBPF program with a jump over ${target - at} places`,
        {
          hint: 'simpler filters make a smaller program',
        },
      );
    }
    return target - at - 1;
  }

  /** The program as bpf(2) takes it. Throws on an undefined label or a jump backwards. */
  encode(): Uint8Array {
    const bytes = Buffer.alloc(this.#code.length * 8);
    this.#code.forEach((instruction, at) => {
      const offset =
        instruction.label === null ? instruction.offset : this.#target(instruction, at);
      bytes.writeUInt8(instruction.opcode, at * 8);
      bytes.writeUInt8(instruction.dst | (instruction.src << 4), at * 8 + 1);
      bytes.writeInt16LE(offset, at * 8 + 2);
      bytes.writeInt32LE(instruction.imm | 0, at * 8 + 4);
    });
    return bytes;
  }

  /** One line per instruction, labels on lines of their own. */
  format(): string {
    const lines: string[] = [];
    this.#code.forEach((instruction, at) => {
      for (const [name, index] of this.#labels) if (index === at) lines.push(`${name}:`);
      if (instruction.text !== '') lines.push(`${String(at).padStart(4)}: ${instruction.text}`);
    });
    return lines.join('\n');
  }
}

function memory(width: Width, base: Register, offset: number): string {
  return `*(u${width * 8} *)(r${base} ${offset < 0 ? '-' : '+'} ${Math.abs(offset)})`;
}

const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;
