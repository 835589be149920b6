/** The rings of an AF_XDP socket, written by hand. The kernel reads them, and counts what it finds wrong. */
import type { VnicInfo } from '../../../src/control/protocol.ts';
import type { AfXdpGrant } from '../../../src/drivers/af-xdp/grant.ts';
import { Ring } from '../../../src/drivers/af-xdp/ring.ts';
import { closeAll } from '../../../src/ffi/fd.ts';
import { type Mapping, mapShared } from '../../../src/ffi/memory.ts';
import { xskReceive, xskRingOffsets, xskSend, xskStatistics } from '../../../src/ffi/xsk.ts';
import type { Control } from './control.ts';

const MOST = 0xffff_ffff;
const SENDS = 32;

export class RawXdp {
  readonly info: VnicInfo;
  readonly grant: AfXdpGrant;
  readonly socket: number;
  readonly tx: Ring;
  readonly fill: Ring;
  readonly #rx: Ring;
  readonly #completion: Ring;
  readonly u8: Uint8Array;
  readonly #control: Control;
  readonly #parts: { release(): void }[];
  readonly #fds: readonly number[];

  private constructor(control: Control, info: VnicInfo, fds: readonly [number, number]) {
    const [region, socket] = fds;
    this.info = info;
    this.grant = info.grant as unknown as AfXdpGrant;
    this.socket = socket;
    this.#control = control;
    this.#fds = fds;
    const { ringSize, regionBytes } = this.grant;
    const offsets = xskRingOffsets(socket);
    const mapping: Mapping = mapShared(region, regionBytes, 0, true);
    this.u8 = new Uint8Array(mapping.buffer);
    this.tx = new Ring(socket, 'tx', ringSize, offsets.tx);
    this.fill = new Ring(socket, 'fill', ringSize, offsets.fill);
    this.#completion = new Ring(socket, 'completion', ringSize, offsets.completion);
    this.#rx = new Ring(socket, 'rx', ringSize, offsets.rx);
    this.#parts = [mapping, this.tx, this.fill, this.#completion, this.#rx];
  }

  static async open(control: Control, spec: string): Promise<RawXdp> {
    const { info, fds } = await control.openVnic(spec);
    return RawXdp.adopt(control, info, fds as [number, number]);
  }

  /** One that was opened elsewhere. Owns `fds`. */
  static adopt(control: Control, info: VnicInfo, fds: readonly [number, number]): RawXdp {
    return new RawXdp(control, info, fds);
  }

  /** Put descriptors into the transmit ring and have the kernel look. */
  send(descriptors: readonly XdpDescriptor[]): void {
    const { words, base, mask } = this.tx;
    for (const { lo, hi = 0, length, options = 0 } of descriptors) {
      const at = base + ((this.tx.local & mask) << 2);
      words[at] = lo;
      words[at + 1] = hi;
      words[at + 2] = length;
      words[at + 3] = options;
      this.tx.local = (this.tx.local + 1) | 0;
    }
    this.tx.publish();
    this.poke();
  }

  /** Offer buffers to receive into. */
  offer(buffers: readonly { lo: number; hi?: number }[]): void {
    const { words, base, mask } = this.fill;
    for (const { lo, hi = 0 } of buffers) {
      const at = base + ((this.fill.local & mask) << 1);
      words[at] = lo;
      words[at + 1] = hi;
      this.fill.local = (this.fill.local + 1) | 0;
    }
    this.fill.publish();
    this.poke();
  }

  /** Copy mode sends, and looks at the fill ring, only when called. */
  poke(): void {
    for (let i = 0; i < SENDS; i++) {
      xskSend(this.socket);
      xskReceive(this.socket);
    }
    // What is sent comes back here; while that is full nothing more is.
    this.#completion.local = this.#completion.refresh();
    this.#completion.publish();
  }

  /** The buffers that frames came in since the last time. */
  received(): number[] {
    const { words, base, mask, local } = this.#rx;
    const count = (this.#rx.refresh() - local) | 0;
    const at = (i: number): number => base + (((local + i) & mask) << 2);
    const { frameSize } = this.grant;
    const frames = Array.from({ length: count }, (_, i) => words[at(i)]! & -frameSize);
    this.#rx.local = (local + count) | 0;
    this.#rx.publish();
    return frames;
  }

  statistics(): Record<string, number> {
    return { ...xskStatistics(this.socket) };
  }

  async close(): Promise<void> {
    for (const part of this.#parts) part.release();
    closeAll(this.#fds);
    await this.#control.codeOfAsking('vnic.close', { vnic: this.info.vnic });
  }
}

export interface XdpDescriptor {
  readonly lo: number;
  readonly hi?: number;
  readonly length: number;
  readonly options?: number;
}

/** Descriptors that the kernel refuses, each counted once. */
export const XDP_REFUSED: Readonly<Record<string, (grant: AfXdpGrant) => XdpDescriptor>> = {
  'just behind its region': ({ regionBytes }) => ({ lo: regionBytes, length: 64 }),
  'a last byte past its region': ({ regionBytes }) => ({ lo: regionBytes - 63, length: 64 }),
  "where another's region may be": ({ regionBytes }) => ({ lo: 2 * regionBytes, length: 64 }),
  'at 4 GiB less one': () => ({ lo: MOST, length: 1 }),
  'an address of 64 bits': () => ({ lo: 0, hi: 1, length: 64 }),
  'an address below zero': () => ({ lo: MOST - 15, hi: MOST, length: 16 }),
  'the longest length': () => ({ lo: 256, length: MOST }),
  'the longest length, so that the end wraps': () => ({ lo: 2, length: MOST }),
  'more than a frame': ({ frameSize }) => ({ lo: 0, length: frameSize + 1 }),
  'options that nobody has': () => ({ lo: 256, length: 64, options: 0xffff_fffc }),
};
