import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closeAll, closeFd, eventfd, isOpen, setNonBlocking } from '../ffi/fd.ts';
import { SOCK_STREAM, sendMessage, socketPair } from '../ffi/unix.ts';
import { VhostReceiver } from './vhost-receiver.ts';
import { encodeMessage, encodeU64, REQ } from './vhost-user.ts';

function pair(): { client: number; device: number; receiver: VhostReceiver } {
  const [client, device] = socketPair(SOCK_STREAM);
  setNonBlocking(device);
  return { client, device, receiver: new VhostReceiver(device) };
}

test('messages byte by byte, then many at once', () => {
  const { client, device, receiver } = pair();
  const message = encodeMessage(REQ.SET_FEATURES, encodeU64(42));
  for (let i = 0; i < message.length; i++) {
    assert.equal(receiver.next(), 'wait');
    sendMessage(client, message.subarray(i, i + 1));
  }
  const third = encodeMessage(REQ.SET_OWNER);
  sendMessage(client, Buffer.concat([message, third]));
  for (const [request, size] of [
    [REQ.SET_FEATURES, 8],
    [REQ.SET_FEATURES, 8],
    [REQ.SET_OWNER, 0],
  ] as const) {
    const received = receiver.next();
    assert.ok(typeof received === 'object');
    assert.deepEqual([received.header.request, received.payload.length], [request, size]);
  }
  assert.equal(receiver.next(), 'wait');
  closeFd(client);
  assert.equal(receiver.next(), 'end');
  closeFd(device);
});

test('descriptors come with their message, and are closed when it never completes', () => {
  const { client, device, receiver } = pair();
  const fd = eventfd();
  const message = encodeMessage(REQ.SET_VRING_CALL, encodeU64(0));
  sendMessage(client, message, [fd]);
  sendMessage(client, encodeMessage(REQ.SET_OWNER));
  const first = receiver.next();
  const second = receiver.next();
  assert.ok(typeof first === 'object' && typeof second === 'object');
  assert.deepEqual([first.fds.length, second.fds.length], [1, 0]);
  closeAll(first.fds);
  sendMessage(client, message.subarray(0, 14), [fd]);
  assert.equal(receiver.next(), 'wait');
  const [kept] = first.fds;
  assert.equal(isOpen(kept!), true, 'the number is used again');
  receiver.close();
  assert.equal(isOpen(kept!), false);
  closeAll([fd, client, device]);
});

test('more descriptors than any message has are refused, and none is left', () => {
  const { client, device, receiver } = pair();
  const fd = eventfd();
  const many = Array.from({ length: 20 }, () => fd);
  sendMessage(client, encodeMessage(REQ.SET_OWNER), many);
  assert.throws(() => receiver.next(), { code: 'ARK_PROTOCOL' });
  receiver.close();
  closeAll([fd, client, device]);
});
