/** A process of another user that the tests tell what to do. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { until } from '../support/until.ts';

const WAIT_MS = 60_000;

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export interface ActorOptions {
  /** Compiled script beside this file. */
  readonly script: string;
  readonly uid: number;
  /** Control socket of the daemon. */
  readonly socket: string;
  readonly args?: readonly string[];
  /** Becomes descriptor 3. */
  readonly fd?: number;
}

export class Actor {
  readonly child: ChildProcess;
  readonly uid: number;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #rest = '';

  private constructor({ script, uid, socket, args = [], fd }: ActorOptions) {
    this.uid = uid;
    const path = fileURLToPath(new URL(`./${script}`, import.meta.url));
    this.child = spawn(process.execPath, [path, ...args], {
      uid,
      gid: uid,
      stdio: ['pipe', 'pipe', 'inherit', ...(fd === undefined ? [] : [fd])],
      env: { PATH: process.env.PATH, ARRAKIS_SOCKET: socket },
    });
    this.child.stdin!.on('error', () => {});
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => this.#read(text));
    this.child.on('exit', (code, signal) => this.#failAll(`it ended (${code ?? signal})`));
  }

  /** Started, and listening. */
  static async start(options: ActorOptions): Promise<Actor> {
    const actor = new Actor(options);
    await actor.#answer(0, 'its start');
    return actor;
  }

  get pid(): number {
    return this.child.pid!;
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Have it do something. Rejects with what it says went wrong: the code is the error's `code`. */
  act<T>(act: string, args: object = {}): Promise<T> {
    const id = this.#nextId++;
    const answer = this.#answer(id, act);
    this.child.stdin!.write(`${JSON.stringify({ id, act, args })}\n`);
    return answer as Promise<T>;
  }

  async kill(): Promise<void> {
    if (!this.ended) this.child.kill('SIGKILL');
    await until(() => this.ended, WAIT_MS, 'the process ends');
  }

  #answer(id: number, what: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Error(`no answer to ${what} within ${WAIT_MS} ms`));
      }, WAIT_MS);
      const settle =
        <T>(then: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(timer);
          then(value);
        };
      this.#waiting.set(id, { resolve: settle(resolve), reject: settle(reject) });
    });
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    for (const line of lines) {
      const answer = JSON.parse(line) as Record<string, unknown>;
      const { id, value, code, text: stack } = answer;
      const waiting = this.#waiting.get(id as number);
      this.#waiting.delete(id as number);
      if (code === undefined) waiting?.resolve(value);
      else waiting?.reject(Object.assign(new Error(String(stack)), { code }));
    }
  }

  #failAll(why: string): void {
    for (const { reject } of this.#waiting.values()) reject(new Error(why));
    this.#waiting.clear();
  }
}
