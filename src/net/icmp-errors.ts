/**
 * What the network says about packets that we sent (RFC 792, RFC 4443), for both families, by one door.
 *
 * - Whoever sends ICMP may be lying. The quoted packet must have been ours: IP checks its source, the transport's handler
 *   its ports, and TCP its sequence number (RFC 5927). Only when the handler says so does the path's MTU change.
 * - One object describes every error: it is overwritten by the next. Who keeps something copies it.
 */
import type { PathMtu } from './path-mtu.ts';

export const ICMP_ERROR = {
  /** No way to the network or the host: EHOSTUNREACH. Passing, for a connection (RFC 1122, section 4.2.3.9). */
  unreachable: 0,
  /** Nobody has the port, or the protocol: ECONNREFUSED. */
  refused: 1,
  /** A firewall says no: EACCES. Passing, for a connection that is established. */
  prohibited: 2,
  /** The path carries `mtu`, and the packet was longer. */
  tooBig: 3,
  /** It went round in circles. */
  hopLimit: 4,
  /** Its fragments did not come together. */
  reassembly: 5,
  /** Somebody did not understand its header. */
  badHeader: 6,
} as const satisfies Record<string, number>;
export type IcmpErrorKind = (typeof ICMP_ERROR)[keyof typeof ICMP_ERROR];

export class IcmpError {
  kind: IcmpErrorKind = ICMP_ERROR.unreachable;
  isIpv6 = false;
  /** IPv4 and IPv6 share the numbers of TCP and UDP. */
  protocol = 0;
  /** Our end, and the one that we had sent to: four words, IPv4 mapped (path-mtu.ts). */
  readonly local = new Int32Array(4);
  readonly remote = new Int32Array(4);
  localPort = 0;
  remotePort = 0;
  /** The four bytes behind the ports, as an int32: for TCP, the sequence number. */
  quotedWord = 0;
  /** What the path carries, for `tooBig`; never below the floor of path-mtu.ts. The cache learns it after the handler. */
  mtu = 0;
}

/** Returns whether it had sent such a packet. Must not throw. */
export type IcmpErrorHandler = (error: Readonly<IcmpError>) => boolean;

export class IcmpErrors {
  /** Filled by ICMP and ICMPv6 before `deliver`. */
  readonly error = new IcmpError();
  readonly #paths: PathMtu;
  readonly #protocols: number[] = [];
  readonly #handlers: IcmpErrorHandler[] = [];

  constructor(paths: PathMtu) {
    this.#paths = paths;
  }

  /** Errors about packets of `protocol` (of either family) go to `handler`, in the place of the one before. */
  handle(protocol: number, handler: IcmpErrorHandler): void {
    const index = this.#protocols.indexOf(protocol);
    if (index >= 0) this.#handlers[index] = handler;
    else this.#handlers[this.#protocols.push(protocol) - 1] = handler;
  }

  /** Tell whoever sent the packet; note the path's MTU. False when nobody did, or nobody knows the packet. */
  deliver(nowMs: number): boolean {
    const { error } = this;
    const handler = this.#handlers[this.#protocols.indexOf(error.protocol)];
    if (handler === undefined) return false;
    if (error.kind === ICMP_ERROR.tooBig) error.mtu = this.#paths.clamp(error.mtu, error.isIpv6);
    if (!handler(error)) return false;
    const [w0, w1, w2, w3] = error.remote as unknown as [number, number, number, number];
    if (error.kind === ICMP_ERROR.tooBig) this.#paths.learn(w0, w1, w2, w3, error.mtu, nowMs);
    return true;
  }
}
