/**
 * Limits and coalesced doorbells of AF_XDP VNICs, by the kernel's clock and ours: what is beyond a limit is dropped and
 * counted, in the guard (sent) and in the steer program (received). Needs root.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { parseIpv4 } from '../../src/base/address.ts';
import { ArrakisError } from '../../src/base/errors.ts';
import { flowHash, pairOfHash } from '../../src/device/flow-hash.ts';
import { BURST_US, type RateLimit, UNLIMITED } from '../../src/device/rate.ts';
import type { XdpVnic } from '../../src/drivers/af-xdp/attach.ts';
import type { AfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import { linkBitsPerSecond } from '../../src/ffi/ethtool.ts';
import { closeFd, POLLIN, pollOne, writeFd } from '../../src/ffi/fd.ts';
import { napiDeferrals } from '../../src/ffi/napi.ts';
import { requireLink } from '../../src/ffi/netlink/index.ts';
import { openPacketSocket } from '../../src/ffi/packet.ts';
import { type Host, udpFrame } from '../support/frames.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';
import { FAR_INTERFACE, flow, HERE, Lab, receiveAll, sendBytes, THERE } from './af-xdp.harness.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const PORT = 7;
/** What the veth driver says of itself. */
const VETH_BITS_PER_SECOND = 1e10;
const ATTEMPTS = 8;
const WINDOW_MS = 1000;
const TURN_MS = 2;
const SECOND: Host = { mac: HERE.mac, ip: parseIpv4('10.9.0.40') };

/** A frame of `length` bytes. */
const frame = (from: Host, to: Host, length: number): Uint8Array =>
  udpFrame({ ...from, port: PORT }, { ...to, port: PORT }, Buffer.alloc(length - 42, 'r'));

const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;

describe('AF_XDP rates', { skip }, () => {
  let lab: Lab;
  const closing: (() => void)[] = [];
  beforeEach(() => {
    lab = new Lab();
  });
  afterEach(() => {
    for (const close of closing.splice(0)) close();
    lab.close();
  });

  /** Frames written at the far end arrive at the interface from the wire. */
  function wire(): (bytes: Uint8Array) => void {
    const fd = lab.far.run(() => openPacketSocket(requireLink(FAR_INTERFACE).index));
    closing.push(() => closeFd(fd));
    return (bytes) => void writeFd(fd, bytes);
  }

  /**
   * Offer far more than `limit` allows for a while: `passed` tells what came through, never more than that, and the rest of
   * what was offered is counted as beyond the limit. No less either, when this test has its processor.
   */
  async function assertLimited(
    vnic: XdpVnic,
    perSecond: number,
    offer: () => number,
    passed: () => number,
  ): Promise<void> {
    let rate = 0;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const before = { passed: passed(), drops: vnic.counters().drops.rateExceeded ?? 0 };
      const begin = performance.now();
      let offered = 0;
      while (performance.now() - begin < WINDOW_MS) {
        offered += offer();
        await sleep(TURN_MS);
      }
      const seconds = (performance.now() - begin) / 1000;
      const got = (): number => passed() - before.passed;
      const dropped = (): number => (vnic.counters().drops.rateExceeded ?? 0) - before.drops;
      await until(() => got() + dropped() === offered, 5000, 'every frame is counted');
      rate = got() / seconds;
      const burst = (perSecond * BURST_US) / 1e6 + 1;
      assert.ok(got() <= perSecond * 1.02 * seconds + burst, `${rate} of ${perSecond} packets/s`);
      if (rate >= 0.95 * perSecond) return;
    }
    assert.fail(`${rate} packets/s, and not ${perSecond}, ${ATTEMPTS} times`);
  }

  const LIMITS: [string, number, RateLimit, number][] = [
    ['64-byte frames by bits', 64, { bitsPerSecond: 1_024_000, packetsPerSecond: null }, 2000],
    ['1500-byte frames by bits', 1500, { bitsPerSecond: 24e6, packetsPerSecond: null }, 2000],
    ['1500-byte frames by packets', 1500, { bitsPerSecond: 1e9, packetsPerSecond: 2000 }, 2000],
  ];

  for (const [what, length, limit, perSecond] of LIMITS) {
    test(`what a switched VNIC sends: ${what}`, async () => {
      const vnic = lab.attach('switched', [flow('udp', HERE.text, PORT)]);
      const queue = lab.open(vnic);
      vnic.setLimit('send', limit);
      const bytes = frame(HERE, THERE, length);
      const offer = (): number => {
        let sent = 0;
        for (let i = 0; i < 20; i++) if (sendBytes(queue, bytes)) sent++;
        return sent;
      };
      await assertLimited(vnic, perSecond, offer, () => vnic.counters().txPackets);
      vnic.setLimit('send', UNLIMITED);
      const { txPackets } = vnic.counters();
      let sent = 0;
      for (let i = 0; i < 5; i++) sent += offer();
      await until(() => vnic.counters().txPackets === txPackets + sent);
    });

    for (const kind of ['switched', 'direct'] as const) {
      test(`what a ${kind} VNIC receives: ${what}`, async () => {
        const vnic = lab.attach(kind, [flow('udp', HERE.text, PORT)]);
        const queue = lab.open(vnic);
        vnic.setLimit('receive', limit);
        const send = wire();
        const bytes = frame(THERE, HERE, length);
        let received = 0;
        const offer = (): number => {
          for (let i = 0; i < 20; i++) send(bytes);
          received += receiveAll(queue).length;
          return 20;
        };
        const passed = (): number => {
          received += receiveAll(queue).length;
          return received;
        };
        await assertLimited(vnic, perSecond, offer, passed);
      });
    }
  }

  test('between VNICs of one interface both limits count', async () => {
    const from = lab.attach('switched', [flow('udp', HERE.text, PORT)]);
    const to = lab.attach('switched', [flow('udp', '10.9.0.40', PORT)]);
    const [source, sink] = [lab.open(from), lab.open(to)];
    to.setLimit('receive', { bitsPerSecond: null, packetsPerSecond: 500 });
    const bytes = frame(HERE, SECOND, 64);
    let received = 0;
    const offer = (): number => {
      let sent = 0;
      for (let i = 0; i < 10; i++) if (sendBytes(source, bytes)) sent++;
      received += receiveAll(sink).length;
      return sent;
    };
    const passed = (): number => {
      received += receiveAll(sink).length;
      return received;
    };
    await assertLimited(to, 500, offer, passed);
    assert.equal(from.counters().drops.rateExceeded, undefined);
    // What is beyond the sender's own limit does not come as far as the receiver's.
    to.setLimit('receive', { bitsPerSecond: null, packetsPerSecond: null });
    const dropped = to.counters().drops.rateExceeded;
    from.setLimit('send', { bitsPerSecond: null, packetsPerSecond: 100 });
    await assertLimited(from, 100, offer, passed);
    assert.equal(to.counters().drops.rateExceeded, dropped);
  });

  /** A switched VNIC of two queue pairs, its queues, and a port of ours for each whose flows from THERE it gets. */
  function pairs(): { vnic: XdpVnic; queues: AfXdpQueue[]; ports: number[] } {
    const vnic = lab.attach('switched', [flow('udp', HERE.text)], { pairs: 2 });
    const queues = [lab.open(vnic, 0), lab.open(vnic, 1)];
    const isOn = (port: number, pair: number): boolean =>
      pairOfHash(flowHash(THERE.ip, HERE.ip, PORT, port), 2) === pair;
    const ports = [0, 1].map((pair) => {
      for (let port = 1000; ; port++) if (isOn(port, pair)) return port;
    });
    return { vnic, queues, ports };
  }

  const PER_QUEUE: RateLimit = { bitsPerSecond: null, packetsPerSecond: 500 };

  test('one queue of a VNIC has a limit of what it receives, and the other none', async () => {
    const { vnic, queues, ports } = pairs();
    vnic.setLimit('receive', PER_QUEUE, 1);
    const send = wire();
    const frames = ports.map((port) =>
      udpFrame({ ...THERE, port: PORT }, { ...HERE, port }, Buffer.alloc(22)),
    );
    const received = [0, 0];
    let offeredFirst = 0;
    const take = (): void =>
      queues.forEach((queue, i) => {
        received[i]! += receiveAll(queue).length;
      });
    const offer = (): number => {
      for (let i = 0; i < 10; i++) for (const bytes of frames) send(bytes);
      offeredFirst += 10;
      take();
      return 10;
    };
    const passed = (): number => {
      take();
      return received[1]!;
    };
    await assertLimited(vnic, 500, offer, passed);
    await until(() => {
      take();
      return received[0] === offeredFirst;
    });
    // Both limits count; what its queue loses is not the VNIC's.
    vnic.setLimit('receive', UNLIMITED, 1);
    vnic.setLimit('receive', { bitsPerSecond: null, packetsPerSecond: 300 });
    await assertLimited(
      vnic,
      300,
      () => 2 * offer(),
      () => passed() + received[0]!,
    );
  });

  test('one queue of a VNIC has a limit of what it sends, to the wire and to a neighbour', async () => {
    const { vnic, queues, ports } = pairs();
    const neighbour = lab.attach('switched', [flow('udp', '10.9.0.40')], { pairs: 2 });
    neighbour.setLimit('receive', { bitsPerSecond: null, packetsPerSecond: 100 }, 0);
    neighbour.setLimit('receive', { bitsPerSecond: null, packetsPerSecond: 100 }, 1);
    vnic.setLimit('send', PER_QUEUE, 0);
    // Whichever pair it is sent on, not the one of its flow: the wall is where the socket is.
    const bytes = ports.map((port) =>
      udpFrame({ ...HERE, port }, { ...THERE, port: PORT }, Buffer.alloc(22)),
    );
    const sendOn = (pair: number, frame: Uint8Array): number => {
      let sent = 0;
      for (let i = 0; i < 10; i++) if (sendBytes(queues[pair]!, frame)) sent++;
      return sent;
    };
    const sent = (): number => vnic.counters().txPackets;
    await assertLimited(vnic, 500, () => sendOn(0, bytes[0]!) + sendOn(0, bytes[1]!), sent);
    const before = sent();
    let offered = 0;
    for (let i = 0; i < 50; i++) offered += sendOn(1, bytes[0]!) + sendOn(1, bytes[1]!);
    await until(() => sent() === before + offered);
    const toNeighbour = udpFrame(
      { ...HERE, port: ports[0]! },
      { ...SECOND, port: PORT },
      Buffer.alloc(22),
    );
    const got = (): number => neighbour.counters().rxPackets;
    await assertLimited(neighbour, 100, () => sendOn(1, toNeighbour), got);
  });

  test('an id that is used again has no limit', async () => {
    const first = lab.attach('switched', [flow('udp', HERE.text, PORT)]);
    first.setLimit('send', { bitsPerSecond: 1000, packetsPerSecond: 1 });
    first.setLimit('send', { bitsPerSecond: 1000, packetsPerSecond: 1 }, 0);
    first.detach();
    const second = lab.attach('switched', [flow('udp', HERE.text, PORT)]);
    const queue = lab.open(second);
    let sent = 0;
    await until(() => {
      for (let i = 0; i < 20; i++) if (sendBytes(queue, frame(HERE, THERE, 64))) sent++;
      return sent > 200;
    });
    await until(() => second.counters().txPackets === sent);
    assert.deepEqual(second.counters().drops, {});
  });

  test('an id that is used again owes nothing', async () => {
    const bytes = frame(HERE, THERE, 1500);
    const first = lab.attach('switched', [flow('udp', HERE.text, PORT)]);
    first.setLimit('send', { bitsPerSecond: 1000, packetsPerSecond: null });
    assert.ok(sendBytes(lab.open(first), bytes));
    await until(() => first.counters().txPackets === 1);
    first.detach();
    const second = lab.attach('switched', [flow('udp', HERE.text, PORT)]);
    second.setLimit('send', { bitsPerSecond: 1e6, packetsPerSecond: null });
    assert.ok(sendBytes(lab.open(second), bytes));
    // Of the 12 s that the other's frame takes nothing is left.
    await until(
      () => second.counters().txPackets + (second.counters().drops.rateExceeded ?? 0) > 0,
    );
    assert.equal(second.counters().txPackets, 1);
  });

  test('the speed of the link is known: what goes beyond can be refused', () => {
    assert.equal(lab.nic.bitsPerSecond, VETH_BITS_PER_SECOND);
    assert.equal(linkBitsPerSecond('lo'), null);
  });

  test('nothing limits what a direct VNIC sends, nor its doorbell: that is said', () => {
    const vnic = lab.attach('direct', [flow('udp', HERE.text, PORT)]);
    const limit = { bitsPerSecond: 1e6, packetsPerSecond: null };
    assert.throws(() => vnic.setLimit('send', limit), code('ARK_UNSUPPORTED'));
    assert.throws(() => vnic.setLimit('send', limit, 0), code('ARK_UNSUPPORTED'));
    vnic.setLimit('receive', limit, 0);
    vnic.setLimit('send', UNLIMITED);
    const coalescing = { usecs: 100, frames: 0 };
    assert.throws(() => vnic.setCoalescing(null, coalescing), code('ARK_UNSUPPORTED'));
  });

  test('a coalesced doorbell: frames after the first wait for its time', async () => {
    const vnic = lab.attach('switched', [flow('udp', HERE.text, PORT)]);
    const queue = lab.open(vnic);
    const [{ veths }] = [vnic.save().state];
    vnic.setCoalescing(null, { usecs: 300_000, frames: 0 });
    assert.deepEqual(napiDeferrals(veths[0]!.applicationEnd), [
      { deferHardIrqs: 1, flushTimeoutUs: 300_000 },
    ]);
    const send = wire();
    const bytes = frame(THERE, HERE, 64);
    /** Milliseconds until a frame that is sent now is there. */
    const arrival = (): number => {
      const begin = performance.now();
      send(bytes);
      assert.equal(pollOne(queue.doorbellFd, POLLIN, 5000), POLLIN, 'no frame is forgotten');
      assert.equal(receiveAll(queue).length, 1);
      return performance.now() - begin;
    };
    arrival();
    let waited = 0;
    // Only a poll that found something defers the next: a frame that comes late enough does not wait.
    for (let attempt = 0; attempt < 10 && waited < 200; attempt++) waited = arrival();
    assert.ok(waited >= 200, `${waited} ms`);
    vnic.setCoalescing(0, { usecs: 0, frames: 0 });
    assert.deepEqual(napiDeferrals(veths[0]!.applicationEnd), [
      { deferHardIrqs: 0, flushTimeoutUs: 0 },
    ]);
    const frames = { usecs: 100, frames: 8 };
    assert.throws(() => vnic.setCoalescing(null, frames), code('ARK_UNSUPPORTED'));
  });
});
