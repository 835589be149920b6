/** Policies that replace each other while domains live, on a control plane whose devices only count. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { type Client, FakePlane } from '../../../test/support/fake-plane.ts';
import { ArrakisError } from '../../base/errors.ts';
import { giveInitial } from '../caps/initial.ts';
import { RIGHTS } from '../caps/rights.ts';
import { LIMITS } from '../limits.ts';
import { closeDomain } from '../objects/domain.ts';
import { machineEnvironment } from './environment.ts';
import { PolicyStore } from './store.ts';

let dir: string;
let file: string;
let store: PolicyStore;
let fake: FakePlane;
let log: string[];

/** The first client of a FakePlane is uid 1001, the next 1002. */
const RULE = 'devices: [soft0], addresses: [10.77.0.16/28], rate: any';

beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'policy-'));
  file = path.join(dir, 'policy.yaml');
  log = [];
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

function write(text: string): void {
  fs.writeFileSync(file, text);
}

function start(text: string, required = true): void {
  write(text);
  const environment = () => machineEnvironment({ soft0: [] });
  store = PolicyStore.open({ file, required, environment }, (level, message, fields) => {
    log.push(`${level} ${message} ${JSON.stringify(fields)}`);
  });
  fake = new FakePlane({ policy: store });
}

function client(): Client {
  const one = fake.client();
  giveInitial(fake.plane, one.domain);
  return one;
}

const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;
const held = ({ domain }: Client): string[] =>
  fake.plane.caps.of(domain.id).map(({ kind, object }) => `${kind} ${object}`);
const open = (one: Client, host: number) =>
  fake.ask(one, 'vnic.open', { spec: { device: 'soft0', address: 0x0a4d0000 + host } });
const told = (one: Client, event: string) => one.events.filter((each) => each.event === event);

test('each gets its own, and can open just that', async () => {
  start(
    `users: {1001: {${RULE}}, 1002: {devices: [soft0], addresses: [10.77.0.32/28], rate: any}}`,
  );
  const [one, other, third] = [client(), client(), client()];
  assert.deepEqual(held(third), []);
  await open(one, 17);
  await open(other, 33);
  await assert.rejects(open(one, 33), code('ARK_NOT_PERMITTED'));
  await assert.rejects(open(other, 17), code('ARK_NOT_PERMITTED'));
  await assert.rejects(open(third, 17), code('ARK_NOT_PERMITTED'));
});

test('what the new policy does not give is revoked with a warning; the VNIC by it goes', async () => {
  start(`users: {1001: {${RULE}}}`);
  const one = client();
  await open(one, 17);
  assert.equal(fake.softnic.attached.size, 1);
  write('users: {1001: {devices: [soft0], rate: any, cores: 0}}');
  const { granted, revoked } = await store.reload(fake.plane);
  assert.equal(granted, 1);
  assert.ok(revoked >= 1);
  assert.equal(fake.softnic.attached.size, 0, 'before the reply');
  assert.deepEqual(held(one).sort(), ['cores *', 'device soft0', 'rate *']);
  assert.equal(told(one, 'cap.revoking').length, 1);
  assert.equal(told(one, 'vnic.gone').length, 1);
  assert.equal(told(one, 'cap.granted').length, 1);
});

test('what it still gives stays, also as part of more, and so do VNICs by it', async () => {
  start(`users: {1001: {${RULE}}}`);
  const one = client();
  await open(one, 17);
  write('users: {1001: {devices: [soft0], addresses: [10.77.0.0/24], rate: any}}');
  assert.equal((await store.reload(fake.plane)).revoked, 0);
  assert.equal(fake.softnic.attached.size, 1);
  await open(one, 99);
  const again = await store.reload(fake.plane);
  assert.deepEqual([again.granted, again.revoked], [0, 0]);
});

test('what others gave is not the policy to take', async () => {
  start(`users: {1001: {${RULE}}}`);
  const one = client();
  const root = fake.client({ privileged: true });
  fake.plane.caps.mint(one.domain.id, 'device', 'eth0', RIGHTS.device.open, null);
  write('{}');
  await fake.ask(root, 'policy.reload', {});
  assert.deepEqual(held(one), ['device eth0']);
  assert.deepEqual(held(root), [], 'root needs none');
});

test('a broken file changes nothing and says why; a missing one too, when it was named', async () => {
  start(`users: {1001: {${RULE}}}`);
  const one = client();
  const before = held(one);
  write('users: {1001: {devices: soft0}}');
  await assert.rejects(store.reload(fake.plane), code('ARK_POLICY'));
  fs.rmSync(file);
  await assert.rejects(store.reload(fake.plane), code('ARK_NOT_FOUND'));
  assert.deepEqual(held(one), before);
  assert.deepEqual(held(client()), [], 'uid 1002 has no rule, as before');
  assert.equal(log.filter((line) => line.startsWith('error the policy before stays')).length, 2);
  assert.match(log.at(-2)!, /:1:25: devices is a list/);
});

test('by default there need not be one', async () => {
  start('{}', false);
  fs.rmSync(file);
  assert.equal((await store.reload(fake.plane)).revoked, 0);
  write('users: {zed-who-is-nobody: {}}');
  const environment = () => machineEnvironment({ soft0: [] });
  const again = () => PolicyStore.open({ file, required: false, environment }, () => {});
  assert.throws(again, code('ARK_POLICY'));
});

test('reloads at the same time come one after the other', async () => {
  start(`users: {1001: {${RULE}}}`);
  const one = client();
  write('{}');
  const first = store.reload(fake.plane);
  const second = store.reload(fake.plane);
  assert.equal((await first).revoked, 3);
  assert.equal((await second).revoked, 0);
  assert.deepEqual(held(one), []);
});

test('a domain that ends, or gives up its capabilities, during the grace costs nothing', async () => {
  start(`users: {1001: {${RULE}}, 1002: {${RULE}}}`);
  const [one, other] = [client(), client()];
  write('{}');
  const done = store.reload(fake.plane);
  await new Promise((resolve) => setImmediate(resolve));
  for (const cap of fake.plane.caps.of(one.domain.id))
    await fake.ask(one, 'cap.delete', { cap: cap.id });
  await done;
  assert.deepEqual([held(one), held(other)], [[], []]);
});

test('only the privileged may have it loaded', async () => {
  start('{}');
  await assert.rejects(fake.ask(client(), 'policy.reload', {}), code('ARK_NOT_PERMITTED'));
});

test('VNICs are counted over all domains of a user', async () => {
  start(`users: {1001: {vnics: 2, ${RULE}}}`);
  const one = client();
  const { uid, gid } = one.domain;
  const second = fake.speakFor(
    fake.plane.addDomain({ name: 'x', uid, gid, pid: 1, privileged: false, prepared: false }),
  );
  giveInitial(fake.plane, second.domain);
  const { vnic } = await open(one, 17);
  await open(second, 18);
  await assert.rejects(open(one, 19), code('ARK_LIMIT'));
  await assert.rejects(open(second, 19), code('ARK_LIMIT'));
  await fake.ask(one, 'vnic.close', { vnic });
  await open(second, 19);
});

test('without a number the daemon has one, and a bound for the packet memory of a user', async () => {
  const rule = 'devices: [soft0], addresses: [10.77.0.0/24], rate: any';
  start(`users: {1001: {${rule}}, 1002: {${rule}}}`);
  const [one, other] = [client(), client()];
  const { uid, gid } = one.domain;
  const next = (): Client => {
    const identity = { name: 'x', uid, gid, pid: 1, privileged: false, prepared: false };
    const domain = fake.speakFor(fake.plane.addDomain(identity));
    giveInitial(fake.plane, domain.domain);
    return domain;
  };
  const large = { device: 'soft0', frames: LIMITS.framesMax, queues: 2 };
  for (let n = 0; n < 4; n++) await fake.ask(one, 'vnic.open', { spec: large });
  await assert.rejects(fake.ask(next(), 'vnic.open', { spec: { device: 'soft0' } }), (error) => {
    return code('ARK_LIMIT')(error) && /packet memory/.test((error as Error).message);
  });
  await closeDomain(fake.plane, one.domain);
  for (let left: number = LIMITS.vnicsPerUidMax; left > 0; left -= LIMITS.vnicsPerDomainMax) {
    const domain = next();
    for (let n = 0; n < LIMITS.vnicsPerDomainMax; n++) {
      await fake.ask(domain, 'vnic.open', { spec: { device: 'soft0' } });
    }
  }
  await assert.rejects(
    fake.ask(next(), 'vnic.open', { spec: { device: 'soft0' } }),
    code('ARK_LIMIT'),
  );
  await fake.ask(other, 'vnic.open', { spec: { device: 'soft0' } });
});

test('a VNIC that is kept closed is counted all the same', async () => {
  start(`users: {1001: {vnics: 1, ${RULE}}}`);
  const one = client();
  const { vnic } = await open(one, 17);
  await fake.ask(one, 'vnic.close', { vnic, keep: true });
  await assert.rejects(open(one, 18), code('ARK_LIMIT'));
  await fake.ask(one, 'vnic.close', { vnic });
  await assert.rejects(open(one, 18), code('ARK_LIMIT'), 'it may still be opened again');
});

test('a prepared domain has what its user, group and program are given', async () => {
  start(
    `users: {1001: {cores: 0}}\ngroups: {7: {cores: 1}}\nprograms: {/usr/bin/env: {rate: any}}`,
  );
  const root = fake.client({ privileged: true });
  const prepare = async (args: { uid: number; gid?: number; program?: string }) => {
    const { domain } = await fake.ask(root, 'domain.prepare', { name: 'x', vnics: [], ...args });
    return held({ domain: fake.plane.domains.get(domain)! } as Client);
  };
  assert.deepEqual(await prepare({ uid: 1001 }), ['cores *']);
  const all = await prepare({ uid: 1001, gid: 7, program: '/usr/bin/env' });
  assert.deepEqual(all, ['cores *', 'cores *', 'rate *']);
  assert.deepEqual(await prepare({ uid: 5, program: '/usr/bin/en' }), []);
});
