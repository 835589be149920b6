import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeQueue } from '../../test/support/fake-queue.ts';
import { PEER, US } from '../../test/support/frames.ts';
import { NetInterface } from './interface.ts';
import { NET_LIMITS } from './limits.ts';
import { netTurn } from './turn.ts';

function start() {
  const queue = new FakeQueue();
  const net = new NetInterface({ queue, mac: US.mac, address: US.ip, prefix: 24 });
  const clock = { nowMs: 0, looks: 0 };
  const { turn, timeoutMs } = netTurn(net, () => {
    clock.looks++;
    return clock.nowMs;
  });
  return { queue, net, clock, turn, timeoutMs };
}

test('the clock is read once in many turns', () => {
  const { clock, turn } = start();
  for (let i = 0; i < 64; i++) turn();
  assert.equal(clock.looks, 3);
});

test('without a timer only frames count; with one, the time until it', () => {
  const { net, clock, turn, timeoutMs } = start();
  assert.equal(timeoutMs(), -1);
  net.udp.sendTo(net.udp.alloc(), 1, 7, PEER.ip, 7);
  turn();
  assert.equal(timeoutMs(), NET_LIMITS.arpRetryMs);
  clock.nowMs = 400.5;
  assert.equal(timeoutMs(), NET_LIMITS.arpRetryMs - 400);
  clock.nowMs = 5000;
  assert.equal(timeoutMs(), 0);
});

test('a due timer is seen within a stride of turns', () => {
  const { queue, net, clock, turn } = start();
  net.udp.sendTo(net.udp.alloc(), 1, 7, PEER.ip, 7);
  turn();
  clock.nowMs = NET_LIMITS.arpRetryMs;
  for (let i = 0; i < 32; i++) turn();
  assert.equal(queue.takeSent().length, 2);
});

test('after a sleep the time is fresh: a frame sent meanwhile is asked for once, not again at once', () => {
  const { queue, net, clock, turn, timeoutMs } = start();
  turn();
  timeoutMs();
  clock.nowMs = 10_000;
  net.udp.sendTo(net.udp.alloc(), 1, 7, PEER.ip, 7);
  for (let i = 0; i < 64; i++) turn();
  assert.equal(queue.takeSent().length, 1);
});
