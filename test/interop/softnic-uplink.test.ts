/** The software NIC's way out: the host's kernel behind a TAP interface, in a network namespace of the test's own. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import fs from 'node:fs';
import { test } from 'node:test';
import { closeFd } from '../../src/ffi/fd.ts';
import { addAddress, requireLink, setLinkUp } from '../../src/ffi/netlink/index.ts';
import { openTap } from '../../src/ffi/tap.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { ADDRESSES, Application, SoftNicProcess } from './softnic.harness.ts';

const { aMac, aIp } = ADDRESSES;
const HOST = '10.0.0.254';
const HOST_IP = 0x0a00_00fe;
const PORT = 7000;

test('UDP and ARP between an application and the kernel', { skip: rootMissing() }, async (t) => {
  isolateNetwork();
  const tap = openTap({ name: 'snic0' });
  fs.writeFileSync('/proc/sys/net/ipv6/conf/snic0/disable_ipv6', '1');
  const { index } = requireLink('snic0');
  addAddress(index, HOST_IP, 24);
  setLinkUp(index);
  const nic = new SoftNicProcess();
  t.after(() => nic.close());
  assert.equal(nic.request({ op: 'uplink' }, [tap.fd]).ok, true);
  closeFd(tap.fd);
  const app = Application.connect(nic, 1, 'a');
  t.after(() => app.close());
  const socket = dgram.createSocket('udp4');
  t.after(() => socket.close());
  socket.bind(PORT, HOST);
  await once(socket, 'listening');

  // The kernel asks who has the application's address, by broadcast; the answer is the application's to give.
  socket.send('ping', PORT, '10.0.0.1');
  const frames: Buffer[] = [];
  await until(() => frames.push(...app.receive()) > 0);
  const request = frames[0]!;
  assert.equal(request.readUInt16BE(12), 0x0806);
  assert.equal(request.readUInt32BE(38), aIp);
  const hostMac = request.readUIntBE(6, 6);
  const reply = Buffer.from(request);
  reply.writeUIntBE(hostMac, 0, 6);
  reply.writeUIntBE(aMac, 6, 6);
  reply.writeUInt8(2, 21);
  reply.writeUIntBE(aMac, 22, 6);
  reply.writeUInt32BE(aIp, 28);
  reply.writeUIntBE(hostMac, 32, 6);
  reply.writeUInt32BE(HOST_IP, 38);
  app.sendBytes(reply);

  // Then the datagram itself arrives, and goes back with its addresses and ports swapped.
  frames.length = 0;
  await until(() => frames.push(...app.receive()) > 0);
  const ping = frames[0]!;
  assert.equal(ping.toString('latin1', 42, 46), 'ping');
  const pong = Buffer.from(ping);
  ping.copy(pong, 0, 6, 12);
  ping.copy(pong, 6, 0, 6);
  ping.copy(pong, 26, 30, 34);
  ping.copy(pong, 30, 26, 30);
  ping.copy(pong, 34, 36, 38);
  ping.copy(pong, 36, 34, 36);
  const answered = once(socket, 'message');
  app.sendBytes(pong);
  const [message] = (await answered) as [Buffer];
  assert.equal(message.toString(), 'ping');
  const { uplink } = nic.request({ op: 'stats' });
  assert.ok(uplink!.rxPackets! >= 2 && uplink!.txPackets === 2, JSON.stringify(uplink));

  // With a MAC of its own, the uplink takes frames to that address only.
  assert.equal(nic.request({ op: 'uplink' }).ok, true);
  assert.equal(nic.request({ op: 'stats' }).uplink, null);
  const again = openTap({ name: 'snic0' });
  assert.equal(nic.request({ op: 'uplink', mac: hostMac }, [again.fd]).ok, true);
  closeFd(again.fd);
  setLinkUp(requireLink('snic0').index);
  const stray = Buffer.from(pong);
  stray.writeUIntBE(hostMac + 1, 0, 6);
  app.sendBytes(stray);
  await until(() => nic.stats(1).drops.noDestination === 1);
});

test('as root it becomes the user that it is told, and keeps serving', {
  skip: rootMissing(),
}, async () => {
  const nic = new SoftNicProcess(['--user=65534:65534']);
  nic.request({ op: 'stats' });
  const status = fs.readFileSync(`/proc/${nic.child.pid}/status`, 'utf8');
  assert.match(status, /^Uid:\s65534\s65534\s65534\s65534$/m);
  assert.match(status, /^Gid:\s65534\s65534\s65534\s65534$/m);
  assert.match(status, /^Groups:\s*$/m);
  assert.match(status, /^NoNewPrivs:\s1$/m);
  assert.match(status, /^CapEff:\s0+$/m);
  const a = Application.connect(nic, 1, 'a');
  const b = Application.connect(nic, 2, 'b');
  a.send(1);
  await until(() => b.receive().length === 1);
  a.close();
  b.close();
  assert.equal(await nic.close(), 0);
});
