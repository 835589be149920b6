import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { CaptureTap, withPcap } from './pcap.ts';
import { INBOUND, OUTBOUND, PcapngWriter } from './pcapng.ts';
import { createPipe } from './pipe.ts';

/** A sink that keeps everything, and at most `limit` bytes a call. */
function collect(limit = Number.POSITIVE_INFINITY) {
  const chunks: Buffer[] = [];
  const sink = (bytes: Uint8Array): number => {
    const taken = Math.min(bytes.length, limit);
    chunks.push(Buffer.from(bytes.subarray(0, taken)));
    return taken;
  };
  return { sink, bytes: () => Buffer.concat(chunks) };
}

interface Block {
  type: number;
  body: Buffer;
}

/** Blocks of a pcapng file; both lengths of each must agree. */
function blocks(file: Buffer): Block[] {
  const found: Block[] = [];
  let at = 0;
  while (at < file.length) {
    const length = file.readUInt32LE(at + 4);
    assert.equal(length % 4, 0);
    assert.equal(file.readUInt32LE(at + length - 4), length);
    found.push({ type: file.readUInt32LE(at), body: file.subarray(at + 8, at + length - 4) });
    at += length;
  }
  assert.equal(at, file.length, 'no block is torn');
  return found;
}

/** Fields of an Enhanced Packet Block. */
function packet({ type, body }: Block) {
  assert.equal(type, 6);
  const captured = body.readUInt32LE(12);
  const options = new Map<number, Buffer>();
  for (let at = 20 + ((captured + 3) & ~3); at + 4 <= body.length; ) {
    const length = body.readUInt16LE(at + 2);
    options.set(body.readUInt16LE(at), body.subarray(at + 4, at + 4 + length));
    at += 4 + ((length + 3) & ~3);
  }
  return {
    timeNs: body.readUInt32LE(4) * 2 ** 32 + body.readUInt32LE(8),
    original: body.readUInt32LE(16),
    bytes: body.subarray(20, 20 + captured),
    direction: options.get(2)!.readUInt32LE(0),
    dropped: options.get(4)?.readBigUInt64LE(0),
  };
}

const frame = Uint8Array.from({ length: 100 }, (_, i) => i);

describe('pcapng', () => {
  test('a section begins with its header and one Ethernet interface in nanoseconds', () => {
    const { sink, bytes } = collect();
    const writer = new PcapngWriter(sink, { snapLength: 256, interfaceName: 'vnic0' });
    writer.flush();
    const [shb, idb, ...rest] = blocks(bytes());
    assert.equal(rest.length, 0);
    assert.equal(shb!.type, 0x0a0d0d0a);
    assert.equal(shb!.body.readUInt32LE(0), 0x1a2b3c4d);
    assert.equal(idb!.type, 1);
    assert.deepEqual([idb!.body.readUInt16LE(0), idb!.body.readUInt32LE(4)], [1, 256]);
    assert.equal(idb!.body.toString('latin1', 12, 17), 'vnic0');
    assert.ok(idb!.body.includes(Buffer.from([9, 0, 1, 0, 9, 0, 0, 0])), 'if_tsresol is 9');
  });

  test('packets keep bytes, direction and time; snaplen cuts', () => {
    const { sink, bytes } = collect();
    const writer = new PcapngWriter(sink, { snapLength: 61 });
    writer.packet(frame, 3, 60, INBOUND, 123_456_789_012_345);
    writer.packet(frame, 0, 100, OUTBOUND, 5);
    writer.flush();
    const [, , first, second] = blocks(bytes());
    assert.deepEqual(packet(first!), {
      timeNs: 123_456_789_012_345,
      original: 60,
      bytes: Buffer.from(frame.subarray(3, 63)),
      direction: 1,
      dropped: undefined,
    });
    assert.equal(packet(second!).original, 100);
    assert.deepEqual(packet(second!).bytes, Buffer.from(frame.subarray(0, 61)));
    assert.equal(packet(second!).direction, 2);
  });

  test('a slow sink loses packets, never tears one, and the next one says how many', () => {
    let open = false;
    const kept = collect();
    const sink = (bytes: Uint8Array): number => (open ? kept.sink(bytes) : 0);
    const writer = new PcapngWriter(sink, { snapLength: 100, bufferBytes: 1 });
    let accepted = 0;
    for (let i = 0; i < 100; i++) if (writer.packet(frame, 0, 100, INBOUND, i)) accepted++;
    assert.ok(accepted > 0 && accepted < 100);
    assert.deepEqual([writer.packets, writer.drops], [accepted, 100 - accepted]);
    open = true;
    assert.equal(writer.packet(frame, 0, 100, INBOUND, 100), true);
    writer.flush();
    const packets = blocks(kept.bytes()).slice(2).map(packet);
    assert.equal(packets.length, accepted + 1);
    assert.equal(packets.at(-1)!.dropped, BigInt(100 - accepted));
  });

  test('a sink that takes seven bytes at a time gets the same file', () => {
    const whole = collect();
    const bitwise = collect(7);
    for (const { sink } of [whole, bitwise]) {
      const writer = new PcapngWriter(sink, { snapLength: 100 });
      for (let i = 0; i < 20; i++) writer.packet(frame, i, 60 + i, OUTBOUND, i);
      for (let i = 0; i < 10_000 && writer.flush() > 0; i++);
    }
    assert.deepEqual(bitwise.bytes(), whole.bytes());
  });

  test('tcpdump reads it', (t) => {
    const { sink, bytes } = collect();
    const writer = new PcapngWriter(sink);
    writer.packet(new Uint8Array(60).fill(0xff, 0, 12), 0, 60, INBOUND, 1.7e18 + 2 ** 27);
    writer.flush();
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-pcap-'));
    const file = path.join(dir, 'capture.pcapng');
    try {
      fs.writeFileSync(file, bytes());
      const out = execFileSync('tcpdump', ['-n', '-tt', '--nano', '-e', '-r', file], {
        encoding: 'utf8',
        stdio: 'pipe',
        timeout: 20_000,
      });
      assert.match(out, /^1700000000\.134217728 ff:ff:ff:ff:ff:ff > ff:ff:ff:ff:ff:ff/m);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      assert.notEqual(process.env.CI, 'true', 'tcpdump is not installed');
      t.skip('tcpdump is not installed');
    } finally {
      fs.rmSync(dir, { recursive: true });
    }
  });
});

describe('capture tap', () => {
  const frames = new Uint32Array(8);
  const lengths = new Uint16Array(8);

  function send(from: CaptureTap, to: CaptureTap, count = 1): void {
    for (let i = 0; i < count; i++) {
      frames[i] = from.alloc();
      lengths[i] = 60;
      from.memory.u8.fill(i, frames[i], frames[i]! + 60);
    }
    assert.equal(from.txBatch(frames, lengths, count), count);
    from.kick();
    from.reclaim(count);
    const got = to.rxBatch(frames, lengths, 8);
    assert.equal(got, count);
    for (let i = 0; i < got; i++) to.free(frames[i]!);
  }

  test('records both directions while it is on, and nothing while it is off', () => {
    const { a, b } = createPipe();
    let clock = 0;
    const tap = new CaptureTap(a, { nowNs: () => ++clock });
    const plain = new CaptureTap(b, { nowNs: () => 0 });
    const { sink, bytes } = collect();
    send(tap, plain);
    tap.start(sink);
    assert.equal(tap.capturing, true);
    send(tap, plain, 3);
    send(plain, tap, 2);
    assert.deepEqual(tap.stop(), { packets: 5, drops: 0 });
    send(tap, plain);
    assert.equal(tap.stop(), null);
    const packets = blocks(bytes()).slice(2).map(packet);
    assert.deepEqual(
      packets.map(({ direction, timeNs }) => [direction, timeNs]),
      [
        [2, 1],
        [2, 1],
        [2, 1],
        [1, 2],
        [1, 2],
      ],
      'one reading of the clock a batch',
    );
    assert.deepEqual([...packets[2]!.bytes], new Array(60).fill(2));
    tap.close();
    plain.close();
  });

  test('refused frames are not recorded', () => {
    const { a } = createPipe();
    const { sink, bytes } = collect();
    const tap = withPcap(a, sink, { nowNs: () => 0 });
    frames.set([tap.alloc(), 0xffffff00]);
    lengths.set([5, 60]);
    assert.equal(tap.txBatch(frames, lengths, 2), 2);
    assert.equal(tap.counters.txDropped, 2);
    tap.close();
    assert.equal(blocks(bytes()).length, 2);
  });

  test('a second start begins a new file', () => {
    const tap = new CaptureTap(createPipe().a, { nowNs: () => 0 });
    const [first, second] = [collect(), collect()];
    tap.start(first.sink);
    tap.start(second.sink, { interfaceName: 'again' });
    tap.close();
    assert.equal(blocks(first.bytes()).length, 2);
    assert.ok(second.bytes().includes('again'));
  });
});
