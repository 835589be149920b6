import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ObjectInfo } from '../../arrakis/index.ts';
import { collectMetrics } from '../metrics.ts';
import { type CounterValues, findObject, type Snapshot } from '../snapshot.ts';
import { vnicRates } from './rates.ts';
import { compact, type TopView, topScreen } from './screen.ts';

const object = (
  kind: ObjectInfo['kind'],
  id: number,
  name: string,
  detail: ObjectInfo['detail'] = {},
): ObjectInfo => ({ kind, id, owner: 1, createdMs: 0, name, detail });

const OBJECTS = [
  object('domain', 1, 'web server "x"', { pid: 77 }),
  object('vnic', 2, 'a', { device: 'soft0', state: 'open' }),
  object('vnic', 3, 'b', { device: 'soft0', state: 'open' }),
];

function snapshotOf(a: CounterValues, b: CounterValues): Snapshot {
  const stats = [
    { vnic: 2, name: 'a', counters: a },
    { vnic: 3, name: 'b', counters: b },
  ];
  return { devices: [], objects: OBJECTS, stats, daemon: { requests: 3 } };
}

test('rates are differences per second, the busiest VNIC first', () => {
  const before = snapshotOf(
    { rxPackets: 100, rxBytes: 6400, drops: { noBuffer: 5, spoofedMac: 0 } },
    { txPackets: 1000 },
  );
  const now = snapshotOf(
    { rxPackets: 300, rxBytes: 19_200, drops: { noBuffer: 5, spoofedMac: 10 } },
    { txPackets: 5000 },
  );
  const [first, second] = vnicRates(before, now, 2);
  assert.equal(first!.name, 'b');
  assert.equal(first!.txPackets, 2000);
  assert.equal(second!.rxPackets, 100);
  assert.equal(second!.rxBits, 51_200);
  assert.equal(second!.domain, 'web server "x" 77');
  assert.deepEqual(second!.reasons, [['spoofedMac', 5]]);
});

test('a counter that was begun anew counts from zero', () => {
  const [only] = vnicRates(
    snapshotOf({ rxPackets: 900 }, {}),
    snapshotOf({ rxPackets: 40 }, {}),
    1,
  );
  assert.equal(only!.rxPackets, 40);
});

test('numbers keep three digits and a unit', () => {
  assert.deepEqual([0, 7, 999, 999.6, 1234, 12_345, 123_456, 999_999, 1.5e9].map(compact), [
    '0',
    '7',
    '999',
    '1.00k',
    '1.23k',
    '12.3k',
    '123k',
    '1.00M',
    '1.50G',
  ]);
});

test('the screen keeps within 80 columns and its height, whatever names there are', () => {
  const vnics = vnicRates(snapshotOf({}, {}), snapshotOf({ rxPackets: 1e12 }, {}), 1).map((v) => ({
    ...v,
    name: 'n'.repeat(32),
    domain: 'd'.repeat(40),
    device: 'i'.repeat(15),
    rxBits: 123_456_789_012,
    txPackets: 888_888,
    txBits: 77_777_777,
    drops: 66_666,
    reasons: [['spoofedAddress', 10_000] as const, ['otherProtocol', 5] as const],
  }));
  const view: TopView = { time: '12:00:00', daemonCpu: 0.013, devices: [], vnics };
  const lines = topScreen(view, 80, 40);
  assert.ok(
    lines.every((line) => line.length <= 80),
    lines.join('\n'),
  );
  assert.ok(lines.some((line) => line.includes('spoofedAddress 10.0k')));
  // Nothing of a row of numbers may be cut off: the last column is there.
  assert.ok(
    lines.some((line) => line.endsWith('66.7k')),
    lines.join('\n'),
  );
  assert.equal(topScreen(view, 80, 5).length, 5);
  assert.match(topScreen(view, 80, 5).at(-1)!, /more lines/);
});

test('metrics are in the text format, with labels escaped', async () => {
  const text = await collectMetrics(
    snapshotOf({ rxPackets: 12, drops: { noBuffer: 3 } }, { rxPackets: 1 }),
  );
  assert.match(
    text,
    /^arrakis_vnic_receive_packets_total\{vnic="2",name="a",domain="web server \\"x\\"",device="soft0"\} 12$/m,
  );
  assert.match(text, /reason="noBuffer"\} 3$/m);
  assert.match(text, /^arrakis_objects\{kind="vnic"\} 2$/m);
  assert.match(text, /^arrakis_daemon_requests_total 3$/m);
});

test('objects are found by number or by a name that is one only', () => {
  const objects = [...OBJECTS, object('filter', 9, 'a')];
  assert.equal(findObject({ objects }, '9').id, 9);
  assert.equal(findObject({ objects }, 'a', ['vnic']).id, 2);
  assert.throws(() => findObject({ objects }, 'a'), { code: 'ARK_BAD_ARGUMENT' });
  assert.throws(() => findObject({ objects }, 'c', ['vnic']), {
    code: 'ARK_NOT_FOUND',
    hint: 'there are: a, b',
  });
});
