/** Starts a software NIC process and talks to it as the control plane does: synchronously, every wait bounded. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { formatIpv4 } from '../../src/base/address.ts';
import { NO_FRAME } from '../../src/device/nic.ts';
import { createRegion, type VirtioGrant, virtioGeometry } from '../../src/drivers/virtio/attach.ts';
import { openVirtioQueue, type VirtioQueue } from '../../src/drivers/virtio/queue.ts';
import { closeFd } from '../../src/ffi/fd.ts';
import {
  receiveMessage,
  SOCK_SEQPACKET,
  SOCK_STREAM,
  sendMessage,
  setTimeouts,
  socketPair,
} from '../../src/ffi/unix.ts';
import { type PairAddresses, type Side, writeTestFrame } from '../conformance/udp-frame.ts';

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
  /** What it has printed: V8's traces, if `nodeArgs` ask for them. */
  output = '';
  readonly #fd: number;
  #id = 0;

  /** `args` go to the process, `nodeArgs` to Node. */
  constructor(args: string[] = [], nodeArgs: string[] = []) {
    const [ours, theirs] = socketPair(SOCK_SEQPACKET);
    setTimeouts(ours, TIMEOUT_MS);
    this.#fd = ours;
    this.child = spawn(process.execPath, [...nodeArgs, ENTRY, ...args], {
      stdio: ['ignore', 'pipe', 'inherit', theirs],
    });
    this.child.stdout!.on('data', (text) => {
      this.output += text;
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
    const giveUp = performance.now() + TIMEOUT_MS / 2;
    let received = receiveMessage(this.#fd, buffer, 0);
    // A wait with a timeout is not resumed after a signal, such as that of a child's end (signal(7)).
    while (received === null && performance.now() < giveUp) {
      received = receiveMessage(this.#fd, buffer, 0);
    }
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

/** The two ends of these tests. */
export const ADDRESSES: PairAddresses = {
  aMac: 0x0200_0a00_0001,
  bMac: 0x0200_0a00_0002,
  aIp: 0x0a00_0001,
  bIp: 0x0a00_0002,
};

/** The whole address, as text. */
export const anyFilter = (address: number): string => `dst host ${formatIpv4(address)}`;

const RING_SIZE = 256;
const FRAME_SIZE = 2048;
const FRAME_COUNT = 1024;
const BATCH = 64;

/** An application on a port: our own driver, with whole frames as bytes for convenience. */
export class Application {
  readonly queue: VirtioQueue;
  readonly side: Side;
  readonly #pending: Buffer[] = [];
  readonly #frames = new Uint32Array(BATCH);
  readonly #lengths = new Uint16Array(BATCH);

  constructor(queue: VirtioQueue, side: Side) {
    this.queue = queue;
    this.side = side;
  }

  /** Make port `port` of `nic` with the MAC and, unless others are given, the address of `side`, and attach to it. */
  static connect(
    nic: SoftNicProcess,
    port: number,
    side: Side,
    filters = [anyFilter(side === 'a' ? ADDRESSES.aIp : ADDRESSES.bIp)],
    offload = false,
    addresses6: readonly string[] = [],
  ): Application {
    const mac = side === 'a' ? ADDRESSES.aMac : ADDRESSES.bMac;
    const sizes = { ringSize: RING_SIZE, frameSize: FRAME_SIZE, frameCount: FRAME_COUNT };
    const { regionBytes } = virtioGeometry(sizes);
    const grant: VirtioGrant = { mac, mtu: 1500, headroom: 128, ...sizes, regionBytes };
    const socket = nic.addPort({ port, mac, filters, addresses6 });
    const fds = { region: createRegion(grant), socket };
    return new Application(openVirtioQueue(grant, fds, TIMEOUT_MS, offload), side);
  }

  /** Send test frame `sequence` to the other side as soon as there is room. */
  send(sequence: number, length = 64): void {
    const bytes = Buffer.alloc(length);
    writeTestFrame(bytes, 0, length, ADDRESSES, this.side, sequence);
    this.sendBytes(bytes);
  }

  sendBytes(bytes: Buffer): void {
    this.#pending.push(bytes);
    this.sendPending();
  }

  sendPending(): void {
    const { queue } = this;
    queue.reclaim(BATCH);
    while (this.#pending.length > 0) {
      const frame = queue.alloc();
      if (frame === NO_FRAME) break;
      const bytes = this.#pending[0]!;
      queue.memory.u8.set(bytes, frame);
      this.#frames[0] = frame;
      this.#lengths[0] = bytes.length;
      if (queue.txBatch(this.#frames, this.#lengths, 1) === 0) {
        queue.free(frame);
        break;
      }
      this.#pending.shift();
    }
    queue.kick();
  }

  /** Copies of what has arrived. */
  receive(): Buffer[] {
    const { queue } = this;
    const count = queue.rxBatch(this.#frames, this.#lengths, BATCH);
    const received: Buffer[] = [];
    for (let i = 0; i < count; i++) {
      const frame = this.#frames[i]!;
      received.push(Buffer.from(queue.memory.u8.slice(frame, frame + this.#lengths[i]!)));
      queue.free(frame);
    }
    return received;
  }

  close(): void {
    this.queue.close();
  }
}
