/** Writes of one stream that the stack has not taken whole yet, in order. Their bytes stay the program's until then. */
import type { TcpConnection } from '../net/tcp/api.ts';
import type { Request } from './node.ts';

interface Pending {
  readonly request: Request;
  readonly chunks: readonly Uint8Array[];
  /** The first chunk that has bytes left, and from where on. */
  chunk: number;
  from: number;
}

export class PendingWrites {
  readonly #queue: Pending[] = [];
  #bytes = 0;

  /** Bytes that the stack has not taken. */
  get bytes(): number {
    return this.#bytes;
  }

  get isEmpty(): boolean {
    return this.#queue.length === 0;
  }

  /** Write `chunks`. True when the stack took all; otherwise the rest is kept for `request`. */
  write(connection: TcpConnection, request: Request, chunks: readonly Uint8Array[]): boolean {
    let chunk = 0;
    let from = 0;
    if (this.isEmpty) {
      for (; chunk < chunks.length; chunk++) {
        const bytes = chunks[chunk]!;
        from = connection.write(bytes, 0, bytes.length, chunk + 1 < chunks.length);
        if (from < bytes.length) break;
      }
      if (chunk === chunks.length) return true;
    }
    this.#bytes -= from;
    for (let i = chunk; i < chunks.length; i++) this.#bytes += chunks[i]!.length;
    this.#queue.push({ request, chunks, chunk, from });
    return false;
  }

  /**
   * Write the first `length` bytes of `bytes`, which are the caller's again afterwards: what the stack does not take is
   * copied. True when it took all.
   */
  writeCopy(connection: TcpConnection, request: Request, bytes: Buffer, length: number): boolean {
    const taken = this.isEmpty ? connection.write(bytes, 0, length) : 0;
    if (taken === length && this.isEmpty) return true;
    this.#bytes += length - taken;
    const chunks = [Buffer.from(bytes.subarray(taken, length))];
    this.#queue.push({ request, chunks, chunk: 0, from: 0 });
    return false;
  }

  /** Give the stack what it takes now. */
  pump(connection: TcpConnection): void {
    for (const pending of this.#queue) if (!this.#advance(connection, pending)) break;
  }

  /** The oldest request, when all its bytes were taken. */
  takeDone(): Request | null {
    const first = this.#queue[0];
    return first !== undefined && first.chunk === first.chunks.length ? this.#shift() : null;
  }

  /** The oldest request, whatever came of it. */
  takeAny(): Request | null {
    return this.#queue.length === 0 ? null : this.#shift();
  }

  #shift(): Request {
    const { request, chunks, chunk, from } = this.#queue.shift()!;
    for (let i = chunk; i < chunks.length; i++) this.#bytes -= chunks[i]!.length;
    this.#bytes += from;
    return request;
  }

  /** True when all of it is taken. */
  #advance(connection: TcpConnection, pending: Pending): boolean {
    const { chunks } = pending;
    while (pending.chunk < chunks.length) {
      const chunk = chunks[pending.chunk]!;
      const hasMore = pending.chunk + 1 < chunks.length;
      const taken = connection.write(chunk, pending.from, chunk.length, hasMore);
      this.#bytes -= taken;
      pending.from += taken;
      if (pending.from < chunk.length) return false;
      pending.chunk++;
      pending.from = 0;
    }
    return true;
  }
}
