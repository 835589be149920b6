/**
 * DHCP client (RFC 2131, section 4.4) on a NetInterface without an address.
 *
 *   selecting --offer--> requesting --ack--> probing --free--> bound --T1--> renewing --T2--> rebinding
 *       ^                    |                  |                 ^             |                 |
 *       +---- nak, timeout --+     decline -----+                 +---- ack ----+------- ack -----+
 *       +------------------------------------------------------------------ nak, or it expires ---+
 *
 * - Time is the interface's, which calls `tick`; randomness is an argument.
 * - An address is used only after nobody answered to it (RFC 5227); one that somebody has is declined.
 * - A server's word counts when it has our transaction and our MAC address, comes from its port, and holds together.
 */
import type { Ipv4, Mac } from '../../base/address.ts';
import type { NetInterface, NetTimer } from '../interface.ts';
import type { UdpSocket } from '../udp-sockets.ts';
import { type Lease, leaseOf } from './lease.ts';
import {
  type ClientMessage,
  DHCP,
  emitClient,
  ipv4Bytes,
  numberOf,
  OPTION,
  parseServer,
  type ServerMessage,
} from './message.ts';

const SERVER_PORT = 67;
const CLIENT_PORT = 68;
const BROADCAST = 0xffffffff;
/** Section 4.1: 4, 8, 16, 32, 64 seconds, each 1 more or less. */
const RETRY_MS_FIRST = 4_000;
const RETRY_MS_MAX = 64_000;
const RETRY_SPREAD_MS = 1_000;
/** Requests for an offer before another offer is looked for. */
const REQUESTS_MAX = 4;
/** After a decline (section 3.1, point 5), and between requests to renew (section 4.4.5). */
const DECLINED_MS = 10_000;
const RENEW_MS_MIN = 60_000;
const PARAMETERS = Uint8Array.of(
  OPTION.subnetMask,
  OPTION.router,
  OPTION.dns,
  OPTION.domain,
  OPTION.mtu,
  OPTION.renewalSeconds,
  OPTION.rebindingSeconds,
  OPTION.routes,
);

export type DhcpState =
  | 'stopped'
  | 'selecting'
  | 'requesting'
  | 'probing'
  | 'bound'
  | 'renewing'
  | 'rebinding';

export interface DhcpOptions {
  readonly net: NetInterface;
  readonly mac: Mac;
  /** Uniform in 0 to 2^32 - 1. */
  readonly random: () => number;
  /** Told when there is an address, or another one, or other routes; and, by null, when there is none any more. */
  readonly onLease?: (lease: Lease | null) => void;
  readonly hostName?: string;
}

export class DhcpClient implements NetTimer {
  readonly #net: NetInterface;
  readonly #options: DhcpOptions;
  readonly #socket: UdpSocket;
  readonly #memory: Uint8Array;
  #state: DhcpState = 'stopped';
  #xid = 0;
  #startedMs = 0;
  #dueMs = Number.POSITIVE_INFINITY;
  #tries = 0;
  #offer: Lease | null = null;
  #lease: Lease | null = null;
  /** When the lease was asked for: its times count from then. */
  #askedMs = 0;
  #leasedMs = 0;

  /** `memory`: the bytes of the interface's queue. ARK_IN_USE when somebody has port 68. */
  constructor(options: DhcpOptions, memory: Uint8Array) {
    this.#options = options;
    this.#net = options.net;
    this.#memory = memory;
    this.#socket = options.net.udp.bind(CLIENT_PORT, (_frame, at, length, _ip, port) => {
      if (port === SERVER_PORT) this.#receive(this.#memory.subarray(at, at + length));
    });
  }

  get state(): DhcpState {
    return this.#state;
  }

  get lease(): Lease | null {
    return this.#lease;
  }

  /** When `tick` must run. */
  get nextDueMs(): number {
    return this.#dueMs;
  }

  /** Look for an address, from the interface's next turn on. */
  start(): void {
    this.#net.attach(this);
    this.#select(Number.NEGATIVE_INFINITY);
  }

  /** Give the address back and stop. */
  release(): void {
    const lease = this.#lease;
    if (lease !== null) {
      const server = [OPTION.server, ipv4Bytes(lease.server)] as const;
      this.#xid = this.#options.random();
      this.#send(DHCP.release, lease.address, lease.server, [server]);
    }
    this.stop();
  }

  /** Stop without a word. The port is free again; the address stays configured until it is given up. */
  stop(): void {
    this.#net.detach(this);
    this.#net.udp.close(this.#socket);
    if (this.#lease !== null) this.#lose();
    this.#state = 'stopped';
    this.#dueMs = Number.POSITIVE_INFINITY;
  }

  /** Do what is due at `nowMs`. */
  tick(nowMs: number): void {
    if (nowMs < this.#dueMs) return;
    switch (this.#state) {
      case 'selecting':
        this.#discover();
        return;
      case 'requesting':
        if (this.#tries >= REQUESTS_MAX) this.#select(0);
        else this.#request();
        return;
      case 'bound':
      case 'renewing':
      case 'rebinding':
        this.#renew();
        return;
      default:
        this.#dueMs = Number.POSITIVE_INFINITY;
    }
  }

  #select(afterMs: number): void {
    this.#state = 'selecting';
    this.#tries = 0;
    this.#offer = null;
    this.#xid = this.#options.random();
    this.#dueMs = this.#net.nowMs + afterMs;
  }

  #discover(): void {
    if (this.#tries === 0) this.#startedMs = this.#net.nowMs;
    this.#send(DHCP.discover, 0, BROADCAST, [[OPTION.parameters, PARAMETERS]]);
    this.#retry();
  }

  #request(): void {
    const offer = this.#offer!;
    this.#askedMs = this.#tries === 0 ? this.#net.nowMs : this.#askedMs;
    this.#send(DHCP.request, 0, BROADCAST, [
      [OPTION.requestedAddress, ipv4Bytes(offer.address)],
      [OPTION.server, ipv4Bytes(offer.server)],
      [OPTION.parameters, PARAMETERS],
    ]);
    this.#retry();
  }

  /** Half of the lease is over, or seven eighths, or all of it. */
  #renew(): void {
    const lease = this.#lease!;
    const elapsed = (this.#net.nowMs - this.#leasedMs) / 1000;
    if (elapsed >= lease.seconds) {
      this.#lose();
      this.#select(0);
      return;
    }
    const isRebinding = elapsed >= lease.rebindSeconds;
    if (this.#state === 'bound') {
      this.#xid = this.#options.random();
      this.#startedMs = this.#net.nowMs;
    }
    this.#state = isRebinding ? 'rebinding' : 'renewing';
    this.#askedMs = this.#net.nowMs;
    const to = isRebinding ? BROADCAST : lease.server;
    this.#send(DHCP.request, lease.address, to, [[OPTION.parameters, PARAMETERS]]);
    const next = isRebinding ? lease.seconds : lease.rebindSeconds;
    const leftMs = this.#leasedMs + next * 1000 - this.#net.nowMs;
    this.#dueMs = this.#net.nowMs + Math.min(leftMs, Math.max(leftMs / 2, RENEW_MS_MIN));
  }

  #receive(bytes: Uint8Array): void {
    const message = parseServer(bytes, this.#xid, this.#options.mac);
    if (message === null) return;
    const { type } = message;
    if (type === DHCP.offer && this.#state === 'selecting') this.#offered(message);
    else if (type === DHCP.ack) this.#acknowledged(message);
    else if (type === DHCP.nak) this.#refused(message);
  }

  #offered(message: ServerMessage): void {
    const offer = leaseOf(message);
    if (offer === null) return;
    this.#offer = offer;
    this.#state = 'requesting';
    this.#tries = 0;
    this.#request();
  }

  #acknowledged(message: ServerMessage): void {
    const lease = leaseOf(message);
    if (lease === null) return;
    if (this.#state === 'requesting') {
      const { address, server } = this.#offer!;
      if (lease.address !== address || lease.server !== server) return;
      this.#state = 'probing';
      this.#dueMs = Number.POSITIVE_INFINITY;
      this.#net.guard.probe(lease.address | 0, (isFree) => this.#probed(lease, isFree));
    } else if (this.#state === 'renewing' || this.#state === 'rebinding') {
      // Another server may answer to a rebinding; another address may not.
      const isSame = lease.address === this.#lease!.address;
      if (isSame && (this.#state === 'rebinding' || lease.server === this.#lease!.server)) {
        this.#bind(lease);
      }
    }
  }

  #probed(lease: Lease, isFree: boolean): void {
    if (this.#state !== 'probing') return;
    if (isFree) {
      this.#bind(lease);
      this.#net.guard.announce();
      return;
    }
    this.#send(DHCP.decline, 0, BROADCAST, [
      [OPTION.requestedAddress, ipv4Bytes(lease.address)],
      [OPTION.server, ipv4Bytes(lease.server)],
    ]);
    this.#select(DECLINED_MS);
  }

  #refused(message: ServerMessage): void {
    const from = numberOf(message, OPTION.server, 4);
    if (this.#state === 'requesting' && from === this.#offer!.server) this.#select(RETRY_MS_FIRST);
    const isOurs = this.#state === 'renewing' ? from === this.#lease!.server : true;
    if (this.#lease !== null && this.#state !== 'bound' && isOurs) {
      this.#lose();
      this.#select(0);
    }
  }

  #bind(lease: Lease): void {
    this.#lease = lease;
    this.#leasedMs = this.#askedMs;
    this.#state = 'bound';
    this.#net.configure(lease.address, lease.prefix, lease.gateway);
    this.#net.setRoutes(lease.routes);
    this.#dueMs = this.#leasedMs + lease.renewSeconds * 1000;
    this.#options.onLease?.(lease);
  }

  #lose(): void {
    this.#lease = null;
    this.#net.configure(0, 0);
    this.#net.setRoutes([]);
    this.#options.onLease?.(null);
  }

  #retry(): void {
    const base = Math.min(RETRY_MS_FIRST * 2 ** this.#tries++, RETRY_MS_MAX);
    const spread = (this.#options.random() / 2 ** 32) * 2 - 1;
    this.#dueMs = this.#net.nowMs + base + spread * RETRY_SPREAD_MS;
  }

  #send(type: number, clientAddress: Ipv4, to: Ipv4, options: ClientMessage['options']): void {
    const { mac, hostName } = this.#options;
    const seconds = Math.floor((this.#net.nowMs - this.#startedMs) / 1000);
    const name =
      hostName === undefined ? [] : [[OPTION.hostName, Buffer.from(hostName).subarray(0, 255)]];
    const all = [...options, ...name] as ClientMessage['options'];
    const message = { type, xid: this.#xid, seconds, mac, clientAddress, options: all };
    this.#net.udp.sendBytes(emitClient(message), CLIENT_PORT, to, SERVER_PORT);
  }
}
