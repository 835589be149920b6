/** ICMP echo from the kernel's side, without the `ping` program: is somebody at this address, and how far away? */
import type { Ipv4 } from '../../src/base/address.ts';
import { closeFd, readFd, writeFd } from '../../src/ffi/fd.ts';
import { connectIcmp } from '../../src/ffi/inet.ts';
import { setTimeouts } from '../../src/ffi/unix.ts';
import * as icmp from '../../src/wire/icmp.ts';

const LENGTH = 64;
const IDENTIFIER = 0x4152;

export class Pinger {
  readonly #fd: number;
  readonly #request = Buffer.alloc(LENGTH);
  readonly #answer = Buffer.alloc(2048);
  #sequence = 0;

  /** Needs CAP_NET_RAW. Pings from the network namespace that the calling thread is in now. */
  constructor(address: Ipv4, timeoutMs: number) {
    this.#fd = connectIcmp(address);
    setTimeouts(this.#fd, timeoutMs);
  }

  /** Microseconds to the answer of one echo request, or -1 when none came in time. */
  ping(): number {
    this.#sequence = (this.#sequence + 1) & 0xffff;
    const view = new DataView(this.#request.buffer, this.#request.byteOffset, LENGTH);
    const rest = (IDENTIFIER << 16) | this.#sequence;
    icmp.emit(view, 0, icmp.ECHO_REQUEST, 0, rest, LENGTH);
    const begin = performance.now();
    writeFd(this.#fd, this.#request);
    for (;;) {
      const length = readFd(this.#fd, this.#answer);
      if (length < 0) return -1;
      if (this.#isAnswer(length)) return (performance.now() - begin) * 1000;
    }
  }

  #isAnswer(length: number): boolean {
    const answer = new DataView(this.#answer.buffer, this.#answer.byteOffset, length);
    const at = (answer.getUint8(0) & 15) * 4;
    return (
      icmp.check(answer, at, length) >= 0 &&
      icmp.type(answer, at) === icmp.ECHO_REPLY &&
      icmp.echoId(answer, at) === IDENTIFIER &&
      icmp.echoSeq(answer, at) === this.#sequence
    );
  }

  close(): void {
    closeFd(this.#fd);
  }
}
