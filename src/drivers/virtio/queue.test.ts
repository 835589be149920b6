import assert from 'node:assert/strict';
import fs from 'node:fs';
import { devNull } from 'node:os';
import { describe, test } from 'node:test';
import { ArrakisError } from '../../base/errors.ts';
import { NIC_STATE, NO_FRAME } from '../../device/nic.ts';
import { closeFd, isOpen, openFds } from '../../ffi/fd.ts';
import { SOCK_STREAM, socketPair } from '../../ffi/unix.ts';
import { FEATURE, featureSet, REQ } from '../../ring/vhost-user.ts';
import { checkGrant, createRegion, type VirtioGrant, virtioGeometry } from './attach.ts';
import { ACKNOWLEDGED, MockDevice, type MockFeatures, preloadAnswers } from './mock.ts';
import { openVirtioQueue } from './queue.ts';

const sizes = { ringSize: 16, frameSize: 2048, frameCount: 64 };
const grant: VirtioGrant = {
  ...sizes,
  mac: 0x020000000001,
  mtu: 1500,
  headroom: 64,
  regionBytes: virtioGeometry(sizes).regionBytes,
};
const PLAIN: MockFeatures = { eventIdx: true, replyAck: false };

function open(features: MockFeatures = PLAIN) {
  const [socket, deviceEnd] = socketPair(SOCK_STREAM);
  preloadAnswers(deviceEnd, features);
  const queue = openVirtioQueue(grant, { region: createRegion(grant), socket });
  const device = MockDevice.accept(deviceEnd);
  const frames = new Uint32Array(64);
  const lengths = new Uint16Array(64);
  const close = (): void => {
    queue.close();
    device.close();
  };
  return { queue, device, frames, lengths, close };
}

describe('virtio: geometry and grant', () => {
  test('rings and frames do not overlap, and frames are aligned', () => {
    for (const pairs of [1, 2, 8]) {
      const { rings, ringsEnd, firstFrame, pairBytes, regionBytes } = virtioGeometry({
        ...sizes,
        pairs,
      });
      assert.equal(rings.length, pairs);
      let end = 4096;
      for (const { rx, tx } of rings) {
        assert.ok(rx.desc >= end && rx.end <= tx.desc);
        end = tx.end;
      }
      assert.ok(end <= ringsEnd && ringsEnd <= firstFrame);
      assert.equal(firstFrame % sizes.frameSize, 0);
      assert.equal(pairBytes, sizes.frameCount * sizes.frameSize);
      assert.equal(regionBytes % 4096, 0);
      assert.ok(firstFrame + pairs * pairBytes <= regionBytes);
    }
  });

  const wrong: [string, Partial<VirtioGrant>][] = [
    ['a ring size that is no power of two', { ringSize: 100 }],
    ['a ring size of nothing', { ringSize: 0 }],
    ['frames of 1 KiB', { frameSize: 1024 }],
    ['too few frames', { frameCount: 31 }],
    ['no queue pair', { pairs: 0 }],
    ['nine queue pairs', { pairs: 9 }],
    ['a headroom without room for the header', { headroom: 11 }],
    ['an MTU that does not fit', { mtu: 2000 }],
    ['an MTU that is no number', { mtu: Number.NaN }],
    ['another region size', { regionBytes: grant.regionBytes + 4096 }],
    ['a region beyond 2 GiB', { frameCount: 1 << 20 }],
  ];
  for (const [name, change] of wrong) {
    test(`${name} is refused`, () => {
      assert.throws(
        () => checkGrant({ ...grant, ...change }),
        (error) => error instanceof ArrakisError && /ARK_(BAD_ARGUMENT|LIMIT)/.test(error.code),
      );
    });
  }
});

describe('virtio: handshake', () => {
  for (const replyAck of [true, false]) {
    test(`features, memory and both rings arrive, ${replyAck ? 'with' : 'without'} REPLY_ACK`, () => {
      const { queue, device, close } = open({ eventIdx: true, replyAck });
      const bits: number[] = [FEATURE.VIRTIO_F_VERSION_1, FEATURE.VIRTIO_RING_F_EVENT_IDX];
      if (replyAck) bits.push(FEATURE.VHOST_USER_F_PROTOCOL_FEATURES);
      assert.equal(device.features, featureSet(...bits), 'and MRG_RXBUF is not taken');
      for (const ring of device.rings) {
        assert.equal(ring.size, grant.ringSize);
        assert.equal(ring.enabled, replyAck, 'rings need enabling only with protocol features');
        for (const fd of [ring.kickFd, ring.callFd, ring.errFd]) assert.ok(isOpen(fd));
      }
      assert.equal(queue.state, NIC_STATE.up);
      close();
    });
  }

  test('the order of requests is the one that the acknowledgements follow', () => {
    const { device, close } = open({ eventIdx: true, replyAck: true });
    const settings = device.requests.filter((request) => ACKNOWLEDGED.includes(request));
    assert.deepEqual(settings, ACKNOWLEDGED);
    close();
  });

  function refused(code: string, prepare: (deviceEnd: number) => void, timeoutMs = 50): void {
    const before = openFds().length;
    const [socket, deviceEnd] = socketPair(SOCK_STREAM);
    prepare(deviceEnd);
    assert.throws(
      () => openVirtioQueue(grant, { region: createRegion(grant), socket }, timeoutMs),
      (error) => error instanceof ArrakisError && error.code === code,
    );
    assert.equal(isOpen(socket), false, 'the socket was taken over');
    if (isOpen(deviceEnd)) closeFd(deviceEnd);
    assert.equal(openFds().length, before, 'no descriptor leaks');
  }

  test('silence is ARK_TIMEOUT', () => refused('ARK_TIMEOUT', () => {}));
  test('a closed socket is ARK_GONE', () => refused('ARK_GONE', closeFd));
  test('a refused memory table is ARK_PROTOCOL', () =>
    refused('ARK_PROTOCOL', (end) =>
      preloadAnswers(end, { eventIdx: true, replyAck: true }, REQ.SET_MEM_TABLE),
    ));
  test('a refused ring is ARK_PROTOCOL, and its eventfds are closed', () =>
    refused('ARK_PROTOCOL', (end) =>
      preloadAnswers(end, { eventIdx: true, replyAck: true }, REQ.SET_VRING_KICK),
    ));

  test('a region that is not sealed memory is refused', () => {
    const [socket, deviceEnd] = socketPair(SOCK_STREAM);
    const region = fs.openSync(devNull, 'r+');
    assert.throws(
      () => openVirtioQueue(grant, { region, socket }),
      (error) => error instanceof ArrakisError && error.code === 'ARK_NOT_PERMITTED',
    );
    assert.deepEqual([isOpen(region), isOpen(socket)], [false, false]);
    closeFd(deviceEnd);
  });
});

describe('virtio: frames', () => {
  test('the header before a sent frame is zero, whatever was there', () => {
    const { queue, device, frames, lengths, close } = open();
    const frame = queue.alloc() + 1;
    queue.memory.u8.fill(0xff, frame - 12, frame + 60);
    frames[0] = frame;
    lengths[0] = 60;
    assert.equal(queue.txBatch(frames, lengths, 1), 1);
    const sent = device.take();
    assert.deepEqual([...sent!.header], new Array(12).fill(0));
    assert.deepEqual([sent!.at, sent!.length], [frame, 60]);
    close();
  });

  test('a received frame without an Ethernet header, or too long, is dropped and counted', () => {
    const { queue, device, frames, lengths, close } = open();
    const before = queue.framesAvailable;
    const bytes = new Uint8Array(2000);
    for (const length of [0, 13, 1515]) device.deliver(bytes, 0, length);
    device.deliver(bytes, 0, 14);
    assert.equal(queue.rxBatch(frames, lengths, 64), 1);
    assert.equal(lengths[0], 14);
    assert.equal(queue.counters.rxDropped, 3);
    queue.free(frames[0]!);
    assert.equal(queue.framesAvailable, before);
    close();
  });

  test('a used entry shorter than the header is dropped', () => {
    const { queue, device, frames, lengths, close } = open();
    device.misbehaveUsed(0, 0, 4);
    assert.equal(queue.rxBatch(frames, lengths, 64), 0);
    assert.deepEqual([queue.counters.rxDropped, queue.state], [1, NIC_STATE.up]);
    close();
  });

  test('the device is kicked only when it asks, once per batch', () => {
    for (const eventIdx of [true, false]) {
      const { queue, device, frames, lengths, close } = open({ eventIdx, replyAck: false });
      const send = (): number => {
        const before = queue.counters.kicks;
        for (let i = 0; i < 4; i++) {
          frames[i] = queue.alloc();
          lengths[i] = 60;
        }
        queue.txBatch(frames, lengths, 4);
        queue.kick();
        queue.kick();
        return queue.counters.kicks - before;
      };
      assert.equal(send(), 0);
      device.wantKicks(true);
      assert.equal(
        send(),
        eventIdx ? 0 : 1,
        'with event index, the device re-arms after it looked',
      );
      while (device.take() !== null);
      device.wantKicks(true);
      assert.equal(send(), 1);
      close();
    }
  });
});

describe('virtio: a device that lies', () => {
  const lies: [string, (device: MockDevice) => void][] = [
    ['an id that does not exist', (device) => device.misbehaveUsed(0, 999, 60)],
    ['a length beyond the buffer', (device) => device.misbehaveUsed(0, 0, 60_000)],
    ['a used index that jumps', (device) => device.misbehaveIdx(0, 1000)],
    ['a sent frame that was never given', (device) => device.misbehaveUsed(1, 3, 0)],
  ];
  for (const [name, lie] of lies) {
    test(`${name} stops the queue, and only that`, () => {
      const { queue, device, frames, lengths, close } = open();
      frames[0] = queue.alloc();
      lengths[0] = 60;
      queue.txBatch(frames, lengths, 1);
      lie(device);
      assert.equal(queue.rxBatch(frames, lengths, 64), 0);
      queue.reclaim(64);
      assert.equal(queue.state, NIC_STATE.broken);
      assert.equal(queue.arm(), false);
      assert.equal(queue.alloc(), NO_FRAME);
      assert.equal(queue.txBatch(frames, lengths, 1), 0);
      close();
    });
  }

  test('descriptors that it overwrites do not reach our frames', () => {
    const { queue, device, frames, lengths, close } = open();
    device.misbehaveDescriptors(0);
    device.misbehaveUsed(0, 0, 72);
    assert.equal(queue.rxBatch(frames, lengths, 64), 1);
    assert.ok(frames[0]! + lengths[0]! <= grant.regionBytes);
    assert.equal(lengths[0], 60);
    close();
  });
});

describe('virtio: a device that goes away', () => {
  test('a closed socket is seen by arm and checkDevice', () => {
    const { queue, device } = open();
    assert.equal(queue.checkDevice(), NIC_STATE.up);
    device.close();
    assert.equal(queue.arm(), false);
    assert.equal(queue.state, NIC_STATE.gone);
    queue.close();
  });

  test('the error eventfd, or a message out of turn, is a broken queue', () => {
    const first = open();
    first.device.signalError(1);
    assert.equal(first.queue.checkDevice(), NIC_STATE.broken);
    first.close();
    const second = open();
    second.device.misbehaveMessage();
    assert.equal(second.queue.checkDevice(), NIC_STATE.broken);
    second.close();
  });

  test('closing leaks no descriptor', () => {
    const before = openFds().length;
    for (let i = 0; i < 20; i++) open().close();
    assert.equal(openFds().length, before);
  });
});
