/** The daemon as a process: one in a directory, bad clients, descriptors, users. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ArrakisError } from '../../src/arrakis/index.ts';
import { findLeftovers, removeLeftovers } from '../../src/control/leftovers.ts';
import { LIMITS } from '../../src/control/limits.ts';
import { pidPath, socketPath } from '../../src/control/paths.ts';
import { closeAll, closeFd, eventfd, POLLIN, pollOne, shutdownSocket } from '../../src/ffi/fd.ts';
import { connectUnix, peerCredentials, SOCK_STREAM, socketPair } from '../../src/ffi/unix.ts';
import { rootMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';
import {
  awaitReclaimed,
  DAEMON_SCRIPT,
  fdCount,
  isAlive,
  RawClient,
  softnicPid,
  TestApp,
  TestDaemon,
  temporaryDirectory,
} from './daemon.harness.ts';

const NOBODY = 65534;

const withCode = (code: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === code;

describe('the run directory', () => {
  test('a second daemon names the first one and leaves it alone', async () => {
    const daemon = await TestDaemon.start();
    try {
      const second = await TestDaemon.start({ dir: daemon.dir });
      assert.equal(second.child.exitCode, 2);
      assert.match(second.log, /ARK_ALREADY_RUNNING/);
      assert.match(second.log, new RegExp(`pid ${daemon.pid}\\b`));
      const domain = await daemon.connect();
      assert.equal(domain.info.pid, daemon.pid);
      await domain.close();
    } finally {
      await daemon.close();
    }
  });

  test('what a killed daemon left is found, and the next one starts over it', async () => {
    const daemon = await TestDaemon.start();
    const { dir } = daemon;
    assert.deepEqual(findLeftovers(dir), []);
    await daemon.signal('SIGKILL');
    const names = findLeftovers(dir).map((leftover) => leftover.name);
    assert.ok(names.includes(socketPath(dir)));
    assert.ok(names.includes(pidPath(dir)));
    assert.ok(findLeftovers(dir).some(({ description }) => description.includes('keeper')));
    // Who comes meanwhile is served by the next.
    const early = daemon.connect();
    const next = await TestDaemon.start({ dir });
    const domain = await early;
    assert.equal(domain.info.pid, next.pid);
    await domain.close();
    await next.signal('SIGKILL');
    await sleep(50);
    assert.ok(removeLeftovers(dir).length >= 2);
    assert.deepEqual(findLeftovers(dir), []);
    await next.close();
  });

  test('the device processes of others are no leftovers, and are not touched', async () => {
    const ours = await TestDaemon.start();
    const theirs = await TestDaemon.start();
    const domain = await theirs.connect();
    const softnic = await softnicPid(domain);
    await ours.signal('SIGKILL');
    removeLeftovers(ours.dir);
    assert.deepEqual(findLeftovers(ours.dir), []);
    assert.equal(await softnicPid(domain), softnic);
    assert.ok(isAlive(softnic));
    // A stand-in for a device process that outlived its daemon and the keeper, which ours do not.
    const orphan = spawn('sleep', ['30'], { env: { ...process.env, ARRAKIS_DEVICE_OF: ours.dir } });
    const stranger = spawn('sleep', ['30'], {
      env: { ...process.env, ARRAKIS_DEVICE_OF: '/other' },
    });
    await until(() => findLeftovers(ours.dir).length === 1, 2000);
    removeLeftovers(ours.dir);
    await until(() => orphan.signalCode === 'SIGKILL', 2000);
    assert.equal(stranger.exitCode, null);
    assert.equal(stranger.signalCode, null);
    stranger.kill('SIGKILL');
    await domain.close();
    await ours.close();
    await theirs.close();
  });

  test('SIGTERM removes socket, pid file and device process', async () => {
    const daemon = await TestDaemon.start();
    const domain = await daemon.connect();
    const softnic = await softnicPid(domain);
    let told = false;
    domain.on('shutdown', () => {
      told = true;
    });
    await daemon.signal('SIGTERM');
    assert.equal(daemon.child.exitCode, 0);
    assert.deepEqual(fs.readdirSync(daemon.dir), []);
    assert.equal(isAlive(softnic), false);
    await until(() => told, 1000, 'the client was told');
    await daemon.close();
  });

  test('a directory that others may write is refused', async () => {
    const dir = temporaryDirectory();
    fs.chmodSync(dir, 0o777);
    const daemon = await TestDaemon.start({ dir });
    assert.equal(daemon.child.exitCode, 1);
    assert.match(daemon.log, /ARK_NOT_PERMITTED/);
    fs.rmSync(dir, { recursive: true });
  });

  test('a wrong option is a usage error', async () => {
    const daemon = await TestDaemon.start({ args: ['--nonsense'] });
    assert.equal(daemon.child.exitCode, 1);
    assert.match(daemon.log, /ARK_USAGE/);
    await daemon.close();
  });
});

describe('bad clients', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
  });
  after(() => daemon.close());

  test('what cannot be read is answered by its code', () => {
    const cases: [string, string | Uint8Array, string][] = [
      ['not JSON', '{"id": 1, "op"', 'ARK_BAD_MESSAGE'],
      ['binary', Buffer.from([0, 255, 1, 2]), 'ARK_BAD_MESSAGE'],
      ['a number', '7', 'ARK_BAD_MESSAGE'],
      ['null', 'null', 'ARK_BAD_MESSAGE'],
      ['an array', '[]', 'ARK_BAD_MESSAGE'],
      ['no id', '{"op":"list"}', 'ARK_BAD_MESSAGE'],
      ['id 0', '{"id":0,"op":"list"}', 'ARK_BAD_MESSAGE'],
      ['fractional id', '{"id":1.5,"op":"list"}', 'ARK_BAD_MESSAGE'],
      ['no op', '{"id":1}', 'ARK_BAD_MESSAGE'],
      ['unknown op', '{"id":1,"op":"format"}', 'ARK_UNKNOWN_OPERATION'],
      ['inherited op', '{"id":1,"op":"constructor"}', 'ARK_UNKNOWN_OPERATION'],
      ['unknown field', '{"id":1,"op":"list","x":1}', 'ARK_BAD_MESSAGE'],
      ['__proto__', '{"id":1,"op":"list","__proto__":{"after":1}}', 'ARK_BAD_MESSAGE'],
      ['wrong type', '{"id":1,"op":"vnic.close","vnic":"1"}', 'ARK_BAD_MESSAGE'],
      ['deep nesting', '['.repeat(60_000), 'ARK_BAD_MESSAGE'],
      ['no such VNIC', '{"id":1,"op":"vnic.close","vnic":99999}', 'ARK_NOT_FOUND'],
      ['hello again', '{"id":1,"op":"hello","protocol":1}', 'ARK_NOT_PERMITTED'],
      ['other protocol', '{"id":1,"op":"hello","protocol":9}', 'ARK_UNSUPPORTED'],
      [
        'bad address',
        '{"id":1,"op":"vnic.open","spec":{"device":"soft0","address":-1}}',
        'ARK_BAD_MESSAGE',
      ],
      ['no such device', '{"id":1,"op":"vnic.open","spec":{"device":"nope0"}}', 'ARK_NOT_FOUND'],
    ];
    const client = daemon.raw().hello();
    for (const [name, message, code] of cases) {
      // A daemon without root has no interfaces to look at.
      const expected =
        process.getuid!() !== 0 && code === 'ARK_NOT_FOUND' && name === 'no such device'
          ? 'ARK_NOT_PERMITTED'
          : code;
      assert.equal(client.codeOf(message), expected, name);
    }
    assert.equal(client.codeOfRequest('list'), 'ok', 'the connection still works');
    client.close();
  });

  test('a message over the limit is refused, one at the limit is read', () => {
    const client = daemon.raw().hello();
    const padded = (length: number) => {
      const head = '{"id":1,"op":"list","pad":"';
      return `${head}${'x'.repeat(length - head.length - 2)}"}`;
    };
    assert.equal(client.codeOf(padded(LIMITS.messageBytesMax)), 'ARK_BAD_MESSAGE');
    client.send(padded(LIMITS.messageBytesMax + 1));
    const answer = client.receive() as { id: number; error: { message: string } };
    assert.equal(answer.id, 0);
    assert.match(answer.error.message, /at most 65536 bytes/);
    assert.equal(client.codeOfRequest('list'), 'ok');
    client.close();
  });

  test('nothing but hello goes before hello', () => {
    const client = daemon.raw();
    assert.equal(client.codeOfRequest('list'), 'ARK_NOT_PERMITTED');
    assert.equal(client.codeOfRequest('shutdown'), 'ARK_NOT_PERMITTED');
    client.hello().close();
  });

  test('an endless supply of nonsense ends the connection', () => {
    const client = daemon.raw().hello();
    let code = '';
    for (let n = 0; n <= LIMITS.badMessagesMax && code !== 'end'; n++) {
      try {
        code = client.codeOf('nonsense');
      } catch {
        code = 'end';
      }
    }
    assert.equal(code, 'end');
    client.close();
  });

  test('wrong descriptors are refused and not kept', async () => {
    const domain = await daemon.connect();
    const vnic = await domain.openVnic();
    const before = fdCount(daemon.pid);
    const client = daemon.raw().hello();
    const readOnly = fs.openSync('/dev/null', 'r');
    const file = fs.openSync('/dev/null', 'w');
    const directory = fs.openSync('/', 'r');
    const bell = eventfd();
    const args = { vnic: vnic.id };
    assert.equal(client.codeOfRequest('capture.start', args), 'ARK_BAD_MESSAGE');
    assert.equal(client.codeOfRequest('capture.start', args, [file, file]), 'ARK_BAD_MESSAGE');
    // The application gets the descriptor: it must not be able to read, nor to drive a terminal.
    const both = fs.openSync('/dev/null', 'r+');
    const terminal = fs.openSync('/dev/ptmx', fs.constants.O_WRONLY | fs.constants.O_NOCTTY);
    const sockets = socketPair(SOCK_STREAM);
    for (const fd of [readOnly, directory, bell, both, terminal, sockets[0]]) {
      assert.equal(client.codeOfRequest('capture.start', args, [fd]), 'ARK_BAD_ARGUMENT');
    }
    assert.equal(client.codeOfRequest('list', {}, [file]), 'ARK_BAD_MESSAGE');
    // More than a message may carry: they arrive, and are closed.
    assert.equal(client.codeOfRequest('list', {}, new Array(40).fill(file)), 'ARK_BAD_MESSAGE');
    client.close();
    closeAll([readOnly, file, directory, bell, both, terminal, ...sockets]);
    await until(() => fdCount(daemon.pid) === before, 2000, 'the daemon kept no descriptor');
    await vnic.close();
    await domain.close();
  });

  test('a client that says nothing is closed in time', async () => {
    const client = daemon.raw();
    const started = performance.now();
    assert.equal(client.receive(), null);
    const tookMs = performance.now() - started;
    assert.ok(tookMs < LIMITS.helloMsMax + 2000, `${tookMs} ms`);
    client.close();
  });

  test('a client that does not read is closed, and others are served meanwhile', async () => {
    const domain = await daemon.connect();
    const client = daemon.raw().hello();
    const request = Buffer.from('{"id":1,"op":"device.list"}');
    let sent = 0;
    const ended = until(() => {
      try {
        for (let n = 0; n < 50; n++) client.send(request);
        sent += 50;
        return sent > 1_000_000;
      } catch {
        return true;
      }
    }, 30_000);
    for (let n = 0; n < 20; n++) {
      await domain.request('list', {});
      await sleep(5);
    }
    await ended;
    client.close();
    await awaitReclaimed(domain);
    await domain.close();
    assert.match(daemon.log, /does not read|stopped reading/);
  });

  test('one user has a bounded number of connections', async () => {
    await sleep(100);
    const clients: RawClient[] = [];
    for (let n = 0; n < LIMITS.connectionsPerUidMax; n++) clients.push(daemon.raw().hello());
    const surplus = daemon.raw();
    assert.equal(surplus.receive(), null);
    surplus.close();
    for (const client of clients) client.close();
    await until(() => isServed(daemon.raw()), 3000);
  });

  test('and those that are over count while their descriptors have not been taken', async () => {
    const clients: RawClient[] = [];
    for (let n = 0; n < LIMITS.connectionsPerUidMax; n++) clients.push(daemon.raw().hello());
    for (const client of clients) {
      client.send('{"id":2,"op":"region.create","bytes":1}');
      const { cap } = client.receive()!;
      client.send(JSON.stringify({ id: 3, op: 'region.open', cap }));
    }
    // The answers are there.
    for (const { fd } of clients) assert.notEqual(pollOne(fd, POLLIN, 5000), 0);
    for (const { fd } of clients) shutdownSocket(fd);
    await sleep(3 * LIMITS.lingerMsMax);
    assert.ok(!isServed(daemon.raw()));
    for (const client of clients) client.close();
    await until(() => isServed(daemon.raw()), 3000);
  });
});

/** Whether the daemon takes this connection, which is closed. */
function isServed(client: RawClient): boolean {
  try {
    return client.codeOfRequest('hello', { protocol: 1 }) === 'ok';
  } catch {
    return false;
  } finally {
    client.close();
  }
}

describe('users', { skip: rootMissing() }, () => {
  test("root's daemon gives another user nothing but what was prepared", async () => {
    const daemon = await TestDaemon.start();
    const domain = await daemon.connect({ name: 'root' });
    try {
      const stranger = new TestApp(
        { ARRAKIS_SOCKET: daemon.socket, APP_VNIC: 'soft0' },
        { uid: NOBODY, gid: NOBODY },
      );
      await stranger.says('failed ARK_NOT_PERMITTED');
      await stranger.kill();

      const { reply, fds } = await domain.request('domain.prepare', {
        name: 'web',
        uid: NOBODY,
        vnics: [
          { device: 'soft0', name: 'front' },
          { device: 'soft0', name: 'back' },
        ],
      });
      assert.deepEqual(reply.vnics, ['front', 'back']);
      const app = new TestApp(
        { ARRAKIS_FD: '3', APP_VNIC: 'back' },
        { uid: NOBODY, gid: NOBODY },
        fds[0]!,
      );
      closeAll(fds);
      await app.says(`open back virtio uid ${NOBODY}`);
      assert.match(app.output, /fd taken/);
      await app.kill();
      await awaitReclaimed(domain);
    } finally {
      await domain.close();
      await daemon.close();
    }
  });

  test('a prepared channel in the hands of another user is useless', async () => {
    const daemon = await TestDaemon.start();
    const domain = await daemon.connect({ name: 'root' });
    try {
      const { fds } = await domain.request('domain.prepare', {
        name: 'web',
        uid: 12345,
        vnics: [{ device: 'soft0' }],
      });
      const thief = new TestApp({ ARRAKIS_FD: '3' }, { uid: NOBODY, gid: NOBODY }, fds[0]!);
      closeAll(fds);
      await thief.says('refused ARK_NOT_PERMITTED');
      await until(() => thief.ended);
      await awaitReclaimed(domain);
    } finally {
      await domain.close();
      await daemon.close();
    }
  });

  test('a daemon without root serves its own user with the software NIC', async () => {
    const daemon = await TestDaemon.start({ uid: NOBODY, args: [] });
    try {
      const app = new TestApp({ ARRAKIS_SOCKET: daemon.socket }, { uid: NOBODY, gid: NOBODY });
      await app.says('open vnic0 virtio');
      // Root does not talk to a control plane that anybody could have put there.
      await assert.rejects(daemon.connect(), withCode('ARK_NOT_PERMITTED'));
      await app.kill();
    } finally {
      await daemon.close();
    }
  });
});

describe('operations', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await TestDaemon.start();
  });
  after(() => daemon.close());

  test('prepared specs that overlap, or the address of another, are refused as a whole', async () => {
    const domain = await daemon.connect();
    const vnic = await domain.openVnic('soft0,ip=10.77.0.50');
    const args = { name: 'x', uid: process.getuid!() };
    const twice = { device: 'soft0', address: 0x0a4d0033 };
    const prepare = (vnics: object[]) =>
      domain.request('domain.prepare', { ...args, vnics: vnics as never });
    await assert.rejects(prepare([twice, twice]), withCode('ARK_IN_USE'));
    await assert.rejects(prepare([{ device: 'soft0', address: vnic.address }]), /belongs to VNIC/);
    await assert.rejects(domain.openVnic('soft0,ip=10.77.0.1'), /the host itself/);
    await assert.rejects(domain.openVnic('soft0,ip=224.0.0.1'), withCode('ARK_BAD_ARGUMENT'));
    await assert.rejects(domain.openVnic('soft0,port=udp:7'), withCode('ARK_BAD_ARGUMENT'));
    await assert.rejects(domain.openVnic('soft0,mode=direct'), withCode('ARK_BAD_ARGUMENT'));
    await vnic.close();
    await awaitReclaimed(domain);
    await domain.close();
  });

  test('a domain narrows its filters, and widens them no further than it was given', async () => {
    const domain = await daemon.connect();
    const [prepared] = [
      await domain.request('domain.prepare', {
        name: 'narrow',
        uid: process.getuid!(),
        vnics: [{ device: 'soft0', address: 0x0a4d0040 }],
      }),
    ];
    const app = new RawPrepared(prepared.fds[0]!);
    const vnic = app.open();
    const filter = 'udp dst port 7 and dst host 10.77.0.64';
    const any = 'dst host 10.77.0.64';
    assert.equal(app.codeOfRequest('filter.set', { vnic, filters: [filter] }), 'ok');
    assert.equal(app.codeOfRequest('filter.set', { vnic, filters: [any] }), 'ok');
    const foreign = 'udp dst port 7 and dst host 10.77.0.65';
    assert.equal(
      app.codeOfRequest('filter.set', { vnic, filters: [foreign] }),
      'ARK_NOT_PERMITTED',
    );
    assert.equal(app.codeOfRequest('shutdown'), 'ARK_NOT_PERMITTED');
    assert.equal(app.codeOfRequest('vnic.close', { vnic: vnic + 1000 }), 'ARK_NOT_FOUND');
    app.close();
    await awaitReclaimed(domain);
    await domain.close();
  });

  test('vnic.listen makes a vhost-user socket that goes with the VNIC', async () => {
    const domain = await daemon.connect();
    const { path: at, vnic } = (await domain.request('vnic.listen', { path: 'guest0' })).reply;
    assert.equal(path.dirname(at), path.join(daemon.dir, 'ports'));
    const fd = connectUnix(at, SOCK_STREAM);
    assert.equal(peerCredentials(fd).pid, await softnicPid(domain));
    closeFd(fd);
    await assert.rejects(
      domain.request('vnic.listen', { path: '../x' }),
      withCode('ARK_BAD_ARGUMENT'),
    );
    await assert.rejects(domain.request('vnic.listen', { path: 'guest0' }), withCode('ARK_IN_USE'));
    await domain.request('vnic.close', { vnic });
    assert.equal(fs.existsSync(at), false);
    await domain.close();
  });

  test('a capture is written by the application, and ends by capture.stop', async () => {
    const domain = await daemon.connect();
    const app = new TestApp({
      ARRAKIS_SOCKET: daemon.socket,
      APP_VNIC: 'soft0,ip=10.77.0.60,name=cap',
    });
    await app.says('open cap');
    const { objects } = (await domain.request('list', {})).reply;
    const { id } = objects.find((object) => object.name === 'cap')!;
    const file = path.join(os.tmpdir(), `ctl-capture-${process.pid}.pcapng`);
    const fd = fs.openSync(file, 'w');
    await domain.request('capture.start', { vnic: id }, [fd]);
    await assert.rejects(
      domain.request('capture.start', { vnic: id }, [fd]),
      withCode('ARK_IN_USE'),
    );
    closeFd(fd);
    await until(() => fs.statSync(file).size > 0, 3000, 'the file header is written');
    assert.equal(fs.readFileSync(file).readUInt32LE(0), 0x0a0d0d0a);
    await domain.request('capture.stop', { vnic: id });
    await assert.rejects(domain.request('capture.stop', { vnic: id }), withCode('ARK_NOT_FOUND'));
    const holds = () =>
      fs.readdirSync(`/proc/${app.child.pid}/fd`).some((entry) => {
        try {
          return fs.readlinkSync(`/proc/${app.child.pid}/fd/${entry}`) === file;
        } catch {
          return false;
        }
      });
    await until(() => !holds(), 2000, 'the application closed the file');
    fs.rmSync(file);
    await app.kill();
    await awaitReclaimed(domain);
    await domain.close();
  });

  test('a list longer than a message comes in pages', async () => {
    const domain = await daemon.connect();
    const channels: number[] = [];
    for (let n = 0; n < 12; n++) {
      const { fds } = await domain.request('domain.prepare', {
        name: `many-${n}`,
        uid: process.getuid!(),
        vnics: new Array(16).fill({ device: 'soft0' }),
      });
      channels.push(...fds);
    }
    const ids = new Set<number>();
    let pages = 0;
    for (let after = 0, omitted = 1; omitted > 0; pages++) {
      const { reply } = await domain.request('list', pages === 0 ? {} : { after });
      for (const object of reply.objects) ids.add(object.id);
      after = reply.objects.at(-1)!.id;
      omitted = reply.omitted;
    }
    assert.ok(pages > 1);
    assert.equal(ids.size, 2 + 12 + 12 * 16 * 2);
    closeAll(channels);
    await awaitReclaimed(domain);
    await domain.close();
  });

  test('the daemon starts with its own copy of nothing: no inherited descriptors reach the NIC', async () => {
    const domain = await daemon.connect();
    const pid = await softnicPid(domain);
    const links = fs.readdirSync(`/proc/${pid}/fd`).map((fd) => {
      try {
        return fs.readlinkSync(`/proc/${pid}/fd/${fd}`);
      } catch {
        return '';
      }
    });
    assert.ok(!links.some((link) => link.startsWith(daemon.dir)), links.join(' '));
    await domain.close();
  });
});

/** A prepared channel, spoken by hand. */
class RawPrepared extends RawClient {
  constructor(fd: number) {
    super(fd);
    this.hello();
  }

  open(): number {
    this.send('{"id":500,"op":"vnic.open"}');
    return this.receive()!.vnic as number;
  }
}

test('arrakisd --help explains itself', async () => {
  const child = spawn(process.execPath, [DAEMON_SCRIPT, '--help'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  await until(() => child.exitCode !== null, 10_000);
  assert.equal(child.exitCode, 0);
  assert.match(text, /--tap-address/);
});
