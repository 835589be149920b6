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
async function accepted(use: (fd: number, child: ChildProcess) => void, wrap: string[] = []) {
  const [program = NODE, ...args] = [...wrap, NODE, '-e', SCRIPT, file];
  const child = spawn(program, args, { stdio: 'ignore' });
  let fd = -1;
  try {
    await until(() => {
      fd = acceptUnix(listener);
      return fd >= 0;
    }, 15_000);
    use(fd, child);
  } finally {
    if (fd >= 0) closeFd(fd);
    const ended = once(child, 'exit');
    if (child.kill('SIGKILL')) await ended;
  }
}

test('groups and program of our own child, as long as it lives', async () => {
  await accepted((fd, child) => {
    const own = /^Groups:(.*)$/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))![1]!;
    assert.deepEqual(peerGroups(fd), own.trim().split(/\s+/).filter(Boolean).map(Number));
    const { pid } = peerCredentials(fd);
    assert.equal(peerProgram(fd, pid), NODE);
    child.kill('SIGKILL');
    spawnSync('sleep', ['0.3']);
    assert.equal(peerProgram(fd, pid), null, 'it has ended');
  });
});

test('many groups, of another user', { skip: rootMissing() }, async () => {
  const groups = Array.from({ length: 100 }, (_, i) => 7000 + i);
  const as = ['setpriv', '--reuid=65534', '--regid=65534', `--groups=${groups.join(',')}`];
  await accepted((fd) => {
    assert.deepEqual(peerGroups(fd), groups);
    assert.equal(peerProgram(fd, peerCredentials(fd).pid), NODE);
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
    (fd) => {
      const { pid } = peerCredentials(fd);
      assert.equal(fs.readlinkSync(`/proc/${pid}/exe`), real, 'this is what it says it is');
      assert.equal(peerProgram(fd, pid), null);
    },
    ['unshare', '-m', 'sh', '-c', child, SCRIPT],
  );
});

test('a program that was replaced is none', async () => {
  const copy = path.join(dir, 'copy');
  fs.copyFileSync(NODE, copy);
  const wrap = ['sh', '-c', `exec ${copy} -e "$0" ${file}`, SCRIPT];
  await accepted((fd) => {
    const { pid } = peerCredentials(fd);
    assert.equal(peerProgram(fd, pid), copy);
    fs.rmSync(copy);
    assert.equal(peerProgram(fd, pid), null);
    fs.copyFileSync('/bin/true', copy);
    assert.equal(peerProgram(fd, pid), null);
  }, wrap);
});
