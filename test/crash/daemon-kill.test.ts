/** kill -9 of application, software NIC and daemon at random points: nothing is left, and the next one works. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ArrakisError, Domain } from '../../src/arrakis/index.ts';
import { findLeftovers } from '../../src/control/leftovers.ts';
import { Random } from '../support/random.ts';
import { sleep, until } from '../support/until.ts';
import {
  awaitReclaimed,
  fdCount,
  isAlive,
  softnicPid,
  TestApp,
  TestDaemon,
} from './daemon.harness.ts';

const SEED = 20_141_006;
const APP_KILLS = 15;
/** The pauses before a restart double: few kills take seconds. */
const SOFTNIC_KILLS = 5;
const DAEMON_KILLS = 4;
const HASTY_CLIENTS = 100;

describe(`kill -9, seed ${SEED}`, () => {
  const random = new Random(SEED);
  let daemon: TestDaemon;
  let domain: Domain;

  before(async () => {
    daemon = await TestDaemon.start();
    domain = await daemon.connect();
  });
  after(async () => {
    await domain.close();
    await daemon.close();
  });

  async function settledFds(pid: number, expected: number): Promise<void> {
    await until(() => fdCount(pid) === expected, 5000, `pid ${pid} has ${expected} descriptors`);
  }

  test('applications', async () => {
    // One open and close first: what is made once and kept is then there.
    await (await domain.openVnic()).close();
    const softnic = await softnicPid(domain);
    const [daemonFds, softnicFds] = [fdCount(daemon.pid), fdCount(softnic)];
    for (let n = 0; n < APP_KILLS; n++) {
      const app = new TestApp({ ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'soft0,name=victim' });
      await sleep(random.below(400));
      await app.kill();
      await awaitReclaimed(domain);
    }
    await settledFds(daemon.pid, daemonFds);
    await settledFds(softnic, softnicFds);
    assert.equal(await softnicPid(domain), softnic, 'the software NIC has seen nothing of it');
  });

  test('clients that ask and leave without the answer', async () => {
    const softnic = await softnicPid(domain);
    const [daemonFds, softnicFds] = [fdCount(daemon.pid), fdCount(softnic)];
    for (let n = 0; n < HASTY_CLIENTS; n++) {
      const client = daemon.raw().hello();
      for (let id = 2; id < 2 + random.below(4); id++) {
        client.send(JSON.stringify({ id, op: 'vnic.open', spec: { device: 'soft0' } }));
      }
      if (random.oneIn(2)) await sleep(random.below(4));
      client.close();
    }
    await awaitReclaimed(domain);
    await settledFds(daemon.pid, daemonFds);
    await settledFds(softnic, softnicFds);
  });

  test('the software NIC', async () => {
    const app = new TestApp({ ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'soft0,name=survivor' });
    await app.says('open survivor');
    const daemonFds = fdCount(daemon.pid);
    for (let n = 0; n < SOFTNIC_KILLS; n++) {
      const pid = await softnicPid(domain);
      await sleep(random.below(100));
      app.output = '';
      process.kill(pid, 'SIGKILL');
      await app.says('reattached survivor');
      assert.notEqual(await softnicPid(domain), pid);
    }
    assert.ok(!app.output.includes('gone'));
    const { devices } = (await domain.request('device.list', {})).reply;
    assert.equal(devices[0]!.restarts, SOFTNIC_KILLS);
    await settledFds(daemon.pid, daemonFds);
    await app.kill();
    await awaitReclaimed(domain);
  });
});

test(`kill -9 of the daemon, seed ${SEED}`, async () => {
  const random = new Random(SEED);
  let daemon = await TestDaemon.start();
  const { dir } = daemon;
  const domain = await daemon.connect();
  const softnic = await softnicPid(domain);
  const lasting = new TestApp({ ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'soft0,name=lasting' });
  await lasting.says('open lasting');
  const opened = async () => (await domain.request('list', {})).reply.objects.map(({ id }) => id);
  let fds = 0;
  for (let n = 0; n < DAEMON_KILLS; n++) {
    const ids = await opened();
    const app = new TestApp({ ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'soft0,name=fleeting' });
    await app.says('open');
    await sleep(random.below(100));
    await daemon.signal('SIGKILL');
    assert.ok(isAlive(softnic), 'the software NIC goes on');
    if (n % 2 === 1) await app.kill();
    lasting.output = '';
    daemon = await TestDaemon.start({ dir });
    await lasting.says('resumed 1');
    await app.kill();
    // What is restored has the id that it had; queues and filters are made anew.
    await until(async () => (await opened()).length === ids.length, 5000, 'one is left');
    assert.equal(await softnicPid(domain), softnic);
    assert.equal(domain.info.pid, daemon.pid);
    const spec = { device: 'soft0', name: 'lasting' };
    await assert.rejects(
      domain.openVnic(spec),
      (error) => (error as ArrakisError).code === 'ARK_IN_USE',
    );
    if (fds === 0) fds = fdCount(daemon.pid);
    await until(() => fdCount(daemon.pid) <= fds, 5000, 'every daemon has as many descriptors');
  }
  assert.ok(!lasting.output.includes('gone') && !lasting.ended);
  await lasting.kill();
  await awaitReclaimed(domain);
  await domain.close();
  await daemon.close();
  assert.deepEqual(findLeftovers(dir), []);
});

test('when no other daemon comes, everything ends by itself', async () => {
  const daemon = await TestDaemon.start({ args: ['--no-tap', '--keep-ms', '300'] });
  const domain = await daemon.connect();
  const softnic = await softnicPid(domain);
  const app = new TestApp({ ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'soft0' });
  await app.says('open');
  await daemon.signal('SIGKILL');
  await app.says('control-lost');
  await app.says('gone');
  await until(() => !isAlive(softnic), 5000, 'the software NIC ended by itself');
  assert.ok(!app.ended, 'the application goes on');
  await until(() => findLeftovers(daemon.dir).every(({ kind }) => kind === 'file'), 5000);
  await app.kill();
  const next = await TestDaemon.start({ dir: daemon.dir });
  const other = await next.connect();
  assert.equal((await other.request('list', {})).reply.objects.length, 2);
  await other.close();
  await domain.close();
  await next.close();
});

test('a daemon that dies while it starts leaves nothing that stops the next', async () => {
  const random = new Random(SEED);
  const first = await TestDaemon.start();
  const { dir } = first;
  await first.signal('SIGKILL');
  for (let n = 0; n < 5; n++) {
    const daemon = TestDaemon.launch({ dir });
    await sleep(100 + random.below(300));
    await daemon.signal('SIGKILL');
  }
  const last = await TestDaemon.start({ dir });
  await (await last.connect()).close();
  await last.close();
});
