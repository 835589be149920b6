/**
 * DPDK's virtio-user driver, unchanged, on a port of our software NIC: the back-end is the standard's, not only our
 * own driver's. `dpdk-testpmd` swaps addresses and ports of what it gets and sends it back.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { formatMac } from '../../src/base/address.ts';
import { testFrameSequence, writeTestFrame } from '../conformance/udp-frame.ts';
import { packageMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { ADDRESSES, Application, anyFilter, SoftNicProcess } from './softnic.harness.ts';

const TESTPMD = 'dpdk-testpmd';
const skip = packageMissing(TESTPMD, 'dpdk');
const FRAMES = 20_000;
interface PairCounts {
  rxPackets: number;
  txPackets: number;
}

/** Of one frame each. */
const FLOWS = 4000;
/** In flight at most: less than testpmd's ring, so that nothing need be lost. */
const WINDOW = 128;

function startTestpmd(socket: string, mac: string, prefix: string, queues = 1): ChildProcess {
  const args = ['-l', '0-1', '--no-huge', '-m', '128', '--no-pci', '--no-telemetry'];
  args.push(`--file-prefix=${prefix}`);
  args.push(`--vdev=virtio_user0,path=${socket},queues=${queues},queue_size=256,mac=${mac}`);
  args.push('--', '--forward-mode=5tswap', '--no-mlockall', '-i', '--auto-start');
  args.push('--total-num-mbufs=4096', `--rxq=${queues}`, `--txq=${queues}`);
  // DPDK leaves its files behind: they go with the test's own directory.
  const env = { ...process.env, RUNTIME_DIRECTORY: path.dirname(socket) };
  return spawn(TESTPMD, args, { stdio: ['pipe', 'pipe', 'pipe'], env });
}

/** Every frame that is sent comes back, in order, whole, and with its addresses swapped. */
async function echoes(app: Application, nic: SoftNicProcess): Promise<void> {
  // testpmd fills its ring only after it has started it: probe until it answers.
  // What comes back of the probes later is left out by its number.
  const probe = (): boolean => {
    app.send(FRAMES);
    return app.receive().length > 0;
  };
  await until(probe, 10_000, 'testpmd answers');
  let sent = 0;
  let echoed = 0;
  const turn = (): boolean => {
    for (; sent < FRAMES && sent - echoed < WINDOW; sent++) app.send(sent, 60 + (sent % 1400));
    app.sendPending();
    for (const bytes of app.receive()) {
      const sequence = testFrameSequence(bytes, 0, bytes.length, 'a');
      if (sequence === FRAMES) continue;
      assert.equal(sequence, echoed);
      assert.equal(bytes.length, 60 + (echoed % 1400));
      assert.equal(bytes.readUIntBE(0, 6), ADDRESSES.aMac);
      assert.equal(bytes.readUInt32BE(30), ADDRESSES.aIp);
      echoed++;
    }
    return echoed === FRAMES;
  };
  const rounds = (): boolean => {
    for (let i = 0; i < 2000; i++) if (turn()) return true;
    return false;
  };
  await until(rounds, 20_000, 'every frame comes back').catch((error: Error) => {
    throw new Error(`${error.message}: ${echoed} of ${sent}, ${JSON.stringify(nic.stats(2))}`);
  });
}

test('testpmd with net_virtio_user attaches, echoes, leaves and comes back', {
  skip,
}, async (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'snic-'));
  const nic = new SoftNicProcess();
  let pmd: ChildProcess | null = null;
  let output = '';
  t.after(async () => {
    pmd?.kill('SIGKILL');
    await nic.close();
    fs.rmSync(directory, { recursive: true });
  });
  const listen = path.join(directory, 'vu.sock');
  const app = Application.connect(nic, 1, 'a');
  t.after(() => app.close());
  const added = nic.request({
    op: 'addPort',
    port: 2,
    mac: ADDRESSES.bMac,
    filters: [anyFilter(ADDRESSES.bIp)],
    listen,
    allowUnsealed: true,
  });
  assert.equal(added.ok, true, added.message);

  for (const session of ['first', 'second']) {
    pmd = startTestpmd(listen, formatMac(ADDRESSES.bMac), `snic${process.pid}${session}`);
    output = '';
    pmd.stdout!.on('data', (text) => {
      output += text;
    });
    pmd.stderr!.on('data', (text) => {
      output += text;
    });
    await until(() => nic.stats(2).state === 'up', 20_000, 'testpmd is up').catch(
      (error: Error) => {
        throw new Error(`${error.message}; ${nic.stats(2).reason}\n${output}`);
      },
    );
    await echoes(app, nic);
    pmd.stdin!.write('quit\n');
    await until(() => pmd!.exitCode !== null, 20_000, 'testpmd ends');
    await until(() => !nic.stats(2).connected, 5000, 'the port is free again');
  }
});

test('testpmd with two queue pairs echoes every flow, some on each pair', { skip }, async (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'snic-'));
  const nic = new SoftNicProcess();
  const listen = path.join(directory, 'vu.sock');
  const app = Application.connect(nic, 1, 'a');
  const { bMac: mac, bIp } = ADDRESSES;
  const filters = [anyFilter(bIp)];
  const port = { op: 'addPort', port: 2, mac, filters, listen, allowUnsealed: true, pairs: 2 };
  const added = nic.request(port);
  assert.equal(added.ok, true, added.message);
  const pmd = startTestpmd(listen, formatMac(mac), `snic${process.pid}two`, 2);
  let output = '';
  pmd.stdout!.on('data', (text) => {
    output += text;
  });
  t.after(async () => {
    pmd.kill('SIGKILL');
    app.close();
    await nic.close();
    fs.rmSync(directory, { recursive: true });
  });
  /** Frame `sequence` of a flow of its own. */
  const send = (sequence: number): void => {
    const bytes = Buffer.alloc(100);
    writeTestFrame(bytes, 0, 100, { ...ADDRESSES, aPort: 2000 + sequence }, 'a', sequence);
    app.sendBytes(bytes);
  };
  const answers = (): number[] =>
    app.receive().map((bytes) => testFrameSequence(bytes, 0, bytes.length, 'a'));
  const queues = () => (nic.stats(2) as unknown as { queues: PairCounts[] }).queues;
  // Both pairs answer: testpmd has started both.
  const ready = (): boolean => {
    for (let flow = 0; flow < 16; flow++) send(FRAMES + flow);
    answers();
    return queues().every((pair) => pair.txPackets > 0);
  };
  await until(ready, 20_000, 'testpmd answers on both pairs').catch((error: Error) => {
    throw new Error(`${error.message}: ${JSON.stringify(nic.stats(2))}\n${output}`);
  });
  const before = queues();
  const seen = new Set<number>();
  let sent = 0;
  const rounds = (): boolean => {
    for (let i = 0; i < 2000 && seen.size < FLOWS; i++) {
      for (; sent < FLOWS && sent - seen.size < WINDOW / 2; sent++) send(sent);
      app.sendPending();
      for (const sequence of answers()) {
        if (sequence >= FRAMES) continue;
        assert.ok(!seen.has(sequence), `frame ${sequence} comes back once`);
        seen.add(sequence);
      }
    }
    return seen.size === FLOWS;
  };
  await until(rounds, 20_000, 'every frame comes back');
  for (const [pair, { rxPackets, txPackets }] of queues().entries()) {
    const received = rxPackets - before[pair]!.rxPackets;
    assert.ok(received > FLOWS / 3 && received < FLOWS, `pair ${pair} received ${received}`);
    assert.ok(txPackets > before[pair]!.txPackets, `pair ${pair} sent`);
  }
});
