/**
 * Put this thread's `net`, `dgram` and all that stands on them on network interfaces. Node's classes are patched, not
 * objects: with the first interface, until the last is gone.
 */

import type { NicQueue } from '../device/nic.ts';
import type { Turn } from '../net/index.ts';
import type { Tcp } from '../net/tcp/api.ts';
import { type Part, parts } from './attachments.ts';
import { Host, type Stack } from './host.ts';
import { LocalTcp } from './local-tcp.ts';
import { type RouteConfig, Routes } from './routes.ts';
import { installTcp } from './tcp-handles.ts';
import { installTls } from './tls-bridge.ts';
import { installUdp, udpParts } from './udp-handles.ts';
import type { UdpStack } from './udp-socket.ts';

/** What drives the stack: `pollLoop`, or `Vnic.poll`. */
export type Driver = (
  turn: () => number,
  timeoutMs: () => number,
) => { wake(): void; stop(): void };

export interface AttachOptions {
  readonly net: UdpStack & { readonly tcp: Tcp };
  /** What drives `net`: `netTurn`. */
  readonly turn: Turn;
  readonly queue: Pick<NicQueue, 'memory'>;
  readonly config: RouteConfig;
  /** Milliseconds that never go back. */
  readonly nowMs: () => number;
  readonly drive: Driver;
}

/** What takes the patches out again. */
let undo: (() => void)[] = [];

/** Up to this length a loop copies faster than what makes a view first. */
const COPY_BYTES_MAX = 256;

/** How long `finish` waits for what is under way. */
const FINISH_MS_MAX = 250;

/** A program's sockets on an interface. */
export class Attachment {
  readonly host: Host;
  readonly #loop: ReturnType<Driver>;
  readonly #part: Part;
  #isClosed = false;

  constructor(options: AttachOptions) {
    const { net, turn, queue, config, nowMs } = options;
    let wake: () => void = () => {};
    const routes = new Routes(config);
    const local = new LocalTcp(routes.text, () => wake());
    const stack: Stack = {
      tcp: net.tcp,
      turn: () => turn.turn() + local.poll(),
      flush: turn.flush,
      timeoutMs: turn.timeoutMs,
    };
    this.host = new Host({ net: stack, routes, nowMs, wake: () => wake() });
    this.#loop = options.drive(
      () => this.host.turn(),
      () => this.host.timeoutMs(),
    );
    wake = () => this.#loop.wake();
    const region = Buffer.from(queue.memory.u8.buffer as ArrayBuffer);
    const source = {
      copy: (_frame: number, at: number, length: number, target: Uint8Array, to: number) => {
        if (length > COPY_BYTES_MAX) region.copy(target, to, at, at + length);
        else for (let i = 0; i < length; i++) target[to + i] = region[at + i]!;
      },
    };
    this.#part = { host: this.host, source, local };
    if (parts.length === 0) undo = [installTcp(), installTls(), installUdp()];
    parts.push(this.#part);
    udpParts.push({ host: this.host, net, region, ports: new Map() });
  }

  /** The device is gone for good, and the stack closed: tell the program. */
  gone(): void {
    setImmediate(() => this.host.turn());
  }

  /** Back to Node's own sockets for all that is made from now on. Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const at = parts.indexOf(this.#part);
    parts.splice(at, 1);
    udpParts.splice(at, 1);
    if (parts.length === 0) for (const each of undo.splice(0)) each();
    this.#loop.stop();
    this.host.close();
  }

  /** The process ends: see everything off, as well as a moment allows. */
  finish(): void {
    if (this.#isClosed) return;
    this.host.finish(FINISH_MS_MAX);
    this.close();
  }
}
