/** The daemon's log: one JSON object a line, `{time, level, message, ...}`, to a descriptor. */
import fs from 'node:fs';

export type LogLevel = 'info' | 'warn' | 'error';
export type Log = (level: LogLevel, message: string, fields?: Record<string, unknown>) => void;

/** Writes to `fd` (2 is stderr). A log that cannot be written is no reason to stop: its lines are lost. */
export function logTo(fd: number): Log {
  return (level, message, fields = {}) => {
    const line = JSON.stringify({ time: new Date().toISOString(), level, message, ...fields });
    try {
      fs.writeSync(fd, `${line}\n`);
    } catch {
      // Full disk or closed pipe: nobody is left to tell.
    }
  };
}
