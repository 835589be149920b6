/** Other processes, as /proc shows them. */
import fs from 'node:fs';

/** Parent of process `pid` (proc_pid_stat(5), field 4); 0 when there is no such process. */
export function parentOf(pid: number): number {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return 0;
  }
}
