/**
 * The front-end's half of the vhost-user handshake (QEMU's docs/interop/vhost-user.rst) on a connected stream socket:
 * negotiates features, hands over the region and the two rings of every queue pair, and switches them on.
 *
 * - Synchronous, and every wait is bounded: it runs once, before the first packet.
 * - Guest addresses and "user" addresses are both offsets into the region, so nothing of our address space is told.
 * - What the device answers is checked: wrong request, wrong size or a refusal is ARK_PROTOCOL, silence ARK_TIMEOUT,
 *   a closed socket ARK_GONE.
 */
import { ArrakisError, isErrno } from '../../base/errors.ts';
import { closeAll, closeFd, eventfd, setNonBlocking } from '../../ffi/fd.ts';
import { discard, receiveMessage, sendMessage, setTimeouts } from '../../ffi/unix.ts';
import {
  decodeHeader,
  decodeU64,
  encodeMemTable,
  encodeMessage,
  encodeU64,
  encodeVringAddr,
  encodeVringState,
  FEATURE,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  HEADER_LEN,
  hasFeature,
  PROTOCOL_FEATURE,
  REQ,
} from '../../ring/vhost-user.ts';
import type { PairRings, RingLayout } from './attach.ts';
import {
  FEATURES_MULTIQUEUE,
  FEATURES_OFFLOAD,
  FEATURES_REQUIRED,
  FEATURES_WANTED,
  PROTOCOL_FEATURES_WANTED,
  QUEUES_PER_PAIR,
  RECEIVEQ,
  TRANSMITQ,
} from './regs.ts';

/** Longest wait for one answer, unless the caller says otherwise. */
export const ANSWER_TIMEOUT_MS = 2000;

/** What is handed to the device. The descriptor stays the caller's. */
export interface SharedRings {
  readonly regionFd: number;
  readonly regionBytes: number;
  readonly ringSize: number;
  /** By queue pair. */
  readonly rings: readonly PairRings[];
}

/** The eventfds of one queue pair. */
export interface PairFds {
  /** Written to wake the device. */
  readonly rxKickFd: number;
  readonly txKickFd: number;
  /** Readable when the device calls for the receive ring. */
  readonly callFd: number;
  /** Readable when the device gave up on a ring (SET_VRING_ERR). */
  readonly errFd: number;
}

/** A running device. The caller owns the eventfds. */
export interface VhostSession {
  /** Negotiated feature set. */
  readonly features: bigint;
  readonly eventIdx: boolean;
  readonly pairs: readonly PairFds[];
}

/**
 * Start the device behind `socket` on `rings`. The socket stays the caller's, and stays open for as long as the rings
 * are in use: closing it stops the device. With `eventfds` of an earlier session on these rings those are used again.
 * `offload`: take checksums, cutting and merging, if the device has all of them.
 */
export function startDevice(
  socket: number,
  rings: SharedRings,
  timeoutMs = ANSWER_TIMEOUT_MS,
  eventfds: readonly PairFds[] = [],
  offload = false,
): VhostSession {
  setNonBlocking(socket, false);
  setTimeouts(socket, timeoutMs);
  const channel = new Channel(socket);
  const features = negotiate(channel, rings.rings.length, offload);
  channel.request(
    REQ.SET_MEM_TABLE,
    encodeMemTable([{ guestAddress: 0, size: rings.regionBytes, userAddress: 0, offset: 0 }]),
    [rings.regionFd],
  );
  const fds: number[] = [];
  try {
    const made = (): number => {
      const fd = eventfd();
      fds.push(fd);
      return fd;
    };
    // The device wants a call descriptor for each ring. Nobody waits for sent frames, so this one is not kept.
    const txCallFd = made();
    const pairs = rings.rings.map(({ rx, tx }, pair): PairFds => {
      const own = eventfds[pair] ?? {
        rxKickFd: made(),
        txKickFd: made(),
        callFd: made(),
        errFd: made(),
      };
      const { rxKickFd, txKickFd, callFd, errFd } = own;
      const first = QUEUES_PER_PAIR * pair;
      giveRing(channel, first + RECEIVEQ, rx, rings.ringSize, [rxKickFd, callFd, errFd]);
      giveRing(channel, first + TRANSMITQ, tx, rings.ringSize, [txKickFd, txCallFd, errFd]);
      return own;
    });
    if (hasFeature(features, FEATURE.VHOST_USER_F_PROTOCOL_FEATURES)) {
      for (let index = 0; index < QUEUES_PER_PAIR * pairs.length; index++) {
        channel.request(REQ.SET_VRING_ENABLE, encodeVringState({ index, num: 1 }));
      }
    }
    // Requests are served in order: this answer says that the device has digested all of them.
    channel.query(REQ.GET_FEATURES);
    closeFd(txCallFd);
    const eventIdx = hasFeature(features, FEATURE.VIRTIO_RING_F_EVENT_IDX);
    return { features, eventIdx, pairs };
  } catch (error) {
    closeAll(fds);
    throw error;
  }
}

function negotiate(channel: Channel, pairs: number, offload: boolean): bigint {
  const offered = channel.query(REQ.GET_FEATURES);
  if ((offered & FEATURES_REQUIRED) !== FEATURES_REQUIRED) {
    throw new ArrakisError('ARK_PROTOCOL', 'the device does not offer VIRTIO_F_VERSION_1', {
      hint: 'it speaks only the legacy virtio interface; use a virtio 1.x device',
    });
  }
  // Cutting and merging go together; a device that has only some of it is used without.
  const isWhole = offload && (offered & FEATURES_OFFLOAD) === FEATURES_OFFLOAD;
  const features =
    offered &
    (FEATURES_WANTED | (pairs > 1 ? FEATURES_MULTIQUEUE : 0n) | (isWhole ? FEATURES_OFFLOAD : 0n));
  let pairsMax = 1;
  if (hasFeature(features, FEATURE.VHOST_USER_F_PROTOCOL_FEATURES)) {
    const protocol = channel.query(REQ.GET_PROTOCOL_FEATURES) & PROTOCOL_FEATURES_WANTED;
    channel.request(REQ.SET_PROTOCOL_FEATURES, encodeU64(protocol));
    channel.acknowledged = hasFeature(protocol, PROTOCOL_FEATURE.REPLY_ACK);
    const several = pairs > 1 && hasFeature(protocol, PROTOCOL_FEATURE.MQ);
    if (several) pairsMax = Number(channel.query(REQ.GET_QUEUE_NUM));
  }
  if (pairs > pairsMax) {
    throw new ArrakisError(
      'ARK_UNSUPPORTED',
      `the device has ${pairsMax} queue pairs, not ${pairs}`,
      {
        hint: 'ask for fewer, or use a device that offers VHOST_USER_PROTOCOL_F_MQ',
      },
    );
  }
  channel.request(REQ.SET_OWNER);
  channel.request(REQ.SET_FEATURES, encodeU64(features));
  return features;
}

/** Everything about one ring. SET_VRING_KICK starts it, so it comes last. */
function giveRing(
  channel: Channel,
  index: number,
  layout: RingLayout,
  num: number,
  [kickFd, callFd, errFd]: [number, number, number],
): void {
  const { desc, avail, used } = layout;
  channel.request(REQ.SET_VRING_NUM, encodeVringState({ index, num }));
  channel.request(REQ.SET_VRING_BASE, encodeVringState({ index, num: 0 }));
  channel.request(
    REQ.SET_VRING_ADDR,
    encodeVringAddr({ index, flags: 0, desc, used, avail, log: 0 }),
  );
  channel.request(REQ.SET_VRING_ERR, encodeU64(index), [errFd]);
  channel.request(REQ.SET_VRING_CALL, encodeU64(index), [callFd]);
  channel.request(REQ.SET_VRING_KICK, encodeU64(index), [kickFd]);
}

/** Requests and answers, one at a time. */
class Channel {
  /** VHOST_USER_PROTOCOL_F_REPLY_ACK was negotiated: every request is answered by 0, or by a refusal. */
  acknowledged = false;
  readonly #socket: number;

  constructor(socket: number) {
    this.#socket = socket;
  }

  /** A request without an answer of its own. */
  request(request: number, payload?: Uint8Array, fds: readonly number[] = []): void {
    const flags = this.acknowledged ? FLAG_NEED_REPLY : 0;
    this.#send(encodeMessage(request, payload, flags), fds);
    if (!this.acknowledged) return;
    const code = this.#answer(request);
    if (code !== 0n) {
      throw new ArrakisError(
        'ARK_PROTOCOL',
        `the device refused ${requestName(request)} (${code})`,
      );
    }
  }

  /** A request whose answer is a u64. */
  query(request: number): bigint {
    this.#send(encodeMessage(request), []);
    return this.#answer(request);
  }

  #send(message: Buffer, fds: readonly number[]): void {
    let sent: number;
    try {
      sent = sendMessage(this.#socket, message, fds);
    } catch (error) {
      throw isErrno(error, 'EPIPE', 'ECONNRESET') ? gone(error) : error;
    }
    if (sent !== message.length) throw timeout(message.readUInt32LE(0));
  }

  #answer(request: number): bigint {
    const header = decodeHeader(this.#receive(HEADER_LEN, request));
    if (
      header === null ||
      header.request !== request ||
      (header.flags & FLAG_REPLY) === 0 ||
      header.size !== 8
    ) {
      throw new ArrakisError(
        'ARK_PROTOCOL',
        `the device's answer to ${requestName(request)} is malformed`,
      );
    }
    return decodeU64(this.#receive(header.size, request)) as bigint;
  }

  /** Exactly `length` bytes. Every turn of the loop takes at least one, or throws. */
  #receive(length: number, request: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let have = 0; have < length; ) {
      const part = Buffer.alloc(length - have);
      let received: ReturnType<typeof receiveMessage>;
      try {
        received = receiveMessage(this.#socket, part, 1);
      } catch (error) {
        throw isErrno(error, 'ECONNRESET') ? gone(error) : error;
      }
      if (received === null) throw timeout(request);
      // No answer that we ask for carries descriptors.
      discard(received);
      if (received.length === 0) throw gone();
      part.copy(bytes, have, 0, received.length);
      have += received.length;
    }
    return bytes;
  }
}

function requestName(request: number): string {
  const entry = Object.entries(REQ).find(([, number]) => number === request);
  return entry === undefined ? `request ${request}` : entry[0];
}

function gone(cause?: unknown): ArrakisError {
  return new ArrakisError('ARK_GONE', 'the device closed its socket during the handshake', {
    hint: 'it may have restarted or refused the request: see its log, then attach again',
    cause,
  });
}

function timeout(request: number): ArrakisError {
  return new ArrakisError('ARK_TIMEOUT', `the device did not answer ${requestName(request)}`, {
    hint: 'is the device process alive, and does nobody else use its socket?',
  });
}
