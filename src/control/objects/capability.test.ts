/** Capabilities over the protocol: who may do what, what is told to whom, and what hangs on them. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { type Client, FakePlane } from '../../../test/support/fake-plane.ts';
import { sleep } from '../../../test/support/until.ts';
import { ArrakisError } from '../../base/errors.ts';
import { closeAll } from '../../ffi/fd.ts';
import { RIGHTS } from '../caps/rights.ts';
import { LIMITS } from '../limits.ts';
import { closeDomain } from './domain.ts';

const code =
  (expected: string, text = /./) =>
  (error: unknown) =>
    error instanceof ArrakisError && error.code === expected && text.test(error.message);

let fake: FakePlane;
let root: Client;
let a: Client;
let b: Client;

beforeEach(() => {
  fake = new FakePlane();
  root = fake.client({ privileged: true, name: 'root' });
  a = fake.client({ name: 'a' });
  b = fake.client({ name: 'b' });
});

const idsOf = async (client: Client): Promise<number[]> =>
  (await fake.ask(client, 'cap.list', {})).capabilities.map((each) => each.cap);

/** A root capability for device soft0, minted by root. */
const device = (to: Client, rights?: string[]) =>
  fake.ask(root, 'cap.mint', {
    to: to.domain.id,
    kind: 'device',
    object: 'soft0',
    ...(rights === undefined ? {} : { rights }),
  });

/** Addresses 10.77.0.first to 10.77.0.last, on soft0. */
const addresses = (to: Client, first: number, last: number) =>
  fake.ask(root, 'cap.mint', {
    to: to.domain.id,
    kind: 'addresses',
    object: 'soft0',
    range: {
      protocol: 'any',
      first: 0x0a4d0000 + first,
      last: 0x0a4d0000 + last,
      portFirst: 0,
      portLast: 65535,
    },
  });

const rate = (to: Client) =>
  fake.ask(root, 'cap.mint', { to: to.domain.id, kind: 'rate', object: '*' });

/** Everything that `client` needs to open VNICs with the addresses first..last. */
async function equip(client: Client, first = 16, last = 31) {
  return {
    device: await device(client),
    addresses: await addresses(client, first, last),
    rate: await rate(client),
  };
}

const named = (client: Client, event: string) =>
  client.events.filter((each) => each.event === event);

describe('handles', () => {
  test('what is not yours is not there: forged, of others, stale, replayed', async () => {
    const { cap } = await device(a);
    for (const op of ['cap.derive', 'cap.copy', 'cap.revoke', 'cap.delete'] as const) {
      for (const forged of [cap, cap + 1, 1, Number.MAX_SAFE_INTEGER]) {
        await assert.rejects(fake.ask(b, op, { cap: forged }), code('ARK_NOT_FOUND'), op);
      }
    }
    await assert.rejects(
      fake.ask(b, 'cap.grant', { cap, to: root.domain.id }),
      code('ARK_NOT_FOUND'),
    );
    assert.deepEqual(await idsOf(b), []);
    await fake.ask(a, 'cap.delete', { cap });
    await assert.rejects(fake.ask(a, 'cap.copy', { cap }), code('ARK_NOT_FOUND'));
    const again = await device(a);
    assert.ok(again.cap > cap);
  });

  test('only root mints, and nothing that stands for an object', async () => {
    const args = { to: a.domain.id, kind: 'device', object: 'soft0' } as const;
    await assert.rejects(fake.ask(a, 'cap.mint', args), code('ARK_NOT_PERMITTED'));
    await assert.rejects(
      fake.ask(root, 'cap.mint', { ...args, kind: 'vnic' as never }),
      code('ARK_BAD_MESSAGE'),
    );
    await assert.rejects(
      fake.ask(root, 'cap.mint', { ...args, range: { bytes: 1 } }),
      code('ARK_BAD_ARGUMENT'),
    );
  });

  test('a domain sees its own, root all, in pages', async () => {
    const mine = await device(a);
    for (let n = 0; n < 400; n++) await fake.ask(a, 'cap.copy', { cap: mine.cap });
    await device(b);
    const first = await fake.ask(a, 'cap.list', {});
    assert.ok(first.omitted > 0);
    let seen = first.capabilities;
    for (let left = first.omitted; left > 0; ) {
      const next = await fake.ask(a, 'cap.list', { after: seen.at(-1)!.cap });
      seen = [...seen, ...next.capabilities];
      left = next.omitted;
    }
    assert.equal(seen.length, 401);
    assert.ok(seen.every((each) => each.holder === a.domain.id));
    const ofB = await fake.ask(root, 'cap.list', { holder: b.domain.id });
    assert.equal(ofB.capabilities.length, 1);
    assert.deepEqual((await fake.ask(b, 'cap.list', { holder: a.domain.id })).capabilities, []);
  });
});

describe('derive and grant', () => {
  test('rights and ranges shrink, never grow', async () => {
    const { cap } = await addresses(a, 16, 31);
    const some = { protocol: 'udp' as const, portFirst: 7, portLast: 9 };
    const range = { ...some, first: 0x0a4d0010, last: 0x0a4d0011 };
    const less = await fake.ask(a, 'cap.derive', { cap, rights: ['use'], range });
    assert.deepEqual([less.rights, less.range, less.parent], [['use'], range, cap]);
    const more = { ...range, last: 0x0a4d0012 };
    await assert.rejects(
      fake.ask(a, 'cap.derive', { cap: less.cap, range: more }),
      code('ARK_NOT_PERMITTED', /udp 10\.77\.0\.16-10\.77\.0\.18:7-9/),
    );
    await assert.rejects(
      fake.ask(a, 'cap.derive', { cap: less.cap, range: null }),
      code('ARK_NOT_PERMITTED'),
    );
    await assert.rejects(
      fake.ask(a, 'cap.derive', { cap: less.cap, rights: ['use', 'grant'] }),
      code('ARK_NOT_PERMITTED', /grant/),
    );
    await assert.rejects(
      fake.ask(a, 'cap.grant', { cap: less.cap, to: b.domain.id }),
      code('ARK_NOT_PERMITTED', /handed on/),
    );
    await assert.rejects(
      fake.ask(a, 'cap.derive', { cap, rights: ['fly'] }),
      code('ARK_BAD_ARGUMENT', /fly/),
    );
    await assert.rejects(fake.ask(a, 'cap.derive', { cap, rights: [] }), code('ARK_BAD_ARGUMENT'));
  });

  test('a grant is told to who gets it; a circle is a tree', async () => {
    const { cap } = await device(a);
    const toB = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    assert.deepEqual(named(b, 'cap.granted'), [
      { event: 'cap.granted', capability: toB, by: a.domain.id },
    ]);
    const back = await fake.ask(b, 'cap.grant', { cap: toB.cap, to: a.domain.id });
    assert.equal(back.parent, toB.cap);
    await fake.ask(a, 'cap.revoke', { cap, graceMs: 0 });
    assert.deepEqual(await idsOf(a), [cap]);
    assert.deepEqual(await idsOf(b), []);
  });

  test('not to oneself, nobody, the daemon, or a domain that ends', async () => {
    const { cap } = await device(a);
    const to = (id: number) => fake.ask(a, 'cap.grant', { cap, to: id });
    await assert.rejects(to(a.domain.id), code('ARK_BAD_ARGUMENT'));
    await assert.rejects(to(987654), code('ARK_NOT_FOUND'));
    await assert.rejects(to(0), code('ARK_BAD_MESSAGE'));
    await closeDomain(fake.plane, b.domain);
    await assert.rejects(to(b.domain.id), code('ARK_NOT_FOUND'));
    assert.equal(fake.plane.caps.size, 1);
  });

  test('chains and numbers have limits', async () => {
    let { cap } = await device(a);
    const first = cap;
    for (let n = 1; n < LIMITS.capDepthMax; n++)
      ({ cap } = await fake.ask(a, 'cap.derive', { cap }));
    await assert.rejects(fake.ask(a, 'cap.derive', { cap }), code('ARK_LIMIT'));
    for (let n = LIMITS.capDepthMax; n <= LIMITS.capsPerDomainMax; n++) {
      // Few to each: nobody may be given all of them (caps/shares.ts).
      const to = n % 2 === 0 ? a.domain.id : b.domain.id;
      if (n < 2 * LIMITS.capsGivenPerUidMax && to === b.domain.id) {
        await fake.ask(a, 'cap.grant', { cap: first, to });
      } else await fake.ask(a, 'cap.derive', { cap: first });
    }
    await assert.rejects(
      fake.ask(a, 'cap.grant', { cap: first, to: b.domain.id }),
      code('ARK_LIMIT'),
    );
    // The gifts are on the account of the giver.
    const own = await device(b);
    await fake.ask(b, 'cap.derive', { cap: own.cap });
  });
});

describe('revocation', () => {
  test('holders are told, have their time, then it happens; the reply says so', async () => {
    const { cap } = await device(a);
    const toB = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    const before = performance.now();
    const revoking = fake.ask(a, 'cap.revoke', { cap, graceMs: 60 });
    assert.deepEqual(named(b, 'cap.revoking'), [
      { event: 'cap.revoking', caps: [toB.cap], graceMs: 60 },
    ]);
    assert.deepEqual(await idsOf(b), [toB.cap]);
    for (const op of ['cap.derive', 'cap.copy'] as const) {
      await assert.rejects(fake.ask(b, op, { cap: toB.cap }), code('ARK_NOT_PERMITTED', /revoked/));
    }
    assert.deepEqual(await revoking, { removed: 1 });
    assert.ok(performance.now() - before >= 55);
    assert.deepEqual(named(b, 'cap.revoked'), [{ event: 'cap.revoked', caps: [toB.cap] }]);
    await assert.rejects(fake.ask(b, 'cap.copy', { cap: toB.cap }), code('ARK_NOT_FOUND'));
    await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
  });

  test('who deletes what is revoked ends the wait', async () => {
    const { cap } = await device(a);
    const toB = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    const before = performance.now();
    const revoking = fake.ask(a, 'cap.revoke', { cap, graceMs: LIMITS.revokeGraceMsMax });
    await fake.ask(b, 'cap.delete', { cap: toB.cap });
    await revoking;
    assert.ok(performance.now() - before < LIMITS.revokeGraceMsMax / 2);
  });

  test('a holder that dies ends the wait too', async () => {
    const { cap } = await device(a);
    await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    const before = performance.now();
    const revoking = fake.ask(a, 'cap.revoke', { cap, graceMs: LIMITS.revokeGraceMsMax });
    await closeDomain(fake.plane, b.domain);
    await revoking;
    assert.ok(performance.now() - before < LIMITS.revokeGraceMsMax / 2);
  });

  test('a giver takes one gift back by its number; who got it takes nothing from the giver', async () => {
    const { cap } = await device(a);
    const one = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    const two = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    await assert.rejects(fake.ask(b, 'cap.revoke', { cap }), code('ARK_NOT_FOUND'));
    await fake.ask(a, 'cap.delete', { cap: one.cap, graceMs: 0 });
    assert.deepEqual(await idsOf(b), [two.cap]);
    // Root may take anything from anybody.
    await fake.ask(root, 'cap.delete', { cap, graceMs: 0 });
    assert.equal(fake.plane.caps.size, 0);
  });

  test('two revocations at once, and one of the whole meanwhile', async () => {
    const { cap } = await device(a);
    await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    const results = await Promise.all([
      fake.ask(a, 'cap.revoke', { cap, graceMs: 30 }),
      fake.ask(root, 'cap.revoke', { cap, graceMs: 60 }),
      fake.ask(root, 'cap.delete', { cap, graceMs: 10 }),
    ]);
    assert.deepEqual(
      results.map((each) => each.removed),
      [1, 1, 2],
    );
    assert.equal(fake.plane.caps.size, 0);
  });

  test('the end of a domain takes what it gave', async () => {
    const c = fake.client({ name: 'c' });
    const { cap } = await device(a);
    const toB = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    const toC = await fake.ask(b, 'cap.grant', { cap: toB.cap, to: c.domain.id });
    await closeDomain(fake.plane, a.domain);
    assert.equal(fake.plane.caps.size, 0);
    assert.deepEqual(named(c, 'cap.revoked'), [{ event: 'cap.revoked', caps: [toC.cap] }]);
  });
});

describe('what others cause does not fill a channel', () => {
  test('notices wait for a slow reader and cancel each other out', async () => {
    const { cap } = await device(a);
    const { cap: kept } = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    let waiting = 1;
    b.domain.backlog = () => waiting;
    b.events.splice(0);
    for (let n = 0; n < 500; n++) {
      const gift = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
      if (n < 499) await fake.ask(a, 'cap.delete', { cap: gift.cap, graceMs: 0 });
    }
    await fake.ask(a, 'cap.delete', { cap: kept, graceMs: 0 });
    assert.equal(b.events.length, 0);
    waiting = 0;
    await sleep(5 * LIMITS.noticeRetryMs);
    // Of 500 gifts one is left, and only of that, and of the one that was known, it hears.
    assert.deepEqual(
      b.events.map((each) => each.event),
      ['cap.revoked', 'cap.granted'],
    );
    assert.deepEqual(b.events[0]!.caps, [kept]);
  });
});

describe('VNICs by capability', () => {
  const spec = { device: 'soft0' };

  test('without capabilities nothing opens, and the refusal names what is missing', async () => {
    const refused = async (text: RegExp, want: object = spec) =>
      assert.rejects(
        fake.ask(a, 'vnic.open', { spec: want as typeof spec }),
        code('ARK_NOT_PERMITTED', text),
      );
    await refused(/device soft0 with the right open/);
    await device(a, ['grant']);
    await refused(/device soft0 with the right open/);
    await device(a);
    await refused(/a rate on soft0/);
    const range = { bitsPerSecond: 1e6, packetsPerSecond: null, weight: null };
    await fake.ask(root, 'cap.mint', { to: a.domain.id, kind: 'rate', object: 'soft0', range });
    await refused(/such a rate on soft0/, { ...spec, bitsPerSecond: 2e6 });
    await refused(/whole address on soft0/);
    await addresses(a, 16, 31);
    const { vnic } = await fake.ask(a, 'vnic.open', { spec });
    // Without a rate it gets the one that it may have.
    assert.equal(fake.plane.vnics.get(vnic)!.spec.bitsPerSecond, 1e6);
    await refused(/dst host 10\.77\.0\.32 on soft0/, { ...spec, address: 0x0a4d0020 });
    await refused(/device eth0/, { device: 'eth0', mode: 'direct' });
    // Whether there is such a device is none of its business.
    await refused(/device eth9/, { device: 'eth9' });
  });

  test('addresses are chosen among its own', async () => {
    await equip(a, 16, 17);
    const first = await fake.ask(a, 'vnic.open', { spec });
    const second = await fake.ask(a, 'vnic.open', { spec });
    assert.deepEqual([first.address, second.address], [0x0a4d0010, 0x0a4d0011]);
    await assert.rejects(fake.ask(a, 'vnic.open', { spec }), code('ARK_LIMIT'));
  });

  test('direct takes a right of its own, and ports of a shared address a range with those ports', async () => {
    const id = a.domain.id;
    const onEth0 = { to: id, object: 'eth0' };
    await fake.ask(root, 'cap.mint', { ...onEth0, kind: 'device', rights: ['open'] });
    await rate(a);
    const range = { protocol: 'udp' as const, first: 0x0a4d0001, last: 0x0a4d0001 };
    const ports = { portFirst: 7, portLast: 9 };
    await fake.ask(root, 'cap.mint', {
      ...onEth0,
      kind: 'addresses',
      range: { ...range, ...ports },
    });
    const udp = (first: number, last: number) => ({
      device: 'eth0',
      ports: [{ protocol: 'udp' as const, first, last }],
    });
    await assert.rejects(
      fake.ask(a, 'vnic.open', { spec: udp(7, 10) }),
      code('ARK_NOT_PERMITTED', /udp and dst host 10\.77\.0\.1 and dst portrange 7-10/),
    );
    await assert.rejects(
      fake.ask(a, 'vnic.open', { spec: { ...udp(7, 7), mode: 'direct' } }),
      code('ARK_NOT_PERMITTED', /direct/),
    );
    const { vnic } = await fake.ask(a, 'vnic.open', { spec: udp(7, 8) });
    const filter = (port: number) => [`udp and dst host 10.77.0.1 and dst port ${port}`];
    // More than it was opened with, but covered.
    await fake.ask(a, 'filter.set', { vnic, filters: filter(9) });
    await assert.rejects(
      fake.ask(a, 'filter.set', { vnic, filters: filter(10) }),
      code('ARK_NOT_PERMITTED'),
    );
  });

  for (const which of ['device', 'addresses', 'rate'] as const) {
    test(`the VNIC goes with its ${which}`, async () => {
      const equipment = await equip(a);
      const { vnic } = await fake.ask(a, 'vnic.open', { spec });
      assert.ok(fake.softnic.attached.has(vnic));
      await fake.ask(root, 'cap.delete', { cap: equipment[which].cap, graceMs: 0 });
      // The reply came when the device had let go.
      assert.equal(fake.softnic.attached.size, 0);
      assert.equal(fake.plane.vnics.size, 0);
      assert.deepEqual(named(a, 'vnic.gone'), [{ event: 'vnic.gone', vnic, reason: 'revoked' }]);
      assert.equal(fake.plane.caps.of(a.domain.id).length, 2);
    });
  }

  test('the reply to a revocation waits for the device', async () => {
    const { device } = await equip(a);
    await fake.ask(a, 'vnic.open', { spec });
    let open!: () => void;
    fake.softnic.gate = new Promise((resolve) => {
      open = resolve;
    });
    let replied = false;
    const revoking = fake.ask(root, 'cap.delete', { cap: device.cap, graceMs: 0 }).then(() => {
      replied = true;
    });
    await sleep(20);
    assert.ok(!replied);
    open();
    await revoking;
  });

  test('nor does it wait for what others set off before', async () => {
    const { device } = await equip(a);
    await fake.ask(a, 'vnic.open', { spec });
    const mine = await equip(b, 40, 41);
    fake.softnic.gate = new Promise(() => {});
    void fake.ask(root, 'cap.delete', { cap: device.cap, graceMs: 0 });
    assert.deepEqual(await fake.ask(b, 'cap.delete', { cap: mine.rate.cap }), { removed: 1 });
  });

  test('but for a VNIC that stops already and had what is revoked', async () => {
    const { device, addresses } = await equip(a);
    await fake.ask(a, 'vnic.open', { spec });
    let open!: () => void;
    fake.softnic.gate = new Promise((resolve) => {
      open = resolve;
    });
    const first = fake.ask(root, 'cap.delete', { cap: device.cap, graceMs: 0 });
    let replied = false;
    const second = fake.ask(root, 'cap.delete', { cap: addresses.cap, graceMs: 0 }).then(() => {
      replied = true;
    });
    await sleep(20);
    assert.ok(!replied);
    open();
    await Promise.all([first, second]);
  });

  test('a domain that gave its device takes the VNICs on it along', async () => {
    const { device } = await equip(a);
    await addresses(b, 40, 41);
    await rate(b);
    await fake.ask(a, 'cap.grant', { cap: device.cap, to: b.domain.id, rights: ['open'] });
    const { vnic } = await fake.ask(b, 'vnic.open', { spec });
    await closeDomain(fake.plane, a.domain);
    await Promise.allSettled(fake.plane.stopping.keys());
    assert.equal(fake.softnic.attached.size, 0);
    assert.deepEqual(named(b, 'vnic.gone'), [{ event: 'vnic.gone', vnic, reason: 'revoked' }]);
  });

  test('a VNIC that is closed leaves no capability, and says nothing to who closed it', async () => {
    await equip(a);
    const { vnic } = await fake.ask(a, 'vnic.open', { spec });
    assert.equal((await idsOf(a)).length, 4);
    a.events.splice(0);
    await fake.ask(a, 'vnic.close', { vnic });
    assert.equal((await idsOf(a)).length, 3);
    assert.deepEqual(a.events, []);
    // And deleting its capability closes it.
    await fake.ask(a, 'vnic.open', { spec });
    await fake.ask(a, 'cap.delete', { cap: (await idsOf(a)).at(-1)! });
    assert.equal(fake.plane.vnics.size, 0);
  });

  test('a prepared VNIC is a capability too: root revokes it', async () => {
    await fake.ask(root, 'domain.prepare', { name: 'web', uid: 7, vnics: [{ device: 'soft0' }] });
    const domain = [...fake.plane.domains.values()].find((each) => each.prepared)!;
    const web = fake.speakFor(domain);
    const { vnic } = await fake.ask(web, 'vnic.open', {});
    const [own] = (await fake.ask(web, 'cap.list', {})).capabilities;
    assert.deepEqual([own!.kind, own!.object], ['vnic', `vnic:${vnic}`]);
    assert.deepEqual(await fake.ask(root, 'cap.revoke', { cap: own!.parent, graceMs: 5 }), {
      removed: 1,
    });
    assert.deepEqual(named(web, 'cap.revoking').length, 1);
    assert.deepEqual(named(web, 'vnic.gone'), [{ event: 'vnic.gone', vnic, reason: 'revoked' }]);
    await assert.rejects(fake.ask(web, 'vnic.open', {}), code('ARK_NOT_FOUND'));
    assert.equal(fake.plane.caps.size, 0);
    await closeDomain(fake.plane, domain);
    closeAll(fake.adopted);
  });

  test('one that was kept is opened by another domain, and comes back when that is revoked', async () => {
    await equip(a);
    const { vnic } = await fake.ask(a, 'vnic.open', { spec });
    const cap = (await idsOf(a)).at(-1)!;
    const rights = ['open', 'filter'];
    const toB = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id, rights });
    await assert.rejects(fake.ask(b, 'vnic.open', { cap: toB.cap }), code('ARK_IN_USE', /open/));
    await assert.rejects(fake.ask(b, 'vnic.close', { vnic }), code('ARK_NOT_PERMITTED', /close/));
    await fake.ask(a, 'vnic.close', { vnic, keep: true });
    assert.equal((await fake.ask(b, 'vnic.open', { cap: toB.cap })).vnic, vnic);
    await assert.rejects(fake.ask(a, 'vnic.open', {}), code('ARK_IN_USE', /by domain b/));
    const filters = ['dst host 10.77.0.16'];
    await fake.ask(b, 'filter.set', { vnic, filters });
    await fake.ask(a, 'cap.delete', { cap: toB.cap, graceMs: 0 });
    assert.deepEqual(named(b, 'vnic.gone'), [{ event: 'vnic.gone', vnic, reason: 'revoked' }]);
    assert.deepEqual(named(a, 'vnic.gone'), []);
    assert.equal(fake.softnic.attached.size, 0);
    await assert.rejects(fake.ask(b, 'vnic.close', { vnic }), code('ARK_NOT_FOUND'));
    await fake.ask(a, 'vnic.open', {});
    // The end of the user leaves it to its owner; the end of the owner takes it from the user.
    await fake.ask(a, 'vnic.close', { vnic, keep: true });
    const again = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    await fake.ask(b, 'vnic.open', { cap: again.cap });
    b.events.splice(0);
    await closeDomain(fake.plane, a.domain);
    assert.equal(named(b, 'vnic.gone').length, 1);
    assert.equal(fake.plane.vnics.size, 0);
    assert.equal(fake.softnic.attached.size, 0);
  });

  test('who may only open it changes nothing that its owner is left with', async () => {
    await equip(a);
    const { vnic } = await fake.ask(a, 'vnic.open', { spec });
    const cap = (await idsOf(a)).at(-1)!;
    const toB = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id, rights: ['open'] });
    await fake.ask(a, 'vnic.close', { vnic, keep: true });
    await fake.ask(b, 'vnic.open', { cap: toB.cap });
    const refused = (right: string) => code('ARK_NOT_PERMITTED', new RegExp(`not have ${right}`));
    await assert.rejects(fake.ask(b, 'filter.set', { vnic, filters: [] }), refused('filter'));
    const limit = { direction: 'send', bitsPerSecond: 1e6, packetsPerSecond: null } as const;
    await assert.rejects(fake.ask(b, 'rate.set', { vnic, ...limit }), refused('rate'));
    await assert.rejects(fake.ask(b, 'capture.stop', { vnic }), refused('capture'));
    await fake.ask(b, 'doorbell.set', { vnic, usecs: 5, frames: 0 });
    await fake.ask(b, 'vnic.close', { vnic });
  });

  test('a capability that goes while its VNIC is opened opens nothing', async () => {
    await equip(a);
    const { vnic } = await fake.ask(a, 'vnic.open', { spec });
    const cap = (await idsOf(a)).at(-1)!;
    const toB = await fake.ask(a, 'cap.grant', { cap, to: b.domain.id });
    await fake.ask(a, 'vnic.close', { vnic, keep: true });
    let open!: () => void;
    fake.softnic.gate = new Promise((resolve) => {
      open = resolve;
    });
    const opening = fake.ask(b, 'vnic.open', { cap: toB.cap });
    await sleep(5);
    await fake.ask(a, 'cap.delete', { cap: toB.cap, graceMs: 0 });
    open();
    await assert.rejects(opening, code('ARK_GONE'));
    assert.equal(fake.softnic.attached.size, 0);
    fake.softnic.gate = Promise.resolve();
    await fake.ask(a, 'vnic.open', {});
    await assert.rejects(fake.ask(b, 'vnic.open', { cap: toB.cap }), code('ARK_NOT_FOUND'));
  });

  test('a capability for something else opens no VNIC', async () => {
    const { cap } = await device(a);
    await assert.rejects(fake.ask(a, 'vnic.open', { cap }), code('ARK_NOT_FOUND', /for no VNIC/));
    await assert.rejects(fake.ask(a, 'vnic.open', { cap, spec } as never), code('ARK_BAD_MESSAGE'));
  });
});

test('what the policy gives is there from the first message on; the privileged need none', async () => {
  fake = new FakePlane({
    initialCapabilities: ({ uid, pid }) =>
      uid === 77 && pid === 5
        ? [{ kind: 'device', object: 'soft0', rights: RIGHTS.device.open, range: null }]
        : [],
  });
  const peerOf = (uid: number) => {
    let client: Client | null = null;
    const peer = {
      uid,
      gid: uid,
      groups: [],
      exe: null,
      pid: 5,
      domain: null,
      adopt: (domain: Client['domain']) => {
        client = fake.speakFor(domain);
      },
    };
    return { peer, client: () => client! };
  };
  const one = peerOf(77);
  await fake.ask(one.peer, 'hello', { protocol: 1 });
  const [cap] = (await fake.ask(one.client(), 'cap.list', {})).capabilities;
  assert.deepEqual([cap!.kind, cap!.rights, cap!.parent], ['device', ['open'], 0]);
  const other = peerOf(78);
  await fake.ask(other.peer, 'hello', { protocol: 1 });
  assert.deepEqual(await idsOf(other.client()), []);
});
