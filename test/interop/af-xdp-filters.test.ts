/** Filters that are no keys of the flow table, in the programs of a real interface. Needs root. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { formatIpv4, parseIpv4 } from '../../src/base/address.ts';
import { DROP_REASONS } from '../../src/device/drops.ts';
import type { NicQueue } from '../../src/device/nic.ts';
import { XdpInterface, type XdpVnic } from '../../src/drivers/af-xdp/attach.ts';
import { COMPILED_BOXES_MAX } from '../../src/drivers/af-xdp/rules.ts';
import { closeAll, closeFd, writeFd } from '../../src/ffi/fd.ts';
import { deleteLink, linkByName, listLinks, removeAddress } from '../../src/ffi/netlink/index.ts';
import { openPacketSocket } from '../../src/ffi/packet.ts';
import type { Filter } from '../../src/filter/boxes.ts';
import { filter } from '../../src/filter/build.ts';
import { parseFilter } from '../../src/filter/parse.ts';
import { FilterSet, FrameFields } from '../../src/softnic/match.ts';
import * as arp from '../../src/wire/arp.ts';
import { arpFrame, echoFrame, type Host, udpFrame } from '../support/frames.ts';
import { LeakCheck } from '../support/leaks.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { Random } from '../support/random.ts';
import { until } from '../support/until.ts';
import {
  FAR_INTERFACE,
  GEOMETRY,
  HERE,
  INTERFACE,
  Lab,
  Responder,
  receiveAll,
  sendBytes,
  THERE,
  udpClient,
} from './af-xdp.harness.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const codeOf = (code: string) => (error: unknown) => (error as { code?: string }).code === code;
const parsed = (...texts: string[]): Filter[] => texts.map(parseFilter);
const payload = Buffer.alloc(20, 'p');

/** The last frame of a batch: a flow that every VNIC here has, so that all before it were judged when it comes. */
const LAST = { mac: HERE.mac, ip: parseIpv4('10.9.0.99'), port: 9 };
const last = 'udp and dst host 10.9.0.99 and dst port 9';

/** The far end of the wire, frame by frame. */
class Wire {
  readonly #fd: number;

  constructor(lab: Lab) {
    this.#fd = lab.far.run(() => openPacketSocket(linkByName(FAR_INTERFACE)!.index));
  }

  send(bytes: Uint8Array): void {
    writeFd(this.#fd, Buffer.from(bytes));
  }

  /** Send `frames`; resolves with those that `queue` received. */
  async deliver(queue: NicQueue, frames: readonly Uint8Array[]): Promise<Buffer[]> {
    for (const frame of frames) this.send(frame);
    const end = udpFrame({ ...THERE, port: 1 }, LAST, payload);
    this.send(end);
    const received: Buffer[] = [];
    const isEnd = (frame: Buffer): boolean => frame.equals(end);
    await until(() => {
      received.push(...receiveAll(queue));
      return received.some(isEnd);
    });
    return received.filter((frame) => !isEnd(frame));
  }

  close(): void {
    closeFd(this.#fd);
  }
}

const from = (ip: string, port = 1000) => ({ mac: THERE.mac, ip: parseIpv4(ip), port });
const to = (ip: string, port: number) => ({ mac: HERE.mac, ip: parseIpv4(ip), port });

describe('af-xdp, compiled filters', { skip }, () => {
  let lab: Lab;
  let wire: Wire;
  let leaks: LeakCheck;
  beforeEach(() => {
    leaks = new LeakCheck();
    lab = new Lab();
    wire = new Wire(lab);
  });
  afterEach(async () => {
    wire.close();
    lab.close();
    await leaks.assertNone();
  });

  for (const kind of ['direct', 'switched'] as const) {
    test(`${kind}: one port, two owners by source`, async (t) => {
      const near = 'udp dst port 7 and dst host 10.9.0.1 and src net 10.9.0.0/25';
      const far = 'udp dst port 7 and dst host 10.9.0.1 and src net 10.9.0.128/25';
      const first = lab.attach(kind, parsed(near, last));
      // A direct VNIC has the interface's queue: the second one is switched.
      const second = lab.attach('switched', parsed(far), { name: 'second' });
      const queue = lab.open(first);
      const other = lab.open(second);
      const frames = ['10.9.0.2', '10.9.0.127', '10.9.0.128', '10.9.0.255', '10.9.1.0'].map((ip) =>
        udpFrame(from(ip), to('10.9.0.1', 7), payload),
      );
      const mine = await wire.deliver(queue, frames);
      assert.deepEqual(
        mine,
        frames.slice(0, 2).map((frame) => Buffer.from(frame)),
      );
      const theirs: Buffer[] = [];
      await until(() => theirs.push(...receiveAll(other)) >= 2);
      assert.deepEqual(
        theirs,
        frames.slice(2, 4).map((frame) => Buffer.from(frame)),
      );
      assert.throws(
        () => second.setFilters(parsed('udp dst port 7 and src host 10.9.0.127')),
        (error: Error) => /belongs to VNIC/.test(error.message) && codeOf('ARK_IN_USE')(error),
      );
      t.diagnostic(`${first.counters().rxPackets} received`);
    });

    test(`${kind}: an unchanged flow loses nothing while filters change`, async () => {
      const flow = 'udp dst port 7 and dst host 10.9.0.1';
      const forms = [
        parsed(flow),
        parsed(flow, 'udp dst port 9 and dst host 10.9.0.1 and src net 10.1.0.0/16'),
        parsed(`${flow} and src net 10.9.0.0/24`),
        parsed('udp dst portrange 5-9 and dst host 10.9.0.1'),
        parsed('udp and dst host 10.9.0.1 and not dst port 9'),
        parsed(`${flow} and src host 10.9.0.2`, 'udp dst port 8 and dst host 10.9.0.1'),
      ];
      const vnic = lab.attach(kind, forms[0]!);
      const responder = new Responder(lab.open(vnic), HERE.mac);
      const client = udpClient(lab.far, HERE.text, 7, 3000);
      let changes = 0;
      await responder.serve(() => {
        vnic.setFilters(forms[++changes % forms.length]!);
        return client.ended();
      });
      assert.equal(client.text.trim(), 'all 3000');
      assert.ok(changes > forms.length, `${changes} changes`);
      assert.equal(vnic.counters().rxPackets, 3000);
      if (kind === 'switched') assert.equal(vnic.counters().txPackets, 3000);
      assert.deepEqual(vnic.counters().drops, {});
    });
  }

  test('a network is had whole: ARP too, in and out', async () => {
    const vnic = lab.attach('switched', parsed('dst net 10.9.0.64/28', last));
    const queue = lab.open(vnic);
    const ask = (ip: string): Uint8Array =>
      arpFrame(arp.OP_REQUEST, THERE, { mac: 0, ip: parseIpv4(ip) });
    const frames = ['10.9.0.63', '10.9.0.64', '10.9.0.79', '10.9.0.80'].map(ask);
    const received = await wire.deliver(queue, frames);
    assert.deepEqual(received, [Buffer.from(frames[1]!), Buffer.from(frames[2]!)]);
    const tell = (ip: string): Uint8Array =>
      arpFrame(arp.OP_REQUEST, { mac: HERE.mac, ip: parseIpv4(ip) }, THERE);
    for (const ip of ['10.9.0.64', '10.9.0.79', '10.9.0.80', '10.9.0.99'])
      sendBytes(queue, tell(ip));
    await until(() => vnic.counters().drops.spoofedArp === 2);
    assert.equal(vnic.counters().txPackets, 2);
  });

  test('VNICs of one interface reach each other by compiled filters', async () => {
    const vnic = lab.attach('switched', parsed('dst host 10.9.0.50', last));
    const other = lab.attach('switched', parsed('udp and dst net 10.9.0.64/28'), { name: 'other' });
    const [here, there] = [lab.open(vnic), lab.open(other)];
    const fifty: Host = { mac: HERE.mac, ip: parseIpv4('10.9.0.50') };
    const greeting = udpFrame({ ...fifty, port: 5 }, to('10.9.0.70', 6), payload);
    sendBytes(here, greeting);
    const received: Buffer[] = [];
    await until(() => received.push(...receiveAll(there)) === 1);
    assert.deepEqual(received, [Buffer.from(greeting)]);
    sendBytes(there, udpFrame(to('10.9.0.70', 6), to('10.9.0.50', 5), payload));
    await until(() => receiveAll(here).length === 1);
    // When the other goes, nobody has what was for it, and the wire does not bring back what is for our own MAC.
    other.detach();
    sendBytes(here, greeting);
    await until(() => vnic.counters().drops.noDestination === 1);
  });

  test('what is sent has filters of its own, and mirrors again when they go', async () => {
    const vnic = lab.attach('switched', parsed('dst host 10.9.0.50', last));
    const queue = lab.open(vnic);
    const fifty: Host = { mac: HERE.mac, ip: parseIpv4('10.9.0.50') };
    const send = async (bytes: Uint8Array): Promise<string> => {
      const before = vnic.counters();
      sendBytes(queue, bytes);
      let verdict = '';
      await until(() => {
        const now = vnic.counters();
        if (now.txPackets > before.txPackets) verdict = 'sent';
        for (const reason of DROP_REASONS) {
          if ((now.drops[reason] ?? 0) > (before.drops[reason] ?? 0)) verdict = reason;
        }
        return verdict !== '';
      });
      return verdict;
    };
    const udp = udpFrame({ ...fifty, port: 53 }, { ...THERE, port: 53 }, payload);
    const other = udpFrame({ ...fifty, port: 53 }, { ...THERE, port: 54 }, payload);
    const echo = echoFrame(fifty, THERE, payload);
    const foreign = udpFrame({ ...HERE, port: 53 }, { ...THERE, port: 53 }, payload);
    assert.equal(await send(echo), 'sent');
    vnic.setFilters(
      parsed('dst host 10.9.0.50', last),
      parsed('udp and src host 10.9.0.50 and dst port 53'),
    );
    assert.equal(await send(udp), 'sent');
    assert.equal(await send(other), 'spoofedPort');
    assert.equal(await send(echo), 'spoofedPort');
    assert.equal(await send(foreign), 'spoofedAddress');
    assert.equal(
      await send(arpFrame(arp.OP_REQUEST, fifty, THERE)),
      'sent',
      'ARP is the address’s',
    );
    vnic.setFilters(parsed('dst host 10.9.0.50', last), []);
    assert.equal(await send(udp), 'spoofedAddress');
    vnic.setFilters(parsed('dst host 10.9.0.50', last));
    assert.equal(await send(echo), 'sent');
    const direct = lab.attach('direct', parsed('udp dst port 7 and dst host 10.9.0.1'), {
      name: 'd',
    });
    assert.throws(() => direct.setFilters([], parsed('any')), codeOf('ARK_UNSUPPORTED'));
  });

  test('as many boxes as there may be pass the verifier; what is too much changes nothing', async () => {
    const ports = Array.from({ length: COMPILED_BOXES_MAX }, (_, i) => 2 * i + 1);
    const many = ports.map((port) => filter.udp().dstHost('10.9.0.1').srcPort(port));
    const vnic = lab.attach('switched', parsed(last));
    const queue = lab.open(vnic);
    vnic.setFilters([...many, parseFilter(last)]);
    const frame = udpFrame(from('10.9.0.2', ports.at(-1)), to('10.9.0.1', 4242), payload);
    assert.equal((await wire.deliver(queue, [frame])).length, 1);
    const tooMany = Array.from({ length: 4000 }, (_, i) => filter.udp().srcPort(i).dstPort(7, 9));
    assert.throws(
      () => vnic.setFilters(parsed(last), tooMany),
      (error: Error) =>
        codeOf('ARK_LIMIT')(error) && /too (complex|large|many)/.test(error.message),
    );
    assert.throws(() => vnic.setFilters([...many, ...parsed('tcp', last)]), codeOf('ARK_LIMIT'));
    assert.equal((await wire.deliver(queue, [frame])).length, 1, 'the old filters hold');
  });

  test('another process goes on with compiled filters, and changes them', async () => {
    const receive = parsed('udp dst port 7 and dst host 10.9.0.1 and src net 10.9.0.0/25', last);
    const transmit = parsed('udp and src host 10.9.0.1 and src port 7 and dst net 10.9.0.0/24');
    const before = XdpInterface.open(INTERFACE);
    const gone = before.attachSwitched({ name: 'gone', filters: parsed('tcp'), ...GEOMETRY });
    const old = before.attachSwitched({ name: 'v', filters: receive, transmit, ...GEOMETRY });
    const queue = lab.open(old);
    const [nic, vnic] = [before.save(), old.save()];
    // What nobody adopts is not served any more: its rules go with `settle`.
    closeAll(gone.save().fds);
    const adopted = XdpInterface.adopt(INTERFACE, nic.state, nic.fds);
    try {
      const now = adopted.adoptVnic(receive, transmit, vnic.state, vnic.fds);
      adopted.settle();
      const at = (ip: string, port: number): Uint8Array =>
        udpFrame(from(ip), to('10.9.0.1', port), payload);
      const frames = [at('10.9.0.2', 7), at('10.9.0.200', 7), at('10.9.0.2', 8)];
      assert.equal((await wire.deliver(queue, frames)).length, 1);
      now.setFilters(parsed('udp dst port 7 or 8 and dst host 10.9.0.1', last), transmit);
      assert.equal((await wire.deliver(queue, frames)).length, 3);
      sendBytes(queue, udpFrame({ ...HERE, port: 7 }, { ...THERE, port: 7 }, payload));
      sendBytes(queue, udpFrame({ ...HERE, port: 8 }, { ...THERE, port: 7 }, payload));
      await until(() => now.counters().drops.spoofedPort === 1 && now.counters().txPackets === 1);
    } finally {
      adopted.close();
      for (const link of listLinks()) if (/^ark\d+a$/.test(link.name)) deleteLink(link.index);
    }
  });

  test('random filters take in and let out what the software NIC would', async () => {
    lab.far.run(() => removeAddress(linkByName(FAR_INTERFACE)!.index, THERE.ip, 24));
    const random = new Random(0xa5c1);
    const vnic = lab.attach('switched', parsed(last));
    const queue = lab.open(vnic);
    const seen = { taken: 0, left: 0, sent: 0, refused: 0 };
    for (let round = 0; round < 60; round++) {
      const receive = [...randomFilters(random), parseFilter(last)];
      const transmit = random.oneIn(2) ? null : randomFilters(random);
      vnic.setFilters(receive, transmit);
      const set = new FilterSet(HERE.mac, receive, transmit);
      const incoming = Array.from({ length: 25 }, () => randomFrame(random, THERE.mac, HERE.mac));
      const expected = incoming.filter((frame) => verdict(frame, (f) => set.receives(f)) === true);
      const received = await wire.deliver(queue, incoming);
      assert.deepEqual(
        received.map((frame) => frame.toString('hex')),
        expected.map((frame) => Buffer.from(frame).toString('hex')),
        `round ${round}: ${receive.map(String).join(' | ')}`,
      );
      seen.taken += expected.length;
      seen.left += incoming.length - expected.length;
      await sendRandom(random, vnic, queue, set, seen);
    }
    for (const [what, count] of Object.entries(seen)) assert.ok(count > 100, `${count} ${what}`);
  });
});

const ADDRESSES = ['10.9.0.48', '10.9.0.49', '10.9.0.50', '10.9.0.51', '10.9.0.64'].map(parseIpv4);
const PORTS = [6, 7, 8, 9, 53];

function randomFilters(random: Random): Filter[] {
  return Array.from({ length: 1 + random.below(3) }, () => {
    let one = filter;
    const address = (): string => formatIpv4(random.pick(ADDRESSES));
    if (random.oneIn(3)) one = one.dstNet('10.9.0.48/30');
    else if (!random.oneIn(4)) one = one.dstHost(address());
    if (random.oneIn(2)) one = one.and(random.pick([filter.udp(), filter.tcp(), filter.icmp()]));
    if (random.oneIn(3)) one = one.srcHost(address());
    if (random.oneIn(3)) one = one.dstPort(random.pick(PORTS), 53);
    if (random.oneIn(4)) one = one.and(filter.srcPort(random.pick(PORTS)).not());
    return one;
  });
}

/** A small frame among the addresses and ports that the filters speak of; fragments, other protocols, cut ones. */
function randomFrame(random: Random, source: number, target: number): Uint8Array {
  const host = (mac: number) => ({
    mac,
    ip: random.pick(ADDRESSES),
    port: random.pick(PORTS),
  });
  const [a, b] = [host(source), host(target)];
  const bytes = random.oneIn(8)
    ? arpFrame(arp.OP_REQUEST, a, b)
    : udpFrame(a, b, Buffer.alloc(26, 'x'));
  if (bytes[13] === 6) return bytes;
  bytes[23] = random.pick([1, 6, 17, 17, 132]);
  if (random.oneIn(6)) bytes.set([random.pick([0x00, 0x20]), random.pick([0, 5])], 20);
  if (random.oneIn(12)) bytes.set([0x00, random.pick([20, 22, 24, 200])], 16);
  return bytes;
}

/** What `check` says of a frame; null when it is no good one. */
function verdict<T>(bytes: Uint8Array, check: (fields: FrameFields) => T): T | null {
  const fields = new FrameFields();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return fields.parse(view, 0, bytes.length) < 0 ? null : check(fields);
}

/** Send random frames and hold the guard's counts to what `set` says of each. */
async function sendRandom(
  random: Random,
  vnic: XdpVnic,
  queue: NicQueue,
  set: FilterSet,
  seen: { sent: number; refused: number },
): Promise<void> {
  const before = vnic.counters();
  const expected: Record<string, number> = {};
  const total = 25;
  for (let i = 0; i < total; i++) {
    const bytes = randomFrame(random, HERE.mac, THERE.mac);
    const reason = verdict(bytes, (fields) => set.checkSent(fields));
    const name = reason === null ? 'truncated' : reason < 0 ? 'sent' : DROP_REASONS[reason]!;
    expected[name] = (expected[name] ?? 0) + 1;
    assert.equal(sendBytes(queue, bytes), true);
  }
  const counts = (): Record<string, number> => {
    const now = vnic.counters();
    const found: Record<string, number> = { sent: now.txPackets - before.txPackets };
    for (const reason of DROP_REASONS) {
      found[reason] = (now.drops[reason] ?? 0) - (before.drops[reason] ?? 0);
    }
    return Object.fromEntries(Object.entries(found).filter(([, count]) => count > 0));
  };
  await until(() => Object.values(counts()).reduce((sum, n) => sum + n, 0) === total);
  assert.deepEqual(counts(), Object.fromEntries(Object.entries(expected).sort(byReason)));
  receiveAll(queue);
  seen.sent += expected.sent ?? 0;
  seen.refused += total - (expected.sent ?? 0);
}

const byReason = ([a]: [string, number], [b]: [string, number]): number =>
  ['sent', ...DROP_REASONS].indexOf(a) - ['sent', ...DROP_REASONS].indexOf(b);
