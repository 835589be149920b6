/**
 * The back-end of one vhost-user connection: the state machine that a device runs for one client.
 *
 * - Synchronous: `onReadable` handles what has arrived, at most MESSAGES_MAX messages, and returns: the device's other
 *   clients wait meanwhile.
 * - Whatever a message asks is checked before anything changes. A client that breaks the protocol loses its session.
 * - Any descriptor may arrive, and the last close of some lasts as long as their owner likes: see `closeForeign`.
 * - Memory and rings are in vhost-backend-rings.ts; here is what concerns the session as a whole.
 */
import { ArrakisError } from '../base/errors.ts';
import { closeForeign, closeStream, setNonBlocking } from '../ffi/fd.ts';
import { receiveOutOfBandInline, sendMessage } from '../ffi/unix.ts';
import type { SplitDevice, Violation } from './split-device.ts';
import { type BackendHost, BackendRings, type RingOptions } from './vhost-backend-rings.ts';
import { refuse, type VhostMessage, VhostReceiver } from './vhost-receiver.ts';
import {
  decodeU64,
  encodeMessage,
  encodeU64,
  FEATURE,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  featureSet,
  hasFeature,
  PROTOCOL_FEATURE,
  REGIONS_MAX,
  REQ,
} from './vhost-user.ts';

export type { BackendHost } from './vhost-backend-rings.ts';

/** Messages between two looks at the packets of all clients. */
const MESSAGES_MAX = 16;
/** Those that map or unmap memory, some 40 us a region: one is all that a client gets. */
const SLOW: ReadonlySet<number> = new Set([REQ.SET_MEM_TABLE, REQ.ADD_MEM_REG, REQ.REM_MEM_REG]);

export interface BackendOptions extends RingOptions {
  /** Feature bits of the device beyond those that every back-end has (BASE_FEATURES). */
  features: bigint;
  /** What GET_QUEUE_NUM says, in pairs for a network device; more than 1 offers VHOST_USER_PROTOCOL_F_MQ. Default 1. */
  queuePairs?: number;
  /** What GET_CONFIG reads, when the device has a configuration space to offer. */
  config?: Uint8Array;
}

const BASE_FEATURES = featureSet(
  FEATURE.VIRTIO_F_VERSION_1,
  FEATURE.VIRTIO_RING_F_EVENT_IDX,
  FEATURE.VHOST_USER_F_PROTOCOL_FEATURES,
);
const PROTOCOL_FEATURES = featureSet(
  PROTOCOL_FEATURE.REPLY_ACK,
  PROTOCOL_FEATURE.CONFIGURE_MEM_SLOTS,
);
const CONFIG_HEADER_LEN = 12;

export class VhostBackend {
  readonly #fd: number;
  readonly #host: BackendHost;
  readonly #options: BackendOptions;
  readonly #offered: bigint;
  readonly #rings: BackendRings;
  #protocolFeatures = 0n;
  #closed = false;
  readonly #receiver: VhostReceiver;

  /** Serve `fd`, one end of a connected SOCK_STREAM socket. The session owns it. */
  constructor(fd: number, host: BackendHost, options: BackendOptions) {
    setNonBlocking(fd);
    receiveOutOfBandInline(fd);
    this.#fd = fd;
    this.#receiver = new VhostReceiver(fd);
    this.#host = host;
    this.#options = options;
    this.#offered = BASE_FEATURES | options.features;
    this.#rings = new BackendRings(host, options);
  }

  get fd(): number {
    return this.#fd;
  }

  /** Features that the client accepted. */
  get features(): bigint {
    return this.#rings.features;
  }

  /** The running ring `index`, enabled or not; null when it is stopped or broken. */
  ring(index: number): SplitDevice | null {
    return this.#rings.running(index);
  }

  isEnabled(index: number): boolean {
    return this.#rings.isEnabled(index);
  }

  /** Where the client wants to be called for ring `index`; -1 when it polls. */
  callFd(index: number): number {
    return this.#rings.callFd(index);
  }

  /** Ring `index` has violated the protocol: tell its client. The rest of the session goes on. */
  breakRing(index: number, violation: Violation): void {
    this.#rings.break(index, violation);
  }

  /** Why ring `index` is broken; null when it is not. */
  brokenReason(index: number): string | null {
    return this.#rings.brokenReason(index);
  }

  /**
   * Handle what has arrived, or the first of it: the socket then stays readable. Null while the session lives; otherwise the reason for its end, and the caller calls
   * `close`. Never throws for what the client did.
   */
  onReadable(): string | null {
    try {
      for (let i = 0; i < MESSAGES_MAX; i++) {
        const message = this.#receiver.next();
        if (message === 'end') return 'closed by the client';
        if (message === 'wait') return null;
        let harmless = false;
        try {
          this.#handle(message);
        } finally {
          harmless = closeForeign(message.fds);
        }
        // Memory of a trusted client may be any file.
        if (!harmless && !this.#options.allowUnsealed) refuse('a descriptor of no use here');
        if (SLOW.has(message.header.request)) break;
      }
      return null;
    } catch (error) {
      // A failed call of Node's, such as on a file that is no memory, is the client's failure as well.
      if (error instanceof ArrakisError || isCallFailure(error)) return error.message;
      throw error;
    }
  }

  /** Stop all rings, unmap the client's memory, close its descriptors and the socket. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#rings.close();
    this.#receiver.close();
    closeStream(this.#fd);
  }

  /** Act on one message. A handler takes the descriptors that it keeps out of `fds`. */
  #handle({ header, payload, fds }: VhostMessage): void {
    const acknowledge =
      (header.flags & FLAG_NEED_REPLY) !== 0 &&
      hasFeature(this.#protocolFeatures, PROTOCOL_FEATURE.REPLY_ACK);
    try {
      const reply = this.#dispatch(header.request, payload, fds);
      if (reply !== null) this.#send(header.request, reply);
      else if (acknowledge) this.#send(header.request, encodeU64(0));
    } catch (error) {
      if (!(error instanceof ArrakisError) || !acknowledge) throw error;
      // The client asked to be told: it may go on, with nothing changed.
      this.#send(header.request, encodeU64(1));
    }
  }

  #send(request: number, payload: Uint8Array): void {
    const message = encodeMessage(request, payload, FLAG_REPLY);
    if (sendMessage(this.#fd, message) !== message.length) refuse('the client reads no replies');
  }

  /** The reply's payload, or null for requests that have none. */
  #dispatch(request: number, payload: Buffer, fds: number[]): Uint8Array | null {
    switch (request) {
      case REQ.GET_FEATURES:
        return encodeU64(this.#offered);
      case REQ.SET_FEATURES:
        return this.#setFeatures(payload);
      case REQ.GET_PROTOCOL_FEATURES:
        return encodeU64(this.#offeredProtocol);
      case REQ.SET_PROTOCOL_FEATURES: {
        const wanted = decodeU64(payload) ?? refuse('SET_PROTOCOL_FEATURES is malformed');
        if ((wanted & ~this.#offeredProtocol) !== 0n) refuse('a protocol feature was not offered');
        this.#protocolFeatures = wanted;
        return null;
      }
      case REQ.GET_QUEUE_NUM:
        return encodeU64(this.#options.queuePairs ?? 1);
      case REQ.GET_MAX_MEM_SLOTS:
        return encodeU64(REGIONS_MAX);
      case REQ.SET_OWNER:
        return null;
      case REQ.RESET_OWNER:
        this.#rings.clear();
        this.#host.ringsChanged();
        return null;
      case REQ.GET_CONFIG:
        return this.#getConfig(payload);
      default:
        return this.#rings.dispatch(request, payload, fds);
    }
  }

  get #offeredProtocol(): bigint {
    const config = this.#options.config === undefined ? 0n : featureSet(PROTOCOL_FEATURE.CONFIG);
    const several = (this.#options.queuePairs ?? 1) > 1;
    return PROTOCOL_FEATURES | config | (several ? featureSet(PROTOCOL_FEATURE.MQ) : 0n);
  }

  #setFeatures(payload: Buffer): null {
    const wanted = decodeU64(payload) ?? refuse('SET_FEATURES is malformed');
    if ((wanted & ~this.#offered) !== 0n) refuse('a feature was not offered');
    // Without VERSION_1 the layout of headers is another; a running ring cannot change its rules.
    if (!hasFeature(wanted, FEATURE.VIRTIO_F_VERSION_1)) refuse('VIRTIO_F_VERSION_1 is required');
    this.#rings.setFeatures(wanted);
    return null;
  }

  #getConfig(payload: Buffer): Uint8Array {
    const config = this.#options.config;
    if (config === undefined || payload.length < CONFIG_HEADER_LEN) refuse('GET_CONFIG');
    const offset = payload.readUInt32LE(0);
    const size = payload.readUInt32LE(4);
    if (payload.length !== CONFIG_HEADER_LEN + size) refuse('GET_CONFIG is malformed');
    // What lies beyond the configuration space reads as zeros.
    const reply = Buffer.alloc(payload.length);
    payload.copy(reply, 0, 0, CONFIG_HEADER_LEN);
    reply.set(
      config.subarray(Math.min(offset, config.length), Math.min(offset + size, config.length)),
      CONFIG_HEADER_LEN,
    );
    return reply;
  }
}

function isCallFailure(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error && 'code' in error;
}
