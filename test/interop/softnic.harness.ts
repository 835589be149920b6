/** Starts a software NIC process and talks to it as the control plane does: synchronously, every wait bounded. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { closeFd } from '../../src/ffi/fd.ts';
import {
  receiveMessage,
  SOCK_SEQPACKET,
  SOCK_STREAM,
  sendMessage,
  setTimeouts,
  socketPair,
} from '../../src/ffi/unix.ts';

const ENTRY = path.join(import.meta.dirname, '../../src/softnic/main.js');
const TIMEOUT_MS = 5000;

export interface PortStats {
  port: number;
  rxPackets: number;
  rxBytes: number;
  txPackets: number;
  txBytes: number;
  drops: Record<string, number>;
  connected: boolean;
  state: string;
  reason: string;
}

export interface Answer {
  id: number;
  ok: boolean;
  code?: string;
  message?: string;
  ports?: PortStats[];
  uplink?: Record<string, number> | null;
  mappedBytes?: number;
}

export interface PortEvent {
  event: string;
  port: number;
  state: string;
  reason: string;
}

export class SoftNicProcess {
  readonly child: ChildProcess;
  readonly events: PortEvent[] = [];
  readonly #fd: number;
  #id = 0;

  /** `args` go to the process, `nodeArgs` to Node. */
  constructor(args: string[] = [], nodeArgs: string[] = []) {
    const [ours, theirs] = socketPair(SOCK_SEQPACKET);
    setTimeouts(ours, TIMEOUT_MS);
    this.#fd = ours;
    this.child = spawn(process.execPath, [...nodeArgs, ENTRY, ...args], {
      stdio: ['ignore', 'inherit', 'inherit', theirs],
    });
    closeFd(theirs);
  }

  /** Send a request with descriptors (which stay the caller's) and wait for its answer. */
  request(message: Record<string, unknown>, fds: number[] = []): Answer {
    const id = ++this.#id;
    this.send(JSON.stringify({ id, ...message }), fds);
    for (;;) {
      const answer = this.receive();
      if (answer === null) throw new Error(`no answer to ${message.op}`);
      if ('event' in answer) this.events.push(answer);
      else return answer;
    }
  }

  send(text: string, fds: number[] = []): void {
    if (sendMessage(this.#fd, Buffer.from(text), fds) < 0) throw new Error('the channel is full');
  }

  /** The next message; null when none comes in time. */
  receive(): Answer | PortEvent | null {
    const buffer = Buffer.alloc(64 * 1024);
    const received = receiveMessage(this.#fd, buffer, 0);
    if (received === null) return null;
    if (received.length === 0) throw new Error('the software NIC ended');
    return JSON.parse(buffer.toString('utf8', 0, received.length));
  }

  /** Add a port; the socket of its driver, which the caller owns. */
  addPort(options: Record<string, unknown>): number {
    const [driver, device] = socketPair(SOCK_STREAM);
    const answer = this.request({ op: 'addPort', ...options }, [device]);
    closeFd(device);
    if (answer.ok) return driver;
    closeFd(driver);
    throw new Error(`${answer.code}: ${answer.message}`);
  }

  stats(port: number): PortStats {
    return this.request({ op: 'stats' }).ports!.find((p) => p.port === port)!;
  }

  /** The events of `port` so far, as `state reason`. */
  states(port: number): string[] {
    this.request({ op: 'stats' });
    return this.events.filter((e) => e.port === port).map((e) => `${e.state} ${e.reason}`);
  }

  /** Close the channel and wait for the process. Its exit code. */
  async close(): Promise<number | null> {
    const { child } = this;
    const ended = child.exitCode === null ? once(child, 'exit') : null;
    closeFd(this.#fd);
    const guard = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
    await ended;
    clearTimeout(guard);
    return child.exitCode;
  }
}
