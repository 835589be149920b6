/** A link between two threads that really run at once; and what it costs in garbage. */
import assert from 'node:assert/strict';
import { constants, PerformanceObserver } from 'node:perf_hooks';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { linkBytes, linkMemory } from './layout.ts';
import { LINK_STATE, MessageLink, makeBells } from './link.ts';
import { NONE } from './ring.ts';

const CAPACITY = 4096;
const MESSAGES = 300_000;

test('another thread receives everything in order, whole, asleep or awake', async () => {
  const memory = new SharedArrayBuffer(linkBytes(CAPACITY));
  const [ours, theirs] = makeBells();
  const link = new MessageLink(linkMemory(memory), { capacity: CAPACITY, side: 0, bells: ours });
  const worker = new Worker(new URL('./threads.worker.js', import.meta.url), {
    workerData: { memory, bells: theirs, capacity: CAPACITY },
  });
  const failed = new Promise<never>((_resolve, reject) => worker.once('error', reject));
  const drive = async (): Promise<void> => {
    let received = 0;
    for (let sent = 0, turn = 0; received < MESSAGES; turn++) {
      const { view } = link.memory;
      for (let n = 0; n < 50 && sent < MESSAGES; n++) {
        const length = 5 + ((sent * 7) % 300);
        const at = link.reserve(length);
        if (at === NONE) break;
        view.setInt32(at, sent, true);
        view.setUint8(at + length - 1, sent & 0xff);
        link.commit(length, ~sent);
        sent++;
      }
      link.publish();
      for (let length = link.receive(); length !== NONE; length = link.receive()) {
        assert.equal(length, 4);
        assert.equal(view.getInt32(link.offset, true), received);
        assert.equal(link.tag, received);
        received++;
      }
      link.release();
      assert.equal(link.state, LINK_STATE.open, link.endReason);
      // The event loop gets its turn, and the other one falls asleep now and then.
      if (turn % 64 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await Promise.race([drive(), failed]);
  link.close();
  assert.equal(await new Promise((resolve) => worker.once('exit', resolve)), 0);
  assert.ok(link.rings > 0, 'the other thread slept at least once');
});

test('five million messages make no garbage', async () => {
  const [ours, theirs] = makeBells();
  const memory = linkMemory(new SharedArrayBuffer(linkBytes(CAPACITY)));
  const left = new MessageLink(memory, { capacity: CAPACITY, side: 0, bells: ours });
  const right = new MessageLink(memory, { capacity: CAPACITY, side: 1, bells: theirs });
  const trips = (count: number): void => {
    for (let n = 0; n < count; n++) {
      const at = left.reserve(56);
      memory.view.setInt32(at, n, true);
      left.commit(56);
      left.publish();
      if (right.receive() !== 56) throw new Error('nothing came');
      right.release();
    }
  };
  trips(200_000);
  const collected: unknown[] = [];
  const observer = new PerformanceObserver((list) => {
    // Only those of the young generation: V8 tidies up the old one whenever it has time.
    const isMinor = (entry: object): boolean =>
      (entry as { detail?: { kind?: number } }).detail?.kind ===
      constants.NODE_PERFORMANCE_GC_MINOR;
    collected.push(...list.getEntries().filter(isMinor));
  });
  observer.observe({ entryTypes: ['gc'] });
  await new Promise((resolve) => setTimeout(resolve, 50));
  collected.length = 0;
  trips(5_000_000);
  await new Promise((resolve) => setTimeout(resolve, 50));
  observer.disconnect();
  left.close();
  right.close();
  // 24 bytes a message would be seven collections of a young generation of 16 MiB.
  assert.ok(collected.length <= 2, `${collected.length} collections`);
});
