/**
 * `arrakis bench protection` runs on every system that this machine has. It refuses to measure an arrangement in which
 * something is on that should be off, or off that should be on: that it measures them all says that none is.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { groups, PRICES } from '../../bench/protection/contestants.ts';
import { benchProtection } from '../../bench/protection/run.ts';
import { protectionTable } from '../../src/cli/commands/bench-protection.ts';
import { LeakCheck } from '../support/leaks.ts';
import { isolateNetwork } from '../support/network.ts';

const isRoot = process.getuid!() === 0;
if (isRoot) isolateNetwork();

test('every arrangement is measured, and every mechanism has its price', async () => {
  const leaks = new LeakCheck();
  const rows = await benchProtection({
    repetitions: 1,
    slices: 1,
    sliceMs: 20,
    roundTrips: 20,
    progress: () => {},
  });
  const arrangements = groups().flat();
  for (const metric of ['throughput', 'service', 'rtt']) {
    const found = rows.filter((row) => row.metric === metric);
    assert.deepEqual(
      found.map((row) => `${row.system} ${row.params?.without}`),
      arrangements.map(({ system, without }) => `${system} ${without}`),
    );
    for (const { value, low, high } of found)
      assert.ok(value > 0 && low! <= value && value <= high!);
  }
  for (const { boundBy } of rows.filter((row) => row.metric === 'throughput')) {
    assert.match(boundBy!, /\w/);
  }
  const prices = PRICES.filter(({ system }) => isRoot || system === 'arrakis/virtio');
  for (const metric of ['cost', 'rtt cost']) {
    const found = rows.filter((row) => row.metric === metric);
    assert.deepEqual(
      found.map((row) => `${row.system} ${row.params?.mechanism}`),
      prices.map(({ system, mechanism }) => `${system} ${mechanism}`),
    );
    for (const { value } of found) assert.ok(Number.isFinite(value));
  }
  const lines = protectionTable(rows).split('\n');
  assert.equal(
    lines.filter((line) => /^(all protection|without .*)\s+\d/.test(line)).length,
    arrangements.length,
  );
  await leaks.assertNone();
});
