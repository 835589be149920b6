/**
 * A host with Extaris on a device without a network, and peers that speak to it in raw segments: each can bring a
 * connection into any state by the right segments, from where a test goes on with wrong ones.
 */
import assert from 'node:assert/strict';
import { formatIpv4 } from '../../../src/base/address.ts';
import { RX_OUTCOMES } from '../../../src/net/counters.ts';
import { NetInterface } from '../../../src/net/interface.ts';
import type { TcpConnection, TcpEnd, TcpHandlers } from '../../../src/net/tcp/api.ts';
import { FakeQueue } from '../../support/fake-queue.ts';
import { type Host, PEER, US } from '../../support/frames.ts';
import { parseTcp, type Segment, tcpFrame } from '../../support/tcp-segment.ts';

export const PORT = 80;
const FRAMES = 512;
/** What one frame may set off at most: a flight of data that an acknowledgement lets go. */
const ANSWERS_MAX = 300;
const TURNS_MAX = 100;

/** The application's end: it keeps what comes, and can say things. */
export class Owner {
  connection: TcpConnection | null = null;
  received = 0;
  last = '';
  closedAs: TcpEnd | null = null;
  readonly handlers: TcpHandlers;

  constructor(queue: FakeQueue, echoes: boolean) {
    this.handlers = {
      onData: (connection, _frame, at, length) => {
        this.received += length;
        const bytes = queue.memory.u8.slice(at, at + length);
        this.last = Buffer.from(bytes.subarray(-64)).toString('latin1');
        if (echoes) connection.write(bytes, 0, bytes.length);
      },
      onClose: (_connection, why) => {
        this.connection = null;
        this.closedAs = why;
      },
    };
  }
}

export class FuzzHost {
  readonly queue = new FakeQueue({ frameCount: FRAMES });
  readonly net: NetInterface;
  nowMs = 50_000;
  received = 0;
  /** Connections that the listener has given, newest last. */
  readonly owners: Owner[] = [];
  #nextOwner: Owner | null = null;

  constructor(options: { backlog?: number } = {}) {
    this.net = new NetInterface({
      queue: this.queue,
      mac: US.mac,
      address: US.ip,
      prefix: 24,
      gateway: PEER.ip,
      secret: Int32Array.of(1, 2, 3, 4),
    });
    this.net.setNeighbour(PEER.ip, PEER.mac);
    this.net.tcp.listen({
      port: PORT,
      ...options,
      onConnection: (connection) => {
        const owner = this.#nextOwner ?? new Owner(this.queue, true);
        owner.connection = connection;
        this.owners.push(owner);
        return owner.handlers;
      },
    });
  }

  /** The next connection of the listener is this owner's. */
  expect(owner: Owner | null): void {
    this.#nextOwner = owner;
  }

  /** Receive a frame, and look at everything that is sent because of it. */
  inject(frame: Uint8Array): Segment[] {
    this.queue.inject(frame);
    this.received++;
    return this.turn();
  }

  /** Let time pass from timer to timer. */
  pass(ms: number): Segment[] {
    const untilMs = this.nowMs + ms;
    const segments: Segment[] = [];
    while (this.net.nextTimerMs <= untilMs) {
      this.nowMs = Math.max(this.nowMs, this.net.nextTimerMs);
      segments.push(...this.turn());
    }
    this.nowMs = untilMs;
    return segments;
  }

  turn(): Segment[] {
    const segments: Segment[] = [];
    for (let turn = 0; this.net.poll(this.nowMs) > 0; turn++) {
      assert.ok(turn < TURNS_MAX, 'the stack comes to rest');
      for (const bytes of this.queue.takeSent()) {
        const segment = parseTcp(bytes);
        if (segment !== null) segments.push(segment);
      }
    }
    assert.ok(segments.length <= ANSWERS_MAX, `${segments.length} answers`);
    return segments;
  }

  /** End all connections of the listener but those of `kept`: wrong segments may have opened some. */
  abortAllBut(kept: Owner | null): void {
    for (const owner of this.owners) if (owner !== kept) owner.connection?.abort();
    this.owners.length = 0;
    if (kept !== null) this.owners.push(kept);
    this.turn();
  }

  /** Nothing is out but what connections that live on have. */
  checkAtRest(): void {
    assert.equal(this.queue.framesAvailable, FRAMES, 'every frame is back');
    const { counters } = this.net;
    const outcomes = RX_OUTCOMES.reduce((sum, name) => sum + counters[name], 0);
    assert.equal(counters.rxFrames, this.received);
    assert.equal(outcomes, this.received, 'each frame has one outcome');
  }
}

export const STATES = [
  'closed',
  'listen',
  'synSent',
  'synReceived',
  'established',
  'finWait1',
  'finWait2',
  'closeWait',
  'closing',
  'lastAck',
  'timeWait',
] as const;
export type StateName = (typeof STATES)[number];

/** A peer's view of one connection; absolute numbers. */
export class RawPeer {
  readonly host: FuzzHost;
  readonly from: Host;
  readonly port: number;
  toPort = PORT;
  seq: number;
  ack = 0;
  owner: Owner;
  options: Segment['options'] = { mss: 1460, sackPermitted: true, windowScale: 4 };

  constructor(host: FuzzHost, from: Host, port: number, seq: number, echoes = false) {
    this.host = host;
    this.from = from;
    this.port = port;
    this.seq = seq >>> 0;
    this.owner = new Owner(host.queue, echoes);
  }

  frame(segment: Partial<Segment>): Uint8Array {
    const ports = { srcPort: this.port, dstPort: this.toPort };
    return tcpFrame(this.from, US, { seq: this.seq, ack: this.ack, ...segment, ...ports });
  }

  /** Send the right next segment; what is sent back to this peer is taken note of. */
  send(segment: Partial<Segment> = {}): Segment[] {
    const frame = this.frame(segment);
    const flags = segment.flags ?? 'A';
    const space = (flags.includes('S') ? 1 : 0) + (flags.includes('F') ? 1 : 0);
    this.seq = (this.seq + space + (segment.data?.length ?? 0)) >>> 0;
    return this.note(this.host.inject(frame));
  }

  note(segments: Segment[]): Segment[] {
    const ours = segments.filter(({ dstPort }) => dstPort === this.port);
    for (const { seq, flags, data } of ours) {
      const space = (flags.includes('S') ? 1 : 0) + (flags.includes('F') ? 1 : 0);
      const end = (seq + space + data.length) >>> 0;
      if (flags.includes('S') || (end - this.ack) >>> 0 < 2 ** 31) this.ack = end;
    }
    return ours;
  }

  open(): void {
    this.host.expect(this.owner);
    const [synAck] = this.send({ flags: 'S', options: this.options });
    assert.equal(synAck?.flags, 'SA');
    this.send();
    this.host.expect(null);
    assert.ok(this.owner.connection !== null, 'it is open');
  }

  enter(state: StateName): void {
    if (state === 'closed') this.toPort = 9999;
    else if (state === 'synSent') this.#connect();
    else if (state === 'synReceived') this.send({ flags: 'S', options: this.options });
    else if (state !== 'listen') this.#enterOpen(state);
  }

  /** The connection goes, whatever has become of it, and all others but that of `kept`. */
  leave(kept: Owner | null = null): void {
    this.owner.connection?.abort();
    this.host.abortAllBut(kept);
    this.host.pass(200_000);
  }

  #connect(): void {
    this.toPort = 40_000;
    this.owner.connection = this.host.net.tcp.connect({
      address: formatIpv4(this.from.ip),
      port: this.port,
      localPort: this.toPort,
      handlers: this.owner.handlers,
    });
    this.note(this.host.turn());
  }

  #enterOpen(state: StateName): void {
    this.open();
    const end = () => {
      this.owner.connection?.end();
      this.note(this.host.turn());
    };
    if (state === 'closeWait' || state === 'lastAck') this.send({ flags: 'FA' });
    if (state === 'established' || state === 'closeWait') return;
    const before = this.ack;
    end();
    if (state === 'finWait2' || state === 'timeWait') this.send();
    if (state === 'closing') this.send({ flags: 'FA', ack: before });
    if (state === 'timeWait') this.send({ flags: 'FA' });
  }
}
