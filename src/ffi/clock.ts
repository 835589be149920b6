/**
 * The monotonic clock without garbage: `performance.now` and `process.hrtime` make an object a call unless the compiler
 * happens to inline them, and a loop that spins asks a million times a second. clock_gettime(2) through the vDSO is
 * not a system call.
 */
import { addressOf, bind, check } from './libc.ts';

const clockGettime = bind<(clock: number, address: number) => number>('clock_gettime', 'int', [
  'int',
  'uintptr_t',
]);
const CLOCK_MONOTONIC = 1;
/** Of clocks that a process or thread is charged by (clock_getcpuclockid(3), the kernel's posix-timers_types.h). */
const CPUCLOCK_SCHED = 2;
const CPUCLOCK_PERTHREAD = 4;

// struct timespec { i64 seconds, i64 nanoseconds }, read as the low halves, in a block too large for V8 to move.
const timespec = Buffer.alloc(4096);
const address = addressOf(timespec);
const words = new Int32Array(timespec.buffer, timespec.byteOffset, 4);
const SECONDS = 0;
const NANOSECONDS = 2;

/** The clock of the processor time of a process, all its threads together. */
export const processClock = (pid: number): number => (~pid << 3) | CPUCLOCK_SCHED;

/** The clock of the processor time of a thread of this process; 0 is the calling one. */
export const threadClock = (tid: number): number => processClock(tid) | CPUCLOCK_PERTHREAD;

/** Nanoseconds of processor time by such a clock. ESRCH and EINVAL: there is no such process or thread. */
export function cpuTimeNs(clock: number): number {
  check(clockGettime(clock, address), 'clock_gettime', clock);
  return words[SECONDS]! * 1e9 + words[NANOSECONDS]!;
}

clockGettime(CLOCK_MONOTONIC, address);
const startSeconds = words[SECONDS]!;

/** Milliseconds, whole, from about the start of this process. Small integers for 24 days, exact after. */
export function monotonicMs(): number {
  clockGettime(CLOCK_MONOTONIC, address);
  return (words[SECONDS]! - startSeconds) * 1000 + ((words[NANOSECONDS]! / 1_000_000) | 0);
}

/** Microseconds as an int32 that wraps every 71 minutes: only differences `(b - a) | 0` have a meaning. */
export function monotonicUs32(): number {
  clockGettime(CLOCK_MONOTONIC, address);
  return (Math.imul(words[SECONDS]!, 1_000_000) + ((words[NANOSECONDS]! / 1000) | 0)) | 0;
}
