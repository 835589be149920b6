/** The send queue and the reading of SACK blocks, against a model that has an entry for each byte. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { checkCounters, PAYLOAD_OFFSET, TestFrames } from '../../../test/support/tcp-path.ts';
import { AckScratch } from './ack.ts';
import { Rack } from './rack.ts';
import { SackReader } from './sack.ts';
import { SegmentStore } from './segment-store.ts';
import { NO_SEGMENT_FRAME, SEG, SendQueue } from './send-queue.ts';

const FRAMES = 64;

function setup(first: number) {
  const frames = new TestFrames(FRAMES);
  const queue = new SendQueue(frames, new SegmentStore());
  queue.start(first);
  const append = (length: number, fill = 0): void => {
    const frame = frames.alloc();
    frames.memory.u8.fill(fill, frame + PAYLOAD_OFFSET, frame + PAYLOAD_OFFSET + length);
    queue.append(frame, frame + PAYLOAD_OFFSET, length, SEG.open);
  };
  return { frames, queue, append };
}

type State = 'queued' | 'flight' | 'sacked' | 'lost';

/** The bytes from `una` on; segments are runs with the same `segment`. */
class Model {
  bytes: { state: State; segment: number; value: number }[] = [];
  #segments = 0;

  append(length: number, value: number): void {
    this.#segments++;
    for (let i = 0; i < length; i++) {
      this.bytes.push({ state: 'queued', segment: this.#segments, value });
    }
  }
  segments(): number[] {
    return [...new Set(this.bytes.map((b) => b.segment))];
  }
  of(segment: number) {
    return this.bytes.filter((b) => b.segment === segment);
  }
  set(segment: number, state: State): void {
    for (const b of this.of(segment)) b.state = state;
  }
  count(state: State): number {
    return this.bytes.filter((b) => b.state === state).length;
  }
  sack(left: number, right: number): void {
    for (const segment of this.segments()) {
      const all = this.bytes.map((b, i) => ({ b, i })).filter(({ b }) => b.segment === segment);
      const isIn = all.every(({ b, i }) => i >= left && i < right && b.state !== 'queued');
      if (isIn) this.set(segment, 'sacked');
    }
  }
  split(segment: number, bytes: number): void {
    this.#segments++;
    for (const b of this.of(segment).slice(bytes)) b.segment = this.#segments;
  }
}

/** More comes than leaves. */
const WHAT =
  'append append append send send send send sack sack sack lose lose resend split ack'.split(' ');
const step = fc.record({
  what: fc.constantFrom(...WHAT),
  a: fc.nat(400),
  b: fc.nat(400),
});
const FIRSTS = [0, 0x7fffffff - 90, -90, 12345];

function compare(queue: SendQueue, model: Model, frames: TestFrames): void {
  checkCounters(queue);
  assert.equal(queue.inFlight, model.count('flight'));
  assert.equal(queue.sacked, model.count('sacked'));
  assert.equal(queue.lost, model.count('lost'));
  assert.equal(queue.queued, model.count('queued'));
  assert.equal(queue.count, model.segments().length);
  const { u8 } = frames.memory;
  const bytes: number[] = [];
  for (let i = 0; i < queue.count; i++) {
    bytes.push(...u8.subarray(queue.at(i), queue.at(i) + queue.length(i)));
  }
  assert.deepEqual(
    bytes,
    model.bytes.map((b) => b.value),
  );
  const lost = model.bytes.findIndex((b) => b.state === 'lost');
  const first = queue.firstLost();
  assert.equal(first < 0 ? -1 : (queue.seq(first) - queue.una) | 0, lost);
  assert.equal(frames.pool.available, FRAMES - queue.count);
}

test('a random history, byte by byte', () => {
  const property = fc.property(
    fc.constantFrom(...FIRSTS),
    fc.array(step, { minLength: 1, maxLength: 100, size: 'max' }),
    (first, steps) => {
      const { frames, queue, append } = setup(first);
      const model = new Model();
      const reader = new SackReader();
      const ack = new AckScratch();
      const rack = new Rack();
      rack.start(first);
      let value = 0;
      for (const { what, a, b } of steps) {
        const sent = model.bytes.length - model.count('queued');
        const i = queue.unsent === 0 ? 0 : a % queue.unsent;
        const segment = model.segments()[i]!;
        if (what === 'append' && queue.count < FRAMES / 2) {
          append(1 + (a % 40), ++value & 255);
          model.append(1 + (a % 40), value & 255);
        } else if (what === 'send' && queue.unsent < queue.count) {
          model.set(model.segments()[queue.unsent]!, 'flight');
          queue.markSent(queue.unsent, 0);
        } else if (what === 'ack') {
          const bytes = (a * b) % 3 === 0 ? a % (sent + 1) : a % Math.min(sent + 1, 50);
          queue.ackTo((queue.una + bytes) | 0);
          model.bytes.splice(0, bytes);
        } else if (what === 'sack') {
          // Blocks beyond what was sent, backwards, or at the left edge are refused.
          const una = queue.una;
          ack.set(una, true);
          ack.addSack((una + a) | 0, (una + b) | 0);
          reader.read(ack, queue, rack, 1);
          const isGood = a > 0 && b > a && b <= sent;
          assert.equal(reader.bad, isGood || (b > a && b <= 0) ? 0 : reader.hasDsack ? 0 : 1);
          if (isGood) model.sack(a, b);
        } else if (what === 'lose' && queue.unsent > 0) {
          const isFlight = model.of(segment)[0]!.state === 'flight';
          assert.equal(queue.markLost(i), isFlight);
          if (isFlight) model.set(segment, 'lost');
        } else if (what === 'resend' && queue.unsent > 0) {
          if (model.of(segment)[0]!.state === 'lost') model.set(segment, 'flight');
          queue.markSent(i, 1);
        } else if (what === 'split' && queue.count > 0 && queue.count < FRAMES / 2) {
          const at = a % queue.count;
          if (queue.length(at) > 1) {
            const bytes = 1 + (b % (queue.length(at) - 1));
            model.split(model.segments()[at]!, bytes);
            assert.equal(queue.split(at, bytes, PAYLOAD_OFFSET), true);
          }
        }
        compare(queue, model, frames);
      }
      queue.clear();
      assert.equal(frames.pool.available, FRAMES, 'every frame came back');
    },
  );
  fc.assert(property, { numRuns: 300 });
});

describe('segments', () => {
  test('SYN and FIN are a byte each, FIN with the payload before it', () => {
    const { frames, queue, append } = setup(-1);
    queue.appendSyn();
    append(10);
    queue.appendFin();
    assert.equal(queue.count, 2);
    assert.equal(queue.end, 11);
    queue.markSent(0, 1);
    queue.markSent(1, 1);
    assert.equal(queue.outstanding, 12);
    assert.equal(queue.ackTo(0), 1);
    assert.equal(queue.ackTo(10), 0, 'the FIN is left');
    assert.equal(queue.frame(0), NO_SEGMENT_FRAME);
    assert.equal(frames.pool.available, FRAMES);
    assert.equal(queue.inFlight, 1);
    assert.equal(queue.ackTo(11), 1);
    assert.equal(queue.count, 0);
  });

  test('a FIN after what was sent stands alone', () => {
    const { queue, append } = setup(5);
    append(10);
    queue.markSent(0, 1);
    queue.appendFin();
    assert.equal(queue.count, 2);
    assert.equal(queue.length(1), 0);
    assert.equal(queue.seqLength(1), 1);
  });

  test('the unsent tail takes more, up to the payload and the frame', () => {
    const { queue, append } = setup(5);
    append(10);
    assert.equal(queue.tailRoom(100), 90);
    assert.equal(queue.tailRoom(5000), 2048 - 64 - PAYLOAD_OFFSET - 10);
    queue.growTail(90, SEG.push);
    assert.equal(queue.length(0), 100);
    assert.equal(queue.queued, 100);
    assert.equal(queue.tailRoom(100), 0);
    queue.markSent(0, 1);
    assert.equal(queue.tailRoom(1000), 0, 'what was sent stays as it is');
  });

  test('no frame, no split', () => {
    const { frames, queue, append } = setup(5);
    append(10);
    while (frames.pool.available > 0) frames.alloc();
    assert.equal(queue.split(0, 4, PAYLOAD_OFFSET), false);
    assert.equal(queue.length(0), 10);
  });

  test('rings go from one connection to the next, and an empty queue has none', () => {
    const store = new SegmentStore();
    const first = store.take(1);
    store.give(first);
    assert.equal(store.take(5), first);
    assert.notEqual(store.take(5), first);
    assert.equal(store.take(9).length, 2 * first.length);
  });
});

describe('SACK blocks', () => {
  const sent = (count: number, first = 0) => {
    const made = setup(first);
    for (let i = 0; i < count; i++) made.append(100);
    for (let i = 0; i < count; i++) made.queue.markSent(i, i);
    return made.queue;
  };
  const read = (queue: SendQueue, seq: number, ...edges: number[]): SackReader => {
    const ack = new AckScratch();
    const reader = new SackReader();
    ack.set(seq, true);
    for (let i = 0; i < edges.length; i += 2) ack.addSack(edges[i]!, edges[i + 1]!);
    reader.read(ack, queue, new Rack(), 100);
    return reader;
  };

  test('hostile ones change nothing', () => {
    for (const [left, right] of [
      [300, 200],
      [200, 200],
      [900, 1001],
      [200, 0x7fffffff],
      [-0x80000000, 500],
      [0, 200],
      [-5, 100],
    ] as const) {
      const queue = sent(10);
      const reader = read(queue, 0, 500, 600, left, right);
      assert.equal(queue.sacked, 100, `${left}..${right}`);
      assert.equal(reader.bad, 1, `${left}..${right}`);
    }
  });

  test('a part of a segment is not sacked', () => {
    const queue = sent(10);
    read(queue, 0, 150, 399);
    assert.equal(queue.sacked, 100);
    assert.equal(queue.flags(2) & SEG.sacked, SEG.sacked);
  });

  test('D-SACK: below the acknowledgement, or in the second block (RFC 2883, section 4)', () => {
    const queue = sent(10);
    queue.ackTo(300);
    assert.equal(read(queue, 300, 100, 200).hasDsack, true);
    assert.equal(queue.sacked, 0);
    assert.equal(read(queue, 300, 500, 600, 500, 800).hasDsack, true);
    assert.equal(queue.sacked, 300);
    assert.equal(read(queue, 300, 500, 600, 700, 800).hasDsack, false);
    assert.equal(read(queue, 300, 500, 2000, 500, 3000).hasDsack, false);
  });
});
