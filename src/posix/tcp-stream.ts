/**
 * A connection of the stack as a stream handle of Node's.
 *
 * - As the connection's handlers it only notes: frames are held, what happened is flagged. `deliver` tells the program.
 * - What a reader has not asked for (`readStop`) stays in its frames, charged to the window, and the peer comes to wait.
 *   A few of them always come here: whether there is something unread decides how `close` ends the connection.
 * - A write is done when the stack has taken all of it, as one of the kernel's is when the socket buffer has; what does
 *   not fit waits here, in order, as `pending`.
 */
import { AsyncResource } from 'node:async_hooks';
import { TCP_END, type TcpConnection, type TcpEnd, type TcpHandlers } from '../net/tcp/api.ts';
import { errnoOfEnd } from './errors.ts';
import type { Host, Parting, Ready } from './host.ts';
import {
  ARRAY_BUFFER_OFFSET,
  READ_BYTES_OR_ERROR,
  type Request,
  setWritten,
  streamState,
  type TcpHandle,
  UV,
} from './node.ts';
import { PendingWrites } from './pending-writes.ts';
import { Slab } from './slab.ts';

/** Where received bytes stand: the region of a device, or what stands for one. */
export interface ByteSource {
  /** Copy `length` bytes from `at`, in `frame`, to byte `to` of `target`. */
  copy(frame: number, at: number, length: number, target: Uint8Array, to: number): void;
}

/** Most that a program is given at once, as of libuv. */
const CHUNK_BYTES_MAX = 64 * 1024;
/** Frames that are held for a reader who does not read; beyond that the stack keeps them, in less memory. */
const UNREAD_FRAMES_MAX = 32;
const STRIDE = 4;
const NOT_OVER = -1;

/** One for all: what is taken from it is the program's. */
const slab = new Slab();

export class TcpStream implements TcpHandlers, Ready, Parting {
  isReady = false;
  bytesRead = 0;
  bytesWritten = 0;
  readonly isIpv6: boolean;
  /** The peer's address and port, and ours, kept beyond the connection's end. */
  readonly #host: Host;
  readonly #source: ByteSource;
  readonly #scope: AsyncResource;
  readonly #writes = new PendingWrites();
  #handle: TcpHandle | null = null;
  #connection: TcpConnection | null = null;
  #connectRequest: Request | null = null;
  #shutdownRequest: Request | null = null;
  #userBuffer: Uint8Array | null = null;
  /** Frames that wait for a reader, STRIDE numbers each: frame, where its bytes begin, how many are left, how many it had. */
  #frames: number[] = [];
  #nextFrame = 0;
  /** Beyond the last; the array keeps its length, and its memory. */
  #framesEnd = 0;
  #isReading = false;
  /** The stack keeps what comes. */
  #isPaused = false;
  #isRef = true;
  #isCounted = false;
  #isClosed = false;
  #hasOpened = false;
  #hasEnded = false;
  #wasEndTold = false;
  #isShutDown = false;
  #over: TcpEnd | typeof NOT_OVER = NOT_OVER;
  /** The errno of its end was given to somebody, as the kernel gives it once. */
  #wasErrorTold = false;

  constructor(host: Host, source: ByteSource, isIpv6: boolean) {
    this.#host = host;
    this.#source = source;
    this.#scope = new AsyncResource('ARRAKISTCP');
    this.isIpv6 = isIpv6;
  }

  /** It is the connection of `handle` from now on. */
  attach(handle: TcpHandle): void {
    this.#handle = handle;
    this.#settle();
  }

  /** An accepted connection, of whose `onConnection` this is the answer. */
  accepted(connection: TcpConnection): void {
    this.#connection = connection;
    this.#host.open.add(this);
    this.#hasOpened = true;
  }

  /** `connection` is being made for `request`. */
  connecting(handle: TcpHandle, connection: TcpConnection, request: Request): void {
    this.#connection = connection;
    this.#host.open.add(this);
    this.#connectRequest = request;
    this.attach(handle);
    this.#host.changed();
  }

  get connection(): TcpConnection | null {
    return this.#connection;
  }

  /** True when it was over before a server was told of it. */
  get isOver(): boolean {
    return this.#over !== NOT_OVER;
  }

  get pendingBytes(): number {
    return this.#writes.bytes;
  }

  get isRef(): boolean {
    return this.#isRef;
  }

  // What the stack tells: noted, and no more.

  onOpen(): void {
    this.#hasOpened = true;
    this.#host.ready(this);
  }

  onData(connection: TcpConnection, frame: number, at: number, length: number): void {
    connection.hold(frame);
    const frames = this.#frames;
    const end = this.#framesEnd;
    this.#framesEnd = end + STRIDE;
    frames[end] = frame;
    frames[end + 1] = at;
    frames[end + 2] = length;
    frames[end + 3] = length;
    if (this.#isReading) this.#host.ready(this);
    else if (this.#framesEnd >= STRIDE * UNREAD_FRAMES_MAX && !this.#isPaused) {
      this.#isPaused = true;
      connection.pause();
    }
  }

  onEnd(): void {
    this.#hasEnded = true;
    this.#host.ready(this);
  }

  onDrain(): void {
    this.#host.ready(this);
  }

  onClose(_connection: TcpConnection, why: TcpEnd): void {
    this.#over = why;
    this.#host.ready(this);
  }

  // What the program asks.

  readStart(): number {
    this.#isReading = true;
    if (this.#isPaused) this.#live?.resume();
    this.#isPaused = false;
    if (this.#hasFrames || this.#hasEnded || this.isOver) this.#host.ready(this);
    else this.#host.changed();
    this.#settle();
    return 0;
  }

  readStop(): number {
    this.#isReading = false;
    this.#settle();
    return 0;
  }

  useUserBuffer(buffer: Uint8Array): void {
    this.#userBuffer = buffer;
  }

  /** Send `chunks`, which stay as they are until `request` is answered, if it is not at once. */
  write(request: Request, chunks: readonly Uint8Array[]): number {
    const error = this.#writeError();
    if (error !== 0) return error;
    let bytes = 0;
    for (const chunk of chunks) bytes += chunk.length;
    return this.#wrote(bytes, this.#writes.write(this.#connection!, request, chunks));
  }

  /** Send the first `length` bytes of `bytes`, which are the caller's again afterwards. */
  writeCopy(request: Request, bytes: Buffer, length: number): number {
    const error = this.#writeError();
    if (error !== 0) return error;
    return this.#wrote(length, this.#writes.writeCopy(this.#connection!, request, bytes, length));
  }

  #wrote(bytes: number, isDone: boolean): number {
    this.bytesWritten += bytes;
    setWritten(bytes, !isDone);
    if (!isDone) this.#settle();
    this.#host.changed();
    return 0;
  }

  /** FIN after what is pending. `request` is answered when the stack has it. */
  shutdown(request: Request): number {
    if (this.#isClosed || this.#connection === null || !this.#hasOpened) return UV.ENOTCONN;
    this.#shutdownRequest = request;
    this.#settle();
    this.#host.ready(this);
    return 0;
  }

  /** The program is done with it: what was written is still sent, as by a kernel. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isReading = false;
    this.#host.open.delete(this);
    const connection = this.#live;
    const isUnread = this.#hasFrames;
    this.#releaseFrames();
    if (connection !== null) {
      // RFC 2525, section 2.17, and RFC 1122, section 4.2.2.13: what was not read is said to be lost.
      if (isUnread || !this.#hasOpened) this.#abort(connection);
      else this.#host.orphans.adopt(connection);
    }
    this.#settle();
    this.#host.ready(this);
  }

  /** RST, now. */
  reset(): void {
    const connection = this.#live;
    this.#releaseFrames();
    if (connection !== null) this.#abort(connection);
    this.close();
  }

  ref(): void {
    this.#isRef = true;
    this.#settle();
  }

  unref(): void {
    this.#isRef = false;
    this.#settle();
  }

  setNoDelay(enable: boolean): number {
    const connection = this.#live;
    if (connection !== null) connection.noDelay = enable;
    return 0;
  }

  setKeepAlive(enable: boolean, delaySeconds: number): number {
    // The kernel's default where the program gives none.
    this.#live?.setKeepAlive(enable ? (delaySeconds || KEEP_ALIVE_SECONDS) * 1000 : 0);
    this.#host.changed();
    return 0;
  }

  /** Tell the program what came. Called by the host, outside of the stack. */
  deliver(): void {
    try {
      if (this.#connectRequest !== null) this.#deliverConnect();
      this.#deliverData();
      this.#deliverWrites();
      if (this.#hasEnded || this.isOver) this.#deliverEnd();
    } finally {
      if (this.#isReading && this.#hasFrames) this.#host.ready(this);
      this.#settle();
    }
  }

  part(): boolean {
    const connection = this.#live;
    if (connection === null) return true;
    if (this.#hasFrames) {
      this.breakOff();
      return true;
    }
    this.#writes.pump(connection);
    if (this.#writes.isEmpty) connection.end();
    return this.#writes.isEmpty && connection.unacked === 0;
  }

  breakOff(): void {
    this.#releaseFrames();
    this.#live?.abort();
  }

  /** The connection, while it has not ended. */
  get #live(): TcpConnection | null {
    return this.isOver ? null : this.#connection;
  }

  get #hasFrames(): boolean {
    return this.#nextFrame < this.#framesEnd;
  }

  #abort(connection: TcpConnection): void {
    connection.abort();
    this.#over = TCP_END.aborted;
    this.#host.changed();
  }

  #call(request: Request, status: number, readable?: boolean, writable?: boolean): void {
    const done = request.oncomplete;
    if (done === undefined) return;
    this.#host.call(this.#scope, done, request, status, this.#handle, request, readable, writable);
  }

  #deliverConnect(): void {
    const request = this.#connectRequest!;
    if (this.#isClosed) this.#finishConnect(request, UV.ECANCELED);
    else if (this.#hasOpened) this.#finishConnect(request, 0);
    else if (this.#over !== NOT_OVER) {
      this.#wasErrorTold = true;
      this.#finishConnect(request, errnoOfEnd(this.#over));
    }
  }

  #finishConnect(request: Request, status: number): void {
    this.#connectRequest = null;
    this.#settle();
    this.#call(request, status, true, true);
  }

  #deliverData(): void {
    // One look at the clock of the event loop is worth a window of data, not more.
    for (let turns = 0; turns < 4 && this.#isReading && this.#hasFrames; turns++) {
      const user = this.#userBuffer;
      const room = user === null ? CHUNK_BYTES_MAX : user.length;
      const length = this.#availableBytes(room);
      let buffer: ArrayBuffer | undefined;
      if (user === null) {
        slab.take(length);
        this.#copyOut(slab.bytes, slab.at, length);
        buffer = slab.buffer;
        streamState[ARRAY_BUFFER_OFFSET] = slab.at;
      } else this.#copyOut(user, 0, length);
      this.bytesRead += length;
      streamState[READ_BYTES_OR_ERROR] = length;
      const next = this.#tellRead(buffer);
      if (user !== null && next instanceof Uint8Array) this.#userBuffer = next;
    }
  }

  #tellRead(buffer: ArrayBuffer | undefined): unknown {
    const handle = this.#handle!;
    return this.#host.call(this.#scope, handle.onread!, handle, buffer);
  }

  #availableBytes(max: number): number {
    let length = 0;
    for (let i = this.#nextFrame; i < this.#framesEnd && length < max; i += STRIDE) {
      length += this.#frames[i + 2]!;
    }
    return Math.min(length, max);
  }

  /** Move the next `length` received bytes to `target`, and give their frames back. */
  #copyOut(target: Uint8Array, to: number, length: number): void {
    const frames = this.#frames;
    let left = length;
    while (left > 0) {
      const i = this.#nextFrame;
      const bytes = Math.min(left, frames[i + 2]!);
      this.#source.copy(frames[i]!, frames[i + 1]!, bytes, target, to + length - left);
      left -= bytes;
      if (bytes === frames[i + 2]!) {
        this.#nextFrame += STRIDE;
        this.#connection!.release(frames[i]!, frames[i + 3]!);
      } else {
        frames[i + 1]! += bytes;
        frames[i + 2]! -= bytes;
      }
    }
    if (this.#hasFrames) return;
    this.#framesEnd = 0;
    this.#nextFrame = 0;
  }

  #releaseFrames(): void {
    for (let i = this.#nextFrame; i < this.#framesEnd; i += STRIDE) {
      this.#connection!.release(this.#frames[i]!, this.#frames[i + 3]!);
    }
    this.#frames = [];
    this.#framesEnd = 0;
    this.#nextFrame = 0;
  }

  #deliverWrites(): void {
    const writes = this.#writes;
    while (!writes.isEmpty) {
      const connection = this.#live;
      let status = 0;
      if (this.#isClosed) status = UV.ECANCELED;
      else if (connection === null) status = this.#takeError();
      else writes.pump(connection);
      const request = status === 0 ? writes.takeDone() : writes.takeAny();
      if (request === null) break;
      this.#settle();
      this.#call(request, status);
    }
    if (this.#shutdownRequest !== null && (writes.isEmpty || this.#isClosed))
      this.#finishShutdown();
  }

  #finishShutdown(): void {
    const request = this.#shutdownRequest!;
    this.#shutdownRequest = null;
    this.#isShutDown = true;
    this.#live?.end();
    this.#settle();
    this.#call(request, this.#isClosed ? UV.ECANCELED : 0);
  }

  #deliverEnd(): void {
    if (!this.#isReading || this.#hasFrames || this.#wasEndTold) return;
    const isInOrder = this.#hasEnded || this.#over === TCP_END.closed;
    // After the end of the stream there is nothing more to read; a later error concerns those who write.
    this.#wasEndTold = true;
    streamState[READ_BYTES_OR_ERROR] = isInOrder ? UV.EOF : this.#takeError();
    this.#settle();
    this.#tellRead(undefined);
  }

  /** What its end means to one who still uses it: the first hears why, the others EPIPE. */
  #takeError(): number {
    if (this.#wasErrorTold || this.#over === NOT_OVER || this.#over === TCP_END.closed) {
      return UV.EPIPE;
    }
    this.#wasErrorTold = true;
    return errnoOfEnd(this.#over);
  }

  #writeError(): number {
    if (this.#isClosed) return UV.EBADF;
    if (this.#isShutDown) return UV.EPIPE;
    return this.isOver ? this.#takeError() : 0;
  }

  /** Whether it keeps the process alive, as libuv counts: it reads, or has a request under way. */
  #settle(): void {
    const isActive =
      this.#isRef &&
      !this.#isClosed &&
      this.#handle !== null &&
      ((this.#isReading && !this.#wasEndTold) ||
        this.#connectRequest !== null ||
        this.#shutdownRequest !== null ||
        !this.#writes.isEmpty);
    if (isActive === this.#isCounted) return;
    this.#isCounted = isActive;
    this.#host.keep(isActive ? 1 : -1);
  }
}

const KEEP_ALIVE_SECONDS = 7200;
