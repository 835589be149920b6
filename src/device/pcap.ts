/**
 * A network device that records what passes through it, and can be told to start and stop while it runs.
 *
 * - Off, it costs one test a batch. On, it copies each frame into a PcapngWriter's buffer; frames are never held up.
 * - Received frames are recorded as the caller gets them, sent ones as the device accepted them. Frames that the queue
 *   refuses for good are not recorded.
 * - The clock is an argument, read once a batch.
 */
import { FRAME_FLAG, type NicQueue } from './nic.ts';
import { type CaptureSink, INBOUND, OUTBOUND, type PcapngOptions, PcapngWriter } from './pcapng.ts';
import { isSendable } from './sendable.ts';
import { WrappedNic } from './wrapped-nic.ts';

export type { CaptureSink } from './pcapng.ts';

export interface CaptureOptions extends PcapngOptions {
  /** Nanoseconds since 1970, or since the start of a simulation. */
  readonly nowNs: () => number;
}

/** What a capture has seen. */
export interface CaptureResult {
  readonly packets: number;
  /** Lost because the sink was too slow. */
  readonly drops: number;
}

export class CaptureTap extends WrappedNic {
  override readonly offloads: number;
  readonly #options: CaptureOptions;
  #writer: PcapngWriter | null = null;

  /** Owns `inner`. Not recording. */
  constructor(inner: NicQueue, options: CaptureOptions, name = '') {
    super(inner, name);
    this.offloads = inner.offloads;
    this.#options = options;
  }

  get capturing(): boolean {
    return this.#writer !== null;
  }

  /** Record into `sink` from now on; a capture that runs is stopped first. `options` go before the constructor's. */
  start(sink: CaptureSink, options: PcapngOptions = {}): void {
    this.stop();
    this.#writer = new PcapngWriter(sink, { ...this.#options, ...options });
  }

  /** Offer the sink what was recorded; call it from time to time, since few packets do not fill a buffer. */
  flush(): void {
    this.#writer?.flush();
  }

  /** End the capture. What the sink does not take now is lost. Null when none was running. */
  stop(): CaptureResult | null {
    const writer = this.#writer;
    if (writer === null) return null;
    this.#writer = null;
    writer.flush();
    return { packets: writer.packets, drops: writer.drops };
  }

  override rxBatch(
    frames: Uint32Array,
    lengths: Uint16Array,
    max: number,
    flags?: Uint8Array,
  ): number {
    const count = this.inner.rxBatch(frames, lengths, max, flags);
    if (this.#writer !== null && count > 0) this.#record(frames, lengths, count, INBOUND, flags);
    return count;
  }

  override txBatch(
    frames: Uint32Array,
    lengths: Uint16Array,
    count: number,
    flags?: Uint8Array,
    segmentBytes?: Uint16Array,
  ): number {
    const taken = this.inner.txBatch(frames, lengths, count, flags, segmentBytes);
    // The device reads an accepted frame and never writes it, so its bytes are still those that were handed over.
    if (this.#writer !== null && taken > 0) this.#record(frames, lengths, taken, OUTBOUND, flags);
    return taken;
  }

  override close(): void {
    this.stop();
    this.inner.close();
  }

  #record(
    frames: Uint32Array,
    lengths: Uint16Array,
    count: number,
    direction: typeof INBOUND | typeof OUTBOUND,
    flags: Uint8Array | undefined,
  ): void {
    const writer = this.#writer as PcapngWriter;
    const { u8 } = this.memory;
    const timeNs = this.#options.nowNs();
    for (let i = 0; i < count; i++) {
      const frame = frames[i]!;
      const length = lengths[i]!;
      const pieces = flags === undefined ? 1 : piecesAt(flags, i, count);
      if (pieces > 1) {
        writer.packetOfPieces(u8, frames, lengths, i, pieces, direction, timeNs);
        i += pieces - 1;
        continue;
      }
      // A frame to be sent may be one that was refused: its handle may be outside the region.
      if (direction === INBOUND || isSendable(this.memory, frame, length, this.frameLengthMax)) {
        writer.packet(u8, frame, length, direction, timeNs);
      }
    }
    writer.batchEnd();
  }
}

/** Entries of the packet that begins at `index`. */
function piecesAt(flags: Uint8Array, index: number, count: number): number {
  let pieces = 1;
  while ((flags[index + pieces - 1]! & FRAME_FLAG.more) !== 0 && index + pieces < count) pieces++;
  return pieces;
}

/** `queue`, recording into `sink` from the start. Closing it flushes. Owns `queue`. */
export function withPcap(queue: NicQueue, sink: CaptureSink, options: CaptureOptions): CaptureTap {
  const tap = new CaptureTap(queue, options, 'pcap');
  tap.start(sink);
  return tap;
}
