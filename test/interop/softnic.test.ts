/** The software NIC as a process: what it carries, what it refuses, and what it survives. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { formatIpv4 } from '../../src/base/address.ts';
import { closeFd, eventfd, isOpen, POLLIN, pollOne, setNonBlocking } from '../../src/ffi/fd.ts';
import { mapShared, memfdHuge, memfdSealed } from '../../src/ffi/memory.ts';
import {
  connectUnix,
  receiveMessage,
  SOCK_STREAM,
  sendMessage,
  setTimeouts,
} from '../../src/ffi/unix.ts';
import { splitLayout } from '../../src/ring/split-layout.ts';
import * as vu from '../../src/ring/vhost-user.ts';
import { testFrameSequence, writeTestFrame } from '../conformance/udp-frame.ts';
import { LeakCheck } from '../support/leaks.ts';
import { until } from '../support/until.ts';
import { ADDRESSES, Application, anyFilter, SoftNicProcess } from './softnic.harness.ts';

const { aMac, bMac, aIp, bIp } = ADDRESSES;

let leaks: LeakCheck;
let nic: SoftNicProcess;
const closing: (() => void)[] = [];

beforeEach(() => {
  leaks = new LeakCheck();
  nic = new SoftNicProcess();
});
afterEach(async () => {
  for (const close of closing.splice(0)) close();
  assert.equal(await nic.close(), 0, 'it ends by itself when its channel does');
  await leaks.assertNone();
});

function application(
  port: number,
  side: 'a' | 'b',
  filters?: ReturnType<typeof anyFilter>[],
): Application {
  const app = Application.connect(nic, port, side, filters);
  closing.push(() => app.close());
  return app;
}

/** `count` frames arrive at the other side, in order and whole. */
async function carries(from: Application, to: Application, count = 200): Promise<void> {
  let sent = 0;
  let got = 0;
  await until(() => {
    for (; sent < count && sent - got < 128; sent++) from.send(sent, 60 + (sent % 1455));
    from.sendPending();
    for (const bytes of to.receive()) {
      const expected = Buffer.alloc(60 + (got % 1455));
      writeTestFrame(expected, 0, expected.length, ADDRESSES, from.side, got++);
      assert.deepEqual(bytes, expected);
    }
    return got === count;
  });
}

/** A test frame of `a`, changed. */
function frame(change: (bytes: Buffer) => void = () => {}, length = 64): Buffer {
  const bytes = Buffer.alloc(length);
  writeTestFrame(bytes, 0, length, ADDRESSES, 'a', 1);
  change(bytes);
  return bytes;
}

function arp(
  op: number,
  sender: { mac: number; ip: number },
  target: number,
  to = 0xffff_ffff_ffff,
): Buffer {
  const bytes = Buffer.alloc(60);
  bytes.writeUIntBE(to, 0, 6);
  bytes.writeUIntBE(aMac, 6, 6);
  bytes.writeUInt16BE(0x0806, 12);
  Buffer.from('00010800060400', 'hex').copy(bytes, 14);
  bytes.writeUInt8(op, 21);
  bytes.writeUIntBE(sender.mac, 22, 6);
  bytes.writeUInt32BE(sender.ip, 28);
  bytes.writeUInt32BE(target, 38);
  return bytes;
}

describe('what it carries', () => {
  test('frames of every size between two applications, both ways, and counts them', async () => {
    const a = application(1, 'a');
    const b = application(2, 'b');
    await carries(a, b, 3000);
    await carries(b, a, 3000);
    const { drops, ...stats } = nic.stats(1);
    assert.deepEqual(drops, {});
    assert.equal(stats.rxPackets, 3000);
    assert.equal(stats.txPackets, 3000);
    assert.equal(stats.rxBytes, stats.txBytes);
    assert.deepEqual(nic.states(1), ['up its driver runs both queues']);
  });

  test('a sleeping receiver is rung, and an idle device uses no CPU', async () => {
    const a = application(1, 'a');
    const b = application(2, 'b');
    await carries(a, b);
    await until(() => b.queue.arm());
    const cpu = (): number => {
      const fields = fs.readFileSync(`/proc/${nic.child.pid}/stat`, 'utf8').split(' ');
      return Number(fields[13]) + Number(fields[14]);
    };
    await new Promise((resolve) => setTimeout(resolve, 100));
    const before = cpu();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    assert.ok(cpu() - before <= 2, `${cpu() - before} ticks in an idle second`);
    a.send(7);
    assert.equal(pollOne(b.queue.doorbellFd, POLLIN, 2000), POLLIN);
    b.queue.disarm();
    const [received] = b.receive();
    assert.equal(testFrameSequence(received!, 0, received!.length, 'a'), 7);
    assert.ok(a.queue.counters.kicks > 0);
  });

  test('ARP: requests only to the owner of the address', async () => {
    const a = application(1, 'a');
    const b = application(2, 'b');
    a.sendBytes(arp(1, { mac: aMac, ip: aIp }, bIp));
    a.sendBytes(arp(1, { mac: aMac, ip: aIp }, 0x0a00_0063));
    a.sendBytes(arp(2, { mac: aMac, ip: aIp }, bIp, bMac));
    const got: Buffer[] = [];
    await until(() => nic.stats(1).txPackets === 3 && got.push(...b.receive()) >= 0);
    got.push(...b.receive());
    assert.deepEqual(
      got.map((bytes) => bytes.readUInt16BE(20)),
      [1, 2],
    );
  });

  test('new filters hold at once', async () => {
    const a = application(1, 'a');
    const b = application(2, 'b');
    await carries(a, b);
    const tcp = `tcp and ${anyFilter(bIp)}`;
    assert.equal(nic.request({ op: 'setFilters', port: 2, filters: [tcp] }).ok, true);
    a.send(1);
    await until(() => nic.stats(2).drops.filterMiss === 1);
    assert.equal(nic.request({ op: 'setFilters', port: 2, filters: [anyFilter(bIp)] }).ok, true);
    await carries(a, b);
  });
});

describe('filters that change while packets run', () => {
  test('an unchanged flow loses nothing', async () => {
    const a = application(1, 'a');
    const b = application(2, 'b');
    await carries(a, b);
    const [from, to] = [formatIpv4(aIp), formatIpv4(bIp)];
    const receive = [
      [`dst host ${to}`],
      [`udp and dst host ${to}`, `icmp and dst host ${to}`],
      [`src host ${from} and dst net ${to}/32`],
      [`not tcp and host ${to}`],
    ];
    const transmit = [null, [`src host ${from} and dst host ${to}`], ['udp']];
    const before = nic.stats(2).rxPackets;
    let sent = 0;
    let received = 0;
    const drain = (): boolean => {
      a.sendPending();
      received += b.receive().length;
      return received === sent;
    };
    for (let round = 0; round < 240; round++) {
      for (let n = 0; n < 8; n++) a.send(sent++);
      const filters = receive[round % receive.length];
      assert.equal(nic.request({ op: 'setFilters', port: 2, filters }).ok, true);
      for (let n = 0; n < 8; n++) a.send(sent++);
      const own = { filters: [anyFilter(aIp)], transmit: transmit[round % transmit.length] };
      assert.equal(nic.request({ op: 'setFilters', port: 1, ...own }).ok, true);
      drain();
    }
    await until(drain);
    assert.equal(nic.stats(2).rxPackets - before, sent);
    assert.deepEqual([nic.stats(1).drops, nic.stats(2).drops], [{}, {}]);
  });
});

describe('what it refuses to send', () => {
  const cases: [string, string, Buffer][] = [
    ['another source MAC', 'spoofedMac', frame((f) => f.writeUIntBE(bMac, 6, 6))],
    ['another source address', 'spoofedAddress', frame((f) => f.writeUInt32BE(aIp + 9, 26))],
    ['another source port', 'spoofedPort', frame((f) => f.writeUInt16BE(9999, 34))],
    ['another protocol', 'spoofedPort', frame((f) => f.writeUInt8(6, 23))],
    ['a fragment without ports', 'spoofedPort', frame((f) => f.writeUInt16BE(0x2001, 20))],
    ['ARP of an address that is not its own', 'spoofedArp', arp(1, { mac: aMac, ip: aIp }, bIp)],
    ['ARP of another MAC', 'spoofedArp', arp(2, { mac: bMac, ip: aIp }, bIp, bMac)],
    ['IPv4 that says it is IPv6', 'truncated', frame((f) => f.writeUInt16BE(0x86dd, 12))],
    ['MPLS', 'otherProtocol', frame((f) => f.writeUInt16BE(0x8847, 12))],
    ['a VLAN tag', 'otherProtocol', frame((f) => f.writeUInt16BE(0x8100, 12))],
    ['a length beyond the frame', 'truncated', frame((f) => f.writeUInt16BE(51, 16))],
    ['a header beyond the packet', 'truncated', frame((f) => f.writeUInt8(0x4f, 14))],
    ['IP version 5', 'truncated', frame((f) => f.writeUInt8(0x55, 14))],
    ['a MAC that nobody has', 'noDestination', frame((f) => f.writeUIntBE(bMac + 1, 0, 6))],
  ];
  const udp7000 = `udp dst port 7000 and ${anyFilter(aIp)}`;
  for (const [what, reason, bytes] of cases) {
    test(`${what}: ${reason}`, async () => {
      const a = application(1, 'a', [udp7000]);
      const b = application(2, 'b');
      a.sendBytes(bytes);
      await until(() => Object.keys(nic.stats(1).drops).length > 0);
      assert.deepEqual(nic.stats(1).drops, { [reason]: 1 });
      await carries(a, b);
    });
  }
});

/** A client that says what it likes. */
class Client {
  readonly fd: number;

  constructor(fd: number) {
    this.fd = fd;
    setTimeouts(fd, 3000);
    closing.push(() => isOpen(fd) && closeFd(fd));
  }

  say(request: number, payload?: Uint8Array, fds: number[] = []): void {
    sendMessage(this.fd, vu.encodeMessage(request, payload), fds);
  }

  ask(request: number, payload?: Uint8Array): bigint {
    this.say(request, payload);
    const header = Buffer.alloc(vu.HEADER_LEN);
    assert.equal(receiveMessage(this.fd, header, 0)?.length, vu.HEADER_LEN);
    const { size } = vu.decodeHeader(header)!;
    const answer = Buffer.alloc(size);
    assert.equal(receiveMessage(this.fd, answer, 0)?.length, size);
    return answer.readBigUInt64LE(0);
  }

  /** Start both rings of 8 entries in a region of its own. */
  start(): { region: ReturnType<typeof mapShared>; tx: number; err: number; kick: number } {
    const length = 1 << 20;
    const fd = memfdSealed('client', length);
    const region = mapShared(fd, length);
    const features = this.ask(vu.REQ.GET_FEATURES) & ~(1n << 30n);
    this.say(vu.REQ.SET_FEATURES, vu.encodeU64(features));
    this.say(
      vu.REQ.SET_MEM_TABLE,
      vu.encodeMemTable([{ guestAddress: 0, userAddress: 0, size: length, offset: 0 }]),
      [fd],
    );
    closeFd(fd);
    const [kick, err] = [eventfd(), eventfd()];
    closing.push(
      () => closeFd(kick),
      () => closeFd(err),
      () => region.release(),
    );
    let tx = 0;
    for (const index of [0, 1]) {
      const { desc, avail, used } = splitLayout(index * 4096, 8);
      tx = desc;
      this.say(vu.REQ.SET_VRING_NUM, vu.encodeVringState({ index, num: 8 }));
      this.say(
        vu.REQ.SET_VRING_ADDR,
        vu.encodeVringAddr({ index, flags: 0, desc, avail, used, log: 0 }),
      );
      this.say(vu.REQ.SET_VRING_ERR, vu.encodeU64(index), [err]);
      this.say(vu.REQ.SET_VRING_KICK, vu.encodeU64(index), [kick]);
    }
    this.ask(vu.REQ.GET_FEATURES);
    return { region, tx, err, kick };
  }
}

describe('hostile drivers: their queue stops, others go on', () => {
  let a: Application;
  let b: Application;
  beforeEach(async () => {
    a = application(1, 'a');
    b = application(2, 'b');
    await carries(a, b);
  });
  const hostile = (): Client => new Client(nic.addPort({ port: 3, mac: bMac + 1, filters: [] }));
  const ended = async (reason: RegExp): Promise<void> => {
    await until(() => !nic.stats(3).connected);
    assert.match(nic.stats(3).reason, reason);
    await carries(a, b);
  };

  test('a header that claims 4 GiB', async () => {
    const bytes = vu.encodeMessage(vu.REQ.SET_OWNER);
    bytes.writeUInt32LE(0xffff_ffff, 8);
    sendMessage(hostile().fd, bytes);
    await ended(/malformed/);
  });

  test('memory that is not sealed', async () => {
    const file = path.join(os.tmpdir(), `snic-${process.pid}`);
    fs.writeFileSync(file, Buffer.alloc(4096));
    const fd = fs.openSync(file, 'r+');
    fs.rmSync(file);
    const region = { guestAddress: 0, userAddress: 0, size: 4096, offset: 0 };
    hostile().say(vu.REQ.SET_MEM_TABLE, vu.encodeMemTable([region]), [fd]);
    closeFd(fd);
    await ended(/not memory sealed/);
  });

  test('a region longer than its memory', async () => {
    const fd = memfdSealed('short', 4096);
    const region = { guestAddress: 0, userAddress: 0, size: 8192, offset: 0 };
    hostile().say(vu.REQ.SET_MEM_TABLE, vu.encodeMemTable([region]), [fd]);
    closeFd(fd);
    await ended(/passes its file/);
  });

  test('regions of more than the device can map', async () => {
    const fd = memfdSealed('huge', 2 ** 40);
    const region = { guestAddress: 0, userAddress: 0, size: 2 ** 40, offset: 0 };
    hostile().say(vu.REQ.SET_MEM_TABLE, vu.encodeMemTable([region]), [fd]);
    closeFd(fd);
    await ended(/no room to map/);
  });

  test('a table without descriptors, and one with too many', async () => {
    const region = { guestAddress: 0, userAddress: 0, size: 4096, offset: 0 };
    hostile().say(vu.REQ.SET_MEM_TABLE, vu.encodeMemTable([region]));
    await ended(/one descriptor a region/);
  });

  test('more memory than was granted, at once or bit by bit', async () => {
    const granted = { port: 3, mac: bMac + 1, filters: [], regionBytes: 1 << 20 };
    const before = nic.request({ op: 'stats' }).mappedBytes;
    const fd = memfdSealed('granted', 1 << 21);
    const region = { guestAddress: 0, userAddress: 0, size: 1 << 20, offset: 0 };
    const greedy = new Client(nic.addPort(granted));
    const large = { ...region, size: (1 << 20) + 4096 };
    greedy.say(vu.REQ.SET_MEM_TABLE, vu.encodeMemTable([large]), [fd]);
    await ended(/were granted/);
    nic.request({ op: 'removePort', port: 3 });
    const patient = new Client(nic.addPort(granted));
    patient.say(vu.REQ.SET_MEM_TABLE, vu.encodeMemTable([region]), [fd]);
    await until(() => nic.request({ op: 'stats' }).mappedBytes === before! + (1 << 20));
    const more = { ...region, guestAddress: 1 << 20, userAddress: 1 << 20, size: 4096 };
    patient.say(vu.REQ.ADD_MEM_REG, vu.encodeMemReg(more), [fd]);
    closeFd(fd);
    await ended(/were granted/);
    assert.equal(nic.request({ op: 'stats' }).mappedBytes, before);
  });

  test('memory of huge pages', async (t) => {
    const fd = memfdHuge();
    if (fd < 0) return t.skip('the kernel has no huge pages');
    const region = { guestAddress: 0, userAddress: 0, size: 4096, offset: 0 };
    hostile().say(vu.REQ.SET_MEM_TABLE, vu.encodeMemTable([region]), [fd]);
    await ended(/huge pages/);
    // Where it is trusted, it must not end the device either, whether there are pages or not.
    nic.request({ op: 'removePort', port: 3 });
    const options = { port: 3, mac: bMac + 1, filters: [], allowUnsealed: true };
    const client = new Client(nic.addPort(options));
    client.say(vu.REQ.SET_MEM_TABLE, vu.encodeMemTable([region]), [fd]);
    closeFd(fd);
    closeFd(client.fd);
    await ended(/./);
  });

  test('a descriptor of no use, with a request that takes none', async () => {
    const fd = fs.openSync('/dev/null', 'r');
    hostile().say(vu.REQ.SET_OWNER, undefined, [fd]);
    closeFd(fd);
    await ended(/descriptor of no use/);
  });

  test('as many descriptors as a message can carry, with one it reads and one it does not', async () => {
    const bell = eventfd();
    const many = Array.from({ length: 253 }, () => bell);
    hostile().say(vu.REQ.SET_OWNER, undefined, many);
    await ended(/too many descriptors/);
    nic.request({ op: 'removePort', port: 3 });
    const client = hostile();
    client.say(77);
    client.say(vu.REQ.SET_OWNER, undefined, many);
    closeFd(bell);
    await ended(/not supported/);
    const links = (): string[] => fs.readdirSync(`/proc/${nic.child.pid}/fd`);
    await until(() => links().length < 200);
  });

  test('a pipe, which could block, for an eventfd', async () => {
    const fd = fs.openSync('/dev/null', 'r');
    hostile().say(vu.REQ.SET_VRING_CALL, vu.encodeU64(0), [fd]);
    closeFd(fd);
    await ended(/not an eventfd/);
  });

  test('rings outside its memory', async () => {
    const client = hostile();
    client.start();
    client.ask(vu.REQ.GET_VRING_BASE, vu.encodeVringState({ index: 1, num: 0 }));
    const outside = { index: 1, flags: 0, desc: 1 << 20, avail: 0, used: 0, log: 0 };
    client.say(vu.REQ.SET_VRING_ADDR, vu.encodeVringAddr(outside));
    const kick = eventfd();
    client.say(vu.REQ.SET_VRING_KICK, vu.encodeU64(1), [kick]);
    closeFd(kick);
    await ended(/without its size, addresses or memory/);
  });

  test('a feature that was not offered, a request that does not exist, a ring that does not', async () => {
    hostile().say(vu.REQ.SET_FEATURES, vu.encodeU64(2n ** 63n));
    await ended(/not offered/);
    nic.request({ op: 'removePort', port: 3 });
    hostile().say(77);
    await ended(/not supported/);
    nic.request({ op: 'removePort', port: 3 });
    hostile().say(vu.REQ.SET_VRING_NUM, vu.encodeVringState({ index: 2, num: 8 }));
    await ended(/no ring 2/);
  });

  test('an index that jumps breaks the ring, signals its error descriptor, and can be mended', async () => {
    const client = hostile();
    const { region, err, kick } = client.start();
    const { avail } = splitLayout(4096, 8);
    const u16 = new Uint16Array(region.buffer);
    u16[avail / 2 + 1] = 100;
    fs.writeSync(kick, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]));
    assert.equal(pollOne(err, POLLIN, 3000), POLLIN);
    await until(() => nic.stats(3).state === 'broken');
    assert.equal(nic.stats(3).reason, 'indexJump');
    assert.equal(nic.stats(3).drops.badDescriptor, 1);
    await carries(a, b);
    // The session is alive: after a reset the ring runs again.
    u16[avail / 2 + 1] = 0;
    client.ask(vu.REQ.GET_VRING_BASE, vu.encodeVringState({ index: 1, num: 0 }));
    client.say(vu.REQ.SET_VRING_KICK, vu.encodeU64(1), [kick]);
    await until(() => nic.stats(3).state === 'up');
  });

  test('a state that changes all the time while the control plane reads nothing', async () => {
    const client = hostile();
    client.start();
    for (let i = 0; i <= 6000; i++) {
      client.say(vu.REQ.SET_VRING_ENABLE, vu.encodeVringState({ index: 1, num: i % 2 }));
      client.ask(vu.REQ.GET_FEATURES);
    }
    await carries(a, b);
    assert.equal(nic.stats(3).state, 'down');
    await until(() => nic.states(3).at(-1) === 'down its driver stopped a queue');
  });

  test('a chain that loops, and a buffer outside its memory', async () => {
    for (const [address, flags, reason] of [
      [0, 1, 'loop'],
      [1 << 20, 0, 'outsideMemory'],
    ] as const) {
      const client = hostile();
      const { region, tx, kick } = client.start();
      const u32 = new Uint32Array(region.buffer);
      u32.set([address, 0, 64, flags], tx / 4);
      new Uint16Array(region.buffer)[splitLayout(4096, 8).avail / 2 + 1] = 1;
      fs.writeSync(kick, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]));
      await until(() => nic.stats(3).state === 'broken');
      assert.equal(nic.stats(3).reason, reason);
      await carries(a, b);
      nic.request({ op: 'removePort', port: 3 });
    }
  });

  test('a call descriptor that would block whoever rings it', async () => {
    const client = hostile();
    const { region, tx, kick } = client.start();
    const call = eventfd();
    closing.push(() => closeFd(call));
    client.say(vu.REQ.SET_VRING_CALL, vu.encodeU64(1), [call]);
    client.ask(vu.REQ.GET_FEATURES);
    const full = Buffer.alloc(8);
    full.writeBigUInt64LE(0xffff_ffff_ffff_fffen);
    fs.writeSync(call, full);
    setNonBlocking(call, false);
    new Uint32Array(region.buffer).set([0, 0, 64, 0], tx / 4);
    new Uint16Array(region.buffer)[splitLayout(4096, 8).avail / 2 + 1] = 1;
    fs.writeSync(kick, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]));
    await until(() => nic.stats(3).drops.otherProtocol === 1);
    await carries(a, b);
  });

  test('a client that dies in the middle of a message: its memory is unmapped', async () => {
    const before = nic.request({ op: 'stats' }).mappedBytes;
    const client = hostile();
    client.start();
    assert.equal(nic.request({ op: 'stats' }).mappedBytes, before! + (1 << 20));
    sendMessage(client.fd, vu.encodeMessage(vu.REQ.SET_FEATURES, vu.encodeU64(0)).subarray(0, 9));
    closeFd(client.fd);
    await ended(/closed by the client/);
    assert.equal(nic.request({ op: 'stats' }).mappedBytes, before);
  });
});

describe('the control channel', () => {
  test('what is wrong with a request is said, and nothing changes', () => {
    const port = { op: 'addPort', port: 1, mac: aMac, filters: [] };
    const refused: [object, string][] = [
      [{ op: 'dance' }, 'ARK_UNKNOWN_OPERATION'],
      [port, 'ARK_BAD_ARGUMENT'],
      [{ ...port, mac: 0x0100_0000_0000 }, 'ARK_BAD_ARGUMENT'],
      [{ ...port, mtu: 20 }, 'ARK_BAD_ARGUMENT'],
      [{ ...port, surplus: 1 }, 'ARK_BAD_ARGUMENT'],
      [{ ...port, listen: '/no/such/directory/sock' }, 'ARK_SYSCALL'],
      // Even looking whether it is there fails.
      [{ ...port, listen: `/${'x'.repeat(300)}` }, 'ARK_SYSCALL'],
      [{ ...port, listen: '/a\0b' }, 'ARK_BAD_ARGUMENT'],
      [{ ...port, filters: ['udp dst portrange 2-1'] }, 'ARK_BAD_ARGUMENT'],
      [{ ...port, filters: [{ boxes: [] }] }, 'ARK_BAD_ARGUMENT'],
      [{ ...port, transmit: ['udp and tcp'] }, 'ARK_BAD_ARGUMENT'],
      [{ op: 'removePort', port: 9 }, 'ARK_NOT_FOUND'],
      [{ op: 'setFilters', port: 9, filters: [] }, 'ARK_NOT_FOUND'],
    ];
    for (const [request, code] of refused) {
      const answer = nic.request(request as Record<string, unknown>);
      assert.deepEqual([answer.ok, answer.code], [false, code], JSON.stringify(request));
    }
    nic.send('{');
    assert.deepEqual((nic.receive() as { code: string }).code, 'ARK_BAD_MESSAGE');
    assert.deepEqual(nic.request({ op: 'stats' }).ports, []);
  });

  test('what listens nowhere is refused, and nothing that is there goes', () => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'snic-'));
    closing.push(() => fs.rmSync(directory, { recursive: true }));
    const file = path.join(directory, 'file');
    fs.writeFileSync(file, 'kept');
    const port = { op: 'addPort', port: 1, mac: aMac, filters: [] };
    const refused: [string, string][] = [
      [directory, 'ARK_IN_USE'],
      [file, 'ARK_IN_USE'],
      [path.join(file, 'below'), 'ARK_SYSCALL'],
      ['/proc/self/none', 'ARK_SYSCALL'],
    ];
    for (const [listen, code] of refused) {
      const answer = nic.request({ ...port, listen });
      assert.deepEqual([answer.ok, answer.code], [false, code], `${listen}: ${answer.message}`);
    }
    assert.equal(fs.readFileSync(file, 'utf8'), 'kept');
    // What took the socket's place is not the port's to remove.
    const listen = path.join(directory, 'port.sock');
    assert.equal(nic.request({ ...port, listen }).ok, true);
    fs.rmSync(listen);
    fs.writeFileSync(listen, 'kept');
    assert.equal(nic.request({ op: 'removePort', port: 1 }).ok, true);
    assert.equal(fs.readFileSync(listen, 'utf8'), 'kept');
  });

  test('a descriptor that is no socket is refused, and leaves no port', () => {
    const bell = eventfd();
    const answer = nic.request({ op: 'addPort', port: 1, mac: aMac, filters: [] }, [bell]);
    closeFd(bell);
    assert.equal(answer.ok, false);
    assert.deepEqual(nic.request({ op: 'stats' }).ports, []);
  });

  test('the bell-ringer is there before any client', () => {
    nic.request({ op: 'stats' });
    assert.match(fs.readFileSync(`/proc/${nic.child.pid}/maps`, 'utf8'), /\[aio\]/);
  });

  test('a port or MAC that exists is in use', () => {
    closing.push(() => {});
    const socket = nic.addPort({ port: 1, mac: aMac, filters: [] });
    assert.throws(() => nic.addPort({ port: 1, mac: bMac, filters: [] }), /ARK_IN_USE/);
    assert.throws(() => nic.addPort({ port: 2, mac: aMac, filters: [] }), /ARK_IN_USE/);
    closeFd(socket);
  });

  test('a listening port replaces a stale socket, serves one client after another, and cleans up', async () => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'snic-'));
    closing.push(() => fs.rmSync(directory, { recursive: true }));
    const listen = path.join(directory, 'port.sock');
    const request = { op: 'addPort', port: 1, mac: aMac, filters: [], listen, mode: 0o660 };
    for (let round = 0; round < 2; round++) {
      assert.equal(nic.request(request).ok, true);
      assert.equal(fs.statSync(listen).mode & 0o777, 0o660);
      for (let i = 0; i < 3; i++) {
        const client = new Client(connectUnix(listen, SOCK_STREAM));
        assert.equal((client.ask(vu.REQ.GET_FEATURES) >> 32n) & 1n, 1n);
        closeFd(client.fd);
        await until(() => !nic.stats(1).connected);
      }
      nic.request({ op: 'removePort', port: 1 });
      assert.equal(fs.existsSync(listen), false);
    }
  });
});
