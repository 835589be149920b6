/**
 * Throughput of one connection over loss and delay, next to what congestion control should reach, and next to the table
 * that is checked in (tcp-throughput.json). ARRAKIS_SIM_WRITE=1 writes that table anew.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Cell, expected, measure } from './tcp/throughput.ts';

interface Row extends Cell {
  readonly bytesPerSecond: number;
}

const DELAYS_MS = [5, 25, 100];
const LOSSES = [0, 0.001, 0.01, 0.03];
/** From the table, either way: every run is the same run, so a difference is a change of behaviour. */
const CHANGE_MAX = 0.1;
/** Of what the formula says. It knows neither timeouts nor small windows, which cost most on short paths with much loss. */
const SHARE_MIN = { clean: 0.95, lossy: 0.85, short: 0.5 };

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const file = path.join(root, 'test/sim/tcp-throughput.json');

test('throughput over loss and delay', (t) => {
  const rows = DELAYS_MS.flatMap((delayMs) =>
    LOSSES.map((loss): Row => {
      const bytesPerSecond = Math.round(measure({ delayMs, loss }));
      return { delayMs, loss, bytesPerSecond };
    }),
  );
  for (const row of rows) {
    const share = row.bytesPerSecond / expected(row);
    const what = `${row.delayMs} ms, loss ${row.loss}: ${row.bytesPerSecond} bytes/s, ${share.toFixed(2)}`;
    t.diagnostic(what);
    const least =
      row.loss === 0 ? SHARE_MIN.clean : row.delayMs < 10 ? SHARE_MIN.short : SHARE_MIN.lossy;
    assert.ok(share >= least, `${what} of what it should be`);
  }
  if (process.env.ARRAKIS_SIM_WRITE === '1') {
    fs.writeFileSync(file, `${JSON.stringify(rows, null, 2)}\n`);
  }
  const table = JSON.parse(fs.readFileSync(file, 'utf8')) as Row[];
  for (const [i, row] of rows.entries()) {
    const before = table[i]!;
    assert.deepEqual([before.delayMs, before.loss], [row.delayMs, row.loss]);
    const change = row.bytesPerSecond / before.bytesPerSecond - 1;
    const what = `${row.delayMs} ms, loss ${row.loss}: ${before.bytesPerSecond} before, ${row.bytesPerSecond} now`;
    assert.ok(Math.abs(change) <= CHANGE_MAX, what);
  }
});
