/** How many regions there may be. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Client, FakePlane } from '../../../test/support/fake-plane.ts';
import { ArrakisError } from '../../base/errors.ts';
import { LABELS_MAX } from '../../keeper/protocol.ts';
import { LIMITS } from '../limits.ts';
import { closeDomain } from './domain.ts';

const isLimit = (error: unknown): boolean =>
  error instanceof ArrakisError && error.code === 'ARK_LIMIT';

test('one user has not all regions, however small and in however many domains', async () => {
  const fake = new FakePlane();
  const domainOf = (uid: number): Client => {
    const options = { name: 'x', uid, gid: uid, pid: 1, privileged: false, prepared: false };
    return fake.speakFor(fake.plane.addDomain(options));
  };
  const create = (client: Client) => fake.ask(client, 'region.create', { bytes: 1 });
  const clients: Client[] = [];
  try {
    let left: number = LIMITS.regionsPerUidMax;
    for (; left > 0; left -= LIMITS.regionsPerDomainMax) {
      const client = domainOf(1001);
      clients.push(client);
      for (let n = 0; n < LIMITS.regionsPerDomainMax; n++) await create(client);
    }
    const one = domainOf(1001);
    const other = domainOf(1002);
    clients.push(one, other);
    await assert.rejects(create(one), isLimit);
    await create(other);
    await closeDomain(fake.plane, clients[0]!.domain);
    await create(one);
  } finally {
    for (const { domain } of clients) await closeDomain(fake.plane, domain);
  }
});

test('the keeper has room for everything with descriptors', () => {
  const { regionsMax, vnicsMax, connectionsMax } = LIMITS;
  const DEVICES = 256;
  assert.ok(regionsMax + vnicsMax + connectionsMax + DEVICES < LABELS_MAX);
});
