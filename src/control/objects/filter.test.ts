/** Filters of an open VNIC over the protocol: what they come to, whose they may be, and what a failure leaves. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { type Client, FakePlane } from '../../../test/support/fake-plane.ts';
import { ArrakisError } from '../../base/errors.ts';
import { formatFilter } from '../../filter/format.ts';
import { LIMITS } from '../limits.ts';
import { removeVnic } from './vnic.ts';

const code =
  (expected: string, text = /./) =>
  (error: unknown) =>
    error instanceof ArrakisError && error.code === expected && text.test(error.message);

let fake: FakePlane;
let root: Client;
/** VNIC of root on soft0 with 10.77.0.9. */
let vnic: number;

beforeEach(async () => {
  fake = new FakePlane();
  root = fake.client({ privileged: true, name: 'root' });
  ({ vnic } = await fake.ask(root, 'vnic.open', {
    spec: { device: 'soft0', address: 0x0a4d0009, name: 'v' },
  }));
});

const OWN = 'dst host 10.77.0.9';
/** What the VNIC has by the list of objects, and what the device was told. */
async function filtersNow(): Promise<{ receive: string[]; transmit: string[]; ids: number[] }> {
  const { objects } = await fake.ask(root, 'list', {});
  const filters = objects.filter((o) => o.kind === 'filter' && o.detail.vnic === vnic);
  const of = (direction: string): string[] =>
    filters.filter((o) => o.detail.direction === direction).map((o) => o.name);
  const ids = objects.map((o) => o.id);
  assert.deepEqual(
    ids,
    ids.toSorted((x, y) => x - y),
    'objects come by ascending id',
  );
  return { receive: of('receive'), transmit: of('transmit'), ids: filters.map((o) => o.id) };
}
const told = () => ({
  receive: fake.softnic.filters.receive.map(formatFilter),
  transmit: fake.softnic.filters.transmit?.map(formatFilter) ?? null,
});

describe('add, replace, remove, set', () => {
  test('each reaches the device, and the list shows canonical text', async () => {
    const set = await fake.ask(root, 'filter.set', {
      vnic,
      filters: [`udp dst port 7 and ${OWN}`],
    });
    assert.deepEqual(
      set.filters.map((f) => f.text),
      [`udp and ${OWN} and dst port 7`],
    );
    const added = await fake.ask(root, 'filter.add', {
      vnic,
      text: `${OWN} and (tcp dst port 80 or 90)`,
    });
    assert.equal(
      added.text,
      `(tcp and ${OWN} and dst port 80) or (tcp and ${OWN} and dst port 90)`,
    );
    assert.deepEqual(told().receive, [set.filters[0]!.text, added.text]);
    const replaced = await fake.ask(root, 'filter.replace', {
      vnic,
      filter: set.filters[0]!.filter,
      text: `icmp and ${OWN}`,
    });
    assert.equal(replaced.filter, set.filters[0]!.filter, 'it is the same object');
    assert.deepEqual((await filtersNow()).receive, [`icmp and ${OWN}`, added.text]);
    await fake.ask(root, 'filter.remove', { vnic, filter: replaced.filter });
    assert.deepEqual((await filtersNow()).receive, [added.text]);
    await fake.ask(root, 'filter.remove', { vnic, filter: added.filter });
    assert.deepEqual(told(), { receive: [], transmit: null });
    await assert.rejects(
      fake.ask(root, 'filter.remove', { vnic, filter: added.filter }),
      code('ARK_NOT_FOUND'),
    );
  });

  test('to transmit: the first ends the mirror, null begins it again', async () => {
    const transmit = { vnic, direction: 'transmit' as const };
    const text = 'udp and src host 10.77.0.9 and dst port 53';
    const added = await fake.ask(root, 'filter.add', { ...transmit, text: 'udp dst port 53' });
    assert.equal(added.text, text, 'its own source');
    assert.deepEqual(told(), { receive: [OWN], transmit: [text] });
    const detail = fake.plane.vnics.get(vnic)!.detail();
    assert.deepEqual(detail.transmit, [text]);
    await fake.ask(root, 'filter.remove', { vnic, filter: added.filter });
    assert.deepEqual(told().transmit, [], 'nothing is not the mirror');
    await fake.ask(root, 'filter.set', { ...transmit, filters: null });
    assert.deepEqual(told().transmit, null);
    await assert.rejects(
      fake.ask(root, 'filter.set', { vnic, filters: null }),
      code('ARK_BAD_ARGUMENT'),
    );
  });

  test('what says nothing of the destination means the addresses of the VNIC', async () => {
    const { filters } = await fake.ask(root, 'filter.set', {
      vnic,
      filters: ['udp dst port 7', 'udp dst port 11211 and host 10.77.0.9', 'any'],
    });
    assert.deepEqual(
      filters.map((f) => f.text),
      [`udp and ${OWN} and dst port 7`, `udp and ${OWN} and dst port 11211`, OWN],
    );
  });

  test('a wrong text shows its place, and changes nothing', async () => {
    const before = await filtersNow();
    await assert.rejects(
      fake.ask(root, 'filter.add', { vnic, text: 'udp dst prt 7' }),
      code('ARK_BAD_ARGUMENT', /\n {2}udp dst prt 7\n {10}\^/),
    );
    assert.deepEqual(await filtersNow(), before);
  });
});

describe('whose they may be', () => {
  test('an owner is named; one port from two networks has two', async () => {
    const open = (name: string, text: string) =>
      fake.ask(root, 'vnic.open', { spec: { device: 'eth0', name, filters: [text] } });
    await open('near', 'udp dst port 7 and src net 10.1.0.0/16');
    const far = await open('far', 'udp dst port 7 and src net 10.2.0.0/16');
    await assert.rejects(
      open('other', 'udp dst port 5 or 6 or 7'),
      code('ARK_IN_USE', /belongs to VNIC near of root/),
    );
    await assert.rejects(
      fake.ask(root, 'filter.add', { vnic: far.vnic, text: 'udp dst port 7' }),
      code('ARK_IN_USE', /VNIC near of root .*src net 10\.1\.0\.0\/16/),
    );
    await assert.rejects(
      fake.ask(root, 'filter.add', {
        vnic: far.vnic,
        direction: 'transmit',
        text: 'udp src port 7',
      }),
      code('ARK_IN_USE', /VNIC near/),
    );
    await fake.ask(root, 'filter.add', {
      vnic: far.vnic,
      direction: 'transmit',
      text: 'udp src port 7 and dst net 10.2.0.0/16',
    });
  });

  test('a domain narrows what it was given, and no more', async () => {
    const outcome = await fake.perform(root, 'domain.prepare', {
      name: 'web',
      uid: 7,
      vnics: [{ device: 'soft0', address: 0x0a4d0020 }],
    });
    outcome.sent?.();
    const domain = [...fake.plane.domains.values()].find((one) => one.prepared)!;
    const web = fake.speakFor(domain);
    const { vnic: own } = await fake.ask(web, 'vnic.open', {});
    const set = (...filters: string[]) => fake.ask(web, 'filter.set', { vnic: own, filters });
    await set('udp dst port 7 and src net 10.1.0.0/16', 'icmp');
    await set('any');
    for (const text of ['dst net 10.77.0.32/31', 'dst host 10.77.0.33']) {
      await assert.rejects(set(text), code('ARK_NOT_PERMITTED'), text);
    }
    const transmit = (text: string) =>
      fake.ask(web, 'filter.add', { vnic: own, direction: 'transmit', text });
    await assert.rejects(transmit('src host 10.77.0.33'), code('ARK_NOT_PERMITTED'));
    assert.equal((await transmit('udp')).text, 'udp and src host 10.77.0.32');
    await assert.rejects(fake.ask(web, 'filter.add', { vnic, text: 'udp' }), code('ARK_NOT_FOUND'));
  });

  test('a domain has what its capabilities cover together', async () => {
    const a = fake.client({ name: 'a' });
    const range = (first: number, last: number) => ({
      protocol: 'any' as const,
      first: 0x0a4d0000 + first,
      last: 0x0a4d0000 + last,
      portFirst: 0,
      portLast: 65535,
    });
    const mint = (kind: 'device' | 'rate' | 'addresses', rest = {}) =>
      fake.ask(root, 'cap.mint', { to: a.domain.id, kind, object: 'soft0', ...rest });
    await mint('device');
    await mint('rate');
    await mint('addresses', { range: range(32, 35) });
    const second = await mint('addresses', { range: range(36, 39) });
    const own = await fake.ask(a, 'vnic.open', { spec: { device: 'soft0', address: 0x0a4d0020 } });
    await fake.ask(a, 'filter.add', { vnic: own.vnic, text: 'udp dst net 10.77.0.32/29' });
    await assert.rejects(
      fake.ask(a, 'filter.add', { vnic: own.vnic, text: 'udp dst net 10.77.0.32/28' }),
      code('ARK_NOT_PERMITTED', /dst net 10\.77\.0\.32\/28/),
    );
    await fake.ask(root, 'cap.delete', { cap: second.cap, graceMs: 0 });
    assert.equal(fake.plane.vnics.has(own.vnic), false, 'the VNIC depended on both');
  });
});

describe('what a failure leaves', () => {
  test('the device refuses: filters, objects and claims are those of before', async () => {
    const before = await filtersNow();
    fake.softnic.refusesFilters = true;
    for (const direction of ['receive', 'transmit'] as const) {
      await assert.rejects(
        fake.ask(root, 'filter.set', { vnic, direction, filters: ['udp', 'icmp'] }),
        code('ARK_LIMIT'),
      );
    }
    assert.deepEqual(await filtersNow(), before);
    const held = fake.plane.vnics.get(vnic)!;
    assert.deepEqual(held.filters.map(formatFilter), [OWN]);
    assert.equal(held.transmit, null);
  });

  test('one change at a time; and the VNIC may go meanwhile', async () => {
    let open = (): void => {};
    fake.softnic.gate = new Promise((resolve) => {
      open = resolve;
    });
    const size = fake.plane.objects.size;
    const changing = fake.ask(root, 'filter.add', { vnic, text: 'udp dst port 7' });
    await assert.rejects(fake.ask(root, 'filter.add', { vnic, text: 'icmp' }), code('ARK_IN_USE'));
    const removing = removeVnic(fake.plane, fake.plane.vnics.get(vnic)!, 'test');
    open();
    await assert.rejects(changing, code('ARK_GONE'));
    await removing;
    assert.ok(fake.plane.objects.size < size);
    const left = [...fake.plane.objects.all()].filter((o) => o.kind === 'filter');
    assert.deepEqual(left, []);
  });

  test('limits: filters, and boxes of all of them', async () => {
    const many = (count: number) =>
      Array.from({ length: count }, (_, i) => `udp dst port ${2 * i}`);
    await fake.ask(root, 'filter.set', { vnic, filters: many(LIMITS.filtersPerVnicMax) });
    await assert.rejects(fake.ask(root, 'filter.add', { vnic, text: 'icmp' }), code('ARK_LIMIT'));
    const wide = many(40).join(' or ');
    const filters = [wide, ...[1, 2, 3].map((n) => wide.replaceAll('port ', `port ${n}0`))];
    await assert.rejects(
      fake.ask(root, 'filter.set', { vnic, filters }),
      code('ARK_LIMIT', /boxes/),
    );
  });

  test('direct: nothing would hold a filter to send by', async () => {
    const { vnic: direct } = await fake.ask(root, 'vnic.open', {
      spec: { device: 'eth0', mode: 'direct', ports: [{ protocol: 'udp', first: 7, last: 7 }] },
    });
    await assert.rejects(
      fake.ask(root, 'filter.add', { vnic: direct, direction: 'transmit', text: 'udp src port 7' }),
      code('ARK_UNSUPPORTED'),
    );
  });
});
