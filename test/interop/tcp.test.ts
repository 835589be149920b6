/** TCP against the Linux kernel, over the software NIC's TAP: both roles, megabytes each way, half-close, RST. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { LabDaemon } from '../../bench/echo/lab.ts';
import type { Running } from '../../bench/processes.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { KernelEnd } from './kernel-end.ts';

const skip = rootMissing();
if (skip === false) isolateNetwork();

const APP = fileURLToPath(new URL('./tcp-app.js', import.meta.url));
const VNIC = '10.77.0.2';
const KERNEL = '10.77.0.1';
const READY_MS = 15_000;
const TALK_MS = 30_000;
const MEGABYTES = 4 * 1024 * 1024;

async function startApp(daemon: LabDaemon, args: readonly string[]): Promise<Running> {
  const spec = `soft0,ip=${VNIC}/24,name=tcp`;
  const run = daemon.run(['--vnic', spec, '--user', 'nobody', '--', APP, ...args]);
  await until(() => run.output.includes('ready') || !run.alive, READY_MS, 'the application');
  assert.ok(run.alive, run.output);
  return run;
}

const connectTo = (port: number): KernelEnd =>
  new KernelEnd(net.connect({ host: VNIC, port, allowHalfOpen: true }));

describe('TCP and the Linux kernel', { skip }, () => {
  test('as server: megabytes both ways at once, both ends closed in order', async () => {
    const daemon = await LabDaemon.start(undefined, []);
    try {
      const app = await startApp(daemon, ['serve', '80', String(MEGABYTES)]);
      const kernel = connectTo(80);
      kernel.send(MEGABYTES);
      await until(() => kernel.closed, TALK_MS, `the connection to end: ${app.output}`);
      assert.equal(kernel.error, null);
      assert.equal(kernel.received, MEGABYTES);
      assert.ok(kernel.isRight, 'the kernel got the right bytes');
      await until(() => app.output.includes('counters'), 5000, 'the application to close');
      assert.match(app.output, new RegExp(`server0 end after ${MEGABYTES}`));
      assert.match(app.output, /server0 closed closed/);
      await app.stop();
    } finally {
      await daemon.close();
    }
  });

  test('as client: megabytes both ways at once, both ends closed in order', async () => {
    const daemon = await LabDaemon.start(undefined, []);
    const ends: KernelEnd[] = [];
    const server = net.createServer({ allowHalfOpen: true }, (socket) => {
      const end = new KernelEnd(socket);
      ends.push(end);
      end.send(MEGABYTES);
    });
    try {
      await new Promise<void>((resolve) => server.listen(8080, resolve));
      const app = await startApp(daemon, ['connect', KERNEL, '8080', String(MEGABYTES)]);
      await until(() => ends[0]?.closed === true, TALK_MS, `the connection to end: ${app.output}`);
      const [kernel] = ends;
      assert.equal(kernel!.error, null);
      assert.equal(kernel!.received, MEGABYTES);
      assert.ok(kernel!.isRight, 'the kernel got the right bytes');
      await until(() => app.output.includes('counters'), 5000, 'the application to close');
      assert.match(app.output, new RegExp(`client end after ${MEGABYTES}`));
      assert.match(app.output, /client closed closed/);
      await app.stop();
    } finally {
      server.close();
      await daemon.close();
    }
  });

  test('RST either way, a port that nobody has, and one end that speaks on after the other has closed', async () => {
    const daemon = await LabDaemon.start(undefined, []);
    try {
      const app = await startApp(daemon, ['serve', '80', '100000', 'reset']);
      const broken = connectTo(80);
      broken.send(100_000);
      await until(() => broken.closed, TALK_MS, 'the kernel to hear of the reset');
      assert.equal(broken.error?.code, 'ECONNRESET');
      await until(() => app.output.includes('server0 closed aborted'), 5000, app.output);

      const breaking = connectTo(80);
      await until(() => breaking.socket.readyState === 'open', TALK_MS, 'the connection');
      breaking.socket.resetAndDestroy();
      await until(() => app.output.includes('server1 closed reset'), 5000, app.output);

      const refused = connectTo(81);
      await until(() => refused.closed, TALK_MS, 'the refusal');
      assert.equal(refused.error?.code, 'ECONNREFUSED');

      // The application answers the first byte with everything, after it has heard our end.
      const half = connectTo(80);
      half.socket.end(Buffer.from([0]));
      await until(() => half.closed, TALK_MS, 'the rest of the other direction');
      assert.deepEqual([half.received, half.isRight, half.error], [100_000, true, null]);
      await app.stop();
    } finally {
      await daemon.close();
    }
  });

  test('a port of the kernel that nobody has refuses us', async () => {
    const daemon = await LabDaemon.start(undefined, []);
    try {
      const app = await startApp(daemon, ['connect', KERNEL, '8081', '10']);
      await until(() => app.output.includes('counters'), 5000, 'the refusal');
      assert.match(app.output, /client closed refused received 0/);
      await app.stop();
    } finally {
      await daemon.close();
    }
  });

  test('two hundred connections at once, each with its own bytes', async () => {
    const daemon = await LabDaemon.start(undefined, []);
    try {
      const app = await startApp(daemon, ['serve', '80', '20000']);
      const ends = Array.from({ length: 200 }, () => connectTo(80));
      for (const end of ends) end.send(20_000);
      await until(() => ends.every(({ closed }) => closed), TALK_MS, 'all of them to end');
      for (const end of ends) {
        assert.deepEqual([end.received, end.isRight, end.error], [20_000, true, null]);
      }
      await app.stop();
    } finally {
      await daemon.close();
    }
  });
});
