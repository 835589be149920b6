/**
 * Programs that know nothing of Arrakis, on it: frameworks from npm as servers to the kernel's clients, and as clients of
 * the kernel's servers, over TAP; and how a program lives and ends.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { WebSocket } from 'ws';
import { LabDaemon } from '../../bench/echo/lab.ts';
import { makeScratch, type Running, removeScratch, start } from '../../bench/processes.ts';
import { isolateNetwork } from '../support/network.ts';
import { packageMissing, rootMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';

const skip = rootMissing() || packageMissing('redis-server');
if (skip === false) isolateNetwork();

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const program = (name: string): string => path.join(ROOT, 'test', 'interop', 'programs', name);
const KERNEL = '10.77.0.1';
const VNIC = '10.77.0.2';
const READY_MS = 15_000;

let daemon: LabDaemon;
if (skip === false) {
  before(async () => {
    daemon = await LabDaemon.start(undefined, []);
  });
  after(() => daemon?.close());
}

const runAt = (ip: string, file: string, ...args: string[]): Running =>
  daemon.run(['--posix', '--vnic', `soft0,ip=${ip}/24`, '--', file, ...args]);
const run = (file: string, ...args: string[]): Running => runAt(VNIC, file, ...args);

/** Started, and has printed `line`. */
async function serve(line: RegExp, file: string, ...args: string[]): Promise<Running> {
  const running = run(file, ...args);
  await until(() => line.test(running.output) || !running.alive, READY_MS, `${file} to listen`);
  assert.match(running.output, line);
  return running;
}

/** The application itself: the only child of `arrakis run`. */
function pidOf(running: Running): number {
  const pid = running.child.pid!;
  const children = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return Number(children.split(' ')[0]);
}

/** Inodes of TCP and UDP sockets of the kernel's that process `pid` has: none, when all of its traffic is on the VNIC. */
function kernelSockets(pid: number): string[] {
  const known = ['tcp', 'tcp6', 'udp', 'udp6'].flatMap((table) =>
    fs
      .readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/)[9]),
  );
  return fs
    .readdirSync(`/proc/${pid}/fd`)
    .map((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(fs.readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
      } catch {
        return undefined;
      }
    })
    .filter((inode): inode is string => inode !== undefined && known.includes(inode));
}

async function text(url: string, options: RequestInit = {}): Promise<string> {
  const headers = { connection: 'close', 'content-type': 'application/json' };
  return (await fetch(`http://${VNIC}${url}`, { headers, ...options })).text();
}

/** Processor time of a process, in milliseconds. */
function cpuMs(pid: number): number {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

describe('programs that know nothing of Arrakis', { skip }, () => {
  test('express', async () => {
    const app = await serve(/listening/, path.join(ROOT, 'examples', 'express.js'));
    assert.equal(await text('/'), `hello ::ffff:${KERNEL}\n`);
    const body = JSON.stringify({ text: 'x'.repeat(90_000) });
    assert.equal(await text('/echo', { method: 'POST', body }), body);
    assert.deepEqual(kernelSockets(pidOf(app)), []);
    await app.stop();
  });

  test('fastify', async () => {
    const app = await serve(/http:/, program('fastify.js'));
    assert.equal(await text(':8080/'), JSON.stringify({ hello: KERNEL }));
    const body = JSON.stringify([1, 2, 39]);
    assert.equal(await text(':8080/sum', { method: 'POST', body }), JSON.stringify({ sum: 42 }));
    assert.deepEqual(kernelSockets(pidOf(app)), []);
    await app.stop();
  });

  test('ws: several clients, text and bytes', async () => {
    const app = await serve(/listening/, program('websocket.js'));
    const clients = [new WebSocket(`ws://${VNIC}:8081`), new WebSocket(`ws://${VNIC}:8081`)];
    const first = clients.map((client) => once(client, 'message'));
    const greetings = (await Promise.all(first)).map(([data]) => String(data)).sort();
    const from = `from ::ffff:${KERNEL}`;
    assert.ok(
      greetings.every((each) => each.endsWith(from)),
      greetings.join(),
    );
    for (const client of clients) {
      const bytes = Buffer.alloc(100_000, 9);
      const answer = once(client, 'message');
      client.send(bytes);
      assert.deepEqual((await answer)[0], bytes);
      client.close();
      await once(client, 'close');
    }
    await app.stop();
  });

  test('ioredis, undici and fetch as clients', async () => {
    const dir = makeScratch('redis-');
    const args = ['--bind', KERNEL, '--protected-mode', 'no', '--save', '', '--dir', dir];
    const redis = start('redis-server', args);
    const server = http.createServer((request, response) => response.end(`body of ${request.url}`));
    server.listen(9000, KERNEL);
    try {
      await until(() => redis.output.includes('Ready to accept'), READY_MS, 'redis-server');
      const app = run(program('clients.js'), KERNEL);
      assert.equal(await app.exited, 0, app.output);
      const line = app.output.split('\n').find((each) => each.startsWith('{'))!;
      assert.deepEqual(JSON.parse(line), {
        value: 50_000,
        count: 1000,
        news: 'published',
        bodies: Array.from({ length: 40 }, (_, i) => `body of /${i}`),
        fetched: 'body of /fetch',
      });
    } finally {
      await redis.stop();
      server.close();
      server.closeAllConnections();
      removeScratch(dir);
    }
  });
});

describe('how a program ends', { skip, concurrency: 3 }, () => {
  let server: net.Server;
  /** What the last connection from each address brought, and how it ended. */
  const heard = new Map<string, { bytes: number; ending: string }>();
  before(async () => {
    server = net.createServer((socket) => {
      const said = { bytes: 0, ending: '' };
      heard.set(socket.remoteAddress!, said);
      socket.on('data', (chunk) => {
        said.bytes += chunk.length;
      });
      socket.on('end', () => {
        said.ending = 'end';
      });
      socket.on('error', (error: NodeJS.ErrnoException) => {
        said.ending = error.code!;
      });
    });
    server.listen(9001, KERNEL);
    await once(server, 'listening');
  });
  after(() => server?.close());

  /** Each has an address of its own: they run side by side. */
  const ends = async (how: string, ip: string): Promise<{ code: unknown; output: string }> => {
    const running = runAt(ip, program('endings.js'), how, KERNEL);
    const code = await Promise.race([running.exited, sleep(15_000)]);
    await running.stop();
    return { code, output: running.output };
  };
  const whole = async (ip: string): Promise<void> => {
    await until(() => heard.get(ip)?.ending !== '', READY_MS);
    assert.deepEqual(heard.get(ip), { bytes: 200_000, ending: 'end' });
  };

  test('with a server that is unref’d it ends', async () => {
    const { code, output } = await ends('unref', '10.77.0.11');
    assert.match(output, /listening/);
    assert.equal(code, 0);
  });

  test('what was written is delivered before it ends', async () => {
    assert.equal((await ends('flush', '10.77.0.12')).code, 0);
    await whole('10.77.0.12');
  });

  test('process.exit: what was written arrives, and the peer hears of the end', async () => {
    assert.equal((await ends('exit', '10.77.0.13')).code, 3);
    await whole('10.77.0.13');
  });

  test('an uncaught exception ends it with its stack', async () => {
    const { code, output } = await ends('throw', '10.77.0.14');
    assert.equal(code, 1);
    assert.match(output, /Error: of the program\n\s+at .*endings\.js/);
  });

  test('a paused socket does not keep it alive', async () => {
    const { code, output } = await ends('paused', '10.77.0.15');
    assert.match(output, /paused/);
    assert.equal(code, 0);
  });
});

describe('how a program lives', { skip }, () => {
  test('an idle server stays, and uses no processor', async () => {
    const running = await serve(/listening/, program('endings.js'), 'idle');
    const pid = pidOf(running);
    await sleep(300);
    const before = cpuMs(pid);
    await sleep(1500);
    assert.equal(running.alive, true);
    assert.ok(cpuMs(pid) - before <= 60, `${cpuMs(pid) - before} ms of 1500`);
    await running.stop();
  });

  test('setImmediate and timers go on beside a busy server', async () => {
    const running = await serve(/listening/, program('endings.js'), 'timers');
    const socket = net.connect(7000, VNIC);
    socket.on('error', () => {});
    socket.on('data', (chunk) => socket.write(chunk));
    socket.write('x');
    await running.exited;
    socket.destroy();
    const line = running.output.split('\n').find((each) => each.startsWith('{'))!;
    const { turns, ticks } = JSON.parse(line) as { turns: number; ticks: number };
    assert.ok(turns > 500, `${turns} turns of the event loop in a second`);
    assert.ok(ticks > 20, `${ticks} of 100 ticks`);
  });

  test('a cluster works as ever, at the kernel, and a warning says so', async () => {
    const running = await serve(/listening/, program('endings.js'), 'cluster');
    const response = await fetch(`http://${KERNEL}:7001/`, { headers: { connection: 'close' } });
    assert.equal(await response.text(), 'worker 1');
    assert.match(running.output, /the sockets of a cluster are the kernel/);
    await running.stop();
  });

  test('without a daemon: what is wrong, and what to do', async () => {
    const script = new URL('../../src/posix/index.js', import.meta.url).href;
    const env = { ARRAKIS_DIR: '/nowhere', ARRAKIS_SOCKET: '/nowhere/control.sock' };
    const running = start(process.execPath, ['--import', script, program('endings.js')], { env });
    assert.equal(await running.exited, 1);
    assert.equal(
      running.output,
      'arrakis: no arrakisd listens at /nowhere/control.sock\n  sudo arrakis up\n',
    );
  });
});
