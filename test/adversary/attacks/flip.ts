/**
 * Memory that changes while the device looks at it: a thread that flips words of a region between two values as fast as
 * it can. `workerData` is a `Flips`.
 */
import { Worker, workerData } from 'node:worker_threads';
import { mapShared } from '../../../src/ffi/memory.ts';

export interface Flips {
  readonly region: number;
  readonly bytes: number;
  /** Words of the region, by index, and the two values of each. */
  readonly words: readonly { at: number; one: number; other: number }[];
  /** Also written all over, as `[first word, end]`. */
  readonly scribble: readonly [number, number] | null;
  /** [0]: set to 1 to end it. */
  readonly flags: SharedArrayBuffer;
}

/** Start flipping; the function of the reply ends it. */
export function startFlipping(flips: Omit<Flips, 'flags'>): () => Promise<void> {
  const flags = new SharedArrayBuffer(4);
  const worker = new Worker(new URL(import.meta.url), { workerData: { ...flips, flags } });
  const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  return async () => {
    Atomics.store(new Int32Array(flags), 0, 1);
    await ended;
  };
}

function flip({ region, bytes, words, scribble, flags }: Flips): void {
  const stop = new Int32Array(flags);
  const mapping = mapShared(region, bytes);
  const u32 = new Uint32Array(mapping.buffer);
  for (let round = 0; Atomics.load(stop, 0) === 0; round++) {
    for (let n = 0; n < 64; n++) {
      for (const { at, one, other } of words) u32[at] = (round + n) & 1 ? one : other;
    }
    if (scribble !== null) u32.fill(Math.imul(round, 0x9e37_79b1), scribble[0], scribble[1]);
  }
  mapping.release();
}

if (workerData !== null && 'flags' in workerData) flip(workerData as Flips);
