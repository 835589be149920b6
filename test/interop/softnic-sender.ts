/**
 * A thread that sends as much as its queue takes, for tests of rates: `workerData` is a `SenderJob`. It naps when the ring
 * is full, so that it leaves the processor to the device.
 */
import { workerData } from 'node:worker_threads';
import { NO_FRAME } from '../../src/device/nic.ts';
import type { VirtioGrant } from '../../src/drivers/virtio/attach.ts';
import { openVirtioQueue } from '../../src/drivers/virtio/queue.ts';

export interface SenderJob {
  grant: VirtioGrant;
  region: number;
  socket: number;
  /** The whole frame. */
  frame: Uint8Array;
  /** [0]: set to 1 to end it. */
  flags: SharedArrayBuffer;
}

const BATCH = 64;
const NAP_MS = 0.5;

const { grant, region, socket, frame, flags } = workerData as SenderJob;
const stop = new Int32Array(flags);
const queue = openVirtioQueue(grant, { region, socket });
const frames = new Uint32Array(BATCH);
const lengths = new Uint16Array(BATCH).fill(frame.length);

while (Atomics.load(stop, 0) === 0) {
  queue.reclaim(2 * BATCH);
  let ready = 0;
  for (; ready < BATCH; ready++) {
    const handle = queue.alloc();
    if (handle === NO_FRAME) break;
    queue.memory.u8.set(frame, handle);
    frames[ready] = handle;
  }
  const taken = queue.txBatch(frames, lengths, ready);
  for (let i = taken; i < ready; i++) queue.free(frames[i]!);
  queue.kick();
  if (taken < BATCH) Atomics.wait(stop, 0, 0, NAP_MS);
}
queue.close();
