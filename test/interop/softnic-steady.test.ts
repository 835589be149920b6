/** A million packets through the software NIC: its garbage collector has nothing to do. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { NO_FRAME } from '../../src/device/nic.ts';
import { schedYield } from '../../src/ffi/process.ts';
import { writeTestFrame } from '../conformance/udp-frame.ts';
import { sleep } from '../support/until.ts';
import { ADDRESSES, Application, SoftNicProcess } from './softnic.harness.ts';

const PACKETS = 1_000_000;
const WARM_UP = 300_000;
const WINDOW = 128;
const BATCH = 64;
const COLLECT_ROUNDS_MAX = 400;
const TICK_NS = 1e7;
const DEADLINE_MS = 60_000;

/** Move `count` frames of `length` bytes from `a` to `b`; both are driven by this thread. */
function move(a: Application, b: Application, count: number, length: number): void {
  const frames = new Uint32Array(BATCH);
  const lengths = new Uint16Array(BATCH).fill(length);
  const received = new Uint32Array(BATCH);
  const receivedLengths = new Uint16Array(BATCH);
  const deadline = performance.now() + DEADLINE_MS;
  let sent = 0;
  let got = 0;
  while (got < count) {
    let wanted = Math.min(BATCH, count - sent, WINDOW - (sent - got));
    for (let i = 0; i < wanted; i++) {
      const frame = a.queue.alloc();
      if (frame === NO_FRAME) wanted = i;
      else frames[i] = frame;
    }
    for (let i = 0; i < wanted; i++) {
      writeTestFrame(a.queue.memory.u8, frames[i]!, length, ADDRESSES, 'a', 1);
    }
    const taken = wanted > 0 ? a.queue.txBatch(frames, lengths, wanted) : 0;
    for (let i = taken; i < wanted; i++) a.queue.free(frames[i]!);
    sent += taken;
    a.queue.kick();
    a.queue.reclaim(BATCH);
    const arrived = b.queue.rxBatch(received, receivedLengths, BATCH);
    for (let i = 0; i < arrived; i++) b.queue.free(received[i]!);
    got += arrived;
    if (arrived === 0) {
      schedYield();
      assert.ok(performance.now() < deadline, `${got} of ${count} after ${DEADLINE_MS} ms`);
    }
  }
}

/** Have the device collect the garbage of its start, which may be just short of a collection: requests make some. */
async function emptyYoungGeneration(nic: SoftNicProcess): Promise<void> {
  nic.output = '';
  for (let i = 0; i < COLLECT_ROUNDS_MAX; i++) {
    for (let n = 0; n < 50; n++) nic.request({ op: 'stats' });
    await sleep(5);
    if (nic.output.includes('Scavenge')) return;
  }
  assert.fail('the device never collected its garbage');
}

/** Have everything done by the clock: limits that these frames stay below, weights, a link rate, a coalesced doorbell. */
function pace(nic: SoftNicProcess): void {
  const most = { bitsPerSecond: 1e12, packetsPerSecond: 1e9 };
  const rate = { ...most, queue: null, weight: 1 };
  const requests = [
    { op: 'setRate', port: 1, rate: { ...rate, direction: 'send', weight: 3 } },
    { op: 'setRate', port: 1, rate: { ...rate, direction: 'send', queue: 0 } },
    { op: 'setRate', port: 2, rate: { ...rate, direction: 'receive' } },
    { op: 'setCoalescing', port: 2, coalescing: { queue: null, usecs: 50, frames: 16 } },
    { op: 'linkRate', limit: { ...most, packetsPerSecond: null } },
  ];
  for (const request of requests) assert.equal(nic.request(request).ok, true);
}

for (const [length, isPaced] of [
  [64, false],
  [1514, false],
  [64, true],
] as const) {
  const how = isPaced ? ', with limits' : '';
  test(`${PACKETS} frames of ${length} bytes without a collection${how}`, async (t) => {
    const nic = new SoftNicProcess([], ['--trace-gc']);
    t.after(() => nic.close());
    const a = Application.connect(nic, 1, 'a');
    const b = Application.connect(nic, 2, 'b');
    t.after(() => {
      a.close();
      b.close();
    });
    const cpuTicks = (): number => {
      const fields = fs.readFileSync(`/proc/${nic.child.pid}/stat`, 'utf8').split(' ');
      return Number(fields[13]) + Number(fields[14]);
    };
    if (isPaced) pace(nic);
    move(a, b, WARM_UP, length);
    await emptyYoungGeneration(nic);
    await sleep(100);
    nic.output = '';
    const ticks = cpuTicks();
    const started = performance.now();
    move(a, b, PACKETS, length);
    const seconds = (performance.now() - started) / 1000;
    const cpuNs = ((cpuTicks() - ticks) * TICK_NS) / PACKETS;
    await sleep(100);
    assert.equal(nic.output, '');
    assert.equal(nic.stats(2).rxPackets, WARM_UP + PACKETS);
    const rate = (PACKETS / seconds / 1e6).toFixed(2);
    t.diagnostic(`${rate} M/s, ${cpuNs.toFixed(0)} ns of the device's CPU a frame`);
  });
}
