/**
 * 100,000 messages that are nearly right, against a real daemon, while another client works. The daemon must answer
 * or close, count no defect, keep nothing, and serve the other client all the time.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { LIMITS } from '../../src/control/limits.ts';
import { OPERATIONS } from '../../src/control/protocol.ts';
import { closeAll, setNonBlocking } from '../../src/ffi/fd.ts';
import { receiveMessage } from '../../src/ffi/unix.ts';
import { awaitReclaimed, fdCount, RawClient, TestDaemon } from '../crash/daemon.harness.ts';
import { Random } from '../support/random.ts';
import { sleep } from '../support/until.ts';

const SEED = 0x5eed_c791;
const MESSAGES = 100_000;
const BURST = 50;
const CLIENT_LIFE_MAX = 400;
const ANSWER_MS_MAX = 10_000;

/** A few valid requests of every kind; shutdown is left out, since it would be obeyed. */
const VALID: readonly object[] = [
  { op: 'hello', protocol: 1, name: 'fuzz' },
  { op: 'list' },
  { op: 'list', after: 3 },
  { op: 'stats' },
  { op: 'device.list' },
  { op: 'device.add', name: 'nope0' },
  { op: 'vnic.open' },
  { op: 'vnic.open', name: 'x' },
  { op: 'vnic.open', spec: { device: 'soft0', frames: 256 } },
  { op: 'vnic.open', spec: { device: 'soft0', address: 0x0a4d0007, prefix: 24, name: 'x' } },
  { op: 'vnic.open', spec: { device: 'soft0', ports: [{ protocol: 'udp', first: 7, last: 9 }] } },
  { op: 'vnic.close', vnic: 5 },
  { op: 'vnic.listen', path: 'fuzz' },
  { op: 'domain.prepare', name: 'p', uid: 0, vnics: [{ device: 'soft0', frames: 256 }] },
  {
    op: 'filter.set',
    vnic: 5,
    filters: ['udp dst portrange 1-2 and dst host 10.77.0.2'],
  },
  { op: 'filter.set', vnic: 5, direction: 'transmit', filters: null },
  { op: 'filter.add', vnic: 5, text: 'udp dst port 7 or (icmp and not src net 10.0.0.0/8)' },
  { op: 'filter.replace', vnic: 5, filter: 6, text: 'dst host 10.77.0.2' },
  { op: 'filter.remove', vnic: 5, filter: 6 },
  {
    op: 'rate.set',
    vnic: 5,
    queue: 0,
    direction: 'send',
    bitsPerSecond: 1_000_000,
    packetsPerSecond: null,
    weight: 3,
  },
  { op: 'rate.set', vnic: 5, direction: 'receive', bitsPerSecond: null, packetsPerSecond: 5 },
  { op: 'doorbell.set', vnic: 5, queue: 0, usecs: 50, frames: 4 },
  { op: 'capture.start', vnic: 5, snaplen: 128 },
  { op: 'capture.stop', vnic: 5 },
  { op: 'cap.list', after: 1, holder: 2 },
  { op: 'cap.derive', cap: 1, rights: ['use'], range: { cpus: [0, 1] } },
  { op: 'cap.copy', cap: 1 },
  { op: 'cap.grant', cap: 1, to: 2, rights: ['open', 'grant'], range: null },
  { op: 'cap.mint', to: 2, kind: 'pool', object: 'soft0', range: { bytes: 4096 } },
  { op: 'cap.revoke', cap: 1, graceMs: 1 },
  { op: 'cap.delete', cap: 1, graceMs: 0 },
  { op: 'network.read', vnic: 3 },
  { op: 'network.resolve', vnic: 3, address: 0x0a000001 },
  { op: 'policy.reload' },
  { op: 'placement.place', domain: 2, cpus: [0] },
  { op: 'placement.move', domain: 2, cpus: [0, 1] },
  { op: 'region.create', bytes: 4096, name: 'x' },
  { op: 'region.open', cap: 1 },
  { op: 'endpoint.create', path: '/app/x', ringBytes: 4096, backlog: 2 },
  { op: 'endpoint.connect', path: '/app/x' },
  { op: 'endpoint.connect', cap: 1 },
  { op: 'endpoint.accept', connection: 1 },
  { op: 'endpoint.leave', connection: 1 },
  { op: 'endpoint.close', endpoint: 5 },
  { op: 'name.make', path: '/app/d', mode: 0o755 },
  { op: 'name.bind', path: '/app/d/x', cap: 1, rights: ['read'] },
  { op: 'name.lookup', path: '/app/x', at: 1 },
  { op: 'name.list', path: '/app', after: 'a' },
  { op: 'name.remove', path: '/app/d' },
  { op: 'name.watch', path: '/app' },
  { op: 'name.unwatch', watch: 1 },
  { op: 'name.serve', path: '/app/d' },
  { op: 'name.answer', question: 1, cap: 1 },
  { op: 'name.answer', question: 1, refusal: 'x' },
];
const VALUES: readonly unknown[] = [
  0,
  1,
  -1,
  5,
  6,
  7,
  1.5,
  65535,
  65536,
  2 ** 32,
  2 ** 53,
  1e308,
  '',
  'soft0',
  'x',
  'lo',
  '../x',
  'a,b',
  '\u0000',
  'é'.repeat(40),
  null,
  true,
  [],
  {},
  [[]],
  { device: 'soft0' },
  'constructor',
  '__proto__',
];

/** Change something somewhere in `value`, in place. */
function mutate(random: Random, value: Record<string, unknown>): void {
  const keys = Object.keys(value);
  const key = random.pick(keys);
  const inner = value[key];
  if (typeof inner === 'object' && inner !== null && !random.oneIn(4)) {
    const target = Array.isArray(inner) && inner.length > 0 ? random.pick(inner) : inner;
    if (typeof target === 'object' && target !== null && Object.keys(target).length > 0) {
      mutate(random, target as Record<string, unknown>);
      return;
    }
  }
  switch (random.below(5)) {
    case 0:
      delete value[key];
      break;
    case 1:
      value[random.pick(['extra', 'id', 'op', 'vnic', 'spec', '__proto__x'])] = random.pick(VALUES);
      break;
    default:
      value[key] = random.pick(VALUES);
  }
}

function nextMessage(random: Random): Uint8Array {
  const request = structuredClone(random.pick(VALID)) as Record<string, unknown>;
  request.id = 1 + random.below(1000);
  for (let n = random.below(4); n > 0 && Object.keys(request).length > 0; n--)
    mutate(random, request);
  // Obeyed, it would end the test; and a `keep` would outlive the client by design.
  if (request.op === 'shutdown') request.op = 'list';
  delete request.keep;
  const bytes = Buffer.from(JSON.stringify(request));
  switch (random.below(8)) {
    case 0:
      return bytes.subarray(0, 1 + random.below(bytes.length));
    case 1:
      bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
      return bytes;
    case 2:
      if (random.oneIn(50))
        return Buffer.concat([bytes, Buffer.alloc(LIMITS.messageBytesMax, ' ')]);
      return bytes;
    default:
      return bytes;
  }
}

/** A raw client whose answers are counted and thrown away. */
class FuzzClient extends RawClient {
  readonly #buffer = Buffer.alloc(LIMITS.messageBytesMax);
  answers = 0;

  constructor(daemon: TestDaemon, sayHello: boolean) {
    super(daemon.socket);
    if (sayHello) this.hello();
    setNonBlocking(this.fd);
  }

  /** False when the daemon has closed the connection. */
  drain(): boolean {
    for (let n = 0; n < 10 * BURST; n++) {
      try {
        const received = receiveMessage(this.fd, this.#buffer, LIMITS.messageFdsMax);
        if (received === null) return true;
        closeAll(received.fds);
        if (received.length === 0) return false;
        if (!this.#buffer.toString('latin1', 0, 9).startsWith('{"event"')) this.answers++;
      } catch {
        return false;
      }
    }
    return true;
  }
}

test(`${MESSAGES} fuzzed messages, seed 0x${SEED.toString(16)}`, { timeout: 240_000 }, async () => {
  const random = new Random(SEED);
  const daemon = await TestDaemon.start();
  const witness = await daemon.connect({ name: 'witness' });
  await (await witness.openVnic()).close();
  const fdsBefore = fdCount(daemon.pid);
  const file = fs.openSync('/dev/null', 'w');
  let served = 0;
  let slowestMs = 0;
  let fuzzing = true;
  const working = (async () => {
    while (fuzzing) {
      const startMs = performance.now();
      const { objects } = (await witness.request('list', {})).reply;
      assert.ok(objects.length >= 2);
      slowestMs = Math.max(slowestMs, performance.now() - startMs);
      served++;
      await sleep(5);
    }
  })();
  let [answers, clients] = [0, 0];
  // Every message is answered once, so answers count the messages that the daemon really read.
  while (answers < MESSAGES) {
    const client = new FuzzClient(daemon, !random.oneIn(10));
    clients++;
    let sent = 0;
    for (let open = true; open && sent < CLIENT_LIFE_MAX; ) {
      try {
        for (let n = 0; n < BURST; n++) {
          const fds = random.oneIn(10) ? new Array(1 + random.below(6)).fill(file) : [];
          if (client.send(nextMessage(random), fds)) sent++;
        }
      } catch {
        open = false;
      }
      const deadline = performance.now() + ANSWER_MS_MAX;
      while (open && client.answers < sent) {
        assert.ok(performance.now() < deadline, `${sent} sent, ${client.answers} answered`);
        open = client.drain();
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    client.drain();
    answers += client.answers;
    client.close();
  }
  fuzzing = false;
  await working;
  await awaitReclaimed(witness);
  const { daemon: counters } = (await witness.request('stats', {})).reply;
  assert.equal(counters.defects, 0, daemon.log);
  assert.ok(!daemon.ended);
  assert.ok(answers > 0 && served > 100, `${served} requests of the witness were served`);
  assert.ok(slowestMs < 5000, `the witness waited ${slowestMs} ms`);
  assert.ok(counters.requests! + counters.badMessages! >= MESSAGES);
  assert.ok(counters.badMessages! > 0 && counters.requestsRefused! < counters.requests!);
  for (let n = 0; n < 100 && fdCount(daemon.pid) !== fdsBefore; n++) await sleep(20);
  assert.equal(fdCount(daemon.pid), fdsBefore, 'the daemon kept no descriptor');
  console.log(
    `${clients} clients, ${answers} answers, ${counters.requests} requests read; ` +
      `witness: ${served} requests, slowest ${slowestMs.toFixed(1)} ms`,
  );
  closeAll([file]);
  await witness.close();
  await daemon.close();
});

test('every operation is fuzzed but shutdown', () => {
  const fuzzed = new Set(VALID.map((request) => (request as { op: string }).op));
  assert.deepEqual(
    Object.keys(OPERATIONS).filter((op) => !fuzzed.has(op)),
    ['shutdown'],
  );
});
