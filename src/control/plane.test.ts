/** Decode and invoke on a device that the test holds by the hand: half-way failures, and what happens meanwhile. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { ArrakisError } from '../base/errors.ts';
import { closeAll, openFds } from '../ffi/fd.ts';
import { formatFilter } from '../filter/format.ts';
import type { Attachment, AttachRequest, NicDevice } from './devices/device.ts';
import type { Peer } from './handler.ts';
import { closeDomain, type Domain } from './objects/domain.ts';
import { perform } from './operations.ts';
import { ControlPlane } from './plane.ts';
import { type ArgsOf, type Operation, parseRequest } from './protocol.ts';

/** Attaches when it is told to. */
class FakeNic implements NicDevice {
  readonly name = 'soft0';
  readonly mac = 0x020000000001;
  readonly mtu = 1500;
  readonly address = 0x0a4d0001;
  readonly prefix = 24;
  readonly gateway = 0;
  readonly sharesAddress = false;
  readonly assignsAddresses = true;
  readonly bitsPerSecond = null;
  /** Attachments that wait for `finish` or `fail`. */
  readonly asked: { finish: () => void; fail: (error: Error) => void }[] = [];
  attached = 0;
  refuseFilters = false;

  describe() {
    return { kind: 'softnic' as const, state: 'running', pid: 0, restarts: 0, detail: '' };
  }

  attach({ vnic }: AttachRequest): Promise<Attachment> {
    return new Promise((resolve, fail) => {
      this.asked.push({ finish: () => resolve(this.#attachment(vnic)), fail });
    });
  }

  listen(request: AttachRequest): Promise<Attachment> {
    return this.attach(request);
  }

  adopt(): Attachment {
    return this.#attachment(0);
  }

  settle(): void {}

  save() {
    return { state: {}, fds: [] };
  }

  async close(): Promise<void> {}

  #attachment(vnic: number): Attachment {
    this.attached++;
    return {
      driver: 'virtio',
      grant: { vnic },
      mac: this.mac,
      mtu: this.mtu,
      regionBytes: 4096,
      fds: [0, 0],
      handedOver: () => {},
      setFilters: async () => {
        if (this.refuseFilters) throw new ArrakisError('ARK_DEVICE', 'no');
      },
      setRate: async () => {},
      setDoorbell: async () => {},
      counters: async () => ({ rxPackets: 1 }),
      save: () => ({ state: {}, fds: [] }),
      detach: async () => {
        this.attached--;
      },
    };
  }
}

let nic: FakeNic;
let plane: ControlPlane;
let adopted: number[];

beforeEach(() => {
  nic = new FakeNic();
  adopted = [];
  plane = new ControlPlane({
    directory: '/nonexistent',
    version: 'test',
    log: () => {},
    openInterface: (name) => {
      throw new ArrakisError('ARK_NOT_FOUND', name);
    },
    clock: () => 1000,
    nicUid: 64983,
    host: { adoptChannel: (fd) => adopted.push(fd), shutdown: () => {} },
  });
  plane.devices.add(nic);
});

function client(privileged = true): Peer & { domain: Domain } {
  const options = { name: 'test', uid: 1, gid: 1, pid: 1, privileged, prepared: false };
  return {
    uid: 1,
    gid: 1,
    groups: [],
    exe: null,
    pid: 1,
    domain: plane.addDomain(options),
    adopt: () => {},
  };
}

/** Through the same gate as a message. */
function ask<O extends Operation>(peer: Peer, op: O, args: ArgsOf<O>) {
  const request = parseRequest(JSON.stringify({ id: 1, op, ...args }), 0);
  return perform(plane, { peer, fds: [] }, request);
}

const code = (expected: string) => (error: unknown) =>
  error instanceof ArrakisError && error.code === expected;
const turn = () => new Promise((resolve) => setImmediate(resolve));

test('a VNIC that the device refuses leaves nothing', async () => {
  const peer = client();
  const before = plane.objects.size;
  const opening = ask(peer, 'vnic.open', { spec: { device: 'soft0' } });
  assert.equal(plane.vnics.size, 1);
  nic.asked[0]!.fail(new ArrakisError('ARK_DEVICE', 'no'));
  await assert.rejects(opening, code('ARK_DEVICE'));
  assert.equal(plane.objects.size, before);
  assert.equal(plane.vnics.size, 0);
});

test('an address is taken from the first request on, not from the first answer', async () => {
  const peer = client();
  const spec = { device: 'soft0', address: 0x0a4d0009 };
  const first = ask(peer, 'vnic.open', { spec });
  await assert.rejects(ask(client(), 'vnic.open', { spec }), code('ARK_IN_USE'));
  nic.asked[0]!.fail(new ArrakisError('ARK_DEVICE', 'no'));
  await assert.rejects(first, code('ARK_DEVICE'));
  const second = ask(peer, 'vnic.open', { spec });
  nic.asked[1]!.finish();
  await second;
});

test('a domain that ends while its VNIC is opened gets it taken back', async () => {
  const peer = client();
  const opening = ask(peer, 'vnic.open', { spec: { device: 'soft0' } });
  await closeDomain(plane, peer.domain);
  nic.asked[0]!.finish();
  await assert.rejects(opening, code('ARK_GONE'));
  assert.equal(nic.attached, 0);
  assert.equal(plane.objects.size, 1, "only the daemon's own domain is left");
});

test('a prepared VNIC can be opened again after a refusal, a close and an end of the device', async () => {
  const root = client();
  const outcome = await ask(root, 'domain.prepare', {
    name: 'web',
    uid: 7,
    vnics: [{ device: 'soft0', name: 'w' }],
  });
  outcome.sent!();
  const domain = [...plane.domains.values()].find((one) => one.prepared)!;
  const events: object[] = [];
  domain.sender = (message) => events.push(message);
  const peer: Peer = { uid: 7, gid: 7, groups: [], exe: null, pid: 7, domain, adopt: () => {} };
  const open = async (finish: boolean) => {
    const opening = ask(peer, 'vnic.open', {});
    await turn();
    const asked = nic.asked.at(-1)!;
    if (finish) asked.finish();
    else asked.fail(new ArrakisError('ARK_DEVICE', 'no'));
    return (await opening).reply as { vnic: number };
  };
  await assert.rejects(open(false), code('ARK_DEVICE'));
  const { vnic } = await open(true);
  await assert.rejects(ask(peer, 'vnic.open', {}), code('ARK_IN_USE'));
  await ask(peer, 'vnic.close', { vnic });
  assert.equal(nic.attached, 0);
  await open(true);
  plane.deviceEvents.deviceGone('soft0', 'it died', true);
  await turn();
  assert.deepEqual(events, [{ event: 'vnic.gone', vnic, reason: 'soft0: it died' }]);
  assert.equal((await open(true)).vnic, vnic);
  await closeDomain(plane, domain);
  assert.equal(nic.attached, 0);
  closeAll(adopted);
});

test('filters that the device refuses stay what they were', async () => {
  const peer = client();
  const opening = ask(peer, 'vnic.open', { spec: { device: 'soft0' } });
  nic.asked[0]!.finish();
  const { vnic, filters } = (await opening).reply as { vnic: number; filters: string[] };
  nic.refuseFilters = true;
  const narrow = 'udp dst port 7 and dst host 10.77.0.2';
  const size = plane.objects.size;
  await assert.rejects(
    ask(peer, 'filter.set', { vnic, filters: [narrow, narrow] }),
    code('ARK_DEVICE'),
  );
  assert.deepEqual(plane.vnics.get(vnic)!.filters.map(formatFilter), filters);
  assert.equal(plane.objects.size, size);
});

test('a domain sees its own and nothing else', async () => {
  const root = client();
  const opening = ask(root, 'vnic.open', { spec: { device: 'soft0' } });
  nic.asked[0]!.finish();
  const { vnic } = (await opening).reply as { vnic: number };
  const other = client(false);
  const { objects } = (await ask(other, 'list', {})).reply as { objects: { owner: number }[] };
  assert.deepEqual(
    objects.map((object) => object.owner),
    [other.domain.id],
  );
  for (const op of ['vnic.close', 'capture.stop'] as const) {
    await assert.rejects(ask(other, op, { vnic }), code('ARK_NOT_FOUND'));
  }
  for (const [op, args] of [
    ['shutdown', {}],
    ['device.add', { name: 'eth0' }],
    ['vnic.listen', { path: 'x' }],
    ['domain.prepare', { name: 'x', uid: 0, vnics: [] }],
    ['vnic.open', { spec: { device: 'soft0' } }],
  ] as const) {
    await assert.rejects(ask(other, op, args as never), code('ARK_NOT_PERMITTED'), op);
  }
});

test('a refused domain.prepare keeps no descriptor', async () => {
  const root = client();
  const before = openFds().length;
  const vnics = [{ device: 'soft0' }, { device: 'nope0' }];
  await assert.rejects(
    ask(root, 'domain.prepare', { name: 'x', uid: 1, vnics }),
    code('ARK_NOT_FOUND'),
  );
  assert.equal(openFds().length, before);
  assert.equal(plane.vnics.size, 0);
});

test('no domain is prepared for the user of the device processes', async () => {
  const args = { name: 'x', uid: 64983, vnics: [] };
  await assert.rejects(ask(client(), 'domain.prepare', args), code('ARK_BAD_ARGUMENT'));
});

test('limits on VNICs hold', async () => {
  const root = client();
  for (let n = 0; n < 16; n++) {
    const opening = ask(root, 'vnic.open', { spec: { device: 'soft0' } });
    nic.asked.at(-1)!.finish();
    await opening;
  }
  await assert.rejects(ask(root, 'vnic.open', { spec: { device: 'soft0' } }), code('ARK_LIMIT'));
});

test('a device that does not let go in order does not hold up the end', async () => {
  nic.close = () => Promise.reject(new Error('no'));
  await plane.devices.closeAll();
  assert.deepEqual(plane.devices.list(), []);
});
