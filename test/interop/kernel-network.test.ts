/**
 * An address that applications share with the kernel: its neighbours, routes and MTU are the kernel's, and no port of it has
 * two owners. A real daemon on a real interface, with a kernel at the other end. Needs root.
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import {
  type Domain,
  followKernel,
  type HostNetwork,
  NetInterface,
  UDP_PAYLOAD_OFFSET,
  type Vnic,
} from '../../src/arrakis/index.ts';
import { parseIpv4 } from '../../src/base/address.ts';
import { closeFd, POLLIN, pollOne, readFd } from '../../src/ffi/fd.ts';
import { bindUdp, occupyPort } from '../../src/ffi/inet.ts';
import { addRoute, requireLink, setMtu, setNeighbour } from '../../src/ffi/netlink/index.ts';
import { TestDaemon } from '../crash/daemon.harness.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { HERE, INTERFACE, Lab, THERE } from './af-xdp.harness.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const TIMEOUT_MS = 8000;
const isFree = (protocol: 'udp' | 'tcp', port: number): boolean => {
  try {
    closeFd(occupyPort(protocol, HERE.ip, port));
    return true;
  } catch {
    return false;
  }
};

describe('an address shared with the kernel', { skip }, () => {
  let lab: Lab;
  let daemon: TestDaemon;
  let domain: Domain;
  const vnics: Vnic[] = [];

  before(async () => {
    lab = new Lab();
    daemon = await TestDaemon.start();
    domain = await daemon.connect();
  });
  afterEach(async () => {
    for (const vnic of vnics.splice(0)) await vnic.close();
  });
  after(async () => {
    await domain.close();
    await daemon.close();
    lab.close();
  });

  async function open(ports: string): Promise<Vnic> {
    const vnic = await domain.openVnic(`${INTERFACE},${ports}`);
    vnics.push(vnic);
    return vnic;
  }

  test('the kernel finds the neighbour that the first datagram is for', async () => {
    const vnic = await open('port=udp:7');
    const net = new NetInterface(vnic);
    await followKernel(vnic, net);
    assert.equal(net.neighbourState(THERE.ip), 'free');
    const receiver = lab.far.run(() => bindUdp(THERE.ip, 9999));
    try {
      const frame = net.udp.alloc();
      vnic.queue.memory.u8.set(Buffer.from('hello'), frame + UDP_PAYLOAD_OFFSET);
      assert.ok(net.udp.sendTo(frame, 5, 7, THERE.ip, 9999), 'it waits for the neighbour');
      let nowMs = 0;
      const isThere = () => {
        net.poll(nowMs++);
        return pollOne(receiver, POLLIN, 0) !== 0;
      };
      await until(isThere, TIMEOUT_MS, 'the datagram arrives');
      const buffer = Buffer.alloc(100);
      assert.equal(buffer.toString('latin1', 0, readFd(receiver, buffer)), 'hello');
      assert.equal(net.neighbourState(THERE.ip), 'reachable');
      assert.equal(net.counters.arpRequests, 0, 'not a word of ARP from us');
    } finally {
      closeFd(receiver);
    }
  });

  test('what the kernel is told, the application is told: a neighbour, a route, an MTU', async () => {
    const vnic = await open('port=udp:7');
    let network: HostNetwork = await vnic.network();
    vnic.on('network', (now) => {
      network = now;
    });
    assert.deepEqual(network.addresses, [{ address: HERE.ip, prefix: 24 }]);
    assert.equal(network.mtu, 1500);
    const { index } = requireLink(INTERFACE);
    const other = { address: parseIpv4('10.9.0.77'), mac: 0x020000000077, reachable: true };
    setNeighbour(index, other.address, other.mac);
    addRoute(parseIpv4('10.77.0.0'), 16, { index, gateway: other.address });
    setMtu(index, 1400);
    const isTold = () =>
      network.mtu === 1400 &&
      network.neighbours.some((one) => one.address === other.address && one.mac === other.mac) &&
      network.routes.some((one) => one.gateway === other.address && one.prefix === 16);
    await until(isTold, TIMEOUT_MS, 'all of it is told');
    setMtu(index, 1500);
    const net = new NetInterface(vnic);
    await followKernel(vnic, net);
    assert.equal(net.neighbourState(other.address), 'reachable');
    assert.ok(net.udp.sendTo(net.udp.alloc(), 5, 7, parseIpv4('10.77.1.2'), 9), 'by that route');
    net.close();
  });

  test('the kernel asks for neighbours of the link only, and not without end', async () => {
    const vnic = await open('port=udp:7');
    for (const address of ['10.10.0.1', HERE.text, '127.0.0.1']) {
      await assert.rejects(vnic.resolve(parseIpv4(address)), { code: 'ARK_BAD_ARGUMENT' });
    }
    const asked = Array.from({ length: 200 }, (_, i) =>
      vnic.resolve(parseIpv4(`10.9.0.${i + 10}`)),
    );
    const results = await Promise.allSettled(asked);
    const refused = results.filter((result) => result.status === 'rejected');
    assert.ok(refused.length > 50);
    assert.ok(refused.every(({ reason }) => reason.code === 'ARK_LIMIT'));
    const own = await domain.openVnic(`${INTERFACE},ip=10.9.0.5/24`);
    vnics.push(own);
    await assert.rejects(own.network(), { code: 'ARK_UNSUPPORTED' });
  });

  test('a port of a VNIC is refused to the kernel, and free again afterwards', async () => {
    const vnic = await open('port=udp:7,port=tcp:80-82');
    const taken = (): boolean[] => [
      isFree('udp', 7),
      isFree('tcp', 80),
      isFree('tcp', 82),
      isFree('tcp', 7),
      isFree('tcp', 83),
    ];
    assert.deepEqual(taken(), [false, false, false, true, true]);
    await vnic.addFilter('udp and dst port 99');
    assert.ok(!isFree('udp', 99));
    await vnic.replaceFilters(['tcp and dst port 80']);
    assert.deepEqual([isFree('udp', 99), isFree('udp', 7), isFree('tcp', 80)], [true, true, false]);
    await vnic.close();
    assert.deepEqual(taken(), [true, true, true, true, true]);
  });

  test('a port that a kernel socket has is refused, with the name of its owner', async () => {
    for (const address of [HERE.ip, 0]) {
      const fd = bindUdp(address, 5353);
      try {
        await assert.rejects(open('port=udp:5350-5360'), (error: Error & { code?: string }) => {
          assert.equal(error.code, 'ARK_IN_USE');
          assert.match(error.message, new RegExp(`udp port 5353 .* \\(pid ${process.pid}\\)`));
          return true;
        });
        const vnic = await open('port=udp:5400');
        await assert.rejects(vnic.addFilter('udp and dst port 5353'), { code: 'ARK_IN_USE' });
        await vnic.close();
      } finally {
        closeFd(fd);
      }
      assert.ok(isFree('udp', 5350), 'none of the range was kept');
    }
  });

  test('the next daemon has the ports of the one that was killed', async () => {
    const vnic = await open('port=udp:7');
    let told = 0;
    await vnic.network();
    vnic.on('network', () => told++);
    await daemon.signal('SIGKILL');
    assert.ok(!isFree('udp', 7), 'also while there is no daemon');
    const resumed = new Promise<void>((resolve) => domain.once('resumed', () => resolve()));
    daemon = await TestDaemon.start({ dir: daemon.dir });
    await resumed;
    assert.ok(!isFree('udp', 7));
    await until(() => told > 0, TIMEOUT_MS, 'the next daemon tells, too');
    await vnic.close();
    assert.ok(isFree('udp', 7));
  });
});
