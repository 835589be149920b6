/** The parts of TCP on their own: table, wheel, kept pieces, header, addresses. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeQueue } from '../../../test/support/fake-queue.ts';
import { Random } from '../../../test/support/random.ts';
import { ArrakisError } from '../../base/errors.ts';
import * as wire from '../../wire/tcp.ts';
import { setMappedIpv4 } from '../ip-output.ts';
import { formatAddress, parseAddress } from './address.ts';
import { FlowTable, NO_FLOW } from './flow-table.ts';
import { KeyedHash, PURPOSE } from './keyed-hash.ts';
import { HeldFrames, INSERT, ReceiveQueue } from './receive-queue.ts';
import { SegmentStore } from './segment-store.ts';
import { TimerWheel } from './timer-wheel.ts';

const keyed = new KeyedHash(Int32Array.of(1, 2, 3, 4));

describe('the table of flows', () => {
  const flow = new Int32Array(8);
  const set = (n: number) => {
    setMappedIpv4(flow, 0, 0x0a000001);
    setMappedIpv4(flow, 4, n | 0);
    return flow;
  };

  test('finds what was put in, through growth and removal, and nothing else', () => {
    const table = new FlowTable(keyed, 10_000);
    const ids = new Map<number, number>();
    const random = new Random(1);
    for (let step = 0; step < 30_000; step++) {
      const key = random.below(6000);
      const id = ids.get(key);
      assert.equal(table.find(set(key), 0, key), id ?? NO_FLOW);
      if (id === undefined) ids.set(key, table.insert(set(key), 0, key));
      else if (random.oneIn(2)) {
        table.remove(id);
        ids.delete(key);
      }
      assert.equal(table.count, ids.size);
    }
    for (const [key, id] of ids) assert.equal(table.ports(id), key);
  });

  test('full: no flow; a free one is used again', () => {
    const table = new FlowTable(keyed, 3);
    const ids = [1, 2, 3].map((n) => table.insert(set(n), 0, n));
    assert.equal(table.insert(set(4), 0, 4), NO_FLOW);
    table.remove(ids[1]!);
    assert.equal(table.insert(set(4), 0, 4), ids[1]);
  });
});

describe('the timer wheel', () => {
  test('everything is due at its time, from any start, near and far, also when the time wraps', () => {
    for (const start of [0, 255, 1_000_000, 0x7fffff00]) {
      const wheel = new TimerWheel();
      wheel.grow(2000);
      wheel.advance(start, () => {
        throw new Error('nothing is due');
      });
      const random = new Random(start);
      const due: Map<number, number> = new Map();
      for (let id = 0; id < 2000; id++) {
        const inMs = 1 + random.below(random.pick([10, 300, 20_000, 2_000_000]));
        due.set(id, start + inMs);
        wheel.schedule(id, (start + inMs) | 0);
      }
      let now = start;
      while (due.size > 0) {
        const inMs = wheel.nextInMs;
        assert.ok(inMs >= 1 && Number.isFinite(inMs));
        const first = Math.min(...due.values());
        assert.ok(now + inMs <= first, 'nothing is slept through');
        now = random.oneIn(3) ? now + inMs + random.below(50) : now + inMs;
        wheel.advance(now | 0, (id) => {
          assert.ok(due.get(id)! <= now, 'not before its time');
          due.delete(id);
        });
        for (const at of due.values()) assert.ok(at > now, 'not after its time');
      }
      assert.equal(wheel.nextInMs, Number.POSITIVE_INFINITY);
    }
  });

  test('the earlier deadline wins; what is cancelled never comes', () => {
    const wheel = new TimerWheel();
    wheel.grow(3);
    wheel.advance(0, () => {});
    wheel.schedule(0, 100);
    wheel.schedule(0, 50);
    wheel.schedule(0, 400);
    wheel.schedule(1, 60);
    wheel.cancel(1);
    const fired: number[] = [];
    wheel.advance(49, (id) => fired.push(id));
    assert.equal(fired.length, 0);
    wheel.advance(1000, (id) => fired.push(id));
    assert.deepEqual(fired, [0]);
  });
});

describe('kept pieces', () => {
  /** Pieces of a stream in any order, overlapping, small and large; each byte once, and every frame back. */
  test('any order, any overlap: the stream comes out, and every frame goes back', () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = new Random(seed);
      const device = new FakeQueue({ frameCount: 64 });
      const held = new HeldFrames(device, new SegmentStore(), 40, 32);
      const queue = new ReceiveQueue(held);
      const start = seed % 2 === 0 ? 0x7ffffff0 : -5;
      const total = 6000;
      let next = start | 0;
      let bytes = 0;
      for (let step = 0; bytes < total; step++) {
        assert.ok(step < 20_000, 'it comes to an end');
        const isNext = random.oneIn(3);
        const offset = isNext ? bytes : bytes + random.below(Math.min(3000, total - bytes));
        const length = Math.min(1 + random.below(random.pick([3, 200, 1400])), total - offset);
        const frame = device.alloc();
        for (let i = 0; i < length; i++) device.memory.u8[frame + 100 + i] = (offset + i) % 253;
        const seq = (start + offset) | 0;
        if (queue.insert(seq, frame + 100, length, frame) !== INSERT.kept) device.free(frame);
        while (queue.count > 0 && queue.seq(0) === next) {
          const at = queue.at(0);
          for (let i = 0; i < queue.length(0); i++) {
            assert.equal(device.memory.u8[at + i], (bytes + i) % 253, `seed ${seed}`);
          }
          bytes += queue.length(0);
          next = queue.seqEnd(0);
          const taken = queue.frame(0);
          queue.shift();
          device.free(taken);
        }
        for (let i = 1; i < queue.count; i++) {
          assert.ok(((queue.seq(i) - queue.seqEnd(i - 1)) | 0) >= 0, 'in order, without overlap');
        }
      }
      queue.clear();
      assert.equal(held.count, 0);
      assert.equal(device.framesAvailable, 64);
    }
  });

  test('a thousand pieces of one byte in a row take one frame', () => {
    const device = new FakeQueue({ frameCount: 8 });
    const queue = new ReceiveQueue(new HeldFrames(device, new SegmentStore(), 4, 4));
    for (let i = 0; i < 1000; i++) {
      const frame = device.alloc();
      if (queue.insert(10 + i, frame + 100, 1, frame) !== INSERT.kept) device.free(frame);
    }
    assert.deepEqual([queue.count, queue.length(0), device.framesAvailable], [1, 1000, 7]);
    queue.clear();
  });

  test('beyond the limit of all frames, or of pieces, the frame stays with the caller', () => {
    const device = new FakeQueue({ frameCount: 16 });
    const held = new HeldFrames(device, new SegmentStore(), 2, 8);
    const [a, b] = [new ReceiveQueue(held), new ReceiveQueue(held)];
    assert.equal(a.insert(10, device.alloc(), 5, 0), INSERT.kept);
    assert.equal(b.insert(10, device.alloc(), 5, 0), INSERT.kept);
    assert.equal(b.insert(20, device.alloc(), 5, 0), INSERT.full);
  });
});

describe('the header', () => {
  const view = new DataView(new ArrayBuffer(200));
  const options = new wire.TcpOptions();
  const parse = (bytes: readonly number[]): boolean => {
    for (let i = 0; i < 40; i++) view.setUint8(20 + i, bytes[i] ?? 0);
    view.setUint8(12, (5 + Math.ceil(bytes.length / 4)) << 4);
    return wire.parseOptions(view, 0, options);
  };

  test('options: known ones are read, others skipped, those of a wrong length not believed', () => {
    assert.ok(parse([2, 4, 5, 180, 1, 3, 3, 20, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]));
    assert.deepEqual(
      [options.mss, options.windowScale, options.sackPermitted, options.tsValue, options.tsEcho],
      [1460, wire.WINDOW_SCALE_MAX, true, 1, 2],
    );
    assert.ok(parse([99, 6, 1, 2, 3, 4, 2, 3, 5, 0]));
    assert.equal(options.mss, 0);
    assert.ok(parse([5, 10, 0, 0, 0, 1, 0, 0, 0, 9]));
    assert.deepEqual([options.sackCount, options.sackEdges[0], options.sackEdges[1]], [1, 1, 9]);
  });

  test('options: a length of nothing, and one beyond the header', () => {
    assert.equal(parse([2, 0, 0, 0]), false);
    assert.equal(parse([8, 10, 1, 1]), false);
    assert.equal(parse([1, 1, 1, 8]), false);
  });

  test('a header is written, checked and printed', () => {
    const words = new Int32Array(8);
    setMappedIpv4(words, 0, 0x0a000001);
    setMappedIpv4(words, 4, 0x0a000002);
    const ports = wire.portPair(50_000, 80);
    wire.emit(view, 0, ports, -2, 7, 0, wire.SYN | wire.ACK_FLAG, 1000);
    wire.finish(view, 0, 20, wire.addressSum(words, 0));
    assert.ok(wire.checksumIsValid(view, 0, 20, wire.addressSum(words, 0)));
    view.setUint8(7, view.getUint8(7) ^ 1);
    assert.equal(wire.checksumIsValid(view, 0, 20, wire.addressSum(words, 0)), false);
    view.setUint8(7, view.getUint8(7) ^ 1);
    assert.equal(
      wire.format(view, 0, 20),
      'TCP 50000 > 80 [S.] seq 4294967294 ack 7 win 1000 len 0',
    );
    assert.equal(wire.check(view, 0, 19), -1);
    view.setUint8(12, 4 << 4);
    assert.equal(wire.check(view, 0, 20), -1);
  });
});

test('the keyed hash depends on the key, the words, and what it is for', () => {
  const words = Int32Array.of(1, 2, 3, 4);
  const other = new KeyedHash(Int32Array.of(1, 2, 3, 5));
  const seen = new Set([
    keyed.hash(words, 0, 4, 5, 6, PURPOSE.isn),
    keyed.hash(words, 0, 4, 5, 7, PURPOSE.isn),
    keyed.hash(words, 0, 3, 5, 6, PURPOSE.isn),
    keyed.hash(words, 0, 4, 5, 6, PURPOSE.cookie),
    other.hash(words, 0, 4, 5, 6, PURPOSE.isn),
  ]);
  assert.equal(seen.size, 5);
  assert.throws(() => new KeyedHash(new Int32Array(4)), ArrakisError);
});

test('addresses as text, both ways', () => {
  const words = new Int32Array(4);
  for (const text of ['10.0.0.2', 'fe80::1', '2001:db8::2:0:1', '::', '::1', '1:2:3:4:5:6:7:8']) {
    assert.ok(parseAddress(text, words, 0), text);
    assert.equal(formatAddress(words, 0), text);
  }
  for (const text of ['', '10.0.0', '1::2::3', '12345::', '1:2:3', 'x::1', '1:2:3:4:5:6:7:8:9']) {
    assert.equal(parseAddress(text, words, 0), false, text);
  }
});
