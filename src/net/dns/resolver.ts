/**
 * Stub resolver (RFC 1034, section 5.3.1) on a NetInterface: A and AAAA by UDP, with a cache.
 *
 * - Every query has a random identification and a socket of its own on a random port, connected to the server: who wants to
 *   slip in an answer must guess both (RFC 5452).
 * - Servers are asked in turn, with growing patience. What has been found out is remembered as long as it says, within bounds.
 * - Time is the interface's, randomness an argument. There is no TCP yet: an answer that does not fit is ARK_UNSUPPORTED.
 */
import { type Ipv4, tryParseIpv4 } from '../../base/address.ts';
import { ArrakisError } from '../../base/errors.ts';
import type { NetInterface, NetTimer } from '../interface.ts';
import type { UdpSocket } from '../udp-sockets.ts';
import {
  type AddressType,
  type Answer,
  canonical,
  encodeQuery,
  isName,
  readAnswer,
} from './answer.ts';

const DNS_PORT = 53;
/** Datagrams of this length pass nearly everywhere whole (the DNS flag day of 2020). */
const UDP_BYTES = 1232;
/** Ports to ask from (RFC 6056, section 3.2), and how many are tried for a free one. */
const PORT_FIRST = 1024;
const PORTS = 65536 - PORT_FIRST;
const PORT_TRIES = 32;
const TIMEOUT_MS_FIRST = 1_000;
const TIMEOUT_MS_MAX = 4_000;
/** Each server is asked so often. */
const ROUNDS = 3;
const LOOKUPS_MAX = 64;
const ALIASES_MAX = 8;
const CACHE_MAX = 1024;
const TTL_S_MIN = 1;
const TTL_S_MAX = 86_400;
const SERVERS_MAX = 8;

export interface ResolverOptions {
  readonly net: NetInterface;
  /** Bytes of the interface's packet memory. */
  readonly memory: Uint8Array;
  readonly servers: readonly Ipv4[];
  /** Uniform in 0 to 2^32 - 1, and not to be guessed. */
  readonly random: () => number;
}

interface Lookup {
  readonly key: string;
  readonly type: AddressType;
  /** What is asked for now: the name, or what it is an alias for. */
  name: string;
  aliases: number;
  ttlS: number;
  tries: number;
  dueMs: number;
  id: number;
  socket: UdpSocket | null;
  readonly resolve: (addresses: readonly string[]) => void;
  readonly reject: (error: ArrakisError) => void;
}

interface Remembered {
  /** Empty: there are none. */
  readonly addresses: readonly string[];
  readonly endsMs: number;
}

export class Resolver implements NetTimer {
  readonly #options: ResolverOptions;
  readonly #net: NetInterface;
  readonly #servers: readonly Ipv4[];
  readonly #lookups = new Map<string, Lookup>();
  readonly #underWay = new Map<string, Promise<readonly string[]>>();
  readonly #cache = new Map<string, Remembered>();
  #closed = false;

  /** ARK_BAD_ARGUMENT without a server. */
  constructor(options: ResolverOptions) {
    if (options.servers.length === 0) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', 'a resolver needs a server');
    }
    this.#options = options;
    this.#net = options.net;
    this.#servers = options.servers.slice(0, SERVERS_MAX);
    options.net.attach(this);
  }

  /**
   * Addresses of `name` in the server's order: IPv4 ones, or with 6 IPv6 ones. An IPv4 address is its own. ARK_NOT_FOUND when
   * there are none, ARK_TIMEOUT, ARK_UNSUPPORTED (too long an answer), ARK_BAD_ARGUMENT, ARK_LIMIT, ARK_GONE (closed).
   */
  async resolve(name: string, family: 4 | 6 = 4): Promise<readonly string[]> {
    if (family === 4 && tryParseIpv4(name) !== -1) return [name];
    if (!isName(name)) throw new ArrakisError('ARK_BAD_ARGUMENT', `"${name}" is no domain name`);
    if (this.#closed) throw closedError();
    const type = family === 4 ? 'A' : 'AAAA';
    const key = `${type} ${canonical(name)}`;
    const known = this.#cache.get(key);
    if (known !== undefined && this.#net.nowMs < known.endsMs) {
      if (known.addresses.length === 0) throw notFound(name, type);
      return known.addresses;
    }
    this.#cache.delete(key);
    const underWay = this.#underWay.get(key);
    if (underWay !== undefined) return underWay;
    if (this.#lookups.size >= LOOKUPS_MAX) {
      throw new ArrakisError('ARK_LIMIT', `${LOOKUPS_MAX} names are being looked up`);
    }
    const promise = this.#start(key, canonical(name), type);
    this.#underWay.set(key, promise);
    return promise;
  }

  get nextDueMs(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const { dueMs } of this.#lookups.values()) next = Math.min(next, dueMs);
    return next;
  }

  tick(nowMs: number): void {
    for (const lookup of [...this.#lookups.values()]) if (nowMs >= lookup.dueMs) this.#ask(lookup);
  }

  /** Give up what is under way. The interface stays. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#net.detach(this);
    for (const lookup of [...this.#lookups.values()]) this.#fail(lookup, closedError());
  }

  #start(key: string, name: string, type: AddressType): Promise<readonly string[]> {
    return new Promise((resolve, reject) => {
      const state = { aliases: 0, ttlS: TTL_S_MAX, tries: 0, id: 0, socket: null };
      const dueMs = Number.NEGATIVE_INFINITY;
      this.#lookups.set(key, { key, type, name, dueMs, ...state, resolve, reject });
    });
  }

  /** Ask the next server, in the interface's turn. */
  #ask(lookup: Lookup): void {
    this.#closeSocket(lookup);
    if (lookup.tries >= this.#servers.length * ROUNDS) {
      const text = `no name server answered for "${lookup.name}"`;
      this.#fail(lookup, new ArrakisError('ARK_TIMEOUT', text));
      return;
    }
    const server = this.#servers[lookup.tries % this.#servers.length]!;
    const round = Math.floor(lookup.tries / this.#servers.length);
    lookup.tries++;
    lookup.dueMs = this.#net.nowMs + Math.min(TIMEOUT_MS_FIRST * 2 ** round, TIMEOUT_MS_MAX);
    lookup.id = this.#options.random() & 0xffff;
    const socket = this.#openSocket(lookup, server);
    if (socket === null) return;
    lookup.socket = socket;
    const query = encodeQuery(lookup.id, lookup.name, lookup.type, UDP_BYTES);
    this.#net.udp.sendBytes(query, socket.port, server, DNS_PORT);
  }

  /** Null when no port was free: the next try may find one. */
  #openSocket(lookup: Lookup, server: Ipv4): UdpSocket | null {
    const { memory, random } = this.#options;
    const options = {
      remote: { address: server, port: DNS_PORT },
      onError: () => {
        // It does not run, or there is no way to it: the next one, without waiting.
        lookup.dueMs = Number.NEGATIVE_INFINITY;
      },
      onLarge: (payload: Uint8Array) => this.#received(lookup, payload),
    };
    for (let i = 0; i < PORT_TRIES; i++) {
      const port = PORT_FIRST + Math.floor((random() / 2 ** 32) * PORTS);
      try {
        return this.#net.udp.bind(
          port,
          (_frame, at, length) => this.#received(lookup, memory.slice(at, at + length)),
          options,
        );
      } catch (error) {
        if ((error as ArrakisError).code !== 'ARK_IN_USE') return null;
      }
    }
    return null;
  }

  #received(lookup: Lookup, bytes: Uint8Array): void {
    if (lookup.socket === null) return;
    const answer = readAnswer(bytes, lookup.id, lookup.name, lookup.type);
    if (answer !== null) this.#answered(lookup, answer);
  }

  #answered(lookup: Lookup, answer: Answer): void {
    switch (answer.kind) {
      case 'addresses':
        this.#remember(lookup, answer.addresses, Math.min(answer.ttlS, lookup.ttlS));
        this.#end(lookup);
        lookup.resolve(answer.addresses);
        return;
      case 'alias':
        this.#closeSocket(lookup);
        if (++lookup.aliases > ALIASES_MAX) {
          this.#fail(lookup, notFound(lookup.name, lookup.type));
          return;
        }
        lookup.ttlS = Math.min(answer.ttlS, lookup.ttlS);
        lookup.name = answer.name;
        lookup.tries = 0;
        lookup.dueMs = Number.NEGATIVE_INFINITY;
        return;
      case 'nothing':
        this.#remember(lookup, [], Math.min(answer.ttlS, lookup.ttlS));
        this.#fail(lookup, notFound(lookup.name, lookup.type));
        return;
      case 'truncated': {
        const text = `the answer for "${lookup.name}" does not fit in a datagram`;
        this.#fail(lookup, new ArrakisError('ARK_UNSUPPORTED', text));
        return;
      }
      default:
        lookup.dueMs = Number.NEGATIVE_INFINITY;
        this.#closeSocket(lookup);
    }
  }

  #remember({ key }: Lookup, addresses: readonly string[], ttlS: number): void {
    const seconds = Math.min(Math.max(ttlS, TTL_S_MIN), TTL_S_MAX);
    // The oldest goes: a Map keeps the order in which its keys came.
    if (this.#cache.size >= CACHE_MAX) this.#cache.delete(this.#cache.keys().next().value!);
    this.#cache.set(key, { addresses, endsMs: this.#net.nowMs + seconds * 1000 });
  }

  #fail(lookup: Lookup, error: ArrakisError): void {
    this.#end(lookup);
    lookup.reject(error);
  }

  #end(lookup: Lookup): void {
    this.#closeSocket(lookup);
    this.#lookups.delete(lookup.key);
    this.#underWay.delete(lookup.key);
  }

  #closeSocket(lookup: Lookup): void {
    if (lookup.socket !== null) this.#net.udp.close(lookup.socket);
    lookup.socket = null;
  }
}

const notFound = (name: string, type: AddressType): ArrakisError =>
  new ArrakisError('ARK_NOT_FOUND', `"${name}" has no ${type} record`);
const closedError = (): ArrakisError => new ArrakisError('ARK_GONE', 'the resolver was closed');
