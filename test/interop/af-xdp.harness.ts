/**
 * What the AF_XDP tests are written with: an interface and its far end in another namespace, a queue on it, and a
 * responder that answers UDP, ICMP echo and ARP straight on the frames.
 */
import type { ChildProcess } from 'node:child_process';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { type NicQueue, NO_FRAME } from '../../src/device/nic.ts';
import { type AttachOptions, XdpInterface, type XdpVnic } from '../../src/drivers/af-xdp/attach.ts';
import { type AfXdpQueue, openAfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import type { Filter } from '../../src/filter/boxes.ts';
import { type AddressRange, filterOfRange } from '../../src/filter/coverage.ts';
import type { Host } from '../support/frames.ts';
import { type ConnectOptions, connect, Namespace } from '../support/network.ts';

/** The interface under test, and its far end. */
export const HERE: Host & { text: string } = {
  mac: parseMac('02:00:00:00:0a:01'),
  ip: parseIpv4('10.9.0.1'),
  text: '10.9.0.1',
};
export const THERE: Host & { text: string } = {
  mac: parseMac('02:00:00:00:0a:02'),
  ip: parseIpv4('10.9.0.2'),
  text: '10.9.0.2',
};
export const INTERFACE = 'xdp0';
export const FAR_INTERFACE = 'xdp1';

export const GEOMETRY = { frameSize: 2048, frameCount: 512, ringSize: 128 } as const;
const BATCH = 64;

/** `flow('udp', '10.9.0.1', 7)`; all ports when none is given. */
export function flow(
  protocol: AddressRange['protocol'],
  address: string,
  portFirst = 0,
  portLast = portFirst === 0 ? 65535 : portFirst,
): Filter {
  const ip = parseIpv4(address);
  return filterOfRange({ protocol, first: ip, last: ip, portFirst, portLast });
}

/** The link, with everything that a test opens on it; `close` undoes it all. */
export class Lab {
  readonly far = new Namespace();
  readonly removeLink: () => void;
  #nic: XdpInterface | null = null;
  readonly #queues: AfXdpQueue[] = [];

  constructor(options: Partial<ConnectOptions> = {}) {
    const end = (name: string, host: typeof HERE) => ({
      name,
      ip: host.text,
      mac: host.mac.toString(16).padStart(12, '0').match(/../g)!.join(':'),
    });
    const link = connect(this.far, {
      local: end(INTERFACE, HERE),
      remote: end(FAR_INTERFACE, THERE),
      ...options,
    });
    this.removeLink = () => link.remove();
  }

  get nic(): XdpInterface {
    this.#nic ??= XdpInterface.open(INTERFACE);
    return this.#nic;
  }

  attach(
    kind: 'direct' | 'switched',
    filters: readonly Filter[],
    options: Partial<AttachOptions> = {},
  ): XdpVnic {
    const all: AttachOptions = { name: kind, filters, ...GEOMETRY, ...options };
    return kind === 'direct' ? this.nic.attachDirect(all) : this.nic.attachSwitched(all);
  }

  /** The application's half of queue `pair` of `vnic`, in this process. */
  open(vnic: XdpVnic, pair = 0): AfXdpQueue {
    const [region, ...sockets] = vnic.fds as [number, ...number[]];
    const queue = openAfXdpQueue(vnic.grant, { region, socket: sockets[pair]! }, pair);
    this.#queues.push(queue);
    return queue;
  }

  close(): void {
    for (const queue of this.#queues) queue.close();
    this.#nic?.close();
    this.removeLink();
    this.far.close();
  }
}

/** Send one frame. False when there is no room for it now. */
export function sendBytes(queue: NicQueue, bytes: Uint8Array): boolean {
  queue.reclaim(BATCH);
  const frame = queue.alloc();
  if (frame === NO_FRAME) return false;
  queue.memory.u8.set(bytes, frame);
  const taken = queue.txBatch(Uint32Array.of(frame), Uint16Array.of(bytes.length), 1);
  if (taken === 0) queue.free(frame);
  queue.kick();
  queue.reclaim(BATCH);
  return taken === 1;
}

/** Copies of the frames that wait at `queue`, which go back to the pool. */
export function receiveAll(queue: NicQueue): Buffer[] {
  const frames = new Uint32Array(BATCH);
  const lengths = new Uint16Array(BATCH);
  const received: Buffer[] = [];
  const count = queue.rxBatch(frames, lengths, BATCH);
  for (let i = 0; i < count; i++) {
    const start = frames[i]!;
    received.push(Buffer.from(queue.memory.u8.slice(start, start + lengths[i]!)));
    queue.free(start);
  }
  return received;
}

function swap(u8: Uint8Array, a: number, b: number, bytes: number): void {
  for (let i = 0; i < bytes; i++) {
    const kept = u8[a + i]!;
    u8[a + i] = u8[b + i]!;
    u8[b + i] = kept;
  }
}

/** Turn a request for us into its answer, in place. */
function answer(u8: Uint8Array, at: number, mac: number): void {
  swap(u8, at, at + 6, 6);
  const type = u8[at + 12]! * 256 + u8[at + 13]!;
  if (type === 0x0806) {
    // The sender becomes the target; what was asked for is the sender, at our MAC address.
    u8[at + 21] = 2;
    swap(u8, at + 22, at + 32, 10);
    for (let i = 0; i < 6; i++) {
      const octet = Math.floor(mac / 256 ** (5 - i)) & 255;
      u8[at + 22 + i] = octet;
      u8[at + 6 + i] = octet;
    }
    return;
  }
  swap(u8, at + 26, at + 30, 4);
  const l4 = at + 14 + (u8[at + 14]! & 15) * 4;
  if (u8[at + 23] === 17) swap(u8, l4, l4 + 2, 2);
  else if (u8[at + 23] === 1 && u8[l4] === 8) {
    // Echo request 8 to reply 0: the checksum of RFC 1071 grows by what the type lost.
    u8[l4] = 0;
    const sum = u8[l4 + 2]! * 256 + u8[l4 + 3]! + 0x0800;
    const folded = (sum & 0xffff) + (sum >>> 16);
    u8[l4 + 2] = folded >>> 8;
    u8[l4 + 3] = folded & 255;
  }
}

/** Answers everything that a queue receives. */
export class Responder {
  answered = 0;
  readonly #queue: NicQueue;
  readonly #mac: number;
  readonly #frames = new Uint32Array(BATCH);
  readonly #lengths = new Uint16Array(BATCH);

  constructor(queue: NicQueue, mac: number) {
    this.#queue = queue;
    this.#mac = mac;
  }

  /** One poll: frames answered. */
  turn(): number {
    const queue = this.#queue;
    const count = queue.rxBatch(this.#frames, this.#lengths, BATCH);
    for (let i = 0; i < count; i++) answer(queue.memory.u8, this.#frames[i]!, this.#mac);
    if (count > 0) {
      const taken = queue.txBatch(this.#frames, this.#lengths, count);
      for (let i = taken; i < count; i++) queue.free(this.#frames[i]!);
      this.answered += count;
    }
    queue.kick();
    queue.reclaim(2 * BATCH);
    return count;
  }

  /** Answer until `isDone`, with the event loop turning; rejects after `timeoutMs`. */
  async serve(isDone: () => boolean, timeoutMs = 10_000): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (!isDone()) {
      if (performance.now() > deadline) throw new Error(`clients still run after ${timeoutMs} ms`);
      for (let i = 0; i < 50; i++) this.turn();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/** Output and exit of a child. */
export class Outcome {
  text = '';
  code: number | null = null;

  constructor(child: ChildProcess) {
    child.stdout?.on('data', (chunk) => {
      this.text += chunk;
    });
    child.stderr?.on('data', (chunk) => {
      this.text += chunk;
    });
    child.on('exit', (code) => {
      this.code = code ?? -1;
    });
  }

  readonly ended = (): boolean => this.code !== null;
}

/** A UDP client on kernel sockets: sends `count` datagrams of growing size, one at a time, expects each back. */
const UDP_CLIENT = `
const [address, port, count] = process.argv.slice(1);
const socket = require('node:dgram').createSocket('udp4');
let sent = 0;
const payload = () => Buffer.alloc(sent % 1400 + 1, String(sent));
const send = () => socket.send(payload(), Number(port), address);
socket.on('message', (data) => {
  if (!data.equals(payload())) { console.log('wrong answer', sent); process.exit(1); }
  if (++sent === Number(count)) { console.log('all', sent); process.exit(0); }
  send();
});
setTimeout(() => { console.log('only', sent); process.exit(1); }, 8000);
send();
`;

export function udpClient(from: Namespace, address: string, port: number, count: number): Outcome {
  const args = ['-e', UDP_CLIENT, address, String(port), String(count)];
  return new Outcome(from.spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] }));
}
