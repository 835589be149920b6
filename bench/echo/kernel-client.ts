/**
 * Round trips and rates seen by an ordinary kernel client: a connected UDP socket, one system call each way. It is
 * itself the limit of every rate it measures; it shows what programs on the kernel's stack get from a VNIC.
 */

import { isErrno } from '../../src/base/errors.ts';
import { closeFd, readFd, writeFd } from '../../src/ffi/fd.ts';
import { connectUdp } from '../../src/ffi/inet.ts';
import { setTimeouts } from '../../src/ffi/unix.ts';
import type { Saturation } from './generator.ts';

const LOST_MS = 20;
const PAYLOAD_LEN = 22;

export class KernelClient {
  readonly #fd: number;
  readonly #request = Buffer.alloc(PAYLOAD_LEN);
  readonly #answer = Buffer.alloc(2048);
  #sequence = 0;

  /** An answer that takes longer than `lostMs` is taken for lost. */
  constructor(address: number, port: number, lostMs: number = LOST_MS) {
    this.#fd = connectUdp(address, port);
    setTimeouts(this.#fd, lostMs);
  }

  /** Ask until the first answer: false when none came within `timeoutMs`. */
  probe(timeoutMs: number): boolean {
    const end = performance.now() + timeoutMs;
    while (performance.now() < end) {
      if (this.#send() && this.#receiveLatest()) return true;
    }
    return false;
  }

  roundTrips(count: number): { microseconds: Float64Array; lost: number } {
    const microseconds = new Float64Array(count);
    let done = 0;
    let lost = 0;
    while (done < count && lost <= count) {
      const begin = performance.now();
      if (this.#send() && this.#receiveLatest()) {
        microseconds[done++] = (performance.now() - begin) * 1000;
      } else lost++;
    }
    return { microseconds: microseconds.subarray(0, done), lost };
  }

  saturate(durationMs: number, window: number): Saturation {
    const begin = performance.now();
    let now = begin;
    let sent = 0;
    let answered = 0;
    let lost = 0;
    let inFlight = 0;
    while (now - begin < durationMs) {
      while (inFlight < window && this.#send()) {
        inFlight++;
        sent++;
      }
      if (this.#receive() >= 0) {
        inFlight--;
        answered++;
      } else {
        lost += inFlight;
        inFlight = 0;
      }
      now = performance.now();
    }
    return { packetsPerSecond: (answered * 1000) / (now - begin), sent, answered, lost };
  }

  close(): void {
    closeFd(this.#fd);
  }

  #send(): boolean {
    this.#request.writeUInt32LE(++this.#sequence, 0);
    return this.#attempt(() => writeFd(this.#fd, this.#request)) > 0;
  }

  /** Wait for the answer to the last request; late answers to earlier ones are passed over. */
  #receiveLatest(): boolean {
    for (;;) {
      const sequence = this.#receive();
      if (sequence < 0 || sequence === this.#sequence) return sequence >= 0;
    }
  }

  /** Sequence number of the next answer, or -1. */
  #receive(): number {
    const length = this.#attempt(() => readFd(this.#fd, this.#answer));
    return length < PAYLOAD_LEN ? -1 : this.#answer.readUInt32LE(0);
  }

  /** A port that is not open yet answers by ICMP, which the socket reports as ECONNREFUSED. */
  #attempt(call: () => number): number {
    try {
      return call();
    } catch (error) {
      if (isErrno(error, 'ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH')) return -1;
      throw error;
    }
  }
}
