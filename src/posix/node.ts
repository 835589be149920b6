/**
 * What Node's own `lib/net.js`, `lib/dgram.js` and `lib/_tls_wrap.js` are built on: the handles' classes, and the
 * variables by which native code and those files talk. `process.binding` is the door to them that every Node from 20 on
 * has; nothing here is documented, so this is the only file that knows where each thing is.
 *
 * - A handle is Node's object. One that is ours has another prototype, which inherits from Node's.
 * - `streamState` carries the results of a call beside its return value, as native code does it.
 */

/** A request: made by Node, answered once by `oncomplete`. */
export interface Request {
  oncomplete?: ((...args: unknown[]) => void) | undefined;
  handle?: unknown;
  error?: string;
}

/** `{address, family, port}`, filled in by `getsockname` and the like. */
export interface NameOut {
  address?: string;
  family?: string;
  port?: number;
}

/** A TCP handle as lib/net.js uses it. */
export interface TcpHandle {
  readonly fd: number;
  onread: ((buffer: ArrayBuffer | undefined) => unknown) | undefined;
  onconnection: ((status: number, client?: TcpHandle) => void) | undefined;
  reading: boolean;
  bind(address: string, port: number): number;
  bind6(address: string, port: number, flags: number): number;
  listen(backlog: number): number;
  connect(request: Request, address: string, port: number): number;
  connect6(request: Request, address: string, port: number): number;
  readStart(): number;
  readStop(): number;
  useUserBuffer(buffer: Uint8Array): void;
  writev(request: Request, chunks: unknown[], allBuffers: boolean): number;
  writeBuffer(request: Request, bytes: Uint8Array): number;
  shutdown(request: Request): number;
  close(done?: () => void): void;
}

/** A UDP handle as lib/dgram.js uses it. */
export interface UdpHandle {
  readonly fd: number;
  onmessage:
    | ((size: number, handle: UdpHandle, bytes: Uint8Array | undefined, from: NameOut) => void)
    | undefined;
  onerror: ((status: number, handle: UdpHandle, error: Error) => void) | undefined;
  bind(address: string, port: number, flags: number): number;
  bind6(address: string, port: number, flags: number): number;
  connect(address: string, port: number): number;
  connect6(address: string, port: number): number;
  send(...args: unknown[]): number;
  send6(...args: unknown[]): number;
  recvStart(): number;
  recvStop(): number;
  close(done?: () => void): void;
}

/** A stream of Node's native code whose other side is JavaScript. */
export interface JsStreamHandle {
  onreadstart: () => number;
  onreadstop: () => number;
  onwrite: (request: Request, chunks: Uint8Array[]) => number;
  onshutdown: (request: Request) => number;
  isClosing: () => boolean;
  readBuffer(bytes: Uint8Array): void;
  emitEOF(): void;
  finishWrite(request: Request, status: number): void;
  finishShutdown(request: Request, status: number): void;
}

type Class<T> = { new (kind?: number): T; readonly prototype: T };
type WrapTls = (stream: unknown, ...rest: unknown[]) => TcpHandle;

interface Bindings {
  tcp_wrap: { TCP: Class<TcpHandle>; constants: { SOCKET: number; UV_TCP_IPV6ONLY: number } };
  udp_wrap: {
    UDP: Class<UdpHandle>;
    constants: { UV_UDP_IPV6ONLY: number; UV_UDP_REUSEADDR: number };
  };
  stream_wrap: {
    streamBaseState: Int32Array;
    kReadBytesOrError: number;
    kArrayBufferOffset: number;
    kBytesWritten: number;
    kLastWriteWasAsync: number;
    WriteWrap: Class<Request>;
    ShutdownWrap: Class<Request>;
  };
  js_stream: { JSStream: Class<JsStreamHandle> };
  tls_wrap: { wrap: WrapTls };
  uv: Record<string, number>;
}

interface NodeInternals {
  binding<K extends keyof Bindings>(name: K): Bindings[K];
  _tickCallback(): void;
}
const internals = process as unknown as NodeInternals;

const { TCP, constants: tcpConstants } = internals.binding('tcp_wrap');
const { UDP, constants: udpConstants } = internals.binding('udp_wrap');
const stream = internals.binding('stream_wrap');
const { JSStream } = internals.binding('js_stream');
const uv = internals.binding('uv');
export const tlsBinding = internals.binding('tls_wrap');
export const { WriteWrap, ShutdownWrap } = stream;
export { JSStream, TCP, UDP };
export const TCP_IPV6_ONLY = tcpConstants.UV_TCP_IPV6ONLY;
export const UDP_IPV6_ONLY = udpConstants.UV_UDP_IPV6ONLY;
export const UDP_REUSE_ADDRESS = udpConstants.UV_UDP_REUSEADDR;

export const streamState = stream.streamBaseState;
export const READ_BYTES_OR_ERROR = stream.kReadBytesOrError;
export const ARRAY_BUFFER_OFFSET = stream.kArrayBufferOffset;
const { kBytesWritten, kLastWriteWasAsync } = stream;

/** A handle for a connection that a server is given. */
export const newSocketHandle = (): TcpHandle => new TCP(tcpConstants.SOCKET);

/** What a write has come to: read by lib after the call that returned 0. */
export function setWritten(bytes: number, isAsync: boolean): void {
  streamState[kBytesWritten] = bytes;
  streamState[kLastWriteWasAsync] = isAsync ? 1 : 0;
}

/** Whether the write that a native handle was just given is still under way. */
export const wasWriteAsync = (): boolean => streamState[kLastWriteWasAsync] !== 0;

/** Run what `process.nextTick` and promises have waiting, as Node does after each call of a callback. May throw. */
export const runTicks = (): void => internals._tickCallback();

const code = (name: string): number => uv[`UV_${name}`]!;
/** libuv's error numbers: negative. */
export const UV = {
  EOF: code('EOF'),
  EACCES: code('EACCES'),
  EADDRINUSE: code('EADDRINUSE'),
  EADDRNOTAVAIL: code('EADDRNOTAVAIL'),
  EBADF: code('EBADF'),
  ECANCELED: code('ECANCELED'),
  ECONNABORTED: code('ECONNABORTED'),
  ECONNREFUSED: code('ECONNREFUSED'),
  ECONNRESET: code('ECONNRESET'),
  EDESTADDRREQ: code('EDESTADDRREQ'),
  EHOSTUNREACH: code('EHOSTUNREACH'),
  EINVAL: code('EINVAL'),
  EISCONN: code('EISCONN'),
  EMSGSIZE: code('EMSGSIZE'),
  ENETDOWN: code('ENETDOWN'),
  ENETUNREACH: code('ENETUNREACH'),
  ENOBUFS: code('ENOBUFS'),
  ENOTCONN: code('ENOTCONN'),
  ENOTSUP: code('ENOTSUP'),
  EPIPE: code('EPIPE'),
  ETIMEDOUT: code('ETIMEDOUT'),
} as const;
