/** What a driver may do to its rings, by name: what ends the queue, and what harms only itself. */
import {
  DESC_F_INDIRECT as INDIRECT,
  NET_HEADER_LEN,
  DESC_F_NEXT as NEXT,
  DESC_F_WRITE as WRITE,
} from '../../../src/ring/split-layout.ts';
import type { RawRing, RawVnic } from './rings.ts';

const LENGTH = 64;
const MOST = 0xffff_ffff;
/** Longest chain that the device takes (softnic/port.ts). */
const SEGMENTS_MAX = 64;

interface Attack {
  /** What the device calls it. */
  readonly violation: string;
  run(ring: RawRing, vnic: RawVnic, direction: number): void;
}

/** One descriptor that is not as it should be. */
const descriptor = (
  violation: string,
  make: (vnic: RawVnic) => {
    lo: number;
    hi?: number;
    length: number;
    flags?: number;
    next?: number;
  },
): Attack => ({
  violation,
  run(ring, vnic, direction) {
    const { flags = 0, ...rest } = make(vnic);
    ring.describe(0, { ...rest, flags: flags ^ direction });
    ring.offer(0);
    ring.show();
  },
});

/** `count` descriptors in a chain, the last of which goes on to `last`; -1: it ends. */
const chain = (violation: string, count: (ring: RawRing) => number, last: number): Attack => ({
  violation,
  run(ring, vnic, direction) {
    const most = count(ring);
    for (let i = 0; i < most; i++) {
      const end = i === most - 1;
      const flags = (end && last < 0 ? 0 : NEXT) | direction;
      ring.describe(i, {
        lo: vnic.slot(i),
        length: 1,
        flags,
        next: end ? Math.max(last, 0) : i + 1,
      });
    }
    ring.offer(0);
    ring.show();
  },
});

const index = (to: (ring: RawRing) => number): Attack => ({
  violation: 'indexJump',
  run(ring) {
    ring.show(to(ring));
  },
});

/** For either ring. */
export const BREAKING: Readonly<Record<string, Attack>> = {
  'just behind its region': descriptor('outsideMemory', (vnic) => ({
    lo: vnic.regionBytes,
    length: LENGTH,
  })),
  'a last byte past its region': descriptor('outsideMemory', (vnic) => ({
    lo: vnic.regionBytes - LENGTH + 1,
    length: LENGTH,
  })),
  "where another's region may be": descriptor('outsideMemory', (vnic) => ({
    lo: 2 * vnic.regionBytes,
    length: LENGTH,
  })),
  'at 4 GiB less one': descriptor('outsideMemory', () => ({ lo: MOST, length: 1 })),
  'an address of 64 bits': descriptor('outsideMemory', (vnic) => ({
    lo: vnic.slot(0),
    hi: 1,
    length: LENGTH,
  })),
  'an address of 64 bits that wraps': descriptor('outsideMemory', () => ({
    lo: MOST - LENGTH + 1,
    hi: MOST,
    length: 2 * LENGTH,
  })),
  'an address below zero': descriptor('outsideMemory', () => ({
    lo: MOST - 15,
    hi: MOST,
    length: 16,
  })),
  'the longest length': descriptor('outsideMemory', (vnic) => ({ lo: vnic.slot(0), length: MOST })),
  'the longest length, so that the end wraps': descriptor('outsideMemory', () => ({
    lo: 2,
    length: MOST,
  })),
  'a length of the whole region and one': descriptor('outsideMemory', (vnic) => ({
    lo: 0,
    length: vnic.regionBytes + 1,
  })),
  'an indirect descriptor': descriptor('indirect', (vnic) => ({
    lo: vnic.slot(0),
    length: LENGTH,
    flags: INDIRECT,
  })),
  'an indirect descriptor in a chain': descriptor('indirect', (vnic) => ({
    lo: vnic.slot(0),
    length: LENGTH,
    flags: INDIRECT | NEXT,
  })),
  'the wrong direction': descriptor('direction', (vnic) => ({
    lo: vnic.slot(0),
    length: LENGTH,
    flags: WRITE,
  })),
  'a next outside the table': chain('outOfTable', () => 2, 0xffff),
  'a next just outside the table': {
    violation: 'outOfTable',
    run(ring, vnic, direction) {
      chain('', () => 1, ring.size).run(ring, vnic, direction);
    },
  },
  'a descriptor that follows itself': chain('longChain', () => 1, 0),
  'a chain that loops': chain('longChain', () => 3, 1),
  'a chain of the whole ring that loops': chain('longChain', (ring) => ring.size, 0),
  'a chain longer than the device takes': chain('longChain', () => SEGMENTS_MAX + 1, -1),
  'a head outside the table': {
    violation: 'outOfTable',
    run(ring) {
      ring.offer(0xffff);
      ring.show();
    },
  },
  'a head just outside the table': {
    violation: 'outOfTable',
    run(ring) {
      ring.offer(ring.size);
      ring.show();
    },
  },
  'an index past the ring': index((ring) => ring.index + ring.size + 1),
  'an index far away': index((ring) => ring.index + 0x8000),
  'an index that runs backwards': index((ring) => ring.index - 1),
};

/** What is odd and harms nobody: the drops of it; a frame that is as it should be gets through. */
export const HARMLESS: Readonly<
  Record<string, { drops: Record<string, number>; run(vnic: RawVnic, frame: Uint8Array): void }>
> = {
  'a buffer that ends with the region': {
    drops: {},
    run(vnic, frame) {
      const length = NET_HEADER_LEN + frame.length;
      const lo = vnic.regionBytes - length;
      vnic.u8.set(frame, lo + NET_HEADER_LEN);
      one(vnic, [{ lo, length }]);
    },
  },
  'a hundred chains of one buffer': {
    drops: {},
    run(vnic, frame) {
      const buffer = vnic.place(0, frame);
      for (let i = 0; i < 100; i++) {
        vnic.tx.describe(i, buffer);
        vnic.tx.offer(i);
      }
      vnic.tx.show();
    },
  },
  'one descriptor offered a hundred times': {
    drops: {},
    run(vnic, frame) {
      vnic.tx.describe(0, vnic.place(0, frame));
      for (let i = 0; i < 100; i++) vnic.tx.offer(0);
      vnic.tx.show();
    },
  },
  'the rings themselves as a frame': {
    drops: { otherProtocol: 1 },
    run: (vnic) => one(vnic, [{ lo: 0, length: 200 }]),
  },
  'a length of 0': {
    drops: { truncated: 1 },
    run: (vnic) => one(vnic, [{ lo: vnic.slot(0), length: 0 }]),
  },
  'less than a header': {
    drops: { truncated: 1 },
    run: (vnic) => one(vnic, [{ lo: vnic.slot(0), length: NET_HEADER_LEN - 1 }]),
  },
  'a byte less than an Ethernet header': {
    drops: { truncated: 1 },
    run: (vnic) => one(vnic, [{ lo: vnic.slot(0), length: NET_HEADER_LEN + 13 }]),
  },
  'a byte more than the link carries': {
    drops: { tooLong: 1 },
    run: (vnic) => one(vnic, [{ lo: vnic.slot(0), length: NET_HEADER_LEN + 1515 }]),
  },
  'the whole region as one frame': {
    drops: { tooLong: 1 },
    run: (vnic) => one(vnic, [{ lo: 0, length: vnic.regionBytes }]),
  },
  'a chain of empty buffers before the frame': {
    drops: {},
    run(vnic, frame) {
      const empty = { lo: vnic.slot(1), length: 0 };
      one(vnic, [...new Array(SEGMENTS_MAX - 1).fill(empty), vnic.place(0, frame)]);
    },
  },
};

/** One chain of these buffers to send. */
function one(vnic: RawVnic, buffers: readonly { lo: number; length: number }[]): void {
  buffers.forEach((buffer, i) => {
    const end = i === buffers.length - 1;
    vnic.tx.describe(i, { ...buffer, flags: end ? 0 : NEXT, next: end ? 0 : i + 1 });
  });
  vnic.tx.offer(0);
  vnic.tx.show();
}

/** Descriptors of this ring should be: 0, read by the device; or written. */
export const directionOf = (ring: 'rx' | 'tx'): number => (ring === 'rx' ? WRITE : 0);
