import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { RING_BROKEN, SplitDriver } from './split-driver.ts';
import { splitLayout } from './split-layout.ts';

/** A driver on memory of its own, and the device's hand on the same memory, written plainly. */
function ring(size: number, options: { eventIdx?: boolean; deviceWrites?: boolean } = {}) {
  const { eventIdx = true, deviceWrites = true } = options;
  const at = splitLayout(0, size);
  const buffer = new ArrayBuffer(at.end);
  const u16 = new Uint16Array(buffer);
  const u32 = new Uint32Array(buffer);
  const driver = new SplitDriver({ u16, u32 }, { ...at, size, eventIdx, deviceWrites });
  let usedIdx = 0;
  const device = {
    availIdx: () => u16[at.avail / 2 + 1]!,
    availFlags: () => u16[at.avail / 2]!,
    usedEvent: () => u16[at.avail / 2 + 2 + size]!,
    entry: (i: number) => u16[at.avail / 2 + 2 + (i % size)]!,
    desc: (id: number) => [...u32.subarray(at.desc / 4 + id * 4, at.desc / 4 + id * 4 + 4)],
    use: (id: number, length: number) => {
      u32[at.used / 4 + 1 + (usedIdx % size) * 2] = id;
      u32[at.used / 4 + 2 + (usedIdx % size) * 2] = length;
      usedIdx = (usedIdx + 1) & 0xffff;
      u16[at.used / 2 + 1] = usedIdx;
    },
    setUsedIdx: (value: number) => {
      u16[at.used / 2 + 1] = value;
    },
    setFlags: (value: number) => {
      u16[at.used / 2] = value;
    },
    setAvailEvent: (value: number) => {
      u16[(at.used + 4 + 8 * size) / 2] = value;
    },
    scribble: () => u32.fill(0xffffffff, at.desc / 4, at.desc / 4 + 4 * size),
  };
  return { driver, device };
}

describe('split ring, driver side: giving and taking', () => {
  test('an added buffer is described, and seen from publish on', () => {
    const { driver, device } = ring(8);
    assert.equal(driver.add(0x1234, 100), true);
    assert.equal(device.availIdx(), 0);
    driver.publish();
    assert.equal(device.availIdx(), 1);
    assert.deepEqual(device.desc(device.entry(0)), [0x1234, 0, 100, 2]);
  });

  test('a buffer to be read has no flags', () => {
    const { driver, device } = ring(8, { deviceWrites: false });
    driver.add(64, 10);
    driver.publish();
    assert.deepEqual(device.desc(device.entry(0)), [64, 0, 10, 0]);
  });

  test('a full ring refuses', () => {
    const { driver } = ring(2);
    assert.deepEqual(
      [driver.add(0, 1), driver.add(64, 1), driver.add(128, 1)],
      [true, true, false],
    );
    assert.deepEqual([driver.free, driver.outstanding], [0, 2]);
  });

  test('buffers come back out of order, with the length that was written', () => {
    const { driver, device } = ring(4);
    for (let i = 0; i < 4; i++) driver.add(i * 64, 64);
    driver.publish();
    assert.equal(driver.peek(), 0);
    for (const i of [2, 0, 3, 1]) device.use(device.entry(i), 10 + i);
    assert.equal(driver.peek(), 4);
    const taken = [0, 1, 2, 3].map(() => [driver.get(), driver.length]);
    assert.deepEqual(taken, [
      [128, 12],
      [0, 10],
      [192, 13],
      [64, 11],
    ]);
    assert.equal(driver.free, 4);
  });

  test('indices wrap at 2^16', () => {
    const { driver, device } = ring(4);
    for (let i = 0; i < 70_000; i++) {
      assert.equal(driver.add((i % 100) * 64, 64), true);
      driver.publish();
      device.use(device.entry(i & 0xffff), 20);
      assert.equal(driver.peek(), 1);
      assert.equal(driver.get(), (i % 100) * 64);
    }
    assert.equal(driver.broken, false);
    assert.equal(device.availIdx(), 70_000 & 0xffff);
  });
});

describe('split ring, driver side: waking the device', () => {
  test('with event index, only when avail_event is passed', () => {
    const { driver, device } = ring(8);
    device.setAvailEvent(2);
    const kicks: boolean[] = [];
    for (let i = 0; i < 5; i++) {
      driver.add(i * 64, 64);
      driver.publish();
      kicks.push(driver.needsKick());
    }
    assert.deepEqual(kicks, [false, false, true, false, false]);
  });

  test('a batch that passes avail_event in its middle kicks once', () => {
    const { driver, device } = ring(8);
    device.setAvailEvent(3);
    for (let i = 0; i < 6; i++) driver.add(i * 64, 64);
    driver.publish();
    assert.deepEqual([driver.needsKick(), driver.needsKick()], [true, false]);
  });

  test('without event index, unless the device set NO_NOTIFY', () => {
    const { driver, device } = ring(8, { eventIdx: false });
    driver.add(0, 64);
    driver.publish();
    assert.equal(driver.needsKick(), true);
    device.setFlags(1);
    driver.add(64, 64);
    driver.publish();
    assert.equal(driver.needsKick(), false);
  });
});

describe('split ring, driver side: being woken', () => {
  test('with event index, arm asks for the next entry and disarm for none soon', () => {
    const { driver, device } = ring(8);
    assert.equal(device.usedEvent(), 0x8000);
    driver.add(0, 64);
    driver.publish();
    device.use(device.entry(0), 20);
    assert.equal(driver.arm(), false, 'an entry waits');
    driver.peek();
    driver.get();
    assert.equal(driver.arm(), true);
    assert.equal(device.usedEvent(), 1);
    driver.disarm();
    assert.equal(device.usedEvent(), 0x8001);
  });

  test('without, by the NO_INTERRUPT flag', () => {
    const { driver, device } = ring(8, { eventIdx: false });
    assert.equal(device.availFlags(), 1);
    assert.equal(driver.arm(), true);
    assert.equal(device.availFlags(), 0);
    driver.disarm();
    assert.equal(device.availFlags(), 1);
  });
});

describe('split ring, driver side: a device that lies', () => {
  function broken(lie: (parts: ReturnType<typeof ring>) => void): void {
    const parts = ring(4);
    parts.driver.add(0, 64);
    parts.driver.add(64, 64);
    parts.driver.publish();
    lie(parts);
    const { driver } = parts;
    for (let ready = driver.peek(); ready > 0; ready--) {
      if (driver.get() === RING_BROKEN) break;
    }
    assert.equal(driver.broken, true);
    assert.equal(driver.violations, 1);
    assert.deepEqual([driver.peek(), driver.arm()], [0, false], 'it stays broken');
  }

  test('an id beyond the ring', () => broken(({ device }) => device.use(4, 10)));
  test('an id of 2^32 - 1', () => broken(({ device }) => device.use(0xffffffff, 10)));
  test('an id that is not outstanding', () => broken(({ device }) => device.use(3, 10)));
  test('the same id twice', () =>
    broken(({ device }) => {
      device.use(device.entry(0), 10);
      device.use(device.entry(0), 10);
    }));
  test('a length beyond the buffer', () => broken(({ device }) => device.use(device.entry(0), 65)));
  test('an index beyond what it has', () => broken(({ device }) => device.setUsedIdx(3)));
  test('an index that runs backwards', () => broken(({ device }) => device.setUsedIdx(0xffff)));

  test('descriptors that it overwrites mean nothing to us', () => {
    const { driver, device } = ring(4);
    driver.add(0x4000, 64);
    driver.publish();
    const id = device.entry(0);
    device.scribble();
    device.use(id, 60);
    driver.peek();
    assert.deepEqual([driver.get(), driver.length], [0x4000, 60]);
  });

  test('where it only reads, its length means nothing', () => {
    const { driver, device } = ring(4, { deviceWrites: false });
    driver.add(0, 64);
    driver.publish();
    device.use(device.entry(0), 0xffffffff);
    driver.peek();
    assert.equal(driver.get(), 0);
  });
});
