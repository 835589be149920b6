/**
 * Processes by descriptor (pidfd_open(2)): a number that another process has by now is never meant, and one that is
 * not our child can be watched. A pidfd becomes readable when its process ends.
 */
import fs from 'node:fs';
import { POLLIN, pollOne } from './fd.ts';
import { bind, check, errnoName } from './libc.ts';

const syscallOpen = bind<(number: number, pid: number, flags: number) => number>(
  'syscall',
  'long',
  ['long', 'int', 'uint'],
);
const syscallSignal = bind<
  (number: number, fd: number, signal: number, info: number, flags: number) => number
>('syscall', 'long', ['long', 'int', 'int', 'uintptr_t', 'uint']);

const SYS_PIDFD_SEND_SIGNAL = 424;
const SYS_PIDFD_OPEN = 434;

/** A descriptor of process `pid`, close-on-exec; the caller owns it. */
export const pidfdOpen = (pid: number): number =>
  check(syscallOpen(SYS_PIDFD_OPEN, pid, 0), 'pidfd_open', pid);

/** Send `signal`. False when the process has ended. */
export function pidfdSignal(fd: number, signal: number): boolean {
  const result = syscallSignal(SYS_PIDFD_SEND_SIGNAL, fd, signal, 0, 0);
  if (result < 0 && errnoName() === 'ESRCH') return false;
  check(result, 'pidfd_send_signal', fd, signal);
  return true;
}

/** The process behind a descriptor: its number, -1 when it has ended, null when `fd` is no pidfd (proc_pid_fdinfo(5)). */
export function pidOfPidfd(fd: number): number | null {
  const match = /^Pid:\s*(-?\d+)$/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'));
  return match === null ? null : Number(match[1]);
}

/** Wait up to `timeoutMs` for the end of the process. Blocks. True when it has ended. */
export const pidfdEnded = (fd: number, timeoutMs = 0): boolean =>
  pollOne(fd, POLLIN, timeoutMs) !== 0;
