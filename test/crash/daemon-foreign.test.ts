/**
 * Descriptors that clients choose. The last close of a TCP socket that lingers over unsent data waits for its peer: a
 * daemon that made it itself would serve nobody meanwhile.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { ArrakisError, connect, type Domain } from '../../src/arrakis/index.ts';
import { isErrno } from '../../src/base/errors.ts';
import { LIMITS } from '../../src/control/limits.ts';
import { closeAll, closeFd, setNonBlocking, writeFd } from '../../src/ffi/fd.ts';
import { AF_INET, connectSocket, openSocket, setsockopt } from '../../src/ffi/socket.ts';
import { passRights, SOCK_SEQPACKET, SOCK_STREAM, socketPair } from '../../src/ffi/unix.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { fdCount, RawClient, TestDaemon } from './daemon.harness.ts';

const USER = 12345;
const SOL_SOCKET = 1;
const SO_LINGER = 13;
const LINGER_S = 60;
const ANSWER_MS_MAX = 2000;

const canRefuse = (): boolean => {
  const [a, b] = socketPair(SOCK_SEQPACKET);
  const can = passRights(a, false);
  closeAll([a, b]);
  return can;
};

/** A client of another user, by the kernel's word. */
function clientOf(uid: number, daemon: TestDaemon): RawClient {
  process.seteuid!(uid);
  try {
    return daemon.raw();
  } finally {
    process.seteuid!(0);
  }
}

describe('descriptors of clients', { skip: rootMissing() }, () => {
  let daemon: TestDaemon;
  let witness: Domain;
  let sink: net.Server;
  const accepted = new Set<net.Socket>();
  before(async () => {
    daemon = await TestDaemon.start();
    witness = await daemon.connect({ name: 'witness' });
    sink = net.createServer({ pauseOnConnect: true }, (socket) => {
      accepted.add(socket.on('error', () => {}));
    });
    await new Promise<void>((resolve) => sink.listen(0, '127.0.0.1', resolve));
  });
  after(async () => {
    for (const socket of accepted) socket.destroy();
    sink.close();
    await witness.close();
    await daemon.close();
  });

  /** A TCP socket with more unsent data than its peer takes, and a close that waits for that. */
  function lingering(): number {
    const fd = openSocket(AF_INET, SOCK_STREAM, 0);
    const address = Buffer.alloc(16);
    address.writeUInt16LE(AF_INET, 0);
    address.writeUInt16BE((sink.address() as net.AddressInfo).port, 2);
    address.writeUInt32BE(0x7f000001, 4);
    connectSocket(fd, address, 'the sink');
    setNonBlocking(fd);
    const data = Buffer.alloc(1 << 16);
    while (writeFd(fd, data) > 0);
    const linger = Buffer.alloc(8);
    linger.writeInt32LE(1, 0);
    linger.writeInt32LE(LINGER_S, 4);
    assert.equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, 8), 0);
    return fd;
  }

  const cases: [string, string, number, boolean][] = [
    ['an unreadable message', 'nonsense', 1, false],
    ['a message that takes none', '{"id":9,"op":"list"}', 1, false],
    ['a refused request', '{"id":9,"op":"capture.start","vnic":99999}', 1, false],
    ['more descriptors than a message may have', '{"id":9,"op":"list"}', 40, false],
    ['a connection that closes', '{"id":9,"op":"list"}', 1, true],
  ];
  for (const [name, message, copies, closes] of cases) {
    test(`a close that waits holds nobody up: ${name}`, async () => {
      const fdsBefore = fdCount(daemon.pid);
      const client = daemon.raw().hello();
      const fd = lingering();
      // Held still, so that the daemon's close is the last one, not ours.
      process.kill(daemon.pid, 'SIGSTOP');
      client.send(message, new Array(copies).fill(fd));
      closeFd(fd);
      if (closes) client.close();
      process.kill(daemon.pid, 'SIGCONT');
      const startedMs = performance.now();
      await witness.request('list', {});
      if (!closes) {
        assert.equal(client.receive()?.ok, false);
        client.close();
      }
      await witness.request('list', {});
      assert.ok(performance.now() - startedMs < ANSWER_MS_MAX);
      // The peer ends, and so do the closes that waited for it.
      for (const socket of accepted) socket.destroy();
      await until(() => fdCount(daemon.pid) <= fdsBefore, 3000, 'the daemon kept no descriptor');
    });
  }

  test('the kernel refuses descriptors of others, and nothing else', {
    skip: canRefuse() ? false : 'this kernel has no SO_PASSRIGHTS',
  }, async () => {
    const file = fs.openSync('/dev/null', 'w');
    const refused = (error: unknown) => isErrno(error, 'EPERM');
    const stranger = clientOf(USER, daemon);
    const list = '{"id":9,"op":"list"}';
    assert.throws(() => stranger.send(list, [file]), refused, 'before it is accepted');
    stranger.hello();
    assert.throws(() => stranger.send(list, [file]), refused);
    assert.equal(stranger.codeOf(list), 'ok');
    stranger.close();
    const { fds } = await witness.request('domain.prepare', {
      name: 'web',
      uid: 0,
      vnics: [{ device: 'soft0' }],
    });
    const prepared = new RawClient(fds[0]!).hello();
    assert.throws(() => prepared.send(list, [file]), refused);
    assert.equal(prepared.codeOf(list), 'ok');
    prepared.close();
    // Root's own connection still sends them.
    const root = daemon.raw().hello();
    assert.equal(root.codeOfRequest('capture.start', { vnic: 99999 }, [file]), 'ARK_NOT_FOUND');
    root.close();
    closeFd(file);
  });

  test('libarrakis says so before the kernel does', async () => {
    const { fds } = await witness.request('domain.prepare', {
      name: 'web',
      uid: 0,
      vnics: [{ device: 'soft0' }],
    });
    process.env.ARRAKIS_FD = String(fds[0]!);
    const domain = await connect();
    const file = fs.openSync('/dev/null', 'w');
    await assert.rejects(
      domain.request('capture.start', { vnic: 1 }, [file]),
      (error) => error instanceof ArrakisError && error.code === 'ARK_NOT_PERMITTED',
    );
    await domain.request('list', {});
    closeFd(file);
    await domain.close();
  });

  test('users leave connections for the privileged', async () => {
    const users = LIMITS.connectionsMax - LIMITS.connectionsReserved;
    const clients: RawClient[] = [];
    for (let n = 0; n < users; n++) {
      clients.push(clientOf(USER + Math.floor(n / (LIMITS.connectionsPerUidMax - 1)), daemon));
    }
    const surplus = clientOf(USER + 1000, daemon);
    assert.equal(surplus.receive(), null);
    const root = daemon.raw().hello();
    for (const client of [...clients, surplus, root]) client.close();
  });
});
