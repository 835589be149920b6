/**
 * Node's TCP handles, made ours. A handle is Node's own until it is bound to the VNIC, or connected through it; then
 * its prototype is exchanged for one of three, which stand for what it is:
 *
 *   TCP ── bind to the VNIC, or to every address ──► bound ── listen ──► server
 *    │                                                 └─── connect ──┐
 *    └──────────────── connect through the VNIC ────────────────────► stream
 *
 * All inherit from Node's, so `instanceof`, async ids and the native `close` stay; a handle that turns out to be the
 * kernel's gets Node's prototype back.
 */
import { formatIpv4 } from '../base/address.ts';
import { isAny, isForWorkers, type Path, partsAt, pathFrom, pathTo } from './attachments.ts';
import { errnoOf } from './errors.ts';
import { type NameOut, type Request, TCP, TCP_IPV6_ONLY, type TcpHandle, UV } from './node.ts';
import { ipv4In, shown } from './routes.ts';
import { type Binding, TcpServer } from './tcp-server.ts';
import { TcpStream } from './tcp-stream.ts';

const STATE = Symbol('arrakis');
/** Where a handle that may become ours is to read into, when lib said so before it was connected. */
const USER_BUFFER = Symbol('arrakis user buffer');

interface With<T> extends TcpHandle {
  [STATE]: T;
  [USER_BUFFER]?: Uint8Array;
}

/** Node's own methods, as they were. */
const native = Object.getOwnPropertyDescriptors(TCP.prototype) as unknown as Record<
  'bind' | 'bind6' | 'connect' | 'connect6',
  { value: (...args: unknown[]) => number }
>;
const nativeClose = TCP.prototype.close;
const { useUserBuffer: nativeUserBuffer } = TCP.prototype;

/** Whether a TLS socket must go through JavaScript: the handle is ours, or may yet become ours. */
export const mayBeOurs = (handle: unknown): handle is TcpHandle =>
  handle instanceof TCP && (STATE in handle || handle.fd === -1);

function become<T>(handle: TcpHandle, prototype: object, state: T): void {
  Object.setPrototypeOf(handle, prototype);
  (handle as With<T>)[STATE] = state;
}

function beKernels(handle: TcpHandle): void {
  Object.setPrototypeOf(handle, TCP.prototype);
  delete (handle as Partial<With<unknown>>)[STATE];
}

let isForTls = false;

/** Call `body`, in which a handle of ours passes for a native stream. */
export function asNativeStream<T>(body: () => T): T {
  isForTls = true;
  try {
    return body();
  } finally {
    isForTls = false;
  }
}

/** Put every TCP handle of this thread that belongs to an interface on it. What undoes it. */
export function installTcp(): () => void {
  const patched = {
    bind: bind(false),
    bind6: bind(true),
    connect: connect(false),
    connect6: connect(true),
    useUserBuffer(this: With<unknown>, buffer: Uint8Array): void {
      this[USER_BUFFER] = buffer;
      nativeUserBuffer.call(this, buffer);
    },
  };
  for (const [name, value] of Object.entries(patched)) {
    Object.defineProperty(TCP.prototype, name, { configurable: true, writable: true, value });
  }
  // HTTP/2 decides before its client is connected whether to take the handle over.
  Object.defineProperty(TCP.prototype, 'isStreamBase', {
    configurable: true,
    get(this: TcpHandle) {
      return isForTls || this.fd !== -1;
    },
  });
  return () => {
    for (const name of [...Object.keys(patched), 'isStreamBase']) {
      Reflect.deleteProperty(TCP.prototype, name);
      const before = native[name as 'bind'] as PropertyDescriptor | undefined;
      if (before !== undefined) Object.defineProperty(TCP.prototype, name, before);
    }
  };
}

function bind(isIpv6: boolean) {
  return function (this: TcpHandle, address: string, port: number, flags = 0): number {
    const isOnlyIpv6 = isIpv6 && (flags & TCP_IPV6_ONLY) !== 0;
    const isKernels = partsAt(address).length === 0 || (isAny(address) && isOnlyIpv6);
    if (isKernels || isForWorkers()) {
      return native[isIpv6 ? 'bind6' : 'bind'].value.call(this, address, port, flags);
    }
    become<Binding>(this, boundPrototype, { address, port, isIpv6 });
    return 0;
  };
}

function connect(isIpv6: boolean) {
  return function (this: TcpHandle, request: Request, address: string, port: number): number {
    // One that has a descriptor was bound to, or made by, the kernel.
    const path = this.fd === -1 ? pathTo(address, port) : null;
    if (path === null) {
      return native[isIpv6 ? 'connect6' : 'connect'].value.call(this, request, address, port);
    }
    return connectOurs(this, request, path, { address, port, isIpv6 }, 0);
  };
}

function adopt(handle: TcpHandle, stream: TcpStream): void {
  become(handle, streamPrototype, stream);
  stream.attach(handle);
}

function connectOurs(
  handle: TcpHandle,
  request: Request,
  { part, way }: Path,
  to: Binding,
  localPort: number,
): number {
  const { host, source, local } = part;
  const { address, port, isIpv6 } = to;
  const isLocal = way !== 'vnic';
  const stream = new TcpStream(host, isLocal ? local : source, isIpv6);
  const remote = formatIpv4(ipv4In(address));
  const options = {
    address: remote,
    port,
    handlers: stream,
    ...(localPort === 0 ? {} : { localPort }),
  };
  try {
    const connection = (isLocal ? local : host.net.tcp).connect(options);
    become(handle, streamPrototype, stream);
    const userBuffer = (handle as With<TcpStream>)[USER_BUFFER];
    if (userBuffer !== undefined) stream.useUserBuffer(userBuffer);
    stream.connecting(handle, connection, request);
    return 0;
  } catch (error) {
    return errnoOf(error);
  }
}

/** `connect` of a handle that was bound first. */
function connectBound(isIpv6: boolean) {
  return function (this: With<Binding>, request: Request, address: string, port: number): number {
    const binding = this[STATE];
    const path = isAny(binding.address)
      ? pathTo(address, port)
      : pathFrom(partsAt(binding.address)[0]!, address, port);
    if (path !== null) {
      return connectOurs(this, request, path, { address, port, isIpv6 }, binding.port);
    }
    beKernels(this);
    const bindNative = native[binding.isIpv6 ? 'bind6' : 'bind'].value;
    const error = bindNative.call(this, binding.address, binding.port, 0);
    if (error !== 0) return error;
    return native[isIpv6 ? 'connect6' : 'connect'].value.call(this, request, address, port);
  };
}

/** A handle that is bound, and neither listens nor is connected. */
const boundPrototype = inherit({
  listen(this: With<Binding>, backlog: number): number {
    const binding = this[STATE];
    const server = new TcpServer(partsAt(binding.address), this, binding, adopt);
    const error = server.listen(backlog);
    if (error === 0) become(this, serverPrototype, server);
    return error;
  },
  connect: connectBound(false),
  connect6: connectBound(true),
  bind: () => UV.EINVAL,
  bind6: () => UV.EINVAL,
  getsockname(this: With<Binding>, out: NameOut): number {
    const { address, port, isIpv6 } = this[STATE];
    return name(out, address, port, isIpv6);
  },
  getpeername: () => UV.ENOTCONN,
});

const serverPrototype = inherit({
  close(this: With<TcpServer>, done?: () => void): void {
    this[STATE].close();
    nativeClose.call(this, done);
  },
  getsockname(this: With<TcpServer>, out: NameOut): number {
    const { binding, port } = this[STATE];
    return name(out, binding.address, port, binding.isIpv6);
  },
  getpeername: () => UV.ENOTCONN,
  listen: () => 0,
  ref(this: With<TcpServer>): void {
    this[STATE].ref();
  },
  unref(this: With<TcpServer>): void {
    this[STATE].unref();
  },
  hasRef(this: With<TcpServer>): boolean {
    return this[STATE].isRef;
  },
});

/** Where short writes of several parts, or of text, are put together: a head and its body are one write to the stack. */
const scratch = Buffer.allocUnsafeSlow(16 * 1024);
/** The longest that a UTF-16 unit of text becomes, in any encoding. */
const UNIT_BYTES_MAX = 3;

type Text = 'utf8' | 'latin1' | 'ascii' | 'ucs2';
const writeText = (encoding: Text) =>
  function (this: With<TcpStream>, request: Request, text: string): number {
    const stream = this[STATE];
    if (text.length * UNIT_BYTES_MAX > scratch.length) {
      return stream.write(request, [Buffer.from(text, encoding)]);
    }
    return stream.writeCopy(request, scratch, scratch.write(text, 0, encoding));
  };

/** Put the chunks of a `writev` into `scratch`: how many bytes, or -1 when they are too many. */
function gather(chunks: unknown[], allBuffers: boolean): number {
  let at = 0;
  for (let i = 0; i < chunks.length; i += allBuffers ? 1 : 2) {
    const chunk = chunks[i] as string | Uint8Array;
    const room = scratch.length - at;
    if (typeof chunk === 'string') {
      if (chunk.length * UNIT_BYTES_MAX > room) return -1;
      at += scratch.write(chunk, at, chunks[i + 1] as BufferEncoding);
    } else {
      if (chunk.length > room) return -1;
      scratch.set(chunk, at);
      at += chunk.length;
    }
  }
  return at;
}

/** `[chunk, encoding, chunk, encoding, ...]`, or only chunks: as bytes. */
function bytesOf(chunks: unknown[], allBuffers: boolean): Uint8Array[] {
  if (allBuffers) return chunks as Uint8Array[];
  const bytes: Uint8Array[] = [];
  for (let i = 0; i < chunks.length; i += 2) {
    const chunk = chunks[i];
    const encoding = chunks[i + 1] as BufferEncoding;
    bytes.push(typeof chunk === 'string' ? Buffer.from(chunk, encoding) : (chunk as Uint8Array));
  }
  return bytes;
}

const streamPrototype = inherit({
  readStart(this: With<TcpStream>): number {
    return this[STATE].readStart();
  },
  readStop(this: With<TcpStream>): number {
    return this[STATE].readStop();
  },
  useUserBuffer(this: With<TcpStream>, buffer: Uint8Array): void {
    this[STATE].useUserBuffer(buffer);
  },
  writeBuffer(this: With<TcpStream>, request: Request, bytes: Uint8Array): number {
    return this[STATE].write(request, [bytes]);
  },
  writev(this: With<TcpStream>, request: Request, chunks: unknown[], all: boolean): number {
    const stream = this[STATE];
    const length = gather(chunks, all);
    if (length >= 0) return stream.writeCopy(request, scratch, length);
    return stream.write(request, bytesOf(chunks, all));
  },
  writeUtf8String: writeText('utf8'),
  writeLatin1String: writeText('latin1'),
  writeAsciiString: writeText('latin1'),
  writeUcs2String: writeText('ucs2'),
  shutdown(this: With<TcpStream>, request: Request): number {
    return this[STATE].shutdown(request);
  },
  close(this: With<TcpStream>, done?: () => void): void {
    this[STATE].close();
    nativeClose.call(this, done);
  },
  reset(this: With<TcpStream>, done?: () => void): number {
    this[STATE].reset();
    nativeClose.call(this, done);
    return 0;
  },
  getsockname(this: With<TcpStream>, out: NameOut): number {
    const { connection, isIpv6 } = this[STATE];
    if (connection === null) return UV.EBADF;
    return name(out, connection.localAddress, connection.localPort, isIpv6);
  },
  getpeername(this: With<TcpStream>, out: NameOut): number {
    const { connection, isIpv6, isOver } = this[STATE];
    if (connection === null || isOver) return UV.ENOTCONN;
    return name(out, connection.remoteAddress, connection.remotePort, isIpv6);
  },
  setNoDelay(this: With<TcpStream>, enable: boolean): number {
    return this[STATE].setNoDelay(enable);
  },
  setKeepAlive(this: With<TcpStream>, enable: boolean, delay: number): number {
    return this[STATE].setKeepAlive(enable, delay);
  },
  setBlocking: () => 0,
  // Of Node 24. The stack sends with the default.
  setTypeOfService: () => 0,
  getTypeOfService: () => 0,
  ref(this: With<TcpStream>): void {
    this[STATE].ref();
  },
  unref(this: With<TcpStream>): void {
    this[STATE].unref();
  },
  hasRef(this: With<TcpStream>): boolean {
    return this[STATE].isRef;
  },
});

Object.defineProperties(streamPrototype, {
  // Native code must not take the stream over: HTTP's parser and HTTP/2 then read it as any JavaScript stream. TLS asks,
  // too, and is given a bridge.
  isStreamBase: { configurable: true, get: () => isForTls },
  fd: { get: () => -1 },
  bytesRead: {
    get(this: With<TcpStream>) {
      return this[STATE].bytesRead;
    },
  },
  bytesWritten: {
    get(this: With<TcpStream>) {
      return this[STATE].bytesWritten;
    },
  },
  writeQueueSize: {
    get(this: With<TcpStream>) {
      return this[STATE].pendingBytes;
    },
  },
});

function name(out: NameOut, address: string, port: number, isIpv6: boolean): number {
  out.address = shown(address, isIpv6);
  out.family = isIpv6 ? 'IPv6' : 'IPv4';
  out.port = port;
  return 0;
}

/** An object with `methods` that inherits from Node's TCP. */
function inherit(methods: Record<string, unknown>): object {
  const prototype = Object.create(TCP.prototype) as object;
  for (const [key, value] of Object.entries(methods)) {
    Object.defineProperty(prototype, key, { value, writable: true, configurable: true });
  }
  return prototype;
}

/** For tests and `arrakis` tools: whether a handle is on a VNIC. */
export const isOurs = (handle: unknown): boolean =>
  typeof handle === 'object' && handle !== null && STATE in handle;
