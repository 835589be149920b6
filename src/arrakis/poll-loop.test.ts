import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { NIC_STATE, type NicState } from '../device/nic.ts';
import { closeFd, eventfd, eventfdClear, eventfdSignal } from '../ffi/fd.ts';
import { pollLoop } from './poll-loop.ts';

/** A queue with a doorbell and a count of frames that wait. */
class BellQueue {
  readonly doorbellFd: number;
  state: NicState = NIC_STATE.up;
  waiting = 0;
  arms = 0;
  armed = false;

  constructor(doorbell = true) {
    this.doorbellFd = doorbell ? eventfd() : -1;
  }

  arm(): boolean {
    this.arms++;
    this.armed = this.waiting === 0;
    return this.armed;
  }

  disarm(): void {
    this.armed = false;
    if (this.doorbellFd >= 0) eventfdClear(this.doorbellFd);
  }

  /** Frames arrive; the device rings when it was asked to. */
  arrive(count: number): void {
    this.waiting += count;
    if (this.armed && this.doorbellFd >= 0) eventfdSignal(this.doorbellFd);
  }

  readonly turn = (): number => {
    const count = this.waiting;
    this.waiting = 0;
    return count;
  };

  close(): void {
    if (this.doorbellFd >= 0) closeFd(this.doorbellFd);
  }
}

async function until(predicate: () => boolean, timeoutMs = 5000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!predicate()) {
    assert.ok(performance.now() < end, `not in time: ${predicate}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test('it sleeps without work, and the doorbell wakes it', async () => {
  const queue = new BellQueue();
  const loop = pollLoop(queue, queue.turn);
  for (let round = 0; round < 20; round++) {
    await until(() => queue.armed);
    queue.arrive(3);
    await until(() => queue.waiting === 0);
  }
  assert.ok(loop.sleeps >= 20);
  loop.stop();
  await loop.done;
  queue.close();
});

test('asleep it uses no CPU', async () => {
  const queue = new BellQueue();
  const loop = pollLoop(queue, queue.turn);
  await until(() => queue.armed);
  const before = process.cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const { user, system } = process.cpuUsage(before);
  assert.ok(user + system < 50_000, `${user + system} us of CPU in 500 ms`);
  assert.equal(queue.arms, 1);
  loop.stop();
  queue.close();
});

test('with endless work timers, promises and immediates still run', async () => {
  const queue = new BellQueue();
  let polls = 0;
  const loop = pollLoop(queue, () => {
    polls++;
    return 1;
  });
  const started = performance.now();
  for (let n = 0; n < 10; n++) await new Promise((resolve) => setTimeout(resolve, 1));
  const tookMs = performance.now() - started;
  assert.ok(polls > 1000, `${polls} polls`);
  assert.ok(tookMs < 500, `ten timers took ${tookMs} ms`);
  assert.equal(queue.arms, 0);
  loop.stop();
  await loop.done;
  const stopped = polls;
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(polls, stopped);
  queue.close();
});

test('frames that came while it armed are polled at once', async () => {
  const queue = new BellQueue();
  let refused = 0;
  const arm = queue.arm.bind(queue);
  queue.arm = () => {
    if (refused < 3) {
      refused++;
      queue.waiting = 1;
      return false;
    }
    return arm();
  };
  let work = 0;
  const loop = pollLoop(queue, () => {
    const count = queue.turn();
    work += count;
    return count;
  });
  await until(() => queue.armed);
  assert.equal(work, 3);
  loop.stop();
  queue.close();
});

test('a device without a doorbell is looked at by a timer', async () => {
  const queue = new BellQueue(false);
  const loop = pollLoop(queue, queue.turn);
  await until(() => loop.sleeps > 2);
  queue.arrive(1);
  await until(() => queue.waiting === 0);
  loop.stop();
});

test('it wakes by itself after timeoutMs, and by wake', async () => {
  const queue = new BellQueue();
  let timeoutMs = 5;
  const loop = pollLoop(queue, queue.turn, { timeoutMs: () => timeoutMs });
  await until(() => loop.sleeps >= 3);
  timeoutMs = -1;
  await new Promise((resolve) => setTimeout(resolve, 30));
  const { sleeps } = loop;
  queue.waiting = 1;
  loop.wake();
  await until(() => queue.waiting === 0 && loop.sleeps > sleeps);
  loop.stop();
  queue.close();
});

test('it ends when the queue is gone', async () => {
  const queue = new BellQueue();
  const loop = pollLoop(queue, queue.turn);
  await until(() => queue.armed);
  queue.state = NIC_STATE.gone;
  eventfdSignal(queue.doorbellFd);
  await loop.done;
  queue.close();
});

test('what turn throws ends the loop and is told', async () => {
  const queue = new BellQueue();
  const errors: unknown[] = [];
  const loop = pollLoop(
    queue,
    () => {
      throw new Error('broken');
    },
    { onError: (error) => errors.push(error) },
  );
  await loop.done;
  await until(() => errors.length === 1);
  queue.close();
});

test('yieldIdle: after a poll that found nothing the event loop has its turn, after one that found work not', async () => {
  const queue = new BellQueue();
  let sinceOurs = 0;
  let most = 0;
  let work = 8;
  const turn = (): number => {
    most = Math.max(most, ++sinceOurs);
    return work-- > 0 ? 1 : 0;
  };
  const loop = pollLoop(queue, turn, { yieldIdle: true, spinUs: 2000 });
  const ours = (): void => {
    sinceOurs = 0;
    if (!queue.armed) setImmediate(ours);
  };
  setImmediate(ours);
  await until(() => queue.armed);
  // The eight with work, and the one without that ended them, were one turn; every other was one of its own.
  assert.equal(most, 9);
  loop.stop();
  queue.close();
});

test('ref: false: a loop that sleeps does not keep the process alive', () => {
  const module = new URL('./poll-loop.js', import.meta.url).href;
  const fd = new URL('../ffi/fd.js', import.meta.url).href;
  const program = (ref: boolean) => `
    import { pollLoop } from '${module}';
    import { eventfd } from '${fd}';
    const queue = { doorbellFd: eventfd(), state: 0, arm: () => true, disarm() {} };
    pollLoop(queue, () => 0, { ref: ${ref}, timeoutMs: () => 60_000 });`;
  const run = (ref: boolean) =>
    spawnSync(process.execPath, ['--input-type=module', '-e', program(ref)], { timeout: 3000 });
  assert.equal(run(false).status, 0);
  assert.equal(run(true).signal, 'SIGTERM');
});
