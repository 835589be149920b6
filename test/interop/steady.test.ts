/**
 * A million packets through the echo application, as nobody, on each driver: the garbage collector has nothing to do,
 * and the system calls are those of the batches and of the event loop, not of the packets.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Running, start } from '../../bench/processes.ts';
import { isolateNetwork } from '../support/network.ts';
import { packageMissing, rootMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';
import { DRIVERS, type Driver, PACKETS, steady } from './steady.harness.ts';

const skip = rootMissing() || packageMissing('strace');
if (skip === false) isolateNetwork();

const PRELOAD = fileURLToPath(new URL('./collect-on-signal.js', import.meta.url));

const collections = (run: Running): number =>
  (run.output.match(/Scavenge|Mark-Compact|Mark-sweep/g) ?? []).length;

/** No thread of the application collects garbage while a million packets go by. */
async function collectsNothing(driver: Driver, queues: number): Promise<void> {
  let before = 0;
  const hooks = {
    begin: async (server: Running) => {
      process.kill(applicationPid(server), 'SIGUSR2');
      await sleep(300);
      before = collections(server);
      assert.ok(before >= (queues === 1 ? 1 : 1 + queues), 'collections of every thread are seen');
    },
    end: async (server: Running) => {
      await sleep(100);
      assert.equal(collections(server) - before, 0, server.output);
    },
  };
  // V8's memory reducer collects by a timer, 8 s after a program allocates less: what we count is need.
  const options = ['--trace-gc', '--expose-gc', '--no-memory-reducer', '--import', PRELOAD];
  await steady(driver, options, hooks, queues);
}

describe('a million packets', { skip }, () => {
  for (const driver of ['virtio', 'af-xdp-switched'] as const) {
    test(`${driver}, two threads: no collection of garbage`, () => collectsNothing(driver, 2));
  }

  for (const driver of DRIVERS) {
    test(`${driver}: no collection of garbage`, () => collectsNothing(driver, 1));

    test(`${driver}: system calls by the batch, not by the packet`, async (t) => {
      const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-strace-'));
      const file = path.join(dir, 'counts');
      let strace: Running | null = null;
      try {
        await steady(driver, [], {
          begin: async (server) => {
            strace = start('strace', [
              '-c',
              '-f',
              '-o',
              file,
              '-p',
              String(applicationPid(server)),
            ]);
            await until(() => /attached/.test(strace!.output), 10_000, 'strace to attach');
          },
          end: async () => {
            strace!.child.kill('SIGINT');
            await strace!.exited;
          },
        });
        const calls = countsOf(fs.readFileSync(file, 'utf8'));
        t.diagnostic(`${driver}: ${JSON.stringify(calls)}`);
        const perPacket = driver === 'virtio' ? ['write'] : ['sendto'];
        checkCalls(calls, perPacket);
      } finally {
        await (strace as Running | null)?.stop();
        fs.rmSync(dir, { recursive: true });
      }
    });
  }
});

/** The application under `arrakis run`. */
function applicationPid(run: Running): number {
  const pid = run.child.pid!;
  return Number(fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim());
}

/** `strace -c` prints: % time, seconds, usecs/call, calls, [errors], syscall. */
function countsOf(table: string): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of table.split('\n')) {
    const match = /^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z_0-9]+)$/.exec(line);
    if (match !== null && match[2] !== 'total') counts[match[2]!] = Number(match[1]);
  }
  return counts;
}

/** Of the event loop, the doorbell and the engine itself; none of them moves a packet. */
const LOOP_CALLS = [
  'epoll_wait',
  'epoll_pwait',
  'epoll_ctl',
  'read',
  'write',
  'poll',
  'futex',
  'clock_gettime',
  'getpid',
  'madvise',
  'mprotect',
  'munmap',
  'mmap',
  'sched_yield',
  'restart_syscall',
];

function checkCalls(calls: Record<string, number>, batchCalls: readonly string[]): void {
  const unexpected = Object.keys(calls).filter(
    (name) => !LOOP_CALLS.includes(name) && !batchCalls.includes(name),
  );
  assert.deepEqual(unexpected, [], JSON.stringify(calls));
  const total = Object.values(calls).reduce((sum, count) => sum + count, 0);
  assert.ok(total < PACKETS / 4, `${total} system calls for ${PACKETS} packets`);
}
