/** What all benchmarks do alike, by one of the test's own and by the command line of each. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { CLI } from '../../bench/echo/lab.ts';
import type { BenchRow } from '../../bench/stats.ts';
import { absoluteJson, type BenchOptions, runBench } from './bench-output.ts';

const BENCHES = ['echo', 'protection', 'ipc', 'doorbell', 'scaling', 'tcp', 'http'];

const ROWS: BenchRow[] = [
  { bench: 'x', system: 'a/b', link: 'memory', metric: 'rtt', unit: 'us', value: 1 },
];

let dir = '';
before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'bench-output-'));
});
after(() => fs.rmSync(dir, { recursive: true }));

/** What a run with these options writes to standard output. */
async function stdoutOf(options: BenchOptions): Promise<string> {
  const { write } = process.stdout;
  let text = '';
  process.stdout.write = ((chunk: string) => {
    text += chunk;
    return true;
  }) as typeof write;
  try {
    await runBench(options, { measure: async () => ({ rows: ROWS }), table: () => 'the table' });
  } finally {
    process.stdout.write = write;
  }
  return text;
}

test('rows to the file and the table to standard output, or the rows alone', async () => {
  const file = path.join(dir, 'rows.json');
  assert.equal(await stdoutOf({}), 'the table\n');
  assert.equal(await stdoutOf({ json: file }), `the table\n\nrows written to ${file}\n`);
  assert.deepEqual(JSON.parse(fs.readFileSync(file, 'utf8')), ROWS);
  assert.deepEqual(JSON.parse(await stdoutOf({ json: true })), ROWS);
});

test('a file is named from where the command was called', () => {
  const here = path.resolve('x.json');
  assert.deepEqual(absoluteJson(['bench', 'echo', '--json', 'x.json', '--only', 'x.json']), [
    ...['bench', 'echo', '--json', here, '--only', 'x.json'],
  ]);
  assert.deepEqual(absoluteJson(['--json=x.json']), [`--json=${here}`]);
  assert.deepEqual(absoluteJson(['--json', '--window', '8']), ['--json', '--window', '8']);
});

for (const name of BENCHES) {
  test(`bench ${name} takes --json [file]`, () => {
    const run = (...args: string[]) =>
      spawnSync(process.execPath, [CLI.pathname, 'bench', name, ...args], { encoding: 'utf8' });
    assert.match(run('--help').stdout, /--json \[file\] +write the rows as JSON to a file, or/);
    const { status, stderr } = run('--json', path.join(dir, 'nowhere', 'x.json'));
    assert.match(stderr, /cannot write .*nowhere/);
    assert.notEqual(status, 0);
  });
}
