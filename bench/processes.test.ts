import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import { createInterface } from 'node:readline';
import { describe, test } from 'node:test';
import { until } from '../test/support/until.ts';

/** Starts a child that would stay for a minute, and one that takes no SIGTERM; prints their ids and a folder's name. */
const PROGRAM = `
  const { endAtSignals, makeScratch, start } = await import('${new URL('./processes.js', import.meta.url).href}');
  endAtSignals();
  const dir = makeScratch('arrakis-test-');
  const [mild, deaf] = [start('sleep', ['60']), start('sh', ['-c', 'trap "" TERM; echo deaf; exec sleep 60'])];
  while (!deaf.output.includes('deaf')) await new Promise((resolve) => setTimeout(resolve, 5));
  console.log(JSON.stringify({ dir, pids: [mild.child.pid, deaf.child.pid] }));
`;

function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

interface Started {
  dir: string;
  pids: number[];
}

async function begin(): Promise<{ child: ChildProcess; started: Started }> {
  const args = ['--input-type=module', '-e', PROGRAM];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const { value } = await createInterface({ input: child.stdout! })[Symbol.asyncIterator]().next();
  return { child, started: JSON.parse(value!) as Started };
}

describe('a benchmark that is interrupted', () => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    test(`${signal} ends its children, removes its folders, and ends it`, async () => {
      const { child, started } = await begin();
      assert.ok(fs.existsSync(started.dir));
      child.kill(signal);
      const ended = await new Promise((resolve) => child.once('exit', (_, by) => resolve(by)));
      assert.equal(ended, signal);
      assert.ok(!fs.existsSync(started.dir), 'the folder is gone');
      // Whoever inherited them collects them when it likes.
      await until(() => !started.pids.some(exists), 10_000, 'both to end');
    });
  }
});
