/** What outlives a daemon, when that is damaged, or its keeper is killed too. And that the keeper takes nothing from others. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { Domain } from '../../src/arrakis/index.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import { findLeftovers, keeperOf } from '../../src/control/leftovers.ts';
import { journalPath, keeperPath } from '../../src/control/paths.ts';
import { capabilitiesOf } from '../../src/ffi/capabilities.ts';
import { closeFd, eventfd } from '../../src/ffi/fd.ts';
import {
  connectUnix,
  receiveMessage,
  SCM_MAX_FD,
  SOCK_SEQPACKET,
  SOCK_STREAM,
  sendMessage,
  setTimeouts,
} from '../../src/ffi/unix.ts';
import { rootMissing } from '../support/privilege.ts';
import { Random } from '../support/random.ts';
import { sleep, until } from '../support/until.ts';
import { fdCount, isAlive, softnicPid, TestApp, TestDaemon } from './daemon.harness.ts';

const SEED = 20_141_006;
const CUTS = 6;
const WAIT_MS = 8000;

describe(`a killed daemon, seed ${SEED}`, () => {
  const random = new Random(SEED);
  let daemon: TestDaemon;
  let app: TestApp;
  before(async () => {
    daemon = await TestDaemon.start();
  });
  beforeEach(async () => {
    // Of a test that failed: it has the name.
    await (app as TestApp | undefined)?.kill();
    app = new TestApp({ ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'soft0,name=app' });
    await app.says('open app');
  });
  after(async () => {
    await app.kill();
    await daemon.close();
  });

  const connect = (): Promise<Domain> => daemon.connect();

  async function restart(): Promise<void> {
    const { dir } = daemon;
    daemon = await TestDaemon.start({ dir });
    assert.ok(!daemon.ended, daemon.log);
  }

  async function endApp(): Promise<void> {
    await app.kill();
    const domain = await connect();
    await until(
      async () => (await domain.request('list', {})).reply.objects.length === 2,
      WAIT_MS,
      'everything is reclaimed',
    );
    await domain.close();
  }

  test('a keeper that is killed is replaced, and has everything again', async () => {
    const { dir } = daemon;
    const keeper = keeperOf(dir);
    process.kill(keeper, 'SIGKILL');
    await until(() => ![0, keeper].includes(keeperOf(dir)), WAIT_MS, 'there is another keeper');
    await until(() => daemon.log.split('keeper started').length > 2, WAIT_MS);
    // The deposits of a keeper that is still starting wait in its socket.
    await daemon.signal('SIGKILL');
    await restart();
    await app.says('resumed 1');
    assert.ok(!app.output.includes('gone'));
    await endApp();
  });

  test('keeper and daemon: everything ends, and the next daemon begins anew', async () => {
    const { dir } = daemon;
    const domain = await connect();
    const nic = await softnicPid(domain);
    process.kill(keeperOf(dir), 'SIGKILL');
    await daemon.signal('SIGKILL');
    await app.says('control-lost');
    await app.says('gone');
    await until(() => !isAlive(nic), WAIT_MS, 'the software NIC ends');
    await restart();
    await app.kill();
    await domain.close();
    app = new TestApp({ ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'soft0,name=app' });
    await app.says('open app');
    await endApp();
  });

  test('a journal that was cut anywhere: what is left is whole, the rest is given back', async () => {
    for (let n = 0; n < CUTS; n++) {
      const path = journalPath(daemon.dir);
      await daemon.signal('SIGKILL');
      const bytes = fs.readFileSync(path);
      fs.truncateSync(path, random.below(bytes.length));
      app.output = '';
      await restart();
      // Either it was taken over, or the application lost its VNIC or its channel, and knows.
      await until(() => /resumed|gone|control-lost/.test(app.output), WAIT_MS, 'it is told');
      await app.kill();
      const domain = await connect();
      await until(
        async () => (await domain.request('list', {})).reply.objects.length === 2,
        WAIT_MS,
        'everything is reclaimed',
      );
      const vnic = await domain.openVnic('soft0,name=app');
      await vnic.close();
      await domain.close();
      app = new TestApp({ ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'soft0,name=app' });
      await app.says('open app');
    }
    await endApp();
  });

  test('a damaged record takes its VNIC along, says so, and no domain', async () => {
    const path = journalPath(daemon.dir);
    await daemon.signal('SIGKILL');
    const lines = fs.readFileSync(path, 'utf8').split('\n');
    const at = lines.findLastIndex((line) => line.includes('["put","vnic"'));
    lines[at] = lines[at]!.replace('"name":"app"', '"name":"apq"');
    fs.writeFileSync(path, lines.join('\n'));
    app.output = '';
    await restart();
    await app.says('gone it was lost with the daemon that was killed');
    await app.says('open app');
    assert.match(daemon.log, /"what":"vnic \d+: its record is damaged"/);
    assert.ok(!app.output.includes('control-lost'));
    await endApp();
  });

  test('the journal of a later version stops the daemon before it touches anything', async () => {
    const { dir } = daemon;
    const path = journalPath(dir);
    await daemon.signal('SIGKILL');
    const ours = fs.readFileSync(path);
    const header = '{"format":"arrakis-journal","version":99}';
    const crc = crc32c(Buffer.from(header)).toString(16).padStart(8, '0');
    fs.writeFileSync(path, `${crc} ${header}\n`);
    const files = fs.readdirSync(dir);
    const refused = TestDaemon.launch({ dir });
    await until(() => refused.ended, WAIT_MS, 'it does not start');
    assert.equal(refused.child.exitCode, 1);
    await until(() => refused.log.includes('ARK_UNSUPPORTED'), WAIT_MS);
    assert.ok(refused.log.includes(path) && refused.log.includes(`rm ${path}`), refused.log);
    assert.deepEqual(fs.readdirSync(dir), files);
    assert.ok(keeperOf(dir) > 0, 'the keeper waits on');
    fs.writeFileSync(path, ours);
    await restart();
    await app.says('resumed 1');
    await endApp();
  });

  test('a request that was under way fails, and one that was not read is answered', async () => {
    const domain = await connect();
    const pid = daemon.pid;
    // Stopped, it reads nothing: what is asked now waits in the socket.
    process.kill(pid, 'SIGSTOP');
    const asked = domain.request('device.list', {});
    await daemon.signal('SIGKILL');
    await restart();
    assert.equal((await asked).reply.devices.length, 1);
    await domain.close();
    await endApp();
  });

  test('a device that keeps dying is started ever more slowly, and says so', async () => {
    const domain = await connect();
    const state = async () => (await domain.request('device.list', {})).reply.devices[0]!;
    let nic = await softnicPid(domain);
    const { restarts } = await state();
    for (let n = 0; n < 4; n++) {
      process.kill(nic, 'SIGKILL');
      nic = await softnicPid(domain, nic);
    }
    process.kill(nic, 'SIGKILL');
    await until(async () => (await state()).state === 'restarting', WAIT_MS, 'it waits to restart');
    const pauses = [...daemon.log.matchAll(/"pauseMs":(\d+)/g)].map(([, ms]) => Number(ms));
    assert.ok(pauses.at(-1)! >= 2 * pauses.at(-4)!, pauses.join(' '));
    await app.says('reattached app');
    await softnicPid(domain, nic);
    assert.equal((await state()).restarts, restarts + 5);
    await domain.close();
    await endApp();
  });

  test('another network ends the VNICs that were on the old one, and nothing else', async () => {
    const { dir } = daemon;
    await daemon.signal('SIGKILL');
    app.output = '';
    daemon = await TestDaemon.start({ dir, args: ['--no-tap', '--tap-address', '10.79.0.1/24'] });
    await app.says('gone');
    await app.says('open app');
    const domain = await connect();
    const { objects } = (await domain.request('list', {})).reply;
    const vnic = objects.find(({ kind }) => kind === 'vnic');
    assert.equal(Number(vnic!.detail.address) >>> 8, 0x0a4f00);
    await domain.close();
    await app.kill();
    await daemon.signal('SIGTERM');
    daemon = await TestDaemon.start({ dir });
  });

  test('a socket for foreign programs is there again, whoever was killed', async () => {
    const domain = await connect();
    const args = { path: 'foreign', keep: true, spec: { device: 'soft0', name: 'foreign' } };
    const { path, vnic } = (await domain.request('vnic.listen', args)).reply;
    const accepts = (): boolean => {
      try {
        closeFd(connectUnix(path, SOCK_STREAM));
        return true;
      } catch {
        return false;
      }
    };
    await until(accepts, WAIT_MS, 'it listens');
    await daemon.signal('SIGKILL');
    assert.ok(accepts(), 'without a daemon');
    await restart();
    const nic = await softnicPid(domain);
    process.kill(nic, 'SIGKILL');
    await softnicPid(domain, nic);
    await until(accepts, WAIT_MS, 'it listens again');
    // Also while a client is connected.
    const client = connectUnix(path, SOCK_STREAM);
    await sleep(100);
    await domain.request('vnic.close', { vnic });
    assert.ok(!fs.existsSync(path));
    closeFd(client);
    await domain.close();
    await endApp();
  });

  test('domains that die at any moment leave nothing with the keeper', async () => {
    await endApp();
    const domain = await connect();
    const { dir } = daemon;
    await sleep(200);
    const before = fdCount(keeperOf(dir));
    for (let n = 0; n < 10; n++) {
      const one = new TestApp({ ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'soft0' });
      await sleep(random.below(300));
      await one.kill();
    }
    await until(() => fdCount(keeperOf(dir)) === before, WAIT_MS, 'the keeper has what it had');
    await domain.close();
  });
});

describe('the keeper', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start({ args: ['--no-tap', '--keep-ms', '1500'] });
  });
  after(() => daemon.close());

  function talk(): { fd: number; ask(message: object, fds?: number[]): void; answer(): string } {
    const fd = connectUnix(keeperPath(daemon.dir), SOCK_SEQPACKET);
    setTimeouts(fd, WAIT_MS);
    const buffer = Buffer.alloc(4096);
    return {
      fd,
      ask: (message, fds = []) => void sendMessage(fd, Buffer.from(JSON.stringify(message)), fds),
      answer: () => {
        const received = receiveMessage(fd, buffer, SCM_MAX_FD);
        for (const each of received?.fds ?? []) closeFd(each);
        const count = received?.fds.length ?? 0;
        return `${buffer.toString('utf8', 0, received?.length ?? 0)} ${count}`;
      },
    };
  }

  test('has no capability of root', { skip: rootMissing() }, async () => {
    const pid = keeperOf(daemon.dir);
    const held = () => capabilitiesOf(pid).flatMap((sets) => Object.values(sets).flat());
    await until(() => held().length === 0, WAIT_MS, 'it has given up all');
  });

  test('is for its own user only', { skip: rootMissing() }, async () => {
    process.seteuid!(12345);
    try {
      assert.throws(talk, /EACCES/);
    } finally {
      process.seteuid!(0);
    }
    assert.equal(fs.statSync(keeperPath(daemon.dir)).mode & 0o777, 0o600);
  });

  test('keeps what it is given, serves who came last, and ends when nobody comes', async () => {
    await daemon.signal('SIGKILL');
    const pid = keeperOf(daemon.dir);
    const first = talk();
    const event = eventfd();
    first.ask({ op: 'put', label: 'x' }, [event, event]);
    first.ask({ op: 'put', label: 'y' }, [event]);
    first.ask({ op: 'delete', label: 'y' });
    const second = talk();
    closeFd(event);
    second.ask({ op: 'take' });
    const labels: string[] = [];
    for (let text = second.answer(); !text.includes('end'); text = second.answer())
      labels.push(text);
    assert.ok(labels.includes('{"label":"x"} 2'));
    assert.ok(!labels.some((label) => label.includes('"y"')));
    // What no daemon says ends the connection, not the keeper.
    second.ask({ op: 'put', label: 'none' });
    assert.equal(second.answer(), ' 0');
    assert.ok(isAlive(pid));
    closeFd(first.fd);
    closeFd(second.fd);
    await until(() => !isAlive(pid), WAIT_MS, 'it has waited long enough');
    const onlyFiles = () => findLeftovers(daemon.dir).every(({ kind }) => kind === 'file');
    await until(onlyFiles, WAIT_MS, 'the software NIC ends with it');
  });
});
