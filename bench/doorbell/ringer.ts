/** The thread that rings the eventfd of `receiver.js eventfd`, with the time in shared memory. */
import { workerData } from 'node:worker_threads';
import { eventfdSignal } from '../../src/ffi/fd.ts';
import { nextPauseMs } from './pace.ts';
import { nowUs } from './stamp.ts';

const { fd, shared } = workerData as { fd: number; shared: SharedArrayBuffer };
const stamp = new Float64Array(shared, 0, 1);
const stop = new Int32Array(shared, 8, 1);
for (let i = 0; Atomics.load(stop, 0) === 0; i++) {
  Atomics.wait(stop, 0, 0, nextPauseMs(i));
  stamp[0] = nowUs();
  eventfdSignal(fd);
}
