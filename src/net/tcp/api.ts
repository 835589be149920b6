/**
 * TCP as its users see it, the native zero-copy interface (Arrakis/N). `TcpLayer` implements it; the web server, the
 * POSIX layer and the benchmarks are written against this page.
 *
 * - A connection is one object; its handlers are called within `NetInterface.poll`, and run to completion.
 * - Received bytes are handed over where the card put them, in order and once. The frame goes back to the pool when the
 *   handler returns, unless it was held.
 * - Bytes to send are written into frames of the pool, which TCP keeps until they are acknowledged.
 * - Whatever is sent outside of a turn leaves with the next one, or by `Turn.flush` (`NetInterface.flush` with the time).
 *   A poll loop that sleeps meanwhile is woken by `PollLoop.wake`.
 */

/** Why a connection is over. Node's name for each stands beside it. */
export const TCP_END = {
  /** Both directions were closed in order. */
  closed: 0,
  /** The peer sent RST: ECONNRESET. */
  reset: 1,
  /** RST in answer to our SYN: ECONNREFUSED. */
  refused: 2,
  /** No answer to retransmissions, keep-alives or SYNs: ETIMEDOUT. */
  timedOut: 3,
  /** ICMP or the route says that there is no way: EHOSTUNREACH. */
  unreachable: 4,
  /** We ended it by `abort`: ECONNABORTED. */
  aborted: 5,
  /** The interface was closed, or its device is gone: ENETDOWN. */
  gone: 6,
  /** No memory of the stack's own limits was left for it: ENOBUFS. */
  noMemory: 7,
} as const satisfies Record<string, number>;
export type TcpEnd = (typeof TCP_END)[keyof typeof TCP_END];

/** States of RFC 9293, section 3.3.2, as numbers. LISTEN is the listener's, not a connection's. */
export const TCP_STATE = {
  closed: 0,
  synSent: 1,
  synReceived: 2,
  established: 3,
  finWait1: 4,
  finWait2: 5,
  closeWait: 6,
  closing: 7,
  lastAck: 8,
  timeWait: 9,
} as const satisfies Record<string, number>;
export type TcpState = (typeof TCP_STATE)[keyof typeof TCP_STATE];

/** What a connection's owner is told. Any may be replaced at any time by assigning `connection.handlers`. */
export interface TcpHandlers {
  /** The handshake of `connect` is done. Connections of a listener are given to it when theirs is. */
  onOpen?(connection: TcpConnection): void;
  /**
   * The next `length` bytes of the stream stand at byte `at` of the region, in `frame`. `connection.hold(frame)` within
   * the handler keeps them; otherwise the frame is not the handler's to touch afterwards.
   */
  onData(connection: TcpConnection, frame: number, at: number, length: number): void;
  /** The peer has sent everything (FIN), and `onData` had all of it. We may go on sending. */
  onEnd?(connection: TcpConnection): void;
  /** `sendRoom` has risen to a half of the send buffer at least, after a `write` or `alloc` fell short of it. */
  onDrain?(connection: TcpConnection): void;
  /** Everything that was queued so far, the FIN of `end` too if that was called, is acknowledged by the peer. */
  onFlushed?(connection: TcpConnection): void;
  /** It is over. The last call; nothing but `release` may be called on the connection any more. */
  onClose?(connection: TcpConnection, why: TcpEnd): void;
}

export interface TcpConnection {
  handlers: TcpHandlers;
  /** For its owner. */
  data: unknown;
  readonly state: TcpState;
  /** `10.0.0.2` or `fe80::1`; made when asked for. Empty, as the ports are 0, when the connection is over. */
  readonly localAddress: string;
  readonly remoteAddress: string;
  readonly localPort: number;
  readonly remotePort: number;
  readonly isIpv6: boolean;

  /** Bytes that `write`, or frames by `send`, would take now; 0 when it cannot send (closing, or not yet open). */
  readonly sendRoom: number;
  /** Bytes queued that the peer has not acknowledged. */
  readonly unacked: number;
  /** Payload bytes that a frame of `alloc` takes. */
  readonly payloadMax: number;

  /**
   * Copy a prefix of `bytes[from..to)` into frames and send it: how many bytes it took. With fewer than asked for,
   * `onDrain` tells when to go on. `more`: more comes at once, do not send a part of a segment yet (MSG_MORE);
   * an empty write without it says that nothing more comes.
   */
  write(bytes: Uint8Array, from: number, to: number, more?: boolean): number;
  /** A frame to write up to `payloadMax` bytes into, at `frame + TCP_PAYLOAD_OFFSET`; NO_FRAME when there is no room. */
  alloc(): number;
  /** Send the `length` bytes that stand in a frame of `alloc`. Takes the frame, which is not to be touched afterwards. */
  send(frame: number, length: number, more?: boolean): void;
  /**
   * Send `length` bytes that stand at byte `at` of a frame that the caller owns, as a part of the stream, without a copy:
   * TCP retains the frame until they are acknowledged. The room before `at` in the frame is TCP's to write headers into
   * (TCP_HEADROOM bytes), as in a frame that came by `onData` and was held. False when there is no room.
   */
  forward(frame: number, at: number, length: number): boolean;

  /** No `onData` until `resume`; what arrives is kept, and the window closes. */
  pause(): void;
  resume(): void;
  /**
   * Keep the frame of `onData` beyond the handler. Its bytes stay charged to the window until `release`, which is due
   * also when the connection is over.
   */
  hold(frame: number): void;
  release(frame: number, length: number): void;

  /** Send FIN after what is queued: we have said everything. Idempotent. */
  end(): void;
  /** Send RST and forget everything: `onClose` comes with TCP_END.aborted, in this call. Idempotent. */
  abort(): void;

  /** False: Nagle's algorithm (the default, as in Node). */
  noDelay: boolean;
  /** Probe a silent peer after so many ms, then every `intervalMs`, `probes` times; 0: never. */
  setKeepAlive(idleMs: number, intervalMs?: number, probes?: number): void;
  /** Give up when sent data stays unacknowledged for so long (RFC 5482); 0: after the usual retransmissions. */
  userTimeoutMs: number;
  /** Send no faster than this; 0: no limit of its own. */
  pacingBytesPerSecond: number;
  readonly info: TcpInfo;
}

/** A snapshot, as of `TCP_INFO`. */
export interface TcpInfo {
  readonly mss: number;
  readonly srttUs: number;
  readonly rtoMs: number;
  readonly congestionWindow: number;
  readonly slowStartThreshold: number;
  readonly sendWindow: number;
  readonly receiveWindow: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly retransmits: number;
  readonly congestion: string;
}

export interface TcpListener {
  readonly port: number;
  /** Handshakes that are done or under way and not yet given to `onConnection`, at most `backlog`. */
  readonly pending: number;
  /** Take no more connections; those that were given stay. Idempotent. */
  close(): void;
}

export interface ListenOptions {
  /** 0: any free one of the dynamic ports. */
  readonly port: number;
  /** `0.0.0.0` (IPv4), `::` (both families) or one of the interface's; default: as `::`. */
  readonly address?: string;
  readonly backlog?: number;
  /** A new connection, established. Returns its handlers. */
  onConnection(connection: TcpConnection): TcpHandlers;
}

export interface ConnectOptions {
  /** `10.0.0.1`, `2001:db8::1`, or `fe80::1`. */
  readonly address: string;
  readonly port: number;
  /** Default: any free one of the dynamic ports (RFC 6056). */
  readonly localPort?: number;
  readonly handlers: TcpHandlers;
}

/** `NetInterface.tcp`. Errors: ARK_BAD_ARGUMENT, ARK_IN_USE (port), ARK_LIMIT (connections, ports). */
export interface Tcp {
  listen(options: ListenOptions): TcpListener;
  connect(options: ConnectOptions): TcpConnection;
  /** Connections in every state, TIME-WAIT among them. */
  readonly connectionCount: number;
}

/** Where the payload stands in a frame of `alloc`: room for Ethernet with a VLAN tag, IPv6, and a TCP header with options. */
export const TCP_PAYLOAD_OFFSET = 128;
/** What `forward` needs before the payload, counted from the start of the frame's buffer. */
export const TCP_HEADROOM = TCP_PAYLOAD_OFFSET;
