/** One port and a driver that is played here: how much of a turn it gets. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Arena } from '../ffi/arena.ts';
import { closeAll, closeFd, eventfd } from '../ffi/fd.ts';
import { type Mapping, mapShared, memfdSealed } from '../ffi/memory.ts';
import { SOCK_STREAM, sendMessage, socketPair } from '../ffi/unix.ts';
import { F_NEEDS_CSUM, GSO_TCPV4 } from '../ring/net-header.ts';
import { DESC_F_NEXT, DESC_F_WRITE, splitLayout } from '../ring/split-layout.ts';
import * as vu from '../ring/vhost-user.ts';
import { FilterSet, FrameFields } from './match.ts';
import { Offload, Staging } from './offload.ts';
import { Pace } from './pace.ts';
import { Port } from './port.ts';

const REGION = 1 << 20;
const RING_SIZE = 1024;
const RECEIVE = 0;
const TRANSMIT = 1;
const MAC = 0x0200_0a00_0001;
const CHAIN_MAX = 64;
const TURN_DESCRIPTORS_MAX = 256;
const layouts = [splitLayout(0, RING_SIZE), splitLayout(1 << 16, RING_SIZE)];

const arena = new Arena();
const staging = new Staging(arena);
const sink = { fromPort(): void {} };
let port: Port;
let memory: Mapping;
let client: number;
/** How often the session has changed rings or memory. */
let changes = 0;

function say(request: number, payload: Uint8Array, fds: number[] = []): void {
  sendMessage(client, vu.encodeMessage(request, payload), fds);
  closeAll(fds);
  assert.equal(port.session!.onReadable(), null);
}

beforeEach(() => {
  port = new Port(arena, staging, new Pace(() => 0), {
    id: 1,
    mac: MAC,
    filters: new FilterSet(MAC, []),
    mtu: 1500,
    allowUnsealed: false,
    listenFd: -1,
    listenPath: '',
  });
  const [ours, theirs] = socketPair(SOCK_STREAM);
  client = ours;
  port.connect(theirs, { arena, watchKick() {}, unwatchKick() {}, ringsChanged: () => changes++ });
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
  }
  port.refresh();
  assert.equal(port.state, 'up');
});

afterEach(() => {
  port.disconnect('the test is over');
  memory.release();
  closeFd(client);
});

/** Offer the same chain of `length` descriptors of `bytes` each, as often as the ring has entries. */
function offerChains(length: number, queue = TRANSMIT, bytes = 1): void {
  const { desc, avail } = layouts[queue]!;
  const view = new DataView(memory.buffer);
  for (let i = 0; i < length; i++) {
    const at = desc + 16 * i;
    view.setBigUint64(at, BigInt(REGION - 4096), true);
    view.setUint32(at + 8, bytes, true);
    const flags = (i + 1 < length ? DESC_F_NEXT : 0) | (queue === RECEIVE ? DESC_F_WRITE : 0);
    view.setUint16(at + 12, flags, true);
    view.setUint16(at + 14, i + 1, true);
  }
  view.setUint16(avail + 2, RING_SIZE, true);
}

test('a client that changes its memory all the time is heard once a look, and all of it in the end', () => {
  const table = vu.encodeMemTable(
    Array.from({ length: 8 }, (_, i) => {
      const at = i * 65_536;
      return { guestAddress: at, userAddress: at, size: 65_536, offset: at };
    }),
  );
  const fd = memfdSealed('port', REGION);
  changes = 0;
  for (let i = 0; i < 5; i++) {
    sendMessage(client, vu.encodeMessage(vu.REQ.SET_MEM_TABLE, table), Array(8).fill(fd));
  }
  closeFd(fd);
  for (let look = 1; look <= 5; look++) {
    assert.equal(port.session!.onReadable(), null);
    assert.equal(changes, look);
  }
});

test('chains of many descriptors end the turn of their port early', () => {
  offerChains(CHAIN_MAX);
  const taken = port.poll(sink);
  assert.ok(taken > 0 && taken * CHAIN_MAX <= TURN_DESCRIPTORS_MAX, `${taken} chains in a turn`);
  assert.equal(port.poll(sink), taken, 'the next turn goes on');
});

test('short chains are taken by the batch', () => {
  offerChains(2);
  assert.equal(port.poll(sink), 64);
});

test('a longer chain breaks the queue', () => {
  offerChains(CHAIN_MAX + 1);
  assert.equal(port.poll(sink), 0);
  port.refresh();
  assert.deepEqual([port.state, port.reason], ['broken', 'longChain']);
});

describe('receiving', () => {
  const plain = new Offload(arena, staging);
  const deliver = (): void => port.deliver(staging.at, 60, new FrameFields(), plain);

  test('a chain of more descriptors than a frame takes breaks the queue: each costs the others a walk', () => {
    offerChains(20, RECEIVE, 100);
    deliver();
    assert.equal(port.stats().rxPackets, 1);
    offerChains(21, RECEIVE, 100);
    deliver();
    port.refresh();
    assert.deepEqual([port.state, port.reason], ['broken', 'longChain']);
  });

  test('a receiver that takes no segment is offered no more of them', () => {
    const { view, base, at } = staging;
    offerChains(20, RECEIVE, 1);
    const frame = at - base;
    view.setUint16(frame + 12, 0x0800);
    view.setUint8(frame + 14, 0x45);
    view.setUint16(frame + 16, 60_000 - 14);
    view.setUint8(frame + 23, 6);
    view.setUint8(frame + 46, 0x50);
    const offload = new Offload(arena, staging);
    Object.assign(offload.header, {
      flags: F_NEEDS_CSUM,
      gsoType: GSO_TCPV4,
      gsoSize: 256,
      checksumStart: 34,
      checksumOffset: 16,
    });
    const fields = new FrameFields();
    assert.equal(fields.parse(view, frame, 60_000), 0);
    assert.ok(offload.check(fields, at, 60_000, 1514));
    port.deliver(at, 60_000, fields, offload);
    assert.deepEqual(port.stats().drops, { tooLong: 1 });
    offload.header.gsoSize = 255;
    assert.ok(!offload.check(fields, at, 60_000, 1514), 'too many segments');
  });
});
