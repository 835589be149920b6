/**
 * TLS over a handle of ours. Node's TLS is native and reads a native stream; ours is none. So it is given a JSStream,
 * native on one side and JavaScript on the other, and this carries the bytes between that and the handle.
 *
 * A TLS client's handle is wrapped before it is connected, when nobody knows yet whose it will be: those are bridged
 * too, and work the same when they turn out to be the kernel's, at the price of one more copy.
 */
import { TLSSocket } from 'node:tls';
import {
  ARRAY_BUFFER_OFFSET,
  JSStream,
  type JsStreamHandle,
  READ_BYTES_OR_ERROR,
  type Request,
  ShutdownWrap,
  streamState,
  type TcpHandle,
  tlsBinding,
  UV,
  WriteWrap,
  wasWriteAsync,
} from './node.ts';
import { asNativeStream, mayBeOurs } from './tcp-handles.ts';

/** Put every TLS socket whose handle is, or may become, ours over a bridge. What undoes it. */
export function installTls(): () => void {
  const { wrap } = tlsBinding;
  const prototype = TLSSocket.prototype as unknown as { _wrapHandle: WrapHandle };
  const { _wrapHandle: wrapHandle } = prototype;
  prototype._wrapHandle = function (...args) {
    return asNativeStream(() => wrapHandle.apply(this, args));
  };
  tlsBinding.wrap = (stream, ...rest) => {
    if (!mayBeOurs(stream)) return wrap(stream, ...rest);
    const bridge = new TlsBridge(stream);
    bridge.tls = wrap(bridge.stream, ...rest);
    return bridge.tls;
  };
  return () => {
    tlsBinding.wrap = wrap;
    prototype._wrapHandle = wrapHandle;
  };
}

type WrapHandle = (this: TLSSocket, ...args: unknown[]) => unknown;

class TlsBridge {
  readonly stream: JsStreamHandle = new JSStream();
  /** What Node reads the plain text from. */
  tls: TcpHandle | null = null;
  readonly #handle: TcpHandle;
  #isClosed = false;
  #write: Request | null = null;

  constructor(handle: TcpHandle) {
    this.#handle = handle;
    handle.onread = (buffer) => this.#onRead(buffer);
    const { stream } = this;
    stream.isClosing = () => this.#isClosed;
    stream.onreadstart = () => handle.readStart();
    stream.onreadstop = () => handle.readStop();
    stream.onwrite = (request, chunks) => this.#onWrite(request, chunks);
    stream.onshutdown = (request) => this.#onShutdown(request);
    this.#watchClose();
  }

  #onRead(buffer: ArrayBuffer | undefined): void {
    const count = streamState[READ_BYTES_OR_ERROR]!;
    if (this.#isClosed || count === 0) return;
    if (count > 0) {
      this.stream.readBuffer(new Uint8Array(buffer!, streamState[ARRAY_BUFFER_OFFSET]!, count));
    } else if (count === UV.EOF) this.stream.emitEOF();
    else {
      // A JSStream has no words for an error: the reader of the plain text is told as TLS itself would tell it.
      const tls = this.tls!;
      streamState[READ_BYTES_OR_ERROR] = count;
      tls.onread!.call(tls, undefined);
    }
  }

  #onWrite(request: Request, chunks: Uint8Array[]): number {
    const inner = new WriteWrap();
    inner.handle = this.#handle;
    this.#write = request;
    inner.oncomplete = (status) => this.#finishWrite(request, status as number);
    const error = this.#handle.writev(inner, chunks, true);
    if (error !== 0) {
      this.#write = null;
      return error;
    }
    // It must not be answered within the call.
    if (!wasWriteAsync()) process.nextTick(() => this.#finishWrite(request, 0));
    return 0;
  }

  #finishWrite(request: Request, status: number): void {
    if (this.#write !== request) return;
    this.#write = null;
    this.stream.finishWrite(request, status);
  }

  #onShutdown(request: Request): number {
    const inner = new ShutdownWrap();
    inner.handle = this.#handle;
    inner.oncomplete = (status) => this.stream.finishShutdown(request, status as number);
    const error = this.#handle.shutdown(inner);
    if (error === 0) return 0;
    // Finished at once, or not connected any more: either way there is nothing to wait for.
    process.nextTick(() => this.stream.finishShutdown(request, error === 1 ? 0 : error));
    return 0;
  }

  /** The handle is closed by Node, through TLS: what is under way must be answered all the same. */
  #watchClose(): void {
    const handle = this.#handle;
    const { close } = handle;
    Object.defineProperty(handle, 'close', {
      configurable: true,
      writable: true,
      value: (done?: () => void) => {
        this.#isClosed = true;
        const request = this.#write;
        if (request !== null) setImmediate(() => this.#finishWrite(request, UV.ECANCELED));
        // Whose it is has been decided since.
        const prototype = Object.getPrototypeOf(handle) as TcpHandle;
        (prototype.close ?? close).call(handle, done);
      },
    });
  }
}
