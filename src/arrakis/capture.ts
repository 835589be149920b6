/** A capture that the daemon asked for: pcapng from a VNIC's tap into a descriptor, never waiting for its reader. */
import fs from 'node:fs';
import type { CaptureTap } from '../device/pcap.ts';
import { closeFd, setNonBlocking, writeFd } from '../ffi/fd.ts';

const FLUSH_MS = 100;

export class CaptureSession {
  readonly #tap: CaptureTap;
  readonly #fd: number;
  readonly #flush: NodeJS.Timeout;
  #ended = false;

  /** Start recording into `fd`, which this object owns. */
  constructor(tap: CaptureTap, fd: number, snapLength: number) {
    this.#tap = tap;
    this.#fd = fd;
    // A pipe that nobody reads must not hold up the data plane: what it does not take is lost and counted.
    if (!fs.fstatSync(fd).isFile()) setNonBlocking(fd);
    tap.start((bytes) => this.#write(bytes), { snapLength });
    this.#flush = setInterval(() => tap.flush(), FLUSH_MS).unref();
  }

  /** Write what is left and close the descriptor. Idempotent. */
  stop(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#flush);
    this.#tap.stop();
    closeFd(this.#fd);
  }

  #write(bytes: Uint8Array): number {
    try {
      return Math.max(0, writeFd(this.#fd, bytes));
    } catch {
      // The reader has gone or the disk is full. We are in the middle of a batch: end it from outside.
      setImmediate(() => this.stop());
      return bytes.length;
    }
  }
}
