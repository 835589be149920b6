/**
 * `arrakis up` and `arrakis down`: start the daemon in the background, with a supervisor that starts it again when it dies
 * (or here, without); and end both in order.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { connect } from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import { removeLeftovers, stopSupervisors, supervisorsOf } from '../../control/leftovers.ts';
import { pidPath, runDirectory, SUPERVISOR_VARIABLE, socketPath } from '../../control/paths.ts';
import { isClaimed, readPid } from '../../control/run-directory.ts';
import { parentOf } from '../processes.ts';
import { printLine } from '../table.ts';

const DAEMON = fileURLToPath(new URL('../../control/main.js', import.meta.url));
const SUPERVISOR = fileURLToPath(new URL('../../control/supervisor.js', import.meta.url));
const READY_MS = 10_000;
const DOWN_MS = 5_000;
const LOOK_EVERY_MS = 20;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

interface UpOptions {
  dir?: string;
  foreground?: boolean;
  tap: boolean;
  tapAddress?: string;
  tapName?: string;
  device?: string[];
  policy?: string;
  nicCpu?: string;
  keepMs?: string;
  nicRate?: string;
}

export function registerUp(program: Command): void {
  program
    .command('up')
    .description('start the daemon, arrakisd')
    .option('--foreground', 'stay in the foreground, log to standard error, restart nothing')
    .option('--dir <dir>', 'run directory (default: ARRAKIS_DIR, /run/arrakis, or one of the user)')
    .option('--no-tap', 'no TAP interface between the software NIC and the kernel')
    .option('--tap-name <name>', 'its name (default: arrakis0)')
    .option('--tap-address <cidr>', 'its address and network (default: 10.77.0.1/24)')
    .option('--device <interface...>', 'take these interfaces from the start')
    .option('--policy <file>', 'what users, groups and programs are given (docs/policy.md)')
    .option('--keep-ms <ms>', 'if it is killed, everything goes on for so long (default: 60000)')
    .option('--nic-cpu <list>', 'processors of the software NIC, such as 1 or 2-3 (default: any)')
    .option('--nic-rate <rate>', 'bits a second that its VNICs together may send (default: any)')
    .action(up);
  program
    .command('down')
    .description('end the daemon; applications lose their VNICs')
    .option('--dir <dir>', 'run directory')
    .action(down);
}

const directory = (options: { dir?: string }): string =>
  path.resolve(options.dir ?? runDirectory(process.getuid!()));

function daemonArguments(options: UpOptions): string[] {
  const args: string[] = [];
  if (!options.tap) args.push('--no-tap');
  if (options.tapName !== undefined) args.push('--tap-name', options.tapName);
  if (options.tapAddress !== undefined) args.push('--tap-address', options.tapAddress);
  if (options.nicRate !== undefined) args.push('--nic-rate', options.nicRate);
  if (options.policy !== undefined) args.push('--policy', path.resolve(options.policy));
  if (options.keepMs !== undefined) args.push('--keep-ms', options.keepMs);
  if (options.nicCpu !== undefined) args.push('--nic-cpu', options.nicCpu);
  for (const device of options.device ?? []) args.push('--device', device);
  return args;
}

async function up(options: UpOptions): Promise<void> {
  const args = daemonArguments(options);
  if (options.foreground) {
    const all = [DAEMON, '--dir', directory(options), ...args];
    const child = spawn(process.execPath, all, { stdio: 'inherit' });
    for (const signal of SIGNALS) process.on(signal, () => child.kill(signal));
    process.exitCode = await new Promise<number>((resolve) => {
      child.once('exit', (code) => resolve(code ?? 1));
    });
    return;
  }
  const dir = directory(options);
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-up-'));
  try {
    await launch(dir, args, scratch);
  } finally {
    fs.rmSync(scratch, { recursive: true });
  }
  printLine(`arrakisd runs, pid ${readPid(pidPath(dir))}, in ${dir}`);
  if (process.getuid!() !== 0) {
    printLine('without root: the software NIC (soft0) between your own applications.');
    printLine('sudo arrakis up adds AF_XDP on interfaces and a TAP interface to the kernel.');
  }
}

/**
 * Start its supervisor detached and wait until the daemon serves. What it says before it has a log is in `scratch`. A signal to us while we
 * wait ends it as well.
 */
async function launch(dir: string, args: string[], scratch: string): Promise<void> {
  const stderrFile = path.join(scratch, 'stderr');
  const stderr = fs.openSync(stderrFile, 'w');
  const child = spawn(process.execPath, [SUPERVISOR, dir, '--log', ...args], {
    stdio: ['ignore', 'ignore', stderr],
    env: { ...process.env, [SUPERVISOR_VARIABLE]: dir },
    detached: true,
  });
  fs.closeSync(stderr);
  let ended = false;
  child.once('exit', () => {
    ended = true;
  });
  const giveUp = (signal: NodeJS.Signals): void => {
    child.kill('SIGTERM');
    fs.rmSync(scratch, { recursive: true });
    process.kill(process.pid, signal);
  };
  for (const signal of SIGNALS) process.once(signal, giveUp);
  const end = Date.now() + READY_MS;
  for (;;) {
    if (ended) throw startFailure(fs.readFileSync(stderrFile, 'utf8'));
    const pid = readPid(pidPath(dir));
    if (pid !== null && parentOf(pid) === child.pid && (await answers(dir))) break;
    if (Date.now() > end) {
      child.kill('SIGTERM');
      throw new ArrakisError('ARK_TIMEOUT', `arrakisd did not answer within ${READY_MS} ms`, {
        hint: `look at ${path.join(dir, 'arrakisd.log')}`,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
  for (const signal of SIGNALS) process.off(signal, giveUp);
  child.kill('SIGUSR2');
  child.unref();
}

/** The last line of the log is the reason, as JSON. */
function startFailure(output: string): ArrakisError {
  const last = output.trim().split('\n').at(-1) ?? '';
  try {
    const entry = JSON.parse(last) as { message: string; code?: string; hint?: string };
    const code = (entry.code ?? 'ARK_INTERNAL') as ArrakisError['code'];
    return new ArrakisError(
      code,
      entry.message,
      entry.hint === undefined ? {} : { hint: entry.hint },
    );
  } catch {
    return new ArrakisError('ARK_INTERNAL', `arrakisd did not start: ${last || 'it said nothing'}`);
  }
}

async function answers(dir: string): Promise<boolean> {
  if (!isClaimed(dir) || !fs.existsSync(socketPath(dir))) return false;
  try {
    const domain = await connect({ socket: socketPath(dir) });
    await domain.close();
    return true;
  } catch {
    return false;
  }
}

async function down(options: { dir?: string }): Promise<void> {
  const dir = directory(options);
  const pid = readPid(pidPath(dir));
  // One that died and cannot be started again: its supervisor tries for ever.
  const isDead = !isClaimed(dir) && supervisorsOf(dir).length > 0;
  if (!isDead) {
    const domain = await connect(options.dir === undefined ? {} : { socket: socketPath(dir) });
    await domain.request('shutdown', {});
    await domain.close();
  }
  // It ends with its daemon; but should that fail to end in order, no other is wanted.
  stopSupervisors(dir);
  const end = Date.now() + DOWN_MS;
  while (isClaimed(dir) || supervisorsOf(dir).length > 0) {
    if (Date.now() > end) {
      throw new ArrakisError(
        'ARK_TIMEOUT',
        `arrakisd, pid ${pid}, has not ended after ${DOWN_MS} ms`,
        {
          hint: `kill -9 ${pid}; arrakis doctor --fix`,
        },
      );
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
  if (isDead) removeLeftovers(dir);
  printLine('arrakisd has ended');
}
