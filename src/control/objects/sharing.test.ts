/** Regions, endpoints and names through the gate of the protocol, on a control plane without a daemon around it. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { afterEach, beforeEach, test } from 'node:test';
import { Kept } from '../../../test/support/kept.ts';
import { sleep } from '../../../test/support/until.ts';
import { ArrakisError } from '../../base/errors.ts';
import { closeAll, duplicateFd, openFds } from '../../ffi/fd.ts';
import type { Peer } from '../handler.ts';
import { LIMITS } from '../limits.ts';
import { perform } from '../operations.ts';
import { ControlPlane } from '../plane.ts';
import {
  type ArgsOf,
  type Operation,
  parseFromDaemon,
  parseRequest,
  type ReplyOf,
} from '../protocol.ts';
import { closeDomain, type Domain } from './domain.ts';
import { adoptSharing } from './sharing-keeping.ts';

interface Event {
  name: string;
  body: Record<string, unknown>;
  fds: number[];
}

class Client implements Peer {
  readonly uid: number;
  readonly gid: number;
  readonly groups = [];
  readonly exe = null;
  readonly pid = 77;
  readonly domain: Domain;
  readonly events: Event[] = [];
  /** Messages that this one has not read, as the daemon sees it. */
  backlog = 0;

  constructor(uid: number, options: { prepared?: boolean; privileged?: boolean } = {}) {
    this.uid = uid;
    this.gid = uid;
    const { prepared = false, privileged = false } = options;
    const made = { name: `c${uid}`, uid, gid: uid, pid: this.pid, privileged, prepared };
    this.domain = plane.addDomain(made);
    this.domain.sender = (message, fds) => {
      const parsed = parseFromDaemon(JSON.stringify(message));
      assert.ok(parsed?.kind === 'event', 'what is sent is in the table');
      const { name, body } = parsed;
      this.events.push({ name, body: body as Event['body'], fds: fds.map(duplicateFd) });
    };
    this.domain.backlog = () => this.backlog;
  }

  adopt(): void {}

  /** The reply; its descriptors are closed. */
  async ask<O extends Operation>(op: O, args: ArgsOf<O>): Promise<ReplyOf<O>> {
    const { reply, fds } = await this.askFds(op, args);
    closeAll(fds);
    return reply;
  }

  async askFds<O extends Operation>(op: O, args: ArgsOf<O>) {
    const request = parseRequest(JSON.stringify({ id: 1, op, ...args }), 0);
    const outcome = await perform(plane, { peer: this, fds: [] }, request);
    const fds = (outcome.fds ?? []).map(duplicateFd);
    outcome.sent?.();
    return { reply: outcome.reply as ReplyOf<O>, fds };
  }

  /** Bodies of the events called `name`, which are forgotten. */
  take(name: string): Event['body'][] {
    const found = this.events.filter((event) => event.name === name);
    for (const event of found) {
      this.events.splice(this.events.indexOf(event), 1);
      closeAll(event.fds);
    }
    return found.map(({ body }) => body);
  }

  end(): Promise<void> {
    return closeDomain(plane, this.domain);
  }
}

let plane: ControlPlane;
let kept: Kept;
let fdsBefore: number;
let alice: Client;
let bob: Client;

function makePlane(): ControlPlane {
  return new ControlPlane({
    directory: '/nonexistent',
    version: 'test',
    log: () => {},
    openInterface: (name) => {
      throw new ArrakisError('ARK_NOT_FOUND', name);
    },
    clock: () => 1000,
    nicUid: null,
    host: { adoptChannel: () => {}, shutdown: () => {} },
    keeping: kept,
  });
}

beforeEach(() => {
  fdsBefore = openFds().length;
  kept = new Kept();
  plane = makePlane();
  alice = new Client(1001);
  bob = new Client(1002);
});

afterEach(async () => {
  for (const domain of [...plane.domains.values()]) await closeDomain(plane, domain);
  for (const client of [alice, bob]) for (const { fds } of client.events.splice(0)) closeAll(fds);
  assert.equal(openFds().length, fdsBefore, 'no descriptor is left');
  assert.equal(plane.objects.size, 1, 'no object is left');
  assert.equal(plane.names.tree.size, 0);
  assert.equal(plane.caps.size, 0);
  const left = kept.texts('endpoint', 'connection', 'name', 'region', 'cap');
  assert.deepEqual(left, [], 'no record is left');
});

const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;

test('a region is opened with exactly the rights of the capability', async () => {
  const { cap, region, bytes } = await alice.ask('region.create', { bytes: 5000 });
  assert.equal(bytes, 8192);
  const own = await alice.askFds('region.open', { cap });
  assert.deepEqual(own.reply, { region, bytes: 8192, writable: true });
  fs.writeSync(own.fds[0]!, 'hello');
  await assert.rejects(bob.ask('region.open', { cap }), code('ARK_NOT_FOUND'));
  const grant = { cap, to: bob.domain.id, rights: ['read'] };
  const { cap: reading } = await alice.ask('cap.grant', grant);
  const theirs = await bob.askFds('region.open', { cap: reading });
  assert.equal(theirs.reply.writable, false);
  const text = Buffer.alloc(5);
  fs.readSync(theirs.fds[0]!, text, 0, 5, 0);
  assert.equal(text.toString(), 'hello');
  assert.throws(() => fs.writeSync(theirs.fds[0]!, 'x', 0), { code: 'EBADF' });
  for (const length of [0, 4096, 100_000]) {
    assert.throws(() => fs.ftruncateSync(own.fds[0]!, length), { code: 'EPERM' });
  }
  assert.equal(fs.fstatSync(own.fds[0]!).mode & 0o777, 0o600);
  closeAll([...own.fds, ...theirs.fds]);
});

test('a revoked region is not handed out again, and its owner hears who has it', async () => {
  const { cap, region } = await alice.ask('region.create', { bytes: 1 });
  const rights = ['read'];
  const opened = await alice.ask('cap.grant', { cap, to: bob.domain.id, rights });
  await bob.ask('region.open', { cap: opened.cap });
  const unopened = await alice.ask('cap.grant', { cap, to: bob.domain.id, rights });
  await alice.ask('cap.revoke', { cap, graceMs: 0 });
  for (const gone of [opened, unopened]) {
    await assert.rejects(bob.ask('region.open', { cap: gone.cap }), code('ARK_NOT_FOUND'));
  }
  assert.deepEqual(alice.take('region.held'), [{ region, domains: [bob.domain.id] }]);
  await alice.ask('region.open', { cap });
});

test('an owner that does not read hears later, once', async () => {
  const { cap } = await alice.ask('region.create', { bytes: 1 });
  alice.backlog = 1;
  for (let n = 0; n < 50; n++) {
    const { cap: given } = await alice.ask('cap.grant', { cap, to: bob.domain.id });
    await bob.ask('region.open', { cap: given });
    await bob.ask('cap.delete', { cap: given, graceMs: 0 });
  }
  assert.equal(alice.take('region.held').length, 0);
  alice.backlog = 0;
  await sleep(4 * LIMITS.noticeRetryMs);
  assert.equal(alice.take('region.held').length, 1);
});

test('regions have a quota, and end with their capability', async () => {
  const half = LIMITS.regionBytesPerDomainMax / 2;
  const first = await alice.ask('region.create', { bytes: half });
  await alice.ask('region.create', { bytes: half });
  await assert.rejects(alice.ask('region.create', { bytes: 1 }), code('ARK_LIMIT'));
  await bob.ask('region.create', { bytes: 1 });
  await alice.ask('cap.delete', { cap: first.cap, graceMs: 0 });
  await alice.ask('region.create', { bytes: half });
  for (let n = 1; n < LIMITS.regionsPerDomainMax; n++) await bob.ask('region.create', { bytes: 1 });
  await assert.rejects(bob.ask('region.create', { bytes: 1 }), code('ARK_LIMIT'));
});

test('both sides of a connection learn who the other is, and get halves that fit', async () => {
  const { endpoint } = await alice.ask('endpoint.create', { path: '/app/kv', ringBytes: 4096 });
  const { reply, fds } = await bob.askFds('endpoint.connect', { path: '/app/kv' });
  const peer = (client: Client) => {
    const { id: domain, name, uid, pid } = client.domain;
    return { domain, name, uid, pid };
  };
  assert.deepEqual(reply.peer, peer(alice));
  const [event] = alice.events.filter(({ name }) => name === 'endpoint.connected');
  const { connection } = reply;
  assert.deepEqual(event!.body, { endpoint, connection, ringBytes: 4096, peer: peer(bob) });
  const inode = (fd: number) => fs.fstatSync(fd).ino;
  assert.equal(inode(fds[0]!), inode(event!.fds[0]!));
  assert.equal(inode(fds[1]!), inode(event!.fds[2]!));
  assert.equal(inode(fds[2]!), inode(event!.fds[1]!));
  assert.equal(fs.fstatSync(fds[0]!).size, 2 * (4096 + 512));
  fs.writeSync(fds[2]!, 'x');
  assert.equal(fs.readSync(event!.fds[1]!, Buffer.alloc(9)), 1);
  closeAll(fds);
  // The daemon keeps nothing: the listener's end sees that nobody is there.
  assert.equal(fs.readSync(event!.fds[1]!, Buffer.alloc(9)), 0);
});

test('the ends of listener and connector are told to the other', async () => {
  await alice.ask('endpoint.create', { path: '/app/kv' });
  const first = await bob.ask('endpoint.connect', { path: '/app/kv' });
  await alice.ask('endpoint.accept', { connection: first.connection });
  await bob.ask('endpoint.leave', { connection: first.connection });
  assert.deepEqual(alice.take('endpoint.closed'), [
    { connection: first.connection, reason: 'the peer left' },
  ]);
  for (const client of [alice, bob]) {
    const leaving = client.ask('endpoint.leave', { connection: first.connection });
    await assert.rejects(leaving, code('ARK_NOT_FOUND'));
  }
  const second = await bob.ask('endpoint.connect', { path: '/app/kv' });
  const eve = new Client(1003);
  await assert.rejects(
    eve.ask('endpoint.leave', { connection: second.connection }),
    code('ARK_NOT_FOUND'),
  );
  await assert.rejects(
    eve.ask('endpoint.accept', { connection: second.connection }),
    code('ARK_NOT_FOUND'),
  );
  await alice.end();
  assert.deepEqual(bob.take('endpoint.closed'), [
    { connection: second.connection, reason: 'the peer ended' },
  ]);
  await assert.rejects(bob.ask('endpoint.connect', { path: '/app/kv' }), code('ARK_NOT_FOUND'));
});

test('who connects and leaves in a loop fills neither the listener’s channel nor its backlog twice', async () => {
  await alice.ask('endpoint.create', { path: '/app/kv', backlog: 4 });
  const made: number[] = [];
  for (let n = 0; n < 4; n++) {
    const { connection } = await bob.ask('endpoint.connect', { path: '/app/kv' });
    await bob.ask('endpoint.leave', { connection });
    made.push(connection);
  }
  await assert.rejects(bob.ask('endpoint.connect', { path: '/app/kv' }), code('ARK_LIMIT'));
  assert.equal(alice.take('endpoint.connected').length + alice.take('endpoint.closed').length, 8);
  await alice.ask('endpoint.accept', { connection: made[0]! });
  await assert.rejects(
    alice.ask('endpoint.accept', { connection: made[0]! }),
    code('ARK_NOT_FOUND'),
  );
  await bob.ask('endpoint.connect', { path: '/app/kv' });
  alice.backlog = 1;
  await alice.ask('endpoint.accept', { connection: made[1]! });
  await assert.rejects(bob.ask('endpoint.connect', { path: '/app/kv' }), code('ARK_LIMIT'));
});

test('connections and endpoints have quotas', async () => {
  await alice.ask('endpoint.create', { path: '/app/kv', ringBytes: 4096 });
  const connect = () => bob.ask('endpoint.connect', { path: '/app/kv' });
  for (let n = 0; n < LIMITS.connectionsPerDomainMax; n++) {
    await alice.ask('endpoint.accept', { connection: (await connect()).connection });
    alice.take('endpoint.connected');
  }
  await assert.rejects(connect(), code('ARK_LIMIT'));
  for (let n = 1; n < LIMITS.endpointsPerDomainMax; n++) {
    await alice.ask('endpoint.create', { path: `/app/${n}` });
  }
  await assert.rejects(alice.ask('endpoint.create', { path: '/app/x' }), code('ARK_LIMIT'));
});

test('an endpoint whose name or capability goes is ended, and its connections stay', async () => {
  const { endpoint, cap } = await alice.ask('endpoint.create', { path: '/app/a' });
  const { connection } = await bob.ask('endpoint.connect', { path: '/app/a' });
  await alice.ask('cap.delete', { cap, graceMs: 0 });
  assert.equal(alice.take('endpoint.ended')[0]!.endpoint, endpoint);
  await assert.rejects(bob.ask('name.lookup', { path: '/app/a' }), code('ARK_NOT_FOUND'));
  const second = await alice.ask('endpoint.create', { path: '/app/a' });
  const root = new Client(0, { privileged: true });
  await root.ask('name.remove', { path: '/app/a' });
  assert.equal(alice.take('endpoint.ended')[0]!.endpoint, second.endpoint);
  await assert.rejects(alice.ask('endpoint.close', { endpoint }), code('ARK_NOT_FOUND'));
  const third = await alice.ask('endpoint.create', { path: '/app/a' });
  await assert.rejects(
    bob.ask('endpoint.close', { endpoint: third.endpoint }),
    code('ARK_NOT_FOUND'),
  );
  await alice.ask('endpoint.close', { endpoint: third.endpoint });
  assert.equal(alice.take('endpoint.ended').length, 0, 'who closes it knows');
  await bob.ask('endpoint.leave', { connection });
});

test('a capability can be found by its name, with the rights of the name, once a domain', async () => {
  const { cap } = await alice.ask('region.create', { bytes: 1 });
  await alice.ask('name.bind', { path: '/app/data', cap, rights: ['read'] });
  const first = await bob.ask('name.lookup', { path: '/app/data' });
  assert.equal(first.kind, 'capability');
  assert.deepEqual(first.capability!.rights, ['read']);
  assert.equal(first.capability!.holder, bob.domain.id);
  const again = await bob.ask('name.lookup', { path: '/app/data' });
  assert.equal(again.capability!.cap, first.capability!.cap);
  await bob.ask('cap.delete', { cap: first.capability!.cap, graceMs: 0 });
  const anew = await bob.ask('name.lookup', { path: '/app/data' });
  assert.notEqual(anew.capability!.cap, first.capability!.cap);
  // Taking the name away takes nothing from who has looked it up; the end of the capability takes both.
  await alice.ask('name.remove', { path: '/app/data' });
  await bob.ask('region.open', { cap: anew.capability!.cap });
  await alice.ask('name.bind', { path: '/app/data', cap });
  await alice.ask('cap.delete', { cap, graceMs: 0 });
  await assert.rejects(bob.ask('name.lookup', { path: '/app/data' }), code('ARK_NOT_FOUND'));
  await assert.rejects(
    bob.ask('region.open', { cap: anew.capability!.cap }),
    code('ARK_NOT_FOUND'),
  );
});

test('only what may be granted can be bound, and only with rights that it has', async () => {
  const { cap } = await alice.ask('region.create', { bytes: 1 });
  const given = await alice.ask('cap.grant', { cap, to: bob.domain.id, rights: ['read'] });
  await assert.rejects(
    bob.ask('name.bind', { path: '/app/x', cap: given.cap }),
    code('ARK_NOT_PERMITTED'),
  );
  const more = await alice.ask('cap.grant', { cap, to: bob.domain.id, rights: ['read', 'grant'] });
  const bad = { path: '/app/x', cap: more.cap, rights: ['write'] };
  await assert.rejects(bob.ask('name.bind', bad), code('ARK_NOT_PERMITTED'));
  await bob.ask('name.bind', { path: '/app/x', cap: more.cap });
  await alice.ask('cap.revoke', { cap, graceMs: 0 });
  await assert.rejects(alice.ask('name.lookup', { path: '/app/x' }), code('ARK_NOT_FOUND'));
});

test('an endpoint is reached by a capability too, and by a name for one', async () => {
  const { cap } = await alice.ask('endpoint.create', { path: '/app/kv' });
  const { capability } = await bob.ask('name.lookup', { path: '/app/kv' });
  await bob.ask('endpoint.connect', { cap: capability!.cap });
  await alice.ask('name.bind', { path: '/app/alias', cap, rights: ['connect'] });
  await bob.ask('endpoint.connect', { path: '/app/alias' });
  await alice.ask('name.bind', { path: '/app/deaf', cap, rights: ['listen'] });
  await assert.rejects(
    bob.ask('endpoint.connect', { path: '/app/deaf' }),
    code('ARK_NOT_PERMITTED'),
  );
  const region = await bob.ask('region.create', { bytes: 1 });
  await assert.rejects(bob.ask('endpoint.connect', { cap: region.cap }), code('ARK_BAD_ARGUMENT'));
  await assert.rejects(bob.ask('endpoint.connect', { path: '/app' }), code('ARK_BAD_ARGUMENT'));
});

test('a capability for a directory opens it to whom it was granted', async () => {
  const { cap } = await alice.ask('name.make', { path: '/app/private', mode: 0o700 });
  await alice.ask('endpoint.create', { path: '/app/private/kv' });
  await assert.rejects(
    bob.ask('endpoint.connect', { path: '/app/private/kv' }),
    code('ARK_NOT_PERMITTED'),
  );
  const given = await alice.ask('cap.grant', { cap, to: bob.domain.id, rights: ['lookup'] });
  await bob.ask('endpoint.connect', { at: given.cap, path: '/kv' });
  await assert.rejects(
    bob.ask('name.list', { at: given.cap, path: '/' }),
    code('ARK_NOT_PERMITTED'),
  );
  const { cap: other } = await bob.ask('region.create', { bytes: 1 });
  await assert.rejects(bob.ask('name.list', { at: other, path: '/' }), code('ARK_BAD_ARGUMENT'));
  const listed = await alice.ask('name.list', { at: cap, path: '/' });
  assert.deepEqual(
    listed.entries.map(({ name, kind }) => [name, kind]),
    [['kv', 'endpoint']],
  );
});

test('a prepared domain that runs as root is nobody to the tree', async () => {
  const prepared = new Client(0, { prepared: true });
  await assert.rejects(prepared.ask('name.make', { path: '/net/x' }), code('ARK_NOT_PERMITTED'));
  await prepared.ask('name.make', { path: '/app/x' });
  const keep = { path: '/app/y', keep: true };
  await assert.rejects(prepared.ask('name.make', keep), code('ARK_NOT_PERMITTED'));
});

test('watchers hear, and one that does not read hears it together, however much it was', async () => {
  const { watch } = await bob.ask('name.watch', { path: '/app' });
  await alice.ask('name.make', { path: '/app/d' });
  assert.deepEqual(bob.take('name.changed'), [
    { watch, changes: [{ name: 'd', change: 'made' }], more: false },
  ]);
  bob.backlog = 1;
  for (let n = 0; n < 100; n++) {
    await alice.ask('name.make', { path: '/app/e' });
    await alice.ask('name.remove', { path: '/app/e' });
  }
  assert.equal(bob.take('name.changed').length, 0);
  bob.backlog = 0;
  await sleep(4 * LIMITS.noticeRetryMs);
  const [told, ...rest] = bob.take('name.changed');
  assert.equal(rest.length, 0);
  assert.equal((told!.changes as unknown[]).length, LIMITS.changesPerEventMax);
  assert.equal(told!.more, true);
  await assert.rejects(alice.ask('name.unwatch', { watch }), code('ARK_NOT_FOUND'));
  await bob.ask('name.unwatch', { watch });
  await alice.ask('name.make', { path: '/app/f' });
  assert.equal(bob.take('name.changed').length, 0);
});

test('a served directory: asked, answered, refused, unanswered, and its server gone', async () => {
  await alice.ask('name.make', { path: '/app/kv' });
  await alice.ask('name.serve', { path: '/app/kv' });
  const { cap } = await alice.ask('region.create', { bytes: 1 });
  const question = async (path: string): Promise<[number, Promise<unknown>]> => {
    const asked = bob.ask('name.lookup', { path });
    asked.catch(() => {});
    await sleep(1);
    const [event] = alice.take('name.asked');
    assert.equal((event!.peer as { uid: number }).uid, 1002);
    assert.equal(event!.path, '/a/b');
    return [event!.question as number, asked];
  };
  let [id, asked] = await question('/app/kv/a/b');
  await assert.rejects(
    bob.ask('name.answer', { question: id, refusal: 'mine' }),
    code('ARK_NOT_FOUND'),
  );
  await alice.ask('name.answer', { question: id, cap, rights: ['read'] });
  const { capability } = (await asked) as ReplyOf<'name.lookup'>;
  assert.deepEqual([capability!.object.split(':')[0], capability!.rights], ['region', ['read']]);
  await bob.ask('region.open', { cap: capability!.cap });
  await assert.rejects(alice.ask('name.answer', { question: id, cap }), code('ARK_NOT_FOUND'));
  [id, asked] = await question('/app/kv/a/b');
  await alice.ask('name.answer', { question: id, refusal: 'no such shard' });
  await assert.rejects(asked, /no such shard/);
  [id, asked] = await question('/app/kv/a/b');
  await assert.rejects(asked, code('ARK_TIMEOUT'));
  await assert.rejects(alice.ask('name.lookup', { path: '/app/kv/x' }), code('ARK_BAD_ARGUMENT'));
  alice.backlog = 1;
  await assert.rejects(bob.ask('name.lookup', { path: '/app/kv/a' }), code('ARK_LIMIT'));
  alice.backlog = 0;
  [id, asked] = await question('/app/kv/a/b');
  await alice.end();
  await assert.rejects(asked, code('ARK_GONE'));
  await assert.rejects(bob.ask('name.lookup', { path: '/app/kv/a' }), code('ARK_NOT_FOUND'));
});

test('everything goes on in the next control plane from plain JSON and descriptors', async () => {
  const region = await alice.ask('region.create', { bytes: 1, name: 'data' });
  const given = await alice.ask('cap.grant', { cap: region.cap, to: bob.domain.id });
  await bob.ask('region.open', { cap: given.cap });
  await alice.ask('name.make', { path: '/app/d', mode: 0o755 });
  await alice.ask('name.bind', { path: '/app/d/data', cap: region.cap });
  const { endpoint } = await alice.ask('endpoint.create', { path: '/app/kv' });
  const { connection } = await bob.ask('endpoint.connect', { path: '/app/kv' });
  const json = <T>(value: T): T => JSON.parse(JSON.stringify(value));
  const regions = plane.regions
    .snapshot()
    .map(({ saved, fd }) => ({ saved: json(saved), fd: duplicateFd(fd) }));
  const kinds = ['endpoint', 'connection', 'name'];
  const texts = kept.texts(...kinds);
  assert.equal(texts.length, 5);
  const [before, caps] = [plane, [...plane.caps.all()]];
  const next = makePlane();
  for (const client of [alice, bob])
    next.domains.set(client.domain.id, next.objects.add(client.domain));
  // As a space that was restored would have them, under the same numbers.
  for (const cap of caps) {
    const { holder, kind, object, rights, range, parent } = cap;
    const above = parent === null ? null : next.caps.get(parent.id)!;
    if (above === null) next.caps.mint(holder, kind, object, rights, range);
    else next.caps.derive(above, holder, rights, range);
  }
  assert.deepEqual(
    [...next.caps.all()].map((cap) => cap.id),
    caps.map((cap) => cap.id),
  );
  for (const { saved, fd } of regions) {
    kept.delete('region', saved.id);
    assert.ok(next.regions.restore(saved, fd));
  }
  const notRegions = { claim: kept.claim.bind(kept), delete: kept.delete.bind(kept) };
  adoptSharing(next, {
    ...notRegions,
    unclaimed: (kind) => (kind === 'region' ? [] : kept.unclaimed(kind)),
  });
  plane = next;
  assert.deepEqual(kept.texts(...kinds), texts);
  assert.deepEqual(
    plane.regions.snapshot().map(({ saved }) => saved),
    regions.map(({ saved }) => saved),
  );
  await bob.ask('region.open', { cap: given.cap });
  await bob.ask('name.lookup', { path: '/app/d/data' });
  await bob.ask('endpoint.leave', { connection });
  await alice.ask('endpoint.close', { endpoint });
  await assert.rejects(bob.ask('name.lookup', { path: '/app/kv' }), code('ARK_NOT_FOUND'));
  await alice.ask('cap.delete', { cap: region.cap, graceMs: 0 });
  assert.deepEqual(alice.take('region.held').length, 1);
  await alice.end();
  await bob.end();
  // The one before has ended: nothing but its descriptors is left of it.
  for (const { fd } of before.regions.snapshot()) closeAll([fd]);
});
