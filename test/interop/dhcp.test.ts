/** The DHCP client and a real server: dnsmasq in another namespace. Needs root. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIpv4 } from '../../src/base/address.ts';
import { closeFd, POLLIN, pollOne, readFd, writeFd } from '../../src/ffi/fd.ts';
import { openPacketSocket } from '../../src/ffi/packet.ts';
import { DhcpClient } from '../../src/net/dhcp/client.ts';
import { NetInterface } from '../../src/net/interface.ts';
import { FakeQueue } from '../support/fake-queue.ts';
import { connect, isolateNetwork, Namespace } from '../support/network.ts';
import { requirePackage, rootMissing } from '../support/privilege.ts';
import { Random } from '../support/random.ts';
import { until } from '../support/until.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const MAC = 0x02000000dc02;
const TIMEOUT_MS = 15_000;

test('an address from dnsmasq, and back again', { skip }, async (t) => {
  if (!requirePackage(t, 'dnsmasq', 'dnsmasq-base')) return;
  const far = new Namespace();
  const link = connect(far, {
    local: { name: 'dhcp0' },
    remote: { name: 'dhcp1', ip: '10.66.0.1', mac: '02:00:00:00:dc:01' },
  });
  const wire = openPacketSocket(link.localIndex);
  try {
    const server = far.spawn(
      'dnsmasq',
      [
        '--no-daemon',
        '--conf-file=/dev/null',
        '--port=0',
        '--interface=dhcp1',
        '--bind-interfaces',
        '--dhcp-range=10.66.0.100,10.66.0.120,255.255.255.0,2m',
        '--dhcp-option=option:dns-server,10.66.0.1',
        '--dhcp-option=121,10.77.0.0/16,10.66.0.9,0.0.0.0/0,10.66.0.1',
        '--dhcp-leasefile=/dev/null',
        '--user=root',
        '--log-dhcp',
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let log = '';
    server.stderr!.setEncoding('utf8').on('data', (text: string) => {
      log += text;
    });
    await until(() => log.includes('DHCP, IP range'), TIMEOUT_MS, 'dnsmasq serves');
    const queue = new FakeQueue();
    const generator = new Random(Date.now());
    const random = () => generator.uint32();
    const net = new NetInterface({ queue, mac: MAC, address: 0, prefix: 0, random });
    const client = new DhcpClient({ net, mac: MAC, random, hostName: 'arrakis' }, queue.memory.u8);
    client.start();
    const buffer = Buffer.alloc(2048);
    let nowMs = 0;
    const turn = (): void => {
      while (pollOne(wire, POLLIN, 0) !== 0) {
        const length = readFd(wire, buffer);
        queue.inject(buffer.subarray(0, length));
      }
      nowMs += 20;
      net.poll(nowMs);
      for (const frame of queue.takeSent()) writeFd(wire, frame);
    };
    const isBound = () => {
      turn();
      return client.state === 'bound';
    };
    await until(isBound, TIMEOUT_MS, `a lease; the server says ${log}`);
    const lease = client.lease!;
    assert.ok(
      lease.address >= parseIpv4('10.66.0.100') && lease.address <= parseIpv4('10.66.0.120'),
    );
    assert.deepEqual(
      [lease.prefix, lease.gateway, lease.seconds],
      [24, parseIpv4('10.66.0.1'), 120],
    );
    assert.deepEqual(lease.dns, [parseIpv4('10.66.0.1')]);
    assert.equal(lease.routes.length, 1);
    const address = [24, 16, 8, 0].map((shift) => (lease.address >>> shift) & 255).join('.');
    const ping = far.spawn('ping', ['-c', '1', '-W', '5', address], { stdio: 'ignore' });
    const isAnswered = () => {
      turn();
      return ping.exitCode !== null;
    };
    await until(isAnswered, TIMEOUT_MS, 'the ping ends');
    assert.equal(ping.exitCode, 0, 'the interface answers at its new address');
    // Time flies: the lease is renewed with the same server.
    const askedBefore = log.split('DHCPREQUEST').length;
    nowMs += 60_000;
    const isRenewed = () => {
      turn();
      return log.split('DHCPREQUEST').length > askedBefore && client.state === 'bound';
    };
    await until(isRenewed, TIMEOUT_MS, 'the lease is renewed');
    assert.equal(client.lease!.address, lease.address);
    client.release();
    const isReleased = () => {
      turn();
      return log.includes('DHCPRELEASE');
    };
    await until(isReleased, TIMEOUT_MS, 'the server has it back');
  } finally {
    closeFd(wire);
    link.remove();
    far.close();
  }
});
