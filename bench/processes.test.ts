import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
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

const environHas = (pid: string, text: string): boolean =>
  fs.readFileSync(`/proc/${pid}/environ`, 'utf8').includes(text);

async function begin(program = PROGRAM): Promise<{ child: ChildProcess; started: Started }> {
  const args = ['--input-type=module', '-e', program];
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

test('SIGKILL of a benchmark ends its children too, and a daemon in order', async () => {
  const program = `
    const { LabDaemon } = await import('${new URL('./echo/lab.js', import.meta.url).href}');
    const { start } = await import('${new URL('./processes.js', import.meta.url).href}');
    const { dir } = await LabDaemon.start(undefined, ['--no-tap']);
    console.log(JSON.stringify({ dir, pids: [start('sleep', ['60']).child.pid] }));
  `;
  const { child, started } = await begin(program);
  const { dir, pids } = started;
  try {
    await until(() => fs.existsSync(path.join(dir, 'keeper.sock')));
    child.kill('SIGKILL');
    await until(() => !pids.some(exists), 5000, 'the child ends');
    const isOfDaemon = (pid: string): boolean => {
      try {
        return (
          fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(dir) || environHas(pid, dir)
        );
      } catch {
        return false;
      }
    };
    const left = () =>
      fs.readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && isOfDaemon(pid));
    await until(() => left().length === 0, 5000, 'daemon, keeper and software NIC end');
    assert.deepEqual(fs.readdirSync(dir), [], 'it ended in order');
  } finally {
    for (const pid of pids.filter(exists)) process.kill(pid, 'SIGKILL');
    fs.rmSync(dir, { recursive: true, force: true });
  }
});
