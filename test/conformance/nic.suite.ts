/**
 * The conformance suite of NicQueue: every driver and every wrapper passes it. A driver's test calls
 * `nicSuite(name, factory, options)`, where `factory` makes two queues that can talk to each other.
 *
 * - One pair serves all cases; each begins with a silent link and ends with every frame accounted for.
 * - Pools should have more frames than two rings, so that a full ring and an empty pool are two different cases.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { NIC_STATE, type NicQueue, NO_FRAME } from '../../src/device/nic.ts';
import { POLLIN, pollOne } from '../../src/ffi/fd.ts';
import { readable } from '../../src/ffi/watch.ts';
import { type Arrival, BATCH, Harness, type NicPair, type Side } from './nic.harness.ts';

export type { NicPair, PairAddresses, Side } from './nic.harness.ts';

export interface NicSuiteOptions {
  /** Say why, to skip the whole suite. */
  readonly skip?: string;
  /** Longest wait for anything. Default 5000. */
  readonly waitMs?: number;
  /** Silence that counts as the end of traffic. Default 0, for devices that move in `settle`; real ones need more. */
  readonly quietMs?: number;
  /** The transmit ring empties without `reclaim`, so a full one may have room again at once. Default false. */
  readonly ringDrainsItself?: boolean;
}

const LENGTH_MIN = 60;
const SIDES: readonly Side[] = ['a', 'b'];
const other = (side: Side): Side => (side === 'a' ? 'b' : 'a');

interface Context {
  h: Harness;
  options: NicSuiteOptions;
}

/** Register the suite's cases under `name`. */
export function nicSuite(
  name: string,
  factory: () => Promise<NicPair>,
  options: NicSuiteOptions = {},
): void {
  describe(`NicQueue conformance: ${name}`, { skip: options.skip ?? false }, () => {
    const context: Partial<Context> = { options };
    before(async () => {
      context.h = new Harness(await factory(), options.waitMs ?? 5000, options.quietMs ?? 0);
    });
    after(async () => {
      await context.h?.pair.close();
    });
    for (const [title, run] of CASES) {
      test(title, async (t) => {
        const h = context.h as Harness;
        await h.drain();
        const baseline = { a: h.queue('a').framesAvailable, b: h.queue('b').framesAvailable };
        const reason = await run({ h, options });
        if (typeof reason === 'string') t.skip(reason);
        await h.drain();
        await h.accounted(baseline);
      });
    }
    test('close is idempotent, and a closed queue takes and gives nothing', () =>
      closeCase(context.h as Harness));
  });
}

type Case = (context: Context) => Promise<string | undefined>;

const CASES: readonly [string, Case][] = [
  ['one frame each way', oneFrame],
  ['a retained frame is sent, comes back, and is sent again', retained],
  ['content is intact at every length', everyLength],
  ['order is kept', inOrder],
  ['a frame may start anywhere in its buffer', movedStart],
  ['a batch larger than the ring is accepted by prefixes', largeBatch],
  ['a full ring accepts a prefix and leaves the rest to the caller', fullRing],
  ['frames that cannot be sent are refused and counted', unsendable],
  ['an empty pool gives NO_FRAME and recovers', emptyPool],
  ['without buffers nothing is received, and it recovers', noBuffers],
  ['reclaim and rxBatch keep to their bounds', bounds],
  ['an armed doorbell wakes', doorbell],
  ['arm says no when frames wait', armWithFrames],
];

async function oneFrame({ h }: Context): Promise<undefined> {
  for (const from of SIDES) {
    const sender = h.queue(from).counters;
    const receiver = h.queue(other(from)).counters;
    const before = { sent: sender.txPackets, bytes: sender.txBytes, got: receiver.rxPackets };
    const { first, arrivals } = await h.exchange(from, [100]);
    assert.deepEqual(arrivals, [{ sequence: first, bytes: h.expected(100, from, first) }]);
    assert.equal(sender.txPackets, before.sent + 1, 'txPackets counts it');
    assert.equal(sender.txBytes, before.bytes + 100, 'txBytes counts it');
    assert.ok(receiver.rxPackets > before.got, 'rxPackets counts it');
  }
}

async function retained({ h }: Context): Promise<undefined> {
  for (const from of SIDES) {
    const queue = h.queue(from);
    const to = other(from);
    const sequence = h.nextSequence();
    const frame = h.make(from, LENGTH_MIN, sequence);
    assert.equal(queue.isShared(frame), false);
    for (let round = 0; round < 3; round++) {
      queue.retain(frame);
      assert.equal(queue.isShared(frame), true);
      const arrivals: Arrival[] = [];
      let taken = 0;
      await h.until('it arrives and comes back', () => {
        if (taken === 0) taken = h.offer(from, [frame], [LENGTH_MIN]);
        h.receive(to, arrivals);
        return arrivals.length > 0 && !queue.isShared(frame);
      });
      const expected = { sequence, bytes: h.expected(LENGTH_MIN, from, sequence) };
      assert.deepEqual(arrivals, [expected]);
    }
    queue.free(frame);
  }
}

async function everyLength({ h }: Context): Promise<undefined> {
  const max = Math.min(h.queue('a').frameLengthMax, h.queue('b').frameLengthMax);
  const lengths: number[] = [];
  for (let n = LENGTH_MIN; n <= max; n += n < 140 ? 1 : 61) lengths.push(n);
  lengths.push(max - 3, max - 2, max - 1, max);
  for (const from of SIDES) {
    const { first, arrivals } = await h.exchange(from, lengths);
    for (const { sequence, bytes } of arrivals) {
      const length = lengths[sequence - first]!;
      assert.ok(bytes.equals(h.expected(length, from, sequence)), `length ${length} is intact`);
    }
    assert.equal(new Set(arrivals.map((arrival) => arrival.sequence)).size, lengths.length);
  }
}

async function inOrder({ h }: Context): Promise<undefined> {
  for (const from of SIDES) {
    const { first, arrivals } = await h.exchange(from, new Array(2000).fill(LENGTH_MIN));
    assert.deepEqual(
      arrivals.map((arrival) => arrival.sequence - first),
      [...new Array(2000).keys()],
    );
  }
}

async function movedStart({ h }: Context): Promise<undefined> {
  const { memory } = h.queue('a');
  const most = memory.frameSize - memory.headroom - 200;
  for (const shift of [1, 2, 7, 64, most]) {
    const { first, arrivals } = await h.exchange('a', [200, 199], { shift });
    arrivals.forEach(({ sequence, bytes }) => {
      assert.ok(bytes.equals(h.expected(200 - (sequence - first), 'a', sequence)));
    });
  }
}

/** Everything that the pool has, in one array, offered again and again until all was taken. */
async function largeBatch({ h }: Context): Promise<undefined> {
  const frames: number[] = [];
  const first = h.nextSequence();
  let next = first;
  for (let count = h.queue('a').framesAvailable; count > 0; count--) {
    frames.push(h.make('a', LENGTH_MIN, next));
    if (count > 1) next = h.nextSequence();
  }
  const total = frames.length;
  const arrivals: Arrival[] = [];
  await h.until('the whole batch is taken', () => {
    frames.splice(0, h.offer('a', frames, new Array(frames.length).fill(LENGTH_MIN)));
    h.receive('b', arrivals);
    return frames.length === 0;
  });
  await h.quiet(() => h.receive('b', arrivals) > 0);
  // A receiver that is polled slowly may lose some, but neither order nor content.
  assert.ok(arrivals.length > 0 && arrivals.length <= total);
  let before = first - 1;
  for (const { sequence, bytes } of arrivals) {
    assert.ok(sequence > before, 'in order, and once');
    assert.ok(bytes.equals(h.expected(LENGTH_MIN, 'a', sequence)));
    before = sequence;
  }
  return undefined;
}

async function fullRing({ h, options }: Context): Promise<string | undefined> {
  const queue = h.queue('a');
  const frames: number[] = [];
  while (queue.framesAvailable > 0) frames.push(h.make('a', LENGTH_MIN, h.nextSequence()));
  const lengths = new Array<number>(frames.length).fill(LENGTH_MIN);
  const taken = h.offer('a', frames, lengths);
  assert.ok(taken > 0 && taken <= frames.length, 'a prefix');
  const rest = frames.slice(taken);
  const again = h.offer('a', rest, lengths.slice(taken));
  if (options.ringDrainsItself !== true) assert.equal(again, 0, 'a full ring takes nothing');
  // Freeing the rest asserts inside the pool if the queue took one of them after all.
  for (const frame of rest.slice(again)) queue.free(frame);
  return taken === lengths.length
    ? 'the ring holds the whole pool: give it more frames'
    : undefined;
}

async function unsendable({ h }: Context): Promise<undefined> {
  const queue = h.queue('a');
  const { memory, frameLengthMax, counters } = queue;
  const make = (): number => h.make('a', LENGTH_MIN, h.nextSequence());
  const sequence = h.nextSequence();
  const crossing = make() + memory.frameSize - memory.headroom - 20;
  const bad: [number, number][] = [
    [make(), 13],
    [make(), 0],
    [make(), frameLengthMax + 1],
    [crossing, LENGTH_MIN],
    [memory.u8.length, LENGTH_MIN],
    [memory.u8.length + 4096, LENGTH_MIN],
    [0xffffffc0, LENGTH_MIN],
    [NO_FRAME, LENGTH_MIN],
  ];
  const offered: [number, number][] = [...bad, [h.make('a', 300, sequence), 300]];
  const before = { dropped: counters.txDropped, sent: counters.txPackets };
  const taken = h.offer(
    'a',
    offered.map(([frame]) => frame),
    offered.map(([, length]) => length),
  );
  assert.equal(taken, offered.length, 'refused frames count as accepted');
  const arrivals: Arrival[] = [];
  await h.until('the good frame arrives', () => {
    h.receive('b', arrivals);
    return arrivals.length > 0;
  });
  assert.equal(counters.txDropped, before.dropped + bad.length, 'txDropped counts them');
  assert.equal(counters.txPackets, before.sent + 1, 'txPackets does not');
  assert.deepEqual(arrivals, [{ sequence, bytes: h.expected(300, 'a', sequence) }]);
}

async function emptyPool({ h }: Context): Promise<undefined> {
  const queue = h.queue('a');
  const { memory, counters } = queue;
  const count = queue.framesAvailable;
  const before = counters.noFrame;
  const frames = takeAll(queue);
  assert.equal(frames.length, count, 'framesAvailable says what alloc gives');
  assert.equal(queue.framesAvailable, 0);
  assert.ok(counters.noFrame > before, 'noFrame counts it');
  const buffers = new Set(frames.map((frame) => Math.floor(frame / memory.frameSize)));
  assert.equal(buffers.size, count, 'each frame has a buffer of its own');
  for (const frame of frames) {
    assert.equal(frame % memory.frameSize, memory.headroom, 'behind its headroom');
    queue.free(frame);
  }
  assert.equal(queue.framesAvailable, count);
  await h.exchange('a', [LENGTH_MIN]);
}

/** Every frame of a pool; the loop ends at the number of buffers. */
function takeAll(queue: NicQueue): number[] {
  const frames: number[] = [];
  for (let i = 0; i <= queue.memory.frameCount; i++) {
    const frame = queue.alloc();
    if (frame === NO_FRAME) return frames;
    frames.push(frame);
  }
  throw new Error('a pool gives more frames than it has');
}

async function noBuffers({ h }: Context): Promise<undefined> {
  const receiver = h.queue('b');
  const kept = takeAll(receiver);
  const arrivals: Arrival[] = [];
  const poolSize = receiver.memory.frameCount;
  // Keep whatever arrives, until the device has no frame left to receive into.
  await h.until('the receiver is out of frames', () => {
    for (let i = 0; i < BATCH; i++) sendOne(h);
    h.receive('b', arrivals, kept);
    return kept.length >= poolSize;
  });
  assert.equal(kept.length, poolSize, 'the caller has every frame');
  const before = arrivals.length;
  for (let i = 0; i < BATCH; i++) sendOne(h);
  await h.quiet(() => h.receive('b', arrivals, kept) > 0);
  assert.equal(arrivals.length, before, 'nothing arrives without a buffer');
  for (const frame of kept) receiver.free(frame);
  // The first frames may still find the device without buffers: the refill is on its way.
  await h.until('it receives again', () => {
    sendOne(h);
    h.receive('b', arrivals);
    return arrivals.length > before;
  });
  const last = arrivals.at(-1) as Arrival;
  assert.ok(last.bytes.equals(h.expected(LENGTH_MIN, 'a', last.sequence)));
}

/** Send one frame of a if there is room; whether it arrives is not followed. */
function sendOne(h: Harness): void {
  const queue = h.queue('a');
  if (queue.framesAvailable === 0) return;
  const frame = h.make('a', LENGTH_MIN, h.nextSequence());
  if (h.offer('a', [frame], [LENGTH_MIN]) === 0) queue.free(frame);
}

async function bounds({ h }: Context): Promise<undefined> {
  const [a, b] = [h.queue('a'), h.queue('b')];
  const frames = new Uint32Array(8);
  const lengths = new Uint16Array(8);
  assert.equal(b.rxBatch(frames, lengths, 0), 0);
  assert.equal(a.txBatch(frames, lengths, 0), 0);
  assert.equal(a.reclaim(0), 0);
  for (let i = 0; i < 8; i++) sendOne(h);
  a.kick();
  let got = 0;
  let reclaimed = 0;
  const deadline = Date.now() + h.waitMs;
  while (got < 8 || reclaimed < 8) {
    assert.ok(Date.now() < deadline, 'in time: eight frames received and reclaimed');
    a.kick();
    await h.pair.settle?.();
    await new Promise<void>((resolve) => setImmediate(resolve));
    const count = b.rxBatch(frames, lengths, 3);
    assert.ok(count <= 3, 'rxBatch keeps to max');
    for (let i = 0; i < count; i++) {
      if (h.sequenceOf(b.memory.u8, frames[i]!, lengths[i]!, 'a') >= 0) got++;
      b.free(frames[i]!);
    }
    const back = a.reclaim(2);
    assert.ok(back <= 2, 'reclaim keeps to max');
    reclaimed += back;
  }
}

async function doorbell({ h }: Context): Promise<string | undefined> {
  for (const side of SIDES) {
    const queue = h.queue(side);
    if (queue.doorbellFd === -1) return 'the device has no doorbell';
    const ignored: Arrival[] = [];
    await h.until('the queue arms', () => {
      if (queue.arm()) return true;
      queue.disarm();
      h.receive(side, ignored);
      return false;
    });
    let rung: boolean | null = null;
    const waiting = readable(queue.doorbellFd, h.waitMs).then((result) => {
      rung = result;
    });
    const from = other(side);
    const sequence = h.nextSequence();
    const frame = h.make(from, LENGTH_MIN, sequence);
    assert.equal(h.offer(from, [frame], [LENGTH_MIN]), 1);
    await h.until('the doorbell rings', () => rung !== null);
    await waiting;
    assert.equal(rung, true, 'doorbellFd became readable');
    queue.disarm();
    const arrivals: Arrival[] = [];
    await h.until('the frame is there', () => {
      h.receive(side, arrivals);
      return arrivals.length > 0;
    });
    assert.equal(arrivals[0]!.sequence, sequence);
    await h.quiet(() => h.receive(side, ignored) > 0);
    assert.equal(pollOne(queue.doorbellFd, POLLIN, 0), 0, 'a disarmed, empty queue is silent');
  }
  return undefined;
}

async function armWithFrames({ h }: Context): Promise<undefined> {
  const queue = h.queue('b');
  sendOne(h);
  await h.until('arm sees the frame', () => {
    if (!queue.arm()) return true;
    queue.disarm();
    return false;
  });
  queue.disarm();
  const arrivals: Arrival[] = [];
  await h.until('the frame is received', () => {
    h.receive('b', arrivals);
    return arrivals.length > 0;
  });
}

async function closeCase(h: Harness): Promise<void> {
  await h.drain();
  const frames = new Uint32Array(8);
  const lengths = new Uint16Array(8).fill(LENGTH_MIN);
  for (const side of SIDES) {
    const queue = h.queue(side);
    queue.close();
    queue.close();
    assert.equal(queue.state, NIC_STATE.closed);
    assert.equal(queue.rxBatch(frames, lengths, 8), 0);
    assert.equal(queue.txBatch(frames, lengths, 8), 0);
    assert.equal(queue.reclaim(8), 0);
    assert.equal(queue.arm(), false, 'a closed queue does not arm');
    queue.disarm();
    queue.kick();
    // The other end may notice or not; it must not fail.
    const peer = h.queue(other(side));
    peer.rxBatch(frames, lengths, 0);
    peer.reclaim(8);
    peer.kick();
  }
}
