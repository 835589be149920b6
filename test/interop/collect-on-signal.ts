/**
 * Preloaded by steady.test.ts with --expose-gc: SIGUSR2 empties the young generation of every thread, so a measurement
 * begins at none.
 */
import { BroadcastChannel, isMainThread } from 'node:worker_threads';

const collect = (): void => (globalThis as unknown as { gc(): void }).gc();
const threads = new BroadcastChannel('collect');
threads.unref();
if (isMainThread) {
  process.on('SIGUSR2', () => {
    collect();
    threads.postMessage(null);
  });
} else {
  threads.onmessage = collect;
}
