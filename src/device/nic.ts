/**
 * The network device interface. Drivers implement it, wrappers (pcap, fault) wrap it and are one, the stack
 * and applications use it. `nic.suite.ts` is the test that every implementation passes.
 *
 * A frame is a `uint32` handle: the byte offset of its first (Ethernet destination) byte in the region, with
 * its length in a parallel array. A handle is owned by exactly one party: the queue, or the caller.
 *
 * A frame's bytes live in the buffer `handle & ~(frameSize - 1)` of the region; the caller may move the start of
 * a frame within its buffer (at least `headroom` bytes from the buffer's start) and hand it over under the new handle.
 */
import type { FrameMemory } from '../memory/frame-memory.ts';

export { type FrameMemory, NO_FRAME } from '../memory/frame-memory.ts';

export interface NicQueue {
  readonly driver: string;
  /** Packet memory, with the views that everybody shares: never make one per packet. */
  readonly memory: FrameMemory;
  /** Largest frame, Ethernet header included, without FCS. */
  readonly frameLengthMax: number;
  readonly counters: NicCounters;

  /** NIC_OFFLOAD bits that were negotiated; 0 where nobody asked, or the device cannot. */
  readonly offloads: number;

  /**
   * Move up to `max` received frames into `frames`/`lengths`, from index 0. The caller owns them afterwards. With
   * offloads, `flags` gets FRAME_FLAG bits of each, and a packet may come in several pieces, never cut by the end of a
   * batch of BATCH_PIECES_MAX or more; without `flags` such packets are dropped and counted in `rxDropped`.
   */
  rxBatch(frames: Uint32Array, lengths: Uint16Array, max: number, flags?: Uint8Array): number;
  /**
   * Accept a prefix of `count` frames and own it until reclaimed; the rest stays with the caller.
   * Frames are on their way at the latest after `kick`.
   *
   * A frame that can never be sent (shorter than an Ethernet header, longer than `frameLengthMax`, not within one
   * buffer, less than `headroom` into it, or a handle that is not of the region) counts as accepted and in `txDropped`;
   * it goes back to the pool at once, if it came from there.
   *
   * With offloads, `flags` has FRAME_FLAG bits: the pieces of a packet stand one behind the other, all in the batch, at
   * most BATCH_PIECES_MAX of them, and are accepted or not as one. The bits of the first but `more` hold for the packet.
   */
  txBatch(
    frames: Uint32Array,
    lengths: Uint16Array,
    count: number,
    flags?: Uint8Array,
    segmentBytes?: Uint16Array,
  ): number;
  /** Return sent frames to the pool, at most `max`. */
  reclaim(max: number): number;
  /** Ring the device's doorbell, once per batch, only if the device asked to be woken. */
  kick(): void;

  /** A free frame with `headroom` bytes before it, or NO_FRAME. The caller owns it. */
  alloc(): number;
  /** Give a frame, or one reference of several, back to the pool. */
  free(frame: number): void;
  /**
   * One more reference to a frame that the caller owns; each takes a `free`. `txBatch` takes one: whoever retains a
   * frame before it is sent still has it after `reclaim`, to send it again. It must not be written while `isShared`.
   */
  retain(frame: number): void;
  /** True while somebody else has a reference, such as the device that sends it. */
  isShared(frame: number): boolean;
  /** Frames that `alloc` could give now: those in the pool, without the ones that the device holds to receive into. */
  readonly framesAvailable: number;

  /**
   * Ask to be woken through `doorbellFd` when frames arrive. False when there already are some: poll again.
   * False also when the queue is not up: look at `state`.
   * After a wake-up, or to poll again without one, call `disarm`.
   */
  arm(): boolean;
  disarm(): void;
  /** A descriptor that becomes readable when the armed doorbell rings; -1 when the device has none. */
  readonly doorbellFd: number;

  /** 0 while it works; otherwise one of NIC_STATE, and every batch call returns 0. */
  readonly state: NicState;
  /** Stop using the device and release what this queue mapped. Idempotent. */
  close(): void;
}

/** What a device may do for its caller. */
export const NIC_OFFLOAD = {
  /** Checksums of TCP: FRAME_FLAG.checksum. */
  checksum: 1,
  /** Packets of several pieces, up to 64 KiB of TCP, cut by whoever needs it: FRAME_FLAG.more and segment. */
  segmentation: 2,
} as const;

/** What is said of one entry of a batch. */
export const FRAME_FLAG = {
  /** The packet goes on in the next entry, which begins where its frame says. */
  more: 1,
  /**
   * Sent: the checksum field of TCP holds the sum of the pseudo header, and the device does the rest. Received: it need
   * not be looked at, and may hold no more than that sum.
   */
  checksum: 2,
  /** Sent: cut the packet, which is TCP, into segments of `segmentBytes` of payload. */
  segment: 4,
} as const;

/** Pieces that one packet may have: 64 KiB in buffers of 2 KiB, and to spare. */
export const BATCH_PIECES_MAX = 48;

export const NIC_STATE = {
  up: 0,
  /** The application closed it. */
  closed: 1,
  /** The device or its link went away. */
  gone: 2,
  /** The device stopped this queue after a protocol violation. */
  broken: 3,
} as const;
export type NicState = (typeof NIC_STATE)[keyof typeof NIC_STATE];

/** Counted by the queue itself, in packets and bytes since it was opened. Plain doubles: exact to 2^53. */
export interface NicCounters {
  rxPackets: number;
  rxBytes: number;
  txPackets: number;
  txBytes: number;
  /** Received but not deliverable: longer than a buffer, outside the region, bad descriptor. */
  rxDropped: number;
  /** Handed to txBatch but refused for good (too long, too short, outside the region). */
  txDropped: number;
  /** Times the pool had no frame to give to the device or the caller. */
  noFrame: number;
  /** Doorbells rung (system calls on the data path), and wake-ups received. */
  kicks: number;
  wakeups: number;
}

export function newNicCounters(): NicCounters {
  return {
    rxPackets: 0,
    rxBytes: 0,
    txPackets: 0,
    txBytes: 0,
    rxDropped: 0,
    txDropped: 0,
    noFrame: 0,
    kicks: 0,
    wakeups: 0,
  };
}
