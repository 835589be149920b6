/**
 * The receiver of `arrakis bench doorbell`: how old a packet is when the application has it.
 *
 *   receiver.js vnic SPEC MODE [USECS FRAMES]   a VNIC; MODE is polling, doorbell or loop
 *   receiver.js udp ADDRESS                     a kernel UDP socket, blocking
 *   receiver.js eventfd                         an eventfd that a thread of its own rings
 *
 * - doorbell waits in poll(2), as a program of one thread would; loop is `vnic.poll`, in Node's event loop.
 * - It takes COUNT samples (ARRAKIS_BENCH_COUNT) and prints them as one JSON line (`Wakeups`).
 */
import { Worker } from 'node:worker_threads';
import { connect, type Vnic } from '../../src/arrakis/index.ts';
import { parseIpv4 } from '../../src/base/address.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { eventfd, POLLIN, pollOne, readFd, setNonBlocking } from '../../src/ffi/fd.ts';
import { bindUdp } from '../../src/ffi/inet.ts';
import { summarize } from '../stats.ts';
import { ageOfFrame, ageOfPayload, nowUs, PORT, READY, type Wakeups } from './stamp.ts';

const WARM_UP = 50;
const WAIT_MS = 1000;
const BATCH = 64;
const SAMPLES_DEFAULT = 1000;

class Samples {
  readonly #ages: Float64Array;
  #seen = 0;
  #beginUs = 0;
  #cpu = process.cpuUsage();

  constructor(count: number) {
    this.#ages = new Float64Array(count);
  }

  get done(): boolean {
    return this.#seen >= WARM_UP + this.#ages.length;
  }

  add(age: number): void {
    if (age < 0 || this.done) return;
    if (this.#seen === WARM_UP) {
      this.#beginUs = nowUs();
      this.#cpu = process.cpuUsage();
    }
    if (this.#seen >= WARM_UP) this.#ages[this.#seen - WARM_UP] = age;
    this.#seen++;
  }

  print(): void {
    const { user, system } = process.cpuUsage(this.#cpu);
    const cpu = (100 * (user + system)) / (nowUs() - this.#beginUs);
    const result: Wakeups = { ...summarize(this.#ages), count: this.#ages.length, cpu };
    process.stdout.write(`${JSON.stringify(result)}\n`);
  }
}

/** Take what is there; how many frames. */
function receiver(queue: NicQueue, samples: Samples): () => number {
  const frames = new Uint32Array(BATCH);
  const lengths = new Uint16Array(BATCH);
  return () => {
    const count = queue.rxBatch(frames, lengths, BATCH);
    for (let i = 0; i < count; i++) {
      samples.add(ageOfFrame(queue.memory.view, frames[i]!, lengths[i]!));
      queue.free(frames[i]!);
    }
    return count;
  };
}

async function overVnic(vnic: Vnic, mode: string, samples: Samples): Promise<void> {
  const { queue } = vnic;
  const receive = receiver(queue, samples);
  process.stdout.write(`${READY}\n`);
  if (mode === 'loop') {
    const loop = vnic.poll(() => {
      const count = receive();
      if (samples.done) loop.stop();
      return count;
    });
    await loop.done;
    return;
  }
  while (!samples.done) {
    if (receive() > 0 || mode === 'polling') continue;
    if (queue.arm()) pollOne(queue.doorbellFd, POLLIN, WAIT_MS);
    queue.disarm();
  }
}

async function onVnic(args: readonly string[], samples: Samples): Promise<void> {
  const [spec = '', mode = '', usecs = '0', frames = '0'] = args;
  const domain = await connect();
  try {
    const vnic = await domain.openVnic(spec);
    await vnic.setCoalescing({ usecs: Number(usecs), frames: Number(frames) });
    await overVnic(vnic, mode, samples);
  } finally {
    await domain.close();
  }
}

function onUdp(address: string, samples: Samples): void {
  const fd = bindUdp(parseIpv4(address), PORT);
  const payload = Buffer.alloc(2048);
  process.stdout.write(`${READY}\n`);
  while (!samples.done) if (readFd(fd, payload) > 0) samples.add(ageOfPayload(payload));
}

/** Another thread stamps shared memory and rings; this one sleeps in read(2). */
async function onEventfd(samples: Samples): Promise<void> {
  const fd = eventfd();
  setNonBlocking(fd, false);
  const shared = new SharedArrayBuffer(16);
  const stamp = new Float64Array(shared, 0, 1);
  const stop = new Int32Array(shared, 8, 1);
  const workerData = { fd, shared };
  const ringer = new Worker(new URL('./ringer.js', import.meta.url), { workerData });
  await new Promise((resolve) => ringer.once('online', resolve));
  process.stdout.write(`${READY}\n`);
  const count = Buffer.alloc(8);
  while (!samples.done) if (readFd(fd, count) === 8) samples.add(nowUs() - stamp[0]!);
  Atomics.store(stop, 0, 1);
  await ringer.terminate();
}

const [way = '', ...args] = process.argv.slice(2);
const samples = new Samples(Number(process.env.ARRAKIS_BENCH_COUNT ?? SAMPLES_DEFAULT));
if (way === 'vnic') await onVnic(args, samples);
else if (way === 'udp') onUdp(args[0] ?? '', samples);
else await onEventfd(samples);
samples.print();
