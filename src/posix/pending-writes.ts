/** Writes of one stream that the stack has not taken whole yet, in order. Their bytes stay the program's until then. */
import type { TcpConnection } from '../net/tcp/api.ts';
import type { Request } from './node.ts';

interface Pending {
  readonly request: Request;
  readonly chunks: readonly Uint8Array[];
  /** Chunks up to the last that is not empty: it must be the one that says that nothing more comes. */
  readonly end: number;
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

  /** Write `bytes` bytes in `chunks`. True when the stack took all; otherwise the rest is kept for `request`. */
  write(
    connection: TcpConnection,
    request: Request,
    chunks: readonly Uint8Array[],
    bytes: number,
  ): boolean {
    let end = chunks.length;
    while (end > 0 && chunks[end - 1]!.length === 0) end--;
    const pending = { request, chunks, end, chunk: 0, from: 0 };
    this.#bytes += bytes;
    if (this.#queue.length === 0 && this.#advance(connection, pending)) return true;
    this.#queue.push(pending);
    return false;
  }

  /** Give the stack what it takes now. */
  pump(connection: TcpConnection): void {
    for (const pending of this.#queue) if (!this.#advance(connection, pending)) break;
  }

  /** The oldest request, when all its bytes were taken. */
  takeDone(): Request | null {
    const first = this.#queue[0];
    return first !== undefined && first.chunk === first.end ? this.#shift() : null;
  }

  /** The oldest request, whatever came of it. */
  takeAny(): Request | null {
    return this.#queue.length === 0 ? null : this.#shift();
  }

  #shift(): Request {
    const { request, chunks, end, chunk, from } = this.#queue.shift()!;
    for (let i = chunk; i < end; i++) this.#bytes -= chunks[i]!.length;
    this.#bytes += from;
    return request;
  }

  /** True when all of it is taken. */
  #advance(connection: TcpConnection, pending: Pending): boolean {
    const { chunks, end } = pending;
    while (pending.chunk < end) {
      const chunk = chunks[pending.chunk]!;
      const hasMore = pending.chunk + 1 < end;
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
