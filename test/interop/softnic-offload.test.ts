/** Offloads of the software NIC: frames that are finished, cut and put together, for receivers of every kind. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { macHi, macLo } from '../../src/base/address.ts';
import { setEui64 } from '../../src/base/ipv6.ts';
import { FRAME_FLAG, NO_FRAME } from '../../src/device/nic.ts';
import { NetInterface } from '../../src/net/interface.ts';
import { TCP_END, type TcpConnection } from '../../src/net/tcp/api.ts';
import * as checksum from '../../src/wire/checksum.ts';
import { LeakCheck } from '../support/leaks.ts';
import { until } from '../support/until.ts';
import { ADDRESSES, Application, SoftNicProcess } from './softnic.harness.ts';

const { aMac, bMac, aIp, bIp } = ADDRESSES;
const HEADERS = 14 + 20 + 32;
const MSS = 1448;
const TCP = 6;
const UDP = 17;

let leaks: LeakCheck;
let nic: SoftNicProcess;
const closing: (() => void)[] = [];

beforeEach(() => {
  leaks = new LeakCheck();
  nic = new SoftNicProcess();
});
afterEach(async () => {
  for (const close of closing.splice(0)) close();
  assert.equal(await nic.close(), 0);
  await leaks.assertNone();
});

function connect(port: number, side: 'a' | 'b', offload: boolean): Application {
  const app = Application.connect(nic, port, side, undefined, offload);
  closing.push(() => app.close());
  return app;
}

const pseudoHeader = (protocol: number, length: number): number =>
  checksum.pseudoHeader(aIp | 0, bIp | 0, protocol, length);

/** TCP from a to b with a 12-byte option and `payload` bytes, its checksum no more than the pseudo header's sum. */
function packet(payload: number, sequence = 0xffff_fff0): Buffer {
  const bytes = Buffer.alloc(HEADERS + payload);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  bytes.writeUIntBE(bMac, 0, 6);
  bytes.writeUIntBE(aMac, 6, 6);
  bytes.writeUInt16BE(0x0800, 12);
  bytes.writeUInt16BE(0x4500, 14);
  bytes.writeUInt16BE(bytes.length - 14, 16);
  bytes.writeUInt16BE(0xfffe, 18);
  bytes.writeUInt16BE(0x4000, 20);
  bytes.writeUInt16BE((64 << 8) | TCP, 22);
  bytes.writeUInt32BE(aIp, 26);
  bytes.writeUInt32BE(bIp, 30);
  bytes.writeUInt16BE(checksum.finish(checksum.sum(view, 14, 20)), 24);
  bytes.writeUInt16BE(1000, 34);
  bytes.writeUInt16BE(80, 36);
  bytes.writeUInt32BE(sequence, 38);
  bytes.writeUInt8(8 << 4, 46);
  bytes.writeUInt8(0x19, 47); // FIN, PSH, ACK
  bytes.writeUInt16BE(65535, 48);
  for (let i = 0; i < payload; i++) bytes[HEADERS + i] = (i * 7 + (i >>> 8)) & 255;
  bytes.writeUInt16BE(checksum.fold(pseudoHeader(TCP, 32 + payload)), 50);
  return bytes;
}

const HEADERS6 = HEADERS + 20;
const IPV6_ADDRESSES_AT = 14 + 8;
const TCP_AT6 = 14 + 40;

/** The same between the link-local addresses of both MACs. */
function packet6(payload: number): Buffer {
  const ipv4 = packet(payload);
  const bytes = Buffer.concat([ipv4.subarray(0, 14), Buffer.alloc(40), ipv4.subarray(34)]);
  bytes.writeUInt16BE(0x86dd, 12);
  bytes.writeUInt8(0x60, 14);
  bytes.writeUInt16BE(32 + payload, 18);
  bytes.writeUInt16BE((TCP << 8) | 64, 20);
  for (const [i, mac] of [aMac, bMac].entries()) {
    const words = Int32Array.of(0xfe80_0000, 0, 0, 0);
    setEui64(words, 0, macHi(mac), macLo(mac) | 0);
    for (const [k, word] of words.entries()) {
      bytes.writeInt32BE(word, IPV6_ADDRESSES_AT + 16 * i + 4 * k);
    }
  }
  bytes.writeUInt16BE(checksum.fold(pseudoHeader6(bytes)), TCP_AT6 + 16);
  return bytes;
}

const pseudoHeader6 = (bytes: Buffer): number => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return checksum.sum(view, IPV6_ADDRESSES_AT, 32) + TCP + bytes.length - TCP_AT6;
};

function isValid6(bytes: Buffer): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const length = bytes.length - TCP_AT6;
  return checksum.isValid(checksum.sum(view, TCP_AT6, length) + pseudoHeader6(bytes));
}

/** Put `bytes` into frames, the first piece of `first` bytes, and send them as one packet. */
function send(app: Application, bytes: Buffer, bits: number, segment = MSS, first = 1000): number {
  const { queue } = app;
  const frames: number[] = [];
  const lengths: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = Math.min(bytes.length - at, at === 0 ? first : 1900);
    const frame = queue.alloc();
    assert.notEqual(frame, NO_FRAME);
    queue.memory.u8.set(bytes.subarray(at, at + size), frame);
    frames.push(frame);
    lengths.push(size);
    at += size;
  }
  const flags = Uint8Array.from(frames, (_, i) => (i + 1 < frames.length ? FRAME_FLAG.more : 0));
  flags[0]! |= bits;
  const sizes = new Uint16Array(frames.length).fill(segment);
  const count = frames.length;
  const taken = queue.txBatch(
    Uint32Array.from(frames),
    Uint16Array.from(lengths),
    count,
    flags,
    sizes,
  );
  queue.kick();
  return taken;
}

/** The next packet at `app`, its pieces joined, and the flags of the first. */
async function receive(app: Application): Promise<{ bytes: Buffer; pieces: number; bits: number }> {
  const { queue } = app;
  const frames = new Uint32Array(64);
  const lengths = new Uint16Array(64);
  const flags = new Uint8Array(64);
  let count = 0;
  await until(() => {
    count = queue.rxBatch(frames, lengths, 64, flags);
    return count > 0;
  });
  const parts: Buffer[] = [];
  for (let i = 0; i < count; i++) {
    const frame = frames[i]!;
    parts.push(Buffer.from(queue.memory.u8.slice(frame, frame + lengths[i]!)));
    queue.free(frame);
    assert.equal((flags[i]! & FRAME_FLAG.more) !== 0, i + 1 < count, 'one packet');
  }
  return { bytes: Buffer.concat(parts), pieces: count, bits: flags[0]! & ~FRAME_FLAG.more };
}

/** Every frame is with the queue again. */
async function settle(app: Application, available: number): Promise<void> {
  await until(() => {
    app.queue.reclaim(256);
    return app.queue.framesAvailable === available;
  });
}

function isValid(bytes: Buffer): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (checksum.sum(view, 14, 20) !== 0xffff) return false;
  const length = bytes.length - 34;
  const protocol = bytes[23]!;
  return checksum.isValid(checksum.sum(view, 34, length) + pseudoHeader(protocol, length));
}

const stackOn = (app: Application, mac: number, address: number): NetInterface =>
  new NetInterface({
    queue: app.queue,
    mac,
    address,
    prefix: 24,
    secret: Int32Array.of(1, 2, 3, mac | 0),
    ipv6: { dadTransmits: 0, autoconfigure: false },
  });

const OFFLOAD = FRAME_FLAG.checksum | FRAME_FLAG.segment;

describe('offloads of the software NIC', () => {
  test('64 KiB of TCP arrives as it was sent, in pieces, at who takes such packets', async () => {
    const [a, b] = [connect(1, 'a', true), connect(2, 'b', true)];
    const [freeA, freeB] = [a.queue.framesAvailable, b.queue.framesAvailable];
    for (const payload of [1, MSS, MSS + 1, 2000, 40_000, 65_535 - 52]) {
      const sent = packet(payload);
      assert.ok(send(a, sent, OFFLOAD) > 0);
      const { bytes, pieces, bits } = await receive(b);
      assert.ok(bytes.equals(sent), `${payload} bytes`);
      assert.equal(pieces, Math.ceil((sent.length + 12) / (2048 - 128 + 12)));
      assert.equal(bits, FRAME_FLAG.checksum);
      await settle(a, freeA);
    }
    await settle(b, freeB);
    assert.deepEqual(nic.stats(1).drops, {});
  });

  test('who does not gets segments, each with its sequence number, flags and checksums', async () => {
    const [a, b] = [connect(1, 'a', true), connect(2, 'b', false)];
    const payload = 10 * MSS + 100;
    const sent = packet(payload);
    send(a, sent, OFFLOAD);
    const got: Buffer[] = [];
    await until(() => got.push(...b.receive()) === 11);
    got.forEach((bytes, i) => {
      assert.ok(isValid(bytes), `segment ${i}`);
      assert.equal(bytes.length, HEADERS + (i < 10 ? MSS : 100));
      assert.equal(bytes.readUInt16BE(16), bytes.length - 14);
      assert.equal(bytes.readUInt16BE(18), (0xfffe + i) & 0xffff);
      assert.equal(bytes.readUInt32BE(38), (0xffff_fff0 + i * MSS) % 2 ** 32);
      assert.equal(bytes[47], i < 10 ? 0x10 : 0x19, 'FIN and PSH of the last only');
    });
    const joined = Buffer.concat(got.map((bytes) => bytes.subarray(HEADERS)));
    assert.ok(joined.equals(sent.subarray(HEADERS)));
    assert.equal(nic.stats(1).txPackets, 11);
    assert.equal(nic.stats(2).rxPackets, 11);
  });

  test('IPv6 arrives whole at who takes such packets, and cut at who does not', async () => {
    const a = connect(1, 'a', true);
    let b = connect(2, 'b', true);
    const mss = MSS - 20;
    const payload = 10 * mss + 100;
    const sent = packet6(payload);
    send(a, sent, OFFLOAD, mss);
    const whole = await receive(b);
    assert.ok(whole.bytes.equals(sent));
    assert.equal(whole.bits, FRAME_FLAG.checksum);
    nic.request({ op: 'removePort', port: 2 });
    b = connect(2, 'b', false);
    send(a, sent, OFFLOAD, mss);
    const got: Buffer[] = [];
    await until(() => got.push(...b.receive()) === 11);
    got.forEach((bytes, i) => {
      assert.ok(isValid6(bytes), `segment ${i}`);
      assert.equal(bytes.length, HEADERS6 + (i < 10 ? mss : 100));
      assert.equal(bytes.readUInt16BE(18), bytes.length - TCP_AT6);
      assert.equal(bytes.readUInt32BE(TCP_AT6 + 4), (0xffff_fff0 + i * mss) % 2 ** 32);
      assert.equal(bytes[TCP_AT6 + 13], i < 10 ? 0x10 : 0x19, 'FIN and PSH of the last only');
    });
    const joined = Buffer.concat(got.map((bytes) => bytes.subarray(HEADERS6)));
    assert.ok(joined.equals(sent.subarray(HEADERS6)));
    assert.deepEqual(nic.stats(1).drops, {});
  });

  test('two stacks speak TCP over IPv6: uncut to who takes that, cut to who does not', async () => {
    const total = 1024 * 1024;
    for (const takesWhole of [true, false]) {
      const apps = [connect(1, 'a', true), connect(2, 'b', takesWhole)] as const;
      const [a, b] = [stackOn(apps[0], aMac, aIp), stackOn(apps[1], bMac, bIp)];
      const pattern = Uint8Array.from(
        { length: total },
        (_, i) => (i ^ (i >>> 8) ^ (i >>> 16)) & 255,
      );
      const receivedBy: Buffer[] = [];
      let received = 0;
      let longest = 0;
      let ended = false;
      b.tcp.listen({
        port: 80,
        address: '::',
        onConnection: () => ({
          onData: (_connection, _frame, at, length) => {
            receivedBy.push(Buffer.from(apps[1].queue.memory.u8.slice(at, at + length)));
            received += length;
            longest = Math.max(longest, length);
          },
          onEnd: (connection) => {
            ended = true;
            connection.end();
          },
        }),
      });
      const poll = (): void => {
        for (let i = 0; i < 50; i++) for (const net of [a, b]) net.poll(performance.now());
      };
      const isReady = (net: NetInterface): boolean =>
        net.ipv6.list().every(({ state }) => state === 'preferred');
      const untilPolled = (predicate: () => boolean): Promise<void> =>
        until(() => {
          poll();
          return predicate();
        });
      await untilPolled(() => isReady(a) && isReady(b));
      let at = 0;
      let closed = -1;
      const pump = (connection: TcpConnection): void => {
        at += connection.write(pattern, at, total);
        if (at === total) connection.end();
      };
      a.tcp.connect({
        address: b.ipv6.list()[0]!.address,
        port: 80,
        handlers: {
          onOpen: pump,
          onDrain: pump,
          onData: () => {},
          onClose: (_c, why) => (closed = why),
        },
      });
      await untilPolled(() => ended && closed >= 0);
      assert.equal(closed, TCP_END.closed);
      assert.deepEqual([a.counters.ndPending, b.counters.badChecksum], [1, 0], 'the SYN waited');
      assert.equal(received, total);
      assert.ok(Buffer.concat(receivedBy).equals(Buffer.from(pattern)));
      assert.equal(longest > MSS, takesWhole, 'pieces are longer than segments');
      for (const net of [a, b]) net.close();
      for (const port of [1, 2]) nic.request({ op: 'removePort', port });
      for (const app of apps) app.close();
    }
  });

  test('a checksum is left open between those who know, and finished for those who do not', async () => {
    const a = connect(1, 'a', true);
    let b = connect(2, 'b', true);
    const sent = packet(100);
    send(a, sent, FRAME_FLAG.checksum);
    const open = await receive(b);
    assert.ok(open.bytes.equals(sent));
    assert.equal(open.bits, FRAME_FLAG.checksum);
    assert.ok(!isValid(open.bytes));
    nic.request({ op: 'removePort', port: 2 });
    b = connect(2, 'b', false);
    send(a, sent, FRAME_FLAG.checksum);
    const got: Buffer[] = [];
    await until(() => got.push(...b.receive()) > 0);
    assert.ok(isValid(got[0]!));
  });

  test('headers that lie are dropped and counted, and the next packet arrives', async () => {
    const [a, b] = [connect(1, 'a', true), connect(2, 'b', true)];
    const udp = packet(100);
    udp[23] = UDP;
    const fragment = packet(100);
    fragment.writeUInt16BE(0x2000, 20);
    const shortHeader = packet(3000);
    shortHeader.writeUInt8(4 << 4, 46);
    const longHeader = packet(0);
    longHeader.writeUInt8(15 << 4, 46);
    const lies: [string, Buffer, number, number][] = [
      ['UDP with the place of TCP', udp, FRAME_FLAG.checksum, MSS],
      ['a fragment', fragment, FRAME_FLAG.checksum, MSS],
      ['UDP to be cut', udp, OFFLOAD, MSS],
      ['segments longer than the link', packet(3000), OFFLOAD, 1460],
      ['segments of nothing', packet(3000), OFFLOAD, 0],
      ['tiny segments', packet(3000), OFFLOAD, 255],
      ['a TCP header that is too short', shortHeader, OFFLOAD, MSS],
      ['a TCP header beyond the packet', longHeader, OFFLOAD, MSS],
    ];
    for (const [i, [what, bytes, bits, segment]] of lies.entries()) {
      assert.ok(send(a, bytes, bits, segment) > 0, what);
      await until(() => nic.stats(1).drops.badOffload === i + 1, 2000, what);
    }
    assert.equal(b.queue.rxBatch(new Uint32Array(64), new Uint16Array(64), 64), 0);
    const sent = packet(3000);
    send(a, sent, OFFLOAD);
    assert.ok((await receive(b)).bytes.equals(sent));
  });

  test('a packet that the driver cannot send is dropped whole, and its frames come back', () => {
    const a = connect(1, 'a', true);
    const free = a.queue.framesAvailable;
    assert.ok(send(a, packet(3000), FRAME_FLAG.checksum) > 0, 'too long unless it is cut');
    assert.equal(a.queue.counters.txDropped, 1);
    assert.equal(a.queue.framesAvailable, free);
    const plain = connect(2, 'b', false);
    assert.ok(send(plain, packet(10), FRAME_FLAG.checksum) > 0, 'not negotiated');
    assert.equal(plain.queue.counters.txDropped, 1);
  });

  test('a receiver without enough buffers loses the packet, and none of them', async () => {
    const [a, b] = [connect(1, 'a', true), connect(2, 'b', true)];
    const [freeA, free] = [a.queue.framesAvailable, b.queue.framesAvailable];
    const sent = packet(60_000);
    // The ring has 256 buffers, and a packet takes 32 of them: the receiver does not look until all have come.
    for (let i = 0; i < 12; i++) {
      send(a, sent, OFFLOAD);
      await settle(a, freeA);
    }
    await until(() => nic.stats(1).txPackets === 12 * 42);
    assert.ok(nic.stats(2).drops.noBuffer! >= 4);
    const got = 12 - nic.stats(2).drops.noBuffer!;
    let count = 0;
    const frames = new Uint32Array(48);
    const flags = new Uint8Array(48);
    const take = (): number => b.queue.rxBatch(frames, new Uint16Array(48), 48, flags);
    for (let n = take(); n > 0; n = take()) {
      for (let i = 0; i < n; i++) {
        if ((flags[i]! & FRAME_FLAG.more) === 0) count++;
        b.queue.free(frames[i]!);
      }
    }
    assert.equal(count, got);
    await settle(b, free);
    send(a, sent, OFFLOAD);
    assert.ok((await receive(b)).bytes.equals(sent));
  });

  test('without flags, packets of several pieces are dropped and counted', async () => {
    const [a, b] = [connect(1, 'a', true), connect(2, 'b', true)];
    const free = b.queue.framesAvailable;
    send(a, packet(3000), OFFLOAD);
    send(a, packet(10), FRAME_FLAG.checksum);
    const frames = new Uint32Array(64);
    await until(() => b.queue.rxBatch(frames, new Uint16Array(64), 64) > 0);
    assert.equal(b.queue.counters.rxDropped, 1);
    b.queue.free(frames[0]!);
    await settle(b, free);
  });
});
