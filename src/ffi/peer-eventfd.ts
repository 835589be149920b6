/**
 * Ringing an eventfd that belongs to somebody hostile. `write` on it may block for ever: its owner can fill its counter
 * and clear O_NONBLOCK, which both sides share. The kernel's own way to ring one never blocks, it saturates; Linux AIO
 * lends it to us (io_submit(2), IOCB_FLAG_RESFD): a read of one byte of /dev/zero, done at once, that rings when done.
 */
import fs from 'node:fs';
import { eventfdSignal, POLLOUT, pollOne } from './fd.ts';
import { addressOf, bind } from './libc.ts';

// glibc has no wrappers for these.
const SYS_IO_SETUP = 206;
const SYS_IO_GETEVENTS = 208;
const SYS_IO_SUBMIT = 209;
const syscall = bind<
  (number: number, a: number, b: number, c: number, d: number, e: number) => number
>('syscall', 'long', ['long', 'uintptr_t', 'uintptr_t', 'uintptr_t', 'uintptr_t', 'uintptr_t']);

const IOCB_CMD_PREAD = 0;
const IOCB_FLAG_RESFD = 1;
/** Completions wait in the context until they are reaped: after this many rings. */
const REAP_AFTER = 32;

/** Layout of the one native block: context u64, pointer to the iocb u64, the byte that is read, iocb, io_events. */
const CONTEXT = 0;
const IOCB_POINTER = 8;
const TARGET = 16;
const IOCB = 64;
const EVENTS = 128;
const EVENT_LEN = 32;
/** Fields of struct iocb (linux/aio_abi.h). */
const LIO_OPCODE = 16;
const FILDES = 20;
const BUF = 24;
const NBYTES = 32;
const FLAGS = 56;
const RESFD = 60;

class Ringer {
  readonly #block = Buffer.alloc(EVENTS + REAP_AFTER * EVENT_LEN);
  readonly #words = new Uint32Array(this.#block.buffer, this.#block.byteOffset);
  readonly #address = addressOf(this.#block);
  readonly #context: number;
  #pending = 0;

  /** Throws nothing: where the kernel has no AIO, or none left, `ring` falls back to `ringIfWritable`. */
  constructor() {
    const failed = syscall(SYS_IO_SETUP, REAP_AFTER * 2, this.#address + CONTEXT, 0, 0, 0) < 0;
    this.#context = failed ? 0 : Number(this.#block.readBigUInt64LE(CONTEXT));
    const iocb = this.#block.subarray(IOCB, IOCB + 64);
    this.#block.writeBigUInt64LE(BigInt(this.#address + IOCB), IOCB_POINTER);
    iocb.writeUInt16LE(IOCB_CMD_PREAD, LIO_OPCODE);
    iocb.writeUInt32LE(fs.openSync('/dev/zero', 'r'), FILDES);
    iocb.writeBigUInt64LE(BigInt(this.#address + TARGET), BUF);
    iocb.writeBigUInt64LE(1n, NBYTES);
    iocb.writeUInt32LE(IOCB_FLAG_RESFD, FLAGS);
  }

  /** False when it falls back. */
  get isSafe(): boolean {
    return this.#context !== 0;
  }

  ring(fd: number): void {
    if (this.#context === 0) {
      ringIfWritable(fd);
      return;
    }
    this.#words[(IOCB + RESFD) / 4] = fd;
    syscall(SYS_IO_SUBMIT, this.#context, 1, this.#address + IOCB_POINTER, 0, 0);
    if (++this.#pending < REAP_AFTER) return;
    this.#pending = 0;
    syscall(SYS_IO_GETEVENTS, this.#context, 0, REAP_AFTER, this.#address + EVENTS, 0);
  }
}

let ringer: Ringer | null = null;

/**
 * Make ready for `signalPeer`, before any peer can run: all processes share fs.aio-max-nr, and a peer that takes the
 * rest of it would otherwise have us fall back. False when we do: a peer that fills its eventfd at the wrong moment then
 * blocks us.
 */
export function prepareSignals(): boolean {
  ringer ??= new Ringer();
  return ringer.isSafe;
}

/** Ring by a write, unless the eventfd is full: it has then been rung, and a write might wait for its owner. */
export function ringIfWritable(fd: number): void {
  if ((pollOne(fd, POLLOUT, 0) & POLLOUT) !== 0) eventfdSignal(fd);
}

/** Ring another process's eventfd without ever blocking. A full or closed one is not an error: it has been rung. */
export function signalPeer(fd: number): void {
  ringer ??= new Ringer();
  ringer.ring(fd);
}
