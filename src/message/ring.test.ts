/** The message ring against a queue model, at its edges, and with a peer that writes whatever it likes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../../test/support/random.ts';
import { ArrakisError } from '../base/errors.ts';
import {
  CONSUMER_ARMED,
  DATA,
  HEAD,
  linkMemory,
  messageBytesMax,
  ringBytes,
  TAIL,
} from './layout.ts';
import { NONE, RingReceiver, RingSender } from './ring.ts';

const CAPACITY = 4096;

function makeRing(capacity = CAPACITY) {
  const memory = linkMemory(new ArrayBuffer(2 * ringBytes(capacity)));
  const sender = new RingSender(memory, 0, capacity);
  const receiver = new RingReceiver(memory, 0, capacity);
  return { memory, sender, receiver };
}

/** Bytes that tell which message they are of. */
function fill(bytes: Uint8Array, at: number, length: number, seed: number): void {
  for (let i = 0; i < length; i++) bytes[at + i] = (seed * 31 + i) & 0xff;
}

function verify(bytes: Uint8Array, at: number, length: number, seed: number): boolean {
  for (let i = 0; i < length; i++) if (bytes[at + i] !== ((seed * 31 + i) & 0xff)) return false;
  return true;
}

/** One million operations of a seed: what is sent comes out, in order, whole, and nothing else does. */
function againstModel(seed: number, operations: number): void {
  const random = new Random(seed);
  const { memory, sender, receiver } = makeRing();
  const most = messageBytesMax(CAPACITY);
  const model: number[] = [];
  let unpublished = 0;
  let taken = 0;
  let sent = 0;
  let received = 0;
  for (let n = 0; n < operations; n++) {
    const dice = random.below(10);
    if (dice < 4) {
      const length = random.oneIn(20) ? random.below(most + 1) : random.below(80);
      const at = sender.reserve(length);
      if (at === NONE) {
        assert.ok(model.length + unpublished + taken > 0, 'an empty ring has room for any message');
      } else if (!random.oneIn(16)) {
        // One in sixteen is given up, and some turn out shorter than was reserved.
        const final = random.oneIn(8) ? random.below(length + 1) : length;
        fill(memory.bytes, at, final, sent);
        sender.commit(final, sent ^ 0x5a5a);
        model.push(final);
        sent++;
        unpublished++;
      }
    } else if (dice < 6) {
      sender.publish();
      unpublished = 0;
    } else if (dice < 9) {
      const length = receiver.receive();
      const visible = model.length - unpublished;
      if (length === NONE) assert.equal(visible <= 0 || receiver.fault !== null, visible <= 0);
      else {
        assert.equal(length, model.shift());
        assert.equal(receiver.tag, received ^ 0x5a5a);
        if (!verify(memory.bytes, receiver.offset, length, received)) assert.fail('changed bytes');
        received++;
        taken++;
      }
    } else {
      receiver.release();
      taken = 0;
    }
  }
  sender.publish();
  while (receiver.receive() !== NONE) {
    model.shift();
    received++;
  }
  assert.equal(received, sent);
  assert.equal(model.length, 0);
  assert.equal(receiver.fault ?? sender.fault, null);
  assert.ok(sent > operations / 8, 'most operations did something');
}

test('a million random operations agree with a queue', () => againstModel(1, 1_000_000));

test('other seeds', () => {
  for (let seed = 2; seed < 30; seed++) againstModel(seed, 20_000);
});

test('the counters wrap at 2^32', () => {
  const { memory, sender, receiver } = makeRing();
  const most = sender.lengthMax;
  // 2,048 bytes a record: 2^32 bytes are 2,097,152 of them.
  let wrapped = false;
  for (let n = 0; n < 2_200_000; n++) {
    const at = sender.reserve(most);
    memory.bytes[at] = n & 0xff;
    sender.commit(most);
    sender.publish();
    assert.equal(receiver.receive(), most);
    assert.equal(memory.bytes[receiver.offset], n & 0xff);
    receiver.release();
    wrapped ||= n > 0 && memory.words[TAIL]! >= 0 && memory.words[TAIL]! < 2048;
  }
  assert.ok(wrapped);
  assert.equal(receiver.fault ?? sender.fault, null);
});

test('a message longer than half the ring is refused, with what to do', () => {
  const { sender } = makeRing();
  assert.equal(sender.lengthMax, CAPACITY / 2 - 8);
  assert.notEqual(sender.reserve(sender.lengthMax), NONE);
  for (const length of [sender.lengthMax + 1, 2 ** 31, -1]) {
    assert.throws(
      () => sender.reserve(length),
      (error: unknown) =>
        error instanceof ArrakisError &&
        error.code === 'ARK_LIMIT' &&
        error.hint!.includes('region'),
    );
  }
});

test('nothing is visible before publish, and room comes back only with release', () => {
  const { sender, receiver } = makeRing();
  const message = Buffer.alloc(1000, 1);
  let count = 0;
  while (sender.send(message)) count++;
  assert.equal(count, 4);
  assert.equal(receiver.receive(), NONE);
  sender.publish();
  for (let i = 0; i < 4; i++) assert.equal(receiver.receive(), 1000);
  assert.equal(receiver.receive(), NONE);
  assert.equal(sender.send(message), false);
  receiver.release();
  assert.equal(sender.send(message), true);
});

test('the bell is asked for only by a sleeper, and only once', () => {
  const { sender, receiver } = makeRing();
  const message = Buffer.alloc(8);
  sender.send(message);
  assert.equal(sender.publish(), false);
  assert.equal(receiver.arm(), false, 'there is something to read');
  receiver.receive();
  assert.equal(receiver.arm(), true);
  sender.send(message);
  assert.equal(sender.publish(), true);
  sender.send(message);
  assert.equal(sender.publish(), false);
  while (sender.send(Buffer.alloc(500)));
  sender.publish();
  assert.equal(sender.arm(), true);
  while (receiver.receive() !== NONE);
  assert.equal(receiver.release(), true);
  assert.equal(receiver.release(), false);
  assert.equal(sender.arm(), false, 'there is room');
});

test('a reader position that cannot be stops the sender', () => {
  for (const head of [8, 4, 1, -8, 0x7fffffff, -0x80000000, CAPACITY + 8]) {
    const { memory, sender } = makeRing();
    Atomics.store(memory.words, HEAD / 4, head);
    for (let n = 0; n < 100 && sender.send(Buffer.alloc(100)); n++);
    assert.match(sender.fault ?? '', /position/);
    assert.equal(sender.send(Buffer.alloc(100)), false);
  }
});

test('a writer position or a length that cannot be stops the receiver', () => {
  for (const tail of [CAPACITY + 8, -8, 4, 1, 0x7fffffff, -0x80000000]) {
    const { memory, receiver } = makeRing();
    Atomics.store(memory.words, TAIL / 4, tail);
    assert.equal(receiver.receive(), NONE);
    assert.match(receiver.fault ?? '', /position/);
    assert.equal(receiver.arm(), false);
  }
  for (const length of [9, 2041, 4096, 0x7fffffff, -2, -0x80000000, -1]) {
    const { memory, receiver } = makeRing();
    memory.words[DATA / 4] = length;
    Atomics.store(memory.words, TAIL / 4, 16);
    assert.equal(receiver.receive(), NONE);
    assert.match(receiver.fault ?? '', /does not fit/);
    assert.equal(receiver.receive(), NONE);
  }
});

test('whatever a hostile peer writes, offsets and lengths stay in the ring and every call ends', () => {
  for (let seed = 1; seed <= 400; seed++) {
    const random = new Random(seed);
    const { memory, sender, receiver } = makeRing();
    const end = ringBytes(CAPACITY);
    const hostile = [0, 8, 16, -1, -8, CAPACITY, CAPACITY - 8, 2040, 0x7fffffff, -0x80000000];
    for (let n = 0; n < 500; n++) {
      const dice = random.below(6);
      if (dice === 0) memory.words[TAIL / 4] = random.oneIn(2) ? random.pick(hostile) : n * 8;
      else if (dice === 1) memory.words[HEAD / 4] = random.oneIn(2) ? random.pick(hostile) : n * 8;
      else if (dice === 2) {
        const word = (DATA + random.below(CAPACITY)) >> 2;
        memory.words[word] = random.oneIn(2) ? random.pick(hostile) : random.below(100);
      } else if (dice === 3) memory.words[CONSUMER_ARMED / 4] = random.uint32() | 0;
      else if (dice === 4) {
        const length = receiver.receive();
        if (length !== NONE) {
          assert.ok(length >= 0 && length <= receiver.lengthMax);
          assert.ok(receiver.offset >= DATA && receiver.offset + length <= end);
        }
        receiver.release();
      } else {
        const length = random.below(sender.lengthMax + 1);
        const at = sender.reserve(length);
        if (at !== NONE) {
          assert.ok(at >= DATA && at + length <= end);
          sender.commit(length);
        }
        sender.publish();
      }
    }
  }
});
