/**
 * A capture that the daemon asked for: pcapng from the taps of a VNIC into a descriptor, never waiting for its reader.
 *
 *   pair of this thread    tap ─► sink ──────────────────────────► ┐
 *   pair of another        tap ─► ThreadCapture ─► whole blocks ─► ┴► CaptureSession ─► descriptor
 *
 * - One file with one interface for each queue pair, of the pair's number. Each pair's packets are in order; those of
 *   different pairs are not, as each is handed over by itself: readers sort by time (`reordercap`).
 * - Only this session writes to the descriptor, and finishes what it has begun before anything else: no block is torn.
 */
import fs from 'node:fs';
import type { CaptureTap } from '../device/pcap.ts';
import { pcapngHeaders } from '../device/pcapng.ts';
import { closeFd, setNonBlocking, writeFd } from '../ffi/fd.ts';

const FLUSH_MS = 100;
/** What a thread may have handed over and nobody has written yet. */
const CHUNKS_PER_THREAD_MAX = 2;

interface Chunk {
  readonly bytes: Uint8Array;
  readonly written: () => void;
}

export class CaptureSession {
  readonly #fd: number;
  readonly #snapLength: number;
  readonly #taps: CaptureTap[] = [];
  readonly #flush: NodeJS.Timeout;
  readonly #onFailure: () => void;
  /** What is to be written before anything else, first begun. */
  #waiting: Chunk[] = [];
  #ended = false;

  /**
   * Record into `fd`, which this object owns, what the pairs of these names exchange. `onFailure`: nobody takes it any
   * more; not during a batch.
   */
  constructor(
    fd: number,
    interfaceNames: readonly string[],
    snapLength: number,
    onFailure: () => void,
  ) {
    this.#fd = fd;
    this.#snapLength = snapLength;
    this.#onFailure = onFailure;
    // A pipe that nobody reads must not hold up the data plane: what it does not take is lost and counted.
    if (!fs.fstatSync(fd).isFile()) setNonBlocking(fd);
    this.take(pcapngHeaders(interfaceNames, snapLength), () => {});
    this.#flush = setInterval(() => this.#flushAll(), FLUSH_MS).unref();
  }

  get snapLength(): number {
    return this.#snapLength;
  }

  /** Record what passes `tap` too, that of queue pair `pair` in this thread. */
  add(pair: number, tap: CaptureTap): void {
    this.#taps.push(tap);
    tap.start((bytes) => this.#offer(bytes), { snapLength: this.#snapLength, interfaceId: pair });
  }

  /** Write whole blocks that another thread has recorded, now or later; `written` is called when that is done. */
  take(bytes: Uint8Array, written: () => void): void {
    if (this.#ended) return;
    this.#waiting.push({ bytes, written });
    this.#writeWaiting();
  }

  /** Write what is left and close the descriptor, when `threads` have handed over what they had. Idempotent. */
  stop(threads: Promise<void> | null = null): void {
    clearInterval(this.#flush);
    for (const tap of this.#taps.splice(0)) tap.stop();
    if (threads === null) this.#close();
    else void threads.then(() => this.#close());
  }

  #close(): void {
    if (this.#ended) return;
    this.#writeWaiting();
    this.#ended = true;
    closeFd(this.#fd);
  }

  #flushAll(): void {
    this.#writeWaiting();
    for (const tap of this.#taps) tap.flush();
    // Another one is first, when the reader is slow.
    if (this.#taps.length > 1) this.#taps.push(this.#taps.shift()!);
  }

  /** All of `bytes`, or nothing: what the descriptor does not take of them waits here. */
  #offer(bytes: Uint8Array): number {
    this.#writeWaiting();
    if (this.#waiting.length > 0) return 0;
    const taken = this.#write(bytes);
    if (taken < bytes.length) {
      // Nothing of it at all: the tap keeps it.
      if (taken === 0) return 0;
      this.#waiting.push({ bytes: new Uint8Array(bytes.subarray(taken)), written: () => {} });
    }
    return bytes.length;
  }

  #writeWaiting(): void {
    for (;;) {
      const first = this.#waiting[0];
      if (first === undefined) return;
      const taken = this.#write(first.bytes);
      if (taken < first.bytes.length) {
        this.#waiting[0] = { bytes: first.bytes.subarray(taken), written: first.written };
        return;
      }
      this.#waiting.shift();
      first.written();
    }
  }

  #write(bytes: Uint8Array): number {
    if (this.#ended) return bytes.length;
    try {
      return Math.max(0, writeFd(this.#fd, bytes));
    } catch {
      // The reader has gone or the disk is full. We may be in the middle of a batch: end it from outside.
      setImmediate(this.#onFailure);
      return bytes.length;
    }
  }
}

/** The part of a capture that is in the thread of a pair: hands over copies of what its tap has recorded. */
export class ThreadCapture {
  readonly id: number;
  readonly #tap: CaptureTap;
  readonly #flush: NodeJS.Timeout;
  #chunks = 0;
  #ending = false;

  /** Record what passes `tap`, that of queue pair `pair`, until `stop`. `send` owns what it gets. */
  constructor(
    tap: CaptureTap,
    { id, pair, snapLength }: { id: number; pair: number; snapLength: number },
    send: (blocks: Uint8Array<ArrayBuffer>) => void,
  ) {
    this.id = id;
    this.#tap = tap;
    const sink = (bytes: Uint8Array): number => {
      if (this.#chunks === CHUNKS_PER_THREAD_MAX && !this.#ending) return 0;
      this.#chunks++;
      send(new Uint8Array(bytes));
      return bytes.length;
    };
    tap.start(sink, { snapLength, interfaceId: pair });
    this.#flush = setInterval(() => tap.flush(), FLUSH_MS).unref();
  }

  /** One that was sent has been written. */
  written(): void {
    this.#chunks--;
  }

  /** Hand over what is left. */
  stop(): void {
    clearInterval(this.#flush);
    this.#ending = true;
    this.#tap.stop();
  }
}
