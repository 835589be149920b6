/** A real arrakisd as a child process in a directory of its own, and clients that speak to it badly. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ConnectOptions, connect, type Domain } from '../../src/arrakis/index.ts';
import { removeLeftovers } from '../../src/control/leftovers.ts';
import { LIMITS } from '../../src/control/limits.ts';
import { socketPath } from '../../src/control/paths.ts';
import { closeAll, closeFd } from '../../src/ffi/fd.ts';
import {
  connectUnix,
  receiveMessage,
  SOCK_SEQPACKET,
  sendMessage,
  setTimeouts,
} from '../../src/ffi/unix.ts';
import { until } from '../support/until.ts';

const START_MS = 15_000;
const RAW_TIMEOUT_MS = 8000;

export const DAEMON_SCRIPT = fileURLToPath(new URL('../../src/control/main.js', import.meta.url));
export const APP_SCRIPT = fileURLToPath(new URL('./daemon.app.js', import.meta.url));

export interface DaemonOptions {
  readonly dir?: string;
  readonly args?: readonly string[];
  readonly uid?: number;
}

/** A directory that only `uid` (default: this user) may write. */
export function temporaryDirectory(uid?: number): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'ctl-'));
  fs.chmodSync(dir, 0o755);
  if (uid !== undefined) fs.chownSync(dir, uid, uid);
  return dir;
}

export class TestDaemon {
  readonly dir: string;
  readonly child: ChildProcess;
  log = '';

  private constructor(dir: string, child: ChildProcess) {
    this.dir = dir;
    this.child = child;
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.log += text;
    });
  }

  /** Started, and serving unless it ended at once. */
  static async start(options: DaemonOptions = {}): Promise<TestDaemon> {
    const daemon = TestDaemon.launch(options);
    const ready = () => daemon.log.includes('"message":"serving"') || daemon.ended;
    await until(ready, START_MS, 'the daemon serves');
    return daemon;
  }

  /** Started, however far it has come. */
  static launch(options: DaemonOptions = {}): TestDaemon {
    const dir = options.dir ?? temporaryDirectory(options.uid);
    const args = [DAEMON_SCRIPT, '--dir', dir, ...(options.args ?? ['--no-tap'])];
    const identity = options.uid === undefined ? {} : { uid: options.uid, gid: options.uid };
    const spawnOptions: SpawnOptions = { stdio: ['ignore', 'ignore', 'pipe'], ...identity };
    return new TestDaemon(dir, spawn(process.execPath, args, spawnOptions));
  }

  get pid(): number {
    return this.child.pid!;
  }

  get socket(): string {
    return socketPath(this.dir);
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  connect(options: ConnectOptions = {}): Promise<Domain> {
    return connect({ socket: this.socket, ...options });
  }

  async signal(signal: NodeJS.Signals): Promise<void> {
    if (!this.ended) this.child.kill(signal);
    await until(() => this.ended, START_MS, 'the daemon ends');
  }

  /** Orderly end, and the directory with it. */
  async close(): Promise<void> {
    await this.signal('SIGTERM');
    // One that was killed has a keeper, which would wait for the next.
    removeLeftovers(this.dir);
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  raw(): RawClient {
    return new RawClient(this.socket);
  }
}

/** A client that sends whatever it is told. Blocking, bounded by a timeout. */
export class RawClient {
  readonly fd: number;
  #id = 0;

  /** A connection to the socket at a path, or one that is there already. */
  constructor(socket: string | number) {
    this.fd = typeof socket === 'number' ? socket : connectUnix(socket, SOCK_SEQPACKET);
    setTimeouts(this.fd, RAW_TIMEOUT_MS);
  }

  /** False when a non-blocking socket has no room. */
  send(text: string | Uint8Array, fds: readonly number[] = []): boolean {
    return sendMessage(this.fd, typeof text === 'string' ? Buffer.from(text) : text, fds) >= 0;
  }

  /** The next message; null at the end of the connection, or when none comes in time. */
  receive(): { [key: string]: unknown } | null {
    const buffer = Buffer.alloc(LIMITS.messageBytesMax);
    let received: ReturnType<typeof receiveMessage>;
    try {
      received = receiveMessage(this.fd, buffer, LIMITS.messageFdsMax);
    } catch {
      return null;
    }
    if (received === null || received.length === 0) return null;
    closeAll(received.fds);
    return JSON.parse(buffer.toString('utf8', 0, received.length));
  }

  /** Error code of the answer to `text`; 'ok' for success, 'end' when the connection ended. */
  codeOf(text: string | Uint8Array, fds: readonly number[] = []): string {
    this.send(text, fds);
    const answer = this.receive();
    if (answer === null) return 'end';
    return answer.ok === true ? 'ok' : (answer.error as { code: string }).code;
  }

  /** Error code of the answer to operation `op`. */
  codeOfRequest(op: string, args: object = {}, fds: readonly number[] = []): string {
    return this.codeOf(JSON.stringify({ id: ++this.#id, op, ...args }), fds);
  }

  hello(): this {
    if (this.codeOfRequest('hello', { protocol: 1 }) !== 'ok') throw new Error('hello refused');
    return this;
  }

  close(): void {
    closeFd(this.fd);
  }
}

/** Open descriptors of another process. */
export const fdCount = (pid: number): number => fs.readdirSync(`/proc/${pid}/fd`).length;

export function isAlive(pid: number): boolean {
  try {
    return !fs.readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
}

/** Pid of the software NIC that runs; waits for one that is being restarted, and for another than `killed`. */
export async function softnicPid(domain: Domain, killed = 0): Promise<number> {
  let pid = 0;
  await until(
    async () => {
      const { devices } = (await domain.request('device.list', {})).reply;
      ({ pid } = devices.find((device) => device.name === 'soft0')!);
      return pid !== 0 && pid !== killed;
    },
    START_MS,
    'the software NIC runs',
  );
  return pid;
}

/** Resolves when only the daemon's domain and the caller's are left. */
export async function awaitReclaimed(domain: Domain): Promise<void> {
  await until(
    async () => (await domain.request('list', {})).reply.objects.length === 2,
    START_MS,
    'everything is reclaimed',
  );
}

/** An application as a child process; it prints a line for each thing that happens. */
export class TestApp {
  readonly child: ChildProcess;
  output = '';

  constructor(env: NodeJS.ProcessEnv, options: SpawnOptions = {}, fd?: number) {
    const stdio: SpawnOptions['stdio'] = ['pipe', 'pipe', 'inherit'];
    if (fd !== undefined) stdio.push(fd);
    this.child = spawn(process.execPath, [APP_SCRIPT], {
      ...options,
      env: { PATH: process.env.PATH, ...env },
      stdio,
    });
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
    });
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  says(what: string): Promise<void> {
    return until(() => this.output.includes(what), START_MS, `the application says "${what}"`);
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await until(() => this.ended, START_MS, 'the application ends');
  }
}
