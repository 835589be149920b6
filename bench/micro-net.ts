/**
 * What the stack costs per packet: UDP echo by a whole NetInterface on a device that is nothing but arrays.
 *
 *   npm run build && node dist/bench/micro-net.js [--json]
 *   node --trace-gc dist/bench/micro-net.js --steady 1000000 192.168.0.1
 *
 * With `--steady COUNT PEER` it prints "steady" after the warm-up, echoes COUNT packets of 64 bytes from address PEER,
 * prints "done" and ends: no collection may stand between the two. A peer of 128.0.0.0 or above is one whose address
 * is no small integer.
 */
import { parseArgs } from 'node:util';
import { parseIpv4, parseMac } from '../src/base/address.ts';
import { assert } from '../src/base/assert.ts';
import { type FrameMemory, NIC_STATE, type NicQueue, newNicCounters } from '../src/device/nic.ts';
import { frameMemory } from '../src/memory/frame-memory.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { NetInterface } from '../src/net/interface.ts';
import * as ethernet from '../src/wire/ethernet.ts';
import * as ipv4 from '../src/wire/ipv4.ts';
import * as udp from '../src/wire/udp.ts';

const OUR_MAC = parseMac('02:00:00:00:00:02');
const OUR_IP = parseIpv4('10.0.0.2');
const PORT = 7;
const BATCH = 64;
const FRAME_SIZE = 2048;
const FRAMES = 1024;
const HEADERS = ethernet.HEADER_LEN + ipv4.HEADER_LEN + udp.HEADER_LEN;

/** Receives the same frames again and again, restored to requests by the two words that an echo swaps. */
class LoopQueue implements NicQueue {
  readonly driver = 'loop';
  readonly offloads = 0;
  readonly memory: FrameMemory;
  readonly frameLengthMax = 1514;
  readonly counters = newNicCounters();
  readonly doorbellFd = -1;
  readonly state = NIC_STATE.up;
  readonly #pool: FramePool;
  readonly #length: number;
  readonly #src: number;

  constructor(frameLength: number, peer: number) {
    const layout = { frameSize: FRAME_SIZE, headroom: 64, frameCount: FRAMES };
    this.memory = frameMemory(new ArrayBuffer(FRAME_SIZE * FRAMES), layout);
    this.#pool = new FramePool(this.memory, 0);
    this.#length = frameLength;
    this.#src = peer | 0;
    for (let i = 0; i < FRAMES; i++) this.#write(i * FRAME_SIZE + layout.headroom);
  }

  /** A request to our echo port, as the peer's stack would build it. */
  #write(frame: number): void {
    const { view, u8 } = this.memory;
    const payload = this.#length - HEADERS;
    for (let i = 0; i < payload; i++) u8[frame + HEADERS + i] = i * 7;
    ethernet.setType(view, frame, ethernet.TYPE_IPV4);
    this.#restore(frame);
    const at = frame + HEADERS - udp.HEADER_LEN;
    udp.emit(view, at, 1024, PORT, payload, this.#src, OUR_IP);
  }

  /** The headers that an echo changes. */
  #restore(frame: number): void {
    const view = this.memory.view;
    const ipAt = frame + ethernet.HEADER_LEN;
    const length = this.#length - HEADERS + udp.HEADER_LEN;
    ethernet.setDst(view, frame, 0x0200, 2);
    ethernet.setSrc(view, frame, 0x0200, 1);
    ipv4.emit(view, ipAt, length, 1, 64, ipv4.PROTOCOL_UDP, this.#src, OUR_IP);
    udp.setPorts(view, ipAt + ipv4.HEADER_LEN, 1024, PORT);
  }

  get framesAvailable(): number {
    return this.#pool.available;
  }

  rxBatch(frames: Uint32Array, lengths: Uint16Array, max: number): number {
    for (let i = 0; i < max; i++) {
      frames[i] = this.#pool.alloc();
      lengths[i] = this.#length;
      this.#restore(frames[i]!);
    }
    return max;
  }

  txBatch(frames: Uint32Array, _lengths: Uint16Array, count: number): number {
    for (let i = 0; i < count; i++) this.#pool.free(frames[i]!);
    return count;
  }

  reclaim(): number {
    return 0;
  }
  kick(): void {}
  alloc(): number {
    return this.#pool.alloc();
  }
  free(frame: number): void {
    this.#pool.free(frame);
  }

  retain(frame: number): void {
    this.#pool.retain(frame);
  }

  isShared(frame: number): boolean {
    return this.#pool.isShared(frame);
  }
  arm(): boolean {
    return false;
  }
  disarm(): void {}
  close(): void {}
}

interface Row {
  bench: string;
  system: string;
  metric: string;
  unit: string;
  value: number;
  params: { frameLength: number; answer: string };
}

function makeStack(frameLength: number, peer: number, answer: 'echo' | 'reply') {
  const queue = new LoopQueue(frameLength, peer);
  const net = new NetInterface({ queue, mac: OUR_MAC, address: OUR_IP, prefix: 24 });
  net.udp.bind(
    PORT,
    answer === 'echo'
      ? (frame, at, length) => void net.udp.echoInPlace(frame, at, length)
      : (frame, at, length) => void net.udp.replyInPlace(frame, at, length),
  );
  return { queue, net };
}

/** Nanoseconds for one packet of the device's own work: receive, restore, send. */
function deviceCost(queue: LoopQueue, turns: number): number {
  const frames = new Uint32Array(BATCH);
  const lengths = new Uint16Array(BATCH);
  const start = performance.now();
  for (let i = 0; i < turns; i++) {
    queue.txBatch(frames, lengths, queue.rxBatch(frames, lengths, BATCH));
  }
  return ((performance.now() - start) * 1e6) / (turns * BATCH);
}

/** Best of several runs, the device's own work taken off: other load on the machine only ever adds. */
function measure(frameLength: number, answer: 'echo' | 'reply'): Row {
  const { queue, net } = makeStack(frameLength, parseIpv4('10.0.0.1'), answer);
  const turns = 3000;
  let device = Number.POSITIVE_INFINITY;
  let whole = Number.POSITIVE_INFINITY;
  for (let run = 0; run < 15; run++) {
    device = Math.min(device, deviceCost(queue, turns));
    const start = performance.now();
    for (let i = 0; i < turns; i++) net.poll(1000 + i);
    whole = Math.min(whole, ((performance.now() - start) * 1e6) / (turns * BATCH));
  }
  assert(net.counters.rxUdp === net.counters.txFrames, 'every packet was echoed');
  const value = Math.round((whole - device) * 10) / 10;
  const params = { frameLength, answer };
  return {
    bench: 'micro-net',
    system: 'arrakis/extaris',
    metric: 'udp echo',
    unit: 'ns/packet',
    value,
    params,
  };
}

function steady(count: number, peer: number): void {
  const { net } = makeStack(64, peer, 'echo');
  for (let i = 0; i < 20_000; i++) net.poll(i);
  const before = net.counters.txFrames;
  process.stdout.write('steady\n');
  for (let i = 0; net.counters.txFrames - before < count; i++) net.poll(20_000 + i);
  process.stdout.write('done\n');
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'boolean' }, steady: { type: 'string' } },
});
if (values.steady !== undefined) {
  steady(Number(values.steady), parseIpv4(positionals[0] ?? '10.0.0.1'));
} else {
  const rows = [64, 1400].flatMap((length) => [measure(length, 'echo'), measure(length, 'reply')]);
  if (values.json === true) console.log(JSON.stringify(rows, null, 2));
  else {
    for (const { params, value } of rows) {
      console.log(`UDP ${params.answer}, ${params.frameLength} bytes: ${value} ns/packet`);
    }
  }
}
