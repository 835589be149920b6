/**
 * pipe(2), as a doorbell between two processes that do not trust each other. Each holds one end, and each end has
 * status flags of its own: unlike an eventfd, of which both have the same open file, the peer cannot make it block. And
 * its end is seen: the last writer's by end of file, the last reader's by EPIPE (Node ignores SIGPIPE).
 */
import { fcntl, readFd, writeAt } from './fd.ts';
import { addressOf, bind, check, errno } from './libc.ts';

const pipe2 = bind<(fds: Uint8Array, flags: number) => number>('pipe2', 'int', ['void *', 'int']);

const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const F_SETPIPE_SZ = 1031;
const PAGE = 4096;
const EPIPE = 32;

/** The two ends of a new pipe: close-on-exec, non-blocking, one page. The caller owns both. */
export function pipePair(): { reader: number; writer: number } {
  const out = Buffer.alloc(8);
  check(pipe2(out, O_CLOEXEC | O_NONBLOCK), 'pipe2', 'O_CLOEXEC | O_NONBLOCK');
  const [reader, writer] = [out.readInt32LE(0), out.readInt32LE(4)];
  // The kernel counts pages of pipes against their user. That it refuses to shrink one would harm nobody.
  fcntl(writer, F_SETPIPE_SZ, PAGE);
  return { reader, writer };
}

// A block too large for V8 to move.
const one = Buffer.alloc(4096, 1);
const oneAddress = addressOf(one);

/** Ring: false when nobody holds the reading end any more. A full pipe has been rung. Never blocks. */
export function ringPipe(writer: number): boolean {
  return writeAt(writer, oneAddress, 1) >= 0 || errno() !== EPIPE;
}

const drain = Buffer.alloc(PAGE);

/** Silence: false when nobody holds the writing end any more. Never blocks. */
export function drainPipe(reader: number): boolean {
  // Twice at most: a writer that keeps filling it costs us a turn, not the loop.
  for (let n = 0; n < 2; n++) {
    const count = readFd(reader, drain);
    if (count === 0) return false;
    if (count < PAGE) return true;
  }
  return true;
}
