/**
 * The daemon's log: one JSON object a line, `{time, level, message, ...}`, to a descriptor.
 *
 * Clients cause lines, and a client that loops must not fill the disk: of each message text there are so many lines a
 * second, then one that counts the rest.
 */
import fs from 'node:fs';
import { LIMITS } from './limits.ts';

const WINDOW_MS = 1000;

export type LogLevel = 'info' | 'warn' | 'error';
export type Log = (level: LogLevel, message: string, fields?: Record<string, unknown>) => void;

/** Lines of one message text since `startMs`. */
interface Window {
  startMs: number;
  lines: number;
  suppressed: number;
}

/** Writes to `fd` (2 is stderr). A log that cannot be written is no reason to stop: its lines are lost. */
export function logTo(fd: number): Log {
  // By message text: constants of this program, so there are few.
  const windows = new Map<string, Window>();
  const write: Log = (level, message, fields = {}) => {
    const line = JSON.stringify({ time: new Date().toISOString(), level, message, ...fields });
    try {
      fs.writeSync(fd, `${line}\n`);
    } catch {
      // Full disk or closed pipe: nobody is left to tell.
    }
  };
  return (level, message, fields) => {
    const nowMs = performance.now();
    let window = windows.get(message);
    if (window === undefined || nowMs - window.startMs >= WINDOW_MS) {
      window = { startMs: nowMs, lines: 0, suppressed: 0 };
      windows.set(message, window);
    }
    if (window.lines++ < LIMITS.logLinesPerSecondMax) {
      write(level, message, fields);
      return;
    }
    const full = window;
    if (full.suppressed++ > 0) return;
    setTimeout(() => {
      write(level, 'log lines suppressed', { of: message, count: full.suppressed });
    }, WINDOW_MS).unref();
    // The line comes a whole second after the first that it counts: so does the next window.
    full.startMs = nowMs;
  };
}
