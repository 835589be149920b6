import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flowHash, pairOfHash } from './flow-hash.ts';

const CLIENT = 0x0a000001;
const SERVER = 0xcb007105;

test('both directions of a flow have one hash', () => {
  for (let port = 0; port < 65536; port += 7) {
    const there = flowHash(CLIENT, SERVER, port, 7);
    assert.equal(there, flowHash(SERVER, CLIENT, 7, port));
    assert.ok(Number.isInteger(there) && there >= 0 && there < 65536, `${there}`);
  }
});

for (const pairs of [2, 3, 5, 8]) {
  test(`consecutive ports and addresses spread over ${pairs} pairs`, () => {
    const count = 4096;
    const byPort = new Array<number>(pairs).fill(0);
    const byAddress = new Array<number>(pairs).fill(0);
    for (let i = 0; i < count; i++) {
      byPort[pairOfHash(flowHash(CLIENT, SERVER, 1024 + i, 7), pairs)]!++;
      byAddress[pairOfHash(flowHash(CLIENT + i, SERVER, 0, 0), pairs)]!++;
    }
    const fair = count / pairs;
    for (const share of [...byPort, ...byAddress]) {
      assert.ok(share > fair * 0.8 && share < fair * 1.2, `${byPort} ${byAddress}`);
    }
  });
}

test('one pair takes everything', () => {
  assert.deepEqual([pairOfHash(0, 1), pairOfHash(65535, 1), pairOfHash(65535, 8)], [0, 0, 7]);
});
