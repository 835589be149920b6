/** A VNIC as one of its threads has it: the pair of this thread, ready to use, with the VNIC's addresses. */
import { EventEmitter } from 'node:events';
import { workerData } from 'node:worker_threads';
import type { Ipv4, Mac } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import type { VnicInfo } from '../control/protocol.ts';
import type { NicQueue } from '../device/nic.ts';
import { CaptureTap } from '../device/pcap.ts';
import { setAffinity } from '../ffi/process.ts';
import type { NeighbourShare } from '../net/index.ts';
import { ThreadCapture } from './capture.ts';
import { wallClockNs } from './clock.ts';
import { letGo, openPair, resetQueue } from './pairs.ts';
import { type PollLoop, type PollLoopOptions, pollLoop } from './poll-loop.ts';
import { newSecret } from './secret.ts';
import {
  HAS_RECORDED,
  HAS_RESET,
  LET_GO,
  type Recorded,
  THREAD_DATA,
  type ThreadData,
  type ThreadMessage,
} from './threads.ts';

interface ThreadVnicEvents {
  /** The opener asks this thread to end; its loops have been stopped. */
  stop: [];
  /** The VNIC stopped for good, with the reason; the loops have been stopped. */
  gone: [reason: string];
}

export class ThreadVnic extends EventEmitter<ThreadVnicEvents> {
  /** The queue of this thread. */
  readonly queue: NicQueue;
  /** Which of `count` threads this is. */
  readonly index: number;
  readonly count: number;
  readonly info: VnicInfo;
  readonly mac: Mac;
  readonly mtu: number;
  readonly address: Ipv4;
  readonly prefix: number;
  /** 0: none. */
  readonly gateway: Ipv4;
  readonly ownsAddress: boolean;
  /** Random, for `NetInterface`. */
  readonly secret: Int32Array = newSecret();
  /** How this thread hears of neighbours: for `NetInterface`. */
  readonly neighbours: NeighbourShare | null;
  /** What the opener gave to `startThreads`. */
  readonly data: unknown;
  /** What `queue` wraps, to record what passes. */
  readonly #inner: NicQueue;
  readonly #tap: CaptureTap;
  #capture: ThreadCapture | null = null;
  readonly #control: ThreadData['control'];
  readonly #loops = new Set<PollLoop>();

  /** Use `threadVnic`. */
  constructor(thread: ThreadData) {
    super();
    const { info, control, cpu } = thread;
    if (cpu !== null) setAffinity([cpu]);
    this.#inner = openPair(thread.description);
    this.#tap = new CaptureTap(this.#inner, { nowNs: wallClockNs });
    this.queue = this.#tap;
    this.index = thread.index;
    this.count = thread.count;
    this.info = info;
    this.mac = info.mac;
    this.mtu = info.mtu;
    this.address = info.address;
    this.prefix = info.prefix;
    this.gateway = info.gateway;
    this.ownsAddress = info.ownsAddress;
    this.neighbours = thread.neighbours;
    this.data = thread.data;
    this.#control = control;
    control.on('message', (message: ThreadMessage) => this.#onMessage(message));
  }

  /** Drive `turn` on this thread's queue (see `pollLoop`). The loop ends with the VNIC, and when the opener says stop. */
  poll(turn: () => number, options: PollLoopOptions = {}): PollLoop {
    const loop = pollLoop(this.queue, turn, options);
    this.#loops.add(loop);
    void loop.done.then(() => this.#loops.delete(loop));
    return loop;
  }

  /** Release the queue; the thread may then end. Idempotent. */
  close(): void {
    this.#stopLoops();
    this.#stopCapture();
    this.queue.close();
    this.#control.close();
  }

  #onMessage(message: ThreadMessage): void {
    if (message.kind === 'pin') {
      pin(message.cpu);
      return;
    }
    if (message.kind === 'reset') {
      resetQueue(this.#inner);
      this.#control.postMessage(HAS_RESET);
      return;
    }
    if (message.kind === 'capture') {
      this.#startCapture(message);
      return;
    }
    if (message.kind === 'captured') {
      if (message.capture === this.#capture?.id) this.#capture.written();
      return;
    }
    if (message.kind === 'capture-stop') {
      this.#stopCapture();
      this.#control.postMessage(HAS_RECORDED);
      return;
    }
    this.#stopLoops();
    if (message.kind === 'gone') {
      this.emit('gone', message.reason);
      letGo(this.#inner);
      this.#control.postMessage(LET_GO);
    } else this.emit('stop');
  }

  #startCapture({ capture, snapLength }: ThreadMessage & { kind: 'capture' }): void {
    this.#stopCapture();
    const options = { id: capture, pair: this.index, snapLength };
    this.#capture = new ThreadCapture(this.#tap, options, (blocks) => {
      this.#control.postMessage({ capture, blocks } satisfies Recorded, [blocks.buffer]);
    });
  }

  #stopCapture(): void {
    this.#capture?.stop();
    this.#capture = null;
  }

  #stopLoops(): void {
    for (const loop of this.#loops) loop.stop();
  }
}

/** A processor that this thread may not use leaves it where it is. */
function pin(cpu: number): void {
  try {
    setAffinity([cpu]);
  } catch (error) {
    process.emitWarning(`not moved to processor ${cpu}: ${(error as Error).message}`);
  }
}

let own: ThreadVnic | null = null;

/**
 * The VNIC of this thread, which `Vnic.startThreads` started. The same object at each call. ARK_NOT_FOUND in a thread
 * that nobody gave one.
 */
export function threadVnic(): ThreadVnic {
  if (own !== null) return own;
  const thread = (workerData as { [THREAD_DATA]?: ThreadData } | null)?.[THREAD_DATA];
  if (thread === undefined) {
    throw new ArrakisError('ARK_NOT_FOUND', 'this thread was given no queue pair', {
      hint: 'start the module by vnic.startThreads(url)',
    });
  }
  own = new ThreadVnic(thread);
  return own;
}
