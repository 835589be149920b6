import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  closeFd,
  closeForeign,
  closeLater,
  closeStream,
  duplicateFd,
  eventfd,
  isOpen,
  readFd,
} from './fd.ts';
import { memfdSealed } from './memory.ts';
import { pidfdOpen, pidOfPidfd } from './pidfd.ts';
import { setsockopt } from './socket.ts';
import {
  receiveMessage,
  SOCK_SEQPACKET,
  SOCK_STREAM,
  sendMessage,
  setTimeouts,
  socketPair,
} from './unix.ts';

const SOL_SOCKET = 1;
const SO_LINGER = 13;
const LINGER_S = 3;

async function closed(fd: number): Promise<boolean> {
  for (let i = 0; i < 100 && isOpen(fd); i++) await delay(10);
  return !isOpen(fd);
}

/** A TCP socket whose last close waits LINGER_S seconds: it has sent what nobody reads. */
async function lingering(): Promise<{ fd: number; end: () => void }> {
  const accepted: net.Socket[] = [];
  const server = net.createServer({ pauseOnConnect: true }, (s) => accepted.push(s));
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const client = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
  await new Promise((done) => client.once('connect', done));
  client.write(Buffer.alloc(32 * 1024 * 1024));
  await delay(100);
  const { fd: own } = (client as unknown as { _handle: { fd: number } })._handle;
  const linger = Buffer.alloc(8);
  linger.writeInt32LE(1, 0);
  linger.writeInt32LE(LINGER_S, 4);
  setsockopt(own, SOL_SOCKET, SO_LINGER, linger, 8);
  const fd = duplicateFd(own);
  client.on('error', () => {});
  client.destroy();
  await delay(20);
  const end = (): void => {
    for (const socket of accepted) socket.destroy();
    server.close();
  };
  return { fd, end };
}

test('memory and eventfds of others are closed at once', () => {
  const fds = [eventfd(), memfdSealed('foreign', 4096)];
  const before = [...fds];
  assert.equal(closeForeign(fds), true);
  assert.deepEqual(
    [fds.length, ...before.map(isOpen)],
    [0, false, false],
    'they are gone when it returns',
  );
});

test('what may block whoever closes it last blocks nobody', async (t) => {
  const { fd, end } = await lingering();
  t.after(end);
  const before = performance.now();
  assert.equal(closeForeign([eventfd(), fd]), false);
  const tookMs = performance.now() - before;
  assert.ok(tookMs < (LINGER_S * 1000) / 4, `closing took ${tookMs} ms`);
  assert.ok(await closed(fd));
});

test('nor does it in a message that nobody has read', async (t) => {
  const { fd, end } = await lingering();
  t.after(end);
  const [theirs, ours] = socketPair(SOCK_STREAM);
  sendMessage(theirs, Buffer.from('unread'), [fd]);
  closeFd(fd);
  const before = performance.now();
  closeStream(ours);
  const tookMs = performance.now() - before;
  assert.ok(tookMs < (LINGER_S * 1000) / 4, `closing took ${tookMs} ms`);
  assert.throws(() => sendMessage(theirs, Buffer.from('more')), { errno: 'EPIPE' });
  assert.ok(await closed(ours));
  closeFd(theirs);
});

test('a stream without unread messages is closed when closeStream returns', () => {
  const [theirs, ours] = socketPair(SOCK_STREAM);
  closeStream(ours);
  assert.equal(isOpen(ours), false);
  closeFd(theirs);
});

test('a file whose path is longer than the kernel can tell is no eventfd', async () => {
  const top = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-deep-'));
  const home = process.cwd();
  const name = 'd'.repeat(250);
  let fd = -1;
  try {
    process.chdir(top);
    for (let depth = 0; depth < 20; depth++) {
      fs.mkdirSync(name);
      process.chdir(name);
    }
    fd = fs.openSync('file', 'w');
    assert.throws(() => fs.readlinkSync(`/proc/self/fd/${fd}`), { code: 'ENAMETOOLONG' });
    closeForeign([fd]);
    assert.ok(await closed(fd));
  } finally {
    process.chdir(home);
    // Node's own removal works on whole paths, which are too long here.
    spawnSync('rm', ['-rf', top]);
  }
});

test('closing later goes on without the event loop', () => {
  const fd = eventfd();
  for (let i = 0; i < 1000; i++) closeLater(duplicateFd(fd));
  const nap = new Int32Array(new SharedArrayBuffer(4));
  const first = duplicateFd(fd);
  closeLater(first);
  for (let i = 0; i < 100 && isOpen(first); i++) Atomics.wait(nap, 0, 0, 10);
  assert.equal(isOpen(first), false);
  closeFd(fd);
});

test('a child that ends does not cut short a wait for an answer', () => {
  const buffer = Buffer.alloc(16);
  for (const wait of [
    (fd: number) => readFd(fd, buffer),
    (fd: number) => receiveMessage(fd, buffer, 0)?.length,
  ]) {
    const [ours, theirs] = socketPair(SOCK_SEQPACKET);
    setTimeouts(ours, 10_000);
    spawn('sleep', ['0.1'], { stdio: 'ignore' });
    spawn('sh', ['-c', 'sleep 0.3; printf answer >&3'], {
      stdio: ['ignore', 'ignore', 'ignore', theirs],
    });
    closeFd(theirs);
    assert.equal(wait(ours), 6);
    closeFd(ours);
  }
});

test('a pidfd tells whose it is, and that it has ended', () => {
  const own = pidfdOpen(process.pid);
  assert.equal(pidOfPidfd(own), process.pid);
  closeFd(own);
  const other = eventfd();
  assert.equal(pidOfPidfd(other), null);
  closeFd(other);
});
