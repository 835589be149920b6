/** Interfaces, addresses, offloads, TAP and packet sockets against the running kernel, in namespaces of our own. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { isolateNetwork, Namespace } from '../../test/support/network.ts';
import { requirePackage, rootMissing } from '../../test/support/privilege.ts';
import { until } from '../../test/support/until.ts';
import { MAC_BROADCAST, parseIpv4, parseMac } from '../base/address.ts';
import { isErrno } from '../base/errors.ts';
import {
  driverName,
  getChannels,
  getOffloads,
  setGro,
  setGso,
  setTso,
  setTxChecksum,
} from './ethtool.ts';
import { closeFd, openFds, readFd, writeFd } from './fd.ts';
import {
  addAddress,
  addRoute,
  createVethPair,
  deleteLink,
  type LinkEvent,
  linkByIndex,
  linkByName,
  listAddresses,
  listLinks,
  listNeighbours,
  listRoutes,
  moveToNamespace,
  moveToNamespaceOfPid,
  NetlinkSocket,
  removeAddress,
  requireLink,
  setAlias,
  setLinkDown,
  setLinkUp,
  setMac,
  setMtu,
  setNeighbour,
  watchLinks,
} from './netlink/index.ts';
import { openPacketSocket } from './packet.ts';
import { openTap } from './tap.ts';

// Before any test, so that running a single one cannot touch the machine's own network.
if (rootMissing() === false) isolateNetwork();

const code = (expected: string, text: RegExp) => (error: unknown) => {
  const { code, message, hint } = error as { code?: string; message: string; hint?: string };
  assert.equal(code, expected);
  assert.match(`${message}; ${hint}`, text);
  return true;
};

function run(command: string, ...args: string[]): string {
  const { stdout, stderr, status } = spawnSync(command, args, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}

/** A veth pair nlA, nlB for the length of `use`. */
function withPair(use: (a: number, b: number) => void): void {
  const { a, b } = createVethPair({ name: 'nlA' }, { name: 'nlB' });
  try {
    use(a, b);
  } finally {
    if (linkByName('nlA') !== null) deleteLink('nlA');
  }
}

describe('interfaces', { skip: rootMissing() }, () => {
  test('a fresh namespace has the loopback, up', () => {
    const links = listLinks();
    assert.equal(links.length, 1);
    assert.equal(links[0]!.name, 'lo');
    assert.equal(links[0]!.up, true);
    assert.equal(links[0]!.kind, null);
    assert.equal(links[0]!.mtu, 65536);
  });

  test('a veth pair gets the names, addresses, sizes and aliases asked for', () => {
    const macs = { a: parseMac('02:00:00:00:00:0a'), b: parseMac('02:00:00:00:00:0b') };
    const pair = createVethPair(
      { name: 'nlA', mac: macs.a, mtu: 1400, alias: 'arrakis:one', queues: 4 },
      { name: 'nlB', mac: macs.b, mtu: 1300 },
    );
    const a = linkByName('nlA')!;
    const b = linkByIndex(pair.b)!;
    assert.deepEqual(
      { ...a, ...{ up: a.up } },
      {
        index: pair.a,
        name: 'nlA',
        mac: macs.a,
        mtu: 1400,
        up: false,
        running: false,
        kind: 'veth',
        peerIndex: pair.b,
        peerIsForeign: false,
        alias: 'arrakis:one',
        xdpProgId: null,
        numRxQueues: 4,
        numTxQueues: 4,
      },
    );
    assert.deepEqual(
      [b.name, b.mac, b.mtu, b.peerIndex, b.alias],
      ['nlB', macs.b, 1300, pair.a, null],
    );
    deleteLink(pair.b);
    assert.equal(linkByName('nlA'), null);
    assert.equal(linkByIndex(pair.b), null);
  });

  test('up, down, mac, mtu, alias change', () => {
    withPair((a, b) => {
      setLinkUp(a);
      assert.equal(linkByIndex(a)!.up, true);
      assert.equal(linkByIndex(a)!.running, false);
      setLinkUp(b);
      assert.equal(linkByIndex(a)!.running, true);
      setLinkDown(a);
      assert.equal(linkByIndex(a)!.up, false);
      setMac(a, parseMac('02:11:22:33:44:55'));
      setMtu(a, 9000);
      setAlias(a, 'some text');
      const link = requireLink('nlA');
      assert.deepEqual([link.mac, link.mtu, link.alias], [0x021122334455, 9000, 'some text']);
      setAlias(a, '');
      assert.equal(requireLink(a).alias, null);
    });
  });

  test('failures name the operation, the interface and the reason', () => {
    assert.throws(() => requireLink('nope'), code('ARK_NOT_FOUND', /"nope".*interfaces here: lo/));
    assert.throws(() => setLinkUp(4711), code('ARK_NOT_FOUND', /index 4711.*lo/));
    assert.throws(() => deleteLink('nope'), code('ARK_NOT_FOUND', /lo/));
    assert.throws(() => deleteLink(4711), code('ARK_NOT_FOUND', /lo/));
    assert.throws(
      () => deleteLink('lo'),
      code('ARK_SYSCALL', /RTM_DELLINK\(lo\) failed: EOPNOTSUPP/),
    );
    assert.throws(() => linkByName('a b'), code('ARK_BAD_ARGUMENT', /"a b"/));
    assert.throws(() => linkByName('sixteen-bytes-xx'), code('ARK_BAD_ARGUMENT', /15/));
    withPair((a) => {
      const again = () => createVethPair({ name: 'nlC' }, { name: 'nlB' });
      assert.throws(again, code('ARK_IN_USE', /nlB exists/));
      assert.equal(linkByName('nlC'), null);
      assert.throws(() => setMac(a, MAC_BROADCAST), code('ARK_SYSCALL', /nlA.*EADDRNOTAVAIL/));
      // The kernel explains this one in its extended acknowledgement.
      assert.throws(() => setMtu(a, 1), code('ARK_SYSCALL', /nlA, mtu, 1.*kernel says: mtu/));
      assert.throws(() => setAlias(a, 'x'.repeat(256)), code('ARK_BAD_ARGUMENT', /255/));
    });
    const longAlias = { name: 'nlC', alias: 'x'.repeat(256) };
    assert.throws(
      () => createVethPair(longAlias, { name: 'nlD' }),
      code('ARK_BAD_ARGUMENT', /255/),
    );
    assert.equal(linkByName('nlC'), null);
  });

  test('many interfaces are all listed', () => {
    const before = listLinks().length;
    for (let i = 0; i < 40; i++) createVethPair({ name: `nlA${i}` }, { name: `nlB${i}` });
    assert.equal(listLinks().length, before + 80);
    for (let i = 0; i < 40; i++) deleteLink(`nlA${i}`);
    assert.equal(listLinks().length, before);
  });

  test('addresses, routes and neighbours are set, listed and taken away', () => {
    withPair((a, b) => {
      setLinkUp(a);
      setLinkUp(b);
      const address = parseIpv4('10.9.0.1');
      const gateway = parseIpv4('10.9.0.254');
      const mac = parseMac('02:00:00:00:00:0c');
      addAddress(a, address, 24);
      assert.deepEqual(
        listAddresses().filter((entry) => entry.index === a),
        [{ index: a, address, prefix: 24 }],
      );
      assert.throws(
        () => addAddress(a, address, 24),
        (e) => isErrno(e, 'EEXIST'),
      );
      assert.throws(() => addAddress(a, address, 33), code('ARK_BAD_ARGUMENT', /33/));
      assert.throws(() => addAddress(4711, address, 24), code('ARK_NOT_FOUND', /4711/));
      addRoute(0, 0, { gateway, index: a });
      addRoute(parseIpv4('10.10.0.0'), 16, { index: a });
      assert.deepEqual(
        listRoutes().map((route) => [route.dst, route.prefix, route.gateway, route.index]),
        [
          [0, 0, gateway, a],
          [parseIpv4('10.9.0.0'), 24, null, a],
          [parseIpv4('10.10.0.0'), 16, null, a],
        ],
      );
      setNeighbour(a, gateway, mac);
      assert.deepEqual(listNeighbours(), [{ index: a, address: gateway, mac, state: 0x80 }]);
      removeAddress(a, address, 24);
      assert.equal(
        listAddresses().some((entry) => entry.index === a),
        false,
      );
      assert.throws(
        () => removeAddress(a, address, 24),
        (e) => isErrno(e, 'EADDRNOTAVAIL'),
      );
    });
  });

  test('an end moves to another namespace, by descriptor and by process', () => {
    const namespace = new Namespace();
    const sleeper = namespace.spawn('sleep', ['60']);
    try {
      withPair((a, b) => {
        moveToNamespace(b, namespace.fd);
        assert.equal(linkByName('nlB'), null);
        assert.equal(requireLink(a).peerIsForeign, true);
        assert.equal(
          namespace.run(() => requireLink('nlB').kind),
          'veth',
        );
      });
      withPair((_, b) => {
        moveToNamespaceOfPid(b, sleeper.pid!);
        assert.equal(
          namespace.run(() => requireLink('nlB').kind),
          'veth',
        );
      });
    } finally {
      namespace.close();
    }
  });

  test('the watch tells of interfaces that come, change and go', async () => {
    const events: LinkEvent[] = [];
    const seen = (type: string, name: string, up: boolean) =>
      events.some((e) => e.type === type && e.link.name === name && e.link.up === up);
    const watch = watchLinks((event) => events.push(event));
    try {
      const { a } = createVethPair({ name: 'nlA' }, { name: 'nlB' });
      setLinkUp(a);
      await until(() => seen('new', 'nlA', true), 2000, 'nlA up');
      assert.ok(seen('new', 'nlB', false));
      deleteLink(a);
      await until(() => events.some((e) => e.type === 'deleted' && e.link.name === 'nlA'), 2000);
    } finally {
      watch.close();
      watch.close();
    }
  });

  test('the watch survives announcements that were lost', async () => {
    const names = new Set<string>();
    const watch = watchLinks((event) => {
      if (event.type === 'new') names.add(event.link.name);
      else names.delete(event.link.name);
    });
    try {
      // Synchronous: nobody reads meanwhile, and the socket's buffer holds a few hundred of these.
      const { a } = createVethPair({ name: 'nlA' }, { name: 'nlB' });
      for (let i = 0; i < 500; i++) setMtu(a, 1000 + (i % 2));
      createVethPair({ name: 'nlC' }, { name: 'nlD' });
      deleteLink(a);
      await until(() => names.has('nlC') && names.has('nlD') && !names.has('nlA'), 2000);
    } finally {
      watch.close();
      deleteLink('nlC');
    }
  });

  test('no descriptor is left behind', () => {
    const before = openFds().length;
    for (let i = 0; i < 20; i++) {
      listLinks();
      assert.throws(() => setLinkUp(4711));
      assert.throws(() => driverName('nope'));
      new NetlinkSocket().close();
    }
    assert.equal(openFds().length, before);
  });
});

describe('ethtool', { skip: rootMissing() }, () => {
  test('the driver and its channels', () => {
    withPair(() => {
      assert.equal(driverName('nlA'), 'veth');
      assert.deepEqual([getChannels('nlA').rx, getChannels('nlA').tx], [1, 1]);
    });
    assert.throws(() => driverName('nope'), code('ARK_NOT_FOUND', /"nope".*lo/));
    assert.throws(
      () => getChannels('lo'),
      (e) => isErrno(e, 'EOPNOTSUPP'),
    );
  });

  test('offloads are turned off and on', (t) => {
    if (!requirePackage(t, 'ethtool')) return;
    withPair(() => {
      const all = { txChecksum: true, gro: true, gso: true, tso: true };
      assert.deepEqual(getOffloads('nlA'), { ...all, gro: false });
      setTxChecksum('nlA', false);
      setGro('nlA', true);
      setGso('nlA', false);
      assert.deepEqual(getOffloads('nlA'), {
        txChecksum: false,
        gro: true,
        gso: false,
        tso: false,
      });
      const features = run('ethtool', '-k', 'nlA');
      assert.match(features, /^tx-checksumming: off/m);
      assert.match(features, /^generic-receive-offload: on/m);
      assert.match(features, /^generic-segmentation-offload: off/m);
      setTxChecksum('nlA', true);
      setGso('nlA', true);
      assert.deepEqual(getOffloads('nlA'), all);
      setTso('nlA', false);
      assert.match(run('ethtool', '-k', 'nlA'), /tx-tcp-segmentation: off/);
    });
  });
});

describe('tap', { skip: rootMissing() }, () => {
  test('it lives as long as its descriptor and carries frames', () => {
    const tap = openTap({ name: 'nlT0' });
    const { index, kind } = requireLink('nlT0');
    assert.equal(kind, 'tun');
    const frame = Buffer.alloc(2048);
    setLinkUp(index);
    const packets = openPacketSocket(index);
    // Towards the kernel: what is written to the TAP arrives at the interface.
    const sent = Buffer.alloc(60, 0xab);
    sent.writeUInt16BE(0x88b5, 12);
    assert.equal(writeFd(tap.fd, sent), 60);
    assert.equal(receive(packets, 0x88b5, frame), 60);
    assert.deepEqual(frame.subarray(0, 60), sent);
    // From the kernel: what is sent on the interface is read from the TAP.
    sent.writeUInt16BE(0x88b6, 12);
    assert.equal(writeFd(packets, sent), 60);
    assert.equal(receive(tap.fd, 0x88b6, frame), 60);
    closeFd(packets);
    closeFd(tap.fd);
    assert.equal(linkByName('nlT0'), null);
  });

  test('the kernel numbers a name with %d, and a virtio header is 12 bytes', () => {
    const tap = openTap({ name: 'nlT%d', vnetHeader: true });
    assert.match(tap.name, /^nlT\d$/);
    setLinkUp(requireLink(tap.name).index);
    const packets = openPacketSocket(requireLink(tap.name).index);
    const sent = Buffer.alloc(72);
    sent.writeUInt16BE(0x88b5, 12 + 12);
    assert.equal(writeFd(tap.fd, sent), 72);
    assert.equal(receive(packets, 0x88b5, Buffer.alloc(2048)), 60);
    closeFd(packets);
    closeFd(tap.fd);
  });

  test('a persistent one outlives its descriptor', () => {
    const tap = openTap({ name: 'nlT1', persistent: true });
    closeFd(tap.fd);
    assert.notEqual(linkByName('nlT1'), null);
    deleteLink('nlT1');
  });

  test('a name that is taken is ARK_IN_USE', () => {
    const tap = openTap({ name: 'nlT2' });
    assert.throws(() => openTap({ name: 'nlT2' }), code('ARK_IN_USE', /nlT2.*another/));
    closeFd(tap.fd);
    withPair(() => {
      assert.throws(() => openTap({ name: 'nlA' }), code('ARK_IN_USE', /not a TAP/));
    });
  });

  test('without the right it is ARK_NOT_PERMITTED', () => {
    const program = `
      import { openTap } from '${new URL('./tap.js', import.meta.url).href}';
      process.setgid(65534); process.setuid(65534);
      try { openTap({ name: 'nlT3' }); } catch (error) { console.log(error.code, error.hint); }`;
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
    });
    assert.match(stdout, /^ARK_NOT_PERMITTED .*root/);
  });
});

describe('packet socket', { skip: rootMissing() }, () => {
  test('frames cross a veth pair', () => {
    withPair((a, b) => {
      setLinkUp(a);
      setLinkUp(b);
      // Asking also has the kernel note the new carrier at once; until then it drops what is sent.
      assert.ok(requireLink(a).running && requireLink(b).running);
      const [from, to] = [openPacketSocket(a), openPacketSocket(b)];
      const sent = Buffer.alloc(100, 0x5a);
      sent.writeUInt16BE(0x88b5, 12);
      assert.equal(writeFd(from, sent), 100);
      const frame = Buffer.alloc(2048);
      assert.equal(receive(to, 0x88b5, frame), 100);
      assert.deepEqual(frame.subarray(0, 100), sent);
      closeFd(from);
      closeFd(to);
    });
  });

  test('an interface that is not there is ARK_NOT_FOUND', () => {
    assert.throws(() => openPacketSocket(4711), code('ARK_NOT_FOUND', /4711/));
  });
});

/** Length of the next frame of this EtherType on `fd`, in `frame`; frames of the kernel's own are passed over. */
function receive(fd: number, etherType: number, frame: Buffer): number {
  for (let turn = 0; turn < 1000; turn++) {
    const length = readFd(fd, frame);
    if (length > 14 && frame.readUInt16BE(12) === etherType) return length;
    if (length < 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  }
  return -1;
}
