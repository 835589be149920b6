import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMac } from '../../../base/address.ts';
import { COUNT_TX, COUNTS_PER_VNIC, deliverProgram, guardProgram, steerProgram } from './index.ts';

const MAPS = { flows: 10, xsks: 11, veths: 12, counts: 13, limits: 14 };
const MAC = parseMac('02:00:fe:dc:ba:98');

test('every label is there, and every counter has its place', () => {
  const guard = guardProgram(MAPS, { id: 3, mac: MAC, frameLengthMax: 1514 });
  for (const program of [steerProgram(MAPS, MAC), deliverProgram(MAPS, 3), guard]) {
    assert.equal(program.encode().length, program.length * 8);
  }
  assert.ok(COUNT_TX < COUNTS_PER_VNIC);
});

test('the guard compares a MAC as little-endian words of the frame', () => {
  const guard = guardProgram(MAPS, { id: 0, mac: MAC, frameLengthMax: 1514 });
  assert.match(guard.format(), /if w1 != 0xdcfe0002 goto spoofedMac/);
  assert.match(guard.format(), new RegExp(`if r1 != ${0x98ba} goto spoofedMac`));
});

test('what an application receives needs no more than one redirect', () => {
  assert.deepEqual(deliverProgram(MAPS, 5).format().split('\n'), [
    '   0: r4 = 5',
    '   1: r1 = map xsks',
    '   3: r2 = r4',
    '   4: r3 = 1',
    '   5: call bpf_redirect_map',
    '   6: exit',
  ]);
});
