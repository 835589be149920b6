import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { LIMITS } from './limits.ts';
import { logTo } from './log.ts';

test('a message that is logged in a loop is counted instead, and others are written', async () => {
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'log-')), 'log');
  const fd = fs.openSync(file, 'w');
  const lines = () =>
    fs
      .readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  try {
    const log = logTo(fd);
    const most = LIMITS.logLinesPerSecondMax;
    for (let n = 0; n < 10_000; n++) log('warn', 'again', { n });
    log('info', 'other');
    assert.equal(lines().length, most + 1);
    assert.deepEqual(lines().at(-1)!.message, 'other');
    await new Promise((resolve) => setTimeout(resolve, 1200));
    const { level, message, of, count } = lines().at(-1)!;
    assert.deepEqual(
      { level, message, of, count },
      { level: 'warn', message: 'log lines suppressed', of: 'again', count: 10_000 - most },
    );
    log('warn', 'again', { n: 'later' });
    assert.equal(lines().at(-1)!.n, 'later');
  } finally {
    fs.closeSync(fd);
    fs.rmSync(path.dirname(file), { recursive: true });
  }
});
