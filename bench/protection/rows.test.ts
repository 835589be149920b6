import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SliceResult } from './contest.ts';
import { type Entry, groups } from './contestants.ts';
import { type Measured, rowsOf } from './rows.ts';
import { checkFindings } from './run.ts';

const slice = (serviceNs: number, rttUs = 1): SliceResult => ({
  packetsPerSecond: 1e9 / serviceNs,
  serviceNs,
  rttUs,
  waiting: 0.5,
  share: 1,
});

const entryOf = (system: Entry['system'], without: string): Entry => ({
  ...groups()[0]![0]!,
  system,
  without,
});

function costs(measured: Measured[], mechanism: string) {
  return rowsOf(measured)
    .filter((row) => row.params?.mechanism === mechanism)
    .map(({ metric, value, low, high }) => ({ metric, value, low, high }));
}

test('a price is the difference of neighbours, whatever both rise and fall by', () => {
  const measured: Measured[] = [
    {
      entry: entryOf('arrakis/virtio', 'nothing'),
      repetitions: [
        [slice(100, 2), slice(300, 3), slice(100, 2)],
        [slice(104, 2)],
        [slice(109, 2)],
      ],
    },
    {
      entry: entryOf('arrakis/virtio', 'send check'),
      repetitions: [
        [slice(90, 1.9), slice(290, 2.9), slice(20, 1.9)],
        [slice(99, 1.9)],
        [slice(90, 1.9)],
      ],
    },
  ];
  assert.deepEqual(costs(measured, 'send check'), [
    { metric: 'cost', value: 10, low: 5, high: 19 },
    { metric: 'rtt cost', value: 100, low: 100, high: 100 },
  ]);
  assert.deepEqual(costs(measured, 'receive filter'), [], 'what was not measured has no price');
});

test('what only half of the packets meet costs each of those twice the difference', () => {
  const measured: Measured[] = ['nothing', 'send check', 'counters'].map((without, i) => ({
    entry: entryOf('arrakis/af-xdp-switched', without),
    repetitions: [[slice(2000 - 10 * i)]],
  }));
  assert.equal(costs(measured, 'send check')[0]!.value, 20);
  assert.equal(costs(measured, 'counters')[0]!.value, 20);
});

test('an arrangement in which something is on that should be off is not measured', () => {
  const entry = groups()[0]!.find(({ without }) => without === 'send check')!;
  checkFindings(entry, { ...entry.expected });
  const findings = { ...entry.expected, stopsSpoofed: true };
  assert.throws(() => checkFindings(entry, findings), /without send check is not what it should/);
});
