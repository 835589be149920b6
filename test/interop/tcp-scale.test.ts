/**
 * Many connections between the Linux kernel and our web server, over the software NIC's TAP: all open at once, and one
 * after the other. A few of each by default; ARRAKIS_SCALE=full opens 10,000 and makes 1,000,000, which takes minutes.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { LabDaemon } from '../../bench/echo/lab.ts';
import { makeScratch, type Running, removeScratch } from '../../bench/processes.ts';
import { LeakCheck } from '../support/leaks.ts';
import { isolateNetwork } from '../support/network.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';

const HTTP_APP = fileURLToPath(new URL('../../apps/http/main.js', import.meta.url));
const ADDRESS = '10.77.0.2';
const isFull = process.env.ARRAKIS_SCALE === 'full';
const AT_ONCE = isFull ? 10_000 : 500;
const SHORT = isFull ? 1_000_000 : 3_000;
/** Handshakes, and short connections, at a time. */
const PARALLEL = 64;
const ANSWER_MS = 30_000;
const PAGE = 'a page for many';
const request = (close: boolean): string =>
  `GET / HTTP/1.1\r\nHost: ${ADDRESS}\r\n${close ? 'Connection: close\r\n' : ''}\r\n`;

const skip = rootMissing();
if (skip === false) isolateNetwork();

let root: string;
let daemon: LabDaemon;
let app: Running;
let leaks: LeakCheck;

/** One connection that asks again and again. */
class Client {
  readonly #socket: net.Socket;
  #text = '';
  #waiting: { resolve: () => void; reject: (error: Error) => void } | null = null;
  #ended: Promise<void>;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1').setNoDelay(true);
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error('no answer')));
    socket.on('data', (text) => {
      this.#text += text;
      if (!this.#text.endsWith(PAGE)) return;
      assert.match(this.#text, /^HTTP\/1.1 200 /);
      this.#text = '';
      this.#waiting?.resolve();
    });
    socket.on('error', (error) => this.#waiting?.reject(error));
    this.#ended = new Promise((resolve) => socket.on('close', () => resolve()));
  }

  static open(): Promise<Client> {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ host: ADDRESS, port: 80 });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new Client(socket));
      });
    });
  }

  ask(close = false): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#socket.write(request(close));
    });
  }

  /** Resolves when both ends have closed. */
  close(): Promise<void> {
    this.#socket.end();
    return this.#ended;
  }

  get ended(): Promise<void> {
    return this.#ended;
  }
}

/** Run `job` `count` times, PARALLEL at a time. */
async function many(count: number, job: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < count) await job(next++);
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));
}

describe('many connections from the kernel', { skip }, () => {
  before(async () => {
    leaks = new LeakCheck();
    root = makeScratch('arrakis-www-');
    fs.chmodSync(root, 0o755);
    fs.writeFileSync(path.join(root, 'index.html'), PAGE);
    daemon = await LabDaemon.start(undefined, []);
    const frames = isFull ? 32_768 : 4_096;
    const vnic = `soft0,ip=${ADDRESS}/24,frames=${frames}`;
    app = daemon.run(['--vnic', vnic, '--', HTTP_APP, '--root', root, '--idle', '600', '--stats']);
    await until(() => app.output.includes('http:') || !app.alive, ANSWER_MS, 'the web server');
  });
  after(async () => {
    await app.stop();
    await daemon.close();
    removeScratch(root);
    await leaks.assertNone();
  });

  test(`${AT_ONCE} open at once, each asked when all are`, async () => {
    const clients: Client[] = [];
    await many(AT_ONCE, async () => {
      clients.push(await Client.open());
    });
    for (let round = 0; round < 2; round++) {
      await many(AT_ONCE, (index) => clients[index]!.ask());
    }
    await many(AT_ONCE, (index) => clients[index]!.close());
  });

  test(`${SHORT} one after the other, closed by the server`, async () => {
    await many(SHORT, async () => {
      const client = await Client.open();
      await client.ask(true);
      await client.ended;
    });
    await app.stop();
    assert.match(app.output, new RegExp(`connections ${AT_ONCE + SHORT},`));
    assert.match(app.output, new RegExp(`ok ${2 * AT_ONCE + SHORT},`));
    assert.doesNotMatch(app.output, /timedOut|refused|tcpFlowsFull/);
  });
});
