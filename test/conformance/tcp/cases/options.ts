/** Options: MSS, window scale, SACK permitted, timestamps, and what nobody knows. */
import assert from 'node:assert/strict';
import { hex } from '../../../support/frames.ts';
import { type Case, type Peer, pattern, type Script } from '../script.ts';

const TS = { mss: 1460, timestamps: [0, 0] as [number, number] };

/** The first data segment, when the application writes more than any segment carries. */
async function firstLength(t: Script, peer: Peer): Promise<number> {
  const socket = await t.accepted();
  socket.write(pattern(4000));
  const segment = await peer.expect({ seq: 1 });
  return segment.data.length;
}

async function openWith(t: Script, peer: Peer, options: string): Promise<void> {
  t.listen();
  await peer.open({ raw: hex(options) });
}

/** Open with timestamps; the peer's clock is set so that the values are the test's to choose. */
async function openStamped(t: Script, peer: Peer, value: number) {
  t.listen();
  const stamp = (tsval: number) => ({ timestamps: [tsval, peer.echo] as [number, number] });
  peer.send({ flags: 'S', options: { mss: 1460, ...stamp(value) } });
  const synAck = await peer.expect({ flags: 'SA', timestamps: 'any' });
  peer.send({ options: stamp(value) });
  return { socket: await t.accepted(), stamp, synAck };
}

export const OPTIONS: readonly Case[] = [
  {
    name: 'our SYN-ACK says the MSS of the link',
    rfc: 'RFC 9293 3.7.1 MUST-14, SHLD-5',
    run: async (t, peer) => {
      t.listen();
      await peer.open({}, { mss: 1460 });
    },
  },
  {
    name: 'our SYN says the MSS of the link',
    rfc: 'RFC 9293 3.7.1 MUST-14, SHLD-5',
    run: async (t, peer) => {
      t.subject.connect();
      await peer.expect({ flags: 'S', mss: 1460 });
    },
  },
  {
    name: 'without an MSS option, 536 bytes',
    rfc: 'RFC 9293 3.7.1 MUST-15',
    run: async (t, peer) => {
      t.listen();
      await peer.open({});
      assert.equal(await firstLength(t, peer), 536);
    },
  },
  {
    name: "the peer's MSS bounds what is sent",
    rfc: 'RFC 9293 3.7.1 MUST-16',
    run: async (t, peer) => {
      t.listen();
      await peer.open({ mss: 700 });
      assert.equal(await firstLength(t, peer), 700);
    },
  },
  {
    name: 'an MSS larger than the link does not',
    rfc: 'RFC 9293 3.7.1 MUST-16',
    run: async (t, peer) => {
      t.listen();
      await peer.open({ mss: 9000 });
      assert.equal(await firstLength(t, peer), 1460);
    },
  },
  {
    name: 'options that are sent shorten the data',
    rfc: 'RFC 6691 2',
    run: async (t, peer) => {
      t.listen();
      await peer.open({ ...TS, mss: 700 });
      assert.equal(await firstLength(t, peer), 688);
    },
  },
  {
    name: 'a tiny MSS does not make a flood of tiny segments',
    rfc: 'RFC 9293 3.7.1; CVE-2019-11479',
    run: async (t, peer) => {
      t.listen();
      await peer.open({ mss: 1 });
      const socket = await t.accepted();
      socket.write(pattern(200));
      const segments = await peer.drain(50);
      assert.ok(segments.length >= 1 && segments.length <= 25, `${segments.length} segments`);
    },
  },
  {
    name: 'MSS 0 is no reason to fail',
    rfc: 'RFC 9293 3.7.1',
    run: async (t, peer) => {
      t.listen();
      await peer.open({ mss: 0 });
      const socket = await t.accepted();
      socket.write(pattern(100));
      assert.deepEqual(await peer.expectData(100, { ack: true }), Buffer.from(pattern(100)));
    },
  },
  {
    name: 'an unknown option is passed over by its length',
    rfc: 'RFC 9293 3.2 MUST-6',
    run: async (t, peer) => {
      await openWith(t, peer, 'fd06deadbeef 020402bc 0000');
      assert.equal(await firstLength(t, peer), 700);
    },
  },
  {
    name: 'NOP pads anywhere',
    rfc: 'RFC 9293 3.2 MUST-5',
    run: async (t, peer) => {
      await openWith(t, peer, '01 020402bc 01 01 01');
      assert.equal(await firstLength(t, peer), 700);
    },
  },
  {
    name: 'nothing counts after the end of the list',
    rfc: 'RFC 9293 3.2 MUST-5',
    run: async (t, peer) => {
      await openWith(t, peer, '00 020402bc 000000');
      assert.equal(await firstLength(t, peer), 536);
    },
  },
  {
    name: 'an MSS option of another length is none',
    rfc: 'RFC 9293 3.2 MUST-7',
    run: async (t, peer) => {
      await openWith(t, peer, '020502bc00 000000');
      assert.equal(await firstLength(t, peer), 536);
    },
  },
  ...['0200', '0201', '0204', '080affff', 'fd00 0000', 'fd28 0000', '030e'].map(
    (options): Case => ({
      name: `options ${options}, whose length lies, do no harm`,
      rfc: 'RFC 9293 3.2 MUST-7',
      run: async (t, peer) => {
        t.listen();
        peer.send({ flags: 'S', options: { raw: hex(`0101${options}`) } });
        const answers = await peer.drain(50);
        if (answers.length > 0) peer.send({ flags: 'R' });
        peer.next = 4000;
        await peer.open();
        await t.accepted();
      },
    }),
  ),
  ...[0, 4, 15].map(
    (dataOffset): Case => ({
      name: `a data offset of ${dataOffset} words in a segment of six is dropped`,
      rfc: 'RFC 9293 3.1',
      run: async (t, peer) => {
        t.listen();
        peer.send({ flags: 'S', options: { mss: 1460 }, lies: { dataOffset } });
        await peer.expectNothing();
        peer.next = 0;
        await peer.open();
      },
    }),
  ),
  {
    name: 'no window scale for who offers none',
    rfc: 'RFC 7323 2.2',
    run: async (t, peer) => {
      t.listen();
      await peer.open({ mss: 1460 }, { windowScale: null });
    },
  },
  {
    name: 'window scale for who offers one; his windows are scaled',
    rfc: 'RFC 7323 2.2, 2.3',
    run: async (t, peer) => {
      t.listen();
      peer.window = 2;
      await peer.open({ mss: 1460, windowScale: 7 }, { windowScale: 'any' });
      const socket = await t.accepted();
      socket.write(pattern(1000));
      const segments = await peer.drain(60);
      const sent = segments.reduce((total, segment) => total + segment.data.length, 0);
      assert.equal(sent, 256);
    },
  },
  {
    name: 'the window of a SYN-ACK is not scaled',
    rfc: 'RFC 7323 2.2',
    run: async (t, peer) => {
      const socket = t.subject.connect();
      await peer.expect({ flags: 'S', windowScale: 'any' });
      peer.send({ flags: 'SA', window: 500, options: { mss: 1460, windowScale: 7 } });
      await peer.expect({ flags: 'A' });
      await t.until(() => socket.isOpen, 'it is open');
      socket.write(pattern(2000));
      const segments = await peer.drain(60);
      const sent = segments.reduce((total, segment) => total + segment.data.length, 0);
      assert.equal(sent, 500);
    },
  },
  {
    name: 'window scale in a segment without SYN does not count',
    rfc: 'RFC 7323 2.2',
    run: async (t, peer) => {
      t.listen();
      peer.window = 300;
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA' });
      peer.send({ options: { windowScale: 10 } });
      const socket = await t.accepted();
      socket.write(pattern(2000));
      const segments = await peer.drain(60);
      const sent = segments.reduce((total, segment) => total + segment.data.length, 0);
      assert.ok(sent <= 300, `${sent} bytes`);
    },
  },
  {
    name: 'SACK is permitted to who permits it, and no other',
    rfc: 'RFC 2018 2',
    run: async (t, peer) => {
      t.listen();
      peer.send({ flags: 'S', options: { mss: 1460 } });
      await peer.expect({ flags: 'SA', sackPermitted: false });
      peer.send({ flags: 'R' });
      await peer.drain(20);
      peer.next = 5000;
      peer.send({ flags: 'S', options: { mss: 1460, sackPermitted: true } });
      await peer.expect({ flags: 'SA', sackPermitted: true });
    },
  },
  {
    name: 'no SACK blocks without permission',
    rfc: 'RFC 2018 4',
    run: async (t, peer) => {
      await t.established({ mss: 1460 });
      peer.send({ seq: 101, data: 'later' });
      await peer.expect({ flags: 'A', ack: 1, sack: [] });
    },
  },
  {
    name: 'timestamps are echoed in the SYN-ACK',
    rfc: 'RFC 7323 3.2',
    run: async (t, peer) => {
      const { synAck } = await openStamped(t, peer, 4711);
      assert.equal(synAck.options.timestamps![1], 4711);
    },
  },
  {
    name: 'no timestamps for who offers none',
    rfc: 'RFC 7323 3.2',
    run: async (t, peer) => {
      t.listen();
      await peer.open({ mss: 1460 }, { timestamps: null });
      const socket = await t.accepted();
      socket.write(pattern(10));
      await peer.expect({ len: 10, timestamps: null });
    },
  },
  {
    name: 'every segment has timestamps once they are agreed upon',
    rfc: 'RFC 7323 3.2',
    run: async (t, peer) => {
      const { socket, stamp } = await openStamped(t, peer, 100);
      peer.send({ data: 'abc', options: stamp(105) });
      const ack = await peer.expectAck(4);
      assert.equal(ack.options.timestamps?.[1], 105);
      socket.write(pattern(10));
      const data = await peer.expect({ len: 10, timestamps: 'any' });
      assert.equal(data.options.timestamps?.[1], 105);
      socket.end();
      await peer.expect({ flags: 'FA', timestamps: 'any' });
    },
  },
  {
    name: 'a segment out of order does not set what is echoed',
    rfc: 'RFC 7323 4.3',
    run: async (t, peer) => {
      const { stamp } = await openStamped(t, peer, 100);
      peer.send({ seq: 11, data: 'later', options: stamp(150) });
      const first = await peer.expect({ flags: 'A', ack: 1 });
      assert.equal(first.options.timestamps?.[1], 100);
      peer.send({ seq: 1, data: '0123456789', options: stamp(140) });
      const second = await peer.expect({ flags: 'A', ack: 16 });
      assert.equal(second.options.timestamps?.[1], 140);
    },
  },
  {
    name: 'PAWS: an old timestamp is acknowledged and dropped',
    rfc: 'RFC 7323 5.3 R1',
    run: async (t, peer) => {
      const { socket, stamp } = await openStamped(t, peer, 5000);
      peer.send({ data: 'old', seq: 1, options: stamp(4000) });
      await peer.expect({ flags: 'A', ack: 1 });
      assert.equal(socket.received.length, 0);
      peer.send({ data: 'new', options: stamp(5001) });
      await peer.expectAck(4);
      await t.reads(socket, 'new');
    },
  },
  {
    name: 'PAWS: timestamps wrap round',
    rfc: 'RFC 7323 5.3',
    run: async (t, peer) => {
      const { socket, stamp } = await openStamped(t, peer, 0xfffffff0);
      peer.send({ data: 'new', options: stamp(5) });
      await peer.expectAck(4);
      peer.send({ data: 'old', seq: 4, options: stamp(0xfffffff8) });
      await peer.expect({ flags: 'A', ack: 4 });
      await t.reads(socket, 'new');
    },
  },
  {
    name: 'PAWS: RST is exempt',
    rfc: 'RFC 7323 5.2',
    run: async (t, peer) => {
      const { socket, stamp } = await openStamped(t, peer, 5000);
      peer.send({ flags: 'R', options: stamp(100) });
      await t.until(() => socket.failure !== null, 'it is reset');
      assert.equal(socket.failure, 'reset');
    },
  },
  {
    name: 'a segment without the agreed timestamps is dropped',
    rfc: 'RFC 7323 3.2',
    except: { subject: 'kernel', why: 'Linux takes it (the RFC says SHOULD drop)' },
    run: async (t, peer) => {
      const { socket, stamp } = await openStamped(t, peer, 5000);
      peer.send({ data: 'abc', seq: 1 });
      await peer.drain(600);
      if (t.isKernel) return t.reads(socket, 'abc');
      assert.equal(socket.received.length, 0);
      peer.send({ data: 'abc', options: stamp(5001) });
      await peer.expectAck(4);
    },
  },
];
