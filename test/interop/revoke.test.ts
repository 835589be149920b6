/**
 * What is revoked stops, on every driver and in both directions: no packet arrives any more, whatever the application
 * does. Real packets between the application, of another user, and a kernel socket.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Domain } from '../../src/arrakis/index.ts';
import { formatIpv4, parseIpv4 } from '../../src/base/address.ts';
import { deleteLink, linkByName, requireLink, setNeighbour } from '../../src/ffi/netlink/index.ts';
import { isAlive, TestDaemon } from '../crash/daemon.harness.ts';
import { connect, isolateNetwork, Namespace } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';

const APP = fileURLToPath(new URL('./revoke-app.js', import.meta.url));
const NOBODY = 65534;
const WAIT_MS = 20_000;
/** What was under way has arrived by then, and been told to us. */
const SETTLE_MS = 200;
const SILENCE_MS = 400;

/** Sends to the application without end, and says every 20 ms how much has come from it. */
const PEER = `
const [address] = process.argv.slice(1);
const socket = require('node:dgram').createSocket('udp4');
let received = 0;
socket.on('message', () => received++).bind(9000);
socket.on('error', () => {});
setInterval(() => socket.send('and on', 7, address, () => {}), 2);
setInterval(() => console.log('received', received), 20);
`;

/** A process that says `received N` again and again. */
class Talker {
  readonly child: ChildProcess;
  output = '';

  constructor(child: ChildProcess) {
    this.child = child;
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
    });
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  get received(): number {
    return Number([...this.output.matchAll(/received (\d+)/g)].at(-1)?.[1] ?? 0);
  }

  async says(pattern: RegExp): Promise<RegExpExecArray> {
    const find = () => pattern.exec(this.output);
    await until(() => find() !== null || this.ended, WAIT_MS, String(pattern));
    const found = find();
    assert.ok(found !== null, `it ended (${this.child.signalCode}): ${this.output}`);
    return found;
  }

  tell(command: string): void {
    this.child.stdin!.write(`${command}\n`);
  }

  async kill(): Promise<void> {
    if (!this.ended) this.child.kill('SIGKILL');
    await until(() => this.ended, WAIT_MS, 'it ends');
  }
}

interface Shape {
  readonly title: string;
  readonly device: string;
  readonly spec: string;
  readonly rights: string[];
  readonly peerMac: () => number;
  readonly peerIp: string;
  /** Where the kernel's socket is. */
  readonly spawn: (args: string[], options: SpawnOptions) => ChildProcess;
  /** The control plane can take the data plane away; otherwise it has to take the process. */
  readonly deviceEnforces: boolean;
}

describe('revocation, with packets', { skip: rootMissing() }, () => {
  let remote: Namespace;
  let daemon: TestDaemon;
  let root: Domain;
  const running: Talker[] = [];

  before(async () => {
    isolateNetwork();
    remote = new Namespace();
    connect(remote, {
      local: { name: 'ctl0', ip: '10.1.0.1', prefix: 24 },
      remote: { name: 'ctl1', ip: '10.1.0.2', prefix: 24 },
    });
    daemon = await TestDaemon.start({ args: [] });
    root = await daemon.connect({ name: 'root' });
  });
  after(async () => {
    for (const talker of running) await talker.kill();
    await root?.close();
    await daemon?.close();
    if (linkByName('ctl0') !== null) deleteLink('ctl0');
    remote?.close();
  });

  const atRemote = (args: string[], options: SpawnOptions) =>
    remote.spawn(process.execPath, args, options);
  const remoteMac = () => remote.run(() => requireLink('ctl1').mac);
  const onLink = { device: 'ctl0', peerMac: remoteMac, peerIp: '10.1.0.2', spawn: atRemote };
  const shapes: readonly Shape[] = [
    {
      title: 'software NIC',
      device: 'soft0',
      spec: 'soft0,ip=10.77.0.9/24',
      rights: ['open'],
      peerMac: () => requireLink('arrakis0').mac,
      peerIp: '10.77.0.1',
      spawn: (args, options) => spawn(process.execPath, args, options),
      deviceEnforces: true,
    },
    {
      ...onLink,
      title: 'AF_XDP, switched',
      spec: 'ctl0,port=udp:7',
      rights: ['open'],
      deviceEnforces: true,
    },
    {
      ...onLink,
      title: 'AF_XDP, direct',
      spec: 'ctl0,port=udp:7,mode=direct',
      rights: ['open', 'direct'],
      deviceEnforces: false,
    },
  ];

  /** The application, with capabilities and packets both ways. */
  async function start(shape: Shape, role: 'friendly' | 'defiant') {
    const peerText = `${shape.peerMac()},${parseIpv4(shape.peerIp)}`;
    const app = new Talker(
      spawn(process.execPath, [APP, role, shape.spec, peerText], {
        stdio: ['pipe', 'pipe', 'inherit'],
        env: { PATH: process.env.PATH, ARRAKIS_SOCKET: daemon.socket },
        uid: NOBODY,
        gid: NOBODY,
      }),
    );
    running.push(app);
    const to = Number((await app.says(/domain (\d+)/))[1]);
    const mint = async (kind: 'device' | 'addresses' | 'rate', rights?: string[]) => {
      const args = { to, kind, object: shape.device, ...(rights === undefined ? {} : { rights }) };
      return (await root.request('cap.mint', args)).reply.cap;
    };
    const device = await mint('device', shape.rights);
    const addresses = await mint('addresses');
    await mint('rate');
    const [, address = '', mac] = await app.says(/open (\S+) (\d+)/);
    if (shape.device === 'soft0') {
      setNeighbour(requireLink('arrakis0').index, parseIpv4(address), Number(mac));
    }
    const options: SpawnOptions = { stdio: ['ignore', 'pipe', 'inherit'] };
    const peer = new Talker(shape.spawn(['-e', PEER, address], options));
    running.push(peer);
    await until(() => app.received > 20 && peer.received > 20, WAIT_MS, 'packets both ways');
    return { app, peer, device, addresses, domain: to };
  }

  /** Neither gets anything any more. */
  async function silent(app: Talker, peer: Talker): Promise<void> {
    await sleep(SETTLE_MS);
    const before = [app.received, peer.received];
    await sleep(SILENCE_MS);
    assert.deepEqual([app.received, peer.received], before, 'packets after the revocation');
  }

  for (const shape of shapes) {
    test(`${shape.title}: an application that goes on is not heard`, async () => {
      const { app, peer, device } = await start(shape, 'defiant');
      await root.revoke(device, { whole: true, graceMs: 50 });
      if (!shape.deviceEnforces) {
        // It kept sockets that nothing checks: when the reply is there it is not any more.
        await until(() => app.ended, 1000, 'the application was ended');
        assert.equal(app.child.signalCode, 'SIGKILL');
      }
      await silent(app, peer);
      if (shape.deviceEnforces) assert.ok(isAlive(app.child.pid!));
      await app.kill();
      await peer.kill();
    });

    test(`${shape.title}: an application of libarrakis is told, and lives`, async () => {
      const { app, peer, addresses } = await start(shape, 'friendly');
      await root.revoke(addresses, { whole: true, graceMs: 100 });
      // The VNIC went with its addresses.
      await app.says(/revoking 1 in 100/);
      await app.says(/gone revoked/);
      await silent(app, peer);
      await sleep(1000);
      assert.ok(isAlive(app.child.pid!));
      await app.kill();
      await peer.kill();
    });
  }

  const direct = shapes[2]!;

  test('a direct VNIC ends for its holder; a process that only has its sockets lives', async () => {
    const { app, peer, device } = await start(direct, 'defiant');
    app.tell('child');
    const child = Number((await app.says(/child (\d+)/))[1]);
    await until(() => isAlive(child), WAIT_MS, 'the child runs');
    await root.revoke(device, { whole: true, graceMs: 0 });
    await until(() => app.ended, 1000, 'the application was ended');
    await silent(app, peer);
    assert.ok(isAlive(child) && isAlive(peer.child.pid!) && isAlive(daemon.pid));
    const told = daemon.log.split('\n').filter((line) => line.includes(`"pid":${child}`));
    assert.match(told.join('\n'), /has the socket of a direct VNIC, and is watched/);
    // It has the queue as well.
    await assert.rejects(root.openVnic(direct.spec), /taken by another AF_XDP socket/);
    process.kill(child, 'SIGKILL');
    await peer.kill();
  });

  test('a direct VNIC that its holder or root closed, or whose domain ended, is not sent on', async () => {
    for (const how of ['closed', 'left'] as const) {
      const { app, peer, domain } = await start(direct, 'defiant');
      if (how === 'left') app.tell('leave');
      else {
        const { objects } = (await root.request('list', {})).reply;
        const vnic = objects.find((each) => each.kind === 'vnic' && each.owner === domain)!;
        await root.request('vnic.close', { vnic: vnic.id });
      }
      await until(() => app.ended, WAIT_MS, 'the application was ended');
      assert.equal(app.child.signalCode, 'SIGKILL', how);
      await silent(app, peer);
      await peer.kill();
      // And its queue is free again.
      const vnic = await root.openVnic(direct.spec);
      assert.equal(formatIpv4(vnic.address), '10.1.0.1');
      await vnic.close();
    }
  });
});
