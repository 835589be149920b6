/** The programs in docs/ compile, run against a daemon, and print what they say. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { closeAll } from '../../src/ffi/fd.ts';
import { TestDaemon } from '../crash/daemon.harness.ts';
import { allPrograms, programsOf } from './snippets.ts';

const COMPILE_MS = 120_000;
const PROGRAM_MS = 60_000;
const LIBRARY = fileURLToPath(new URL('../../src/arrakis/index.js', import.meta.url));
const CHANNEL_FD = 3;

/** The checkout: the nearest directory above the compiled tree with a package.json. */
function checkout(): string {
  let dir = import.meta.dirname;
  while (!fs.existsSync(path.join(dir, 'package.json'))) dir = path.dirname(dir);
  return dir;
}

const OPTIONS = {
  target: 'es2023',
  lib: ['es2023'],
  module: 'nodenext',
  types: ['node'],
  typeRoots: [path.join(checkout(), 'node_modules', '@types')],
  strict: true,
  // Types that the text makes obvious are left out there.
  noImplicitAny: false,
  skipLibCheck: true,
};

describe('the extractor', () => {
  test('blocks that continue one another are one program', () => {
    const document = [
      '```ts',
      'not run',
      '```',
      '```ts run prepared',
      'a // → one',
      '```',
      'text',
      '```ts continue',
      'b // → two',
      '```',
      '```ts run',
      'c',
      '```',
    ].join('\n');
    assert.deepEqual(programsOf('x.md', document), [
      { where: 'x.md:4', text: 'a // → one\nb // → two\n', prepared: true, output: ['one', 'two'] },
      { where: 'x.md:11', text: 'c\n', prepared: false, output: [] },
    ]);
  });

  test('a fence that says something else is an error, not a program that never runs', () => {
    assert.throws(() => programsOf('x.md', '```ts rnu\na\n```'), /x\.md:1/);
    assert.throws(() => programsOf('x.md', '```ts run quickly\na\n```'), /quickly/);
    assert.throws(() => programsOf('x.md', '```ts continue\na\n```'), /x\.md:1/);
  });
});

describe('programs in docs/', () => {
  const programs = allPrograms(path.join(checkout(), 'docs'));
  let dir = '';
  /** What the compiler says; a program that is wrong is its own failure, not that of the others. */
  let complaints: string[] = [];

  before(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'snippets-'));
    fs.writeFileSync(path.join(dir, 'tsconfig.json'), JSON.stringify({ compilerOptions: OPTIONS }));
    programs.forEach(({ text }, n) => {
      // What a reader imports from the package is the compiled library under test.
      const source = text.replaceAll("from 'arrakis'", `from '${LIBRARY}'`);
      fs.writeFileSync(path.join(dir, `program${n}.mts`), source);
    });
    const tsc = path.join(checkout(), 'node_modules', '.bin', 'tsc');
    const { error, stdout } = spawnSync(tsc, ['-p', dir, '--pretty', 'false'], {
      encoding: 'utf8',
      timeout: COMPILE_MS,
    });
    assert.equal(error, undefined);
    complaints = stdout.split('\n').filter((line) => line.includes('error TS'));
  });
  after(() => fs.rmSync(dir, { recursive: true, force: true }));

  test('there are some, and the compiler complains of nothing else', () => {
    assert.ok(programs.length > 0);
    assert.deepEqual(
      complaints.filter((line) => !line.includes('program')),
      [],
    );
  });

  programs.forEach(({ where, prepared, output }, n) => {
    test(where, async () => {
      assert.deepEqual(
        complaints.filter((line) => line.includes(`program${n}.mts`)),
        [],
      );
      const daemon = await TestDaemon.start();
      try {
        const script = path.join(dir, `program${n}.mjs`);
        const child = prepared ? await startPrepared(daemon, script) : start(daemon, script);
        const printed = await linesOf(child);
        if (output.length > 0) assert.deepEqual(printed, output);
      } finally {
        await daemon.close();
      }
    });
  });
});

function start(daemon: TestDaemon, script: string, channel?: number): ChildProcess {
  const { ARRAKIS_FD: _, ...env } = process.env;
  return spawn(process.execPath, [script], {
    stdio: ['ignore', 'pipe', 'pipe', ...(channel === undefined ? [] : [channel])],
    env: {
      ...env,
      ARRAKIS_SOCKET: daemon.socket,
      ...(channel === undefined ? {} : { ARRAKIS_FD: String(CHANNEL_FD) }),
    },
    timeout: PROGRAM_MS,
    killSignal: 'SIGKILL',
  });
}

async function startPrepared(daemon: TestDaemon, script: string): Promise<ChildProcess> {
  const root = await daemon.connect({ name: 'test' });
  const args = { name: 'app', uid: process.getuid!(), vnics: [] };
  const { fds } = await root.request('domain.prepare', args);
  const child = start(daemon, script, fds[0]!);
  closeAll(fds);
  await root.close();
  return child;
}

/** What the program prints; fails with its errors unless it ends well. */
async function linesOf(child: ChildProcess): Promise<string[]> {
  let printed = '';
  let errors = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  assert.equal(code, 0, `it ended with ${code ?? signal}: ${errors}${printed}`);
  return printed.split('\n').slice(0, -1);
}
