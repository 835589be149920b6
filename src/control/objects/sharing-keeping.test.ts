/** What names and endpoints cost to note, and what the next daemon makes of a journal that was cut anywhere. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { type Client, FakePlane } from '../../../test/support/fake-plane.ts';
import { Kept } from '../../../test/support/kept.ts';
import { savedCapabilities, sweepCapabilities } from '../caps/keeping.ts';
import { Journal, type JournalRecord, readJournal } from '../journal.ts';
import type { Keeping } from '../keeping.ts';
import { pathOf } from '../names/node.ts';
import { closeDomain } from './domain.ts';
import { adoptSharing } from './sharing-keeping.ts';

const FEW = 2;
const MANY = 150;

let dir: string;
before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'sharing-keeping-'));
});
after(() => fs.rmSync(dir, { recursive: true }));

/** Bytes and records that each of some changes takes where there are `count` names, endpoints and connections already. */
async function costs(count: number): Promise<Record<string, [bytes: number, records: number]>> {
  const kept = new Kept();
  const fake = new FakePlane({ keeping: kept });
  const root = fake.client({ privileged: true });
  const [server, client] = [fake.client({ name: 'server' }), fake.client({ name: 'client' })];
  const connect = async (path: string): Promise<number> => {
    const outcome = await fake.perform(client, 'endpoint.connect', { path });
    const { connection } = outcome.reply as { connection: number };
    outcome.sent!();
    await fake.ask(server, 'endpoint.accept', { connection });
    return connection;
  };
  for (let n = 0; n < count; n++) {
    await fake.ask(server, 'name.make', { path: `/app/directory-${100 + n}` });
  }
  await fake.ask(server, 'endpoint.create', { path: '/app/e' });
  for (let n = 0; n < Math.min(count, 50); n++) await connect('/app/e');
  // A new block of numbers is noted once in a thousand.
  const measured: Record<string, [number, number]> = {};
  const measure = async (name: string, change: () => Promise<unknown>): Promise<void> => {
    const [bytes, records] = [kept.bytes, kept.records];
    await change();
    measured[name] = [kept.bytes - bytes, kept.records - records];
  };
  let connection = 0;
  await measure('make', () => fake.ask(server, 'name.make', { path: '/app/x' }));
  await measure('remove', () => fake.ask(server, 'name.remove', { path: '/app/x' }));
  await measure('connect', async () => {
    connection = await connect('/app/e');
  });
  await measure('leave', () => fake.ask(client, 'endpoint.leave', { connection }));
  await measure('end', () => closeDomain(fake.plane, root.domain));
  for (const each of [server, client]) await closeDomain(fake.plane, each.domain);
  assert.deepEqual(kept.texts('name', 'endpoint', 'connection', 'cap'), []);
  return measured;
}

test('a change costs the same however many names and connections there are', async () => {
  const [few, many] = [await costs(FEW), await costs(MANY)];
  for (const [name, [bytes, records]] of Object.entries(many)) {
    assert.ok(records <= few[name]![1], `${name}: ${records} records`);
    // Numbers have some digits more.
    assert.ok(bytes <= few[name]![0] + 16, `${name}: ${bytes} bytes, not ${few[name]![0]}`);
    assert.ok(records <= 4 && bytes < 600, `${name}: ${records} records of ${bytes} bytes`);
  }
});

/** As the next daemon claims them. */
function inherit(records: readonly JournalRecord[]): Kept {
  const kept = new Kept();
  for (const { kind, id, state } of records) kept.put(kind, id, state);
  return kept;
}

/** What is there of the names, by path. */
function namesOf(fake: FakePlane): string[] {
  return [...fake.plane.names.tree.all()].map((node) => pathOf(node)).sort();
}

function adoptIn(kept: Kept, clients: readonly Client[]): FakePlane {
  const capabilities = savedCapabilities(kept);
  const next = new FakePlane({ keeping: kept, capabilities, firstId: 100_000 });
  for (const { domain } of clients) next.plane.restoreDomain(domain.id, domain.save());
  adoptSharing(next.plane, kept);
  sweepCapabilities(next.plane);
  return next;
}

/** Nothing refers to what is not there. */
function checkWhole(next: FakePlane, kept: Kept, at: string): void {
  const { names, caps, endpoints } = next.plane;
  const inTree = new Set<number>();
  for (const node of names.tree.all()) {
    inTree.add(node.id);
    if (node.kind !== 'binding') continue;
    if (node.value.kind === 'capability') assert.ok(caps.has(node.value.cap), at);
    else assert.equal(endpoints.get(node.value.endpoint.id)?.binding, node, at);
  }
  assert.deepEqual(new Set(kept.unclaimed('name')), inTree, `${at}: a record for each name`);
  for (const id of kept.unclaimed('endpoint')) {
    assert.ok(endpoints.get(Number(id))?.binding, `${at}: endpoint ${id} has its name`);
  }
  for (const { kind, object } of caps.all()) {
    if (kind !== 'endpoint') continue;
    assert.ok(endpoints.get(Number(object.slice('endpoint:'.length))), `${at}: ${object}`);
  }
}

test('cut at any byte, the next daemon finds whole names and endpoints, and works', async () => {
  const file = path.join(dir, 'journal');
  const journal = new Journal(file, [], () => {});
  const keeping: Keeping = {
    put: (kind, id, state) => journal.put(kind, id, state),
    delete: (kind, id) => journal.delete(kind, id),
  };
  const fake = new FakePlane({ keeping });
  const [server, client] = [fake.client({ name: 'server' }), fake.client({ name: 'client' })];
  await fake.ask(server, 'name.make', { path: '/app/d', mode: 0o777 });
  const { cap } = await fake.ask(server, 'name.make', { path: '/app/d/e' });
  await fake.ask(server, 'name.bind', { path: '/app/d/cap', cap });
  const { endpoint } = await fake.ask(server, 'endpoint.create', { path: '/app/d/e/kv' });
  const outcome = await fake.perform(client, 'endpoint.connect', { path: '/app/d/e/kv' });
  outcome.sent!();
  await fake.ask(client, 'name.make', { path: '/app/d/served' });
  await fake.ask(client, 'name.serve', { path: '/app/d/served' });
  const whole = fs.readFileSync(file).length;
  assert.equal(
    adoptIn(inherit(Journal.read(file).records), [server, client]).plane.names.tree.size,
    5,
  );
  const { connection } = outcome.reply as { connection: number };
  await fake.ask(server, 'endpoint.accept', { connection });
  await fake.ask(client, 'endpoint.leave', { connection });
  await fake.ask(server, 'endpoint.close', { endpoint });
  await fake.ask(server, 'name.remove', { path: '/app/d/e' });
  await closeDomain(fake.plane, server.domain);
  const bytes = fs.readFileSync(file);
  assert.ok(bytes.length > whole);
  let before = '';
  let states = 0;
  for (let at = 0; at <= bytes.length; at++) {
    const { records, refused } = readJournal(bytes.toString('utf8', 0, at), file);
    assert.deepEqual(refused, []);
    const text = JSON.stringify(records);
    if (text === before) continue;
    before = text;
    states++;
    const kept = inherit(records);
    const next = adoptIn(kept, [server, client]);
    checkWhole(next, kept, `cut at ${at}`);
    const again = adoptIn(kept, [server, client]);
    assert.deepEqual(namesOf(again), namesOf(next), `cut at ${at}, adopted twice`);
    const user = next.speakFor(next.plane.domains.get(client.domain.id)!);
    const { directory } = await next.ask(user, 'name.make', { path: '/app/new' });
    assert.ok(!records.some(({ kind, id }) => kind === 'name' && id === directory), 'a new number');
  }
  assert.ok(states > 20, `${states} states`);
  for (const { events } of [server, client]) events.splice(0);
  journal.remove();
});

test('a name whose record is damaged goes with what stands in it, and no other', async () => {
  const file = path.join(dir, 'damaged');
  const journal = new Journal(file, [], () => {});
  const keeping: Keeping = {
    put: (kind, id, state) => journal.put(kind, id, state),
    delete: (kind, id) => journal.delete(kind, id),
  };
  const fake = new FakePlane({ keeping });
  const client = fake.client();
  for (const each of ['/app/a', '/app/a/below', '/app/b']) {
    await fake.ask(client, 'name.make', { path: each });
  }
  const text = fs.readFileSync(file, 'utf8').replace('"path":"/app/a",', '"path":"/app/x",');
  const { records, refused } = readJournal(text, file);
  assert.equal(refused.length, 1);
  const kept = inherit(records);
  const next = adoptIn(kept, [client]);
  assert.deepEqual(namesOf(next), ['/app/b']);
  checkWhole(next, kept, 'damaged');
  journal.remove();
});
