/** AF_XDP attached to a real interface, with a kernel at the other end of the wire. Needs root. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { NIC_STATE } from '../../src/device/nic.ts';
import { findStaleLinks, removeStaleLinks, XdpInterface } from '../../src/drivers/af-xdp/attach.ts';
import { COMPILED_BOXES_MAX } from '../../src/drivers/af-xdp/rules.ts';
import { setGro } from '../../src/ffi/ethtool.ts';
import { closeFd, POLLIN, pollOne, writeFd } from '../../src/ffi/fd.ts';
import {
  linkByName,
  listLinks,
  requireLink,
  setLinkDown,
  setLinkUp,
} from '../../src/ffi/netlink/index.ts';
import { openPacketSocket } from '../../src/ffi/packet.ts';
import { filter } from '../../src/filter/build.ts';
import { udpFrame } from '../support/frames.ts';
import { LeakCheck } from '../support/leaks.ts';
import { isolateNetwork } from '../support/network.ts';
import { requirePackage, rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import {
  FAR_INTERFACE,
  flow,
  HERE,
  INTERFACE,
  Lab,
  Outcome,
  Responder,
  THERE,
  udpClient,
} from './af-xdp.harness.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const codeOf = (code: string) => (error: unknown) => (error as { code?: string }).code === code;

for (const kind of ['direct', 'switched'] as const) {
  describe(`af-xdp ${kind}`, { skip }, () => {
    let lab: Lab;
    let leaks: LeakCheck;
    beforeEach(() => {
      leaks = new LeakCheck();
      lab = new Lab();
    });
    afterEach(async () => {
      lab.close();
      await leaks.assertNone();
    });

    test('a kernel client talks to the application; nothing is lost or miscounted', async () => {
      const vnic = lab.attach(kind, [flow('udp', HERE.text, 7)]);
      const queue = lab.open(vnic);
      const responder = new Responder(queue, HERE.mac);
      const client = udpClient(lab.far, HERE.text, 7, 3000);
      await responder.serve(client.ended);
      assert.equal(client.text.trim(), 'all 3000');
      const counters = vnic.counters();
      assert.equal(counters.rxPackets, 3000);
      assert.equal(counters.rxBytes, queue.counters.rxBytes);
      assert.equal(counters.txPackets, kind === 'direct' ? 0 : 3000);
      assert.deepEqual(counters.drops, {});
      assert.equal(queue.state, NIC_STATE.up);
    });

    test('with an address of its own it answers ARP and ping', async (t) => {
      if (!requirePackage(t, 'ping', 'iputils-ping')) return;
      const queue = lab.open(lab.attach(kind, [flow('any', '10.9.0.50')]));
      const responder = new Responder(queue, HERE.mac);
      const child = lab.far.spawn('ping', ['-c5', '-i0.05', '-W2', '-s1000', '10.9.0.50']);
      const ping = new Outcome(child);
      await responder.serve(ping.ended);
      assert.match(ping.text, /5 received/);
    });

    test('what no filter names stays with the kernel: TCP, other ports, ping', async (t) => {
      if (!requirePackage(t, 'ping', 'iputils-ping')) return;
      const vnic = lab.attach(kind, [flow('udp', HERE.text, 7), flow('tcp', HERE.text, 9)]);
      const responder = new Responder(lab.open(vnic), HERE.mac);
      const server = net.createServer((socket) => socket.pipe(socket)).listen(8080, HERE.text);
      try {
        const script = `
          const s = require('node:net').connect(8080, '${HERE.text}');
          let got = 0;
          s.on('data', (d) => { got += d.length; if (got === 300000) { console.log('tcp', got); process.exit(0); } });
          s.write(Buffer.alloc(300000, 'x'));
          setTimeout(() => process.exit(1), 8000);`;
        const tcp = new Outcome(lab.far.spawn(process.execPath, ['-e', script]));
        const udp = udpClient(lab.far, HERE.text, 7, 500);
        const ping = new Outcome(lab.far.spawn('ping', ['-c3', '-i0.05', '-W2', HERE.text]));
        await responder.serve(() => tcp.ended() && udp.ended() && ping.ended());
        assert.equal(tcp.text.trim(), 'tcp 300000');
        assert.equal(udp.text.trim(), 'all 500');
        assert.match(ping.text, /3 received/);
        assert.equal(vnic.counters().rxPackets, 500);
      } finally {
        server.close();
      }
    });

    test('frames for another station stay with the kernel, whatever address they carry', async () => {
      const vnic = lab.attach(kind, [flow('any', '10.9.0.50')]);
      const socket = lab.far.run(() => openPacketSocket(linkByName(FAR_INTERFACE)!.index));
      try {
        const send = (mac: number): void => {
          const to = { mac, ip: parseIpv4('10.9.0.50'), port: 7 };
          writeFd(socket, udpFrame({ ...THERE, port: 9999 }, to, Buffer.alloc(32)));
        };
        for (let i = 0; i < 3; i++) send(parseMac('02:de:ad:be:ef:01'));
        send(HERE.mac);
        await until(() => vnic.counters().rxPackets > 0, 2000, 'the frame that is for us');
        assert.equal(vnic.counters().rxPackets, 1);
      } finally {
        closeFd(socket);
      }
    });

    test('filters change while it runs, without a new program', async () => {
      const vnic = lab.attach(kind, [flow('udp', HERE.text, 7)]);
      const program = requireLink(INTERFACE).xdpProgId;
      const responder = new Responder(lab.open(vnic), HERE.mac);
      vnic.setFilters([flow('udp', HERE.text, 7), flow('udp', HERE.text, 1000, 1010)]);
      for (const port of [7, 1000, 1010]) {
        const client = udpClient(lab.far, HERE.text, port, 20);
        await responder.serve(client.ended);
        assert.equal(client.text.trim(), 'all 20', `port ${port}`);
      }
      vnic.setFilters([flow('udp', HERE.text, 1000)]);
      const before = vnic.counters().rxPackets;
      lab.far.exec(process.execPath, ['-e', datagram(HERE.text, 7)]);
      lab.far.exec(process.execPath, ['-e', datagram(HERE.text, 1000)]);
      await until(() => vnic.counters().rxPackets === before + 1, 2000, 'one datagram');
      assert.equal(requireLink(INTERFACE).xdpProgId, program);
    });

    test('the doorbell rings for an armed queue', async () => {
      const vnic = lab.attach(kind, [flow('udp', HERE.text, 7)]);
      const queue = lab.open(vnic);
      assert.equal(queue.arm(), true);
      assert.equal(pollOne(queue.doorbellFd, POLLIN, 0), 0);
      lab.far.exec(process.execPath, ['-e', datagram(HERE.text, 7)]);
      assert.equal(pollOne(queue.doorbellFd, POLLIN, 2000), POLLIN);
      queue.disarm();
      assert.equal(queue.arm(), false);
      assert.equal(queue.counters.wakeups, 1);
    });

    test('an interface that vanishes leaves a queue that says so, and detaches in peace', async () => {
      const vnic = lab.attach(kind, [flow('udp', HERE.text, 7)]);
      const queue = lab.open(vnic);
      lab.removeLink();
      assert.equal(lab.nic.isPresent(), false);
      // A switched VNIC hangs on its veth, which goes when the daemon has heard of the loss.
      if (kind === 'switched') vnic.detach();
      assert.equal(queue.arm(), false);
      assert.equal(queue.state, NIC_STATE.gone);
      assert.equal(queue.rxBatch(new Uint32Array(4), new Uint16Array(4), 4), 0);
      vnic.detach();
      vnic.detach();
      assert.throws(() => vnic.counters(), codeOf('ARK_GONE'));
    });

    test('detached, it hears nothing, and the flow is free for another', async () => {
      const filters = [flow('udp', HERE.text, 7)];
      const first = lab.attach(kind, filters);
      first.detach();
      const second = lab.attach(kind, filters);
      assert.equal(second.counters().rxPackets, 0);
      const responder = new Responder(lab.open(second), HERE.mac);
      const client = udpClient(lab.far, HERE.text, 7, 50);
      await responder.serve(client.ended);
      assert.equal(client.text.trim(), 'all 50');
    });
  });
}

/** A program that sends one datagram. */
const datagram = (address: string, port: number): string => `
  const socket = require('node:dgram').createSocket('udp4');
  socket.send('x', ${port}, '${address}', () => socket.close());`;

describe('af-xdp attach', { skip }, () => {
  let lab: Lab;
  let leaks: LeakCheck;
  beforeEach(() => {
    leaks = new LeakCheck();
    lab = new Lab();
  });
  afterEach(async () => {
    lab.close();
    await leaks.assertNone();
  });

  test('a queue has one direct VNIC; the refused one leaves nothing, and switched ones still fit', () => {
    lab.attach('direct', [flow('udp', HERE.text, 7)]);
    assert.throws(
      () => lab.attach('direct', [flow('udp', HERE.text, 8)]),
      (error: Error) => {
        assert.match(String((error as { hint?: string }).hint), /switched/);
        return codeOf('ARK_IN_USE')(error);
      },
    );
    lab.attach('switched', [flow('udp', HERE.text, 8)]);
    lab.attach('switched', [flow('udp', HERE.text, 9)]);
  });

  test('a flow has one owner', () => {
    lab.attach('switched', [flow('udp', HERE.text, 100, 200)], { name: 'first' });
    for (const clash of [
      flow('udp', HERE.text, 150),
      flow('any', HERE.text),
      flow('udp', HERE.text),
    ]) {
      assert.throws(
        () => lab.attach('switched', [clash]),
        (error: Error) => {
          assert.match(error.message, /belongs to VNIC first/);
          return codeOf('ARK_IN_USE')(error);
        },
      );
    }
    assert.equal(listLinks().filter((link) => link.name.startsWith('ark')).length, 2);
  });

  test('filters are bounded, and a refused change keeps the old ones', async () => {
    const vnic = lab.attach('switched', [flow('udp', HERE.text, 7)]);
    const ports = Array.from({ length: COMPILED_BOXES_MAX + 1 }, (_, i) => 2 * i + 1);
    const tooMany = ports.map((port) => filter.udp().dstHost(HERE.text).srcPort(port));
    assert.throws(() => vnic.setFilters(tooMany), codeOf('ARK_LIMIT'));
    vnic.setFilters([flow('udp', HERE.text, 7), flow('udp', HERE.text, 2000, 3022)]);
    const responder = new Responder(lab.open(vnic), HERE.mac);
    const client = udpClient(lab.far, HERE.text, 3022, 10);
    await responder.serve(client.ended);
    assert.equal(client.text.trim(), 'all 10');
    assert.throws(() => vnic.setFilters(tooMany), codeOf('ARK_LIMIT'));
    const again = udpClient(lab.far, HERE.text, 3022, 10);
    await responder.serve(again.ended);
    assert.equal(again.text.trim(), 'all 10');
  });

  test('a socket serves one queue once: its buffers cannot be had back', () => {
    const vnic = lab.attach('direct', [flow('udp', HERE.text, 7)]);
    lab.open(vnic).close();
    assert.throws(() => lab.open(vnic), codeOf('ARK_IN_USE'));
  });

  test('an impossible geometry is refused with what would do', () => {
    for (const wrong of [{ ringSize: 100 }, { frameCount: 64 }, { frameSize: 1024 as 2048 }]) {
      assert.throws(() => lab.attach('direct', [], wrong), codeOf('ARK_BAD_ARGUMENT'));
    }
  });

  test('an interface that is missing, down, or taken by another program', () => {
    assert.throws(() => XdpInterface.open('nosuch0'), codeOf('ARK_NOT_FOUND'));
    assert.throws(() => XdpInterface.open('lo'), codeOf('ARK_UNSUPPORTED'));
    const { index } = requireLink(INTERFACE);
    setLinkDown(index);
    assert.throws(() => XdpInterface.open(INTERFACE), codeOf('ARK_GONE'));
    setLinkUp(index);
    assert.equal(lab.nic.mode, 'native');
    assert.throws(
      () => XdpInterface.open(INTERFACE),
      (error: Error) => {
        assert.match(error.message, /ark_steer/);
        return codeOf('ARK_IN_USE')(error);
      },
    );
  });

  test('an interface that spreads flows over queues needs one to be named', () => {
    lab.close();
    lab = new Lab({ queues: 2 });
    assert.throws(
      () => lab.attach('direct', [flow('udp', HERE.text, 7)]),
      codeOf('ARK_UNSUPPORTED'),
    );
    lab.attach('direct', [flow('udp', HERE.text, 7)], { queue: 1 });
    lab.attach('switched', [flow('udp', HERE.text, 8)]);
  });

  test('what a killed daemon left is found by its alias and removed', () => {
    lab.attach('switched', [flow('udp', HERE.text, 7)], { alias: 'arrakis:mine:7' });
    lab.attach('switched', [flow('udp', HERE.text, 8)], { alias: 'arrakis:yours:8' });
    const [stale, ...others] = findStaleLinks('arrakis:mine');
    assert.deepEqual(others, []);
    assert.deepEqual(removeStaleLinks('arrakis:mine'), [stale!.name]);
    assert.deepEqual(findStaleLinks('arrakis:mine'), []);
    assert.equal(findStaleLinks('arrakis:').length, 1);
    assert.equal(linkByName(stale!.name.replace('a', 'b')), null);
  });

  test('a wire without NAPI at its end takes frames of a switched VNIC by the slow path', async () => {
    lab.far.run(() => setGro(FAR_INTERFACE, false));
    const vnic = lab.attach('switched', [flow('udp', HERE.text, 7)]);
    const responder = new Responder(lab.open(vnic), HERE.mac);
    const client = udpClient(lab.far, HERE.text, 7, 200);
    await responder.serve(client.ended);
    assert.equal(client.text.trim(), 'all 200');
    assert.equal(vnic.counters().txPackets, 200);
  });

  test('a jumbo interface is served in skb mode, within the size of a frame', async () => {
    lab.close();
    lab = new Lab({ mtu: 9000 });
    const vnic = lab.attach('switched', [flow('udp', HERE.text, 7)]);
    assert.equal(lab.nic.mode, 'skb');
    assert.equal(vnic.grant.mtu, 2048 - 256 - 14);
    const responder = new Responder(lab.open(vnic), HERE.mac);
    const client = udpClient(lab.far, HERE.text, 7, 200);
    await responder.serve(client.ended);
    assert.equal(client.text.trim(), 'all 200');
  });
});
