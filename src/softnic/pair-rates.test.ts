/** Limits and weights of the queue pairs of one port, with a driver that is played here and always has frames. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { DROP } from '../device/drops.ts';
import { UNLIMITED } from '../device/rate.ts';
import { Arena } from '../ffi/arena.ts';
import { closeAll, closeFd, eventfd } from '../ffi/fd.ts';
import { type Mapping, mapShared, memfdSealed } from '../ffi/memory.ts';
import { SOCK_STREAM, sendMessage, socketPair } from '../ffi/unix.ts';
import { splitLayout } from '../ring/split-layout.ts';
import * as vu from '../ring/vhost-user.ts';
import { FilterSet } from './match.ts';
import { Staging } from './offload.ts';
import { Pace } from './pace.ts';
import { Port } from './port.ts';

const REGION = 1 << 20;
const RING_SIZE = 256;
const QUEUES = 4;
const TRANSMIT = [1, 3];
const MAC = 0x0200_0a00_0001;
/** Virtio's header and a frame of 500 bytes. */
const CHAIN = 512;
const BUFFERS = 1 << 19;

const arena = new Arena();
const staging = new Staging(arena);
const layouts = Array.from({ length: QUEUES }, (_, i) => splitLayout(i << 15, RING_SIZE));
let nowUs = 0;
const pace = new Pace(() => nowUs);
const taken = [0, 0];
const sink = { fromPort(): void {} };
let port: Port;
let memory: Mapping;
let client: number;

function say(request: number, payload: Uint8Array, fds: number[] = []): void {
  sendMessage(client, vu.encodeMessage(request, payload), fds);
  closeAll(fds);
  assert.equal(port.session!.onReadable(), null);
}

beforeEach(() => {
  nowUs = 0;
  port = new Port(arena, staging, pace, {
    id: 1,
    mac: MAC,
    filters: new FilterSet(MAC, []),
    mtu: 1500,
    pairs: 2,
    allowUnsealed: false,
    listenFd: -1,
    listenPath: '',
  });
  const [ours, theirs] = socketPair(SOCK_STREAM);
  client = ours;
  port.connect(theirs, { arena, watchKick() {}, unwatchKick() {}, ringsChanged() {} });
  const fd = memfdSealed('port', REGION);
  memory = mapShared(fd, REGION);
  say(vu.REQ.SET_FEATURES, vu.encodeU64(0x1_6000_0000n));
  const region = { guestAddress: 0, userAddress: 0, size: REGION, offset: 0 };
  say(vu.REQ.SET_MEM_TABLE, vu.encodeMemTable([region]), [fd]);
  for (const [index, { desc, avail, used }] of layouts.entries()) {
    const addr = { index, flags: 0, desc, avail, used, log: 0 };
    say(vu.REQ.SET_VRING_NUM, vu.encodeVringState({ index, num: RING_SIZE }));
    say(vu.REQ.SET_VRING_ADDR, vu.encodeVringAddr(addr));
    say(vu.REQ.SET_VRING_KICK, vu.encodeU64(index), [eventfd()]);
    say(vu.REQ.SET_VRING_ENABLE, vu.encodeVringState({ index, num: 1 }));
    const view = new DataView(memory.buffer);
    for (let i = 0; i < RING_SIZE; i++) {
      view.setBigUint64(desc + i * 16, BigInt(BUFFERS), true);
      view.setUint32(desc + i * 16 + 8, CHAIN, true);
      view.setUint16(avail + 4 + i * 2, i, true);
    }
  }
  port.refresh();
  assert.equal(port.state, 'up');
});

afterEach(() => {
  port.disconnect('the test is over');
  closeFd(client);
  memory.release();
});

/** Chains of transmit queue `pair` that the device has ended so far, as a 16-bit count. */
const ended = (pair: number): number =>
  new DataView(memory.buffer).getUint16(layouts[TRANSMIT[pair]!]!.used + 2, true);

/** Poll `turns` times, each `stepUs` after the last, with both rings full: chains of each pair. */
function greedy(turns: number, stepUs: number): number[] {
  const view = new DataView(memory.buffer);
  taken.fill(0);
  for (let turn = 0; turn < turns; turn++) {
    nowUs += stepUs;
    pace.tick();
    for (const pair of [0, 1]) {
      const { avail } = layouts[TRANSMIT[pair]!]!;
      view.setUint16(avail + 2, (ended(pair) + RING_SIZE) & 0xffff, true);
    }
    const before = [ended(0), ended(1)];
    port.poll(sink);
    for (const pair of [0, 1]) taken[pair]! += (ended(pair) - before[pair]!) & 0xffff;
  }
  return taken;
}

const set = (queue: number | null, rate: object): void =>
  port.setRate({ ...UNLIMITED, queue, direction: 'send', ...rate });

test('pairs of one weight take turns', () => {
  const [a, b] = greedy(200, 0) as [number, number];
  assert.ok(a > 1000 && Math.abs(a - b) <= 64, `${a} ${b}`);
});

test('pairs of different weights share by weight', () => {
  set(1, { weight: 3 });
  const [a, b] = greedy(1000, 0) as [number, number];
  assert.ok(Math.abs(b / a - 3) < 0.05, `${a} ${b}`);
  set(1, {});
  const [c, d] = greedy(200, 0) as [number, number];
  assert.ok(Math.abs(c - d) <= 64, 'and take turns again');
});

test('a pair has its own limit, both have that of the VNIC', () => {
  set(0, { packetsPerSecond: 1000 });
  const [a, b] = greedy(10_000, 100) as [number, number];
  assert.ok(Math.abs(a - 1000) <= 11, `${a}`);
  assert.ok(b > 100_000, `${b}`);
  set(null, { packetsPerSecond: 3000 });
  const [c, d] = greedy(10_000, 100) as [number, number];
  assert.ok(c <= 1011, `${c}`);
  assert.ok(Math.abs(c + d - 3000) <= 31, `${c} ${d}`);
  assert.ok(port.sendWaitUs() > 0 && !port.isReady());
  set(null, {});
  set(0, {});
  assert.equal(port.isTimed, false);
  assert.equal(port.sendWaitUs(), 0);
});

test('a budget of bytes ends a turn after the frame that reaches it', () => {
  greedy(1, 0);
  assert.equal(port.serve(sink, 1), 500);
  assert.equal(port.serve(sink, 1001), 1500);
  set(1, { weight: 2 });
  assert.ok(port.serve(sink, 1001) >= 1001);
});

test('a chain that claims more than a frame has is charged as the longest frame', () => {
  const { desc } = layouts[TRANSMIT[0]!]!;
  const view = new DataView(memory.buffer);
  for (let i = 0; i < RING_SIZE; i++) view.setUint32(desc + i * 16 + 8, REGION - BUFFERS, true);
  greedy(1, 0);
  assert.equal(port.drops[DROP.tooLong]! > 0, true);
  assert.ok(port.serve(sink, 1) <= port.frameLengthMax, 'of what all ports share');
  set(null, { bitsPerSecond: 1e6 });
  greedy(1, 0);
  const frameUs = (port.frameLengthMax * 8e6) / 1e6;
  assert.ok(port.sendWaitUs() > 0 && port.sendWaitUs() <= frameUs, `${port.sendWaitUs()}`);
});
