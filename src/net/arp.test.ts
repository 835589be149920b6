/** The neighbour cache by state (RFC 826; the states are drawn in arp.ts). Times are milliseconds since the start. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeQueue } from '../../test/support/fake-queue.ts';
import {
  arpFrame,
  FAR,
  type Host,
  OTHER,
  PEER,
  toHex,
  US,
  viewOfBytes,
} from '../../test/support/frames.ts';
import { OP_REPLY, OP_REQUEST } from '../wire/arp.ts';
import { formatFrame } from '../wire/format.ts';
import { NetInterface } from './interface.ts';
import { NET_LIMITS } from './limits.ts';
import { UDP_PAYLOAD_OFFSET } from './udp.ts';

const RETRY = NET_LIMITS.arpRetryMs;
const LIAR: Host = { mac: 0x020000000066, ip: PEER.ip };
const WHO_HAS = 'ARP who-has 10.0.0.1 tell 10.0.0.2';
const UNANSWERED = NET_LIMITS.arpTriesMax * RETRY;

class Stack {
  readonly queue = new FakeQueue();
  readonly net = new NetInterface({
    queue: this.queue,
    mac: US.mac,
    address: US.ip,
    prefix: 24,
    gateway: OTHER.ip,
  });

  /** Send a datagram of one byte, `mark`, and run a turn. */
  send(nowMs: number, mark = 0, ip = PEER.ip): this {
    this.net.poll(nowMs);
    const frame = this.net.udp.alloc();
    this.queue.memory.u8[frame + UDP_PAYLOAD_OFFSET] = mark;
    this.net.udp.sendTo(frame, 1, 7, ip, 1024);
    this.net.poll(nowMs);
    return this;
  }

  receive(nowMs: number, bytes: Uint8Array): this {
    this.queue.inject(bytes);
    this.net.poll(nowMs);
    return this;
  }

  turn(nowMs: number): this {
    this.net.poll(nowMs);
    return this;
  }

  /** What was sent since the last look, a line a frame; a datagram with its destination MAC's last byte and its mark. */
  expectSent(...lines: string[]): this {
    const sent = this.queue.takeSent().map((f) => {
      const isUdp = f[12] === 8 && f[13] === 0;
      if (!isUdp) return formatFrame(viewOfBytes(f), 0, f.length);
      return `udp ${f[UDP_PAYLOAD_OFFSET]} to ${f[5]?.toString(16)}`;
    });
    assert.deepEqual(sent, lines);
    return this;
  }

  expectState(state: string, ip = PEER.ip): this {
    assert.equal(this.net.neighbourState(ip), state);
    return this;
  }

  expectAllFrames(): void {
    assert.equal(this.queue.framesAvailable, this.queue.memory.frameCount);
  }
}

const free = () => new Stack();
const incomplete = () => new Stack().send(0).expectSent(WHO_HAS).expectState('incomplete');
const reachable = () =>
  incomplete()
    .receive(5, arpFrame(OP_REPLY, PEER, US))
    .expectSent('udp 0 to 1')
    .expectState('reachable');
const stale = () =>
  reachable()
    .receive(10, arpFrame(OP_REPLY, LIAR, US))
    .expectState('stale');

describe('free', () => {
  test('a request for our address is answered in place, bit for bit, and teaches', () => {
    const s = free().receive(0, arpFrame(OP_REQUEST, PEER, US));
    assert.equal(
      toHex(s.queue.sent[0]!),
      '020000000001020000000002080600010800060400020200000000020a0000020200000000010a000001',
    );
    s.expectState('reachable').expectAllFrames();
  });

  test('a request for another address, and gratuitous ARP, teach nothing', () => {
    free()
      .receive(0, arpFrame(OP_REQUEST, PEER, OTHER))
      .expectSent()
      .expectState('free');
    free()
      .receive(0, arpFrame(OP_REQUEST, PEER, PEER))
      .expectSent()
      .expectState('free');
    free()
      .receive(0, arpFrame(OP_REPLY, PEER, PEER))
      .expectSent()
      .expectState('free');
  });

  test('a reply that nobody asked for teaches nothing', () => {
    free()
      .receive(0, arpFrame(OP_REPLY, PEER, US))
      .expectState('free')
      .expectAllFrames();
  });

  test('a probe (RFC 5227) is answered, and teaches nothing', () => {
    const probe = free().receive(0, arpFrame(OP_REQUEST, { mac: PEER.mac, ip: 0 }, US));
    probe.expectSent('ARP 10.0.0.2 is-at 02:00:00:00:00:02').expectState('free', 0);
  });

  test('a stranger to the subnet is answered, and is no neighbour', () => {
    const s = free().receive(0, arpFrame(OP_REQUEST, FAR, US));
    s.expectSent('ARP 10.0.0.2 is-at 02:00:00:00:00:02').expectState('free', FAR.ip);
  });

  test('somebody with our address is counted', () => {
    const s = free().receive(0, arpFrame(OP_REQUEST, { mac: OTHER.mac, ip: US.ip }, US));
    s.expectSent().expectAllFrames();
    assert.equal(s.net.counters.arpConflict, 1);
  });

  test('a group address as sender is malformed', () => {
    const bytes = arpFrame(OP_REQUEST, PEER, US);
    bytes[22] = 0xff;
    assert.equal(free().receive(0, bytes).expectSent().net.counters.badArp, 1);
  });
});

describe('incomplete', () => {
  test('asked once a second, and given up after three', () => {
    const s = incomplete();
    assert.equal(s.net.nextTimerMs, RETRY);
    s.turn(RETRY - 1).expectSent();
    s.turn(RETRY).expectSent(WHO_HAS);
    s.turn(2 * RETRY).expectSent(WHO_HAS);
    s.turn(UNANSWERED).expectSent().expectState('free').expectAllFrames();
    assert.equal(s.net.counters.arpFailed, 1);
    assert.equal(s.net.nextTimerMs, Number.POSITIVE_INFINITY);
  });

  test('more frames do not ask more often; the newest four wait, and leave in order', () => {
    const s = incomplete();
    for (let mark = 1; mark <= 5; mark++) s.send(mark, mark);
    s.expectSent();
    assert.equal(s.net.counters.arpPendingFull, 2);
    s.receive(9, arpFrame(OP_REPLY, PEER, US));
    s.expectSent('udp 2 to 1', 'udp 3 to 1', 'udp 4 to 1', 'udp 5 to 1').expectAllFrames();
  });

  test("the neighbour's own request answers it too; gratuitous ARP does not", () => {
    const claim = incomplete()
      .receive(1, arpFrame(OP_REPLY, LIAR, LIAR))
      .expectSent();
    claim.expectState('incomplete').receive(2, arpFrame(OP_REQUEST, PEER, US));
    claim.expectSent('udp 0 to 1', 'ARP 10.0.0.2 is-at 02:00:00:00:00:02').expectAllFrames();
  });

  test('without a frame to ask with, it is counted, and asked later', () => {
    const s = new Stack();
    const last = s.net.udp.alloc();
    const taken: number[] = [];
    while (s.queue.framesAvailable > 0) taken.push(s.net.udp.alloc());
    s.net.udp.sendTo(last, 1, 7, PEER.ip, 1024);
    s.turn(0).expectSent().expectState('incomplete');
    assert.equal(s.net.counters.noFrame, 1);
    for (const frame of taken) s.net.udp.free(frame);
    s.turn(RETRY).expectSent(WHO_HAS);
  });

  test('a scan of dead addresses cannot keep more than its share of frames', () => {
    const s = new Stack();
    for (let host = 10; host < 250; host++) s.send(0, 0, (PEER.ip & ~255) | host);
    const waiting = s.queue.memory.frameCount - s.queue.framesAvailable;
    assert.ok(waiting <= NET_LIMITS.arpPendingMax, `${waiting} frames wait`);
    s.turn(RETRY)
      .turn(2 * RETRY)
      .turn(UNANSWERED)
      .expectAllFrames();
  });
});

describe('reachable', () => {
  test('frames go at once, and nothing is asked', () => {
    reachable().send(20, 1).expectSent('udp 1 to 1').turn(RETRY).expectSent().expectAllFrames();
  });

  test('after a minute it is asked for again, while it serves on', () => {
    const old = 5 + NET_LIMITS.arpReachableMs;
    const s = reachable()
      .send(old - 1, 1)
      .expectSent('udp 1 to 1');
    s.send(old, 2).expectSent('udp 2 to 1', WHO_HAS).expectState('stale');
    s.receive(old + 1, arpFrame(OP_REPLY, PEER, US)).expectState('reachable');
  });

  test('its own gratuitous ARP, or any ARP of it, refreshes it', () => {
    const s = reachable()
      .receive(50_000, arpFrame(OP_REQUEST, PEER, OTHER))
      .expectSent();
    s.send(5 + NET_LIMITS.arpReachableMs, 1).expectSent('udp 1 to 1');
  });

  test('another MAC does not replace it, by reply, request or gratuitously: it turns stale', () => {
    for (const target of [US, OTHER, LIAR]) {
      for (const op of [OP_REPLY, OP_REQUEST]) {
        const s = reachable()
          .receive(10, arpFrame(op, LIAR, target))
          .expectState('stale');
        s.queue.takeSent();
        s.send(11, 1).expectSent('udp 1 to 1', WHO_HAS);
      }
    }
  });
});

describe('stale', () => {
  test('the next use asks, once a second, and the MAC serves on', () => {
    const s = stale().send(11, 1).expectSent('udp 1 to 1', WHO_HAS);
    s.send(12, 2)
      .expectSent('udp 2 to 1')
      .turn(11 + RETRY)
      .expectSent(WHO_HAS);
  });

  test('the answer counts, whoever it is now', () => {
    const s = stale().send(11, 1).expectSent('udp 1 to 1', WHO_HAS);
    s.receive(12, arpFrame(OP_REPLY, LIAR, US)).expectState('reachable');
    s.send(13, 2).expectSent('udp 2 to 66');
  });

  test('no answer forgets it', () => {
    const s = stale().send(11, 1);
    s.turn(11 + RETRY)
      .turn(11 + 2 * RETRY)
      .turn(11 + UNANSWERED)
      .expectState('free');
    s.expectAllFrames();
  });
});

describe('permanent', () => {
  test('nothing received changes it, and it is never asked for', () => {
    const s = new Stack();
    s.net.setNeighbour(PEER.ip, PEER.mac);
    for (const target of [US, OTHER]) {
      s.receive(1, arpFrame(OP_REQUEST, LIAR, target)).receive(2, arpFrame(OP_REPLY, LIAR, target));
    }
    s.queue.takeSent();
    s.send(100_000, 1).expectSent('udp 1 to 1').expectState('permanent');
  });

  test('a flood of neighbours displaces others, never it', () => {
    const s = new Stack();
    s.net.setNeighbour(PEER.ip, PEER.mac);
    for (let i = 0; i < 2000; i++) {
      const ip = (PEER.ip & ~255) | (i % 253);
      if (ip !== US.ip) s.receive(i, arpFrame(OP_REQUEST, { mac: OTHER.mac, ip }, US));
    }
    s.expectState('permanent').expectAllFrames();
  });

  test('there is room for a few in a set, and then none', () => {
    const s = new Stack();
    assert.throws(
      () => {
        for (let i = 0; i <= NET_LIMITS.arpSets * NET_LIMITS.arpWays; i++) {
          s.net.setNeighbour(0x0b000000 + i, OTHER.mac);
        }
      },
      { code: 'ARK_LIMIT' },
    );
  });
});

test('off the subnet, the gateway is asked for', () => {
  const s = new Stack().send(0, 1, FAR.ip).expectSent('ARP who-has 10.0.0.9 tell 10.0.0.2');
  s.receive(1, arpFrame(OP_REPLY, OTHER, US))
    .expectSent('udp 1 to 9')
    .expectAllFrames();
});
