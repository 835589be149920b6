/**
 * A VNIC of two queue pairs, each served by a thread of its own: flows stay on their queue, nothing is lost or comes
 * twice, each thread finds its neighbours, and one that dies takes nobody along. On both protected drivers.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { KernelClient } from '../../bench/echo/kernel-client.ts';
import { LabDaemon, VethLab } from '../../bench/echo/lab.ts';
import type { Running } from '../../bench/processes.ts';
import { parseIpv4 } from '../../src/base/address.ts';
import { closeFd, writeFd } from '../../src/ffi/fd.ts';
import { connectUdp } from '../../src/ffi/inet.ts';
import { LeakCheck } from '../support/leaks.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const READY_MS = 15_000;
const FLOWS = 24;
const ROUND_TRIPS = 100;
const APP = fileURLToPath(new URL('threads-app.js', import.meta.url));

interface Report {
  thread: number;
  count: number;
  data: unknown;
  cpus: number[];
  datagrams: Record<string, number>;
}

interface Place {
  readonly daemon: LabDaemon;
  readonly spec: string;
  readonly address: string;
  /** Run where the kernel clients are. */
  run<T>(body: () => T): T;
  close(): Promise<void>;
}

async function softnic(): Promise<Place> {
  const daemon = await LabDaemon.start(undefined, []);
  const spec = 'soft0,ip=10.77.0.2/24,queues=2';
  return { daemon, spec, address: '10.77.0.2', run: (body) => body(), close: () => daemon.close() };
}

async function switched(): Promise<Place> {
  const lab = VethLab.create({ serverHere: true });
  const daemon = await LabDaemon.start(undefined, ['--no-tap']);
  return {
    daemon,
    spec: 'srv0,mode=switched,ip=10.78.0.9/24,queues=2',
    address: '10.78.0.9',
    run: (body) => lab.client.network.run(body),
    close: async () => {
      await daemon.close();
      lab.close();
    },
  };
}

async function start(place: Place, args: readonly string[] = []): Promise<Running> {
  const running = place.daemon.run(['--vnic', place.spec, '--user', 'nobody', '--', APP, ...args]);
  await until(() => running.output.includes('ready on 2 pairs') || !running.alive, READY_MS);
  assert.ok(running.alive, running.output);
  return running;
}

function clients(place: Place, count: number): KernelClient[] {
  return place.run(() =>
    Array.from({ length: count }, () => new KernelClient(parseIpv4(place.address), 7)),
  );
}

async function reports(running: Running): Promise<Report[]> {
  await running.stop();
  const lines = running.output.split('\n').filter((line) => line.startsWith('{'));
  return lines.map((line) => JSON.parse(line) as Report).sort((a, b) => a.thread - b.thread);
}

/** One byte to the echo: the thread that gets it dies. */
function sendPoison(place: Place): void {
  place.run(() => {
    const socket = connectUdp(parseIpv4(place.address), 7);
    writeFd(socket, Buffer.from('x'));
    closeFd(socket);
  });
}

for (const [name, open] of [
  ['the software NIC', softnic],
  ['af-xdp switched', switched],
] as const) {
  describe(`two threads on ${name}`, { skip }, () => {
    test('every flow has one thread, and gets every answer once', async () => {
      const leaks = new LeakCheck();
      const place = await open();
      try {
        const running = await start(place, ['0,1']);
        const all = clients(place, FLOWS);
        for (const client of all) {
          assert.ok(client.probe(READY_MS), `an answer from ${place.address}: ${running.output}`);
        }
        for (const client of all) {
          const { microseconds, lost } = client.roundTrips(ROUND_TRIPS);
          assert.deepEqual([microseconds.length, lost], [ROUND_TRIPS, 0]);
        }
        for (const client of all) client.close();
        const [first, second, ...more] = await reports(running);
        assert.ok(first !== undefined && second !== undefined, running.output);
        assert.equal(more.length, 0);
        assert.deepEqual([first.data, first.count, second.count], ['for all', 2, 2]);
        assert.deepEqual([first.cpus, second.cpus], [[0], [1]]);
        const ports = [...Object.keys(first.datagrams), ...Object.keys(second.datagrams)];
        assert.equal(new Set(ports).size, FLOWS, 'no flow is new');
        assert.equal(ports.length, FLOWS, 'no flow was on both threads');
        assert.ok(Object.keys(first.datagrams).length > 0, 'the first thread has flows');
        assert.ok(Object.keys(second.datagrams).length > 0, 'the second thread has flows');
        const counts = [...Object.values(first.datagrams), ...Object.values(second.datagrams)];
        assert.ok(
          counts.every((count) => count > ROUND_TRIPS),
          `${counts}`,
        );
      } finally {
        await place.close();
      }
      await leaks.assertNone();
    });

    test('a thread that dies is reported, and the other goes on', async () => {
      const place = await open();
      try {
        const running = await start(place);
        const all = clients(place, FLOWS);
        const before = all.filter((client) => client.probe(READY_MS));
        assert.equal(before.length, FLOWS);
        sendPoison(place);
        await until(() => running.output.includes('died: told to'), READY_MS, 'the report');
        const after = all.filter((client) => client.probe(500));
        assert.ok(after.length > 0 && after.length < FLOWS, `${after.length} flows go on`);
        for (const client of after) assert.equal(client.roundTrips(ROUND_TRIPS).lost, 0);
        for (const client of all) client.close();
        assert.equal((await reports(running)).length, 1, running.output);
      } finally {
        await place.close();
      }
    });
  });
}
