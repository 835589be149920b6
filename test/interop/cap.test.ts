/** `arrakis cap`, against a real daemon and domains that are not privileged. Needs no root. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type CapInfo, Domain, type Vnic } from '../../src/arrakis/index.ts';
import { TestDaemon } from '../crash/daemon.harness.ts';
import { until } from '../support/until.ts';

const CLI = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const COMMAND_MS = 30_000;
const WAIT_MS = 5000;

describe('arrakis cap', () => {
  let daemon: TestDaemon;
  let root: Domain;
  let web: Domain;
  let other: Domain;
  let vnic: Vnic;

  before(async () => {
    daemon = await TestDaemon.start();
    root = await daemon.connect({ name: 'root' });
    web = await prepared('web', 1);
    other = await prepared('other', 0);
    vnic = await web.openVnic();
  });
  after(async () => {
    for (const domain of [web, other, root]) await domain?.close();
    await daemon?.close();
  });

  /** A domain that has only what it was given. */
  async function prepared(name: string, vnics: number): Promise<Domain> {
    const uid = process.getuid!();
    const specs = Array.from({ length: vnics }, () => ({ device: 'soft0' }));
    const { fds } = await root.request('domain.prepare', { name, uid, vnics: specs });
    return new Domain(fds[0]!).hello(name);
  }

  function arrakis(...args: string[]) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, 'cap', ...args], {
      encoding: 'utf8',
      timeout: COMMAND_MS,
      env: { ...process.env, ARRAKIS_SOCKET: daemon.socket },
    });
    return { status, stdout, stderr };
  }

  function succeed(...args: string[]): string {
    const { status, stdout, stderr } = arrakis(...args);
    assert.equal(status, 0, `arrakis cap ${args.join(' ')}: ${stdout}${stderr}`);
    return stdout;
  }

  const json = <T>(...args: string[]): T => JSON.parse(succeed(...args, '--json')) as T;

  test('ls shows who has what, and by whose word', () => {
    const all = json<CapInfo[]>('ls');
    const own = all.find(({ holder }) => holder === web.info.domain)!;
    assert.deepEqual([own.kind, own.object], ['vnic', `vnic:${vnic.id}`]);
    const parent = all.find(({ cap }) => cap === own.parent)!;
    assert.deepEqual([parent.holder, parent.parent], [0, 0]);
    const table = succeed('ls');
    assert.match(table, new RegExp(`^${parent.cap} +the daemon +vnic +vnic:${vnic.id} `, 'm'));
    assert.match(table, new RegExp(`^└ ${own.cap} +${web.info.domain} web `, 'm'));
    assert.deepEqual(json('ls', '--domain', 'other'), []);
    assert.equal(succeed('ls', '--domain', 'other'), 'no capabilities\n');
  });

  test('mint, derive and grant; what is too much is refused with a reason', async () => {
    const told: CapInfo[] = [];
    web.on('cap-granted', (cap) => told.push(cap));
    const range = 'any 10.77.0.16-10.77.0.31';
    const minted = json<CapInfo>('mint', 'web', 'addresses', 'soft0', '--range', range);
    assert.deepEqual(minted.rights, ['grant', 'use']);
    const less = ['--range', 'udp 10.77.0.16:7', '--rights', 'use'];
    const derived = json<CapInfo>('derive', `${minted.cap}`, ...less);
    assert.deepEqual([derived.parent, derived.holder], [minted.cap, web.info.domain]);
    const granted = json<CapInfo>('grant', `${minted.cap}`, 'other', '--range', 'any 10.77.0.17');
    await until(() => told.length === 2, WAIT_MS, 'the holder was told');
    assert.deepEqual((await other.capabilities())[0], granted);
    assert.match(succeed('ls'), /udp 10\.77\.0\.16:7$/m);
    const more = arrakis('grant', `${derived.cap}`, 'other');
    assert.equal(more.status, 1);
    assert.match(more.stderr, /may not be handed on.*ARK_NOT_PERMITTED/);
    for (const [args, text, status] of [
      [['derive', '999', '--rights', 'use'], /no capability 999/, 1],
      [['derive', `${minted.cap}`, '--range', 'any 10.0.0.0/8'], /more than capability/, 1],
      [['derive', `${minted.cap}`, '--range', 'cpus 0'], /no range of kind addresses/, 1],
      [['mint', 'nobody', 'device', 'soft0'], /nobody/, 1],
      [['mint', 'web', 'planet', 'soft0'], /no kind "planet"/, 2],
      [['revoke', '1', '--grace', 'soon'], /milliseconds/, 2],
    ] as const) {
      const refused = arrakis(...args);
      assert.equal(refused.status, status, refused.stderr);
      assert.match(refused.stderr, text);
    }
    assert.deepEqual(json('revoke', `${minted.cap}`, '--grace', '0'), { removed: 2 });
    assert.deepEqual(await other.capabilities(), []);
    assert.match(succeed('delete', `${minted.cap}`), /1 capability taken away/);
  });

  test('revoking what a prepared VNIC hangs on takes it from its application', async () => {
    const [own] = (await web.capabilities()) as [CapInfo];
    let gone = '';
    vnic.on('gone', (reason) => {
      gone = reason;
    });
    const warned: number[] = [];
    web.on('cap-revoking', (caps) => warned.push(...caps));
    succeed('revoke', `${own.parent}`);
    await until(() => gone !== '', WAIT_MS, 'the VNIC is gone');
    assert.equal(gone, 'revoked');
    assert.ok(warned.includes(own.cap));
    assert.deepEqual(json('ls'), []);
  });
});
