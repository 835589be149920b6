/**
 * TCP of one interface (RFC 9293): gives segments to connections and listeners, runs the timers, and lets connections
 * send at the end of a turn. What happens in a connection stands in the other files of this folder.
 */
import { ArrakisError } from '../../base/errors.ts';
import * as wire from '../../wire/tcp.ts';
import {
  FLOW_REMOTE,
  FLOW_WORDS,
  type IpOutput,
  isMappedIpv4,
  setMappedIpv4,
} from '../ip-output.ts';
import { NET_LIMITS } from '../limits.ts';
import type { Link } from '../link.ts';
import { parseAddress } from './address.ts';
import {
  type ConnectOptions,
  type ListenOptions,
  TCP_END,
  TCP_STATE,
  type Tcp,
  type TcpConnection,
  type TcpListener,
} from './api.ts';
import { destroy, sendReset } from './ends.ts';
import { NO_FLOW } from './flow-table.ts';
import { openActive } from './handshake.ts';
import { type IcmpReport, onIcmpError } from './icmp-errors.ts';
import { receiveSegment } from './input.ts';
import { PURPOSE, SECRET_WORDS } from './keyed-hash.ts';
import { Listener } from './listener.ts';
import { output } from './output.ts';
import { Ports } from './ports.ts';
import type { Segment } from './segment.ts';
import { TcpStack } from './stack.ts';
import type { Tcb } from './tcb.ts';
import { onDue } from './timers.ts';

const PORT_MAX = 65_535;

export class TcpLayer implements Tcp {
  readonly #stack: TcpStack;
  /** Without a secret of its own, TCP would be guessable: it refuses to begin. */
  readonly #hasSecret: boolean;
  readonly #listeners = new Map<number, Listener[]>();
  readonly #ports = new Ports();
  #listenerCount = 0;
  readonly #flow = new Int32Array(FLOW_WORDS);
  /** The first error that a handler threw out of a timer. */
  #error: unknown = null;
  readonly #fire = (id: number): void => this.#onDue(id);
  readonly #visit = (tcb: Tcb): void => output(tcb);

  /** `secret` keys sequence numbers, cookies and the table: SECRET_WORDS random words; null: connect and listen refuse. */
  constructor(link: Link, out: IpOutput, secret: Int32Array | null, ownsAddress: boolean) {
    this.#hasSecret = secret !== null;
    const words = secret ?? new Int32Array(SECRET_WORDS).fill(1);
    this.#stack = new TcpStack(link, out, words, ownsAddress);
  }

  get connectionCount(): number {
    return this.#stack.table.count;
  }

  /** When the next timer is due, in milliseconds of `poll`; Infinity: none runs. */
  get nextDueMs(): number {
    const { link, wheel, hasOutput } = this.#stack;
    return hasOutput ? link.nowMs : link.nowMs + wheel.nextInMs;
  }

  /** A segment of `length` bytes at `at` in an IPv4 datagram to us (int32 addresses). Counts its outcome. */
  receiveIpv4(frame: number, at: number, length: number, src: number, dst: number): void {
    this.setIpv4Flow(src, dst);
    this.receive(frame, at, length);
  }

  setIpv4Flow(src: number, dst: number): void {
    const { flow } = this.#stack.segment;
    setMappedIpv4(flow, 0, dst);
    setMappedIpv4(flow, FLOW_REMOTE, src);
  }

  /** Our address and the sender's, for `receive`: whoever calls it writes them before. */
  get flow(): Int32Array {
    return this.#stack.segment.flow;
  }

  /** A segment of `length` bytes at `at`, between the addresses in `flow`, to one host. Takes the frame when it keeps it. */
  receive(frame: number, at: number, length: number): void {
    const stack = this.#stack;
    const { link, counters, segment } = stack;
    const headerLength = wire.check(link.view, at, at + length);
    if (headerLength < 0) {
      counters.badTcp++;
      return;
    }
    if (!link.isChecked) {
      const sum = wire.addressSum(segment.flow, 0);
      if (!wire.checksumIsValid(link.view, at, length, sum)) {
        counters.badChecksum++;
        return;
      }
    }
    const isSound = segment.read(link.view, frame, at, headerLength, length);
    this.#dispatch(segment, isSound);
  }

  /**
   * A segment that came in pieces, its checksum looked at by the device: the header at `at` in the first of `count`
   * frames, whose bytes from there on are `firstLength`. Each piece is taken as a segment of its own, behind the one before.
   * Takes every frame.
   */
  receivePieces(
    frames: Uint32Array,
    lengths: Uint16Array,
    first: number,
    count: number,
    at: number,
    firstLength: number,
  ): void {
    const { link, counters, segment } = this.#stack;
    const headerLength = wire.check(link.view, at, at + firstLength);
    if (headerLength < 0) {
      counters.badTcp++;
      for (let i = 0; i < count; i++) link.queue.free(frames[first + i]!);
      return;
    }
    const isSound = segment.read(link.view, frames[first]!, at, headerLength, firstLength);
    const { flags, seq } = segment;
    // Each piece has an outcome of its own.
    counters.rxFrames += count - 1;
    let done = 0;
    for (let i = 0; i < count; i++) {
      const frame = frames[first + i]!;
      link.inHand = frame;
      segment.frame = frame;
      segment.at = i === 0 ? at + headerLength : frame;
      segment.length = i === 0 ? firstLength - headerLength : lengths[first + i]!;
      segment.seq = (seq + done) | 0;
      segment.flags = i + 1 < count ? flags & ~(wire.FIN | wire.PSH) : flags;
      done += segment.length;
      this.#dispatch(segment, isSound);
      link.settle();
    }
  }

  #dispatch(segment: Segment, isSound: boolean): void {
    const stack = this.#stack;
    const { counters, table } = stack;
    const id = table.find(segment.flow, 0, segment.ports);
    const tcb = id === NO_FLOW ? null : stack.tcbs[id]!;
    const listener = tcb === null ? this.#listenerFor(segment) : null;
    if (id === NO_FLOW && listener === null) {
      counters.noConnection++;
      if (stack.ownsAddress) stack.reset(segment);
      return;
    }
    counters.rxTcp++;
    if (!isSound) {
      counters.tcpBadOptions++;
    } else if (tcb !== null) {
      receiveSegment(tcb, segment);
    } else if (id === NO_FLOW) {
      listener!.receive(segment, 0);
    } else {
      // Beyond what the old connection sent, and never "anywhere".
      const iss = stack.timeWaits.nextIss(id) || 1;
      if (!stack.timeWaits.receive(id, segment)) return;
      if (listener !== null) listener.receive(segment, iss);
      else if (stack.ownsAddress) stack.reset(segment);
    }
  }

  /** The most exact of the listeners of the port. */
  #listenerFor(segment: Segment): Listener | null {
    const listeners = this.#listeners.get(segment.localPort);
    if (listeners === undefined) return null;
    let any: Listener | null = null;
    for (const listener of listeners) {
      if (listener.address === null) {
        if (!listener.isIpv4Only || isMappedIpv4(segment.flow, 0)) any = listener;
      } else if (isSame(listener.address, 0, segment.flow, 0)) return listener;
    }
    return any;
  }

  /** Timers that are due, then everything that is to be sent. Returns the amount of work. Throws what a handler threw. */
  turn(): number {
    const stack = this.#stack;
    const due = stack.wheel.advance(stack.nowMs, this.#fire);
    const sent = stack.takeOutput(this.#visit);
    if (this.#error !== null) {
      const error = this.#error;
      this.#error = null;
      throw error;
    }
    return due + sent;
  }

  /** Let connections send what was written outside of a turn. */
  flush(): void {
    this.#stack.takeOutput(this.#visit);
  }

  #onDue(id: number): void {
    const stack = this.#stack;
    const tcb = stack.tcbs[id];
    try {
      if (tcb !== null && tcb !== undefined) onDue(tcb);
      else if (stack.timeWaits.has(id)) stack.timeWaits.onDue(id);
    } catch (error) {
      this.#error ??= error;
    }
  }

  listen(options: ListenOptions): TcpListener {
    this.#checkUsable();
    checkPort(options.port, 0);
    const address = this.#listenAddress(options.address);
    const port =
      options.port === 0 ? this.#freePort(0, (p) => !this.#listeners.has(p)) : options.port;
    const others = this.#listeners.get(port) ?? [];
    const isTaken = others.some(
      ({ address: other }) =>
        (other === null && address === null) ||
        (other !== null && address !== null && isSame(other, 0, address, 0)),
    );
    if (isTaken) throw new ArrakisError('ARK_IN_USE', `TCP port ${port} is listened on already`);
    if (this.#listenerCount === NET_LIMITS.tcpListenersMax) {
      throw new ArrakisError('ARK_LIMIT', `there are ${NET_LIMITS.tcpListenersMax} TCP listeners`);
    }
    const listener = new Listener(this.#stack, options, port, address, (closed) =>
      this.#forget(closed),
    );
    this.#listeners.set(port, [...others, listener]);
    this.#listenerCount++;
    return listener;
  }

  #forget(listener: Listener): void {
    const left = this.#listeners.get(listener.port)!.filter((other) => other !== listener);
    if (left.length === 0) this.#listeners.delete(listener.port);
    else this.#listeners.set(listener.port, left);
    this.#listenerCount--;
  }

  connect(options: ConnectOptions): TcpConnection {
    this.#checkUsable();
    const stack = this.#stack;
    const flow = this.#flow.fill(0);
    checkPort(options.port, 1);
    if (options.localPort !== undefined) checkPort(options.localPort, 1);
    if (!parseAddress(options.address, flow, FLOW_REMOTE)) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `${options.address} is not an address`);
    }
    if (!stack.out.route(flow, 0)) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `there is no way to ${options.address}`, {
        hint: 'has the interface a gateway, and an address of that kind?',
      });
    }
    const isFree = (port: number): boolean => {
      const id = stack.table.find(flow, 0, wire.portPair(port, options.port));
      return id === NO_FLOW && !this.#listeners.has(port);
    };
    const hash = stack.keyed.hash(flow, 0, FLOW_WORDS, options.port, 0, PURPOSE.port);
    const localPort = options.localPort ?? this.#freePort(hash, isFree);
    const ports = wire.portPair(localPort, options.port);
    if (stack.table.find(flow, 0, ports) !== NO_FLOW) {
      throw new ArrakisError('ARK_IN_USE', `TCP port ${localPort} has such a connection already`);
    }
    const id = stack.insertFlow(flow, 0, ports);
    if (id === NO_FLOW) {
      throw new ArrakisError('ARK_LIMIT', `there are ${NET_LIMITS.tcpFlowsMax} connections`);
    }
    const tcb = openActive(stack, id);
    tcb.handlers = options.handlers;
    return tcb;
  }

  /** What the network says of a segment of ours. True when it was one (RFC 5927). */
  readonly onIcmpError = (report: IcmpReport): boolean => onIcmpError(this.#stack, report);

  /** Every connection hears that it is over, and every frame goes back. */
  close(): void {
    const stack = this.#stack;
    if (stack.isClosed) return;
    for (const listeners of [...this.#listeners.values()]) {
      for (const listener of listeners) listener.close();
    }
    let failed: { error: unknown } | null = null;
    for (const tcb of stack.tcbs) {
      if (tcb === null) continue;
      try {
        // Told now, if the device still works, or the peer would find out by its timers.
        if (tcb.state !== TCP_STATE.synSent) sendReset(tcb);
        destroy(tcb, TCP_END.gone);
      } catch (error) {
        failed ??= { error };
      }
    }
    stack.isClosed = true;
    if (failed !== null) throw failed.error;
  }

  #checkUsable(): void {
    if (this.#stack.isClosed) throw new ArrakisError('ARK_GONE', 'the interface is closed');
    if (this.#hasSecret) return;
    throw new ArrakisError('ARK_BAD_ARGUMENT', 'TCP needs a secret', {
      hint: `give NetInterface ${SECRET_WORDS} random words as \`secret\``,
    });
  }

  /** Null: any address. `0.0.0.0` is any of IPv4 only, which the listener knows. */
  #listenAddress(text: string | undefined): Int32Array | null {
    if (text === undefined || text === '0.0.0.0' || text === '::') return null;
    const flow = new Int32Array(FLOW_WORDS);
    if (!parseAddress(text, flow, 0)) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `${text} is not an address`);
    }
    if (!this.#stack.out.isLocal(flow, 0)) {
      throw new ArrakisError('ARK_BAD_ARGUMENT', `the interface does not have ${text}`);
    }
    return flow;
  }

  #freePort(hash: number, isFree: (port: number) => boolean): number {
    const port = this.#ports.choose(hash, isFree);
    if (port === 0) throw new ArrakisError('ARK_LIMIT', 'every dynamic TCP port is in use');
    return port;
  }
}

function checkPort(port: number, min: number): void {
  if (Number.isInteger(port) && port >= min && port <= PORT_MAX) return;
  throw new ArrakisError('ARK_BAD_ARGUMENT', `${port} is not a TCP port`, {
    hint: `a port is a whole number from ${min} to ${PORT_MAX}`,
  });
}

function isSame(a: Int32Array, at: number, b: Int32Array, bAt: number): boolean {
  for (let i = 0; i < FLOW_REMOTE; i++) if (a[at + i] !== b[bAt + i]) return false;
  return true;
}
