/** Ports of the host that lead to a VNIC, by ordinary kernel clients, without any privilege of ours. */
import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ECHO_APP, LabDaemon } from '../../bench/echo/lab.ts';
import { makeScratch, type Running, removeScratch } from '../../bench/processes.ts';
import { LeakCheck } from '../support/leaks.ts';
import { until } from '../support/until.ts';

const HTTP_APP = fileURLToPath(new URL('../../apps/http/main.js', import.meta.url));
const EXPRESS_APP = fileURLToPath(new URL('../../../examples/express.js', import.meta.url));
const VNIC = 'soft0,ip=10.77.0.2/24';
const READY_MS = 15_000;
const LARGE = Buffer.alloc(3_000_000, 'a large file of many segments\n');

let root: string;
let daemon: LabDaemon;
let leaks: LeakCheck;

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function ready(app: Running, text: string): Promise<void> {
  await until(() => app.output.includes(text) || !app.alive, READY_MS, text);
  assert.ok(app.alive, app.output);
}

function get(port: number, target: string): Promise<{ status: number; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const request = http.get({ port, path: target, agent: false, timeout: 10_000 }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () =>
        resolve({ status: response.statusCode!, body: Buffer.concat(chunks) }),
      );
      response.on('error', reject);
    });
    request.on('error', reject);
    request.on('timeout', () => request.destroy(new Error('no answer')));
  });
}

describe('published ports', () => {
  before(async () => {
    leaks = new LeakCheck();
    root = makeScratch('arrakis-www-');
    fs.chmodSync(root, 0o755);
    fs.writeFileSync(path.join(root, 'index.html'), 'published');
    fs.writeFileSync(path.join(root, 'large'), LARGE);
    daemon = await LabDaemon.start(undefined, ['--no-tap']);
  });
  after(async () => {
    await daemon.close();
    removeScratch(root);
    await leaks.assertNone();
  });

  test('TCP: a page, a large file, many at a time, and a client that goes away', async () => {
    const port = await freePort();
    const publish = ['--vnic', VNIC, '--publish', `${port}:80`];
    const app = daemon.run([...publish, '--', HTTP_APP, '--root', root]);
    try {
      await ready(app, 'http:');
      assert.deepEqual(await get(port, '/'), { status: 200, body: Buffer.from('published') });
      const large = await Promise.all(Array.from({ length: 8 }, () => get(port, '/large')));
      for (const { body } of large) assert.ok(body.equals(LARGE));
      const rude = net.connect(port, '127.0.0.1');
      rude.write('GET /large HTTP/1.1\r\nHost: a\r\n\r\n');
      await once(rude, 'data');
      rude.resetAndDestroy();
      const half = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
      half.end('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      let text = '';
      for await (const chunk of half) text += chunk;
      assert.match(text, /published$/);
      assert.equal((await get(port, '/')).status, 200);
    } finally {
      await app.stop();
    }
    await assert.rejects(get(port, '/'), { code: 'ECONNREFUSED' }, 'it ends with the program');
  });

  test("a program on Node's own sockets", async () => {
    const port = await freePort();
    const publish = ['--posix', '--vnic', VNIC, '--publish', `${port}:80`];
    const app = daemon.run([...publish, '--', EXPRESS_APP]);
    try {
      await ready(app, 'listening');
      const { status, body } = await get(port, '/');
      assert.equal(status, 200, String(body));
      assert.match(String(body), /^hello ::ffff:10\.77\.0\./);
    } finally {
      await app.stop();
    }
  });

  test('UDP: each client gets its own answers', async () => {
    const port = await freePort();
    const app = daemon.run(['--vnic', VNIC, '--publish', `${port}:7/udp`, '--', ECHO_APP]);
    const clients = Array.from({ length: 5 }, () => dgram.createSocket('udp4'));
    try {
      await ready(app, 'echo:');
      const answers = clients.map((client) => {
        const got: string[] = [];
        client.on('message', (bytes) => got.push(bytes.toString()));
        return got;
      });
      // The first datagram may go while its destination's address is asked for.
      await until(() => {
        clients.forEach((client, i) => {
          if (answers[i]!.length === 0) client.send(`client ${i}`, port, '127.0.0.1');
        });
        return answers.every((got) => got.length > 0);
      });
      answers.forEach((got, i) => {
        for (const text of got) assert.equal(text, `client ${i}`);
      });
    } finally {
      for (const client of clients) client.close();
      await app.stop();
    }
  });

  test('a port that is taken is refused before the program starts', async () => {
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    const app = daemon.run(['--vnic', VNIC, '--publish', `${port}:80`, '--', ECHO_APP]);
    assert.equal(await app.exited, 1);
    assert.match(app.output, /EADDRINUSE[\s\S]*choose another port/);
    assert.doesNotMatch(app.output, /echo:/);
    server.close();
  });

  test('without a VNIC of the software NIC there is nothing to lead to', async () => {
    const app = daemon.run(['--publish', '8080:80', '--', ECHO_APP]);
    assert.equal(await app.exited, 2);
    assert.match(app.output, /--vnic soft0,ip=/);
  });
});
