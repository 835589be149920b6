/** Timers and loss: retransmission, recovery, first windows, keep-alives, user timeout, persistence. */
import assert from 'node:assert/strict';
import type { Segment } from '../../../support/tcp-segment.ts';
import { type Case, type Peer, pattern, type Script } from '../script.ts';
import type { Socket } from '../subject.ts';

const MSS = 1460;
const SACK = { mss: MSS, sackPermitted: true };

/** The subject opens, and the answer to its SYN takes `rttMs`: so much it then believes of the path. */
async function connectedSlowly(t: Script, peer: Peer, rttMs: number): Promise<Socket> {
  const socket = t.subject.connect();
  await peer.expect({ flags: 'S' });
  await t.subject.pass(rttMs);
  peer.send({ flags: 'SA', options: SACK });
  await peer.expect({ flags: 'A', ack: 1 });
  await t.until(() => socket.isOpen, 'it is open');
  return socket;
}

/** `count` full segments in flight, none acknowledged. */
async function inFlight(socket: Socket, peer: Peer, count: number): Promise<Segment[]> {
  socket.write(pattern(count * MSS));
  const segments: Segment[] = [];
  while (segments.length < count) segments.push(await peer.expect({ len: MSS }));
  return segments;
}

const start = (segment: number): number => 1 + segment * MSS;

export const TIMING: readonly Case[] = [
  {
    name: 'unacknowledged data is sent again, each time after twice the wait',
    rfc: 'RFC 6298 5.5, RFC 9293 MUST-20',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(10));
      await peer.expect({ seq: 1, len: 10 });
      const waits: number[] = [];
      for (let i = 0; i < 5; i++) {
        const fromMs = t.subject.nowMs;
        await peer.expect({ seq: 1, len: 10, within: [100, 16_000] });
        waits.push(t.subject.nowMs - fromMs);
        const [before, now] = [waits.at(-2), waits.at(-1)!];
        if (i >= 3) assert.ok(now / before! > 1.5 && now / before! < 2.6, waits.join(' '));
        if (now > 1500) break;
      }
    },
  },
  {
    name: 'the timeout is not shorter than the round trip',
    rfc: 'RFC 6298 2.2',
    run: async (t, peer) => {
      const socket = await connectedSlowly(t, peer, 300);
      socket.write(pattern(10));
      await peer.expect({ seq: 1, len: 10 });
      await peer.expectNothing(480);
      await peer.expect({ seq: 1, len: 10, within: [0, 2500] });
    },
  },
  {
    name: 'an ACK stops the timer',
    rfc: 'RFC 6298 5.2',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(10));
      await peer.expect({ seq: 1, len: 10 });
      peer.send();
      await peer.expectNothing(1200);
    },
  },
  {
    name: 'an ACK of a part restarts it for the rest',
    rfc: 'RFC 6298 5.3',
    run: async (t, peer) => {
      const socket = await t.established();
      await inFlight(socket, peer, 2);
      peer.send({ ack: start(1) });
      const again = await peer.expect({ within: [5, 2500] });
      assert.equal(peer.relativeSeq(again), start(1));
    },
  },
  {
    name: 'the first flight is no more than ten segments',
    rfc: 'RFC 6928 2',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(60_000));
      const first = await peer.drain(60);
      const bytes = first.reduce((sum, segment) => sum + segment.data.length, 0);
      assert.ok(bytes > 2 * MSS && bytes <= 10 * MSS, `${bytes} bytes`);
    },
  },
  {
    name: 'slow start: no more than twice as much after a round trip',
    rfc: 'RFC 5681 3.1',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(60_000));
      const first = await peer.drain(60);
      const bytes = first.reduce((sum, segment) => sum + segment.data.length, 0);
      peer.send();
      const second = await peer.drain(60);
      const more = second.reduce((sum, segment) => sum + segment.data.length, 0);
      assert.ok(more > bytes && more <= 2 * bytes + MSS, `${more} after ${bytes}`);
    },
  },
  {
    name: 'three duplicate ACKs: fast retransmission',
    rfc: 'RFC 5681 3.2, RFC 9293 SHLD..',
    run: async (t, peer) => {
      const socket = await connectedSlowly(t, peer, 200);
      await inFlight(socket, peer, 8);
      await t.subject.pass(60);
      peer.send({ ack: start(1) });
      for (let i = 0; i < 3; i++) {
        const edge = start(3 + i);
        peer.send({ ack: start(1), options: { sack: [[peer.irs + start(2), peer.irs + edge]] } });
      }
      await peer.expect({ seq: start(1), len: MSS, within: [0, 120] });
    },
  },
  {
    name: 'three duplicate ACKs without SACK',
    rfc: 'RFC 5681 3.2',
    run: async (t, peer) => {
      const socket = await t.established();
      await inFlight(socket, peer, 8);
      await t.subject.pass(60);
      peer.send({ ack: start(1) });
      for (let i = 0; i < 3; i++) peer.send({ ack: start(1) });
      await peer.expect({ seq: start(1), len: MSS, within: [0, 120] });
    },
  },
  {
    name: 'recovery by SACK sends what is missing, and only that',
    rfc: 'RFC 6675 5',
    run: async (t, peer) => {
      const socket = await connectedSlowly(t, peer, 250);
      await inFlight(socket, peer, 10);
      await t.subject.pass(60);
      const edges = (from: number, to: number) =>
        [peer.irs + start(from), peer.irs + start(to)] as const;
      for (let i = 6; i <= 10; i++) {
        peer.send({ ack: 1, options: { sack: [edges(5, i), edges(1, 4)] } });
      }
      const segments = await peer.drain(150);
      const starts = segments.map((segment) => peer.relativeSeq(segment)).sort((a, b) => a - b);
      assert.deepEqual([...new Set(starts)].slice(0, 2), [start(0), start(4)]);
      assert.ok(starts.every((seq) => [start(0), start(4)].includes(seq) || seq >= start(10)));
    },
  },
  {
    name: 'after a timeout one segment, then more as ACKs come',
    rfc: 'RFC 5681 3.1 (loss window)',
    run: async (t, peer) => {
      const socket = await connectedSlowly(t, peer, 60);
      await inFlight(socket, peer, 6);
      // Whatever comes before the timeout is a probe of the tail.
      let again = await peer.expect({ within: [50, 3000] });
      while (peer.relativeSeq(again) !== 1) again = await peer.expect({ within: [0, 3000] });
      await peer.expectNothing(50);
      peer.send({ ack: start(1) });
      const next = await peer.drain(50);
      assert.ok(next.length >= 1 && next.length <= 4, `${next.length} segments`);
    },
  },
  {
    name: 'tail loss probe: the last segment again, before the timeout',
    rfc: 'RFC 8985 7',
    run: async (t, peer) => {
      const socket = await connectedSlowly(t, peer, 150);
      await inFlight(socket, peer, 4);
      const probe = await peer.expect({ within: [200, 1500] });
      assert.equal(peer.relativeSeq(probe), start(3));
    },
  },
  {
    name: 'keep-alive is off unless asked for',
    rfc: 'RFC 9293 3.8.4 MUST-25',
    run: async (t, peer) => {
      await t.established();
      await peer.expectNothing(2500);
    },
  },
  {
    name: 'keep-alive: a probe of the number before the next',
    rfc: 'RFC 9293 3.8.4',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.keepAlive(1, 1, 3);
      const first = await peer.expect({ flags: 'A', seq: 0, within: [900, 2200] });
      assert.ok(first.data.length <= 1);
      peer.send();
      await peer.expect({ flags: 'A', seq: 0, within: [900, 2200] });
      peer.send();
      assert.equal(socket.failure, null);
    },
  },
  {
    name: 'keep-alive: unanswered probes end the connection',
    rfc: 'RFC 9293 3.8.4',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.keepAlive(1, 1, 2);
      await peer.expect({ flags: 'A', seq: 0, within: [900, 2200] });
      await peer.expect({ flags: 'A', seq: 0, within: [900, 2200] });
      await t.until(() => socket.failure !== null, 'it fails', 3000);
      assert.equal(socket.failure, 'timedOut');
    },
  },
  {
    name: 'a probe of a keep-alive is answered',
    rfc: 'RFC 9293 3.8.4, 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ data: 'abc' });
      await peer.expectAck(4);
      peer.send({ seq: 3 });
      await peer.expect({ flags: 'A', ack: 4, len: 0 });
      peer.send({ seq: 3, data: 'x' });
      await peer.expect({ flags: 'A', ack: 4, len: 0 });
      await t.reads(socket, 'abc');
    },
  },
  {
    name: 'the user timeout ends a connection that is not answered',
    rfc: 'RFC 9293 3.8.3 MUST-20d, RFC 5482',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.userTimeout(1200);
      socket.write(pattern(10));
      await peer.expect({ len: 10 });
      await t.until(() => socket.failure !== null, 'it fails', 4500);
      assert.equal(socket.failure, 'timedOut');
    },
  },
  {
    name: 'a closed window is probed more and more slowly, and for as long as it is answered',
    rfc: 'RFC 9293 3.8.6.1 MUST-37, SHLD-30',
    run: async (t, peer) => {
      t.listen();
      peer.window = 0;
      await peer.open();
      const socket = await t.accepted();
      socket.write(pattern(100));
      const waits: number[] = [];
      for (let i = 0; i < 4; i++) {
        const fromMs = t.subject.nowMs;
        await peer.expect({ within: [100, 8000] });
        waits.push(t.subject.nowMs - fromMs);
        peer.send({ ack: 1, window: 0 });
        if (waits.at(-1)! > 1500) break;
      }
      assert.ok(waits.at(-1)! > 1.4 * waits[0]!, waits.join(' '));
      assert.equal(socket.failure, null);
    },
  },
];
