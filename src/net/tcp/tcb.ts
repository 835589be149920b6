/**
 * One connection: the transmission control block (RFC 9293, section 3.3.1), which is also what its owner has in hand.
 *
 *   received   ── dlvNxt ──────── rcvNxt ──────────────── rcvAdv
 *     given to     │ in order, not │ out of order, or free   │ beyond the window
 *     the owner    │ given yet     │                         │
 *
 * - State and the calls of the owner are here; what segments and time do to it stands in `input`, `text`, `output`,
 *   `timers` and `ends`, whose functions take it as their first argument. Fields are theirs, not the owner's.
 * - Nothing is sent from here: a connection that has something to send asks for its turn (`wantOutput`).
 */
import { assert } from '../../base/assert.ts';
import { NO_FRAME } from '../../device/nic.ts';
import { HEADER_LEN, TIMESTAMPS_LEN } from '../../wire/tcp.ts';
import { FLOW_REMOTE, isMappedIpv4 } from '../ip-output.ts';
import { NET_LIMITS } from '../limits.ts';
import { formatAddress } from './address.ts';
import {
  TCP_PAYLOAD_OFFSET,
  TCP_STATE,
  type TcpConnection,
  type TcpHandlers,
  type TcpInfo,
  type TcpState,
} from './api.ts';
import { newCongestionControl } from './choice.ts';
import { abort } from './ends.ts';
import type { Listener } from './listener.ts';
import type { ReceiveQueue } from './receive-queue.ts';
import { Recovery } from './recovery.ts';
import { SEG } from './send-queue.ts';
import { seqDiff } from './seq.ts';
import type { TcpStack } from './stack.ts';
import { deliverQueued, openWindow } from './text.ts';
import { clearTimer, keepAliveChanged, TIMERS } from './timers.ts';

/** Bytes up to which copying one by one is cheaper than a view. */
const LOOP_BYTES_MAX = 128;
const NONE = -1;

/** Of a connection that nobody has yet. */
export const NO_HANDLERS: TcpHandlers = { onData: () => {} };

export class Tcb implements TcpConnection {
  handlers: TcpHandlers = NO_HANDLERS;
  data: unknown = null;
  state: TcpState = TCP_STATE.closed;
  readonly stack: TcpStack;
  readonly id: number;
  readonly recovery: Recovery;
  /** Whose backlog it counts in, until it is given away. */
  listener: Listener | null = null;
  isDirty = false;

  /** Sending: the window as last told, the largest ever, and what it was last updated by. */
  sndWnd = 0;
  sndWndMax = 0;
  sndWl1 = 0;
  sndWl2 = 0;
  sndScale = 0;
  iss = 0;
  /** What the peer said in its SYN, or what it means when it said nothing; and what the path takes. */
  peerMss = 0;
  pathMss = 0;
  finQueued = false;
  isCorked = false;
  wantsDrain = false;
  /** Something was queued since `onFlushed`. */
  isUnflushed = false;
  noDelay = false;

  /** Receiving. */
  irs = 0;
  rcvNxt = 0;
  rcvAdv = 0;
  dlvNxt = 0;
  rcvScale = 0;
  rcvBuf: number = NET_LIMITS.tcpReceiveBufferBytes;
  heldBytes = 0;
  lastAckSent = 0;
  /** Longest segment so far: what "full" means for acknowledgements. */
  rcvMss = 0;
  unackedBytes = 0;
  ackNow = false;
  received: ReceiveQueue | null = null;
  isPaused = false;
  isDelivering = false;
  /** The peer's FIN: seen somewhere ahead at `finSeq`, then taken, then told to the owner. */
  finSeen = false;
  finSeq = 0;
  finReceived = false;
  endTold = false;
  /** The frame of `onData`, and its length. */
  inHand = NONE;
  inHandLength = 0;
  /** A duplicate to report (RFC 2883). */
  dsackLeft = 0;
  dsackRight = 0;
  /** Automatic sizing of the receive buffer: a window's worth ends here, and began then. */
  tuneSeq = 0;
  tuneUs = 0;

  /** Options that both sides agreed on. */
  hasSack = false;
  hasTimestamps = false;
  tsRecent = 0;
  tsRecentMs = 0;
  tsOffset = 0;

  /** Bits of TIMERS that run, and when they are due. */
  timers = 0;
  delayedAckMs = 0;
  persistMs = 0;
  keepAliveMs = 0;
  retryMs = 0;
  /** Probes of the window since it closed, and since the peer was last heard. */
  persistTries = 0;
  probesUnanswered = 0;
  isForced = false;
  keepIdleMs = 0;
  keepIntervalMs = 0;
  keepProbes = 0;
  keepTries = 0;
  heardMs = 0;
  progressMs = 0;
  strayAckMs = 0;
  challengeMs = 0;
  challenges = 0;
  /** ICMP said that there is no way, while we wait for an answer. */
  isUnreachable = false;
  /** ICMP said that the path takes less: ask for how much before sending on. */
  wantsPathMss = false;
  /** It ended in order, but its owner has not taken everything yet: this tells how it ended. */
  endedAs = NONE;
  #userTimeoutMs = 0;
  bytesSent = 0;
  bytesReceived = 0;

  constructor(stack: TcpStack, id: number) {
    this.stack = stack;
    this.id = id;
    this.recovery = new Recovery(stack.recovery, newCongestionControl());
    const { table } = stack;
    const at = table.at(id);
    this.tsOffset = stack.timestampOffset(table.words, at, table.ports(id));
    this.heardMs = stack.nowMs;
    this.progressMs = stack.nowMs;
  }

  get localAddress(): string {
    return this.#addressAt(0);
  }
  get remoteAddress(): string {
    return this.#addressAt(FLOW_REMOTE);
  }
  get localPort(): number {
    return this.#hasFlow ? this.stack.table.localPort(this.id) : 0;
  }
  get remotePort(): number {
    return this.#hasFlow ? this.stack.table.remotePort(this.id) : 0;
  }
  get isIpv6(): boolean {
    return !isMappedIpv4(this.stack.table.words, this.stack.table.at(this.id) + 4);
  }

  /** When it is over, another may have its number: it has no addresses any more. */
  get #hasFlow(): boolean {
    return this.stack.tcbs[this.id] === this;
  }

  #addressAt(offset: number): string {
    const { table } = this.stack;
    return this.#hasFlow ? formatAddress(table.words, table.at(this.id) + offset) : '';
  }

  /** First sequence number that the peer has no room for. */
  get windowEnd(): number {
    return (this.sndWl2 + this.sndWnd) | 0;
  }
  /** Received in order and not yet given to the owner. */
  get pendingBytes(): number {
    return seqDiff(this.rcvNxt, this.dlvNxt) - (this.finReceived ? 1 : 0);
  }
  get canSend(): boolean {
    const { state } = this;
    return (state === TCP_STATE.established || state === TCP_STATE.closeWait) && !this.finQueued;
  }
  get payloadMax(): number {
    return this.recovery.mss;
  }
  get unacked(): number {
    const { queue } = this.recovery;
    return Math.max(0, seqDiff(queue.end, queue.una));
  }

  get sendRoom(): number {
    if (!this.canSend) return 0;
    const { queue, mss } = this.recovery;
    const buffer = NET_LIMITS.tcpSendBufferBytes - seqDiff(queue.end, queue.una);
    const segments = NET_LIMITS.tcpSendSegmentsMax - queue.count;
    const frames = this.stack.link.queue.framesAvailable - this.stack.reserve;
    const tail = queue.tailRoom(mss);
    return Math.max(0, Math.min(buffer, Math.min(segments, frames) * mss + tail));
  }

  write(bytes: Uint8Array, from: number, to: number, more = false): number {
    let at = from;
    if (this.sendRoom > 0) {
      at += this.#fillTail(bytes, at, to);
      while (at < to) {
        const frame = this.#allocFrame();
        if (frame === NO_FRAME) break;
        const length = Math.min(to - at, this.recovery.mss);
        copyBytes(this.stack.link.u8, frame + TCP_PAYLOAD_OFFSET, bytes, at, length);
        this.recovery.queue.append(frame, frame + TCP_PAYLOAD_OFFSET, length, SEG.open);
        at += length;
      }
    }
    if (at < to) this.wantsDrain = true;
    // An empty last write says that nothing more comes.
    if (at > from || (from === to && this.isCorked && !more)) this.#wrote(at - from, more);
    return at - from;
  }

  alloc(): number {
    const frame = this.#allocFrame();
    if (frame === NO_FRAME) this.wantsDrain = true;
    return frame;
  }

  send(frame: number, length: number, more = false): void {
    assert(length >= 0 && length <= this.recovery.mss, 'a payload fits in its segment');
    if (!this.canSend || length === 0) {
      this.stack.link.queue.free(frame);
      return;
    }
    this.recovery.queue.append(frame, frame + TCP_PAYLOAD_OFFSET, length, SEG.open);
    this.#wrote(length, more);
  }

  forward(frame: number, at: number, length: number): boolean {
    if (length === 0) return this.canSend;
    const { queue } = this.recovery;
    const hasRoom =
      seqDiff(queue.end, queue.una) + length <= NET_LIMITS.tcpSendBufferBytes &&
      queue.count < NET_LIMITS.tcpSendSegmentsMax;
    if (!this.canSend || !hasRoom) {
      this.wantsDrain = true;
      return false;
    }
    const { link } = this.stack;
    const { memory } = link.queue;
    const roomBefore = (at & (memory.frameSize - 1)) - memory.headroom;
    if (roomBefore < this.#headerLength() || length > this.recovery.mss) {
      // Headers do not fit before it, or it is longer than the path takes: copied after all.
      return this.#copyIn(link.u8, at, length);
    }
    link.queue.retain(frame);
    queue.append(frame, at, length, 0);
    this.#wrote(length, false);
    return true;
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    if (!this.isPaused) return;
    this.isPaused = false;
    deliverQueued(this);
  }

  hold(frame: number): void {
    assert(frame === this.inHand, 'a frame is held in its handler, once');
    this.inHand = NONE;
    this.heldBytes += this.inHandLength;
    this.stack.held.count++;
  }

  /** May also be called when the connection is over. */
  release(frame: number, length: number): void {
    assert(length >= 0 && length <= this.heldBytes, 'what is released was held');
    this.stack.link.queue.free(frame);
    this.stack.held.count--;
    this.heldBytes -= length;
    openWindow(this);
  }

  end(): void {
    const { state } = this;
    if (this.finQueued || state === TCP_STATE.closed || state === TCP_STATE.timeWait) return;
    if (state === TCP_STATE.synSent) {
      abort(this);
      return;
    }
    this.finQueued = true;
    this.isCorked = false;
    this.recovery.queue.appendFin();
    this.isUnflushed = true;
    if (state === TCP_STATE.established) this.state = TCP_STATE.finWait1;
    else if (state === TCP_STATE.closeWait) this.state = TCP_STATE.lastAck;
    this.stack.wantOutput(this);
  }

  abort(): void {
    abort(this);
  }

  setKeepAlive(
    idleMs: number,
    intervalMs: number = NET_LIMITS.tcpKeepAliveIntervalMs,
    probes: number = NET_LIMITS.tcpKeepAliveProbes,
  ): void {
    this.keepIdleMs = Math.max(0, Math.ceil(idleMs));
    this.keepIntervalMs = Math.max(1, Math.ceil(intervalMs));
    this.keepProbes = Math.max(1, probes);
    keepAliveChanged(this);
  }

  get userTimeoutMs(): number {
    return this.#userTimeoutMs;
  }
  set userTimeoutMs(ms: number) {
    this.#userTimeoutMs = Math.max(0, ms);
  }

  get pacingBytesPerSecond(): number {
    return this.recovery.pacingBytesPerSecond;
  }
  set pacingBytesPerSecond(rate: number) {
    this.recovery.pacingBytesPerSecond = Math.max(0, rate);
    this.stack.wantOutput(this);
  }

  get info(): TcpInfo {
    const { recovery } = this;
    return {
      mss: recovery.mss,
      srttUs: recovery.rtt.srttUs,
      rtoMs: recovery.rtt.rtoUs / 1000,
      congestionWindow: recovery.congestion.window,
      slowStartThreshold: recovery.congestion.threshold,
      sendWindow: this.sndWnd,
      receiveWindow: Math.max(0, seqDiff(this.rcvAdv, this.rcvNxt)),
      bytesSent: this.bytesSent,
      bytesReceived: this.bytesReceived,
      retransmits: recovery.retransmits,
      congestion: recovery.congestion.name,
    };
  }

  #allocFrame(): number {
    if (!this.canSend) return NO_FRAME;
    const { queue } = this.recovery;
    const device = this.stack.link.queue;
    const isFull =
      seqDiff(queue.end, queue.una) >= NET_LIMITS.tcpSendBufferBytes ||
      queue.count >= NET_LIMITS.tcpSendSegmentsMax ||
      device.framesAvailable <= this.stack.reserve;
    return isFull ? NO_FRAME : device.alloc();
  }

  #fillTail(bytes: Uint8Array, from: number, to: number): number {
    const { queue, mss } = this.recovery;
    const length = Math.min(to - from, queue.tailRoom(mss));
    if (length <= 0) return 0;
    copyBytes(this.stack.link.u8, queue.tailAt, bytes, from, length);
    queue.growTail(length, 0);
    return length;
  }

  #wrote(bytes: number, more: boolean): void {
    this.isCorked = more;
    this.isUnflushed = true;
    this.bytesSent += bytes;
    if (!more) clearTimer(this, TIMERS.cork);
    this.stack.wantOutput(this);
  }

  /** All of it or nothing. */
  #copyIn(bytes: Uint8Array, at: number, length: number): boolean {
    if (this.sendRoom >= length) return this.write(bytes, at, at + length) === length;
    this.wantsDrain = true;
    return false;
  }

  /** Ethernet, IP, and TCP, as segments with data have them. */
  #headerLength(): number {
    const { table, out } = this.stack;
    const ip = out.headerLength(table.words, table.at(this.id));
    return ip + HEADER_LEN + (this.hasTimestamps ? TIMESTAMPS_LEN : 0);
  }
}

function copyBytes(
  to: Uint8Array,
  at: number,
  from: Uint8Array,
  start: number,
  length: number,
): void {
  if (length > LOOP_BYTES_MAX) {
    to.set(from.subarray(start, start + length), at);
    return;
  }
  for (let i = 0; i < length; i++) to[at + i] = from[start + i]!;
}
