/** Where domains run, through the gate of the protocol. How processors are chosen is in control/placement.test.ts. */
import assert from 'node:assert/strict';
import os from 'node:os';
import { beforeEach, test } from 'node:test';
import { type Client, FakePlane } from '../../../test/support/fake-plane.ts';
import { RIGHTS } from '../caps/rights.ts';

const COUNT = os.cpus().length;

let fake: FakePlane;
let root: Client;
let app: Client;

beforeEach(() => {
  fake = new FakePlane();
  root = fake.client({ privileged: true, name: 'root' });
  app = fake.client();
});

const refused = (promise: Promise<unknown>, code: string): Promise<void> =>
  assert.rejects(promise, (error) => (error as { code?: string }).code === code);

test('without a core set a domain runs anywhere', async () => {
  const { id } = app.domain;
  assert.deepEqual(await fake.ask(root, 'placement.place', { domain: id }), { cpus: [] });
  assert.deepEqual(app.domain.detail().cpus, []);
});

test('one thread has one processor of its set; a set that names one twice has it once', async () => {
  const { id } = app.domain;
  const args = { domain: id, cpus: [0, 0] };
  assert.deepEqual(await fake.ask(root, 'placement.place', args), { cpus: [0] });
  assert.deepEqual(app.domain.detail().cpus, [0]);
  assert.deepEqual(app.domain.save().cpus, [0], 'the next daemon knows');
});

test('a thread for each queue pair of the largest VNIC', async () => {
  const all = Array.from({ length: COUNT }, (_, cpu) => cpu);
  await fake.ask(root, 'vnic.open', { spec: { device: 'soft0', queues: 8 } });
  const { cpus } = await fake.ask(root, 'placement.place', { domain: root.domain.id, cpus: all });
  assert.equal(cpus.length, Math.min(8, COUNT));
});

test('the core set is that of its capabilities when none is given', async () => {
  const { id } = app.domain;
  fake.plane.caps.mint(id, 'cores', '*', RIGHTS.cores.use, { cpus: [0, COUNT] });
  assert.deepEqual(await fake.ask(root, 'placement.place', { domain: id }), { cpus: [0] });
});

test('a capability for cores without a bound is for all', async () => {
  const { id } = app.domain;
  await fake.ask(root, 'cap.mint', { to: id, kind: 'cores', object: '*' });
  const { cpus } = await fake.ask(root, 'placement.place', { domain: id });
  assert.equal(cpus.length, 1);
});

test('a domain that is moved is told', async () => {
  const { id } = app.domain;
  const cpus = [COUNT - 1];
  assert.deepEqual(await fake.ask(root, 'placement.move', { domain: id, cpus }), { cpus });
  assert.deepEqual(app.events, [{ event: 'placement', cpus }]);
  assert.deepEqual(app.domain.detail().cpus, cpus);
});

test('only the privileged place and move, domains that are there, to processors that are there', async () => {
  const { id } = app.domain;
  for (const op of ['placement.place', 'placement.move'] as const) {
    await refused(fake.ask(app, op, { domain: id, cpus: [0] }), 'ARK_NOT_PERMITTED');
    await refused(fake.ask(root, op, { domain: 12345, cpus: [0] }), 'ARK_NOT_FOUND');
    await refused(fake.ask(root, op, { domain: id, cpus: [COUNT] }), 'ARK_BAD_ARGUMENT');
    await refused(fake.ask(root, op, { domain: id, cpus: [] }), 'ARK_BAD_MESSAGE');
  }
  assert.deepEqual(app.events, []);
  assert.deepEqual(app.domain.cpus, []);
});
