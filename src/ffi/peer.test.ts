/** Groups and program of real peers: children that connect and say so. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { rootMissing } from '../../test/support/privilege.ts';
import { until } from '../../test/support/until.ts';
import { closeFd } from './fd.ts';
import { peerGroups, peerProgram } from './peer.ts';
import { acceptUnix, listenUnix, peerCredentials, SOCK_STREAM } from './unix.ts';

let dir: string;
let file: string;
let listener: number;
before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'peer-'));
  fs.chmodSync(dir, 0o755);
  file = path.join(dir, 'sock');
  listener = listenUnix(file, SOCK_STREAM);
  fs.chmodSync(file, 0o666);
});
after(() => {
  closeFd(listener);
  fs.rmSync(dir, { recursive: true });
});

const SCRIPT = `require('net').connect(process.argv[1]); setTimeout(() => {}, 60000)`;
const NODE = fs.realpathSync(process.execPath);

/** Our end of a connection of a child; `wrap` are a program and arguments that run it. */
async function accepted(
  use: (fd: number, child: ChildProcess) => void | Promise<void>,
  wrap: string[] = [],
) {
  const [program = NODE, ...args] = [...wrap, NODE, '-e', SCRIPT, file];
  const child = spawn(program, args, { stdio: 'ignore' });
  let fd = -1;
  try {
    await until(() => {
      fd = acceptUnix(listener);
      return fd >= 0;
    }, 15_000);
    await use(fd, child);
  } finally {
    if (fd >= 0) closeFd(fd);
    const ended = once(child, 'exit');
    if (child.kill('SIGKILL')) await ended;
  }
}

test('groups and program of our own child, as long as it lives', async () => {
  await accepted(async (fd, child) => {
    const own = /^Groups:(.*)$/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))![1]!;
    assert.deepEqual(peerGroups(fd), own.trim().split(/\s+/).filter(Boolean).map(Number));
    const { pid } = peerCredentials(fd);
    assert.equal(await peerProgram(fd, pid), NODE);
    child.kill('SIGKILL');
    spawnSync('sleep', ['0.3']);
    assert.equal(await peerProgram(fd, pid), null, 'it has ended');
  });
});

test('many groups, of another user', { skip: rootMissing() }, async () => {
  const groups = Array.from({ length: 100 }, (_, i) => 7000 + i);
  const as = ['setpriv', '--reuid=65534', '--regid=65534', `--groups=${groups.join(',')}`];
  await accepted(async (fd) => {
    assert.deepEqual(peerGroups(fd), groups);
    assert.equal(await peerProgram(fd, peerCredentials(fd).pid), NODE);
  }, as);
});

test('a program that is only there in a tree of its own files is not believed', {
  skip: rootMissing(),
}, async () => {
  const fake = path.join(dir, 'fake');
  const real = path.join(dir, 'web');
  fs.copyFileSync(NODE, fake);
  fs.copyFileSync('/bin/true', real);
  const child = `mount --bind ${fake} ${real} && exec ${real} -e "$0" ${file}`;
  await accepted(
    async (fd) => {
      const { pid } = peerCredentials(fd);
      assert.equal(fs.readlinkSync(`/proc/${pid}/exe`), real, 'this is what it says it is');
      assert.equal(await peerProgram(fd, pid), null);
    },
    ['unshare', '-m', 'sh', '-c', child, SCRIPT],
  );
});

test('a program that was replaced is none', async () => {
  const copy = path.join(dir, 'copy');
  fs.copyFileSync(NODE, copy);
  const wrap = ['sh', '-c', `exec ${copy} -e "$0" ${file}`, SCRIPT];
  await accepted(async (fd) => {
    const { pid } = peerCredentials(fd);
    assert.equal(await peerProgram(fd, pid), copy);
    fs.rmSync(copy);
    assert.equal(await peerProgram(fd, pid), null);
    fs.copyFileSync('/bin/true', copy);
    assert.equal(await peerProgram(fd, pid), null);
  }, wrap);
});

test('a file system that does not answer is not asked', { skip: rootMissing() }, async () => {
  const place = path.join(dir, 'place');
  fs.mkdirSync(place);
  fs.copyFileSync(NODE, path.join(place, 'web'));
  // The peer runs; then a file system whose server never says a word comes to lie over its path.
  const program = `
    import { spawn, spawnSync } from 'node:child_process';
    import fs from 'node:fs';
    const { peerProgram } = await import('${new URL('./peer.js', import.meta.url).href}');
    const { acceptUnix, listenUnix, peerCredentials } = await import('${new URL('./unix.js', import.meta.url).href}');
    const socket = '${path.join(dir, 'hung')}';
    const listener = listenUnix(socket, 1);
    const child = spawn('${path.join(place, 'web')}', ['-e', ${JSON.stringify(SCRIPT)}, socket]);
    let fd = -1;
    while ((fd = acceptUnix(listener)) < 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const { pid } = peerCredentials(fd);
    const before = await peerProgram(fd, pid);
    const fuse = fs.openSync('/dev/fuse', 'r+');
    const options = 'fd=3,rootmode=40000,user_id=0,group_id=0';
    const args = ['-i', '-t', 'fuse', '-o', options, 'hung', '${place}'];
    const { status } = spawnSync('mount', args, { stdio: ['ignore', 'inherit', 'inherit', fuse] });
    const startedMs = performance.now();
    const after = await peerProgram(fd, pid);
    console.log(JSON.stringify({ status, before, after, ms: performance.now() - startedMs }));
    child.kill('SIGKILL');
    process.exit(0);
  `;
  const args = ['-m', NODE, '--input-type=module', '-e', program];
  // What hangs in a request ends when its own /dev/fuse is closed, by SIGKILL.
  const run = spawnSync('unshare', args, {
    encoding: 'utf8',
    timeout: 15_000,
    killSignal: 'SIGKILL',
  });
  const { status, before, after, ms } = JSON.parse(run.stdout || '{}');
  assert.equal(status, 0, `no answer: ${run.stderr}`);
  assert.equal(before, path.join(place, 'web'));
  assert.equal(after, null);
  assert.ok(ms < 1000, `${ms} ms`);
});

test('an open that hangs is not waited for, and few of them are begun', async () => {
  await accepted(async (fd) => {
    const { pid } = peerCredentials(fd);
    const hung: (() => void)[] = [];
    const hang = () =>
      new Promise<number>((resolve) => {
        hung.push(() => resolve(fs.openSync(NODE, 'r')));
      });
    const startedMs = performance.now();
    const all = await Promise.all([peerProgram(fd, pid, hang), peerProgram(fd, pid, hang)]);
    assert.deepEqual(all, [null, null]);
    assert.ok(performance.now() - startedMs < 2000);
    assert.equal(await peerProgram(fd, pid, hang), null);
    assert.equal(hung.length, 2, 'no third one while two are under way');
    for (const finish of hung) finish();
    await until(async () => (await peerProgram(fd, pid)) === NODE);
  });
});
