/** What other users may make a domain have, or use up of what it may make: their share, and no more. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { type Client, FakePlane } from '../../../test/support/fake-plane.ts';
import { ArrakisError } from '../../base/errors.ts';
import { LIMITS } from '../limits.ts';

const { capsLookedUpPerUidMax, capsLookedUpMax, capsGivenPerUidMax, capsPerDomainMax } = LIMITS;
const limited = (error: unknown) => error instanceof ArrakisError && error.code === 'ARK_LIMIT';
/** Names, so that a user's 64 domains could take all that the binder may make. */
const NAMES = 20;
const DOMAINS = 64;

let fake: FakePlane;
let binder: Client;
beforeEach(() => {
  fake = new FakePlane();
  binder = fake.client({ name: 'binder' });
});

const refused = (): number => fake.plane.counters.sharesRefused;

/** Another domain of the user of `client`. */
function another(client: Client): Client {
  const { uid, gid } = client;
  const who = { name: 'more', uid, gid, pid: 1, privileged: false, prepared: false };
  return fake.speakFor(fake.plane.addDomain(who));
}

async function bindNames(): Promise<number> {
  const { cap } = await fake.ask(binder, 'region.create', { bytes: 4096 });
  for (let n = 0; n < NAMES; n++) {
    await fake.ask(binder, 'name.bind', { path: `/app/n${n}`, cap });
    const { cap: other } = await fake.ask(binder, 'region.create', { bytes: 4096 });
    await fake.ask(binder, 'name.bind', { path: `/app/m${n}`, cap: other });
  }
  return cap;
}

/** How many look-ups the domains of one user get through, each of every name. */
async function lookUpAll(user: Client): Promise<number> {
  let count = 0;
  for (let n = 0; n < DOMAINS; n++) {
    const domain = another(user);
    for (let name = 0; name < NAMES; name++) {
      try {
        await fake.ask(domain, 'name.lookup', { path: `/app/m${name}` });
        count++;
      } catch (error) {
        assert.ok(limited(error), String(error));
      }
    }
  }
  return count;
}

test('the domains of one user get their share of a binder, and others theirs', async () => {
  const cap = await bindNames();
  const hostile = fake.client();
  assert.equal(await lookUpAll(hostile), capsLookedUpPerUidMax);
  assert.equal(refused(), DOMAINS * NAMES - capsLookedUpPerUidMax);
  await fake.ask(fake.client(), 'name.lookup', { path: '/app/m0' });
  await fake.ask(binder, 'cap.derive', { cap });
  // Who has one gets the same again.
  const first = another(hostile);
  await assert.rejects(fake.ask(first, 'name.lookup', { path: '/app/n0' }), limited);
});

test('users together leave the binder some to make', async () => {
  const cap = await bindNames();
  let got = 0;
  for (let n = 0; n * capsLookedUpPerUidMax <= capsLookedUpMax; n++)
    got += await lookUpAll(fake.client());
  assert.equal(got, capsLookedUpMax);
  for (let n = got; n < capsPerDomainMax; n++) await fake.ask(binder, 'cap.derive', { cap });
  await assert.rejects(fake.ask(binder, 'cap.derive', { cap }), limited);
});

test('a share is free again when its capabilities go', async () => {
  await bindNames();
  const hostile = fake.client();
  await lookUpAll(hostile);
  const domain = [...fake.plane.domains.values()].find(
    ({ id, uid }) => uid === hostile.uid && fake.plane.caps.of(id).length > 0,
  )!;
  const had = fake.plane.caps.of(domain.id).length;
  for (const { id } of fake.plane.caps.of(domain.id)) {
    await fake.ask(fake.speakFor(domain), 'cap.delete', { cap: id });
  }
  assert.equal(await lookUpAll(hostile), had);
});

test('whoever serves a directory is told nothing of the share of those who ask', async () => {
  await fake.ask(binder, 'name.make', { path: '/app/served' });
  await fake.ask(binder, 'name.serve', { path: '/app/served' });
  const { cap } = await fake.ask(binder, 'region.create', { bytes: 4096 });
  const user = fake.client();
  const ask = async (): Promise<unknown> => {
    const domain = another(user);
    const asked = fake.ask(domain, 'name.lookup', { path: '/app/served/x' });
    asked.catch(() => {});
    const { question } = binder.events.findLast(({ event }) => event === 'name.asked')!;
    await fake.ask(binder, 'name.answer', { question: question as number, cap });
    return asked;
  };
  for (let n = 0; n < capsLookedUpPerUidMax; n++) await ask();
  await assert.rejects(ask(), limited);
  assert.equal(refused(), 1);
});

test('nobody is given more by one user than its share, from however many domains', async () => {
  const victim = fake.client({ name: 'victim' });
  const hostile = fake.client();
  let given = 0;
  for (let n = 0; n < DOMAINS; n++) {
    const domain = another(hostile);
    const { cap } = await fake.ask(domain, 'region.create', { bytes: 4096 });
    for (let gift = 0; gift < 8; gift++) {
      try {
        await fake.ask(domain, 'cap.grant', { cap, to: victim.domain.id });
        given++;
      } catch (error) {
        assert.ok(limited(error), String(error));
      }
    }
  }
  assert.equal(given, capsGivenPerUidMax);
  assert.equal(refused(), DOMAINS * 8 - given);
  const friend = fake.client();
  const { cap } = await fake.ask(friend, 'region.create', { bytes: 4096 });
  await fake.ask(friend, 'cap.grant', { cap, to: victim.domain.id });
});
