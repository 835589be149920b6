/** The daemon is killed under load: no packet, no connection and no application notices. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { Domain } from '../../src/arrakis/index.ts';
import { connect, isolateNetwork, Namespace } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { Random } from '../support/random.ts';
import { sleep, until } from '../support/until.ts';
import { awaitReclaimed, softnicPid, TestDaemon } from './daemon.harness.ts';
import { CountingClient, Echo } from './repair.harness.ts';

const SEED = 20_141_006;
const KILLS = 4;
const INTERVAL_MS = 4;
/** After the kill of the software NIC: its first pause, its start, the handshake; on a busy machine. */
const RESUME_MS_MAX = 8_000;
const NIC_KILLS = 3;

describe(`kill -9 under load, seed ${SEED}`, { skip: rootMissing() }, () => {
  const random = new Random(SEED);
  let remote: Namespace;
  let daemon: TestDaemon;
  let domain: Domain;
  let server: net.Server;
  const echoes: Echo[] = [];
  const clients: CountingClient[] = [];

  before(async () => {
    isolateNetwork();
    remote = new Namespace();
    for (const [n, name] of ['rep0', 'rep1'].entries()) {
      connect(remote, {
        local: { name, ip: `10.${n + 1}.0.1`, prefix: 24 },
        remote: { name: `${name}r`, ip: `10.${n + 1}.0.2`, prefix: 24 },
      });
    }
    server = net.createServer((socket) => socket.on('error', () => {}).pipe(socket));
    await new Promise<void>((resolve) => server.listen(0, '10.1.0.1', resolve));
    daemon = await TestDaemon.start({ args: [] });
    domain = await daemon.connect();
    const port = { protocol: 'udp', first: 7, last: 7 };
    echoes.push(await Echo.start(domain, 'tap', { device: 'soft0', address: 0x0a4d0002 }));
    const switched = { device: 'rep0', ports: [port], queues: 2 };
    echoes.push(await Echo.start(domain, 'switched', switched));
    const direct = { device: 'rep1', mode: 'direct', queue: 0, ports: [port] };
    echoes.push(await Echo.start(domain, 'direct', direct));
    const threads = { device: 'soft0', address: 0x0a4d0003, queues: 2 };
    echoes.push(await Echo.start(domain, 'threads', threads));
  });
  after(async () => {
    for (const client of clients) client.kill();
    for (const echo of echoes) await echo.kill();
    server.close();
    await domain.close();
    await daemon.close();
    remote.close();
  });

  async function restartDaemon(): Promise<void> {
    const { dir } = daemon;
    await daemon.signal('SIGKILL');
    await sleep(random.below(400));
    daemon = await TestDaemon.start({ dir, args: [] });
  }

  const objects = async (): Promise<string[]> =>
    (await domain.request('list', {})).reply.objects
      .filter(({ kind }) => ['domain', 'vnic'].includes(kind))
      .map(({ kind, id, name }) => `${kind} ${id} ${name}`);

  test('the daemon, again and again', async () => {
    const { port } = server.address() as net.AddressInfo;
    clients.push(await CountingClient.start(null, '10.77.0.2', INTERVAL_MS));
    clients.push(await CountingClient.start(remote, '10.1.0.1', INTERVAL_MS, ['10.1.0.1', port]));
    clients.push(await CountingClient.start(remote, '10.2.0.1', INTERVAL_MS));
    clients.push(await CountingClient.start(null, '10.77.0.3', INTERVAL_MS));
    const before = await objects();
    const nic = await softnicPid(domain);
    for (let n = 0; n < KILLS; n++) {
      await sleep(200 + random.below(300));
      await restartDaemon();
      assert.deepEqual(await objects(), before);
    }
    assert.equal(await softnicPid(domain), nic, 'the software NIC is the same');
    for (const [i, client] of clients.splice(0).entries()) {
      const counts = await client.finish();
      const { sent, received, duplicated, reordered, tcp } = counts;
      assert.ok(sent > 100, `${echoes[i]!.name} was under load: ${sent}`);
      const told = JSON.stringify(counts);
      assert.deepEqual([sent - received, duplicated, reordered], [0, 0, 0], told);
      if (tcp !== null) {
        assert.deepEqual([tcp.received, tcp.isOrdered, tcp.error], [tcp.sent, true, ''], told);
      }
    }
    assert.ok(echoes.every((echo) => !echo.ended));
  });

  test('the software NIC: the application goes on with the next one', async () => {
    clients.push(await CountingClient.start(null, '10.77.0.2', INTERVAL_MS));
    clients.push(await CountingClient.start(null, '10.77.0.3', INTERVAL_MS));
    for (let n = 0; n < NIC_KILLS; n++) {
      const pid = await softnicPid(domain);
      await sleep(random.below(300));
      process.kill(pid, 'SIGKILL');
      await softnicPid(domain, pid);
      // Long enough to hear echoes again before the next kill.
      await sleep(1000);
    }
    for (const client of clients.splice(0)) {
      const { sent, received, duplicated, reordered, silentMsMax } = await client.finish();
      assert.ok(received < sent, 'it was under load when it was killed');
      assert.ok(received > sent / 4, `${received} of ${sent} came back`);
      assert.deepEqual([duplicated, reordered], [0, 0]);
      assert.ok(silentMsMax < RESUME_MS_MAX, `silent for ${silentMsMax} ms`);
    }
    assert.ok(echoes.every((echo) => !echo.ended));
  });

  test('daemon and software NIC at once', async () => {
    const client = await CountingClient.start(null, '10.77.0.2', INTERVAL_MS);
    clients.push(client);
    const pid = await softnicPid(domain);
    const { dir } = daemon;
    const dead = daemon.signal('SIGKILL');
    process.kill(pid, 'SIGKILL');
    await dead;
    daemon = await TestDaemon.start({ dir, args: [] });
    await softnicPid(domain, pid);
    await sleep(1500);
    const { sent, received, silentMsMax } = await client.finish();
    assert.ok(received > sent / 10, `${received} of ${sent} came back, silent ${silentMsMax} ms`);
    assert.ok(!echoes[0]!.ended);
  });

  test('what ended meanwhile is reclaimed by the next daemon', async () => {
    const { dir } = daemon;
    await daemon.signal('SIGKILL');
    for (const echo of echoes.splice(0)) await echo.kill();
    daemon = await TestDaemon.start({ dir, args: [] });
    await awaitReclaimed(domain);
    await until(
      async () => {
        const { devices } = (await domain.request('device.list', {})).reply;
        return devices.length === 1;
      },
      3000,
      'the interfaces are let go',
    );
  });
});
