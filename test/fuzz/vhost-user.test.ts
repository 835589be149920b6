/**
 * The device's two hostile inputs, mutated from fixed seeds: vhost-user messages, and the rings in shared memory.
 * Nothing may throw, hang, leak a descriptor or a mapping, or touch a byte outside the driver's own memory.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../../src/ffi/arena.ts';
import { closeFd, eventfd, openFds, setNonBlocking } from '../../src/ffi/fd.ts';
import { memfdSealed } from '../../src/ffi/memory.ts';
import { signalPeer } from '../../src/ffi/peer-eventfd.ts';
import { receiveMessage, SOCK_STREAM, sendMessage, socketPair } from '../../src/ffi/unix.ts';
import { GuestMemory, SplitDevice, type Violation } from '../../src/ring/split-device.ts';
import { splitLayout } from '../../src/ring/split-layout.ts';
import { type BackendHost, VhostBackend } from '../../src/ring/vhost-backend.ts';
import * as vu from '../../src/ring/vhost-user.ts';
import { Random } from '../support/random.ts';
import { until } from '../support/until.ts';

const MESSAGES = 100_000;
const RING_STATES = 100_000;
const SEEDS = [1, 20141006];
const REGION = 64 * 1024;
const RING_SIZE = 16;

/** Numbers that break things more often than others do. */
const EDGES = [0, 1, 2, 7, 15, 16, 17, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000];
EDGES.push(0xfffffffe, 0xffffffff, REGION - 1, REGION, REGION + 1);

class Host implements BackendHost {
  readonly arena = new Arena();
  readonly kicks = new Set<number>();
  watchKick(fd: number): void {
    assert.equal(this.kicks.has(fd), false);
    this.kicks.add(fd);
  }
  unwatchKick(fd: number): void {
    assert.equal(this.kicks.delete(fd), true);
  }
  ringsChanged(): void {}
}

/** A session's messages as a good client sends them, in its order; one that the dice choose is spoilt. */
class HostileClient {
  readonly #random: Random;
  readonly #memory: number;
  readonly #bell: number;
  #step = 0;

  constructor(random: Random, memory: number, bell: number) {
    this.#random = random;
    this.#memory = memory;
    this.#bell = bell;
  }

  next(): { message: Buffer; fds: number[] } {
    const random = this.#random;
    const step = random.oneIn(8) ? random.below(12) : this.#step++ % 12;
    let { request, payload, fds } = this.#good(step, random.below(2));
    if (random.oneIn(16)) request = random.below(48);
    if (random.oneIn(8)) fds = random.pick([[], [this.#bell], [this.#memory, this.#memory]]);
    const message = vu.encodeMessage(request, payload, random.oneIn(4) ? vu.FLAG_NEED_REPLY : 0);
    if (random.oneIn(6)) this.#spoil(message);
    if (random.oneIn(64))
      return { message: message.subarray(0, random.below(message.length)), fds };
    return { message, fds };
  }

  #spoil(message: Buffer): void {
    const random = this.#random;
    for (let n = 1 + random.below(3); n > 0; n--) {
      if (random.oneIn(2)) message[random.below(message.length)] = random.below(256);
      else message.writeUInt32LE(random.pick(EDGES), random.below(message.length / 4) * 4);
    }
  }

  #good(step: number, index: number): { request: number; payload: Buffer; fds: number[] } {
    const { desc, avail, used } = splitLayout(index * 4096, RING_SIZE);
    const user = 0x7f00_0000_0000;
    const region = { guestAddress: 0, userAddress: user, size: REGION, offset: 0 };
    const state = (num: number): Buffer => vu.encodeVringState({ index, num });
    const parts = { desc: user + desc, avail: user + avail, used: user + used };
    const bell = { payload: vu.encodeU64(index), fds: [this.#bell] };
    switch (step) {
      case 0:
        return { request: vu.REQ.SET_PROTOCOL_FEATURES, payload: vu.encodeU64(8), fds: [] };
      case 1:
        return { request: vu.REQ.SET_FEATURES, payload: vu.encodeU64(0x1_6000_0000n), fds: [] };
      case 2: {
        const payload = vu.encodeMemTable([region]);
        return { request: vu.REQ.SET_MEM_TABLE, payload, fds: [this.#memory] };
      }
      case 3:
        return { request: vu.REQ.SET_VRING_NUM, payload: state(RING_SIZE), fds: [] };
      case 4:
        return { request: vu.REQ.SET_VRING_BASE, payload: state(0), fds: [] };
      case 5: {
        const payload = vu.encodeVringAddr({ index, flags: 0, ...parts, log: 0 });
        return { request: vu.REQ.SET_VRING_ADDR, payload, fds: [] };
      }
      case 6:
        return { request: vu.REQ.SET_VRING_CALL, ...bell };
      case 7:
        return { request: vu.REQ.SET_VRING_ERR, ...bell };
      case 8:
        return { request: vu.REQ.SET_VRING_KICK, ...bell };
      case 9:
        return { request: vu.REQ.SET_VRING_ENABLE, payload: state(1), fds: [] };
      case 10:
        return {
          request: vu.REQ.ADD_MEM_REG,
          payload: vu.encodeMemReg(region),
          fds: [this.#memory],
        };
      default:
        return { request: vu.REQ.GET_VRING_BASE, payload: state(0), fds: [] };
    }
  }
}

for (const seed of SEEDS) {
  test(`${MESSAGES} mutated messages, seed ${seed}`, async () => {
    const random = new Random(seed);
    const host = new Host();
    const memory = memfdSealed('fuzz', REGION);
    const bell = eventfd();
    // What the bell-ringer keeps open for good is not a leak.
    signalPeer(bell);
    const fdsBefore = openFds().length;
    const options = { features: 0n, queueCount: 2, queueSizeMax: 256, allowUnsealed: false };
    const reply = Buffer.alloc(4096);
    let sessions = 0;
    let started = 0;
    for (let sent = 0; sent < MESSAGES; sessions++) {
      const [client, device] = socketPair(SOCK_STREAM);
      setNonBlocking(client);
      const session = new VhostBackend(device, host, options);
      const hostile = new HostileClient(random, memory, bell);
      let ended: string | null = null;
      while (ended === null && sent < MESSAGES) {
        const { message, fds } = hostile.next();
        sendMessage(client, message, fds);
        sent++;
        ended = session.onReadable();
        for (const index of [0, 1]) {
          const ring = session.ring(index);
          if (ring === null) continue;
          started++;
          // What the ring now holds is whatever was there: it must be bounded, and may break it.
          const count = ring.available();
          for (let i = 0; i < count && ring.take() >= 0; i++) ring.complete(0);
          ring.publish();
          if (ring.violation !== 0) session.breakRing(index, ring.violation as Violation);
        }
        // Replies are read now and then, as a slow client would.
        if (random.oneIn(4)) receiveMessage(client, reply, 0);
      }
      session.close();
      closeFd(client);
      assert.equal(host.kicks.size, 0);
      assert.equal(host.arena.mappedBytes, 0);
    }
    // Sockets with something unread are closed by a thread of their own.
    await until(() => openFds().length <= fdsBefore, 5000, 'no descriptor is left');
    assert.ok(sessions > 1000 && started > 1000, `${sessions} sessions, ${started} rings started`);
    closeFd(memory);
    closeFd(bell);
  });
}

for (const seed of SEEDS) {
  test(`${RING_STATES} ring states, seed ${seed}`, () => {
    const random = new Random(seed);
    const arena = new Arena();
    const guard = arena.mapPrivate(REGION);
    const at = arena.mapPrivate(REGION);
    const guardAfter = arena.mapPrivate(REGION);
    const memory = new GuestMemory([
      { guestAddress: 0x1000, userAddress: 0, size: REGION / 2, offset: 0, at },
      { guestAddress: 2 ** 33, userAddress: 0, size: REGION / 2, offset: 0, at: at + REGION / 2 },
    ]);
    const layout = splitLayout(0, RING_SIZE);
    const violations = new Map<number, number>();
    let chains = 0;
    for (let state = 0; state < RING_STATES; state++) {
      writeRing(random, arena, at, layout);
      const place = { desc: at + layout.desc, avail: at + layout.avail, used: at + layout.used };
      const base = random.oneIn(4) ? random.below(65536) : 0;
      const ring = new SplitDevice(arena, memory, {
        ...place,
        size: RING_SIZE,
        base,
        eventIdx: random.oneIn(2),
      });
      const count = ring.available();
      assert.ok(count <= RING_SIZE);
      for (let i = 0; i < count; i++) {
        const total = ring.take();
        if (total < 0) break;
        chains++;
        checkChain(ring, at, total);
        ring.complete(total);
      }
      ring.publish();
      ring.arm();
      violations.set(ring.violation, (violations.get(ring.violation) ?? 0) + 1);
    }
    for (const start of [guard, guardAfter]) {
      assert.ok(arena.u8.subarray(start, start + REGION).every((byte) => byte === 0));
    }
    assert.ok(arena.u8.subarray(at + layout.end, at + REGION).every((byte) => byte === 0));
    assert.ok(chains > 1000 && violations.size === 7, `${chains} chains, ${[...violations]}`);
  });
}

/** Mostly a sensible ring, so that the deep checks are reached, with a few fields from the edges. */
function writeRing(
  random: Random,
  arena: Arena,
  at: number,
  { desc, avail }: { desc: number; avail: number },
): void {
  const wild = random.below(4);
  for (let i = 0; i < RING_SIZE; i++) {
    const word = (at + desc) / 4 + i * 4;
    const odd = wild > 0 && random.oneIn(8);
    arena.u32[word] = odd ? random.pick(EDGES) : 0x1000 + random.below(0x4000);
    arena.u32[word + 1] = odd ? random.pick([0, 1, 2, 3, 0xffffffff]) : 0;
    arena.u32[word + 2] = odd && random.oneIn(2) ? random.pick(EDGES) : random.below(2048);
    const next = random.oneIn(12) && wild > 1 ? random.below(65536) : random.below(RING_SIZE);
    arena.u32[word + 3] = (random.below(odd && wild > 2 ? 8 : 3) | (next << 16)) >>> 0;
    arena.u16[(at + avail) / 2 + 2 + i] = random.oneIn(32)
      ? random.below(65536)
      : random.below(RING_SIZE);
  }
  arena.u16[(at + avail) / 2] = random.below(2);
  arena.u16[(at + avail) / 2 + 1] = random.oneIn(8)
    ? random.below(65536)
    : random.below(RING_SIZE + 1);
}

function checkChain(ring: SplitDevice, at: number, total: number): void {
  let sum = 0;
  assert.ok(ring.segmentCount >= 1 && ring.segmentCount <= RING_SIZE);
  assert.ok(ring.readableCount >= 0 && ring.readableCount <= ring.segmentCount);
  for (let i = 0; i < ring.segmentCount; i++) {
    const start = ring.segmentAt[i]!;
    const length = ring.segmentLength[i]!;
    const half = start < at + REGION / 2 ? at : at + REGION / 2;
    assert.ok(start >= half && start + length <= half + REGION / 2);
    sum += length;
  }
  assert.equal(sum, total);
}
