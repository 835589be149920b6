import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type AfXdpGeometry, checkGeometry, mtuOfFrameSize } from './grant.ts';
import { openAfXdpQueue } from './queue.ts';

const good: AfXdpGeometry = { frameSize: 2048, frameCount: 4096, ringSize: 1024 };

test('an Ethernet MTU fits in 2 KiB behind the kernel headroom, 3,826 bytes in 4', () => {
  assert.equal(mtuOfFrameSize(2048), 1778);
  assert.equal(mtuOfFrameSize(4096), 3826);
});

test('rings and memory have sizes that the kernel takes', () => {
  checkGeometry(good);
  checkGeometry({ ...good, frameCount: 1024 });
  const wrong = [
    { frameSize: 1024 },
    { frameSize: 3000 },
    { frameSize: '2048' },
    { ringSize: 0 },
    { ringSize: 32 },
    { ringSize: 1000 },
    { ringSize: 16384 },
    { ringSize: Number.NaN },
    { frameCount: 512 },
    { frameCount: 4095 },
    { frameCount: 131072 },
  ];
  for (const part of wrong) {
    const geometry = { ...good, ...part } as AfXdpGeometry;
    assert.throws(() => checkGeometry(geometry), /bytes|entries|frames/, JSON.stringify(part));
  }
});

test('a grant that contradicts itself is refused before any descriptor is touched', () => {
  const grant = {
    ...good,
    pairs: 1,
    mac: 1,
    mtu: 1500,
    headroom: 256,
    regionBytes: 4096,
    mode: 'native',
    zeroCopy: false,
  } as const;
  assert.throws(() => openAfXdpQueue(grant, { region: -1, socket: -1 }), /contradicts itself/);
});
