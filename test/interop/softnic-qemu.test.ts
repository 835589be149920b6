/**
 * A virtual machine on a port of our software NIC. No guest system is needed: the boot firmware's network loader
 * (iPXE) drives virtio-net itself, asks for an address by DHCP, and answers ARP once it has one.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { formatMac } from '../../src/base/address.ts';
import { packageMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { ADDRESSES, Application, anyFilter, SoftNicProcess } from './softnic.harness.ts';

const QEMU = 'qemu-system-x86_64';
const skip = packageMissing(QEMU, 'qemu-system-x86');
const BOOT_TIMEOUT_MS = 60_000;
const { aMac, aIp, bMac, bIp } = ADDRESSES;
const ANY_ADDRESS = 0;
const LIMITED_BROADCAST = 0xffff_ffff;
const DHCP_OPTIONS = 14 + 20 + 8 + 240;

function startGuest(socket: string): ChildProcess {
  const args = ['-accel', 'tcg', '-m', '128', '-nodefaults', '-display', 'none', '-boot', 'n'];
  args.push('-no-reboot', '-object', 'memory-backend-memfd,id=mem0,size=128M,share=on');
  args.push('-machine', 'q35,memory-backend=mem0', '-chardev', `socket,id=c0,path=${socket}`);
  args.push('-netdev', 'vhost-user,id=v0,chardev=c0', '-device');
  args.push(`virtio-net-pci,netdev=v0,mac=${formatMac(bMac)},disable-legacy=on`);
  return spawn(QEMU, args, { stdio: ['ignore', 'inherit', 'inherit'] });
}

/** The server's answer to the client's DHCP message (RFC 2131): an offer for a discover, an ack for a request. */
function dhcpReply(message: Buffer): Buffer {
  const reply = Buffer.alloc(342);
  reply.writeUIntBE(bMac, 0, 6);
  reply.writeUIntBE(aMac, 6, 6);
  reply.writeUInt16BE(0x0800, 12);
  reply.set([0x45, 0], 14);
  reply.writeUInt16BE(reply.length - 14, 16);
  reply.set([64, 17], 22);
  reply.writeUInt32BE(aIp, 26);
  reply.writeUInt32BE(LIMITED_BROADCAST, 30);
  reply.writeUInt16BE(ipChecksum(reply), 24);
  reply.writeUInt16BE(67, 34);
  reply.writeUInt16BE(68, 36);
  reply.writeUInt16BE(reply.length - 34, 38);
  const bootp = 42;
  message.copy(reply, bootp, bootp, bootp + 44);
  reply[bootp] = 2;
  reply.writeUInt32BE(bIp, bootp + 16);
  reply.writeUInt32BE(aIp, bootp + 20);
  Buffer.from('63825363', 'hex').copy(reply, bootp + 236);
  const kind = message[DHCP_OPTIONS + 2] === 1 ? 2 : 5;
  const options = [
    53,
    1,
    kind,
    54,
    4,
    10,
    0,
    0,
    1,
    51,
    4,
    0,
    0,
    14,
    16,
    1,
    4,
    255,
    255,
    255,
    0,
    255,
  ];
  reply.set(options, DHCP_OPTIONS);
  return reply;
}

function ipChecksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 14; at < 34; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function arpRequest(): Buffer {
  const bytes = Buffer.alloc(60);
  bytes.writeUIntBE(0xffff_ffff_ffff, 0, 6);
  bytes.writeUIntBE(aMac, 6, 6);
  Buffer.from('08060001080006040001', 'hex').copy(bytes, 12);
  bytes.writeUIntBE(aMac, 22, 6);
  bytes.writeUInt32BE(aIp, 28);
  bytes.writeUInt32BE(bIp, 38);
  return bytes;
}

test('the firmware of a QEMU guest gets an address by DHCP and answers ARP', {
  skip,
}, async (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'snic-'));
  const nic = new SoftNicProcess();
  let guest: ChildProcess | null = null;
  t.after(async () => {
    guest?.kill('SIGKILL');
    await nic.close();
    fs.rmSync(directory, { recursive: true });
  });
  const app = Application.connect(nic, 1, 'a', [anyFilter(aIp), anyFilter(LIMITED_BROADCAST)]);
  t.after(() => app.close());
  const listen = path.join(directory, 'qemu.sock');
  const filters = [anyFilter(ANY_ADDRESS), anyFilter(bIp), anyFilter(LIMITED_BROADCAST)];
  // QEMU seals its memory against shrinking: the port need not trust it.
  const added = nic.request({ op: 'addPort', port: 2, mac: bMac, filters, listen });
  assert.equal(added.ok, true, added.message);
  guest = startGuest(listen);

  const seen: string[] = [];
  const serve = (): boolean => {
    for (const bytes of app.receive()) {
      assert.equal(bytes.readUIntBE(6, 6), bMac);
      if (bytes.readUInt16BE(12) === 0x0806) {
        if (bytes[21] === 2 && bytes.readUInt32BE(28) === bIp) seen.push('arp reply');
      } else if (bytes[23] === 17 && bytes.readUInt16BE(36) === 67) {
        seen.push(`dhcp ${bytes[DHCP_OPTIONS + 2]}`);
        app.sendBytes(dhcpReply(bytes));
      }
    }
    if (seen.includes('dhcp 3')) app.sendBytes(arpRequest());
    return seen.includes('arp reply');
  };
  await until(serve, BOOT_TIMEOUT_MS, 'the guest answers ARP').catch((error: Error) => {
    throw new Error(`${error.message}: ${seen} ${JSON.stringify(nic.request({ op: 'stats' }))}`);
  });
  assert.deepEqual(
    [seen.includes('dhcp 1'), seen.includes('dhcp 3')],
    [true, true],
    'discover, then request',
  );
  guest.kill('SIGKILL');
  await until(() => !nic.stats(2).connected, 5000, 'the port is free again');
});
