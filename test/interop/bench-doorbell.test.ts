/** `arrakis bench doorbell` runs on every system that this machine has, and its rows say what they measured. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { benchDoorbell } from '../../bench/doorbell/run.ts';
import { doorbellTable } from '../../src/cli/commands/bench-doorbell.ts';
import { LeakCheck } from '../support/leaks.ts';
import { isolateNetwork } from '../support/network.ts';

const isRoot = process.getuid!() === 0;
if (isRoot) isolateNetwork();

test('every way of waiting is measured, on every system', async () => {
  const leaks = new LeakCheck();
  const { rows, missing } = await benchDoorbell({
    repetitions: 1,
    samples: 20,
    usecs: 100,
    only: [],
    progress: () => {},
  });
  const measured = rows
    .filter((row) => row.metric === 'wakeup')
    .map((row) => `${row.system} ${row.params?.mode}`);
  const modes = ['polling', 'doorbell', 'loop', 'coalesced'];
  const onVeth = ['kernel/udp recv', ...modes.map((mode) => `arrakis/af-xdp-switched ${mode}`)];
  const expected = [
    'kernel/eventfd read',
    ...(isRoot ? onVeth : []),
    ...modes.map((mode) => `arrakis/virtio ${mode}`),
  ];
  assert.deepEqual(measured, expected, JSON.stringify(missing));
  for (const { p50, p99, p999, boundBy } of rows.filter((row) => row.metric === 'wakeup')) {
    assert.ok(p50! > 0 && p50! <= p99! && p99! <= p999!);
    assert.match(boundBy!, /\w/);
  }
  const lines = doorbellTable(rows).split('\n');
  assert.equal(lines.filter((line) => /^\w+\/\S+ /.test(line)).length, expected.length);
  await leaks.assertNone();
});

test('a system that is not there is refused by name', async () => {
  const options = { repetitions: 1, samples: 1, usecs: 1, only: ['x'], progress: () => {} };
  await assert.rejects(benchDoorbell(options), /there is no system "x"/);
});
