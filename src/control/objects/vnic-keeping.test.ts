/** VNICs of the daemon before that cannot go on as they were: nothing of them is left, and nothing else is hurt. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { type Client, FakeNic, FakePlane } from '../../../test/support/fake-plane.ts';
import { ArrakisError } from '../../base/errors.ts';
import { openFds } from '../../ffi/fd.ts';
import { memfdSealed } from '../../ffi/memory.ts';
import { sweepCapabilities } from '../caps/keeping.ts';
import type { Attachment, AttachRequest } from '../devices/device.ts';
import { restoreVnic, type SavedVnic } from './vnic-keeping.ts';

/** Goes on with the VNICs that it is told to. */
class Forgetful extends FakeNic {
  readonly known = new Set<number>();
  closed = false;

  override adopt(request: AttachRequest): Attachment {
    if (this.known.has(request.vnic)) return super.adopt(request);
    throw new ArrakisError('ARK_GONE', 'it is not whole any more');
  }

  override async close(): Promise<void> {
    this.closed = true;
  }
}

let records: Map<string, unknown>;
let before: FakePlane;
let root: Client;

beforeEach(() => {
  records = new Map();
  const keeping = {
    put: (kind: string, id: number | string, state: unknown) =>
      records.set(`${kind}:${id}`, JSON.parse(JSON.stringify(state))),
    delete: (kind: string, id: number | string) => records.delete(`${kind}:${id}`),
  };
  before = new FakePlane({ keeping });
  root = before.client({ privileged: true });
});

const saved = (vnic: number): SavedVnic => records.get(`vnic:${vnic}`) as SavedVnic;

/** The next daemon, with the domains and capabilities of this one; `nic` is its interface eth1. */
function nextPlane(...clients: Client[]): { next: FakePlane; nic: Forgetful; domains: Client[] } {
  const nic = new Forgetful('eth1', 'interface');
  const next = new FakePlane({
    firstId: 1000,
    capabilities: before.plane.caps.snapshot(),
    openInterface: (name) => {
      if (name === 'eth1') return nic;
      throw new ArrakisError('ARK_NOT_FOUND', name);
    },
  });
  const domains = clients.map(({ domain }) =>
    next.speakFor(next.plane.restoreDomain(domain.id, domain.save())),
  );
  return { next, nic, domains };
}

const open = (address: number): Promise<{ vnic: number }> =>
  before.ask(root, 'vnic.open', { spec: { device: 'eth1', address } });

test('one that is lost takes neither the interface nor the VNICs of others along', async () => {
  before.plane.devices.add(new FakeNic('eth1', 'interface'));
  const [{ vnic: lost }, { vnic: kept }] = [await open(0x0a4d0010), await open(0x0a4d0011)];
  const { next, nic, domains } = nextPlane(root);
  nic.known.add(kept);
  for (const id of [lost, kept]) restoreVnic(next.plane, domains[0]!.domain, id, saved(id), []);
  sweepCapabilities(next.plane);
  await new Promise((resolve) => setImmediate(resolve));
  next.plane.devices.sweep();
  assert.ok(!nic.closed);
  assert.deepEqual([...next.plane.vnics.keys()], [kept]);
  assert.equal(next.plane.caps.of(root.domain.id).length, 1, 'its capability is gone');
  await next.ask(domains[0]!, 'vnic.close', { vnic: kept });
  assert.ok(nic.closed, 'nobody needs it any more');
});

test('descriptors of one whose interface is gone are closed', async () => {
  before.plane.devices.add(new FakeNic('eth9', 'interface'));
  const spec = { device: 'eth9', address: 0x0a4d0010 };
  const { vnic } = await before.ask(root, 'vnic.open', { spec });
  const { next, domains } = nextPlane(root);
  const fdsBefore = openFds().length;
  const fds = [memfdSealed('arrakis-test', 4096)];
  assert.throws(
    () => restoreVnic(next.plane, domains[0]!.domain, vnic, saved(vnic), fds),
    (error) => error instanceof ArrakisError && error.code === 'ARK_NOT_FOUND',
  );
  assert.equal(openFds().length, fdsBefore);
});

test('one that was lent and is lost is its owner’s again', async () => {
  before.plane.devices.add(new FakeNic('eth1', 'interface'));
  const user = before.client({ name: 'user' });
  const { vnic } = await open(0x0a4d0010);
  const own = before.plane.caps.of(root.domain.id)[0]!;
  const lent = await before.ask(root, 'cap.grant', { cap: own.id, to: user.domain.id });
  await before.ask(root, 'vnic.close', { vnic, keep: true });
  await before.ask(user, 'vnic.open', { cap: lent.cap });
  const { next, domains } = nextPlane(root, user);
  const [owner, borrower] = domains as [Client, Client];
  restoreVnic(next.plane, owner.domain, vnic, saved(vnic), []);
  sweepCapabilities(next.plane);
  await next.ask(owner, 'vnic.open', { cap: own.id });
  assert.equal(next.plane.vnics.get(vnic)!.opener, owner.domain);
  await next.ask(borrower, 'cap.delete', { cap: lent.cap });
  assert.equal(next.plane.vnics.get(vnic)!.state, 'open', 'it hangs on the borrower no more');
});
