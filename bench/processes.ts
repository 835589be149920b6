/**
 * Child processes of benchmarks and demos: pinned, in a namespace, ended by whoever started them, or by `endAtSignals`;
 * and the folders that they work in.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { NetworkNamespace } from '../src/ffi/network-namespace.ts';
import { getAffinity, setAffinity } from '../src/ffi/process.ts';

export interface StartOptions {
  cpus?: readonly number[];
  network?: NetworkNamespace;
  env?: Record<string, string>;
  uid?: number;
  gid?: number;
}

const STOP_MS = 3000;
const LOOK_EVERY_MS = 5;
const OUTPUT_MAX = 64 * 1024;
const ENDING = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** What is to be undone when a signal ends us. */
const alive = new Set<Running>();
const scratch = new Set<string>();

/** A running child with what it printed so far. */
export class Running {
  readonly child: ChildProcess;
  readonly label: string;
  output = '';
  readonly exited: Promise<number | null>;

  constructor(child: ChildProcess, label: string) {
    this.child = child;
    this.label = label;
    alive.add(this);
    this.exited = new Promise((resolve) => {
      child.once('exit', (code) => {
        alive.delete(this);
        resolve(code);
      });
      child.once('error', (error) => {
        alive.delete(this);
        this.output += String(error);
        resolve(-1);
      });
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.output = (this.output + chunk.toString()).slice(-OUTPUT_MAX);
      });
    }
  }

  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Ask it to end, insist after a while, and wait until it has. Idempotent. */
  async stop(): Promise<void> {
    if (!this.alive) return;
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS);
    await this.exited;
    clearTimeout(timer);
  }
}

/** Has a program get SIGTERM when the thread that started it ends (PR_SET_PDEATHSIG), also by SIGKILL. */
const SETPRIV = '/usr/bin/setpriv';

/** `command` for spawn such that it ends with us; where there is no setpriv, just that. */
export const endingWithUs = (
  command: string,
  args: readonly string[],
): [program: string, args: readonly string[]] =>
  fs.existsSync(SETPRIV)
    ? [SETPRIV, ['--pdeathsig', 'TERM', '--', command, ...args]]
    : [command, args];

/**
 * Start `command`, which ends with us, however we end. Its standard input is a pipe that closes then too; its output is
 * collected.
 */
export function start(
  command: string,
  args: readonly string[],
  options: StartOptions = {},
): Running {
  const [program, all] = endingWithUs(command, args);
  const launch = () =>
    spawn(program, all, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
      ...(options.uid === undefined ? {} : { uid: options.uid }),
      ...(options.gid === undefined ? {} : { gid: options.gid }),
    });
  const placed = () => pinned(options.cpus, launch);
  const child = options.network === undefined ? placed() : options.network.run(placed);
  return new Running(child, [command, ...args].join(' '));
}

/** Start this Node on a compiled script of ours. */
export function startNode(
  script: URL,
  args: readonly string[],
  options: StartOptions = {},
): Running {
  return start(process.execPath, [fileURLToPath(script), ...args], options);
}

/** A new folder under the temporary directory; `removeScratch` it. */
export function makeScratch(prefix: string): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), prefix));
  scratch.add(dir);
  return dir;
}

/** Remove a folder of `makeScratch`, with all that is in it. Idempotent. */
export function removeScratch(dir: string): void {
  fs.rmSync(dir, { recursive: true, force: true });
  scratch.delete(dir);
}

/**
 * From now on Ctrl-C, SIGTERM and a terminal that closes end this process without leaving anything behind: children are
 * ended, folders removed. It happens at once, so nobody hears of it who would start something else.
 */
export function endAtSignals(): void {
  for (const signal of ENDING) {
    process.once(signal, () => {
      endChildren([...alive].map(({ child }) => child.pid!));
      for (const dir of scratch) removeScratch(dir);
      // Without a handler now. Not exit: Node aborts when it cannot reset a terminal that is gone.
      process.kill(process.pid, signal);
    });
  }
}

/** Ask them to end, insist after a while, and block until they have. */
function endChildren(pids: readonly number[]): void {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    for (const pid of pids) if (runs(pid)) process.kill(pid, signal);
    const end = performance.now() + STOP_MS;
    while (pids.some(runs) && performance.now() < end) Atomics.wait(pause, 0, 0, LOOK_EVERY_MS);
  }
}

/** Whether our child still runs. One that ended stays until the event loop hears of it: state Z of proc_pid_stat(5). */
function runs(pid: number): boolean {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat[stat.lastIndexOf(')') + 2] !== 'Z';
  } catch {
    return false;
  }
}

/** A child inherits the processors of the thread that starts it. */
function pinned<T>(cpus: readonly number[] | undefined, body: () => T): T {
  if (cpus === undefined) return body();
  const before = getAffinity();
  setAffinity(cpus);
  try {
    return body();
  } finally {
    setAffinity(before);
  }
}

/** Run to the end and return the last line of standard output as JSON; throws what it printed when it fails. */
export async function runToJson<T>(running: Running, timeoutMs: number): Promise<T> {
  const timer = setTimeout(() => running.child.kill('SIGKILL'), timeoutMs);
  const code = await running.exited;
  clearTimeout(timer);
  const last = running.output.split('\n').findLast((line) => line.startsWith('{'));
  if (code !== 0 || last === undefined) {
    throw new Error(`${running.label} ended with ${code}:\n${running.output.trim()}`);
  }
  return JSON.parse(last) as T;
}
