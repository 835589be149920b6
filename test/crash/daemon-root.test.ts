/** What only root's daemon does: the TAP interface of the software NIC, and AF_XDP on interfaces. In a private namespace. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { ArrakisError, type Domain } from '../../src/arrakis/index.ts';
import { findLeftovers } from '../../src/control/leftovers.ts';
import { NIC_USER } from '../../src/control/limits.ts';
import { portsPath } from '../../src/control/paths.ts';
import { closeAll } from '../../src/ffi/fd.ts';
import {
  deleteLink,
  linkByName,
  listAddresses,
  listLinks,
  requireLink,
  setLinkDown,
  setLinkUp,
} from '../../src/ffi/netlink/index.ts';
import { connect as connectNamespace, isolateNetwork, Namespace } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { awaitReclaimed, fdCount, softnicPid, TestApp, TestDaemon } from './daemon.harness.ts';

const withCode = (code: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === code;

const arkLinks = (): string[] =>
  listLinks()
    .map((link) => link.name)
    .filter((name) => /^ark\d/.test(name));

describe('arrakisd as root', { skip: rootMissing() }, () => {
  let remote: Namespace;
  before(() => {
    isolateNetwork();
    remote = new Namespace();
  });
  after(() => remote.close());

  function makeLink(): void {
    connectNamespace(remote, {
      local: { name: 'ctl0', ip: '10.1.0.1', prefix: 24 },
      remote: { name: 'ctl1', ip: '10.1.0.2', prefix: 24 },
    });
  }

  describe('soft0 and the host', () => {
    let daemon: TestDaemon;
    before(async () => {
      daemon = await TestDaemon.start({ args: [] });
    });
    after(() => daemon.close());

    test('the TAP interface is up with its address, and survives the software NIC', async () => {
      const tap = requireLink('arrakis0');
      assert.ok(tap.up);
      assert.ok(listAddresses().some((a) => a.index === tap.index && a.address === 0x0a4d0001));
      const domain = await daemon.connect();
      const killed = await softnicPid(domain);
      process.kill(killed, 'SIGKILL');
      await softnicPid(domain, killed);
      assert.equal(requireLink('arrakis0').index, tap.index);
      const vnic = await domain.openVnic();
      assert.equal(vnic.gateway, 0x0a4d0001);
      await domain.close();
    });

    test('the software NIC does not run as root', async () => {
      const domain = await daemon.connect();
      const pid = await softnicPid(domain);
      const uid = () =>
        /^Uid:\s*(\d+)\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
      // Nor as a user that applications run as.
      await until(() => uid()![1] === String(NIC_USER.uid) && uid()![2] === uid()![1], 3000);
      assert.equal(fs.statSync(portsPath(daemon.dir)).uid, NIC_USER.uid);
      const args = { name: 'x', uid: NIC_USER.uid, vnics: [] };
      await assert.rejects(domain.request('domain.prepare', args), withCode('ARK_BAD_ARGUMENT'));
      await domain.close();
    });

    test('the user of the software NIC can be chosen, but is not root', async () => {
      const chosen = await TestDaemon.start({ args: ['--no-tap', '--nic-user', '61234:61235'] });
      const { uid, gid } = fs.statSync(portsPath(chosen.dir));
      await chosen.close();
      assert.deepEqual([uid, gid], [61234, 61235]);
      const refused = await TestDaemon.start({ args: ['--no-tap', '--nic-user', '0:0'] });
      assert.equal(refused.child.exitCode, 1);
      assert.match(refused.log, /ARK_USAGE/);
      await refused.close();
    });

    test('a second daemon elsewhere is told who has the TAP', async () => {
      const second = await TestDaemon.start({ args: [] });
      assert.equal(second.child.exitCode, 1);
      assert.match(second.log, /ARK_IN_USE/);
      assert.match(second.log, /--no-tap/);
      await second.close();
    });

    test('the TAP goes with the daemon and its keeper', async () => {
      const other = await TestDaemon.start({
        args: ['--tap-name', 'ctltap', '--tap-address', '10.78.0.1/24', '--keep-ms', '100'],
      });
      assert.ok(linkByName('ctltap') !== null);
      await other.signal('SIGKILL');
      await until(() => linkByName('ctltap') === null, 5000, 'the interface is gone');
      await other.close();
    });
  });

  describe('AF_XDP', () => {
    let daemon: TestDaemon;
    let domain: Domain;
    before(async () => {
      makeLink();
      daemon = await TestDaemon.start();
      domain = await daemon.connect();
    });
    after(async () => {
      await domain.close();
      await daemon.close();
      if (linkByName('ctl0') !== null) deleteLink('ctl0');
    });

    test('switched and direct VNICs open, say what they are and go without a trace', async () => {
      const fds = fdCount(daemon.pid);
      const shared = await domain.openVnic('ctl0,port=udp:7');
      assert.equal(shared.driver, 'af-xdp');
      assert.equal(shared.ownsAddress, false);
      assert.equal(shared.address, 0x0a010001);
      assert.equal(arkLinks().length, 2);
      const own = await domain.openVnic('ctl0,mode=direct,queue=0,ip=10.1.0.9/24');
      assert.equal(own.ownsAddress, true);
      await assert.rejects(domain.openVnic('ctl0,port=udp:5-9'), withCode('ARK_IN_USE'));
      await assert.rejects(domain.openVnic('ctl0'), withCode('ARK_BAD_ARGUMENT'));
      await assert.rejects(domain.openVnic('ctl9,port=udp:7'), withCode('ARK_NOT_FOUND'));
      await assert.rejects(domain.openVnic('lo,port=udp:7'), withCode('ARK_UNSUPPORTED'));
      const { objects } = (await domain.request('list', {})).reply;
      const vnics = objects.filter((object) => object.kind === 'vnic');
      assert.deepEqual(
        vnics.map((vnic) => vnic.detail.sendFilter),
        ['XDP program', 'NOTHING'],
      );
      const { vnics: counters } = (await domain.request('stats', {})).reply;
      assert.equal(counters[0]!.counters.rxPackets, 0);
      await shared.close();
      await own.close();
      assert.deepEqual(arkLinks(), []);
      assert.equal(requireLink('ctl0').xdpProgId, null);
      const { devices } = (await domain.request('device.list', {})).reply;
      assert.deepEqual(
        devices.map((device) => device.name),
        ['soft0'],
      );
      await until(() => fdCount(daemon.pid) === fds, 3000, 'the daemon kept no descriptor');
    });

    test('datagrams from the wire reach an application of another user', async () => {
      const { fds } = await domain.request('domain.prepare', {
        name: 'udp',
        uid: 65534,
        vnics: [{ device: 'ctl0', ports: [{ protocol: 'udp', first: 7, last: 7 }], name: 'udp7' }],
      });
      const app = new TestApp({ ARRAKIS_FD: '3' }, { uid: 65534, gid: 65534 }, fds[0]!);
      closeAll(fds);
      await app.says('open udp7 af-xdp uid 65534');
      const send = 'for i in 1 2 3 4 5; do echo hi > /dev/udp/10.1.0.1/7; done';
      remote.exec('bash', ['-c', send]);
      await until(async () => {
        const { vnics } = (await domain.request('stats', {})).reply;
        return vnics.some((vnic) => Number(vnic.counters.rxPackets) >= 5);
      }, 5000);
      await app.kill();
      await awaitReclaimed(domain);
      assert.deepEqual(arkLinks(), []);
    });

    test('an interface that goes takes its VNICs with it, and may come back', async () => {
      const app = new TestApp({
        ARRAKIS_SOCKET: daemon.socket,
        APP_VNIC: 'ctl0,port=udp:7,name=w',
      });
      await app.says('open w');
      setLinkDown(requireLink('ctl0').index);
      await app.says('gone');
      await app.says('failed ARK_GONE');
      setLinkUp(requireLink('ctl0').index);
      app.output = '';
      await app.says('open w');
      deleteLink('ctl0');
      await app.says('gone');
      await app.says('failed ARK_NOT_FOUND');
      assert.deepEqual(arkLinks(), []);
      makeLink();
      app.output = '';
      await app.says('open w');
      await app.kill();
      await awaitReclaimed(domain);
      assert.deepEqual(arkLinks(), []);
    });

    test('an interface that was added stays until the end', async () => {
      const { device } = (await domain.request('device.add', { name: 'ctl0' })).reply;
      assert.equal(device.address, 0x0a010001);
      await assert.rejects(domain.request('device.add', { name: 'ctl0' }), withCode('ARK_IN_USE'));
      assert.notEqual(requireLink('ctl0').xdpProgId, null);
    });

    test('links of a killed daemon are found, and the next one removes those of the dead', async () => {
      const { dir } = daemon;
      const app = new TestApp({ ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'ctl0,port=udp:7' });
      await app.says('open');
      assert.equal(arkLinks().length, 2);
      await daemon.signal('SIGKILL');
      await app.kill();
      const kinds = findLeftovers(dir).map((leftover) => leftover.kind);
      assert.ok(kinds.includes('link'));
      assert.notEqual(requireLink('ctl0').xdpProgId, null, 'the keeper has the XDP program');
      daemon = await TestDaemon.start({ dir });
      await awaitReclaimed(domain);
      assert.deepEqual(arkLinks(), []);
      await domain.close();
      domain = await daemon.connect();
      const vnic = await domain.openVnic('ctl0,port=udp:7');
      await vnic.close();
    });
  });
});
