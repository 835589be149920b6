/** Closing: FIN-WAIT-1, FIN-WAIT-2, CLOSING, TIME-WAIT, CLOSE-WAIT, LAST-ACK. */
import assert from 'node:assert/strict';
import { type Case, type Peer, pattern, type Script } from '../script.ts';
import type { Socket } from '../subject.ts';

/** The subject has sent its FIN first: FIN-WAIT-1. */
async function finWait1(t: Script, peer: Peer): Promise<Socket> {
  const socket = await t.established();
  socket.end();
  await peer.expect({ flags: 'FA', seq: 1, ack: 1, len: 0 });
  return socket;
}

async function finWait2(t: Script, peer: Peer): Promise<Socket> {
  const socket = await finWait1(t, peer);
  peer.send();
  await peer.expectNothing(30);
  return socket;
}

async function timeWait(t: Script, peer: Peer): Promise<Socket> {
  const socket = await finWait2(t, peer);
  peer.send({ flags: 'FA' });
  await peer.expect({ flags: 'A', seq: 2, ack: 2 });
  return socket;
}

async function closeWait(t: Script, peer: Peer): Promise<Socket> {
  const socket = await t.established();
  peer.send({ flags: 'FA' });
  await peer.expectAck(2);
  await t.until(() => socket.ended, 'it has the end');
  return socket;
}

async function lastAck(t: Script, peer: Peer): Promise<Socket> {
  const socket = await closeWait(t, peer);
  socket.end();
  await peer.expect({ flags: 'FA', seq: 1, ack: 2 });
  return socket;
}

export const CLOSING: readonly Case[] = [
  {
    name: 'the peer closes first: CLOSE-WAIT, LAST-ACK, CLOSED',
    rfc: 'RFC 9293 3.6',
    run: async (t, peer) => {
      await lastAck(t, peer);
      peer.send();
      await peer.expectNothing(50);
      peer.send({ data: 'late' });
      await peer.expect({ flags: 'R', seq: 2 });
    },
  },
  {
    name: 'FIN with data: first the data, then the end',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'FPA', data: 'last' });
      await peer.expectAck(6);
      await t.reads(socket, 'last');
      await t.until(() => socket.ended, 'it has the end');
    },
  },
  {
    name: 'FIN out of order waits for what is before it',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'FA', seq: 4 });
      await peer.expect({ flags: 'A', ack: 1 });
      assert.equal(socket.ended, false);
      peer.send({ seq: 1, data: 'abc' });
      await peer.expectAck(5);
      await t.reads(socket, 'abc');
      await t.until(() => socket.ended, 'it has the end');
    },
  },
  {
    name: 'FIN with data out of order',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established({ mss: 1460, sackPermitted: true });
      peer.send({ flags: 'FA', seq: 4, data: 'def' });
      await peer.expect({ flags: 'A', ack: 1 });
      peer.send({ seq: 1, data: 'abc' });
      await peer.expectAck(8);
      await t.reads(socket, 'abcdef');
      await t.until(() => socket.ended, 'it has the end');
    },
  },
  {
    name: 'CLOSE-WAIT: the subject goes on sending',
    rfc: 'RFC 9293 3.6, half-closed',
    run: async (t, peer) => {
      const socket = await closeWait(t, peer);
      socket.write(pattern(4000));
      const data = await peer.expectData(4000, { ack: true });
      assert.deepEqual(data, Buffer.from(pattern(4000)));
      socket.end();
      await peer.expect({ flags: 'FA', seq: 4001, ack: 2 });
    },
  },
  {
    name: 'CLOSE-WAIT: FIN again is acknowledged again',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      await closeWait(t, peer);
      peer.send({ flags: 'FA', seq: 1 });
      await peer.expect({ flags: 'A', ack: 2 });
    },
  },
  {
    name: 'CLOSE-WAIT: data behind the FIN is not delivered',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await closeWait(t, peer);
      peer.send({ seq: 2, data: 'more' });
      await peer.drain(60);
      assert.equal(socket.received.length, 0);
    },
  },
  {
    name: 'bytes beyond a FIN that came before it are forgotten with the connection',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established({ mss: 1460, sackPermitted: true });
      peer.send({ seq: 101, data: 'beyond' });
      await peer.expect({ flags: 'A', ack: 1 });
      peer.send({ flags: 'FA', seq: 1, data: 'abc' });
      await peer.expectAck(5);
      socket.end();
      await peer.drain(20);
      peer.next = 5;
      peer.send();
      await t.reads(socket, 'abc');
    },
  },
  {
    name: 'CLOSE-WAIT: RST is told',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await closeWait(t, peer);
      peer.send({ flags: 'R' });
      await t.until(() => {
        socket.write(pattern(1));
        return socket.failure !== null;
      }, 'it is reset');
    },
  },
  {
    name: 'LAST-ACK: FIN is sent again when it is not acknowledged',
    rfc: 'RFC 9293 3.8.1',
    run: async (t, peer) => {
      await lastAck(t, peer);
      await peer.expect({ flags: 'FA', seq: 1, ack: 2, within: [150, 1500] });
      peer.send();
      await peer.expectNothing(50);
    },
  },
  {
    name: 'the subject closes first: FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT',
    rfc: 'RFC 9293 3.6',
    run: async (t, peer) => {
      const socket = await timeWait(t, peer);
      assert.equal(socket.ended, true);
    },
  },
  {
    name: 'FIN-WAIT-1: FIN is sent again',
    rfc: 'RFC 9293 3.8.1',
    run: async (t, peer) => {
      await finWait1(t, peer);
      await peer.expect({ flags: 'FA', seq: 1, within: [150, 1500] });
    },
  },
  {
    name: 'FIN-WAIT-1: FIN with our ACK goes straight to TIME-WAIT',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await finWait1(t, peer);
      peer.send({ flags: 'FA' });
      await peer.expect({ flags: 'A', seq: 2, ack: 2 });
      assert.equal(socket.ended, true);
      peer.send({ flags: 'FA', seq: 1 });
      await peer.expect({ flags: 'A', seq: 2, ack: 2 });
    },
  },
  {
    name: 'FIN-WAIT-1: data is still received',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await finWait1(t, peer);
      peer.send({ ack: 1, data: 'abc' });
      await peer.expectAck(4, 200);
      await t.reads(socket, 'abc');
    },
  },
  {
    name: 'FIN-WAIT-2: data is still received, then FIN',
    rfc: 'RFC 9293 3.6, half-closed',
    run: async (t, peer) => {
      const socket = await finWait2(t, peer);
      peer.send({ data: 'abc' });
      await peer.expectAck(4);
      peer.send({ flags: 'FA', data: 'def' });
      await peer.expectAck(8);
      await t.reads(socket, 'abcdef');
      await t.until(() => socket.ended, 'it has the end');
    },
  },
  {
    name: 'FIN-WAIT-2: RST ends it',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await finWait2(t, peer);
      peer.send({ flags: 'R' });
      await t.until(() => socket.failure !== null, 'it is reset');
      peer.send({ flags: 'FA' });
      await peer.expect({ flags: 'R', seq: 2 });
    },
  },
  {
    name: 'both close at once: CLOSING, TIME-WAIT',
    rfc: 'RFC 9293 3.6',
    run: async (t, peer) => {
      await finWait1(t, peer);
      peer.send({ flags: 'FA', ack: 1 });
      await peer.expect({ flags: 'A', seq: 2, ack: 2, len: 0 });
      peer.send({ ack: 2 });
      await peer.expectNothing(50);
      peer.send({ flags: 'FA', seq: 1, ack: 2 });
      await peer.expect({ flags: 'A', seq: 2, ack: 2 });
    },
  },
  {
    name: 'CLOSING: our FIN is sent again',
    rfc: 'RFC 9293 3.8.1',
    run: async (t, peer) => {
      await finWait1(t, peer);
      peer.send({ flags: 'FA', ack: 1 });
      await peer.expect({ flags: 'A', seq: 2, ack: 2 });
      await peer.expect({ flags: 'FA', seq: 1, ack: 2, within: [100, 1500] });
    },
  },
  {
    name: 'TIME-WAIT: FIN again is acknowledged again',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      await timeWait(t, peer);
      peer.send({ flags: 'FA', seq: 1, ack: 2 });
      await peer.expect({ flags: 'A', seq: 2, ack: 2 });
    },
  },
  {
    name: 'TIME-WAIT: an old SYN opens nothing',
    rfc: 'RFC 9293 3.10.7.4, RFC 1122 4.2.2.13',
    run: async (t, peer) => {
      await timeWait(t, peer);
      peer.send({ flags: 'S', seq: -9000, options: { mss: 1460 } });
      for (const segment of await peer.drain(60)) {
        assert.ok(!segment.flags.includes('S'), segment.flags);
      }
      assert.equal(t.listener!.accepted.length, 1);
    },
  },
  {
    name: 'TIME-WAIT: a new SYN with a higher number may open a new connection',
    rfc: 'RFC 9293 3.10.7.4 MAY-2, RFC 6191',
    run: async (t, peer) => {
      await timeWait(t, peer);
      const oldEnd = (peer.irs + 2) >>> 0;
      peer.next = 500_000;
      peer.send({ flags: 'S', options: { mss: 1460 } });
      const answer = await peer.expect();
      if (answer.flags === 'A') return;
      assert.equal(answer.flags, 'SA');
      assert.ok((answer.seq - oldEnd) >>> 0 < 2 ** 31, 'its number is beyond the old ones');
      peer.send();
      await t.until(() => t.listener!.accepted.length === 2, 'it is accepted');
    },
  },
  {
    name: 'data and FIN of ours: the FIN comes last, and once all is acknowledged it is over',
    rfc: 'RFC 9293 3.10.4 MUST..',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(3000));
      socket.end();
      let got = 0;
      for (let fin = false; !fin; ) {
        const segment = await peer.receive();
        assert.ok(segment !== null, 'FIN comes');
        got += segment.data.length;
        fin = segment.flags.includes('F');
        if (fin) assert.equal(got, 3000);
      }
      assert.equal(peer.expected, 3002);
      peer.send({ flags: 'FA' });
      await peer.expect({ flags: 'A', ack: 2 });
    },
  },
  {
    name: 'FIN waits for a window, with the data before it',
    rfc: 'RFC 9293 3.10.4',
    run: async (t, peer) => {
      t.listen();
      peer.window = 1000;
      await peer.open();
      const socket = await t.accepted();
      socket.write(pattern(1500));
      socket.end();
      const first = await peer.drain(80);
      assert.ok(first.every((segment) => !segment.flags.includes('F')));
      peer.window = 65535;
      peer.send();
      const rest = await peer.drain(80);
      assert.ok(rest.some((segment) => segment.flags.includes('F')));
      assert.equal(peer.expected, 1502);
    },
  },
  {
    name: 'abort: RST with the next number, then silence',
    rfc: 'RFC 9293 3.10.5',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(10));
      await peer.expect({ len: 10 });
      peer.send();
      await peer.drain(10);
      socket.abort();
      const reset = await peer.expect({ seq: 11, len: 0 });
      assert.match(reset.flags, /^RA?$/);
      await peer.expectNothing();
      peer.send({ data: 'late' });
      await peer.expect({ flags: 'R', seq: 11 });
    },
  },
];
