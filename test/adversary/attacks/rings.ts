/** The rings of a virtio VNIC, written by hand: whatever an attacker may put into memory that the device reads. */
import type { VnicInfo } from '../../../src/control/protocol.ts';
import {
  type RingLayout,
  type VirtioGrant,
  virtioGeometry,
} from '../../../src/drivers/virtio/attach.ts';
import {
  startVirtio,
  type VirtioPair,
  type VirtioSession,
} from '../../../src/drivers/virtio/session.ts';
import { eventfdSignal } from '../../../src/ffi/fd.ts';
import { type Mapping, mapShared } from '../../../src/ffi/memory.ts';
import { NET_HEADER_LEN } from '../../../src/ring/split-layout.ts';
import type { Control } from './control.ts';

/** Bytes of a buffer, header and frame. */
const SLOT = 2048;

export interface Descriptor {
  /** Guest address, low and high half. */
  readonly lo: number;
  readonly hi?: number;
  readonly length: number;
  readonly flags?: number;
  readonly next?: number;
}

export class RawRing {
  readonly size: number;
  /** What the device has been shown. */
  index = 0;
  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;
  readonly #layout: RingLayout;
  readonly #kickFd: number;

  constructor(buffer: ArrayBuffer, layout: RingLayout, size: number, kickFd: number) {
    this.size = size;
    this.#u16 = new Uint16Array(buffer, 0, buffer.byteLength >>> 1);
    this.#u32 = new Uint32Array(buffer, 0, buffer.byteLength >>> 2);
    this.#layout = layout;
    this.#kickFd = kickFd;
  }

  describe(at: number, { lo, hi = 0, length, flags = 0, next = 0 }: Descriptor): void {
    const word = this.#layout.desc / 4 + at * 4;
    this.#u32[word] = lo;
    this.#u32[word + 1] = hi;
    this.#u32[word + 2] = length;
    this.#u32[word + 3] = flags | (next << 16);
  }

  /** Put chain `head` into the available ring, not shown yet. */
  offer(head: number): void {
    this.#u16[this.#layout.avail / 2 + 2 + (this.index & (this.size - 1))] = head;
    this.index++;
  }

  /** Show the device `index`, whatever it is, and wake it. */
  show(index = this.index): void {
    Atomics.store(this.#u16, this.#layout.avail / 2 + 1, index & 0xffff);
    eventfdSignal(this.#kickFd);
  }

  /** Chains that the device has ended, modulo 2^16. */
  get used(): number {
    return Atomics.load(this.#u16, this.#layout.used / 2 + 1);
  }

  /** Fill the used ring, the device's own, with `value`. */
  scribble(value: number): void {
    this.#u32.fill(value, this.#layout.used / 4, this.#layout.used / 4 + 1 + 2 * this.size);
  }

  /** Where descriptor `at` has its address, as a word of the region. */
  addressWord(at: number): number {
    return this.#layout.desc / 4 + at * 4;
  }
}

export class RawVnic {
  readonly info: VnicInfo;
  readonly regionBytes: number;
  readonly rx: RawRing;
  readonly tx: RawRing;
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly regionFd: number;
  readonly #control: Control;
  readonly #session: VirtioSession;
  readonly #mapping: Mapping;
  readonly #first: number;

  private constructor(control: Control, info: VnicInfo, session: VirtioSession) {
    const pair: VirtioPair = (session.pairs as readonly VirtioPair[])[0]!;
    const grant = info.grant as unknown as VirtioGrant;
    const { rings, firstFrame, regionBytes } = virtioGeometry(grant);
    this.info = info;
    this.regionBytes = regionBytes;
    this.regionFd = pair.region;
    this.#control = control;
    this.#session = session;
    this.#mapping = mapShared(pair.region, regionBytes, 0, true);
    this.#first = firstFrame;
    const { buffer } = this.#mapping;
    this.u8 = new Uint8Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.rx = new RawRing(buffer, rings[0]!.rx, grant.ringSize, pair.rxKickFd);
    this.tx = new RawRing(buffer, rings[0]!.tx, grant.ringSize, pair.txKickFd);
  }

  static async open(control: Control, spec: string): Promise<RawVnic> {
    const { info, fds } = await control.openVnic(spec);
    return RawVnic.adopt(control, info, fds as [number, number]);
  }

  /** One that was opened elsewhere. Owns `fds`. */
  static adopt(control: Control, info: VnicInfo, fds: readonly [number, number]): RawVnic {
    const [region, socket] = fds;
    const grant = info.grant as unknown as VirtioGrant;
    return new RawVnic(control, info, startVirtio(grant, { region, socket }));
  }

  /** Guest address of buffer `slot`. */
  slot(slot: number): number {
    return this.#first + slot * SLOT;
  }

  /** Write a frame behind its header into buffer `slot`: the descriptor that says so. */
  place(slot: number, frame: Uint8Array): Descriptor {
    const lo = this.slot(slot);
    this.u8.fill(0, lo, lo + NET_HEADER_LEN);
    this.u8.set(frame, lo + NET_HEADER_LEN);
    return { lo, length: NET_HEADER_LEN + frame.length };
  }

  /** Send frames as they should be sent: at most a ring at once. */
  send(frames: readonly Uint8Array[]): void {
    for (const frame of frames) {
      const slot = this.tx.index & (this.tx.size - 1);
      this.tx.describe(slot, this.place(slot, frame));
      this.tx.offer(slot);
    }
    this.tx.show();
  }

  /** What the device counts of it. */
  async counters(): Promise<Record<string, unknown> & { drops: Record<string, number> }> {
    const { vnics } = (await this.#control.channel.request('stats', {})).reply;
    const own = vnics.find(({ vnic }) => vnic === this.info.vnic);
    return { drops: {}, ...own?.counters } as never;
  }

  /** Why the device ended it, once it has. */
  async end(): Promise<string> {
    const mine = (body: Record<string, unknown>) => body.vnic === this.info.vnic;
    return String((await this.#control.hears('vnic.gone', mine)).body.reason);
  }

  /** Let go of everything; the daemon may have taken it back already. */
  async close(): Promise<void> {
    this.#mapping.release();
    this.#session.close();
    await this.#control.codeOfAsking('vnic.close', { vnic: this.info.vnic });
  }
}
