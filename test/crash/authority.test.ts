/** Capabilities when the daemon is killed: the next one has the same, and what hangs on them still does. Needs no root. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Domain } from '../../src/arrakis/index.ts';
import { until } from '../support/until.ts';
import { TestDaemon } from './daemon.harness.ts';

const WAIT_MS = 15_000;

test('capabilities outlive the daemon, and revoking them still stops the VNIC', async () => {
  let daemon = await TestDaemon.start();
  const domains: Domain[] = [];
  try {
    let root = await daemon.connect({ name: 'root' });
    const prepared = async (name: string): Promise<Domain> => {
      const uid = process.getuid!();
      const { fds } = await root.request('domain.prepare', { name, uid, vnics: [] });
      const domain = await new Domain(fds[0]!).hello(name);
      domains.push(domain);
      return domain;
    };
    const app = await prepared('app');
    const other = await prepared('other');
    const to = app.info.domain;
    const mint = async (kind: 'device' | 'addresses' | 'rate') =>
      (await root.request('cap.mint', { to, kind, object: 'soft0' })).reply.cap;
    const device = await mint('device');
    await mint('addresses');
    await mint('rate');
    const vnic = await app.openVnic('soft0');
    const gift = await app.grant(device, other.info.domain, { rights: ['open'] });
    const before = await app.capabilities();
    assert.equal(before.length, 4);
    await root.close();

    const resumed = [once(app, 'resumed'), once(other, 'resumed')];
    await daemon.signal('SIGKILL');
    daemon = await TestDaemon.start({ dir: daemon.dir });
    await Promise.all(resumed);
    assert.deepEqual(await app.capabilities(), before);
    assert.deepEqual(await other.capabilities(), [gift]);

    root = await daemon.connect({ name: 'root' });
    domains.push(root);
    // Its root is a new number: no old one is used again.
    const minted = await root.request('cap.mint', { to, kind: 'device', object: 'soft0' });
    assert.ok(minted.reply.cap > gift.cap);
    let gone = '';
    vnic.on('gone', (reason) => {
      gone = reason;
    });
    await root.revoke(device, { whole: true, graceMs: 10 });
    await until(() => gone !== '', WAIT_MS, 'the VNIC is gone');
    assert.equal(gone, 'revoked');
    assert.deepEqual(await other.capabilities(), []);
    await assert.rejects(other.derive(gift.cap), { code: 'ARK_NOT_FOUND' });
  } finally {
    for (const domain of domains) await domain.close();
    await daemon.close();
  }
});
