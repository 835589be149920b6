/**
 * Direct VNICs whose application does not let go, while daemons are killed: whichever daemon comes next, nobody sends on
 * the sockets of a VNIC that is no more.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import { afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Domain } from '../../src/arrakis/index.ts';
import { keeperOf } from '../../src/control/leftovers.ts';
import { journalPath } from '../../src/control/paths.ts';
import { deleteLink, linkByName, requireLink, setLinkDown } from '../../src/ffi/netlink/index.ts';
import { xskQueueIsFree } from '../../src/ffi/xsk.ts';
import { connect, isolateNetwork, Namespace } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { isAlive, TestDaemon, temporaryDirectory } from './daemon.harness.ts';

const APP = fileURLToPath(new URL('../interop/revoke-app.js', import.meta.url));
const NOBODY = 65534;
const WAIT_MS = 15_000;
const SPEC = 'ctl0,port=udp:7,mode=direct';

describe('direct VNICs that are kept beyond their daemon', { skip: rootMissing() }, () => {
  let remote: Namespace;
  let dir = '';
  let app: ChildProcess;
  let output = '';
  let daemon: TestDaemon;
  let ifIndex = 0;

  before(() => isolateNetwork());
  afterEach(async () => {
    if (app.exitCode === null && app.signalCode === null) app.kill('SIGKILL');
    await daemon.close();
    if (linkByName('ctl0') !== null) deleteLink('ctl0');
    remote.close();
  });

  const ended = (): boolean => app.exitCode !== null || app.signalCode !== null;
  const says = (pattern: RegExp): Promise<void> =>
    until(() => pattern.test(output) || ended(), WAIT_MS, String(pattern));

  /** A daemon, and an application that sends on a direct VNIC whatever it is told. */
  async function start(): Promise<Domain> {
    remote = new Namespace();
    connect(remote, {
      local: { name: 'ctl0', ip: '10.1.0.1', prefix: 24 },
      remote: { name: 'ctl1', ip: '10.1.0.2', prefix: 24 },
    });
    ifIndex = requireLink('ctl0').index;
    const peerMac = remote.run(() => requireLink('ctl1').mac);
    dir = temporaryDirectory();
    daemon = await TestDaemon.start({ dir });
    const root = await daemon.connect({ name: 'root' });
    output = '';
    const env = { ...process.env, ARRAKIS_SOCKET: daemon.socket };
    app = spawn(process.execPath, [APP, 'defiant', SPEC, `${peerMac},${0x0a010002}`], {
      env,
      uid: NOBODY,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    app.stdout!.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    await says(/domain \d+/);
    const to = Number(/domain (\d+)/.exec(output)![1]);
    const rights = ['open', 'direct'];
    await root.request('cap.mint', { to, kind: 'device', object: 'ctl0', rights });
    await root.request('cap.mint', { to, kind: 'addresses', object: 'ctl0' });
    await root.request('cap.mint', { to, kind: 'rate', object: 'ctl0' });
    await says(/sent [1-9]/);
    return root;
  }

  /** The next daemon, however the one before ended. */
  const next = async (): Promise<void> => {
    daemon = await TestDaemon.start({ dir });
  };

  async function isRepossessed(): Promise<void> {
    await until(ended, WAIT_MS, 'the application is ended');
    assert.equal(app.signalCode, 'SIGKILL');
    await until(() => xskQueueIsFree(ifIndex, 0), WAIT_MS, 'the queue is free');
    assert.match(daemon.log, new RegExp(`killed: it kept its direct VNIC.*"pid":${app.pid},`));
  }

  test('a daemon that is killed while it takes one back: the next one does', async () => {
    await start();
    app.stdin!.write('leave\n');
    const journal = () => fs.readFileSync(journalPath(dir), 'utf8');
    await until(() => journal().includes('"put","repossession"'), WAIT_MS, 'it is noted');
    await daemon.signal('SIGKILL');
    assert.ok(!ended(), 'the daemon was killed before it took the VNIC back');
    await next();
    await isRepossessed();
  });

  test('one that the next daemon cannot go on with, since descriptors are lost', async () => {
    await start();
    const pid = keeperOf(dir);
    await daemon.signal('SIGKILL');
    process.kill(pid, 'SIGKILL');
    await until(() => !isAlive(pid), WAIT_MS, 'the keeper ends');
    await next();
    await isRepossessed();
  });

  test('one that the next daemon cannot go on with, since the interface is down', async () => {
    await start();
    await daemon.signal('SIGKILL');
    setLinkDown(ifIndex);
    await next();
    await isRepossessed();
  });

  test('one that is whole goes on', async () => {
    await start();
    await daemon.signal('SIGKILL');
    await next();
    const sent = Number([...output.matchAll(/sent (\d+)/g)].at(-1)![1]);
    await until(
      () => Number([...output.matchAll(/sent (\d+)/g)].at(-1)![1]) > sent + 300,
      WAIT_MS,
      'it goes on to send',
    );
    assert.ok(!ended() && !daemon.log.includes('killed'));
  });
});
