/** The conformance suite on the virtio driver, with the device's end of the rings played in the same process. */
import assert from 'node:assert/strict';
import { type PerformanceEntry, PerformanceObserver, performance } from 'node:perf_hooks';
import { test } from 'node:test';
import v8 from 'node:v8';
import vm from 'node:vm';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { createRegion, virtioGeometry } from '../../src/drivers/virtio/attach.ts';
import { MockDevice, type MockFeatures, preloadAnswers } from '../../src/drivers/virtio/mock.ts';
import { openVirtioQueue } from '../../src/drivers/virtio/queue.ts';
import { SOCK_STREAM, socketPair } from '../../src/ffi/unix.ts';
import { type NicPair, nicSuite } from './nic.suite.ts';

const sizes = { ringSize: 64, frameSize: 2048, frameCount: 512 };

function open(mac: number, features: MockFeatures) {
  const grant = {
    ...sizes,
    mac,
    mtu: 1500,
    headroom: 64,
    regionBytes: virtioGeometry(sizes).regionBytes,
  };
  const [socket, deviceEnd] = socketPair(SOCK_STREAM);
  preloadAnswers(deviceEnd, features);
  const queue = openVirtioQueue(grant, { region: createRegion(grant), socket });
  return { queue, device: MockDevice.accept(deviceEnd) };
}

async function pair(features: MockFeatures): Promise<NicPair> {
  const addresses = {
    aMac: parseMac('02:00:00:00:00:0a'),
    bMac: parseMac('02:00:00:00:00:0b'),
    aIp: parseIpv4('10.0.0.1'),
    bIp: parseIpv4('10.0.0.2'),
  };
  const a = open(addresses.aMac, features);
  const b = open(addresses.bMac, features);
  return {
    a: a.queue,
    b: b.queue,
    addresses,
    settle: async () => {
      a.device.forward(b.device);
      b.device.forward(a.device);
    },
    close: async () => {
      a.queue.close();
      b.queue.close();
      a.device.close();
      b.device.close();
    },
  };
}

for (const eventIdx of [true, false]) {
  nicSuite(`virtio on a mock device, ${eventIdx ? 'event index' : 'flags'}`, () =>
    pair({ eventIdx, replyAck: eventIdx }),
  );
}

/** A full collection, without node's --expose-gc. */
function collectGarbage(): void {
  v8.setFlagsFromString('--expose-gc');
  (vm.runInNewContext('gc') as () => void)();
}

test('a million packets make no garbage', async () => {
  const features = { eventIdx: true, replyAck: false };
  const near = open(1, features);
  const far = open(2, features);
  const frames = new Uint32Array(16);
  const lengths = new Uint16Array(16);
  const echo = (packets: number): number => {
    let moved = 0;
    for (let turns = 0; moved < packets && turns < packets; turns++) {
      let count = 0;
      for (; count < 8; count++) {
        frames[count] = near.queue.alloc();
        lengths[count] = 60;
      }
      near.queue.txBatch(frames, lengths, count);
      near.queue.kick();
      near.device.forward(far.device);
      const got = far.queue.rxBatch(frames, lengths, 16);
      moved += got;
      for (let i = 0; i < got; i++) far.queue.free(frames[i]!);
      near.queue.reclaim(16);
    }
    return moved;
  };
  // Many short calls, so that the optimizing compiler is done; then an empty young generation to start from.
  for (let i = 0; i < 30; i++) assert.ok(echo(10_000) >= 10_000);
  collectGarbage();
  const entries: PerformanceEntry[] = [];
  const observer = new PerformanceObserver((list) => {
    entries.push(...list.getEntries());
  });
  observer.observe({ entryTypes: ['gc'] });
  const begin = performance.now();
  const moved = echo(1_000_000);
  const end = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 20));
  observer.disconnect();
  assert.ok(moved >= 1_000_000);
  // Collections before and after are the test runner's.
  const ours = entries.filter(({ startTime }) => startTime >= begin && startTime <= end);
  assert.deepEqual(ours, []);
  for (const { queue, device } of [near, far]) {
    queue.close();
    device.close();
  }
});
