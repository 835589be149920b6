/**
 * The conformance suite on the virtio driver with a device that others wrote: DPDK's vhost library, two ports of it
 * joined by testpmd's io forwarding. Needs dpdk-testpmd (Debian package `dpdk`); no privilege and no huge pages.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseIpv4, parseMac } from '../../src/base/address.ts';
import { createRegion, virtioGeometry } from '../../src/drivers/virtio/attach.ts';
import { openVirtioPair, type VirtioQueue } from '../../src/drivers/virtio/queue.ts';
import { startVirtio, type VirtioSession } from '../../src/drivers/virtio/session.ts';
import { connectUnix, SOCK_STREAM } from '../../src/ffi/unix.ts';
import { type NicPair, nicSuite } from './nic.suite.ts';

const sizes = { ringSize: 256, frameSize: 2048, frameCount: 2048 };
const START_MS_MAX = 20_000;

function installed(): boolean {
  try {
    execFileSync('sh', ['-c', 'command -v dpdk-testpmd'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** testpmd with a vhost port at each of `sockets`, forwarding between them; ready when it says so. */
async function startTestpmd(
  dir: string,
  sockets: readonly string[],
  queues: number,
): Promise<ChildProcess> {
  const ports = sockets.flatMap((socket, i) => [
    '--vdev',
    `net_vhost${i},iface=${socket},queues=${queues}`,
  ]);
  const memory = ['--no-pci', '--no-huge', '-m', '512', '--no-telemetry'];
  const child = spawn(
    'dpdk-testpmd',
    [
      ...memory,
      `--file-prefix=${path.basename(dir)}`,
      ...ports,
      ...[
        '--',
        `--rxq=${queues}`,
        `--txq=${queues}`,
        '--auto-start',
        '--forward-mode=io',
        '--total-num-mbufs=8192',
      ],
      // Without -i it stops at the first byte of input; the pipe stays open and silent.
      '--stats-period=3600',
    ],
    // Its runtime files go where ours are removed: a killed process leaves them behind.
    { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, RUNTIME_DIRECTORY: dir } },
  );
  let output = '';
  let failure: Error | null = null;
  const listen = (data: Buffer): void => {
    output = (output + data.toString()).slice(-8192);
  };
  child.stdout.on('data', listen);
  child.stderr.on('data', listen);
  child.on('error', (error) => {
    failure = error;
  });
  const deadline = Date.now() + START_MS_MAX;
  while (
    !sockets.every((socket) => fs.existsSync(socket)) ||
    !/io packet forwarding/.test(output)
  ) {
    if (failure !== null || child.exitCode !== null || Date.now() > deadline) {
      child.kill('SIGKILL');
      throw new Error(`dpdk-testpmd did not start: ${output}`, { cause: failure });
    }
    await sleep(50);
  }
  return child;
}

function attach(socket: string, mac: number, pairs: number): VirtioSession {
  const { regionBytes } = virtioGeometry({ ...sizes, pairs });
  const grant = { ...sizes, pairs, mac, mtu: 1500, headroom: 64, regionBytes };
  return startVirtio(grant, {
    region: createRegion(grant),
    socket: connectUnix(socket, SOCK_STREAM),
  });
}

/** Queue pair `index` of `pairs` at both ends: testpmd forwards between queues of one number. */
async function pair(pairs: number, index: number): Promise<NicPair> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'drv-testpmd-'));
  const sockets = ['a', 'b'].map((name) => path.join(dir, `${name}.sock`));
  const child = await startTestpmd(dir, sockets, pairs);
  const addresses = {
    aMac: parseMac('02:00:00:00:00:0a'),
    bMac: parseMac('02:00:00:00:00:0b'),
    aIp: parseIpv4('10.0.0.1'),
    bIp: parseIpv4('10.0.0.2'),
  };
  const opened: { close(): void }[] = [];
  const close = async (): Promise<void> => {
    for (const part of opened.reverse()) part.close();
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
    fs.rmSync(dir, { recursive: true });
  };
  try {
    const open = (socket: string, mac: number): VirtioQueue => {
      const session = attach(socket, mac, pairs);
      opened.push(session);
      // A device may serve a port only once every queue of it has buffers.
      const queues = session.pairs.map(openVirtioPair);
      opened.push(...queues);
      return queues[index]!;
    };
    const a = open(sockets[0]!, addresses.aMac);
    const b = open(sockets[1]!, addresses.bMac);
    return { a, b, addresses, close };
  } catch (error) {
    await close();
    throw error;
  }
}

const missing = !installed() && process.env.CI !== 'true';
for (const [name, pairs, index] of [
  ['', 1, 0],
  [', first of two pairs', 2, 0],
  [', second of two pairs', 2, 1],
] as const) {
  nicSuite(`virtio on DPDK vhost${name}`, () => pair(pairs, index), {
    ...(missing ? { skip: 'dpdk-testpmd is not installed' } : {}),
    waitMs: 20_000,
    quietMs: 50,
  });
}
