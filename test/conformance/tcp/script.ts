/**
 * The words of a conformance case. `Script` is the case's world: its application's side (`app`), and peers that write
 * and read raw segments.
 *
 * - Sequence numbers are relative, as tcpdump shows them: 0 is the SYN, 1 the first byte. `send` fills in what is not said:
 *   the next number of ours, the next expected one of theirs, a window of 65,535.
 * - `expect` takes the next segment, whatever it is, and compares what was said of it. PSH counts only when asked for.
 * - Times are ms since this peer last sent, or last expected something with success: `within: [min, max]`.
 */
import assert from 'node:assert/strict';
import { US } from '../../support/frames.ts';
import {
  formatSegment,
  type Lies,
  parseTcp,
  type Segment,
  type TcpOptions,
  tcpFrame,
} from '../../support/tcp-segment.ts';
import type { Listener, Socket, Subject } from './subject.ts';

/** A loaded machine is late, never early: how much later than asked for an event may be seen. */
const LATE_MS = 600;
const WAIT_MS = 1000;
/** The kernel's timers and our clock differ by a tick. */
const CLOCKS_MS = 5;
const ISS = 1_000_000;

export interface Outgoing {
  readonly flags?: string;
  /** Relative; the next of ours. Given ones do not count on. */
  readonly seq?: number;
  readonly ack?: number;
  /** As in the header, unscaled. */
  readonly window?: number;
  readonly urgent?: number;
  readonly data?: string | Uint8Array;
  readonly options?: TcpOptions;
  readonly lies?: Lies;
}

export interface Expected {
  readonly flags?: string;
  readonly seq?: number;
  readonly ack?: number;
  readonly len?: number;
  readonly data?: string;
  readonly window?: number | ((window: number) => boolean);
  readonly within?: readonly [number, number];
  /** Relative blocks; [] for none. */
  readonly sack?: readonly (readonly [number, number])[];
  /** Present with this value, or absent (null). */
  readonly mss?: number | null;
  readonly windowScale?: number | 'any' | null;
  readonly sackPermitted?: boolean;
  readonly timestamps?: 'any' | null;
}

export const bytesOf = (data: string | Uint8Array): Uint8Array =>
  typeof data === 'string' ? new Uint8Array(Buffer.from(data)) : data;

/** `length` bytes that differ from place to place. */
export function pattern(length: number, from = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => ((from + i) * 7 + ((from + i) >>> 8)) & 255);
}

export class Peer {
  /** Ours: the next sequence number, relative. Theirs: the next expected one. */
  next = 0;
  expected = 0;
  readonly iss: number;
  /** Their initial sequence number; -1 before their SYN. */
  irs = -1;
  window = 65535;
  /** Our TSval when timestamps were agreed upon; advances by the subject's clock. */
  timestampsOn = false;
  /** The newest TSval of theirs. */
  echo = 0;
  readonly log: string[] = [];
  readonly port: number;
  readonly #subject: Subject;
  #unread: Segment | null = null;
  /** Not before, and not after. */
  #markMs: readonly [number, number];

  constructor(subject: Subject, iss: number) {
    this.#subject = subject;
    this.iss = iss;
    this.port = subject.peerPort;
    this.#markMs = [subject.nowMs, subject.nowMs];
  }

  get timestamp(): number {
    return (1_000_000 + Math.floor(this.#subject.nowMs)) >>> 0;
  }

  send(out: Outgoing = {}): void {
    const flags = out.flags ?? 'A';
    const data = out.data === undefined ? new Uint8Array(0) : bytesOf(out.data);
    const seq = out.seq ?? this.next;
    const options: TcpOptions = { ...out.options };
    const stamped =
      this.timestampsOn && out.options?.timestamps === undefined && !flags.includes('S')
        ? { timestamps: [this.timestamp, this.echo] as const }
        : {};
    const segment: Segment = {
      srcPort: this.port,
      dstPort: this.#subject.port,
      seq: (this.iss + seq) >>> 0,
      ack: flags.includes('A') ? (Math.max(this.irs, 0) + (out.ack ?? this.expected)) >>> 0 : 0,
      flags,
      window: out.window ?? this.window,
      urgent: out.urgent ?? 0,
      options: { ...options, ...stamped },
      data,
    };
    if (out.seq === undefined) {
      this.next += data.length + (flags.includes('S') ? 1 : 0) + (flags.includes('F') ? 1 : 0);
    }
    this.log.push(`> ${this.#format(segment, true)}`);
    const beforeMs = this.#subject.nowMs;
    this.#subject.send(tcpFrame(this.#subject.peer, US, segment, out.lies));
    this.#markMs = [beforeMs, this.#subject.nowMs];
  }

  /** The next segment from the subject, within `waitMs`; null when none came. */
  async receive(waitMs = WAIT_MS): Promise<Segment | null> {
    const unread = this.#unread;
    this.#unread = null;
    if (unread !== null) return unread;
    const untilMs = this.#subject.nowMs + waitMs;
    for (;;) {
      const frame = await this.#subject.next(untilMs);
      if (frame === null) return null;
      const segment = parseTcp(frame);
      if (segment === null || segment.dstPort !== this.port) continue;
      assert.equal(segment.srcPort, this.#subject.port, 'the segment is from its port');
      this.#note(segment);
      return segment;
    }
  }

  async expect(expected: Expected = {}): Promise<Segment> {
    const [minMs, maxMs] = expected.within ?? [0, WAIT_MS];
    const [markFirstMs, markLastMs] = this.#markMs;
    const spentMs = this.#subject.nowMs - markLastMs;
    const segment = await this.receive(Math.max(0, maxMs + LATE_MS - spentMs));
    if (segment === null) this.#fail(`nothing came in ${maxMs} ms; expected`, expected);
    this.#compare(segment, expected);
    const [arrivedFirstMs, arrivedLastMs] = this.#subject.arrivalMs;
    const [leastMs, mostMs] = [arrivedFirstMs - markLastMs, arrivedLastMs - markFirstMs];
    if ((minMs > 0 && mostMs < minMs - CLOCKS_MS) || leastMs > maxMs + CLOCKS_MS) {
      this.#fail(
        `it came after ${leastMs.toFixed(1)}..${mostMs.toFixed(1)} ms; expected`,
        expected,
      );
    }
    this.#markMs = this.#subject.arrivalMs;
    return segment;
  }

  /** Pure acknowledgements, until `ack` is acknowledged: a receiver may send more of them than it must. */
  async expectAck(ack: number, withinMs = 500): Promise<Segment> {
    const untilMs = this.#subject.nowMs + withinMs + LATE_MS;
    for (;;) {
      const segment = await this.receive(Math.max(0, untilMs - this.#subject.nowMs));
      if (segment === null) this.#fail(`no acknowledgement within ${withinMs} ms of`, { ack });
      assert.equal(segment.data.length, 0, `no data in\n${this.log.join('\n')}`);
      if (this.relativeAck(segment) === ack) {
        this.#markMs = this.#subject.arrivalMs;
        return segment;
      }
      if (this.relativeAck(segment) > ack) this.#fail('it acknowledges more than', { ack });
    }
  }

  /** All data segments in order until `total` bytes have come (from the next expected one), each acknowledged or not. */
  async expectData(total: number, options: { ack?: boolean } = {}): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let got = 0;
    while (got < total) {
      const segment = await this.receive();
      if (segment === null) this.#fail(`${got} bytes came, expected`, { len: total });
      if (segment.data.length === 0) continue;
      parts.push(segment.data);
      got += segment.data.length;
      if (options.ack === true) this.send();
    }
    assert.equal(got, total, this.log.join('\n'));
    this.#markMs = [this.#subject.nowMs, this.#subject.nowMs];
    return Buffer.concat(parts);
  }

  /** Nothing may come for `ms`. What comes after that, and was only seen now, is for the next `expect`. */
  async expectNothing(ms = 100): Promise<void> {
    const untilMs = this.#subject.nowMs + ms;
    const segment = await this.receive(ms);
    if (segment === null) return;
    if (this.#subject.arrivalMs[1] <= untilMs) this.#fail(`nothing was to come in ${ms} ms`, {});
    this.#unread = segment;
  }

  /** For `ms`, no byte that has not been here before: what is not acknowledged may well come again. */
  async expectNothingNew(ms: number): Promise<void> {
    const { expected } = this;
    await this.drain(ms);
    if (this.expected !== expected) this.#fail(`nothing new was to come in ${ms} ms`, {});
  }

  /** Let `ms` pass, and take what comes. */
  async drain(ms: number): Promise<Segment[]> {
    const untilMs = this.#subject.nowMs + ms;
    const segments: Segment[] = [];
    for (;;) {
      const segment = await this.receive(Math.max(0, untilMs - this.#subject.nowMs));
      if (segment === null) break;
      segments.push(segment);
    }
    this.#markMs = [this.#subject.nowMs, this.#subject.nowMs];
    return segments;
  }

  relativeSeq(segment: Segment): number {
    return (segment.seq - Math.max(this.irs, 0)) >>> 0;
  }

  relativeAck(segment: Segment): number {
    return (segment.ack - this.iss) >>> 0;
  }

  /** Actively open; `options` are those of our SYN. */
  async open(options: TcpOptions = {}, synAck: Expected = {}): Promise<Segment> {
    this.send({ flags: 'S', options });
    const segment = await this.expect({ flags: 'SA', ack: this.next, ...synAck });
    this.timestampsOn =
      options.timestamps !== undefined && segment.options.timestamps !== undefined;
    this.send();
    return segment;
  }

  /** A SYN of theirs starts its numbers anew; in-order data and FIN advance `expected`. */
  #note(segment: Segment): void {
    if (segment.flags.includes('S')) {
      this.expected = segment.seq === this.irs ? Math.max(this.expected, 1) : 1;
      this.irs = segment.seq;
    }
    const stamps = segment.options.timestamps;
    if (stamps !== undefined) this.echo = stamps[0];
    const length = segment.data.length + (segment.flags.includes('F') ? 1 : 0);
    const seq = this.relativeSeq(segment);
    if (length > 0 && seq <= this.expected && seq + length > this.expected) {
      this.expected = seq + length;
    }
    const since = (this.#subject.arrivalMs[1] - this.#markMs[0]).toFixed(0);
    this.log.push(`< ${this.#format(segment, false)}   (${since} ms)`);
  }

  #format(segment: Segment, isOurs: boolean): string {
    const theirs = Math.max(this.irs, 0);
    return isOurs
      ? formatSegment(segment, this.iss, theirs)
      : formatSegment(segment, theirs, this.iss);
  }

  #compare(segment: Segment, expected: Expected): void {
    const { options } = segment;
    const without = (flags: string) =>
      expected.flags?.includes('P') === true ? flags : flags.replace('P', '');
    const found: Record<string, unknown> = {
      flags: without(segment.flags),
      seq: this.relativeSeq(segment),
      ack: this.relativeAck(segment),
      len: segment.data.length,
      data: Buffer.from(segment.data).toString('latin1'),
      mss: options.mss ?? null,
      sackPermitted: options.sackPermitted ?? false,
      sack: (options.sack ?? []).map((edges) => edges.map((edge) => (edge - this.iss) >>> 0)),
      windowScale: expected.windowScale === 'any' ? 'any' : (options.windowScale ?? null),
      timestamps: options.timestamps === undefined ? null : 'any',
      window: segment.window,
    };
    if (expected.windowScale === 'any' && options.windowScale === undefined)
      found.windowScale = null;
    for (const [key, value] of Object.entries(expected)) {
      if (key === 'within') continue;
      const isRight =
        typeof value === 'function'
          ? value(found[key])
          : JSON.stringify(found[key]) === JSON.stringify(value);
      if (!isRight) this.#fail(`${key} is ${JSON.stringify(found[key])}; expected`, expected);
    }
  }

  #fail(text: string, expected: Expected): never {
    assert.fail(`${text} ${JSON.stringify(expected)}\n${this.log.join('\n')}`);
  }
}

export class Script {
  readonly subject: Subject;
  readonly peer: Peer;
  listener: Listener | null = null;

  constructor(subject: Subject, iss = ISS) {
    this.subject = subject;
    this.peer = new Peer(subject, iss);
  }

  get isKernel(): boolean {
    return this.subject.name === 'kernel';
  }

  listen(options: { backlog?: number } = {}): Listener {
    this.listener = this.subject.listen(options);
    return this.listener;
  }

  /** An established connection that we opened; the application's end of it. */
  async established(options: TcpOptions = { mss: 1460 }): Promise<Socket> {
    this.listen();
    await this.peer.open(options);
    return this.accepted();
  }

  /** The one connection that the listener has given. */
  async accepted(): Promise<Socket> {
    await this.until(() => this.listener!.accepted.length > 0, 'a connection is accepted');
    return this.listener!.accepted[0]!;
  }

  /** The subject opened it, with `options` in our SYN-ACK. */
  async connected(options: TcpOptions = { mss: 1460 }): Promise<Socket> {
    const socket = this.subject.connect();
    const syn = await this.peer.expect({ flags: 'S' });
    this.peer.timestampsOn =
      options.timestamps !== undefined && syn.options.timestamps !== undefined;
    this.peer.send({ flags: 'SA', options });
    await this.peer.expect({ flags: 'A', ack: 1 });
    await this.until(() => socket.isOpen, 'the connection is open');
    return socket;
  }

  /** Let time pass until `holds`. Segments that come meanwhile stay for `expect`. */
  async until(holds: () => boolean, what: string, waitMs = WAIT_MS): Promise<void> {
    const untilMs = this.subject.nowMs + waitMs;
    while (!holds()) {
      if (this.subject.nowMs >= untilMs) assert.fail(`${what}\n${this.peer.log.join('\n')}`);
      await this.subject.pass(Math.min(5, untilMs - this.subject.nowMs));
    }
  }

  /** What the application has read, all of it. */
  async reads(socket: Socket, data: string | Uint8Array, waitMs = WAIT_MS): Promise<void> {
    const wanted = bytesOf(data);
    await this.until(() => socket.received.length >= wanted.length, 'the data is read', waitMs);
    assert.equal(Buffer.compare(socket.received, wanted), 0, 'what is read is what was sent');
  }
}

export interface Case {
  readonly name: string;
  /** Where it says so: `RFC 9293 3.10.7.4`. */
  readonly rfc: string;
  readonly run: (t: Script, peer: Peer) => Promise<void>;
  /** Subjects that do otherwise for a reason; `run` looks at `t.isKernel`, or they are left out. */
  readonly except?: { readonly subject: 'kernel' | 'extaris'; readonly why: string };
  readonly iss?: number;
  /** What Extaris does not do yet: the case runs, and its failure counts as something to do. */
  readonly todo?: string;
}
