/**
 * Node's UDP handles, made ours: bound to the VNIC's address, to a group, or to every address, a handle gets a prototype
 * that inherits from Node's and works on the stack. `bind`, `connect` and `send` are patched in Node's own prototype,
 * because lib/dgram.js copies them into handles of IPv6.
 */
import type { Ipv4 } from '../base/address.ts';
import { isForWorkers } from './attachments.ts';
import { type NameOut, UDP, UDP_IPV6_ONLY, type UdpHandle, UV } from './node.ts';
import { ipv4In, type Place } from './routes.ts';
import { type SendArgs, type UdpParts, UdpSocketState } from './udp-socket.ts';

const STATE = Symbol('arrakis');
interface Ours extends UdpHandle {
  [STATE]: UdpSocketState;
}
type Patched = 'bind' | 'bind6' | 'connect' | 'connect6' | 'send' | 'send6' | 'addMembership';
type Method = (...args: unknown[]) => number;

const native = Object.getOwnPropertyDescriptors(UDP.prototype) as unknown as Record<
  Patched | 'recvStart' | 'recvStop' | 'disconnect' | 'dropMembership',
  { value: Method }
>;
const nativeClose = UDP.prototype.close;
const stateOf = (handle: UdpHandle): UdpSocketState | undefined => (handle as Partial<Ours>)[STATE];

/** The interfaces, in the order in which they were attached. */
export const udpParts: UdpParts[] = [];

/** Put every UDP handle of this thread that belongs to an interface on it. What undoes it. */
export function installUdp(): () => void {
  const patched: Record<Patched, unknown> = {
    bind: bind(false),
    bind6: bind(true),
    connect: connect('connect'),
    connect6: connect('connect6'),
    send: send('send'),
    send6: send('send6'),
    addMembership(this: UdpHandle, ...args: unknown[]): number {
      // It binds what is not bound, as libuv does.
      const isOurs = this.fd === -1 && bind(false).call(this, '0.0.0.0', 0, 0) === 0;
      const add = isOurs ? (this as unknown as { addMembership: Method }).addMembership : null;
      return (add ?? native.addMembership.value).apply(this, args);
    },
  };
  for (const [name, value] of Object.entries(patched)) {
    Object.defineProperty(UDP.prototype, name, { ...native[name as Patched], value });
  }
  return () => {
    for (const name of Object.keys(patched)) {
      Object.defineProperty(UDP.prototype, name, native[name as Patched]);
    }
  };
}

function bind(isIpv6: boolean) {
  return function (this: UdpHandle, address: string, port: number, flags: number): number {
    const { parts, place } = placeOf(address);
    const isOnlyIpv6 = isIpv6 && (flags & UDP_IPV6_ONLY) !== 0;
    const isKernels = place === 'kernel' || (place === 'any' && isOnlyIpv6);
    if (isKernels || isForWorkers()) {
      return native[isIpv6 ? 'bind6' : 'bind'].value.call(this, address, port, flags);
    }
    const state = new UdpSocketState(parts, this, { address, isIpv6, place });
    const error = state.bind(port);
    if (error !== 0) return error;
    if (!(this as unknown as { hasRef(): boolean }).hasRef()) state.unref();
    Object.setPrototypeOf(this, oursPrototype);
    (this as Ours)[STATE] = state;
    return 0;
  };
}

function connect(method: 'connect' | 'connect6') {
  return function (this: UdpHandle, address: string, port: number): number {
    const state = stateOf(this);
    if (state === undefined) return native[method].value.call(this, address, port);
    const ip = wayTo(state, address, port);
    if (ip !== -1) return state.connect(ip, port);
    const error = beKernelsToo(this, state);
    return error !== 0 ? error : native[method].value.call(this, address, port);
  };
}

function send(method: 'send' | 'send6') {
  return function (this: UdpHandle, ...args: unknown[]): number {
    const state = stateOf(this);
    if (state === undefined) return native[method].value.apply(this, args);
    const [, chunks, , port, address] = args as SendArgs;
    // Connected: lib gives no port, and `port` is whether there is a callback.
    if (typeof port !== 'number') {
      if (state.isConnected) return state.sendConnected(chunks);
      return native[method].value.apply(this, args);
    }
    const ip = wayTo(state, address as string, port);
    if (ip !== -1) return state.send(chunks, port, ip);
    const error = beKernelsToo(this, state);
    return error !== 0 ? error : native[method].value.apply(this, args);
  };
}

/** Whose `address` is to bind to, and on which interface: the first one for every address, and for groups. */
function placeOf(address: string): { parts: UdpParts; place: Place } {
  for (const parts of udpParts) {
    const { routes } = parts.host;
    const ip = ipv4In(address);
    const place = ip !== -1 && routes.isGroup(ip) ? 'vnic' : routes.placeOf(address);
    if (place !== 'kernel') return { parts, place };
  }
  return { parts: udpParts[0]!, place: 'kernel' };
}

/** The address to send to on the stack; -1: the kernel's. */
function wayTo(state: UdpSocketState, address: string, port: number): Ipv4 | -1 {
  const { parts } = state;
  const { routes } = parts.host;
  const way = routes.toward(address);
  if (way === 'vnic' || way === 'self') return ipv4In(address);
  if (way === 'loopback' && parts.ports.has(port)) return routes.own;
  return state.binding.place === 'any' ? -1 : ipv4In(address);
}

/** Bind `handle` at the kernel as well, to the same port. An errno, or 0. */
function beKernelsToo(handle: UdpHandle, state: UdpSocketState): number {
  if (state.isKernels) return 0;
  const { address, isIpv6 } = state.binding;
  const error = native[isIpv6 ? 'bind6' : 'bind'].value.call(handle, address, state.port, 0);
  if (error !== 0) return error;
  state.isKernels = true;
  const isReceiving = native.recvStart.value.call(handle);
  // The process's life hangs on our count.
  Object.getPrototypeOf(UDP.prototype).unref.call(handle);
  return isReceiving;
}

const oursPrototype = inherit({
  recvStart(this: Ours): number {
    return this[STATE].receive(true);
  },
  recvStop(this: Ours): number {
    if (this[STATE].isKernels) native.recvStop.value.call(this);
    return this[STATE].receive(false);
  },
  disconnect(this: Ours): number {
    const state = this[STATE];
    return state.isConnected ? state.disconnect() : native.disconnect.value.call(this);
  },
  getsockname(this: Ours, out: NameOut): number {
    return this[STATE].localName(out);
  },
  getpeername(this: Ours, out: NameOut): number {
    return this[STATE].remoteName(out);
  },
  addMembership(this: Ours, group: string): number {
    return this[STATE].join(group);
  },
  dropMembership(this: Ours, group: string): number {
    return this[STATE].leave(group);
  },
  addSourceSpecificMembership: () => UV.ENOTSUP,
  dropSourceSpecificMembership: () => UV.ENOTSUP,
  setMulticastInterface: () => 0,
  setMulticastTTL(this: Ours, ttl: number): number {
    return ttl < 0 || ttl > 255 ? UV.EINVAL : this[STATE].setMulticastTtl(ttl);
  },
  setMulticastLoopback(this: Ours, isOn: number): number {
    return this[STATE].setMulticastLoopback(isOn !== 0);
  },
  setBroadcast(this: Ours, isOn: number): number {
    return this[STATE].setBroadcast(isOn !== 0);
  },
  setTTL: (ttl: number) => (ttl < 1 || ttl > 255 ? UV.EINVAL : 0),
  bufferSize: (size: number) => (size === 0 ? BUFFER_BYTES : size),
  getSendQueueSize: () => 0,
  getSendQueueCount: () => 0,
  ref(this: Ours): void {
    this[STATE].ref();
  },
  unref(this: Ours): void {
    this[STATE].unref();
  },
  hasRef(this: Ours): boolean {
    return this[STATE].isRef;
  },
  close(this: Ours, done?: () => void): void {
    this[STATE].close();
    nativeClose.call(this, done);
  },
});

/** What a socket's buffers are said to be: as of Linux. */
const BUFFER_BYTES = 212_992;

function inherit(methods: Record<string, unknown>): object {
  const prototype = Object.create(UDP.prototype) as object;
  for (const [key, value] of Object.entries(methods)) {
    Object.defineProperty(prototype, key, { value, writable: true, configurable: true });
  }
  return prototype;
}
