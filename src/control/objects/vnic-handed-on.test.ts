/** A VNIC that its owner has handed on: what its borrower may do to it, and what meets half-way. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { type Client, FakePlane } from '../../../test/support/fake-plane.ts';
import { sleep } from '../../../test/support/until.ts';
import { ArrakisError } from '../../base/errors.ts';
import { closeDomain } from './domain.ts';

const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;

const spec = { device: 'soft0', address: 0x0a4d0010 };

let fake: FakePlane;
let root: Client;
let owner: Client;
let borrower: Client;
let vnic: number;
/** The owner's capability for it. */
let own: number;

const mint = (to: Client, kind: 'device' | 'rate', object: string) =>
  fake.ask(root, 'cap.mint', { to: to.domain.id, kind, object });

/** Addresses 10.77.0.first to 10.77.0.last. */
const addresses = (to: Client, first: number, last: number) => {
  const range = { first: 0x0a4d0000 + first, last: 0x0a4d0000 + last, portFirst: 0 } as const;
  return fake.ask(root, 'cap.mint', {
    to: to.domain.id,
    kind: 'addresses',
    object: 'soft0',
    range: { protocol: 'any', portLast: 65535, ...range },
  });
};

const handOn = (to: Client, rights: string[]) =>
  fake.ask(owner, 'cap.grant', { cap: own, to: to.domain.id, rights });

const gone = (client: Client) => client.events.filter(({ event }) => event === 'vnic.gone');

/** Attachments and detachments wait from now on; the function that is returned lets them go. */
function holdDevice(): () => void {
  let release!: () => void;
  fake.softnic.gate = new Promise((resolve) => {
    release = resolve;
  });
  return release;
}

beforeEach(async () => {
  fake = new FakePlane();
  root = fake.client({ privileged: true, name: 'root' });
  owner = fake.client({ name: 'owner' });
  borrower = fake.client({ name: 'borrower' });
  await mint(owner, 'device', 'soft0');
  await mint(owner, 'rate', '*');
  await addresses(owner, 16, 31);
  vnic = (await fake.ask(owner, 'vnic.open', { spec })).vnic;
  own = (await fake.ask(owner, 'cap.list', {})).capabilities.at(-1)!.cap;
});

test('a borrower cannot make the VNIC hang on what is its own', async () => {
  const theirs = await addresses(borrower, 64, 79);
  const limit = await mint(borrower, 'rate', '*');
  const lent = await handOn(borrower, ['open', 'filter', 'rate']);
  await fake.ask(owner, 'vnic.close', { vnic, keep: true });
  await fake.ask(borrower, 'vnic.open', { cap: lent.cap });
  const filters = ['dst host 10.77.0.64'];
  await assert.rejects(
    fake.ask(borrower, 'filter.set', { vnic, filters }),
    code('ARK_NOT_PERMITTED'),
  );
  await fake.ask(root, 'rate.set', {
    vnic,
    direction: 'send',
    bitsPerSecond: 1e6,
    packetsPerSecond: null,
  });
  const more = { direction: 'send', bitsPerSecond: 1e8, packetsPerSecond: null } as const;
  await assert.rejects(
    fake.ask(borrower, 'rate.set', { vnic, ...more }),
    code('ARK_NOT_PERMITTED'),
  );
  // Within what it has it may.
  await fake.ask(borrower, 'filter.set', { vnic, filters: ['udp and dst host 10.77.0.16'] });
  for (const { cap } of [theirs, limit, lent]) await fake.ask(borrower, 'cap.delete', { cap });
  await closeDomain(fake.plane, borrower.domain);
  assert.ok(fake.plane.vnics.has(vnic), 'the VNIC is still there');
  assert.deepEqual(gone(owner), []);
  await fake.ask(owner, 'vnic.open', {});
});

test('its owner may widen it, and it goes with that', async () => {
  const more = await addresses(owner, 64, 79);
  const filters = ['dst host 10.77.0.16', 'dst host 10.77.0.64'];
  await fake.ask(owner, 'filter.set', { vnic, filters });
  await fake.ask(root, 'cap.delete', { cap: more.cap, graceMs: 0 });
  assert.equal(gone(owner).length, 1);
});

for (const keep of [false, true]) {
  test(`what is closed while another opens it is closed, keep: ${keep}`, async () => {
    const lent = await handOn(borrower, ['open']);
    await fake.ask(owner, 'vnic.close', { vnic, keep: true });
    const release = holdDevice();
    const opening = fake.ask(borrower, 'vnic.open', { cap: lent.cap });
    opening.catch(() => {});
    await sleep(1);
    let closed = false;
    const closing = fake.ask(owner, 'vnic.close', { vnic, keep }).then(() => {
      closed = true;
    });
    await sleep(1);
    assert.ok(!closed, 'it waits for the device');
    release();
    await closing;
    assert.equal(fake.softnic.attached.size, 0, 'the device has let go');
    await assert.rejects(opening, code('ARK_GONE'));
    assert.deepEqual(gone(borrower), []);
    await fake.ask(borrower, 'vnic.open', { cap: lent.cap });
    assert.equal(fake.softnic.attached.size, 1);
  });
}

test('who has it open hears that its owner closed it', async () => {
  const lent = await handOn(borrower, ['open']);
  await fake.ask(owner, 'vnic.close', { vnic, keep: true });
  await fake.ask(borrower, 'vnic.open', { cap: lent.cap });
  await fake.ask(owner, 'vnic.close', { vnic });
  assert.equal(gone(borrower).length, 1);
  assert.equal(fake.softnic.attached.size, 0);
});

test('of two borrowers the second is its user once the first has lost it', async () => {
  const other = fake.client({ name: 'other' });
  const [first, second] = [await handOn(borrower, ['open']), await handOn(other, ['open'])];
  await fake.ask(owner, 'vnic.close', { vnic, keep: true });
  const attach = holdDevice();
  const lost = fake.ask(borrower, 'vnic.open', { cap: first.cap });
  lost.catch(() => {});
  await sleep(1);
  await fake.ask(owner, 'cap.delete', { cap: first.cap, graceMs: 0 });
  const detach = holdDevice();
  attach();
  await sleep(1);
  const opening = fake.ask(other, 'vnic.open', { cap: second.cap });
  detach();
  await assert.rejects(lost, code('ARK_GONE'));
  await opening;
  assert.equal(fake.plane.vnics.get(vnic)!.opener, other.domain);
  await fake.ask(owner, 'cap.delete', { cap: second.cap, graceMs: 0 });
  assert.equal(fake.softnic.attached.size, 0, 'it goes with its capability');
});
