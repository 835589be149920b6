import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { Arena } from '../ffi/arena.ts';
import { GuestMemory, locateRing, SplitDevice, VIOLATION, violationName } from './split-device.ts';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, splitLayout } from './split-layout.ts';

const arena = new Arena();
const SIZE = 8;
const REGION = 1 << 20;
/** Guest and user addresses are far from each other, and from the arena's. */
const GUEST = 0x1_0000_0000;
const USER = 0x7f00_0000_0000;
const at = arena.mapPrivate(REGION);
const layout = splitLayout(0, SIZE);
const region = { guestAddress: GUEST, userAddress: USER, size: REGION, offset: 0, at };
const memory = new GuestMemory([region]);

const u16 = (offset: number): number => arena.u16[(at + offset) / 2]!;
const put16 = (offset: number, value: number): void => {
  arena.u16[(at + offset) / 2] = value;
};
const u32 = (offset: number): number => arena.u32[(at + offset) / 4]!;

/** The driver's hand: it writes whatever it likes. */
function descriptor(i: number, address: number, length: number, flags = 0, next = 0): void {
  const word = (at + layout.desc) / 4 + i * 4;
  arena.u32[word] = address % 2 ** 32;
  arena.u32[word + 1] = Math.floor(address / 2 ** 32);
  arena.u32[word + 2] = length;
  arena.u32[word + 3] = flags | (next << 16);
}

let availIdx = 0;
function offer(...heads: number[]): void {
  for (const head of heads) {
    put16(layout.avail + 4 + 2 * (availIdx % SIZE), head);
    availIdx = (availIdx + 1) & 0xffff;
  }
  put16(layout.avail + 2, availIdx);
}
const usedIdx = (): number => u16(layout.used + 2);
const setUsedEvent = (value: number): void => put16(layout.avail + 4 + 2 * SIZE, value);
const availEvent = (): number => u16(layout.used + 4 + 8 * SIZE);

function device(base = 0, eventIdx = true): SplitDevice {
  const place = { desc: at + layout.desc, avail: at + layout.avail, used: at + layout.used };
  return new SplitDevice(arena, memory, { ...place, size: SIZE, base, eventIdx });
}

beforeEach(() => {
  arena.u8.fill(0, at, at + REGION);
  availIdx = 0;
});

describe('addresses', () => {
  test('a range is translated when one region holds all of it', () => {
    const [lo, hi] = [GUEST % 2 ** 32, GUEST / 2 ** 32];
    assert.equal(memory.translate(lo, hi, REGION), at);
    assert.equal(memory.translate(lo + REGION - 1, hi, 1), at + REGION - 1);
    assert.equal(memory.translate(lo + REGION - 1, hi, 2), -1);
    assert.equal(memory.translate(lo, hi, REGION + 1), -1);
    assert.equal(memory.translate(0xffff_ffff, hi - 1, 1), -1);
    assert.equal(memory.translate(0xffff_ffff, hi - 1, 2), -1);
    assert.equal(memory.translate(0xffff_ffff, 0xffff_ffff, 0xffff_ffff), -1);
  });

  test('two regions that touch do not hold a range across both', () => {
    const half = REGION / 2;
    const two = new GuestMemory([
      { guestAddress: 0, userAddress: 0, size: half, offset: 0, at },
      { guestAddress: half, userAddress: half, size: half, offset: 0, at: at + half },
    ]);
    assert.equal(two.translate(half - 4, 0, 4), at + half - 4);
    assert.equal(two.translate(half, 0, 4), at + half);
    assert.equal(two.translate(half - 2, 0, 4), -1);
    assert.equal(two.translateUser(half - 2, 4), -1);
  });

  test('a ring is found by its user addresses, aligned and whole', () => {
    const addr = { desc: USER, avail: USER + layout.avail, used: USER + layout.used };
    assert.deepEqual(locateRing(memory, SIZE, addr), {
      desc: at,
      avail: at + layout.avail,
      used: at + layout.used,
    });
    assert.equal(locateRing(memory, SIZE, { ...addr, desc: USER + 8 }), null);
    assert.equal(locateRing(memory, SIZE, { ...addr, avail: addr.avail + 1 }), null);
    assert.equal(locateRing(memory, SIZE, { ...addr, used: addr.used + 2 }), null);
    assert.equal(locateRing(memory, SIZE, { ...addr, desc: USER + REGION - 16 }), null);
    assert.equal(locateRing(memory, SIZE, { ...addr, used: USER + REGION - 64 }), null);
    assert.equal(locateRing(memory, SIZE, { ...addr, avail: GUEST }), null);
    assert.equal(locateRing(memory, 0, addr), null);
    assert.equal(locateRing(memory, 12, addr), null);
    assert.equal(locateRing(memory, 65536, addr), null);
  });
});

describe('chains', () => {
  test('one descriptor', () => {
    const ring = device();
    descriptor(3, GUEST + 4096, 100);
    offer(3);
    assert.equal(ring.available(), 1);
    assert.equal(ring.take(), 100);
    assert.deepEqual(
      [ring.segmentCount, ring.readableCount, ring.segmentAt[0], ring.segmentLength[0]],
      [1, 1, at + 4096, 100],
    );
    ring.complete(7);
    assert.equal(usedIdx(), 0, 'not shown before publish');
    ring.publish();
    assert.equal(usedIdx(), 1);
    assert.deepEqual([u32(layout.used + 4), u32(layout.used + 8)], [3, 7]);
    assert.equal(ring.available(), 0);
  });

  test('a chain of readable and then writable pieces', () => {
    const ring = device();
    descriptor(0, GUEST, 10, DESC_F_NEXT, 5);
    descriptor(5, GUEST + 64, 20, DESC_F_NEXT | DESC_F_WRITE, 2);
    descriptor(2, GUEST + 128, 30, DESC_F_WRITE);
    offer(0);
    ring.available();
    assert.equal(ring.take(), 60);
    assert.deepEqual([ring.segmentCount, ring.readableCount], [3, 1]);
    assert.deepEqual([...ring.segmentAt.slice(0, 3)], [at, at + 64, at + 128]);
  });

  test('a chain may be as long as the table', () => {
    const ring = device();
    for (let i = 0; i < SIZE; i++) {
      descriptor(i, GUEST + i, 1, i + 1 < SIZE ? DESC_F_NEXT : 0, (i + 1) % SIZE);
    }
    offer(0);
    ring.available();
    assert.equal(ring.take(), SIZE);
  });

  test('what is put back is taken again', () => {
    const ring = device();
    descriptor(1, GUEST, 5, DESC_F_WRITE);
    offer(1);
    ring.available();
    assert.equal(ring.take(), 5);
    ring.untake();
    assert.equal(ring.ready(), 1);
    assert.equal(ring.take(), 5);
  });

  test('indices wrap at 2^16', () => {
    const base = 0xfffe;
    availIdx = base;
    put16(layout.used + 2, base);
    const ring = device(base);
    descriptor(0, GUEST, 1);
    offer(0, 0, 0, 0);
    assert.equal(ring.available(), 4);
    for (let i = 0; i < 4; i++) {
      assert.equal(ring.take(), 1);
      ring.complete(0);
    }
    ring.publish();
    assert.equal(usedIdx(), 2);
    assert.equal(ring.base, 2);
  });
});

describe('violations break the queue, once and for all', () => {
  function breaks(expected: number, arrange: () => void): void {
    const ring = device();
    arrange();
    const count = ring.available();
    const code = count > 0 ? ring.take() : count;
    assert.equal(violationName(code), violationName(expected));
    assert.equal(ring.violation, expected);
    // Whatever the driver does now, nothing is taken or written.
    descriptor(0, GUEST, 1);
    offer(0);
    const before = Buffer.from(arena.u8.slice(at, at + REGION));
    assert.equal(ring.available(), expected);
    assert.equal(ring.ready(), expected);
    assert.equal(ring.take(), expected);
    assert.equal(ring.publish(), false);
    assert.equal(ring.arm(), true);
    assert.equal(Buffer.compare(before, Buffer.from(arena.u8.slice(at, at + REGION))), 0);
  }

  test('avail.idx runs ahead of the ring', () => {
    breaks(VIOLATION.indexJump, () => put16(layout.avail + 2, SIZE + 1));
  });
  test('avail.idx goes back', () => {
    breaks(VIOLATION.indexJump, () => put16(layout.avail + 2, 0xffff));
  });
  test('a head outside the table', () => breaks(VIOLATION.outOfTable, () => offer(SIZE)));
  test('a head far outside the table', () => breaks(VIOLATION.outOfTable, () => offer(0xffff)));
  test('a next outside the table', () => {
    breaks(VIOLATION.outOfTable, () => {
      descriptor(0, GUEST, 1, DESC_F_NEXT, SIZE);
      offer(0);
    });
  });
  test('a chain that loops', () => {
    breaks(VIOLATION.loop, () => {
      descriptor(0, GUEST, 1, DESC_F_NEXT, 1);
      descriptor(1, GUEST, 1, DESC_F_NEXT, 0);
      offer(0);
    });
  });
  test('a descriptor that is its own next', () => {
    breaks(VIOLATION.loop, () => {
      descriptor(0, GUEST, 1, DESC_F_NEXT, 0);
      offer(0);
    });
  });
  test('an indirect descriptor', () => {
    breaks(VIOLATION.indirect, () => {
      descriptor(0, GUEST, 16, DESC_F_INDIRECT);
      offer(0);
    });
  });
  for (const [what, address, length] of [
    ['below the memory', GUEST - 1, 1],
    ['beyond the memory', GUEST + REGION, 1],
    ['across its end', GUEST + REGION - 1, 2],
    ['of 4 GiB', GUEST, 0xffff_ffff],
    ['at the top of the address space', 2 ** 64 - 4096, 4096],
    ['that wraps around', 2 ** 64 - 2048, 0xffff_ffff],
    ['at a user address', USER, 1],
  ] as const) {
    test(`a buffer ${what}`, () => {
      breaks(VIOLATION.outsideMemory, () => {
        descriptor(0, address, length);
        offer(0);
      });
    });
    test(`a buffer ${what}, later in a chain`, () => {
      breaks(VIOLATION.outsideMemory, () => {
        descriptor(0, GUEST, 1, DESC_F_NEXT, 1);
        descriptor(1, address, length);
        offer(0);
      });
    });
  }
  test('readable after writable', () => {
    breaks(VIOLATION.direction, () => {
      descriptor(0, GUEST, 1, DESC_F_NEXT | DESC_F_WRITE, 1);
      descriptor(1, GUEST, 1);
      offer(0);
    });
  });
});

test('a chain longer than the device takes is a violation, one as long is not', () => {
  const segmentsMax = 3;
  const place = { desc: at + layout.desc, avail: at + layout.avail, used: at + layout.used };
  const options = { ...place, size: SIZE, base: 0, eventIdx: true, segmentsMax };
  for (const [length, result] of [
    [segmentsMax, segmentsMax],
    [segmentsMax + 1, VIOLATION.longChain],
  ] as const) {
    availIdx = 0;
    for (let i = 0; i < length; i++) {
      descriptor(i, GUEST + 0x1000, 1, i + 1 < length ? DESC_F_NEXT : 0, i + 1);
    }
    offer(0);
    const limited = new SplitDevice(arena, memory, options);
    assert.equal(limited.available(), 1);
    assert.equal(limited.take(), result);
  }
});

describe('notification', () => {
  test('with an event index the driver is called when its event is passed', () => {
    const ring = device();
    descriptor(0, GUEST, 1);
    const batch = (count: number): boolean => {
      for (let i = 0; i < count; i++) offer(0);
      ring.available();
      for (let i = 0; i < count; i++) {
        ring.take();
        ring.complete(0);
      }
      return ring.publish();
    };
    setUsedEvent(0);
    assert.equal(batch(1), true);
    assert.equal(batch(3), false);
    setUsedEvent(6);
    assert.equal(batch(2), false, 'entry 6 is not used yet');
    assert.equal(batch(4), true);
    assert.equal(ring.publish(), false, 'nothing new');
  });

  test('without one, by its flag', () => {
    const ring = device(0, false);
    descriptor(0, GUEST, 1);
    for (const flag of [0, 1]) {
      put16(layout.avail, flag);
      offer(0);
      ring.available();
      ring.take();
      ring.complete(0);
      assert.equal(ring.publish(), flag === 0);
    }
  });

  test('armed, the device asks for a kick at the next chain; polling, for none', () => {
    const ring = device();
    descriptor(0, GUEST, 1);
    offer(0);
    ring.available();
    ring.take();
    ring.complete(0);
    assert.equal(ring.arm(), true);
    assert.equal(availEvent(), 1);
    ring.disarm();
    assert.equal(availEvent(), 0);
    offer(0);
    assert.equal(ring.arm(), false, 'one came in between');
    const plain = device(2, false);
    assert.equal(u16(layout.used), 1);
    assert.equal(plain.arm(), true);
    assert.equal(u16(layout.used), 0);
  });
});

describe('the arena', () => {
  test('copies exactly, at every alignment and length', () => {
    const from = at + 1024;
    const to = at + 8192;
    for (let i = 0; i < 512; i++) arena.u8[from + i] = (i * 7 + 1) & 255;
    for (const length of [0, 1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 191, 192, 193, 300]) {
      for (let a = 0; a < 4; a++) {
        for (let b = 0; b < 4; b++) {
          arena.u8.fill(0xee, to, to + 400);
          arena.copy(to + 8 + a, from + b, length);
          const written = [...arena.u8.slice(to, to + 400)];
          const expected = Array.from({ length: 400 }, (_, i) => {
            const k = i - 8 - a;
            return k >= 0 && k < length ? ((k + b) * 7 + 1) & 255 : 0xee;
          });
          assert.deepEqual(written, expected, `${length} bytes from +${b} to +${a}`);
        }
      }
    }
  });

  test('gives back what was mapped, and reuses the place', () => {
    const before = arena.mappedBytes;
    const first = arena.mapPrivate(5000);
    const second = arena.mapPrivate(4096);
    assert.notEqual(first, second);
    arena.u8[first] = 1;
    arena.unmap(first);
    assert.equal(arena.u8[first], 0);
    assert.equal(arena.mapPrivate(4096), first);
    arena.unmap(first);
    arena.unmap(second);
    assert.equal(arena.mappedBytes, before);
    assert.throws(() => arena.mapPrivate(2 ** 33), { code: 'ARK_LIMIT' });
  });
});
