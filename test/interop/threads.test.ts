/**
 * A VNIC of two queue pairs, each served by a thread of its own: flows stay on their queue, nothing is lost or comes
 * twice, each thread finds its neighbours, and one that dies takes nobody along. On both protected drivers.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CLI, LabDaemon, VethLab } from '../../bench/echo/lab.ts';
import type { Running } from '../../bench/processes.ts';
import { parseIpv4 } from '../../src/base/address.ts';
import { flowHash, pairOfHash } from '../../src/device/flow-hash.ts';
import { closeFd, readFd, writeFd } from '../../src/ffi/fd.ts';
import { connectUdp } from '../../src/ffi/inet.ts';
import { setTimeouts } from '../../src/ffi/unix.ts';
import { LeakCheck } from '../support/leaks.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const READY_MS = 15_000;
const PROBE_MS = 100;
/** Silence after which a flow is taken to have lost its thread. */
const SILENT_MS = 1_000;
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

async function start(
  place: Place,
  args: readonly string[] = [],
  options: readonly string[] = [],
): Promise<Running> {
  const own = ['--vnic', place.spec, '--user', 'nobody', ...options, '--', APP, ...args];
  const running = place.daemon.run(own);
  await until(() => running.output.includes('ready on 2 pairs') || !running.alive, READY_MS);
  assert.ok(running.alive, running.output);
  return running;
}

/** One flow of a kernel client. Probes may be lost; every request of an exchange has to come back, once. */
class Flow {
  readonly #fd: number;
  readonly #request = Buffer.alloc(16);
  readonly #answer = Buffer.alloc(64);
  #sequence = 0;
  /** Up to here requests were probes. */
  #probes = 0;

  constructor(address: number) {
    this.#fd = connectUdp(address, 7);
  }

  /** Whether an answer to a request of this call comes within `timeoutMs`. */
  probe(timeoutMs: number): boolean {
    setTimeouts(this.#fd, PROBE_MS);
    const first = this.#sequence + 1;
    for (let tries = 0; tries < timeoutMs / PROBE_MS; tries++) {
      if (!this.#send()) continue;
      let answer = this.#receive();
      while (answer >= 0 && answer < first) answer = this.#receive();
      if (answer >= first) {
        this.#probes = this.#sequence;
        return true;
      }
    }
    return false;
  }

  exchange(count: number): void {
    setTimeouts(this.#fd, READY_MS);
    for (let i = 0; i < count; i++) {
      assert.ok(this.#send());
      let answer = this.#receive();
      // Answers to probes that were given up.
      while (answer >= 0 && answer <= this.#probes) answer = this.#receive();
      assert.equal(answer, this.#sequence, 'the answer to the last request, once');
    }
  }

  close(): void {
    closeFd(this.#fd);
  }

  #send(): boolean {
    this.#request.writeUInt32LE(++this.#sequence, 0);
    try {
      return writeFd(this.#fd, this.#request) > 0;
    } catch {
      // The first thread says that nobody listens, before it does.
      return false;
    }
  }

  /** -1 when nothing comes in time. */
  #receive(): number {
    try {
      return readFd(this.#fd, this.#answer) < 16 ? -1 : this.#answer.readUInt32LE(0);
    } catch {
      return -1;
    }
  }
}

const openFlows = (place: Place): Flow[] =>
  place.run(() => Array.from({ length: FLOWS }, () => new Flow(parseIpv4(place.address))));

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
        const all = openFlows(place);
        for (const flow of all) {
          assert.ok(flow.probe(READY_MS), `an answer from ${place.address}: ${running.output}`);
        }
        for (const flow of all) flow.exchange(ROUND_TRIPS);
        for (const flow of all) flow.close();
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

    test('it is captured: each pair is an interface, and no frame is missing', async () => {
      const place = await open();
      try {
        const running = await start(place);
        const all = openFlows(place);
        for (const flow of all) assert.ok(flow.probe(READY_MS), running.output);
        const capture = startCapture(place.daemon, vnicOf(place.daemon));
        await until(() => capture.output !== '', READY_MS, 'the capture runs');
        assert.match(capture.output, /^recording/);
        // The threads have been told by then.
        await sleep(200);
        for (const flow of all) flow.exchange(ROUND_TRIPS);
        await sleep(200);
        const file = await capture.stop();
        for (const flow of all) flow.close();
        const packets = packetsOf(file);
        const ours = packets.filter(({ port }) => port > 0);
        for (const direction of ['in', 'out']) {
          const count = ours.filter((packet) => packet.direction === direction).length;
          assert.ok(count >= FLOWS * ROUND_TRIPS, `${count} ${direction}`);
        }
        const strays = ours.filter(({ queue, hash }) => queue !== pairOfHash(hash, 2));
        assert.equal(strays.length, 0, 'every frame is with the pair of its flow');
        assert.deepEqual(new Set(ours.map(({ queue }) => queue)), new Set([0, 1]));
        const [first, second] = await reports(running);
        assert.ok(first !== undefined && second !== undefined, 'the threads go on');
      } finally {
        await place.close();
      }
    });

    test('a thread that dies is reported, and the other goes on', async () => {
      const place = await open();
      try {
        const running = await start(place);
        const all = openFlows(place);
        const before = all.filter((flow) => flow.probe(READY_MS));
        assert.equal(before.length, FLOWS);
        sendPoison(place);
        await until(() => running.output.includes('died: told to'), READY_MS, 'the report');
        const after = all.filter((flow) => flow.probe(SILENT_MS));
        assert.ok(after.length > 0 && after.length < FLOWS, `${after.length} flows go on`);
        for (const flow of after) flow.exchange(ROUND_TRIPS);
        for (const flow of all) flow.close();
        assert.equal((await reports(running)).length, 1, running.output);
      } finally {
        await place.close();
      }
    });
  });
}

interface Captured {
  queue: number;
  direction: 'in' | 'out';
  /** Of the client; 0 when it is no datagram of the echo. */
  port: number;
  hash: number;
}

/** `arrakis capture` of a VNIC into a file, which `stop` returns when nobody has it open any more. */
function startCapture(daemon: LabDaemon, vnic: string) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'capture-'));
  const file = path.join(dir, 'all.pcapng');
  const args = [CLI.pathname, 'capture', vnic, '-w', file];
  const env = { ...process.env, ...daemon.env };
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  const capture = {
    output: '',
    async stop(): Promise<Buffer> {
      const { pid } = domainOf(daemon).detail;
      child.kill('SIGTERM');
      await once(child, 'exit');
      const isOpen = (): boolean =>
        fs.readdirSync(`/proc/${pid}/fd`).some((fd) => {
          try {
            return fs.readlinkSync(`/proc/${pid}/fd/${fd}`) === file;
          } catch {
            return false;
          }
        });
      await until(() => !isOpen(), READY_MS, 'the application closes the file');
      const bytes = fs.readFileSync(file);
      fs.rmSync(dir, { recursive: true });
      return bytes;
    },
  };
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    capture.output += text;
  });
  return capture;
}

/** The packets of a pcapng file, whose blocks have to be whole. */
function packetsOf(file: Buffer): Captured[] {
  const packets: Captured[] = [];
  const types: number[] = [];
  for (let at = 0; at < file.length; ) {
    const length = file.readUInt32LE(at + 4);
    assert.equal(file.readUInt32LE(at + length - 4), length, 'a block has its length twice');
    const type = file.readUInt32LE(at);
    if (type === 6) packets.push(captured(file.subarray(at, at + length)));
    else types.push(type);
    at += length;
  }
  assert.deepEqual(types, [0x0a0d0d0a, 1, 1], 'a section and two interfaces');
  return packets;
}

function captured(block: Buffer): Captured {
  const bytes = block.readUInt32LE(20);
  const frame = block.subarray(28, 28 + bytes);
  const flags = block.readUInt32LE(28 + ((bytes + 3) & ~3) + 4);
  const direction = flags === 1 ? 'in' : 'out';
  const queue = block.readUInt32LE(8);
  if (frame.readUInt16BE(12) !== 0x0800 || frame[23] !== 17) {
    return { queue, direction, port: 0, hash: 0 };
  }
  const [from, to] = [frame.readUInt16BE(34), frame.readUInt16BE(36)];
  const hash = flowHash(frame.readUInt32BE(26), frame.readUInt32BE(30), from, to);
  return { queue, direction, port: direction === 'in' ? from : to, hash };
}

/** What `arrakis ARGS` prints. */
function arrakis(daemon: LabDaemon, ...args: string[]): string {
  const env = { ...process.env, ...daemon.env };
  return execFileSync(process.execPath, [CLI.pathname, ...args], { env, encoding: 'utf8' });
}

interface Listing {
  objects: { kind: string; id: number; name: string; detail: { cpus?: number[]; pid?: number } }[];
}

function vnicOf(daemon: LabDaemon): string {
  const { objects } = JSON.parse(arrakis(daemon, 'ls', '--json')) as Listing;
  return String(objects.find((o) => o.kind === 'vnic')!.id);
}

function domainOf(daemon: LabDaemon) {
  const { objects } = JSON.parse(arrakis(daemon, 'ls', '--json')) as Listing;
  return objects.find((o) => o.kind === 'domain' && o.name === 'threads-app.js')!;
}

const cpusOf = async (running: Running): Promise<number[][]> =>
  (await reports(running)).map((report) => report.cpus);

describe('placement', {
  skip: skip === false && os.availableParallelism() < 2 ? 'needs two processors' : skip,
}, () => {
  test('threads are placed by --cpu, moved while they run, and come back there', async () => {
    const place = await softnic();
    const { daemon } = place;
    try {
      const first = await start(place, [], ['--cpu', '0,1']);
      const domain = domainOf(daemon);
      assert.deepEqual(domain.detail.cpus, [0, 1]);
      assert.match(arrakis(daemon, 'move', String(domain.id), '1'), /on processors 1$/m);
      assert.deepEqual(domainOf(daemon).detail.cpus, [1]);
      const [flow] = openFlows(place);
      assert.ok(flow!.probe(READY_MS), 'it goes on');
      flow!.close();
      assert.deepEqual(await cpusOf(first), [[1], [1]]);
      await until(() => domainOf(daemon) === undefined, READY_MS, 'the domain to end');

      const second = await start(place, [], ['--cpu', '0,1']);
      assert.deepEqual(domainOf(daemon).detail.cpus, [1, 0]);
      assert.deepEqual(await cpusOf(second), [[1], [0]]);
    } finally {
      await place.close();
    }
  });
});

test('both threads go on when the software NIC was killed', { skip }, async () => {
  const place = await softnic();
  try {
    const running = await start(place);
    const all = openFlows(place);
    for (const flow of all) assert.ok(flow.probe(READY_MS), running.output);
    killSoftnic(place);
    for (const flow of all) assert.ok(flow.probe(READY_MS), `it answers again: ${running.output}`);
    for (const flow of all) flow.exchange(ROUND_TRIPS);
    for (const flow of all) flow.close();
    const [first, second] = await reports(running);
    for (const report of [first, second]) {
      assert.ok(Object.keys(report!.datagrams).length > 0, 'each thread has flows');
    }
  } finally {
    await place.close();
  }
});

test('one thread goes on when the other had ended and the software NIC was killed', {
  skip,
}, async () => {
  const place = await softnic();
  try {
    const running = await start(place);
    const all = openFlows(place);
    for (const flow of all) assert.ok(flow.probe(READY_MS), running.output);
    await sendFrom(portOfPair(1), place.address);
    await until(() => running.output.includes('thread 1 died'), READY_MS, 'the second thread ends');
    const left = all.filter((flow) => flow.probe(SILENT_MS));
    assert.ok(left.length > 0, 'the first thread has flows');
    killSoftnic(place);
    for (const flow of left) assert.ok(flow.probe(READY_MS), `it answers again: ${running.output}`);
    // What is for the thread that ended is dropped, and harms nobody.
    await sendFrom(portOfPair(1), place.address);
    await sleep(SILENT_MS);
    for (const flow of left) flow.exchange(ROUND_TRIPS);
    for (const flow of all) flow.close();
    assert.equal((await reports(running)).length, 1, running.output);
  } finally {
    await place.close();
  }
});

function killSoftnic(place: Place): void {
  const { devices } = JSON.parse(arrakis(place.daemon, 'ls', '--json')) as {
    devices: { name: string; pid: number }[];
  };
  process.kill(devices.find((device) => device.name === 'soft0')!.pid, 'SIGKILL');
}

/** A port of the kernel's from which datagrams to the echo of the software NIC come to this pair. */
function portOfPair(pair: number): number {
  const [kernel, echo] = [parseIpv4('10.77.0.1'), parseIpv4('10.77.0.2')];
  let port = 20_000;
  while (pairOfHash(flowHash(kernel, echo, port, 7), 2) !== pair) port++;
  return port;
}

/** One byte from `port` to the echo: the thread that gets it dies. */
async function sendFrom(port: number, address: string): Promise<void> {
  const socket = dgram.createSocket('udp4');
  try {
    await new Promise<void>((resolve) => socket.bind(port, resolve));
    await new Promise((resolve) => socket.send('x', 7, address, resolve));
  } finally {
    socket.close();
  }
}
