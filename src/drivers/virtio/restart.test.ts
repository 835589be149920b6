/** The device goes away and another one takes its place on the same region: no frame is lost to the pool. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArrakisError } from '../../base/errors.ts';
import { NIC_STATE, NO_FRAME } from '../../device/nic.ts';
import { closeFd, openFds, POLLIN, pollOne } from '../../ffi/fd.ts';
import { SOCK_STREAM, socketPair } from '../../ffi/unix.ts';
import { createRegion, type VirtioGrant, virtioGeometry } from './attach.ts';
import { MockDevice, type MockFeatures, preloadAnswers } from './mock.ts';
import { openVirtioPair } from './queue.ts';
import { startVirtio } from './session.ts';

const sizes = { ringSize: 16, frameSize: 2048, frameCount: 64 };
const grant: VirtioGrant = {
  ...sizes,
  mac: 0x020000000001,
  mtu: 1500,
  headroom: 64,
  regionBytes: virtioGeometry(sizes).regionBytes,
};
const FEATURES: MockFeatures = { eventIdx: true, replyAck: false };
const FRAME = new Uint8Array(60).fill(7);

function connected(features = FEATURES): { socket: number; deviceEnd: number } {
  const [socket, deviceEnd] = socketPair(SOCK_STREAM);
  preloadAnswers(deviceEnd, features);
  return { socket, deviceEnd };
}

function open() {
  const { socket, deviceEnd } = connected();
  const session = startVirtio(grant, { region: createRegion(grant), socket });
  const queue = openVirtioPair(session.pairs[0]!);
  const device = MockDevice.accept(deviceEnd);
  return { session, queue, device };
}

/** Every frame that the caller can have, given back. */
function countFrames(queue: ReturnType<typeof open>['queue']): number {
  const frames: number[] = [];
  for (let frame = queue.alloc(); frame !== NO_FRAME; frame = queue.alloc()) frames.push(frame);
  for (const frame of frames) queue.free(frame);
  return frames.length;
}

test('frames of both rings come back, the caller keeps its own, and traffic goes on', () => {
  const before = openFds().length;
  const { session, queue, device } = open();
  const frames = new Uint32Array(16);
  const lengths = new Uint16Array(16);
  const free = countFrames(queue);
  for (let round = 0, serving = device; round < 3; round++) {
    // Some sent and not taken, some delivered and not read, one with the caller.
    for (let i = 0; i < 5; i++) {
      frames[i] = queue.alloc();
      lengths[i] = 60;
    }
    assert.equal(queue.txBatch(frames, lengths, 5), 5);
    assert.ok(serving.deliver(FRAME, 0, FRAME.length));
    const own = queue.alloc();
    serving.close();
    assert.equal(session.checkDevice(), 'gone');
    assert.equal(queue.checkDevice(), NIC_STATE.up, 'it waits for the next device');
    queue.reset();
    assert.notEqual(pollOne(queue.doorbellFd, POLLIN, 0), 0, 'a sleeper is woken');
    const next = connected();
    session.restart(next.socket);
    serving = MockDevice.accept(next.deviceEnd);
    assert.equal(session.checkDevice(), 'up');
    queue.disarm();
    queue.free(own);
    assert.equal(countFrames(queue), free);
    assert.ok(serving.deliver(FRAME, 0, FRAME.length));
    assert.equal(queue.rxBatch(frames, lengths, 16), 1);
    assert.equal(lengths[0], FRAME.length);
    assert.equal(queue.txBatch(frames, lengths, 1), 1);
    const sent = serving.take()!;
    assert.equal(sent.length, FRAME.length);
    serving.sent(sent.id);
    assert.equal(queue.reclaim(16), 1);
    if (round === 2) serving.close();
  }
  queue.close();
  session.close();
  assert.equal(openFds().length, before);
});

test('a device that ends during the handshake can be followed by another', () => {
  const { session, queue, device } = open();
  device.close();
  queue.reset();
  const [socket, deviceEnd] = socketPair(SOCK_STREAM);
  closeFd(deviceEnd);
  assert.throws(
    () => session.restart(socket),
    (error) => error instanceof ArrakisError && error.code === 'ARK_GONE',
  );
  queue.reset();
  const next = connected();
  session.restart(next.socket);
  const serving = MockDevice.accept(next.deviceEnd);
  assert.ok(serving.deliver(FRAME, 0, FRAME.length));
  assert.equal(queue.rxBatch(new Uint32Array(1), new Uint16Array(1), 1), 1);
  serving.close();
  queue.giveUp();
  assert.equal(queue.state, NIC_STATE.gone);
  queue.close();
  session.close();
});

test('a device with other features is refused', () => {
  const { session, queue, device } = open();
  device.close();
  queue.reset();
  const next = connected({ ...FEATURES, eventIdx: false });
  assert.throws(
    () => session.restart(next.socket),
    (error) => error instanceof ArrakisError && error.code === 'ARK_PROTOCOL',
  );
  closeFd(next.deviceEnd);
  queue.close();
  session.close();
});
