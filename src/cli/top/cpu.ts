/** Processor time of processes, from /proc (proc_pid_stat(5)). */
import fs from 'node:fs';

/** USER_HZ on every Linux that we run on. */
const TICKS_PER_SECOND = 100;
/** Fields after the command's closing parenthesis: state is the first. */
const UTIME = 11;
const STIME = 12;

/** Seconds of processor time that `pid` has used; null when it cannot be seen. */
export function cpuSeconds(pid: number): number | null {
  if (pid <= 0) return null;
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[UTIME]) + Number(fields[STIME])) / TICKS_PER_SECOND;
  } catch {
    return null;
  }
}

/** Shares of one processor between two looks at the same processes. */
export class CpuMeter {
  #seen = new Map<number, { atMs: number; seconds: number }>();

  /** Share since the last call for `pid`; null the first time, and when it cannot be seen. */
  share(pid: number, nowMs: number): number | null {
    const seconds = cpuSeconds(pid);
    if (seconds === null) return null;
    const before = this.#seen.get(pid);
    this.#seen.set(pid, { atMs: nowMs, seconds });
    if (before === undefined || nowMs <= before.atMs) return null;
    return ((seconds - before.seconds) * 1000) / (nowMs - before.atMs);
  }
}
