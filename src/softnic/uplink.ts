/**
 * The way out: a TAP interface that the control plane made, whose other side is the host's kernel. One system call a
 * frame, as TAP has no other interface; VNICs among themselves do not pass it. With a virtio header (IFF_VNET_HDR) a
 * frame crosses with its offloads: the kernel gives and takes up to 64 KiB of TCP at a time.
 */
import { macHi, macLo } from '../base/address.ts';
import type { Arena } from '../ffi/arena.ts';
import { closeFd, readAt, setNonBlocking, writeAt } from '../ffi/fd.ts';
import { tapVnetHeaderBytes } from '../ffi/tap.ts';
import { NET_HEADER_LEN } from '../ring/split-layout.ts';
import { GSO_FRAME_MAX, Offload, type SegmentSink, type Staging } from './offload.ts';

/** Frames read in one turn, so that the ports have theirs. */
const BATCH = 32;

export class Uplink implements SegmentSink {
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
  readonly #staging: Staging;
  readonly #offload: Offload;
  /** Bytes of virtio_net_hdr before a frame; 0 or NET_HEADER_LEN. */
  readonly #headerBytes: number;
  readonly #macHi: number;
  readonly #macLo: number;

  /** Owns `fd`. With `mac`, only frames to that address (and to groups) go out; with -1, any that no port has. */
  constructor(arena: Arena, staging: Staging, fd: number, mac: number) {
    setNonBlocking(fd);
    this.fd = fd;
    this.#arena = arena;
    this.#staging = staging;
    this.#offload = new Offload(arena, staging, true);
    this.#headerBytes = tapVnetHeaderBytes(fd);
    this.#macHi = mac < 0 ? -1 : macHi(mac);
    this.#macLo = mac < 0 ? -1 : macLo(mac);
  }

  accepts(hi: number, lo: number): boolean {
    return this.#macHi < 0 || (this.#macHi === hi && this.#macLo === lo);
  }

  /** Send the frame at arena offset `at`, which has room for a header before it. */
  send(at: number, length: number, offload: Offload): void {
    if (this.#headerBytes > 0) {
      offload.header.write(this.#arena.u8, at - NET_HEADER_LEN, 0);
      this.#write(at, length, offload.segments(length));
      return;
    }
    if (offload.isSegmented) offload.cut(at, length, this);
    else {
      offload.finish(at, length);
      this.#write(at, length, 1);
    }
  }

  segment(at: number, length: number): boolean {
    this.#write(at, length, 1);
    return true;
  }

  #write(at: number, length: number, packets: number): void {
    const bytes = length + this.#headerBytes;
    if (writeAt(this.fd, this.#arena.address + at - this.#headerBytes, bytes) === bytes) {
      this.txPackets += packets;
      this.txBytes += length;
    } else {
      this.txDropped += packets;
    }
  }

  /** Read up to a batch of frames into staging memory and give each to `sink`. How many there were. */
  poll(sink: { fromUplink(at: number, length: number, offload: Offload): void }): number {
    if (!this.readable) return 0;
    const offload = this.#offload;
    const header = this.#headerBytes;
    for (let count = 0; count < BATCH; count++) {
      const { at } = this.#staging;
      const from = at - header;
      const bytes = readAt(this.fd, this.#arena.address + from, GSO_FRAME_MAX + header);
      if (bytes <= 0) {
        this.readable = false;
        return count;
      }
      offload.header.clear();
      if (header > 0) offload.header.read(this.#arena.u8, from);
      const length = Math.max(0, bytes - header);
      this.rxPackets++;
      this.rxBytes += length;
      sink.fromUplink(at, length, offload);
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
