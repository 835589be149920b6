/** Capabilities, regions, names and endpoints when the daemon is killed: the same ids, the same rights, the same end. */
import assert from 'node:assert/strict';
import os from 'node:os';
import { after, before, describe, test } from 'node:test';
import { connect, type Domain } from '../../src/arrakis/index.ts';
import type { ArrakisError } from '../../src/base/errors.ts';
import { closeAll } from '../../src/ffi/fd.ts';
import { mapShared } from '../../src/ffi/memory.ts';
import { until } from '../support/until.ts';
import { TestDaemon } from './daemon.harness.ts';

const BYTES = 4096;
const WAIT_MS = 8000;
const ADDRESS = 0x0a4d0009;

describe('objects of a killed daemon', () => {
  let daemon: TestDaemon;
  let root: Domain;
  let app: Domain;
  let other: Domain;
  let device = 0;

  async function prepared(name: string): Promise<Domain> {
    const { fds } = await root.request('domain.prepare', {
      name,
      uid: process.getuid!(),
      vnics: [],
    });
    process.env.ARRAKIS_FD = String(fds[0]!);
    return connect();
  }

  before(async () => {
    daemon = await TestDaemon.start();
    root = await daemon.connect();
    app = await prepared('app');
    other = await prepared('other');
    const to = app.info.domain;
    const mint = async (kind: 'device' | 'addresses' | 'rate', range?: object) => {
      const args = { to, kind, object: 'soft0', ...(range === undefined ? {} : { range }) };
      return (
        await root.request('cap.mint', args as Parameters<typeof root.request<'cap.mint'>>[1])
      ).reply.cap;
    };
    device = await mint('device');
    const ports = { portFirst: 0, portLast: 65535 };
    await mint('addresses', { protocol: 'any', first: ADDRESS, last: ADDRESS, ...ports });
    await mint('rate');
  });
  after(async () => {
    for (const domain of [app, other, root]) await domain.close();
    await daemon.close();
  });

  async function restart(): Promise<void> {
    const { dir } = daemon;
    const resumed = Promise.all(
      [app, other, root].map((domain) => new Promise<void>((done) => domain.once('resumed', done))),
    );
    await daemon.signal('SIGKILL');
    daemon = await TestDaemon.start({ dir });
    await resumed;
  }

  const all = async () => (await root.request('cap.list', {})).reply.capabilities;

  test('capabilities are the same, and what exists by one ends with it', async () => {
    const vnic = await app.openVnic({ device: 'soft0', address: ADDRESS, name: 'mine' });
    const granted = await app.request('cap.grant', { cap: device, to: other.info.domain });
    const before = await all();
    assert.ok(before.length >= 5);
    await restart();
    assert.deepEqual(await all(), before);
    // None of the old ids is given out again.
    const copy = (await app.request('cap.copy', { cap: device })).reply.cap;
    assert.ok(copy > Math.max(...before.map(({ cap }) => cap)));
    assert.ok(!vnic.gone);
    let reason = '';
    vnic.on('gone', (why) => {
      reason = why;
    });
    await root.request('cap.delete', { cap: device, graceMs: 0 });
    await until(() => reason !== '', WAIT_MS, 'the VNIC is gone with its capability');
    const left = (await other.request('cap.list', {})).reply.capabilities;
    assert.ok(!left.some(({ cap }) => cap === granted.reply.cap), 'what was granted goes too');
    await vnic.close();
    await restart();
    const { objects } = (await root.request('list', {})).reply;
    assert.ok(!objects.some(({ name }) => name === 'mine'), 'it does not come back');
    assert.ok(!(await all()).some(({ cap }) => cap === device));
  });

  test('an application comes back to the processor that it had', async () => {
    const cpus = [os.cpus().length - 1];
    const domain = other.info.domain;
    await root.request('placement.move', { domain, cpus });
    await restart();
    const set = os.cpus().map((_, cpu) => cpu);
    const { reply } = await root.request('placement.place', { domain, cpus: set });
    assert.deepEqual(reply.cpus, cpus);
  });

  test('a region keeps its bytes, and its name', async () => {
    const { reply: made } = await app.request('region.create', { bytes: BYTES, name: 'shared' });
    const write = async (cap: number, value: number, by: Domain) => {
      const { fds } = await by.request('region.open', { cap });
      const mapping = mapShared(fds[0]!, BYTES);
      const bytes = new Uint8Array(mapping.buffer);
      const found = bytes[7]!;
      bytes[7] = value;
      mapping.release();
      closeAll(fds);
      return found;
    };
    await write(made.cap, 42, app);
    await app.request('name.bind', { path: '/app/shared', cap: made.cap });
    await restart();
    const { capability } = (await other.request('name.lookup', { path: '/app/shared' })).reply;
    assert.equal(await write(capability!.cap, 43, other), 42);
    await restart();
    assert.equal(await write(made.cap, 0, app), 43);
    await app.request('cap.delete', { cap: made.cap });
    await restart();
    await assert.rejects(
      other.request('name.lookup', { path: '/app/shared' }),
      (error) => (error as ArrakisError).code === 'ARK_NOT_FOUND',
    );
  });

  test('an endpoint is listened at, and its connections know of each other', async () => {
    const path = '/app/service';
    const { endpoint } = (await app.request('endpoint.create', { path })).reply;
    await restart();
    const { capability } = (await other.request('name.lookup', { path })).reply;
    const { reply, fds } = await other.request('endpoint.connect', { cap: capability!.cap });
    closeAll(fds);
    await restart();
    await app.request('endpoint.accept', { connection: reply.connection });
    await other.request('endpoint.leave', { connection: reply.connection });
    await app.request('endpoint.close', { endpoint });
    await restart();
    await assert.rejects(
      other.request('name.lookup', { path }),
      (error) => (error as ArrakisError).code === 'ARK_NOT_FOUND',
    );
  });

  test('what belongs to a domain that died meanwhile goes with it', async () => {
    const { fds } = await root.request('domain.prepare', {
      name: 'dying',
      uid: process.getuid!(),
      vnics: [{ device: 'soft0', name: 'last' }],
    });
    process.env.ARRAKIS_FD = String(fds[0]!);
    const dying = await connect();
    const { cap } = (await dying.request('region.create', { bytes: BYTES })).reply;
    await dying.request('name.bind', { path: '/app/dying', cap });
    const { dir } = daemon;
    await daemon.signal('SIGKILL');
    await dying.close();
    daemon = await TestDaemon.start({ dir });
    const owned = async () =>
      (await root.request('list', {})).reply.objects.filter(
        ({ owner }) => owner === dying.info.domain,
      );
    await until(async () => (await owned()).length === 0, WAIT_MS, 'nothing of it is left');
    assert.ok(!(await all()).some(({ holder }) => holder === dying.info.domain));
    const { entries } = (await root.request('name.list', { path: '/app' })).reply;
    assert.deepEqual(entries, []);
  });
});
