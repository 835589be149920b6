/**
 * What a test may not leave behind: descriptors of this process, interfaces of its network namespace, entries
 * of /dev/shm. Take a `LeakCheck` first, call `assertNone` when everything was closed.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { listLinks } from '../../src/ffi/netlink/index.ts';
import { sleep } from './until.ts';

const SETTLE_MS = 2000;
const POLL_MS = 20;

/** Everything of the three kinds that is there now, one line each. */
function snapshot(): Set<string> {
  const lines = new Set<string>();
  for (const fd of fs.readdirSync('/proc/self/fd')) {
    try {
      lines.add(`descriptor ${fd}: ${fs.readlinkSync(`/proc/self/fd/${fd}`)}`);
    } catch {
      // The descriptor that the listing itself used.
    }
  }
  for (const link of listLinks()) lines.add(`interface ${link.index}: ${link.name}`);
  for (const name of fs.readdirSync('/dev/shm')) lines.add(`/dev/shm/${name}`);
  return lines;
}

export class LeakCheck {
  readonly #before = snapshot();

  /** What is there now and was not then. */
  leaks(): string[] {
    return [...snapshot()].filter((line) => !this.#before.has(line));
  }

  /** Resolves when nothing is left; children and the kernel get a moment to let go. Fails with the list otherwise. */
  async assertNone(settleMs = SETTLE_MS): Promise<void> {
    for (let waited = 0; waited < settleMs && this.leaks().length > 0; waited += POLL_MS) {
      await sleep(POLL_MS);
    }
    assert.deepEqual(this.leaks(), [], 'left behind');
  }
}
