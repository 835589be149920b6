/** A million packets, and the garbage collector has nothing to do: the data path allocates nothing. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const bench = fileURLToPath(new URL('../../bench/micro-net.js', import.meta.url));
const PACKETS = '1000000';

// The second address is no small integer: as a number in an object or an argument it would be allocated.
for (const peer of ['10.0.0.1', '203.0.113.1']) {
  test(`${PACKETS} UDP echoes to ${peer} without a collection`, () => {
    const args = ['--trace-gc', bench, '--steady', PACKETS, peer];
    const { stdout, stderr, status } = spawnSync(process.execPath, args, {
      encoding: 'utf8',
      timeout: 120_000,
    });
    assert.equal(status, 0, stderr);
    const from = stdout.indexOf('steady\n');
    const to = stdout.indexOf('done\n');
    assert.ok(from >= 0 && to > from, stdout);
    assert.equal(stdout.slice(from + 'steady\n'.length, to), '');
  });
}
