/** Opening: CLOSED, LISTEN, SYN-SENT, SYN-RECEIVED. */
import assert from 'node:assert/strict';
import { bytesOf, type Case, type Peer } from '../script.ts';

/** The SYN may come again at once: Linux takes a wrong answer for one to an older connection. */
async function onlySyns(peer: Peer): Promise<void> {
  for (const segment of await peer.drain(100)) assert.equal(segment.flags, 'S');
}

export const HANDSHAKE: readonly Case[] = [
  {
    name: 'passive open: SYN, SYN-ACK, ACK',
    rfc: 'RFC 9293 3.5',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA', seq: 0, ack: 1, len: 0 });
      assert.equal(t.listener!.accepted.length, 0, 'not before the handshake is done');
      peer.send();
      await t.accepted();
      await peer.expectNothing();
    },
  },
  {
    name: 'active open: SYN, SYN-ACK, ACK',
    rfc: 'RFC 9293 3.5',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S', seq: 0, len: 0 });
      assert.equal(socket.isOpen, false);
      peer.send({ flags: 'SA', options: { mss: 1460 } });
      await peer.expect({ flags: 'A', seq: 1, ack: 1, len: 0 });
      await t.until(() => socket.isOpen, 'it is open');
    },
  },
  {
    name: 'simultaneous open',
    rfc: 'RFC 9293 3.5 MUST-10',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S' });
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA', seq: 0, ack: 1 });
      peer.send({ flags: 'SA', seq: 0, options: { mss: 1460 } });
      peer.send({ data: 'hi' });
      await peer.drain(60);
      await t.reads(socket, 'hi');
      assert.ok(socket.isOpen);
    },
  },
  {
    name: 'closed port: a SYN is answered by RST with its ACK',
    rfc: 'RFC 9293 3.10.7.1',
    run: async (_t, peer) => {
      peer.send({ flags: 'S' });
      await peer.expect({ flags: 'RA', seq: 0, ack: 1, len: 0 });
    },
  },
  {
    name: 'closed port: data in the SYN counts in the ACK of the RST',
    rfc: 'RFC 9293 3.10.7.1',
    run: async (_t, peer) => {
      peer.send({ flags: 'S', data: 'abc' });
      await peer.expect({ flags: 'RA', seq: 0, ack: 4 });
    },
  },
  {
    name: 'closed port: an ACK is answered by RST with its number',
    rfc: 'RFC 9293 3.10.7.1',
    run: async (_t, peer) => {
      peer.send({ flags: 'A', seq: 77, ack: 12345 });
      await peer.expect({ flags: 'R', seq: 12345, len: 0 });
    },
  },
  {
    name: 'closed port: a RST is not answered',
    rfc: 'RFC 9293 3.10.7.1',
    run: async (_t, peer) => {
      peer.send({ flags: 'R', seq: 77 });
      peer.send({ flags: 'RA', seq: 77, ack: 5 });
      await peer.expectNothing();
    },
  },
  {
    name: 'LISTEN: an ACK is answered by RST',
    rfc: 'RFC 9293 3.10.7.2',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'A', seq: 77, ack: 999 });
      await peer.expect({ flags: 'R', seq: 999 });
    },
  },
  {
    name: 'LISTEN: a SYN-ACK is answered by RST',
    rfc: 'RFC 9293 3.10.7.2',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'SA', seq: 0, ack: 999 });
      await peer.expect({ flags: 'R', seq: 999 });
    },
  },
  {
    name: 'LISTEN: RST, FIN, nothing at all and SYN with RST are ignored',
    rfc: 'RFC 9293 3.10.7.2',
    run: async (t, peer) => {
      t.listen();
      for (const flags of ['R', 'RA', 'F', '', 'FPU', 'SR']) peer.send({ flags, seq: 7, ack: 3 });
      await peer.expectNothing();
      peer.next = 0;
      await peer.open();
      await t.accepted();
    },
  },
  {
    name: 'SYN-SENT: an ACK of what was not sent is answered by RST, and the wait goes on',
    rfc: 'RFC 9293 3.10.7.3',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S' });
      peer.send({ flags: 'SA', seq: 0, ack: 5 });
      await peer.expect({ flags: 'R', seq: 5 });
      await onlySyns(peer);
      assert.equal(socket.failure, null);
      peer.send({ flags: 'SA', seq: 0, ack: 1, options: { mss: 1460 } });
      await peer.expect({ flags: 'A', ack: 1 });
    },
  },
  {
    name: 'SYN-SENT: RST without an acceptable ACK is ignored',
    rfc: 'RFC 9293 3.10.7.3, RFC 5961 3',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S' });
      peer.send({ flags: 'R', seq: 0 });
      peer.send({ flags: 'RA', seq: 0, ack: 2 });
      peer.send({ flags: 'RA', seq: 0, ack: 0 });
      await onlySyns(peer);
      assert.equal(socket.failure, null);
      peer.send({ flags: 'SA', options: { mss: 1460 } });
      await peer.expect({ flags: 'A', ack: 1 });
    },
  },
  {
    name: 'SYN-SENT: RST with our ACK refuses',
    rfc: 'RFC 9293 3.10.7.3',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S' });
      peer.send({ flags: 'RA', seq: 0, ack: 1 });
      await t.until(() => socket.failure !== null, 'it fails');
      assert.equal(socket.failure, 'refused');
      await peer.expectNothing();
    },
  },
  {
    name: 'SYN-SENT: a segment with neither SYN nor RST is dropped',
    rfc: 'RFC 9293 3.10.7.3',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S' });
      peer.send({ flags: 'A', seq: 1, ack: 1, data: 'early' });
      peer.send({ flags: 'FA', seq: 1, ack: 1 });
      await peer.expectNothing();
      assert.equal(socket.isOpen, false);
      peer.send({ flags: 'SA', options: { mss: 1460 } });
      await peer.expect({ flags: 'A', ack: 1 });
    },
  },
  {
    name: 'SYN-SENT: the SYN is sent again after a second, and then more slowly',
    rfc: 'RFC 6298 2.1, 5.5; RFC 9293 MUST-23',
    except: {
      subject: 'kernel',
      why: 'Linux backs off only after four of them (tcp_syn_linear_timeouts)',
    },
    run: async (t, peer) => {
      t.subject.connect();
      const first = await peer.expect({ flags: 'S', seq: 0 });
      const again = await peer.expect({ flags: 'S', seq: 0, within: [950, 1300] });
      assert.equal(again.seq, first.seq);
      const backoff = t.isKernel ? ([950, 1300] as const) : ([1900, 2600] as const);
      await peer.expect({ flags: 'S', seq: 0, within: backoff });
    },
  },
  {
    name: 'SYN-SENT: what was aborted answers a late SYN-ACK with RST',
    rfc: 'RFC 9293 3.10.5, 3.10.7.1',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S' });
      socket.abort();
      peer.send({ flags: 'SA', ack: 1 });
      await peer.expect({ flags: 'R', seq: 1 });
    },
  },
  {
    name: 'SYN-RECEIVED: the SYN-ACK is sent again after a second, then after two',
    rfc: 'RFC 6298 2.1, 5.5',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA', seq: 0, ack: 1 });
      await peer.expect({ flags: 'SA', seq: 0, ack: 1, within: [900, 1300] });
      await peer.expect({ flags: 'SA', seq: 0, ack: 1, within: [1800, 2600] });
    },
  },
  {
    name: 'SYN-RECEIVED: the same SYN again is acknowledged again',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 } });
      const first = await peer.expect({ flags: 'SA', ack: 1 });
      peer.send({ flags: 'S', seq: 0, options: { mss: 1460 } });
      const again = await peer.expect({ ack: 1 });
      if (again.flags.includes('S')) assert.equal(again.seq, first.seq, 'with the same number');
      peer.send();
      await t.accepted();
    },
  },
  {
    name: 'SYN-RECEIVED: RST returns to LISTEN',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA', ack: 1 });
      peer.send({ flags: 'R' });
      await peer.expectNothing(1300);
      assert.equal(t.listener!.accepted.length, 0);
      peer.next = 5000;
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA', ack: 5001 });
    },
  },
  {
    name: 'SYN-RECEIVED: RST that is not the next number does not',
    rfc: 'RFC 5961 3',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA', ack: 1 });
      peer.send({ flags: 'R', seq: 2_000_000_000 });
      await peer.expectNothing(50);
      peer.send();
      await t.accepted();
    },
  },
  {
    name: 'SYN-RECEIVED: a wrong ACK is answered by RST, the right one still counts',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA', ack: 1 });
      peer.send({ ack: 5 });
      await peer.expect({ flags: 'R', seq: 5 });
      peer.send();
      await t.accepted();
    },
  },
  {
    name: 'SYN with data: the data is delivered once the handshake is done, and once',
    rfc: 'RFC 9293 3.5',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 }, data: 'hello' });
      const synAck = await peer.expect({ flags: 'SA' });
      const acked = peer.relativeAck(synAck);
      assert.ok(acked === 1 || acked === 6, `${acked} is acknowledged`);
      peer.send({ seq: acked, data: bytesOf('hello world').subarray(acked - 1) });
      await peer.expectAck(12);
      await t.reads(await t.accepted(), 'hello world');
    },
  },
  {
    name: 'SYN-ACK with data: the data is delivered, and once',
    rfc: 'RFC 9293 3.5',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S' });
      peer.send({ flags: 'SA', options: { mss: 1460 }, data: 'hello' });
      const ack = await peer.expect({ flags: 'A' });
      const acked = peer.relativeAck(ack);
      peer.send({ seq: acked, data: bytesOf('hello world').subarray(acked - 1) });
      await peer.expectAck(12);
      await t.reads(socket, 'hello world');
    },
  },
  {
    name: 'data in the third segment',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA' });
      peer.send({ flags: 'PA', data: 'first' });
      await peer.expectAck(6);
      await t.reads(await t.accepted(), 'first');
    },
  },
  {
    name: 'data and FIN in the third segment',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA' });
      peer.send({ flags: 'FPA', data: 'all' });
      await peer.expectAck(5);
      const socket = await t.accepted();
      await t.reads(socket, 'all');
      await t.until(() => socket.ended, 'it has the end');
    },
  },
  {
    name: 'initial numbers of one pair of ports grow with time',
    rfc: 'RFC 9293 MUST-8, RFC 6528',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 } });
      const first = await peer.expect({ flags: 'SA' });
      peer.send({ flags: 'R' });
      await peer.drain(100);
      peer.next = 70_000;
      peer.send({ flags: 'S', options: { mss: 1460 } });
      const second = await peer.expect({ flags: 'SA' });
      const growth = (second.seq - first.seq) >>> 0;
      assert.ok(growth > 0 && growth < 2 ** 31, `by ${growth}`);
    },
  },
];
