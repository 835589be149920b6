/**
 * One packet all the way: the daemon, `arrakis run`, the echo application as nobody without a capability, and kernel
 * programs that reach it over TAP, AF_XDP direct and AF_XDP switched.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { KernelClient } from '../../bench/echo/kernel-client.ts';
import { CLI, ECHO_APP, LabDaemon, VethLab } from '../../bench/echo/lab.ts';
import { type Running, start, startNode } from '../../bench/processes.ts';
import { formatIpv4, parseIpv4 } from '../../src/base/address.ts';
import { findLeftovers, removeLeftovers } from '../../src/control/leftovers.ts';
import { pidPath } from '../../src/control/paths.ts';
import { readPid } from '../../src/control/run-directory.ts';
import type { NetworkNamespace } from '../../src/ffi/network-namespace.ts';
import { LeakCheck } from '../support/leaks.ts';
import { isolateNetwork } from '../support/network.ts';
import { packageMissing, rootMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';

const skip =
  rootMissing() ||
  packageMissing('ping', 'iputils-ping') ||
  packageMissing('tcpdump') ||
  packageMissing('nc', 'netcat-openbsd');
if (skip === false) isolateNetwork();

const READY_MS = 15_000;
/** Tests run on busy machines: an answer may be late without being lost. */
const LATE_MS = 1000;
const TAP_VNIC = '10.77.0.2';

const startEcho = (daemon: LabDaemon, spec: string): Running =>
  daemon.run(['--vnic', spec, '--user', 'nobody', '--', ECHO_APP, '--stats']);

/** Pid of the application itself: the only child of `arrakis run`. */
function applicationPid(run: Running): number {
  const pid = run.child.pid!;
  const children = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return Number(children.split(' ')[0]);
}

function assertUnprivileged(run: Running): void {
  const status = fs.readFileSync(`/proc/${applicationPid(run)}/status`, 'utf8');
  assert.match(status, /^Uid:\t65534\t65534\t65534\t65534$/m);
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) {
    assert.match(status, new RegExp(`^${set}:\\t0{16}$`, 'm'));
  }
}

const echoReady = (run: Running): Promise<unknown> =>
  until(() => run.output.includes('echo: udp') || !run.alive, READY_MS, 'the echo application');

const inside = <T>(network: NetworkNamespace | null, body: () => T): T =>
  network === null ? body() : network.run(body);

function ping(network: NetworkNamespace | null, address: string): void {
  const output = inside(network, () =>
    execFileSync('ping', ['-c', '3', '-i', '0.2', '-W', '2', address], { encoding: 'utf8' }),
  );
  assert.match(output, / 0% packet loss/);
}

function echoUdp(network: NetworkNamespace | null, address: string): void {
  const client = inside(network, () => new KernelClient(parseIpv4(address), 7, LATE_MS));
  try {
    assert.ok(client.probe(READY_MS), `no echo from ${address}`);
    const { microseconds, lost } = client.roundTrips(500);
    assert.equal(microseconds.length, 500);
    assert.equal(lost, 0);
  } finally {
    client.close();
  }
}

interface Listing {
  objects: { kind: string; name: string; detail: Record<string, unknown> }[];
  stats: { name: string; counters: Record<string, unknown> }[];
}

function list(daemon: LabDaemon): Listing {
  const env = { ...process.env, ...daemon.env };
  const args = [CLI.pathname, 'ls', '--json'];
  return JSON.parse(execFileSync(process.execPath, args, { env, encoding: 'utf8' })) as Listing;
}

describe('one packet all the way', { skip }, () => {
  test('over TAP: ping and UDP from the kernel; capture; nothing left behind', async () => {
    const leaks = new LeakCheck();
    const daemon = await LabDaemon.start(undefined, []);
    try {
      const echo = startEcho(daemon, `soft0,ip=${TAP_VNIC}/24,name=echo`);
      await echoReady(echo);
      assertUnprivileged(echo);
      echoUdp(null, TAP_VNIC);
      ping(null, TAP_VNIC);
      await captureShowsTraffic(daemon);
      const { objects, stats } = list(daemon);
      assert.ok(objects.some((o) => o.kind === 'vnic' && o.name === 'echo'));
      assert.ok(Number(stats[0]!.counters.rxPackets) > 500, JSON.stringify(stats));
      await echo.stop();
      await until(() => list(daemon).stats.length === 0, 5000, 'the VNIC to be taken back');
    } finally {
      await daemon.close();
    }
    await leaks.assertNone();
  });

  for (const mode of ['direct', 'switched'] as const) {
    test(`af-xdp ${mode}: an address of its own, and the interface's own for the rest`, async () => {
      const leaks = new LeakCheck();
      const lab = VethLab.create({ serverHere: true });
      const daemon = await LabDaemon.start(undefined, ['--no-tap']);
      try {
        const own = startEcho(daemon, `srv0,mode=${mode},ip=10.78.0.9/24`);
        await echoReady(own);
        assertUnprivileged(own);
        echoUdp(lab.client.network, '10.78.0.9');
        ping(lab.client.network, '10.78.0.9');
        await own.stop();

        const tcp = await TcpConversation.open(lab);
        const shared = startEcho(daemon, `srv0,mode=${mode},port=udp:7`);
        await echoReady(shared);
        const address = formatIpv4(lab.server.address);
        echoUdp(lab.client.network, address);
        ping(lab.client.network, address);
        await tcp.exchange();
        await shared.stop();
        await tcp.exchange();
        tcp.close();
      } finally {
        await daemon.close();
        lab.close();
      }
      await leaks.assertNone();
    });
  }

  test('an interface that vanishes ends its application with a reason; the others go on', async () => {
    const lab = VethLab.create({ serverHere: true });
    const daemon = await LabDaemon.start(undefined, []);
    try {
      const soft = startEcho(daemon, `soft0,ip=${TAP_VNIC}/24`);
      const xdp = startEcho(daemon, 'srv0,mode=switched,port=udp:7');
      await echoReady(soft);
      await echoReady(xdp);
      lab.close();
      await until(() => !xdp.alive, READY_MS, 'the application of the interface to end');
      assert.match(xdp.output, /is gone/);
      echoUdp(null, TAP_VNIC);
      await soft.stop();
    } finally {
      await daemon.close();
    }
  });

  test('a daemon killed with -9 takes no application along, and doctor --fix gives up what it left', async () => {
    const lab = VethLab.create({ serverHere: true });
    const daemon = await LabDaemon.start(undefined, []);
    try {
      const applications = [
        startEcho(daemon, `soft0,ip=${TAP_VNIC}/24`),
        startEcho(daemon, 'srv0,mode=direct,port=udp:7'),
        startEcho(daemon, 'srv0,mode=switched,ip=10.78.0.9/24'),
      ];
      for (const application of applications) await echoReady(application);
      process.kill(readPid(pidPath(daemon.dir))!, 'SIGKILL');
      echoUdp(null, TAP_VNIC);
      echoUdp(lab.client.network, formatIpv4(lab.server.address));
      echoUdp(lab.client.network, '10.78.0.9');
      for (const application of applications) assert.ok(application.alive, application.output);
      removeLeftovers(daemon.dir);
      for (const application of applications) {
        await until(() => !application.alive, 5000, 'the application to end');
        assert.match(application.output, /is gone: /);
      }
      assert.deepEqual(findLeftovers(daemon.dir), []);
    } finally {
      await daemon.close();
      lab.close();
    }
  });

  test('an application killed with -9 leaves its address to the next', async () => {
    const daemon = await LabDaemon.start(undefined, []);
    try {
      for (let round = 0; round < 3; round++) {
        const echo = startEcho(daemon, `soft0,ip=${TAP_VNIC}/24`);
        await echoReady(echo);
        echoUdp(null, TAP_VNIC);
        process.kill(applicationPid(echo), 'SIGKILL');
        await until(() => !echo.alive, 5000, 'arrakis run to end');
        assert.equal(echo.child.exitCode, 137);
        await until(() => list(daemon).stats.length === 0, 5000, 'the VNIC to be taken back');
      }
    } finally {
      await daemon.close();
    }
  });
});

async function captureShowsTraffic(daemon: LabDaemon): Promise<void> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-capture-'));
  try {
    const file = path.join(dir, 'echo.pcapng');
    const capture = startNode(CLI, ['capture', 'echo', '-w', file], { env: daemon.env });
    await until(() => capture.output.includes('recording'), READY_MS, 'the capture to begin');
    ping(null, TAP_VNIC);
    echoUdp(null, TAP_VNIC);
    await sleep(300);
    capture.child.kill('SIGINT');
    assert.equal(await capture.exited, 0, capture.output);
    const text = execFileSync('tcpdump', ['-nr', file], { encoding: 'utf8', stdio: 'pipe' });
    assert.match(text, /ICMP echo request/);
    assert.match(text, /ICMP echo reply/);
    assert.ok((text.match(/10\.77\.0\.2\.7: UDP, length 22/g) ?? []).length >= 500);
    assert.ok((text.match(/10\.77\.0\.2\.7 > 10\.77\.0\.1/g) ?? []).length >= 500);
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

/** A TCP connection of kernel programs over the lab's link, as an ssh session would be. */
class TcpConversation {
  readonly #server: Running;
  readonly #client: Running;
  #sent = 0;

  private constructor(server: Running, client: Running) {
    this.#server = server;
    this.#client = client;
  }

  static async open(lab: VethLab): Promise<TcpConversation> {
    const address = formatIpv4(lab.server.address);
    const server = start('nc', ['-l', address, '2222'], { network: lab.server.network });
    await sleep(300);
    const client = start('nc', [address, '2222'], { network: lab.client.network });
    const conversation = new TcpConversation(server, client);
    await conversation.exchange();
    return conversation;
  }

  /** A line each way. */
  async exchange(): Promise<void> {
    const line = `line ${++this.#sent}\n`;
    this.#client.child.stdin!.write(line);
    await until(() => this.#server.output.endsWith(line), 5000, 'a line to reach the server');
    this.#server.child.stdin!.write(line);
    await until(() => this.#client.output.endsWith(line), 5000, 'a line to reach the client');
  }

  close(): void {
    this.#client.child.kill('SIGTERM');
    this.#server.child.kill('SIGTERM');
  }
}

test('without a daemon the error says what to do', () => {
  const env = { ...process.env, ARRAKIS_DIR: path.join(os.tmpdir(), 'arrakis-nowhere') };
  assert.throws(
    () => execFileSync(process.execPath, [CLI.pathname, 'ls'], { env, stdio: 'pipe' }),
    (error: Error & { status: number; stderr: Buffer }) =>
      error.status === 1 && /ARK_NO_DAEMON[\s\S]*arrakis up/.test(error.stderr.toString()),
  );
});
