/** A daemon without descriptors: who is there goes on, who comes waits, and nobody burns a processor meanwhile. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { test } from 'node:test';
import { connectUnix, SOCK_SEQPACKET, sendMessage } from '../../src/ffi/unix.ts';
import { packageMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';
import { RawClient, TestDaemon } from './daemon.harness.ts';

const LOOK_MS = 1000;
const WAITING = 8;

/** Processor time of `pid` in ticks of 10 ms: utime and stime of proc_pid_stat(5). */
function ticks(pid: number): number {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

test('no descriptors to accept with', {
  skip: packageMissing('prlimit', 'util-linux'),
}, async () => {
  const daemon = await TestDaemon.start();
  const domain = await daemon.connect();
  const limit = (soft: number | string) =>
    execFileSync('prlimit', ['--pid', String(daemon.pid), `--nofile=${soft}:`]);
  const before = /open files\s+(\d+)/.exec(fs.readFileSync(`/proc/${daemon.pid}/limits`, 'utf8'));
  const fds = fs.readdirSync(`/proc/${daemon.pid}/fd`).map(Number);
  const clients: RawClient[] = [];
  try {
    // Below the lowest number that is free.
    const gap = fds.sort((a, b) => a - b).findIndex((fd, i) => fd !== i);
    limit(gap < 0 ? fds.length : gap);
    for (let n = 0; n < WAITING; n++) {
      const client = new RawClient(connectUnix(daemon.socket, SOCK_SEQPACKET));
      sendMessage(client.fd, Buffer.from('{"id":1,"op":"hello","protocol":1}'));
      clients.push(client);
    }
    await until(() => daemon.log.includes('cannot accept'), 5000, 'the daemon says so');
    const spent = ticks(daemon.pid);
    await sleep(LOOK_MS);
    const percent = ((ticks(daemon.pid) - spent) * 1000) / LOOK_MS;
    assert.ok(percent < 30, `it waits, and takes ${percent}% of a processor for that`);
    assert.equal(daemon.log.split('cannot accept').length, 2, 'once');
    assert.ok((await domain.request('list', {})).reply.objects.length > 0, 'who is there goes on');
    limit(before![1]!);
    for (const client of clients) assert.equal(client.receive()?.ok, true, 'who waited is served');
    await until(() => daemon.log.includes('accepts connections again'));
  } finally {
    for (const client of clients) client.close();
    await domain.close();
    await daemon.close();
  }
});
