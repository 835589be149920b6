/** Rates over the protocol: what a VNIC is given, who may set what, and what is seen of it. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { type Client, FakePlane } from '../../../test/support/fake-plane.ts';
import { ArrakisError } from '../../base/errors.ts';
import type { RateRange } from '../caps/range.ts';

const code =
  (expected: string, text = /./) =>
  (error: unknown) =>
    error instanceof ArrakisError && error.code === expected && text.test(error.message);

let fake: FakePlane;
let root: Client;
let tenant: Client;

beforeEach(() => {
  fake = new FakePlane();
  root = fake.client({ privileged: true, name: 'root' });
  tenant = fake.client({ name: 'tenant' });
});

const mint = (kind: 'device' | 'addresses' | 'rate', range: RateRange | null = null) =>
  fake.ask(root, 'cap.mint', {
    to: tenant.domain.id,
    kind,
    object: '*',
    ...(range === null ? {} : { range }),
  });

/** A VNIC of the tenant's, with a rate capability of `range`. */
async function open(range: RateRange | null, spec: object = {}): Promise<number> {
  await mint('device');
  await mint('addresses');
  await mint('rate', range);
  return (await fake.ask(tenant, 'vnic.open', { spec: { device: 'soft0', ...spec } })).vnic;
}

const unlimited = { bitsPerSecond: null, packetsPerSecond: null };
const bits = (bitsPerSecond: number | null) => ({ bitsPerSecond, packetsPerSecond: null });

const set = (by: Client, vnic: number, limit: object, direction: 'send' | 'receive' = 'send') =>
  fake.ask(by, 'rate.set', { vnic, direction, ...unlimited, ...limit });

/** `direction bits packets weight` of every rate object. */
async function told(by: Client = root): Promise<string[]> {
  const { objects } = await fake.ask(by, 'list', {});
  return objects
    .filter((object) => object.kind === 'rate')
    .map(({ detail: d }) => `${d.direction} ${d.bitsPerSecond} ${d.packetsPerSecond} ${d.weight}`);
}

describe('what a VNIC is given', () => {
  test('by its spec, in both directions, before the device serves it', async () => {
    const spec = { device: 'soft0', bitsPerSecond: 1e6, packetsPerSecond: 500, weight: 3 };
    await fake.ask(root, 'vnic.open', { spec });
    assert.deepEqual(fake.softnic.request?.rates, [
      {
        queue: null,
        direction: 'send',
        ...unlimited,
        bitsPerSecond: 1e6,
        packetsPerSecond: 500,
        weight: 3,
      },
      { queue: null, direction: 'receive', bitsPerSecond: 1e6, packetsPerSecond: 500, weight: 1 },
    ]);
    assert.deepEqual(await told(), ['send 1000000 500 3', 'receive 1000000 500 1']);
  });

  test('by the capability of its domain, where the spec leaves it open', async () => {
    await open({ bitsPerSecond: 5e6, packetsPerSecond: null, weight: 2 });
    assert.deepEqual(await told(tenant), ['send 5000000 null 2', 'receive 5000000 null 1']);
  });

  test('a capability beyond the link is as good as the link', async () => {
    await mint('device');
    await mint('addresses');
    await mint('rate', { bitsPerSecond: 1e11, packetsPerSecond: null, weight: 1 });
    const spec = { device: 'eth0', address: 0x0a4d0099 };
    await fake.ask(tenant, 'vnic.open', { spec });
    assert.deepEqual(await told(), []);
    const more = { ...spec, address: 0x0a4d0098, bitsPerSecond: 5e10 };
    await assert.rejects(fake.ask(tenant, 'vnic.open', { spec: more }), code('ARK_BAD_ARGUMENT'));
  });

  test('nothing: no limit, and no object', async () => {
    await fake.ask(root, 'vnic.open', { spec: { device: 'soft0' } });
    assert.deepEqual(fake.softnic.request?.rates, []);
    assert.deepEqual(await told(), []);
  });

  test('no more than the link has, and nothing that cannot be held', async () => {
    for (const [spec, expected] of [
      [{ device: 'eth0', bitsPerSecond: 1e11 }, 'ARK_BAD_ARGUMENT'],
      [{ device: 'eth0', mode: 'direct', bitsPerSecond: 1e6 }, 'ARK_UNSUPPORTED'],
    ] as const) {
      const before = fake.plane.objects.size;
      await assert.rejects(fake.ask(root, 'vnic.open', { spec }), code(expected));
      assert.equal(fake.plane.objects.size, before);
    }
  });
});

describe('who may set what', () => {
  test('a domain: less than it was given, and that again', async () => {
    const vnic = await open({ bitsPerSecond: 5e6, packetsPerSecond: null, weight: 2 });
    await set(tenant, vnic, bits(1e6));
    assert.deepEqual(await told(), ['receive 5000000 null 1', 'send 1000000 null 2']);
    await set(tenant, vnic, bits(5e6));
    await set(tenant, vnic, { ...bits(5e6), weight: 1 });
    await set(tenant, vnic, { ...bits(5e6), weight: 2 });
    for (const more of [bits(5_000_001), { ...bits(1e6), weight: 3 }]) {
      await assert.rejects(set(tenant, vnic, more), code('ARK_NOT_PERMITTED'));
    }
    assert.deepEqual(await told(), ['receive 5000000 null 1', 'send 5000000 null 2']);
    assert.equal(fake.softnic.rates.length, 4, 'the device heard of what was permitted only');
  });

  test('without a limit is as much as its capability allows', async () => {
    const vnic = await open({ bitsPerSecond: 5e6, packetsPerSecond: null, weight: 2 });
    await set(tenant, vnic, unlimited);
    assert.deepEqual(await told(), ['receive 5000000 null 1', 'send 5000000 null 2']);
  });

  test('more with a capability, on which the VNIC then depends', async () => {
    const vnic = await open({ bitsPerSecond: 5e6, packetsPerSecond: null, weight: 2 });
    const { cap } = await mint('rate', { bitsPerSecond: 9e6, packetsPerSecond: null, weight: 9 });
    await set(tenant, vnic, { ...bits(8e6), weight: 4 });
    assert.ok((await told()).includes('send 8000000 null 4'));
    await fake.ask(root, 'cap.delete', { cap });
    assert.equal(fake.plane.vnics.has(vnic), false);
    assert.ok(tenant.events.some((event) => event.event === 'vnic.gone'));
    assert.deepEqual(await told(), []);
  });

  test('root: anything, and that is what the domain has from then on', async () => {
    const vnic = await open(null);
    await set(root, vnic, bits(1e6));
    await set(tenant, vnic, bits(500_000));
    await set(tenant, vnic, bits(1e6));
    await set(root, vnic, unlimited);
    assert.deepEqual(await told(), []);
  });

  test('more by a capability that goes while the device is told: the VNIC goes with it', async () => {
    const vnic = await open({ ...bits(1e6), weight: 1 });
    const { cap } = await mint('rate', { ...bits(5e6), weight: 1 });
    let go!: () => void;
    fake.softnic.gate = new Promise((resolve) => {
      go = resolve;
    });
    const setting = set(tenant, vnic, bits(3e6));
    const revoking = fake.ask(root, 'cap.delete', { cap, graceMs: 0 });
    go();
    await assert.rejects(setting, code('ARK_GONE'));
    await revoking;
    assert.equal(fake.softnic.attached.size, 0);
  });

  test('nobody else: a VNIC of others is not there', async () => {
    const vnic = await open(null);
    const other = fake.client({ name: 'other' });
    await assert.rejects(set(other, vnic, bits(1e6)), code('ARK_NOT_FOUND'));
    const bell = fake.ask(other, 'doorbell.set', { vnic, usecs: 5, frames: 0 });
    await assert.rejects(bell, code('ARK_NOT_FOUND'));
  });
});

test('queues: their own limits and any weight, which nobody sees to on an interface', async () => {
  const vnic = await open({ bitsPerSecond: 5e6, packetsPerSecond: null, weight: 1 }, { queues: 2 });
  await set(tenant, vnic, { queue: 1, ...bits(1e6), weight: 50 });
  assert.ok((await told()).includes('send 1000000 null 50'));
  await assert.rejects(set(tenant, vnic, { queue: 2, ...bits(1e6) }), code('ARK_BAD_ARGUMENT'));
  await set(root, vnic, { queue: 0, ...bits(2e6) });
  const more = { queue: 0, ...bits(3e6) };
  await assert.rejects(set(tenant, vnic, more), code('ARK_NOT_PERMITTED', /2M bit/));
  const spec = { device: 'eth0', address: 0x0a4d0099 };
  const eth = (await fake.ask(root, 'vnic.open', { spec })).vnic;
  const limited = await set(root, eth, { queue: 0, ...bits(1e6) });
  assert.equal(limited.enforcedBy, 'XDP program');
  const direct = { ...spec, address: 0x0a4d009a, mode: 'direct' as const };
  const trusted = (await fake.ask(root, 'vnic.open', { spec: direct })).vnic;
  await set(root, trusted, { queue: 0, ...bits(1e6) }, 'receive');
  await assert.rejects(set(root, trusted, { queue: 0, ...bits(1e6) }), code('ARK_UNSUPPORTED'));
  const { enforcedBy } = await set(root, eth, { weight: 3 });
  assert.equal(enforcedBy, 'NOTHING', 'weights are the software NIC’s');
});

test('a weight is for sending', async () => {
  const vnic = await open(null);
  const receive = set(tenant, vnic, { weight: 2 }, 'receive');
  await assert.rejects(receive, code('ARK_BAD_ARGUMENT', /weight/));
});

test('doorbells: shown as they are set, one for all or each its own', async () => {
  const vnic = await open(null, { queues: 2 });
  const bell = (args: object) =>
    fake.ask(tenant, 'doorbell.set', { vnic, usecs: 0, frames: 0, ...args });
  const shown = async (): Promise<string[]> =>
    (await fake.ask(root, 'list', {})).objects
      .filter((object) => object.kind === 'doorbell')
      .map(({ detail }) => `${detail.usecs}/${detail.frames}`);
  assert.deepEqual(await shown(), ['0/0', '0/0']);
  await bell({ usecs: 50, frames: 8 });
  await bell({ queue: 1, usecs: 20 });
  assert.deepEqual(await shown(), ['50/8', '20/0']);
  await bell({ usecs: 10 });
  assert.deepEqual(await shown(), ['10/0', '10/0']);
  await assert.rejects(bell({ queue: 2 }), code('ARK_BAD_ARGUMENT'));
  await fake.ask(tenant, 'vnic.close', { vnic, keep: true });
  await assert.rejects(bell({ usecs: 1 }), code('ARK_GONE'));
});
