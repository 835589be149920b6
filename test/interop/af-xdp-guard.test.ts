/**
 * What a switched VNIC may send: the guard program against spoofing, and against frames that make no sense. The
 * application's half sends what it likes; a packet socket at the far end of the wire hears what came through.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { formatIpv4, macHi, macLo, parseIpv4 } from '../../src/base/address.ts';
import type { DropReason } from '../../src/device/drops.ts';
import type { XdpVnic } from '../../src/drivers/af-xdp/attach.ts';
import type { AfXdpQueue } from '../../src/drivers/af-xdp/queue.ts';
import { closeFd, readFd } from '../../src/ffi/fd.ts';
import { linkByName, removeAddress } from '../../src/ffi/netlink/index.ts';
import { openPacketSocket } from '../../src/ffi/packet.ts';
import * as arp from '../../src/wire/arp.ts';
import {
  arpFrame,
  echoFrame,
  type Host,
  ipv4Frame,
  udpFrame,
  viewOfBytes,
  withOptions,
} from '../support/frames.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { Random } from '../support/random.ts';
import { until } from '../support/until.ts';
import { FAR_INTERFACE, flow, HERE, Lab, receiveAll, sendBytes, THERE } from './af-xdp.harness.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

/** The VNIC has UDP ports 7 to 9 of the interface's address, ICMP of a second and all of a third. */
const SECOND: Host = { mac: HERE.mac, ip: parseIpv4('10.9.0.40') };
const WHOLE: Host = { mac: HERE.mac, ip: parseIpv4('10.9.0.50') };
const FOREIGN: Host = { mac: HERE.mac, ip: parseIpv4('10.9.0.60') };
const FILTERS = [
  flow('udp', HERE.text, 7, 9),
  flow('icmp', formatIpv4(SECOND.ip)),
  flow('any', formatIpv4(WHOLE.ip)),
];
const TO = { ...THERE, port: 4000 };
const STRANGE_MAC = 0x02_00_00_00_0b_0b;
const payload = Buffer.alloc(20, 'p');

const udpFrom = (host: Host, port: number): Uint8Array => udpFrame({ ...host, port }, TO, payload);

/** `bytes` with byte `at` replaced. */
function poke(bytes: Uint8Array, at: number, ...values: number[]): Uint8Array {
  bytes.set(values, at);
  return bytes;
}

const arpFrom = (sender: Host, options: { mac?: number } = {}): Uint8Array => {
  const bytes = arpFrame(arp.OP_REQUEST, sender, THERE);
  if (options.mac !== undefined) {
    arp.setSender(
      viewOfBytes(bytes),
      14,
      macHi(options.mac),
      macLo(options.mac) | 0,
      sender.ip | 0,
    );
  }
  return bytes;
};

/** A later fragment: no ports, offset not 0. */
const fragmentFrom = (host: Host): Uint8Array => poke(udpFrom(host, 7), 20, 0x00, 0x10);

const PASSES: [string, Uint8Array][] = [
  ['UDP from a port of its own', udpFrom(HERE, 7)],
  ['UDP from the last port of its range', udpFrom(HERE, 9)],
  ['UDP with IP options', withOptions(udpFrom(HERE, 8), Buffer.alloc(40, 1))],
  ['the first fragment, which has ports', poke(udpFrom(HERE, 7), 20, 0x20, 0x00)],
  ['ICMP from the address whose ICMP it has', echoFrame(SECOND, THERE, payload)],
  ['UDP from any port of the whole address', udpFrom(WHOLE, 12345)],
  ['TCP from the whole address', ipv4Frame(WHOLE, THERE, 6, Buffer.alloc(20, 1))],
  ['a later fragment from the whole address', fragmentFrom(WHOLE)],
  ['another protocol from the whole address', ipv4Frame(WHOLE, THERE, 132, payload)],
  ['ARP for the whole address', arpFrom(WHOLE)],
];

const DROPS: [string, DropReason, Uint8Array][] = [
  ['another source MAC', 'spoofedMac', udpFrom({ ...HERE, mac: STRANGE_MAC }, 7)],
  ['a source MAC off by its last byte', 'spoofedMac', udpFrom({ ...HERE, mac: HERE.mac + 1 }, 7)],
  ['an address that is not its own', 'spoofedAddress', udpFrom(FOREIGN, 7)],
  ['a port below its range', 'spoofedPort', udpFrom(HERE, 6)],
  ['a port above its range', 'spoofedPort', udpFrom(HERE, 10)],
  [
    'another protocol on its port',
    'spoofedPort',
    ipv4Frame(HERE, THERE, 6, udpFrom(HERE, 7).slice(34)),
  ],
  ['ICMP from an address with only UDP', 'spoofedPort', echoFrame(HERE, THERE, payload)],
  ['UDP from an address with only ICMP', 'spoofedPort', udpFrom(SECOND, 7)],
  ['a later fragment, which shows no port', 'spoofedPort', fragmentFrom(HERE)],
  ['a port behind IP options', 'spoofedPort', withOptions(udpFrom(HERE, 6), Buffer.alloc(40, 1))],
  ['ARP for an address shared with the kernel', 'spoofedArp', arpFrom(HERE)],
  ['ARP for a foreign address', 'spoofedArp', arpFrom(FOREIGN)],
  ['ARP with another MAC inside', 'spoofedArp', arpFrom(WHOLE, { mac: STRANGE_MAC })],
  ['ARP of another hardware type', 'spoofedArp', poke(arpFrom(WHOLE), 15, 6)],
  ['ARP of other address lengths', 'spoofedArp', poke(arpFrom(WHOLE), 18, 6, 16)],
  ['IPv6', 'otherProtocol', poke(udpFrom(HERE, 7), 12, 0x86, 0xdd)],
  ['a VLAN tag', 'otherProtocol', poke(udpFrom(HERE, 7), 12, 0x81, 0x00)],
  ['half an IPv4 header', 'truncated', udpFrom(HERE, 7).slice(0, 30)],
  ['IPv4 of version 6', 'truncated', poke(udpFrom(HERE, 7), 14, 0x65)],
  ['a header shorter than itself', 'truncated', poke(udpFrom(HERE, 7), 14, 0x44)],
  ['options past the end', 'truncated', poke(udpFrom(HERE, 7).slice(0, 42), 14, 0x4f)],
  ['a total length past the end', 'truncated', poke(udpFrom(HERE, 7), 16, 0x05, 0x00)],
  ['a total length below the header', 'truncated', poke(udpFrom(HERE, 7), 16, 0x00, 0x08)],
  ['half a port', 'truncated', poke(udpFrom(HERE, 7).slice(0, 36), 16, 0, 22)],
  ['half an ARP', 'truncated', arpFrom(WHOLE).slice(0, 40)],
  ['a frame for our own MAC', 'noDestination', poke(udpFrom(HERE, 7), 0, 2, 0, 0, 0, 0x0a, 1)],
];

/** What the far end of the wire hears from the VNIC. */
class Wire {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(4096);

  constructor(lab: Lab) {
    this.#fd = lab.far.run(() => openPacketSocket(linkByName(FAR_INTERFACE)!.index));
  }

  /** Frames that came since the last call, without what the far kernel sent itself. */
  drain(): Buffer[] {
    const heard: Buffer[] = [];
    for (let length = readFd(this.#fd, this.#buffer); length > 0; ) {
      const frame = Buffer.from(this.#buffer.subarray(0, length));
      if (frame.readUIntBE(6, 6) !== THERE.mac) heard.push(frame);
      length = readFd(this.#fd, this.#buffer);
    }
    return heard;
  }

  close(): void {
    closeFd(this.#fd);
  }
}

describe('af-xdp guard', { skip }, () => {
  let lab: Lab;
  let vnic: XdpVnic;
  let queue: AfXdpQueue;
  let wire: Wire;
  beforeEach(() => {
    lab = new Lab();
    // The far kernel must not answer: only what the VNIC sends is to be heard.
    lab.far.run(() => removeAddress(linkByName(FAR_INTERFACE)!.index, THERE.ip, 24));
    vnic = lab.attach('switched', FILTERS);
    queue = lab.open(vnic);
    wire = new Wire(lab);
  });
  afterEach(() => {
    wire.close();
    lab.close();
  });

  const dropCount = (): number =>
    Object.values(vnic.counters().drops).reduce((sum, count) => sum + count, 0);
  const settled = (sent: number): Promise<void> =>
    until(() => vnic.counters().txPackets + dropCount() === sent, 2000, `${sent} frames judged`);

  test('lets out what is its own, unchanged and in order', async () => {
    for (const [, bytes] of PASSES) assert.equal(sendBytes(queue, bytes), true);
    await settled(PASSES.length);
    assert.deepEqual(vnic.counters().drops, {});
    const heard = wire.drain();
    PASSES.forEach(([what, bytes], i) => {
      assert.deepEqual(heard[i]?.subarray(0, bytes.length), Buffer.from(bytes), what);
    });
    assert.equal(heard.length, PASSES.length);
  });

  test('drops everything else and counts why', async () => {
    let sent = 0;
    for (const [what, reason, bytes] of DROPS) {
      const before = vnic.counters().drops[reason] ?? 0;
      assert.equal(sendBytes(queue, bytes), true);
      await settled(++sent);
      assert.equal(vnic.counters().drops[reason], before + 1, `${what}: ${reason}`);
    }
    assert.deepEqual(wire.drain(), []);
    assert.equal(vnic.counters().txPackets, 0);
  });

  test('a filter taken away is a flow that it may not send any more', async () => {
    sendBytes(queue, udpFrom(WHOLE, 7));
    await settled(1);
    vnic.setFilters([flow('udp', HERE.text, 7)]);
    sendBytes(queue, udpFrom(WHOLE, 7));
    await settled(2);
    assert.deepEqual(vnic.counters().drops, { spoofedAddress: 1 });
  });

  test('another VNIC of the interface is not its own', async () => {
    const other = lab.attach('switched', [flow('any', formatIpv4(FOREIGN.ip))], { name: 'other' });
    sendBytes(queue, udpFrom(FOREIGN, 7));
    sendBytes(queue, arpFrom(FOREIGN));
    await settled(2);
    assert.deepEqual(vnic.counters().drops, { spoofedAddress: 1, spoofedArp: 1 });
    assert.equal(other.counters().txPackets, 0);
  });

  test('VNICs of one interface reach each other, ARP included, and never the wire', async () => {
    const other = lab.attach('switched', [flow('any', formatIpv4(FOREIGN.ip))], { name: 'other' });
    const theirs = lab.open(other);
    const question = arpFrame(arp.OP_REQUEST, WHOLE, FOREIGN);
    const greeting = udpFrame({ ...HERE, port: 7 }, { ...FOREIGN, port: 99 }, payload);
    sendBytes(queue, question);
    sendBytes(queue, greeting);
    const received: Buffer[] = [];
    await until(() => received.push(...receiveAll(theirs)) >= 2, 2000, 'two frames');
    assert.deepEqual(received, [Buffer.from(question), Buffer.from(greeting)]);
    sendBytes(theirs, udpFrame({ ...FOREIGN, port: 99 }, { ...HERE, port: 7 }, payload));
    await until(() => receiveAll(queue).length === 1, 2000, 'the answer');
    assert.equal(other.counters().rxPackets, 2);
    assert.deepEqual(wire.drain(), []);
  });

  test('of frames with random damage only those get out that a plain reading allows', async () => {
    const random = new Random(0xa44a);
    const seeds = [...PASSES.map(([, bytes]) => bytes), ...DROPS.map(([, , bytes]) => bytes)];
    const total = 3000;
    let allowed = 0;
    let heard: Buffer[] = [];
    for (let i = 0; i < total; i++) {
      const bytes = damaged(random, random.pick(seeds));
      if (isAllowed(bytes)) allowed++;
      assert.equal(sendBytes(queue, bytes), true);
      if (i % 100 === 99) {
        await settled(i + 1);
        heard = heard.concat(wire.drain());
      }
    }
    await until(() => heard.push(...wire.drain()) >= allowed, 2000, `${allowed} frames`);
    for (const frame of heard) assert.ok(isAllowed(frame), frame.toString('hex'));
    assert.equal(heard.length, allowed);
    assert.equal(vnic.counters().txPackets, allowed);
    assert.ok(allowed > 100 && allowed < total - 100, 'both verdicts were exercised');
  });
});

function damaged(random: Random, bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice(
    0,
    random.oneIn(4) ? 14 + random.below(bytes.length - 13) : bytes.length,
  );
  for (let n = random.below(3); n > 0; n--)
    copy[random.below(Math.min(48, copy.length))] = random.uint32();
  return copy;
}

/** The rules of src/filter/boxes.ts for FILTERS, read off the bytes one by one. */
function isAllowed(frame: Uint8Array): boolean {
  const bytes = Buffer.from(frame);
  const macAt = (at: number): number => bytes.readUIntBE(at, 6);
  if (macAt(6) !== HERE.mac) return false;
  const type = bytes.readUInt16BE(12);
  if (type === 0x0806) {
    if (bytes.length < 42 || bytes.readUIntBE(14, 6) !== 0x000108000604) return false;
    const target = bytes.readUInt32BE(38);
    return macAt(22) === HERE.mac && bytes.readUInt32BE(28) === WHOLE.ip && reaches(bytes, target);
  }
  if (type !== 0x0800 || bytes.length < 34) return false;
  const headerLength = (bytes[14]! & 15) * 4;
  const totalLength = bytes.readUInt16BE(16);
  if (bytes[14]! >> 4 !== 4 || headerLength < 20 || totalLength < headerLength) return false;
  if (14 + totalLength > bytes.length) return false;
  const protocol = bytes[23]!;
  const isLaterFragment = (bytes.readUInt16BE(20) & 0x1fff) !== 0;
  const hasPorts = !isLaterFragment && (protocol === 6 || protocol === 17);
  if (hasPorts && bytes.length < 14 + headerLength + 4) return false;
  if (!reaches(bytes, bytes.readUInt32BE(30))) return false;
  const source = bytes.readUInt32BE(26);
  if (source === WHOLE.ip) return true;
  if (source === SECOND.ip) return protocol === 1;
  if (isLaterFragment || source !== HERE.ip || protocol !== 17) return false;
  const port = bytes.readUInt16BE(14 + headerLength);
  return port >= 7 && port <= 9;
}

/** Not to itself, where there is no wire to hear it on, nor to its own MAC. */
function reaches(bytes: Buffer, target: number): boolean {
  return bytes.readUIntBE(0, 6) !== HERE.mac && target !== WHOLE.ip;
}
