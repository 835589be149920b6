/** A network device round another: hands every call through. Wrappers extend it and override what they change. */
import type { FrameMemory, NicCounters, NicQueue, NicState } from './nic.ts';

export class WrappedNic implements NicQueue {
  /** The wrapped queue; this object owns it. */
  readonly inner: NicQueue;
  readonly driver: string;
  readonly memory: FrameMemory;
  readonly frameLengthMax: number;
  readonly counters: NicCounters;
  readonly doorbellFd: number;
  /** A wrapper that does not know of pieces takes and gives none. */
  readonly offloads: number = 0;

  constructor(inner: NicQueue, name: string) {
    this.inner = inner;
    this.driver = name === '' ? inner.driver : `${name}(${inner.driver})`;
    this.memory = inner.memory;
    this.frameLengthMax = inner.frameLengthMax;
    this.counters = inner.counters;
    this.doorbellFd = inner.doorbellFd;
  }

  rxBatch(frames: Uint32Array, lengths: Uint16Array, max: number): number {
    return this.inner.rxBatch(frames, lengths, max);
  }

  txBatch(frames: Uint32Array, lengths: Uint16Array, count: number): number {
    return this.inner.txBatch(frames, lengths, count);
  }

  reclaim(max: number): number {
    return this.inner.reclaim(max);
  }

  kick(): void {
    this.inner.kick();
  }

  alloc(): number {
    return this.inner.alloc();
  }

  free(frame: number): void {
    this.inner.free(frame);
  }

  retain(frame: number): void {
    this.inner.retain(frame);
  }

  isShared(frame: number): boolean {
    return this.inner.isShared(frame);
  }

  get framesAvailable(): number {
    return this.inner.framesAvailable;
  }

  arm(): boolean {
    return this.inner.arm();
  }

  disarm(): void {
    this.inner.disarm();
  }

  get state(): NicState {
    return this.inner.state;
  }

  close(): void {
    this.inner.close();
  }
}
