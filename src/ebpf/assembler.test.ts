import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Assembler, R0, R1, R2, R6, R7, R10 } from './assembler.ts';

/** Encodings as llvm-mc prints them for the same mnemonics (RFC 9669, sections 3 and 4). */
const ENCODINGS: [string, (asm: Assembler) => Assembler, string][] = [
  ['r6 = r1', (a) => a.mov(R6, R1), 'bf16000000000000'],
  ['r0 = 2', (a) => a.movImm(R0, 2), 'b700000002000000'],
  ['r1 += r2', (a) => a.add(R1, R2), '0f21000000000000'],
  ['r2 += -8', (a) => a.addImm(R2, -8), '07020000f8ffffff'],
  ['r1 -= r2', (a) => a.sub(R1, R2), '1f21000000000000'],
  ['r1 &= 15', (a) => a.andImm(R1, 15), '570100000f000000'],
  ['r1 <<= 2', (a) => a.lshImm(R1, 2), '6701000002000000'],
  ['r1 >>= 20', (a) => a.rshImm(R1, 20), '7701000014000000'],
  ['r1 *= r2', (a) => a.mul(R1, R2), '2f21000000000000'],
  ['r1 = be16 r1', (a) => a.be(R1, 16), 'dc01000010000000'],
  ['r1 = be32 r1', (a) => a.be(R1, 32), 'dc01000020000000'],
  ['r1 = *(u8 *)(r7 + 14)', (a) => a.ldx(1, R1, R7, 14), '71710e0000000000'],
  ['r1 = *(u16 *)(r7 + 12)', (a) => a.ldx(2, R1, R7, 12), '69710c0000000000'],
  ['r7 = *(u32 *)(r1 + 0)', (a) => a.ldx(4, R7, R1, 0), '6117000000000000'],
  ['r1 = *(u64 *)(r0 + 8)', (a) => a.ldx(8, R1, R0, 8), '7901080000000000'],
  ['*(u8 *)(r10 - 2) = r1', (a) => a.stx(1, R10, -2, R1), '731afeff00000000'],
  ['*(u16 *)(r10 - 4) = r1', (a) => a.stx(2, R10, -4, R1), '6b1afcff00000000'],
  ['*(u32 *)(r10 - 8) = r1', (a) => a.stx(4, R10, -8, R1), '631af8ff00000000'],
  ['*(u64 *)(r0 + 0) = r1', (a) => a.stx(8, R0, 0, R1), '7b10000000000000'],
  ['*(u32 *)(r10 - 4) = 0', (a) => a.stImm(4, R10, -4, 0), '620afcff00000000'],
  ['lock *(u64 *)(r2 + 8) += r1', (a) => a.atomicAdd(R2, 8, R1), 'db12080000000000'],
  ['r0 = cmpxchg(*(u64 *)(r2 + 0), r0, r1)', (a) => a.atomicCmpxchg(R2, 0, R1), 'db120000f1000000'],
  ['call bpf_ktime_get_ns', (a) => a.call('ktime_get_ns'), '8500000005000000'],
  ['call bpf_map_lookup_elem', (a) => a.call('map_lookup_elem'), '8500000001000000'],
  ['call bpf_redirect_map', (a) => a.call('redirect_map'), '8500000033000000'],
  ['r1 = map flows', (a) => a.ldMapFd(R1, 7, 'flows'), '18110000070000000000000000000000'],
  ['exit', (a) => a.exit(), '9500000000000000'],
];

for (const [text, build, hex] of ENCODINGS) {
  test(`encodes and lists ${text}`, () => {
    const asm = build(new Assembler());
    assert.equal(Buffer.from(asm.encode()).toString('hex'), hex);
    assert.equal(asm.format(), `   0: ${text}`);
  });
}

const JUMPS: [string, (asm: Assembler) => Assembler, string][] = [
  ['goto x', (a) => a.ja('x'), '0500010000000000'],
  ['if r1 == 6 goto x', (a) => a.jeqImm(R1, 6, 'x'), '1501010006000000'],
  ['if r1 != 6 goto x', (a) => a.jneImm(R1, 6, 'x'), '5501010006000000'],
  ['if r1 > 79 goto x', (a) => a.jgtImm(R1, 79, 'x'), '250101004f000000'],
  ['if r1 < 69 goto x', (a) => a.jltImm(R1, 69, 'x'), 'a501010045000000'],
  ['if r2 > r7 goto x', (a) => a.jgt(R2, R7, 'x'), '2d72010000000000'],
  ['if w1 > 0xfefefefe goto x', (a) => a.jgt32Imm(R1, 0xfefefefe, 'x'), '26010100fefefefe'],
  ['if w1 < 0xfefefefe goto x', (a) => a.jlt32Imm(R1, 0xfefefefe, 'x'), 'a6010100fefefefe'],
  ['if w1 != 0xfefefefe goto x', (a) => a.jne32Imm(R1, 0xfefefefe, 'x'), '56010100fefefefe'],
];

for (const [text, build, hex] of JUMPS) {
  test(`jumps forward by ${text}`, () => {
    const asm = build(new Assembler()).movImm(R0, 1).label('x').exit();
    assert.equal(Buffer.from(asm.encode()).toString('hex', 0, 8), hex);
    assert.deepEqual(asm.format().split('\n'), [
      `   0: ${text}`,
      '   1: r0 = 1',
      'x:',
      '   2: exit',
    ]);
  });
}

test('a 64-bit load counts as two instructions for jumps', () => {
  const asm = new Assembler().ja('end').ldMapFd(R1, 3, 'm').label('end').exit();
  assert.equal(asm.length, 4);
  assert.equal(Buffer.from(asm.encode()).readInt16LE(2), 2);
});

test('refuses labels that are missing, double, behind or past the end', () => {
  assert.throws(() => new Assembler().ja('nowhere').exit().encode(), /nowhere is not defined/);
  assert.throws(() => new Assembler().label('a').label('a'), /a is there twice/);
  assert.throws(() => new Assembler().label('a').movImm(R0, 0).ja('a').encode(), /jump back to a/);
  assert.throws(() => new Assembler().ja('a').label('a').encode(), /past the end/);
});

test('refuses jumps further than an offset reaches', () => {
  const asm = new Assembler().ja('far');
  for (let i = 0; i < 0x8000; i++) asm.movImm(R0, 0);
  assert.throws(() => asm.label('far').exit().encode(), { code: 'ARK_LIMIT' });
});

test('refuses operands that do not fit', () => {
  assert.throws(() => new Assembler().ldx(4, R1, R2, 0x8000), /offset/);
  assert.throws(() => new Assembler().movImm(R1, 2 ** 32), /imm/);
});

test('fresh labels differ', () => {
  const asm = new Assembler();
  assert.notEqual(asm.fresh('done'), asm.fresh('done'));
});
