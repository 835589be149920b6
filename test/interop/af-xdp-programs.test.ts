/** The kernel's side of bpf(2): what the verifier says of our programs, and of wrong ones. Needs root. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import {
  deliverProgram,
  guardProgram,
  type SwitchMaps,
  steerProgram,
} from '../../src/drivers/af-xdp/programs/index.ts';
import { Assembler, R0, R1, R2 } from '../../src/ebpf/assembler.ts';
import {
  createMap,
  loadXdpProgram,
  mapDelete,
  mapLookup,
  mapUpdate,
  percpuClear,
  percpuSums,
  possibleCpus,
  u32,
  VerifierError,
} from '../../src/ffi/bpf.ts';
import { closeAll, closeFd } from '../../src/ffi/fd.ts';
import { rootMissing } from '../support/privilege.ts';

const skip = rootMissing();

describe('bpf', { skip }, () => {
  let maps: SwitchMaps;
  beforeEach(() => {
    const of = { name: 'ark_test', keyBytes: 4, valueBytes: 4, entriesMax: 257 };
    maps = {
      flows: createMap({ ...of, type: 'hash', keyBytes: 8, valueBytes: 8 }),
      xsks: createMap({ ...of, type: 'xskmap' }),
      veths: createMap({ ...of, type: 'devmap' }),
      counts: createMap({ ...of, type: 'percpuArray', valueBytes: 16, entriesMax: 4096 }),
      limits: createMap({ ...of, type: 'array', valueBytes: 24, entriesMax: 512 }),
    };
  });
  afterEach(() => closeAll(Object.values(maps)));

  test('the verifier accepts every program, whatever id and address are built in', () => {
    for (const [id, mac] of [
      [0, 0x02_00_00_00_00_01],
      [255, 0xfe_ff_ff_ff_ff_ff],
    ] as const) {
      const guard = guardProgram(maps, { id, mac, frameLengthMax: 1514 });
      for (const program of [steerProgram(maps, mac), guard, deliverProgram(maps, id)]) {
        closeFd(loadXdpProgram('ark_test', program.encode()));
      }
    }
  });

  test('a rejected program comes with the words of the verifier', () => {
    // Reads the packet without having looked where it ends.
    const unchecked = new Assembler().ldx(4, R2, R1, 0).ldx(1, R0, R2, 0).exit();
    assert.throws(
      () => loadXdpProgram('ark_bad', unchecked.encode()),
      (error: VerifierError) => {
        assert.equal(error.code, 'ARK_VERIFIER');
        assert.match(error.log, /invalid access to packet/);
        assert.match(error.message, /ark_bad.*EACCES/);
        return error instanceof VerifierError;
      },
    );
  });

  test('a log longer than the first buffer is asked for again', () => {
    const long = new Assembler();
    for (let i = 0; i < 4000; i++) long.movImm(R0, i);
    long.ldx(1, R0, R2, 0).exit();
    assert.throws(
      () => loadXdpProgram('ark_long', long.encode()),
      (error: VerifierError) => error.log.length > 64 * 1024 && /R2 !read_ok/.test(error.log),
    );
  });

  test('entries come, change and go', () => {
    const key = Buffer.alloc(8, 1);
    const value = Buffer.alloc(8);
    assert.equal(mapLookup(maps.flows, key, value), false);
    mapUpdate(maps.flows, key, Buffer.alloc(8, 7), true);
    assert.throws(() => mapUpdate(maps.flows, key, value, true), /EEXIST/);
    assert.equal(mapLookup(maps.flows, key, value), true);
    assert.deepEqual(value, Buffer.alloc(8, 7));
    assert.equal(mapDelete(maps.flows, key), true);
    assert.equal(mapDelete(maps.flows, key), false);
  });

  test('per-CPU values are summed', () => {
    const cpus = possibleCpus();
    const value = Buffer.alloc(16 * cpus);
    for (let cpu = 0; cpu < cpus; cpu++) {
      value.writeBigUInt64LE(BigInt(cpu + 1), cpu * 16);
      value.writeBigUInt64LE(10n, cpu * 16 + 8);
    }
    mapUpdate(maps.counts, u32(5), value);
    const total = (cpus * (cpus + 1)) / 2;
    assert.deepEqual(percpuSums(maps.counts, 4, 2, 2), [
      [0, 0],
      [total, 10 * cpus],
    ]);
    percpuClear(maps.counts, 5, 2);
    assert.deepEqual(percpuSums(maps.counts, 5, 1, 2), [[0, 0]]);
  });
});
