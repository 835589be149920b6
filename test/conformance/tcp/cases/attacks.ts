/** What blind attackers and confused peers send: RST, SYN and data by guess (RFC 5961), ICMP (RFC 5927, RFC 1191). */
import assert from 'node:assert/strict';
import { ipv4Frame, US, viewOfBytes } from '../../../support/frames.ts';
import { tcpFrame } from '../../../support/tcp-segment.ts';
import { type Case, type Peer, pattern, type Script } from '../script.ts';
import type { Socket } from '../subject.ts';

const UNREACHABLE = 3;
const CODE = { host: 1, port: 3, fragmentationNeeded: 4, administrative: 13 };

/** An ICMP error about a segment that the subject sent with relative number `seq`. */
function icmp(t: Script, peer: Peer, code: number, seq: number, mtu = 0): void {
  const about = tcpFrame(US, t.subject.peer, {
    srcPort: t.subject.port,
    dstPort: peer.port,
    seq: (Math.max(peer.irs, 0) + seq) >>> 0,
    flags: 'A',
    // A full segment: only about what was longer can a router say "too big".
    data: new Uint8Array(1460),
  }).subarray(14, 14 + 28);
  const message = new Uint8Array(8 + about.length);
  const view = viewOfBytes(message);
  view.setUint8(0, UNREACHABLE);
  view.setUint8(1, code);
  view.setUint16(6, mtu);
  message.set(about, 8);
  let sum = 0;
  for (let i = 0; i < message.length; i += 2) sum += view.getUint16(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(2, ~sum & 0xffff);
  t.subject.send(ipv4Frame(t.subject.peer, US, 1, message));
}

/** It still works, both ways. */
async function works(t: Script, peer: Peer, socket: Socket): Promise<void> {
  const before = socket.received.length;
  peer.send({ data: 'still' });
  await peer.expectAck(peer.next);
  await t.until(() => socket.received.length === before + 5, 'data is read');
  socket.write(pattern(5));
  await peer.expect({ len: 5 });
  peer.send();
  assert.equal(socket.failure, null);
}

export const ATTACKS: readonly Case[] = [
  {
    name: 'RST with exactly the next number resets',
    rfc: 'RFC 9293 3.10.7.4, RFC 5961 3.2',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'R' });
      await t.until(() => socket.failure !== null, 'it is reset');
      assert.equal(socket.failure, 'reset');
      await peer.expectNothing(50);
      peer.send({ data: 'late' });
      await peer.expect({ flags: 'R' });
    },
  },
  {
    name: 'RST elsewhere in the window: a challenge ACK',
    rfc: 'RFC 5961 3.2',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'R', seq: 100 });
      await peer.expect({ flags: 'A', seq: 1, ack: 1, len: 0 });
      await works(t, peer, socket);
    },
  },
  {
    name: 'RST beyond or before the window: silence',
    rfc: 'RFC 5961 3.2',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'R', seq: 3_000_000 });
      peer.send({ flags: 'RA', seq: -1000 });
      await peer.expectNothing();
      await works(t, peer, socket);
    },
  },
  {
    name: 'the challenge is answered by the right RST: that one counts',
    rfc: 'RFC 5961 3.2',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'R', seq: 100 });
      const challenge = await peer.expect({ flags: 'A' });
      peer.send({ flags: 'R', seq: peer.relativeAck(challenge) });
      await t.until(() => socket.failure !== null, 'it is reset');
    },
  },
  {
    name: 'SYN in the window: a challenge ACK',
    rfc: 'RFC 5961 4.2, RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'S', seq: 100, options: { mss: 1460 } });
      await peer.expect({ flags: 'A', seq: 1, ack: 1, len: 0 });
      await works(t, peer, socket);
    },
  },
  {
    name: 'SYN outside of the window: an ACK',
    rfc: 'RFC 5961 4.2',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'S', seq: 4_000_000, options: { mss: 1460 } });
      await peer.expect({ flags: 'A', seq: 1, ack: 1, len: 0 });
      await works(t, peer, socket);
    },
  },
  {
    name: 'SYN-ACK in ESTABLISHED: an ACK',
    rfc: 'RFC 5961 4.2',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'SA', seq: 0, options: { mss: 1460 } });
      await peer.expect({ flags: 'A', seq: 1, ack: 1, len: 0 });
      await works(t, peer, socket);
    },
  },
  {
    name: 'challenge ACKs are few',
    rfc: 'RFC 5961 7',
    run: async (t, peer) => {
      const socket = await t.established();
      for (let i = 0; i < 200; i++) peer.send({ flags: 'R', seq: 100 + i });
      for (let i = 0; i < 200; i++) peer.send({ flags: 'S', seq: 100 + i });
      const answers = await peer.drain(100);
      assert.ok(answers.length >= 1 && answers.length <= 100, `${answers.length} of 400`);
      await works(t, peer, socket);
    },
  },
  {
    name: 'data with an ACK of long ago is not taken',
    rfc: 'RFC 5961 5.2',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ seq: 1, ack: -200_000, data: 'blind' });
      await peer.drain(60);
      assert.equal(socket.received.length, 0);
      await works(t, peer, socket);
    },
  },
  {
    name: 'data with an ACK that is half of all numbers away is not taken',
    rfc: 'RFC 5961 5.2',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ seq: 1, ack: 1 + 2 ** 31, data: 'blind' });
      peer.send({ seq: 1, ack: 2 ** 31, data: 'blind' });
      peer.send({ seq: 1, ack: 2 + 2 ** 31, data: 'blind' });
      await peer.drain(60);
      assert.equal(socket.received.length, 0);
      await works(t, peer, socket);
    },
  },
  {
    name: 'FIN outside of the window: an ACK, no end',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      peer.send({ flags: 'FA', seq: 2_000_000 });
      await peer.expect({ flags: 'A', ack: 1 });
      assert.equal(socket.ended, false);
      await works(t, peer, socket);
    },
  },
  {
    name: 'an ACK that is far ahead does not start a storm of ACKs',
    rfc: 'RFC 5961 7',
    run: async (t, peer) => {
      const socket = await t.established();
      for (let i = 0; i < 100; i++) peer.send({ ack: 70_000 });
      const answers = await peer.drain(100);
      assert.ok(answers.length <= 100, `${answers.length} of 100`);
      await works(t, peer, socket);
    },
  },
  {
    name: 'segments with every combination of flags do not end a connection',
    rfc: 'RFC 9293 3.10.7.4',
    run: async (t, peer) => {
      const socket = await t.established();
      const letters = 'FSRPAUEC';
      for (let bits = 0; bits < 256; bits++) {
        const flags = [...letters].filter((_, i) => (bits & (1 << i)) !== 0).join('');
        peer.send({ flags, seq: 1_500_000, ack: 1, urgent: 9, data: 'x' });
      }
      await peer.drain(100);
      await t.until(() => socket.failure === null && !socket.ended, 'it is alive');
      await works(t, peer, socket);
    },
  },
  {
    name: 'ICMP unreachable does not end an established connection',
    rfc: 'RFC 1122 4.2.3.9, RFC 5927 5.2',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(10));
      await peer.expect({ len: 10 });
      for (const code of [CODE.host, CODE.port, CODE.administrative]) icmp(t, peer, code, 1);
      peer.send();
      await peer.drain(60);
      await works(t, peer, socket);
    },
  },
  {
    name: 'ICMP about numbers that are not in flight is ignored',
    rfc: 'RFC 5927 4.1',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S' });
      icmp(t, peer, CODE.port, 70_000);
      await peer.drain(60);
      assert.equal(socket.failure, null);
      peer.send({ flags: 'SA', options: { mss: 1460 } });
      await peer.expect({ flags: 'A', ack: 1 });
    },
  },
  {
    name: 'ICMP port unreachable in SYN-SENT ends the attempt',
    rfc: 'RFC 1122 4.2.3.9, RFC 5461 4.1',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S' });
      icmp(t, peer, CODE.port, 0);
      await t.until(() => socket.failure !== null, 'it fails');
      assert.match(String(socket.failure), /refused|unreachable/);
    },
  },
  {
    name: 'ICMP fragmentation needed makes segments smaller',
    rfc: 'RFC 1191 6.4, RFC 9293 3.7.2',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(1460));
      await peer.expect({ len: 1460, seq: 1 });
      icmp(t, peer, CODE.fragmentationNeeded, 1, 800);
      const again = await peer.expect({ seq: 1, within: [0, 1500] });
      assert.ok(again.data.length <= 760, `${again.data.length} bytes`);
      await peer.drain(20);
      assert.equal(socket.failure, null);
    },
  },
  {
    name: 'ICMP fragmentation needed with a tiny MTU does not make tiny segments',
    rfc: 'RFC 1191 3, RFC 9293 3.7.2',
    run: async (t, peer) => {
      const socket = await t.established();
      socket.write(pattern(1460));
      await peer.expect({ len: 1460 });
      icmp(t, peer, CODE.fragmentationNeeded, 1, 68);
      const segments = await peer.drain(400);
      assert.ok(segments.length <= 5, `${segments.length} segments`);
      assert.equal(socket.failure, null);
    },
  },
];
