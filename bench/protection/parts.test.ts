/** What is off is off, and what is on is on: a device made of each set of parts, and a driver that lies to it. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { Arena } from '../../src/ffi/arena.ts';
import { closeAll, closeFd, eventfd } from '../../src/ffi/fd.ts';
import { type Mapping, mapShared, memfdSealed } from '../../src/ffi/memory.ts';
import { SOCK_STREAM, sendMessage, socketPair } from '../../src/ffi/unix.ts';
import { NET_HEADER_LEN, splitLayout } from '../../src/ring/split-layout.ts';
import * as vu from '../../src/ring/vhost-user.ts';
import { FilterSet } from '../../src/softnic/match.ts';
import { Staging } from '../../src/softnic/offload.ts';
import { Pace } from '../../src/softnic/pace.ts';
import { Port } from '../../src/softnic/port.ts';
import { PARTS_WITHOUT, type PartsName } from './parts.ts';

const REGION = 1 << 20;
const RING_SIZE = 64;
const TRANSMIT = 1;
const MAC = 0x0200_0a00_0001;
const FRAME = 1 << 18;
const FRAME_LEN = 64;
/** VIRTIO_F_VERSION_1, VIRTIO_RING_F_EVENT_IDX, VHOST_USER_F_PROTOCOL_FEATURES. */
const FEATURES = 0x1_6000_0000n;
const layouts = [splitLayout(0, RING_SIZE), splitLayout(1 << 16, RING_SIZE)];

const arena = new Arena();
const staging = new Staging(arena);
let port: Port;
let memory: Mapping;
let client: number;
let view: DataView;

function say(request: number, payload: Uint8Array, fds: number[] = []): void {
  sendMessage(client, vu.encodeMessage(request, payload), fds);
  closeAll(fds);
  assert.equal(port.session!.onReadable(), null);
}

function connect(without: PartsName): void {
  port = new Port(arena, staging, new Pace(() => 0), {
    id: 1,
    mac: MAC,
    filters: new FilterSet(MAC, []),
    mtu: 1500,
    allowUnsealed: false,
    listenFd: -1,
    listenPath: '',
    parts: PARTS_WITHOUT[without],
  });
  const [ours, theirs] = socketPair(SOCK_STREAM);
  client = ours;
  port.connect(theirs, { arena, watchKick() {}, unwatchKick() {}, ringsChanged() {} });
  say(vu.REQ.SET_FEATURES, vu.encodeU64(FEATURES));
  const fd = memfdSealed('parts', REGION);
  memory = mapShared(fd, REGION);
  view = new DataView(memory.buffer);
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
}

/** Offer descriptor 0, of a frame at `address`, and see what the device makes of it. */
function offer(address: number, length = NET_HEADER_LEN + FRAME_LEN): void {
  const { desc, avail } = layouts[TRANSMIT]!;
  view.setBigUint64(desc, BigInt(address), true);
  view.setUint32(desc + 8, length, true);
  view.setUint16(avail + 2, 1, true);
}

/** What the switch is given: the first byte of each frame, read when it is checked and again when it is delivered. */
class Sink {
  readonly seen: [number, number][] = [];
  readonly #meanwhile: () => void;

  constructor(meanwhile: () => void = () => {}) {
    this.#meanwhile = meanwhile;
  }

  fromPort(_port: Port, at: number): void {
    const checked = arena.u8[at]!;
    this.#meanwhile();
    this.seen.push([checked, arena.u8[at]!]);
  }
}

const WITHOUT = Object.keys(PARTS_WITHOUT) as PartsName[];
const TRUSTING: readonly PartsName[] = ['descriptor checks', 'everything'];
const SHARING: readonly PartsName[] = ['private copy', 'everything'];

describe('a device without', () => {
  beforeEach(() => {
    arena.u8.fill(0, staging.at, staging.at + FRAME_LEN);
  });

  afterEach(() => {
    port.disconnect('the test is over');
    memory.release();
    closeFd(client);
  });

  for (const without of WITHOUT) {
    test(`${without}: a proper frame is taken, and given back`, () => {
      connect(without);
      view.setUint8(FRAME + NET_HEADER_LEN, 7);
      offer(FRAME);
      const sink = new Sink();
      assert.equal(port.poll(sink), 1);
      assert.deepEqual(sink.seen, [[7, 7]]);
      assert.equal(view.getUint16(layouts[TRANSMIT]!.used + 2, true), 1);
    });

    const trusts = TRUSTING.includes(without);
    test(`${without}: a descriptor outside the memory ${trusts ? 'is believed' : 'ends the queue'}`, () => {
      connect(without);
      offer(REGION);
      const sink = new Sink();
      assert.equal(port.poll(sink), trusts ? 1 : 0);
      port.refresh();
      assert.equal(port.state, trusts ? 'up' : 'broken');
      assert.equal(sink.seen.length, trusts ? 1 : 0);
    });

    test(`${without}: an index that jumps ${trusts ? 'is believed' : 'ends the queue'}`, () => {
      connect(without);
      offer(FRAME);
      view.setUint16(layouts[TRANSMIT]!.avail + 2, 2 * RING_SIZE, true);
      assert.equal(port.poll(new Sink()), trusts ? 64 : 0);
      port.refresh();
      assert.equal(port.state, trusts ? 'up' : 'broken');
    });

    const shares = SHARING.includes(without);
    test(`${without}: a frame that changes after its check is delivered ${shares ? 'changed' : 'as it was'}`, () => {
      connect(without);
      view.setUint8(FRAME + NET_HEADER_LEN, 7);
      offer(FRAME);
      const sink = new Sink(() => view.setUint8(FRAME + NET_HEADER_LEN, 8));
      assert.equal(port.poll(sink), 1);
      assert.deepEqual(sink.seen, [[7, shares ? 8 : 7]]);
    });
  }
});
