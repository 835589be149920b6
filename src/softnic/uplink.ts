/**
 * The way out: a TAP interface that the control plane made (IFF_TAP | IFF_NO_PI, no virtio header), whose other side
 * is the host's kernel. One system call a frame, as TAP has no other interface; VNICs among themselves do not pass it.
 */
import { macHi, macLo } from '../base/address.ts';
import type { Arena } from '../ffi/arena.ts';
import { closeFd, readAt, setNonBlocking, writeAt } from '../ffi/fd.ts';

/** Frames read in one turn, so that the ports have theirs. */
const BATCH = 32;

export class Uplink {
  readonly fd: number;
  rxPackets = 0;
  rxBytes = 0;
  txPackets = 0;
  txBytes = 0;
  /** Frames that the kernel did not take. */
  txDropped = 0;
  /** Set by whoever waits for events; cleared when the interface was read empty. */
  readable = true;
  readonly #arena: Arena;
  readonly #staging: number;
  readonly #lengthMax: number;
  readonly #macHi: number;
  readonly #macLo: number;

  /** Owns `fd`. With `mac`, only frames to that address (and to groups) go out; with -1, any that no port has. */
  constructor(arena: Arena, staging: number, lengthMax: number, fd: number, mac: number) {
    setNonBlocking(fd);
    this.fd = fd;
    this.#arena = arena;
    this.#staging = staging;
    this.#lengthMax = lengthMax;
    this.#macHi = mac < 0 ? -1 : macHi(mac);
    this.#macLo = mac < 0 ? -1 : macLo(mac);
  }

  accepts(hi: number, lo: number): boolean {
    return this.#macHi < 0 || (this.#macHi === hi && this.#macLo === lo);
  }

  /** Send the frame at arena offset `at`. */
  send(at: number, length: number): void {
    if (writeAt(this.fd, this.#arena.address + at, length) === length) {
      this.txPackets++;
      this.txBytes += length;
    } else {
      this.txDropped++;
    }
  }

  /** Read up to a batch of frames into staging memory and give each to `sink`. How many there were. */
  poll(sink: { fromUplink(at: number, length: number): void }): number {
    if (!this.readable) return 0;
    for (let count = 0; count < BATCH; count++) {
      const length = readAt(this.fd, this.#arena.address + this.#staging, this.#lengthMax);
      if (length <= 0) {
        this.readable = false;
        return count;
      }
      this.rxPackets++;
      this.rxBytes += length;
      sink.fromUplink(this.#staging, length);
    }
    return BATCH;
  }

  close(): void {
    closeFd(this.fd);
  }

  stats(): Record<string, number> {
    const { rxPackets, rxBytes, txPackets, txBytes, txDropped } = this;
    return { rxPackets, rxBytes, txPackets, txBytes, txDropped };
  }
}
