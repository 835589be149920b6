/** Data in ESTABLISHED: order, acknowledgements, windows, Nagle, silly windows, urgent data, numbers that wrap. */
import assert from 'node:assert/strict';
import { type Case, type Peer, pattern, type Script } from '../script.ts';
import type { Socket } from '../subject.ts';

const SACK = { mss: 1460, sackPermitted: true };
const MSS = 1460;

/** Established with a window of ours of `window` bytes from the first segment on. */
async function withWindow(t: Script, peer: Peer, window: number): Promise<Socket> {
  t.listen();
  peer.window = window;
  await peer.open({ mss: MSS });
  return t.accepted();
}

/** Send until the subject, whose application does not read, closes its window; how many bytes that took. */
async function fill(peer: Peer): Promise<number> {
  let sent = 0;
  let window = 65535;
  while (window > 0) {
    assert.ok(sent < 2_000_000, 'the window closes');
    const length = Math.min(window, MSS);
    peer.send({ data: pattern(length, sent) });
    sent += length;
    const answers = await peer.drain(0);
    const last = answers.length > 0 ? answers.at(-1)! : await peer.expectAck(sent + 1);
    const acked = peer.relativeAck(last) - 1;
    window = last.window - (sent - acked);
    if (window > 0 && window < MSS && acked < sent) {
      window = (await peer.expectAck(sent + 1)).window;
    }
  }
  return sent;
}

export const DATA: readonly Case[] = [
  {
    name: 'in order, with and without PSH',
    rfc: 'RFC 9293 3.10.7.4 MUST-67',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ data: 'abc' });
      peer.send({ flags: 'PA', data: 'def' });
      await peer.expectAck(7);
      await t.reads(socket, 'abcdef');
    },
  },
  {
    name: 'one segment is acknowledged within half a second',
    rfc: 'RFC 9293 3.8.6.3 MUST-58, RFC 1122 4.2.3.2',
    run: async (t, peer) => {
      await t.established();
      for (let i = 0; i < 30; i++) {
        const startMs = t.subject.nowMs;
        peer.send({ data: 'x' });
        await peer.expectAck(peer.next);
        const tookMs = t.subject.nowMs - startMs;
        // Loaded machines are late, but not every time.
        if (i > 20 && tookMs < 500) return;
      }
      assert.fail('no acknowledgement was in time');
    },
  },
  {
    name: 'every second full segment is acknowledged at once',
    rfc: 'RFC 9293 3.8.6.3 MUST-59, RFC 5681 4.2',
    run: async (t, peer) => {
      await t.established();
      for (let i = 0; i < 10; i++) {
        peer.send({ data: pattern(MSS) });
        peer.send({ data: pattern(MSS) });
        let acked = 0;
        for (const ack of await peer.drain(30)) acked = Math.max(acked, peer.relativeAck(ack));
        assert.ok(acked >= peer.next - MSS, 'no more than one segment is left unacknowledged');
      }
    },
  },
  {
    name: 'out of order: an immediate duplicate ACK, then all in order',
    rfc: 'RFC 5681 4.2, RFC 9293 SHLD-31',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ seq: 4, data: 'def' });
      await peer.expect({ flags: 'A', ack: 1, len: 0, within: [0, 100] });
      peer.send({ seq: 1, data: 'abc' });
      await peer.expect({ flags: 'A', ack: 7, len: 0, within: [0, 100] });
      await t.reads(socket, 'abcdef');
    },
  },
  {
    name: 'out of order: SACK says what is there, the newest block first',
    rfc: 'RFC 2018 4',
    run: async (t, peer) => {
      await t.established(SACK);
      peer.send({ seq: 11, data: pattern(10) });
      await peer.expect({ ack: 1, sack: [[11, 21]] });
      peer.send({ seq: 31, data: pattern(10) });
      await peer.expect({
        ack: 1,
        sack: [
          [31, 41],
          [11, 21],
        ],
      });
      peer.send({ seq: 51, data: pattern(10) });
      await peer.expect({
        ack: 1,
        sack: [
          [51, 61],
          [31, 41],
          [11, 21],
        ],
      });
      peer.send({ seq: 21, data: pattern(10) });
      await peer.expect({
        ack: 1,
        sack: [
          [11, 41],
          [51, 61],
        ],
      });
      peer.send({ seq: 1, data: pattern(10) });
      await peer.expect({ ack: 41, sack: [[51, 61]] });
      peer.send({ seq: 41, data: pattern(10) });
      await peer.expect({ ack: 61, sack: [] });
    },
  },
  {
    name: 'many holes: nothing is lost, whatever the order',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established(SACK);
      const whole = pattern(4000);
      for (let at = 100; at < 4000; at += 200) {
        peer.send({ seq: 1 + at, data: whole.subarray(at, at + 100) });
      }
      await peer.drain(20);
      for (let at = 3800; at >= 0; at -= 200) {
        peer.send({ seq: 1 + at, data: whole.subarray(at, at + 100) });
      }
      await peer.expectAck(4001);
      await t.reads(socket, whole);
    },
  },
  {
    name: 'a duplicate is acknowledged at once and not delivered again',
    rfc: 'RFC 9293 3.10.7.4 MUST-60..',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ data: 'abc' });
      await peer.expectAck(4);
      peer.send({ seq: 1, data: 'abc' });
      await peer.expect({ flags: 'A', ack: 4, within: [0, 100] });
      await t.reads(socket, 'abc');
    },
  },
  {
    name: 'a duplicate is reported by D-SACK',
    rfc: 'RFC 2883 4',
    run: async (t, peer) => {
      await t.established(SACK);
      peer.send({ data: pattern(10) });
      await peer.expectAck(11);
      peer.send({ seq: 1, data: pattern(10) });
      await peer.expect({ ack: 11, sack: [[1, 11]] });
    },
  },
  {
    name: 'an overlap on the left: only what is new counts',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ data: 'abcdef' });
      await peer.expectAck(7);
      peer.send({ seq: 4, data: 'defghi' });
      await peer.expectAck(10);
      await t.reads(socket, 'abcdefghi');
    },
  },
  {
    name: 'overlaps out of order, on both sides and around',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established(SACK);
      const whole = pattern(1000);
      const part = (from: number, to: number) =>
        peer.send({ seq: 1 + from, data: whole.subarray(from, to) });
      part(300, 400);
      part(350, 450);
      part(250, 320);
      part(600, 610);
      part(590, 700);
      part(280, 650);
      part(900, 1000);
      part(0, 260);
      part(650, 950);
      await peer.expectAck(1001);
      await t.reads(socket, whole);
    },
  },
  {
    name: 'a segment wholly beyond the window is dropped with an ACK',
    rfc: 'RFC 9293 3.10.7.4 MUST-60',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ seq: 1 + 2_000_000, data: 'far' });
      await peer.expect({ flags: 'A', ack: 1, len: 0 });
      peer.send({ data: 'near' });
      await peer.expectAck(5);
      await t.reads(socket, 'near');
    },
  },
  {
    name: 'a segment wholly before the window is dropped with an ACK',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ seq: -5000, data: 'old' });
      await peer.expect({ flags: 'A', ack: 1, len: 0 });
      assert.equal(socket.received.length, 0);
    },
  },
  {
    name: 'the receive window closes, answers probes, and opens',
    rfc: 'RFC 9293 3.8.6.1 MUST-36, 3.8.6.2.2',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.pause();
      const sent = await fill(peer);
      peer.send({ seq: sent + 1, data: '!' });
      const probed = await peer.expect({ flags: 'A', len: 0 });
      assert.ok(peer.relativeAck(probed) <= sent + 2);
      const kept = peer.relativeAck(probed) - 1;
      socket.resume();
      await peer.drain(50);
      peer.next = kept + 1;
      peer.send({ data: pattern(10, kept) });
      await peer.expectAck(kept + 11);
      assert.equal(socket.received.length, kept + 10);
    },
  },
  {
    name: 'the application reads: a window update without being asked',
    rfc: 'RFC 9293 3.8.6.2.2',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.pause();
      const sent = await fill(peer);
      socket.resume();
      const update = await peer.expect({ flags: 'A', ack: sent + 1, len: 0, within: [0, 200] });
      assert.ok(update.window >= MSS, 'and not a silly one');
    },
  },
  {
    name: 'the right edge of the window never moves back',
    rfc: 'RFC 9293 3.8.6 SHLD-14',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.pause();
      let edge = 0;
      for (let sent = 0; sent < 20_000; sent += 500) {
        peer.send({ data: pattern(500, sent) });
        for (const ack of await peer.drain(0)) {
          const right = peer.relativeAck(ack) + ack.window;
          assert.ok(right >= edge, `${right} after ${edge}`);
          edge = right;
        }
      }
    },
  },
  {
    name: 'an ACK of what was never sent is answered and dropped',
    rfc: 'RFC 9293 3.10.7.4, RFC 5961 5',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ seq: 1, ack: 5000, data: 'abc' });
      await peer.expect({ flags: 'A', seq: 1, ack: 1, len: 0 });
      assert.equal(socket.received.length, 0);
    },
  },
  {
    name: 'an old ACK with new data: the data counts',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(100));
      await peer.expect({ len: 100 });
      peer.send();
      peer.send({ ack: 51, data: 'abc' });
      await peer.expectAck(4);
      await t.reads(socket, 'abc');
    },
  },
  {
    name: 'a segment without ACK is dropped',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: '', seq: 1, data: 'abc' });
      peer.send({ flags: 'F', seq: 1, data: 'abc' });
      peer.send({ flags: 'PU', seq: 1, data: 'abc', urgent: 1 });
      await peer.expectNothing();
      assert.equal(socket.received.length, 0);
      assert.equal(socket.ended, false);
    },
  },
  {
    name: 'a wrong checksum: silence',
    rfc: 'RFC 9293 3.1 MUST-3',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ seq: 1, data: 'abc', lies: { checksum: 1 } });
      peer.send({ flags: 'RA', seq: 1, lies: { checksum: 0x100 } });
      await peer.expectNothing();
      assert.equal(socket.received.length, 0);
      assert.equal(socket.failure, null);
    },
  },
  {
    name: 'reserved bits and ECN flags do no harm',
    rfc: 'RFC 9293 3.1',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'APEC', data: 'abc' });
      await peer.expectAck(4);
      await t.reads(socket, 'abc');
    },
  },
  {
    name: 'urgent data is data',
    rfc: 'RFC 9293 3.8.5 MUST-31, RFC 6093',
    except: { subject: 'kernel', why: 'without SO_OOBINLINE the last urgent byte is read apart' },
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'PUA', data: 'abc', urgent: 3 });
      await peer.expectAck(4);
      peer.send({ flags: 'A', data: 'def' });
      await peer.expectAck(7);
      await t.reads(socket, t.isKernel ? 'abdef' : 'abcdef');
    },
  },
  {
    name: 'an urgent pointer far beyond the data does no harm',
    rfc: 'RFC 9293 3.8.5',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'UA', data: 'abc', urgent: 65535 });
      await peer.expectAck(4);
      peer.send({ data: 'def' });
      await peer.expectAck(7);
      await t.reads(socket, 'abcdef');
    },
  },
  {
    name: "never more than the peer's window",
    rfc: 'RFC 9293 3.8.6',
    run: async (t, peer) => {
      const socket = await withWindow(t, peer, 1000);
      socket.write(pattern(5000));
      await peer.drain(100);
      assert.equal(peer.expected, 1001);
    },
  },
  {
    name: 'a closed window is probed, and an opened one used',
    rfc: 'RFC 9293 3.8.6.1 MUST-35, MUST-36',
    run: async (t, peer) => {
      const socket = await withWindow(t, peer, 1000);
      socket.write(pattern(3000));
      await peer.expectData(1000);
      peer.send({ window: 0 });
      const probe = await peer.expect({ within: [100, 1500] });
      assert.ok(probe.data.length <= 1, 'a probe is small');
      peer.send({ window: 0, ack: 1001 });
      await peer.expect({ within: [100, 3000] });
      peer.send({ window: 65535, ack: 1001 });
      peer.expected = 1001;
      await peer.expectData(2000, { ack: true });
    },
  },
  {
    name: 'a window of zero from the start',
    rfc: 'RFC 9293 3.8.6.1',
    run: async (t, peer) => {
      const socket = await withWindow(t, peer, 0);
      socket.write(pattern(100));
      const probe = await peer.expect({ within: [100, 1500] });
      assert.ok(probe.data.length <= 1);
      peer.window = 65535;
      peer.expected = 1;
      peer.send();
      const data = await peer.expectData(100);
      assert.deepEqual(data, Buffer.from(pattern(100)));
    },
  },
  {
    name: 'a window that shrinks below what is in flight',
    rfc: 'RFC 9293 3.8.6 MUST-34',
    run: async (t, peer) => {
      const socket = await withWindow(t, peer, 3 * MSS);
      socket.write(pattern(8000));
      await peer.expectData(3 * MSS);
      peer.send({ ack: 1461, window: 1000 });
      await peer.drain(50);
      assert.equal(socket.failure, null);
      peer.window = 65535;
      peer.expected = 3 * MSS + 1;
      peer.send();
      let got = 3 * MSS;
      while (got < 8000) {
        const segment = await peer.receive();
        assert.ok(segment !== null, 'the rest comes');
        got = Math.max(got, peer.relativeSeq(segment) + segment.data.length - 1);
        peer.send();
      }
    },
  },
  {
    name: 'silly windows: no small segment into a small window at once',
    rfc: 'RFC 9293 3.8.6.2.1 MUST-38',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(MSS));
      await peer.expect({ len: MSS });
      peer.send({ window: 100 });
      socket.write(pattern(5000));
      await peer.expectNothing(90);
      const small = await peer.expect({ within: [90, 2000] });
      assert.ok(small.data.length <= 100);
    },
  },
  {
    name: 'Nagle: a second small write waits for the ACK of the first',
    rfc: 'RFC 9293 3.7.4 SHLD-7, MUST-17',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.noDelay(false);
      socket.write(pattern(10));
      await peer.expect({ seq: 1, len: 10 });
      socket.write(pattern(10));
      socket.write(pattern(10));
      await peer.expectNothingNew(80);
      peer.send();
      await peer.expect({ seq: 11, len: 20, within: [0, 80] });
    },
  },
  {
    name: 'Nagle: a full segment does not wait',
    rfc: 'RFC 9293 3.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.noDelay(false);
      socket.write(pattern(10));
      await peer.expect({ seq: 1, len: 10 });
      socket.write(pattern(MSS + 5));
      await peer.expect({ seq: 11, len: MSS });
      await peer.expectNothingNew(80);
    },
  },
  {
    name: 'without Nagle a small write is sent at once',
    rfc: 'RFC 9293 3.7.4 MUST-17',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.noDelay(true);
      socket.write(pattern(10));
      await peer.expect({ seq: 1, len: 10 });
      socket.write(pattern(7));
      await peer.expect({ seq: 11, len: 7, within: [0, 80] });
    },
  },
  {
    name: 'the last segment of a write has PSH',
    rfc: 'RFC 9293 3.9.1.2 MUST-61',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(10));
      await peer.expect({ flags: 'PA', len: 10 });
    },
  },
  {
    name: 'sequence numbers wrap round, in both directions',
    rfc: 'RFC 9293 3.4',
    iss: 0xffff_ffff - 3000,
    run: async (t, peer) => {
      const socket = await t.established(SACK);
      const whole = pattern(14_600);
      for (let at = 0; at < whole.length; at += MSS) {
        peer.send({ data: whole.subarray(at, at + MSS) });
      }
      await peer.expectAck(whole.length + 1);
      await t.reads(socket, whole);
      socket.write(whole);
      assert.deepEqual(await peer.expectData(whole.length, { ack: true }), Buffer.from(whole));
      await peer.drain(20);
      peer.send({ seq: whole.length + 101, data: 'x' });
      await peer.expect({ sack: [[whole.length + 101, whole.length + 102]] });
    },
  },
  {
    name: 'a retransmission that carries more',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      const whole = pattern(1000);
      peer.send({ seq: 1, data: whole.subarray(0, 100) });
      peer.send({ seq: 1, data: whole.subarray(0, 500) });
      peer.send({ seq: 1, data: whole });
      await peer.expectAck(1001);
      await t.reads(socket, whole);
    },
  },
  {
    name: 'a bulk of data to the subject',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established(SACK);
      const whole = pattern(300_000);
      let acked = 0;
      for (let at = 0; at < whole.length; at += MSS) {
        peer.send({ data: whole.subarray(at, at + MSS) });
        while (peer.next - 1 - acked > 40 * MSS) {
          acked = peer.relativeAck(await peer.expect({ flags: 'A' })) - 1;
        }
      }
      await peer.expectAck(whole.length + 1);
      await t.reads(socket, whole);
    },
  },
];
