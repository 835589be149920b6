/**
 * A bound UDP handle on the stack.
 *
 * - Datagrams are copied out within the stack's turn and told of outside of it; those that a program does not take wait,
 *   RECEIVE_BYTES_MAX of them, and more are dropped, as by a kernel's socket.
 * - Bound to every address, it is on the VNIC; when it sends to an address of the kernel's it is bound there, too, with the
 *   same port, and hears the answers.
 */
import { AsyncResource } from 'node:async_hooks';
import { randomInt } from 'node:crypto';
import { formatIpv4, type Ipv4 } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import { errnoOf } from './errors.ts';
import type { Host, Ready } from './host.ts';
import { type NameOut, type Request, type UdpHandle, UV } from './node.ts';
import { ipv4In, type Place, shown } from './routes.ts';
import { Slab } from './slab.ts';

/** What this needs of `NetInterface`. */
export interface UdpStack<Port = unknown> {
  readonly udp: {
    bind(
      port: number,
      handler: (frame: number, at: number, length: number, ip: number, port: number) => void,
      options: {
        readonly address?: Ipv4;
        readonly remote?: { readonly address: Ipv4; readonly port: number };
        readonly onLarge?: (payload: Uint8Array, ip: number, port: number) => void;
        readonly onError?: (kind: number) => void;
      },
    ): Port;
    close(port: Port): void;
    sendBytes(
      payload: Uint8Array,
      srcPort: number,
      dstIp: number,
      dstPort: number,
      group: { readonly ttl: number; readonly loops: boolean },
    ): boolean;
  };
  readonly groups: { join(group: Ipv4): void; leave(group: Ipv4): void };
}

export interface UdpParts {
  readonly host: Host;
  readonly net: UdpStack;
  /** The region's bytes. */
  readonly region: Uint8Array;
  /** Ports that this program has on the stack, and how many sockets each. */
  readonly ports: Map<number, number>;
}

export interface UdpBinding {
  readonly address: string;
  readonly isIpv6: boolean;
  readonly place: Place;
}

interface Message {
  readonly bytes: Buffer;
  readonly ip: number;
  readonly port: number;
}

/** As of Linux' `net.core.rmem_default`. */
const RECEIVE_BYTES_MAX = 212_992;
/** Longest payload of a datagram (RFC 768, in an IPv4 header without options). */
const PAYLOAD_MAX = 65_507;
/** Told in one turn, as libuv reads. */
const MESSAGES_PER_TURN = 32;
/** Sends after which the device is given what waits: the stack keeps a bounded number. */
const FLUSH_STRIDE = 32;
const DYNAMIC_PORT_FIRST = 49_152;
const DYNAMIC_PORT_END = 65_536;
const PORT_TRIES = 512;

/** `ICMP_ERROR` of the stack, those that end what a connected socket does (Linux, `icmp_err_convert`). */
const ERRNO_OF_ICMP: Readonly<Record<number, number>> = {
  1: UV.ECONNREFUSED,
  2: UV.EHOSTUNREACH,
};

const slab = new Slab();

export class UdpSocketState implements Ready {
  isReady = false;
  /** The handle is bound at the kernel as well. */
  isKernels = false;
  port = 0;
  readonly binding: UdpBinding;
  readonly parts: UdpParts;
  readonly #handle: UdpHandle;
  readonly #scope = new AsyncResource('ARRAKISUDP');
  readonly #messages: Message[] = [];
  readonly #groups: Ipv4[] = [];
  #bytes = 0;
  #bound: unknown = null;
  #remote: { address: Ipv4; port: number } | null = null;
  #error = 0;
  #group = { ttl: 1, loops: true };
  #mayBroadcast = false;
  #isReceiving = false;
  #isRef = true;
  #isCounted = false;
  #isClosed = false;
  #unflushed = 0;

  constructor(parts: UdpParts, handle: UdpHandle, binding: UdpBinding) {
    this.parts = parts;
    this.#handle = handle;
    this.binding = binding;
  }

  get isRef(): boolean {
    return this.#isRef;
  }

  get isConnected(): boolean {
    return this.#remote !== null;
  }

  /** Take `port`, or with 0 any free one. An errno, or 0. */
  bind(port: number): number {
    for (let tries = port === 0 ? PORT_TRIES : 1; ; tries--) {
      try {
        this.port = port === 0 ? randomInt(DYNAMIC_PORT_FIRST, DYNAMIC_PORT_END) : port;
        this.#bound = this.#open();
        break;
      } catch (error) {
        const isTaken = error instanceof ArrakisError && error.code === 'ARK_IN_USE';
        if (!isTaken || tries === 1) return errnoOf(error);
      }
    }
    const { ports, host } = this.parts;
    ports.set(this.port, (ports.get(this.port) ?? 0) + 1);
    host.changed();
    return 0;
  }

  /** Send to, and hear from, only there. */
  connect(address: Ipv4, port: number): number {
    return this.#reopen({ address, port });
  }

  disconnect(): number {
    return this.#remote === null ? UV.ENOTCONN : this.#reopen(null);
  }

  /** Send `chunks` as one datagram to `ip`, or where it is connected to. An errno, or bytes and 1. */
  send(chunks: readonly Uint8Array[], port: number, ip: Ipv4): number {
    const { net, host } = this.parts;
    if (this.#error !== 0) {
      const error = this.#error;
      this.#error = 0;
      return error;
    }
    if (!this.#mayBroadcast && host.routes.isBroadcast(ip)) return UV.EACCES;
    const payload = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
    if (payload.byteLength > PAYLOAD_MAX) return UV.EMSGSIZE;
    const bytes = new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength);
    // What is dropped on the way out is lost as on any link, and counted by the stack.
    net.udp.sendBytes(bytes, this.port, ip | 0, port, this.#group);
    if (++this.#unflushed >= FLUSH_STRIDE) {
      this.#unflushed = 0;
      host.net.flush();
    }
    host.changed();
    return payload.byteLength + 1;
  }

  sendConnected(chunks: readonly Uint8Array[]): number {
    const remote = this.#remote;
    return remote === null ? UV.EDESTADDRREQ : this.send(chunks, remote.port, remote.address);
  }

  receive(isOn: boolean): number {
    this.#isReceiving = isOn;
    if (isOn && this.#messages.length > 0) this.parts.host.ready(this);
    this.#settle();
    return 0;
  }

  join(group: string): number {
    return this.#change(group, (ip) => {
      this.parts.net.groups.join(ip);
      this.#groups.push(ip);
    });
  }

  leave(group: string): number {
    return this.#change(group, (ip) => {
      const at = this.#groups.indexOf(ip);
      if (at < 0) throw new ArrakisError('ARK_BAD_ARGUMENT', `${group} was not joined`);
      this.#groups.splice(at, 1);
      this.parts.net.groups.leave(ip);
    });
  }

  setMulticastTtl(ttl: number): number {
    this.#group = { ...this.#group, ttl };
    return 0;
  }

  setMulticastLoopback(loops: boolean): number {
    this.#group = { ...this.#group, loops };
    return 0;
  }

  setBroadcast(isOn: boolean): number {
    this.#mayBroadcast = isOn;
    return 0;
  }

  ref(): void {
    this.#isRef = true;
    this.#settle();
  }

  unref(): void {
    this.#isRef = false;
    this.#settle();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const { net, ports } = this.parts;
    for (const group of this.#groups.splice(0)) net.groups.leave(group);
    if (this.#bound !== null) net.udp.close(this.#bound);
    this.#bound = null;
    const left = (ports.get(this.port) ?? 1) - 1;
    if (left === 0) ports.delete(this.port);
    else ports.set(this.port, left);
    this.#messages.length = 0;
    this.#settle();
    this.parts.host.changed();
  }

  localName(out: NameOut): number {
    const { address, isIpv6 } = this.binding;
    const local = this.#remote === null ? address : this.parts.host.routes.text;
    return name(out, local, this.port, isIpv6);
  }

  remoteName(out: NameOut): number {
    if (this.#remote === null) return UV.ENOTCONN;
    const { address, port } = this.#remote;
    return name(out, formatIpv4(address), port, this.binding.isIpv6);
  }

  /** Tell the program what came. */
  deliver(): void {
    const { host } = this.parts;
    const handle = this.#handle;
    try {
      for (let i = 0; i < MESSAGES_PER_TURN && this.#isReceiving; i++) {
        const message = this.#messages.shift();
        if (message === undefined) break;
        const { bytes, ip, port } = message;
        this.#bytes -= bytes.length;
        const from: NameOut = {};
        name(from, formatIpv4(ip), port, this.binding.isIpv6);
        host.call(this.#scope, handle.onmessage!, handle, bytes.length, handle, bytes, from);
      }
      if (this.#error !== 0 && this.#isReceiving) this.#tellError();
    } finally {
      if (this.#isReceiving && this.#messages.length > 0) host.ready(this);
    }
  }

  #tellError(): void {
    const error = this.#error;
    this.#error = 0;
    const handle = this.#handle;
    this.parts.host.call(this.#scope, handle.onmessage!, handle, error, handle, undefined, {});
  }

  #open(): unknown {
    const { net, host } = this.parts;
    const { address, place } = this.binding;
    const own = place === 'any' ? undefined : ipv4In(address);
    return net.udp.bind(
      this.port,
      (_frame, at, length, ip, port) => this.#take(this.parts.region, at, length, ip, port),
      {
        ...(own === undefined ? {} : { address: own }),
        ...(this.#remote === null ? {} : { remote: this.#remote }),
        onLarge: (payload, ip, port) => this.#take(payload, 0, payload.length, ip, port),
        onError: (kind) => {
          const error = ERRNO_OF_ICMP[kind];
          if (error === undefined || this.#remote === null) return;
          this.#error = error;
          host.ready(this);
        },
      },
    );
  }

  #reopen(remote: { address: Ipv4; port: number } | null): number {
    const { net } = this.parts;
    const before = this.#remote;
    this.#remote = remote;
    try {
      const bound = this.#open();
      net.udp.close(this.#bound);
      this.#bound = bound;
      return 0;
    } catch (error) {
      this.#remote = before;
      return errnoOf(error);
    }
  }

  #take(from: Uint8Array, at: number, length: number, ip: number, port: number): void {
    if (this.#isClosed || this.#bytes + length > RECEIVE_BYTES_MAX) return;
    slab.take(length);
    slab.bytes.set(from.subarray(at, at + length), slab.at);
    const bytes = slab.bytes.subarray(slab.at, slab.at + length) as Buffer;
    this.#messages.push({ bytes, ip: ip >>> 0, port });
    this.#bytes += length;
    if (this.#isReceiving) this.parts.host.ready(this);
  }

  #change(group: string, change: (ip: Ipv4) => void): number {
    const ip = ipv4In(group);
    if (ip === -1 || !this.parts.host.routes.isGroup(ip)) return UV.EINVAL;
    try {
      change(ip);
      this.parts.host.changed();
      return 0;
    } catch (error) {
      return errnoOf(error);
    }
  }

  #settle(): void {
    const isActive = this.#isRef && this.#isReceiving && !this.#isClosed;
    if (isActive === this.#isCounted) return;
    this.#isCounted = isActive;
    this.parts.host.keep(isActive ? 1 : -1);
  }
}

export type SendArgs = [request: Request, chunks: Uint8Array[], count: number, ...rest: unknown[]];

function name(out: NameOut, address: string, port: number, isIpv6: boolean): number {
  out.address = shown(address, isIpv6);
  out.family = isIpv6 ? 'IPv6' : 'IPv4';
  out.port = port;
  return 0;
}
