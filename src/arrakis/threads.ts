/**
 * One thread for each queue pair of a VNIC, seen from the thread that opened it.
 *
 * - A thread is a worker that runs a module of the application; `threadVnic()` in it is its pair. Threads share the
 *   region and nothing else, but for the little rings that carry ARP from the first to the others (net/neighbours.ts).
 * - A thread that dies leaves its pair unserved: what is for it is dropped and counted by the device. The others go on.
 */
import { EventEmitter } from 'node:events';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import type { VnicInfo } from '../control/protocol.ts';
import { type NeighbourShare, shareNeighbours } from '../net/index.ts';
import type { CaptureSession } from './capture.ts';
import type { PairDescription } from './pairs.ts';

/** Under this name in `workerData`. */
export const THREAD_DATA = 'arrakisThread';
/** From a thread to the opener: it has given its socket back. */
export const LET_GO = 'let go';
/** The same: its rings wait for the new device. */
export const HAS_RESET = 'has reset';
/** The same: all that it has recorded was handed over before. */
export const HAS_RECORDED = 'has recorded';
/** A thread that was asked to stop gets so long before it is terminated. */
const STOP_MS_MAX = 2_000;

export interface ThreadsOptions {
  /** Processors: thread i runs on `cpus[i % cpus.length]`. Default: those of the application's placement, if any. */
  readonly cpus?: readonly number[];
  /** For `threadVnic().data`; cloned. */
  readonly data?: unknown;
}

/** What the thread of one pair gets. */
export interface ThreadData {
  readonly description: PairDescription;
  readonly info: VnicInfo;
  readonly index: number;
  readonly count: number;
  readonly cpu: number | null;
  readonly neighbours: NeighbourShare | null;
  readonly control: MessagePort;
  readonly data: unknown;
}

/** From the opener to a thread. */
export type ThreadMessage =
  | { readonly kind: 'stop' }
  | { readonly kind: 'gone'; readonly reason: string }
  /** The device was replaced: start the rings anew and answer HAS_RESET. */
  | { readonly kind: 'reset' }
  | { readonly kind: 'pin'; readonly cpu: number }
  /** Record, and send what was recorded as `Recorded`; then, one of them was written; then answer HAS_RECORDED. */
  | { readonly kind: 'capture'; readonly capture: number; readonly snapLength: number }
  | { readonly kind: 'captured'; readonly capture: number }
  | { readonly kind: 'capture-stop' };

/** From a thread to the opener: whole pcapng blocks. */
export interface Recorded {
  readonly capture: number;
  readonly blocks: Uint8Array;
}

interface ThreadEvents {
  /** Thread `index` ended by an error; its pair is served no more. Without a listener it is a process warning. */
  died: [index: number, error: Error];
  /** What thread `index` sent by `parentPort.postMessage`. */
  message: [index: number, value: unknown];
}

interface Thread {
  readonly worker: Worker;
  readonly control: MessagePort;
  readonly ended: Promise<void>;
  /** It has given its socket back, closed its queue, or ended. */
  readonly hasLetGo: Promise<void>;
}

export class VnicThreads extends EventEmitter<ThreadEvents> {
  /** Resolves when every thread has ended, however. */
  readonly done: Promise<void>;
  readonly #threads: readonly Thread[];
  /** Those that run, and those of which threads may still have something. */
  readonly #captures = new Map<number, CaptureSession>();
  #nextCapture = 1;
  #running = 0;

  /** Use `Vnic.startThreads`. Starts a worker with module `url` for each pair. */
  constructor(
    url: URL,
    info: VnicInfo,
    pairs: readonly PairDescription[],
    options: ThreadsOptions,
  ) {
    super();
    const { cpus = [], data = null } = options;
    const shares = info.ownsAddress ? shareNeighbours(pairs.length) : pairs.map(() => null);
    this.#threads = pairs.map((description, index) => {
      const cpu = cpus.length === 0 ? null : cpus[index % cpus.length]!;
      const own = {
        description,
        info,
        index,
        count: pairs.length,
        cpu,
        neighbours: shares[index]!,
      };
      return this.#start(url, own, data);
    });
    this.done = Promise.all(this.#threads.map((thread) => thread.ended)).then(() => {});
  }

  /** Threads that run now. */
  get running(): number {
    return this.#running;
  }

  /**
   * Ask every thread to stop: its loops end, and `threadVnic()` says 'stop'. Resolves when all have ended; one that does
   * not end in 2 s is terminated. Idempotent.
   */
  async stop(): Promise<void> {
    this.#tell({ kind: 'stop' });
    const late = setTimeout(() => {
      for (const { worker } of this.#threads) void worker.terminate();
    }, STOP_MS_MAX);
    await this.done;
    clearTimeout(late);
  }

  /** Move thread i to `cpus[i % cpus.length]`. */
  pin(cpus: readonly number[]): void {
    if (cpus.length === 0) return;
    this.#threads.forEach(({ control }, i) => {
      control.postMessage({ kind: 'pin', cpu: cpus[i % cpus.length]! } satisfies ThreadMessage);
    });
  }

  /** The VNIC stopped for good. Resolves when no thread uses its descriptors any more. */
  async markGone(reason: string): Promise<void> {
    this.#tell({ kind: 'gone', reason });
    await Promise.all(this.#threads.map((thread) => thread.hasLetGo));
  }

  /**
   * Every thread starts its rings anew. Resolves with the pairs that no thread serves any more: their rings are as they
   * were left.
   */
  async reset(): Promise<number[]> {
    const isServed = await this.#ask({ kind: 'reset' }, HAS_RESET);
    return isServed.flatMap((served, index) => (served ? [] : [index]));
  }

  /** Every thread records its pair into `capture`. */
  startCapture(capture: CaptureSession): void {
    const id = this.#nextCapture++;
    this.#captures.set(id, capture);
    this.#tell({ kind: 'capture', capture: id, snapLength: capture.snapLength });
  }

  /** Resolves when every thread has handed over what it recorded, or it is too late for that. */
  async stopCapture(): Promise<void> {
    const ids = [...this.#captures.keys()];
    let late: NodeJS.Timeout | undefined;
    const lateness = new Promise<void>((resolve) => {
      late = setTimeout(resolve, STOP_MS_MAX);
    });
    await Promise.race([this.#ask({ kind: 'capture-stop' }, HAS_RECORDED), lateness]);
    clearTimeout(late);
    for (const id of ids) this.#captures.delete(id);
  }

  /** Tell every thread; for each, whether it gave `answer`: one that has let go of its queue does not. */
  #ask(message: ThreadMessage, answer: string): Promise<boolean[]> {
    const answered = this.#threads.map(({ control, hasLetGo }) => {
      let listener = (_message: unknown): void => {};
      const given = new Promise<boolean>((resolve) => {
        listener = (heard) => heard === answer && resolve(true);
        control.on('message', listener);
      });
      const left = hasLetGo.then(() => false);
      return Promise.race([given, left]).finally(() => control.off('message', listener));
    });
    this.#tell(message);
    return Promise.all(answered);
  }

  #recorded({ capture, blocks }: Recorded, from: MessagePort): void {
    this.#captures
      .get(capture)
      ?.take(blocks, () => from.postMessage({ kind: 'captured', capture } satisfies ThreadMessage));
  }

  #tell(message: ThreadMessage): void {
    for (const { control } of this.#threads) control.postMessage(message);
  }

  #start(url: URL, own: Omit<ThreadData, 'control' | 'data'>, data: unknown): Thread {
    const { port1, port2 } = new MessageChannel();
    const thread: ThreadData = { ...own, control: port2, data };
    const worker = new Worker(url, {
      workerData: { [THREAD_DATA]: thread },
      transferList: [port2],
    });
    this.#running++;
    const { index } = own;
    worker.on('message', (value: unknown) => this.emit('message', index, value));
    worker.on('error', (error: Error) => {
      if (this.emit('died', index, error)) return;
      process.emitWarning(`thread ${index} of VNIC ${own.info.name} died: ${error.message}`);
    });
    const ended = new Promise<void>((resolve) => {
      worker.once('exit', () => {
        this.#running--;
        port1.close();
        resolve();
      });
    });
    const hasLetGo = new Promise<void>((resolve) => {
      port1
        .on('message', (message: string | Recorded) => {
          if (message === LET_GO) resolve();
          else if (typeof message === 'object') this.#recorded(message, port1);
        })
        .unref();
      // It has closed its queue.
      port1.once('close', resolve);
      void ended.then(resolve);
    });
    return { worker, control: port1, ended, hasLetGo };
  }
}
