/** A part of a file too large to be kept: read a piece at a time, the next when the last one has been taken. */
import fs from 'node:fs';
import type { ByteRange } from './conditions.ts';

/** Bytes that are read at a time. */
const CHUNK_BYTES = 256 * 1024;

export class LargeFile {
  #at: number;
  readonly #end: number;
  readonly #path: string;
  readonly #onChunk: (chunk: Uint8Array | null) => void;
  #fd = -1;
  #isReading = false;
  #isClosed = false;

  constructor(file: string, range: ByteRange, onChunk: (chunk: Uint8Array | null) => void) {
    this.#path = file;
    this.#at = range.first;
    this.#end = range.end;
    this.#onChunk = onChunk;
  }

  get isDone(): boolean {
    return this.#at >= this.#end;
  }

  /** Ask for the next piece. Not before the last one has come. */
  read(): void {
    if (this.#isReading || this.#isClosed) return;
    this.#isReading = true;
    if (this.#fd >= 0) {
      this.#readChunk();
      return;
    }
    fs.open(this.#path, 'r', (error, fd) => {
      if (error !== null) this.#finish(null);
      else {
        this.#fd = fd;
        this.#readChunk();
      }
    });
  }

  /** No more pieces. The descriptor goes when the read that is under way has ended. */
  close(): void {
    this.#isClosed = true;
    if (this.#fd >= 0 && !this.#isReading) this.#closeFd();
  }

  #readChunk(): void {
    if (this.#isClosed) {
      this.#isReading = false;
      this.#closeFd();
      return;
    }
    const length = Math.min(CHUNK_BYTES, this.#end - this.#at);
    fs.read(this.#fd, Buffer.allocUnsafe(length), 0, length, this.#at, (error, count, buffer) => {
      // Shorter than it was.
      if (error !== null || count === 0) {
        this.#finish(null);
        return;
      }
      this.#at += count;
      this.#finish(buffer.subarray(0, count));
    });
  }

  #finish(chunk: Uint8Array | null): void {
    this.#isReading = false;
    if (this.#isClosed) this.#closeFd();
    else this.#onChunk(chunk);
  }

  #closeFd(): void {
    if (this.#fd < 0) return;
    fs.close(this.#fd, () => {});
    this.#fd = -1;
  }
}
