/**
 * Who gets a UDP datagram: the sockets of each port. Nearly every port has one socket that takes everything, and that one
 * is found by two loads. Otherwise the most specific one gets it: connected before bound to an address before any.
 */
import { formatIpv4, type Ipv4 } from '../base/address.ts';
import { ArrakisError } from '../base/errors.ts';
import { NET_LIMITS } from './limits.ts';

/**
 * The address is an int32: `srcIp >>> 0` is the Ipv4.
 */
export type UdpHandler = (
  frame: number,
  payloadAt: number,
  payloadLength: number,
  srcIp: number,
  srcPort: number,
) => void;

/** A datagram that came in pieces and is longer than a frame: its payload, valid until the handler returns. */
export type UdpLargeHandler = (payload: Uint8Array, srcIp: number, srcPort: number) => void;

/** What the network says of a datagram to `ip`, `port`: one of ICMP_ERROR, and for `tooBig` the longest that passes. */
export type UdpErrorHandler = (kind: number, ip: number, port: number, mtu: number) => void;

export interface UdpBindOptions {
  /** Only what is sent to this address: ours, a group, a broadcast, 127.0.0.1. Default 0: to any. */
  readonly address?: Ipv4;
  /** Only what comes from there ("connected"). Default: from anybody. */
  readonly remote?: { readonly address: Ipv4; readonly port: number };
  /** Datagrams longer than a frame holds. Default: they are dropped and counted (`tooLarge`). */
  readonly onLarge?: UdpLargeHandler;
  readonly onError?: UdpErrorHandler;
  /** Drop what has no checksum (RFC 768 lets a sender leave it out; RFC 1122, section 4.1.3.4). Default false. */
  readonly needsChecksum?: boolean;
}

export class UdpSocket {
  readonly port: number;
  readonly handler: UdpHandler;
  onLarge: UdpLargeHandler | null;
  onError: UdpErrorHandler | null;
  readonly needsChecksum: boolean;
  /** int32; 0: any. */
  readonly address: number;
  readonly remoteAddress: number;
  readonly remotePort: number;
  /** The next one on this port, less specific or as specific. */
  next: UdpSocket | null = null;
  /** Index in the table; 0 when it is closed. */
  slot = 0;

  constructor(port: number, handler: UdpHandler, options: UdpBindOptions) {
    this.port = port;
    this.handler = handler;
    this.onLarge = options.onLarge ?? null;
    this.onError = options.onError ?? null;
    this.needsChecksum = options.needsChecksum ?? false;
    this.address = (options.address ?? 0) | 0;
    this.remoteAddress = (options.remote?.address ?? 0) | 0;
    this.remotePort = options.remote?.port ?? 0;
  }

  get rank(): number {
    return (this.remotePort === 0 ? 0 : 2) + (this.address === 0 ? 0 : 1);
  }

  takes(dst: number, src: number, srcPort: number): boolean {
    if (this.address !== 0 && this.address !== dst) return false;
    return this.remotePort === 0 || (this.remotePort === srcPort && this.remoteAddress === src);
  }
}

export class UdpSockets {
  /** Index into `#sockets` of the first socket of each port; 0: none. */
  readonly slots = new Uint16Array(65536);
  readonly #sockets: (UdpSocket | null)[] = [null];
  /** Handlers of the sockets that take everything on their port and are alone there. */
  readonly plain: (UdpHandler | null)[] = [null];
  readonly #free: number[] = [];
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** ARK_BAD_ARGUMENT, ARK_IN_USE (the same port, address and remote end), ARK_LIMIT. */
  open(port: number, handler: UdpHandler, options: UdpBindOptions): UdpSocket {
    checkPort(port);
    if (options.remote !== undefined) checkPort(options.remote.port);
    const socket = new UdpSocket(port, handler, options);
    const chain = this.chainOf(port);
    if (chain.some((other) => isSame(other, socket))) {
      const where = socket.address === 0 ? '' : ` on ${formatIpv4(socket.address >>> 0)}`;
      throw new ArrakisError('ARK_IN_USE', `UDP port ${port}${where} is bound already`);
    }
    const isFull = this.#count >= NET_LIMITS.udpSocketsMax;
    if (isFull || chain.length >= NET_LIMITS.udpSocketsPerPortMax) {
      const max = isFull ? NET_LIMITS.udpSocketsMax : NET_LIMITS.udpSocketsPerPortMax;
      const what = isFull ? 'UDP sockets are open' : `UDP sockets are on port ${port}`;
      throw new ArrakisError('ARK_LIMIT', `${max} ${what}`);
    }
    socket.slot = this.#free.pop() ?? this.#sockets.length;
    this.#sockets[socket.slot] = socket;
    this.plain[socket.slot] = null;
    this.#count++;
    this.#link(port, [...chain, socket]);
    return socket;
  }

  /** Idempotent. */
  close(socket: UdpSocket): void {
    if (socket.slot === 0) return;
    const chain = this.chainOf(socket.port).filter((other) => other !== socket);
    this.#sockets[socket.slot] = null;
    this.plain[socket.slot] = null;
    this.#free.push(socket.slot);
    socket.slot = 0;
    this.#count--;
    this.#link(socket.port, chain);
  }

  chainOf(port: number): UdpSocket[] {
    const chain: UdpSocket[] = [];
    let socket = this.#sockets[this.slots[port] ?? 0] ?? null;
    for (; socket !== null; socket = socket.next) chain.push(socket);
    return chain;
  }

  /** The socket that takes a datagram from `src`, `srcPort` to `dst`, `port`; null when none does. */
  find(port: number, dst: number, src: number, srcPort: number): UdpSocket | null {
    let socket = this.#sockets[this.slots[port]!] ?? null;
    while (socket !== null && !socket.takes(dst, src, srcPort)) socket = socket.next;
    return socket;
  }

  #link(port: number, chain: UdpSocket[]): void {
    chain.sort((a, b) => b.rank - a.rank);
    chain.forEach((socket, i) => {
      socket.next = chain[i + 1] ?? null;
    });
    const slot = chain[0]?.slot ?? 0;
    const isPlain = chain.length === 1 && chain[0]!.rank === 0 && !chain[0]!.needsChecksum;
    this.slots[port] = slot;
    this.plain[slot] = isPlain ? chain[0]!.handler : null;
  }
}

const isSame = (a: UdpSocket, b: UdpSocket): boolean =>
  a.address === b.address && a.remoteAddress === b.remoteAddress && a.remotePort === b.remotePort;

function checkPort(port: number): void {
  if (Number.isInteger(port) && port >= 1 && port <= 65535) return;
  throw new ArrakisError('ARK_BAD_ARGUMENT', `${port} is not a UDP port`, {
    hint: 'a port is a whole number from 1 to 65535',
  });
}
