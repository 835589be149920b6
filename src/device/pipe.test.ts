import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NIC_STATE, type NicQueue } from './nic.ts';
import { createPipe } from './pipe.ts';

const frames = new Uint32Array(64);
const lengths = new Uint16Array(64);

function send(queue: NicQueue, count: number, length = 60): number {
  for (let i = 0; i < count; i++) {
    frames[i] = queue.alloc();
    lengths[i] = length;
  }
  const taken = queue.txBatch(frames, lengths, count);
  for (let i = taken; i < count; i++) queue.free(frames[i]!);
  return taken;
}

test('nothing moves before kick', () => {
  const { a, b } = createPipe();
  send(a, 3);
  assert.equal(b.rxBatch(frames, lengths, 64), 0);
  a.kick();
  assert.equal(b.rxBatch(frames, lengths, 64), 3);
});

test('a receiver without frames drops, counted at the receiver', () => {
  const { a, b } = createPipe({ ringSize: 8, frameCount: 64 });
  for (let round = 0; round < 3; round++) {
    assert.equal(send(a, 8), 8);
    a.kick();
    assert.equal(a.reclaim(64), 8);
  }
  assert.equal(b.counters.noFrame, 16);
  assert.equal(b.rxBatch(frames, lengths, 64), 8);
});

test('an end is joined once', () => {
  const { a, b } = createPipe();
  assert.throws(() => a.join(b), /joined once/);
});

test('closing one end is the end of the other, and wakes it', () => {
  const { a, b } = createPipe({ doorbells: true });
  assert.equal(b.arm(), true);
  a.close();
  assert.equal(b.state, NIC_STATE.gone);
  assert.equal(b.arm(), false);
  b.disarm();
  assert.equal(b.counters.wakeups, 1);
  b.close();
  assert.equal(b.state, NIC_STATE.closed);
});

test('frames of odd alignment are copied whole', () => {
  const { a, b } = createPipe();
  for (const shift of [0, 1, 2, 3, 4]) {
    const frame = a.alloc() + shift;
    for (let i = 0; i < 63; i++) a.memory.u8[frame + i] = i + shift;
    frames[0] = frame;
    lengths[0] = 63;
    a.txBatch(frames, lengths, 1);
    a.kick();
    assert.equal(b.rxBatch(frames, lengths, 1), 1);
    const got = b.memory.u8.subarray(frames[0], frames[0]! + 63);
    assert.deepEqual(
      [...got],
      [...new Array(63).keys()].map((i) => i + shift),
    );
  }
});
