/** What names and questions give to whom, and what is left of them when their domains are not. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { type Client, FakePlane } from '../../../test/support/fake-plane.ts';
import { Kept } from '../../../test/support/kept.ts';
import { ArrakisError } from '../../base/errors.ts';
import { sweepCapabilities } from '../caps/keeping.ts';
import { RIGHTS } from '../caps/rights.ts';
import { LIMITS } from '../limits.ts';
import { adoptSharing } from './sharing-keeping.ts';

let fake: FakePlane;
let kept: Kept;
let a: Client;
let b: Client;

beforeEach(() => {
  kept = new Kept();
  fake = new FakePlane({ keeping: kept });
  a = fake.client({ name: 'a' });
  b = fake.client({ name: 'b' });
});

const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;
const READ = RIGHTS.directory.list | RIGHTS.directory.lookup;
/** What the policy gives for `names: {PATH: read}`. */
const byPolicy = (to: Client, path: string): number =>
  fake.plane.caps.mint(to.domain.id, 'directory', path, READ, null).id;

test('a directory of the policy is the one at its path, made before or after', async () => {
  const at = byPolicy(b, '/app/web');
  await assert.rejects(fake.ask(b, 'name.list', { path: '/', at }), code('ARK_GONE'));
  await fake.ask(a, 'name.make', { path: '/app/web', mode: 0o700 });
  await fake.ask(a, 'name.make', { path: '/app/web/one' });
  await assert.rejects(fake.ask(b, 'name.list', { path: '/app/web' }), code('ARK_NOT_PERMITTED'));
  const { entries } = await fake.ask(b, 'name.list', { path: '/', at });
  assert.deepEqual(
    entries.map(({ name }) => name),
    ['one'],
  );
  await assert.rejects(fake.ask(b, 'name.make', { path: '/two', at }), code('ARK_NOT_PERMITTED'));
});

test('a path of the policy that ends in a number is no number of a directory', async () => {
  const { directory } = await fake.ask(a, 'name.make', { path: '/app/mine', mode: 0o700 });
  // As many characters before the number as stand before that of a directory which was made.
  const at = byPolicy(b, `/app/shop/${directory}`);
  await assert.rejects(fake.ask(b, 'name.list', { path: '/', at }), code('ARK_GONE'));
});

test('questions do not use up what a server may hand out', async () => {
  await fake.ask(a, 'name.make', { path: '/app/kv' });
  await fake.ask(a, 'name.serve', { path: '/app/kv' });
  const { cap } = await fake.ask(a, 'region.create', { bytes: 1 });
  const given = new Set<number>();
  for (let n = 0; n <= LIMITS.capsPerDomainMax; n++) {
    const asked = fake.ask(b, 'name.lookup', { path: '/app/kv/x' });
    const { question } = a.events.splice(0).find(({ event }) => event === 'name.asked')!;
    await fake.ask(a, 'name.answer', { question: question as number, cap, rights: ['read'] });
    given.add((await asked).capability!.cap);
  }
  assert.equal(given.size, 1);
  // Given back, it is handed out anew.
  await fake.ask(b, 'cap.delete', { cap: [...given][0]! });
  const again = fake.ask(b, 'name.lookup', { path: '/app/kv/x' });
  const { question } = a.events.find(({ event }) => event === 'name.asked')!;
  await fake.ask(a, 'name.answer', { question: question as number, cap, rights: ['read'] });
  assert.ok(!given.has((await again).capability!.cap));
});

test('names of a domain that is not taken over are not either, nor is what it served', async () => {
  await fake.ask(a, 'name.make', { path: '/app/lost', mode: 0o777 });
  await fake.ask(b, 'name.make', { path: '/app/lost/below' });
  const uid = b.domain.uid;
  await fake.ask(b, 'name.make', { path: '/app/kept' });
  const options = { name: 'x', uid, gid: uid, pid: 1, privileged: false, prepared: false };
  const server = fake.speakFor(fake.plane.addDomain(options));
  await fake.ask(server, 'name.serve', { path: '/app/kept' });
  const { id } = b.domain;
  const next = new FakePlane({ firstId: 1000, keeping: kept });
  const owner = next.speakFor(next.plane.restoreDomain(id, b.domain.save()));
  adoptSharing(next.plane, kept);
  const { entries } = await next.ask(owner, 'name.list', { path: '/app' });
  assert.deepEqual(
    entries.map(({ name, server }) => [name, server]),
    [['kept', null]],
  );
  assert.equal(kept.texts('name').length, 1, 'the records of the others are struck out');
});

test('a capability for a directory that is not taken over is not one for the next of that number', async () => {
  const { directory, cap } = await fake.ask(a, 'name.make', { path: '/app/d' });
  const next = new FakePlane({ capabilities: fake.plane.caps.snapshot(), firstId: 1000 });
  const [one, other] = [a, b].map(({ domain }) =>
    next.speakFor(next.plane.restoreDomain(domain.id, domain.save())),
  ) as [Client, Client];
  const web = next.plane.caps.mint(one.domain.id, 'directory', '/app/web', READ, null);
  // The record of the names was damaged.
  sweepCapabilities(next.plane);
  const made = await next.ask(other, 'name.make', { path: '/app/secret', mode: 0o700 });
  assert.equal(made.directory, directory);
  await assert.rejects(next.ask(one, 'name.list', { path: '/', at: cap }), code('ARK_NOT_FOUND'));
  assert.ok(next.plane.caps.has(web), 'of the policy: nobody need have made it yet');
});
