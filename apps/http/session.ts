/**
 * One connection of the web server: requests in, responses out, in order (RFC 9112, section 9.3.2).
 *
 *   reading   a head is parsed where the card put it; only the piece of one that is cut is copied
 *   writing   a response found no room, or its file is being read: the connection is paused, what came with it waits
 *   closing   the last response is queued, then FIN; what still comes is thrown away
 *
 * Pipelined requests are answered one after the other; a client that does not read stops us at its send buffer.
 */
import type { TcpConnection, TcpEnd, TcpHandlers } from '../../src/arrakis/index.ts';
import { type ByteRange, isFresh, selectRange } from './conditions.ts';
import type { FileEntry, FileTree } from './files.ts';
import { LargeFile } from './large-file.ts';
import { HEAD_BYTES_MAX, METHOD, RequestHead, type Span } from './request.ts';
import { type HttpDate, Response, refusal } from './response.ts';

export interface HttpCounters {
  connections: number;
  requests: number;
  /** Responses by kind. */
  ok: number;
  partial: number;
  notModified: number;
  refused: number;
  bodyBytes: number;
  /** Connections ended because they said nothing, or too slowly. */
  timedOut: number;
  /** Large files whose reading failed, or which became shorter while they were sent. */
  fileErrors: number;
}

export const newHttpCounters = (): HttpCounters => ({
  connections: 0,
  requests: 0,
  ok: 0,
  partial: 0,
  notModified: 0,
  refused: 0,
  bodyBytes: 0,
  timedOut: 0,
  fileErrors: 0,
});

/** What the sessions of a server share. */
export interface SessionHost {
  readonly u8: Uint8Array;
  readonly files: FileTree;
  readonly date: HttpDate;
  readonly counters: HttpCounters;
  /** Time of the last activity, for the idle timeout; any unit that grows. */
  tick: number;
  /** Files that are being sent a piece at a time: each keeps a piece in memory while its client does not read. */
  largeFiles: number;
  /** Something is to be sent although no frame arrived. */
  wake(): void;
  ended(session: Session): void;
}

/** Large files under way at a time; more are refused by 503. */
export const LARGE_FILES_MAX = 256;

const EMPTY = Buffer.alloc(0);
/** One for all: a head is parsed and answered before the next. */
const head = new RequestHead();

export class Session implements TcpHandlers {
  readonly connection: TcpConnection;
  /** `SessionHost.tick` when something came or went last. */
  activeTick: number;
  readonly #host: SessionHost;
  /** Bytes that wait: the beginning of a head, or requests behind the one that is being answered. */
  #waiting: Buffer = EMPTY;
  /** Of those, how many were looked at without finding the end of a head. */
  #scanned = 0;
  /** What is still to be written: `[#outAt, #outEnd)` of `#out`. */
  #out: Uint8Array = EMPTY;
  #outAt = 0;
  #outEnd = 0;
  #file: LargeFile | null = null;
  #isClosing = false;
  #isPeerDone = false;
  #isOver = false;
  /** `SessionHost.tick` when the head that is not whole yet began; -1: there is none. */
  #headTick = -1;

  constructor(host: SessionHost, connection: TcpConnection) {
    this.#host = host;
    this.connection = connection;
    this.activeTick = host.tick;
    connection.noDelay = true;
  }

  onData(_connection: TcpConnection, _frame: number, at: number, length: number): void {
    this.activeTick = this.#host.tick;
    if (this.#isClosing) return;
    const { u8 } = this.#host;
    if (this.#waiting.length > 0 || this.#isWriting) {
      this.#waiting = Buffer.concat([this.#waiting, u8.subarray(at, at + length)]);
      if (!this.#isWriting) this.#serveWaiting();
      return;
    }
    const end = at + length;
    const next = this.#serve(u8, at, end);
    if (next === end || this.#isClosing) return;
    this.#waiting = Buffer.from(u8.subarray(next, end));
    this.#headTick = this.#host.tick;
  }

  /** Silent for `idle` ticks; or a head has been under way for twice as long, however often a byte came. */
  isOverdue(idle: number): boolean {
    const { tick } = this.#host;
    if (tick - this.activeTick > idle) return true;
    const isReading = this.#waiting.length > 0 && !this.#isWriting;
    return isReading && tick - this.#headTick > 2 * idle;
  }

  onEnd(): void {
    this.#isPeerDone = true;
    if (!this.#isWriting) this.#close();
  }

  onDrain(): void {
    this.activeTick = this.#host.tick;
    this.#continue();
  }

  onClose(_connection: TcpConnection, _why: TcpEnd): void {
    this.#isOver = true;
    this.#closeFile();
    this.#out = EMPTY;
    this.#waiting = EMPTY;
    this.#host.ended(this);
  }

  /** Nothing was heard for too long: say so to who has begun a request, and go. */
  timeOut(): void {
    if (this.#isOver) return;
    this.#host.counters.timedOut++;
    // It did not even take our FIN, or our response.
    if (this.#isClosing || this.#isWriting) {
      this.connection.abort();
      return;
    }
    if (this.#waiting.length > 0) this.#refuse(408, true, false);
    this.#close();
    this.#host.wake();
  }

  get #isWriting(): boolean {
    return this.#outAt < this.#outEnd || this.#file !== null;
  }

  /** Answer the requests in `[from, to)` of `u8`; where the first byte stands that is not used. */
  #serve(u8: Uint8Array, from: number, to: number): number {
    let at = from;
    while (at < to && !this.#isWriting && !this.#isClosing) {
      const used = head.parse(u8, at, to);
      if (used === 0) break;
      this.#host.counters.requests++;
      if (used < 0) {
        this.#refuse(-used, true, false);
        this.#close();
        break;
      }
      at += used;
      this.#answer(u8);
    }
    return at;
  }

  #serveWaiting(): void {
    const bytes = this.#waiting;
    if (bytes.length < HEAD_BYTES_MAX && !this.#hasHeadEnd(bytes)) return;
    const used = this.#serve(bytes, 0, bytes.length);
    this.#headTick = this.#host.tick;
    this.#waiting = used === bytes.length || this.#isClosing ? EMPTY : bytes.subarray(used);
    this.#scanned = 0;
  }

  /** Each byte is looked at once, however slowly they come. */
  #hasHeadEnd(bytes: Buffer): boolean {
    const found = bytes.indexOf('\r\n\r\n', Math.max(0, this.#scanned - 3), 'latin1') >= 0;
    this.#scanned = bytes.length;
    return found;
  }

  /** Answer the request in `head`, whose bytes are in `u8`. */
  #answer(u8: Uint8Array): void {
    const { files, counters } = this.#host;
    // What a body would be is thrown away with the connection: nobody sends one with GET.
    const keepAlive = head.keepAlive && !head.hasBody;
    const isHead = head.method === METHOD.head;
    if (head.method === METHOD.other || head.method === METHOD.unknown) {
      this.#refuse(head.method === METHOD.other ? 405 : 501, !keepAlive, false);
    } else {
      const { at, end } = head.target;
      const found = at === -2 ? files.find('/') : files.findBytes(u8, at, end);
      if (!('file' in found)) this.#refuse(found.status, !keepAlive, isHead, found.location);
      else if (found.keep === null && this.#host.largeFiles >= LARGE_FILES_MAX) {
        this.#refuse(503, !keepAlive, isHead);
      } else if (isPlain()) {
        counters.ok++;
        this.#sendWhole(found, keepAlive, isHead);
      } else this.#sendCondition(u8, found, keepAlive, isHead);
    }
    if (!keepAlive) this.#closeAfter();
  }

  #sendCondition(u8: Uint8Array, entry: FileEntry, keepAlive: boolean, isHead: boolean): void {
    const { counters } = this.#host;
    const { size, validators, contentType } = entry;
    const noneMatch = textOf(u8, head.ifNoneMatch);
    if (isFresh(validators, noneMatch, textOf(u8, head.ifModifiedSince))) {
      counters.notModified++;
      this.#write(new Response({ status: 304, contentLength: 0, validators, keepAlive }));
      return;
    }
    const rangeText = textOf(u8, head.range);
    // Section 14.2: a range is for GET.
    const range =
      rangeText === null || isHead
        ? null
        : selectRange(rangeText, textOf(u8, head.ifRange), size, validators);
    if (range === null) {
      counters.ok++;
      this.#sendWhole(entry, keepAlive, isHead);
    } else if (range === 'unsatisfiable') {
      counters.refused++;
      const contentRange = `bytes */${size}`;
      this.#write(new Response({ status: 416, contentLength: 0, contentRange, keepAlive }));
    } else {
      counters.partial++;
      const contentRange = `bytes ${range.first}-${range.end - 1}/${size}`;
      const contentLength = range.end - range.first;
      const fields = { status: 206, contentLength, contentType, validators, contentRange };
      this.#sendRange(entry, range, new Response({ ...fields, keepAlive }));
    }
  }

  #sendWhole(entry: FileEntry, keepAlive: boolean, isHead: boolean): void {
    const { size: contentLength, contentType, validators } = entry;
    const cached = keepAlive ? entry.keep : entry.close;
    if (cached !== null) {
      if (!isHead) this.#host.counters.bodyBytes += contentLength;
      this.#write(cached, isHead ? cached.headBytes : cached.bytes.length);
      return;
    }
    const fields = { status: 200, contentLength, contentType, validators, keepAlive };
    const response = new Response(fields);
    if (isHead) this.#write(response);
    else this.#sendRange(entry, { first: 0, end: contentLength }, response);
  }

  #sendRange(entry: FileEntry, range: ByteRange, response: Response): void {
    this.#host.counters.bodyBytes += range.end - range.first;
    const small = entry.keep;
    if (small !== null) {
      response.dateIt(this.#renewedDate());
      const body = small.bytes.subarray(small.headBytes + range.first, small.headBytes + range.end);
      this.#put(Buffer.concat([response.bytes, body]));
      return;
    }
    this.#file = new LargeFile(entry.file, range, (chunk) => this.#onChunk(chunk));
    this.#host.largeFiles++;
    this.#write(response);
    this.#file.read();
  }

  #closeFile(): void {
    if (this.#file === null) return;
    this.#file.close();
    this.#file = null;
    this.#host.largeFiles--;
  }

  /** The next piece of a large file; null when it failed: the length was promised, so only RST tells the truth. */
  #onChunk(chunk: Uint8Array | null): void {
    if (this.#isOver || this.#file === null) return;
    if (chunk === null) {
      this.#host.counters.fileErrors++;
      this.connection.abort();
      return;
    }
    this.activeTick = this.#host.tick;
    if (this.#outAt < this.#outEnd) {
      // The head has not gone out whole yet.
      this.#put(Buffer.concat([this.#out.subarray(this.#outAt, this.#outEnd), chunk]));
    } else this.#put(chunk);
    this.#continue();
    this.#host.wake();
  }

  #refuse(status: number, close: boolean, isHead: boolean, location?: string): void {
    this.#host.counters.refused++;
    if (location === undefined) this.#write(refusal(status, !close, !isHead));
    else this.#write(new Response({ status, contentLength: 0, location, keepAlive: !close }));
  }

  #renewedDate(): HttpDate {
    const { date } = this.#host;
    date.renew();
    return date;
  }

  #write(response: Response, length = response.bytes.length): void {
    response.dateIt(this.#renewedDate());
    this.#put(response.bytes, length);
  }

  /** Send `bytes`; what finds no room waits for `onDrain`, and no request is read until then. */
  #put(bytes: Uint8Array, length = bytes.length): void {
    const sent = this.connection.write(bytes, 0, length);
    if (sent === length) {
      this.#outAt = this.#outEnd = 0;
      this.#out = EMPTY;
      if (this.#file !== null) this.connection.pause();
      return;
    }
    // A cached response is dated anew under us: what waits is a copy.
    this.#out = Buffer.from(bytes.subarray(sent, length));
    this.#outAt = 0;
    this.#outEnd = length - sent;
    this.connection.pause();
  }

  #continue(): void {
    if (this.#outAt < this.#outEnd) {
      this.#outAt += this.connection.write(this.#out, this.#outAt, this.#outEnd);
      if (this.#outAt < this.#outEnd) return;
      this.#out = EMPTY;
      this.#outAt = this.#outEnd = 0;
    }
    if (this.#file !== null) {
      if (!this.#file.isDone) {
        this.#file.read();
        return;
      }
      this.#closeFile();
    }
    if (this.#isClosing) {
      this.connection.end();
      return;
    }
    if (this.#waiting.length > 0) this.#serveWaiting();
    if (this.#isWriting || this.#isOver) return;
    if (this.#isPeerDone) this.#close();
    else this.connection.resume();
  }

  /** This response is the last. */
  #closeAfter(): void {
    if (this.#isWriting) {
      this.#isClosing = true;
      this.#waiting = EMPTY;
    } else this.#close();
  }

  #close(): void {
    this.#isClosing = true;
    this.#waiting = EMPTY;
    if (this.#outAt === this.#outEnd && this.#file === null && !this.#isOver) this.connection.end();
  }
}

/** A request for all of a file, without a condition. */
const isPlain = (): boolean =>
  head.range.at < 0 && head.ifNoneMatch.at < 0 && head.ifModifiedSince.at < 0;

const textOf = (u8: Uint8Array, { at, end }: Span): string | null =>
  at < 0 ? null : Buffer.from(u8.buffer, u8.byteOffset + at, end - at).toString('latin1');
