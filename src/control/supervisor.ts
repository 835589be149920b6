/**
 * The supervisor: `node dist/src/control/supervisor.js DIR OPTIONS...`, which `arrakis up` leaves behind. Its child is the
 * daemon in DIR with these options; when that dies another is started, which goes on with everything (adopt.ts).
 *
 * - A daemon that ends in order (exit code 0) ends its supervisor, and so does one that finds another in its place.
 * - SIGTERM and SIGINT end the daemon in order, and nothing is started any more. SIGHUP is the daemon's.
 * - Until SIGUSR2 says that the first daemon serves, its end is a failure to start: the supervisor ends with it.
 * - Pauses double while the daemon keeps dying. It is never given up.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LIMITS } from './limits.ts';
import { type Log, logTo } from './log.ts';
import { logPath, SUPERVISOR_VARIABLE } from './paths.ts';
import { EXIT_ALREADY_RUNNING } from './run-directory.ts';

const DAEMON = fileURLToPath(new URL('./main.js', import.meta.url));

class Supervisor {
  readonly #dir: string;
  readonly #options: readonly string[];
  #child: ChildProcess | null = null;
  #restart: NodeJS.Timeout | null = null;
  #startedMs = 0;
  #failures = 0;
  #served = false;
  #ending = false;
  #log: Log | null = null;

  constructor(dir: string, options: readonly string[]) {
    this.#dir = dir;
    this.#options = options;
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => this.#end());
    process.on('SIGHUP', () => this.#child?.kill('SIGHUP'));
    process.on('SIGUSR2', () => {
      this.#served = true;
    });
  }

  start(): void {
    const { [SUPERVISOR_VARIABLE]: _, ...env } = process.env;
    this.#restart = null;
    this.#startedMs = performance.now();
    const args = [DAEMON, '--dir', this.#dir, ...this.#options];
    const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'ignore', 'inherit'] });
    this.#child = child;
    // When there is no process there is no exit either.
    child.once('error', (error) => this.#ended(1, null, error.message));
    child.once('exit', (code, signal) => this.#ended(code, signal));
  }

  #end(): void {
    this.#ending = true;
    if (this.#restart !== null) process.exit(0);
    this.#child?.kill('SIGTERM');
  }

  #ended(code: number | null, signal: NodeJS.Signals | null, error?: string): void {
    this.#child = null;
    if (this.#ending || code === 0) process.exit(0);
    if (!this.#served || code === EXIT_ALREADY_RUNNING) process.exit(code ?? 1);
    if (performance.now() - this.#startedMs > LIMITS.deviceHealthyMs) this.#failures = 0;
    const doubled = LIMITS.deviceRestartMsFirst * 2 ** this.#failures++;
    const pauseMs = Math.min(doubled, LIMITS.deviceRestartMsMax);
    this.#tell({ code, signal, pauseMs, ...(error === undefined ? {} : { error }) });
    this.#restart = setTimeout(() => this.start(), pauseMs);
  }

  /** In the daemon's log; without one it is not worth dying for. */
  #tell(fields: Record<string, unknown>): void {
    try {
      this.#log ??= logTo(fs.openSync(logPath(this.#dir), 'a', 0o640));
      this.#log('error', 'arrakisd has died and is started again', fields);
    } catch {
      // The next one may be able to say it.
    }
  }
}

const [dir, ...options] = process.argv.slice(2);
new Supervisor(dir!, options).start();
