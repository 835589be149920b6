/** The web server of the demo: a page on a VNIC, and a port of this machine that leads to it. */
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { LabDaemon } from '../../../bench/echo/lab.ts';
import { makeScratch, type Running, removeScratch } from '../../../bench/processes.ts';
import { ArrakisError } from '../../base/errors.ts';
import { formatNumber } from '../table.ts';
import { PAGE } from './page.ts';

const HTTP_APP = fileURLToPath(new URL('../../../apps/http/main.js', import.meta.url));
/** The first of these that is free. */
const PORTS = [8080, 8081, 8088, 8888, 18_080];
const READY_MS = 15_000;
const LOOK_EVERY_MS = 50;
const FETCH_MS = 5_000;
const FETCHES = 200;

export interface Web {
  readonly running: Running;
  /** Where browsers on this machine find the page. */
  readonly url: string;
}

/** Serve the demo's page at `address`. `undo` gets what ends it and removes its files. */
export async function startWeb(
  daemon: LabDaemon,
  undo: { push(step: () => void | Promise<void>): void },
  spec: string,
): Promise<Web> {
  const root = makeScratch('arrakis-page-');
  fs.chmodSync(root, 0o755);
  undo.push(() => removeScratch(root));
  fs.writeFileSync(path.join(root, 'index.html'), PAGE);
  const port = await freePort();
  const user = process.getuid!() === 0 ? ['--user', 'nobody'] : [];
  const running = daemon.run([
    ...['--vnic', spec, '--publish', `${port}:80`, ...user],
    ...['--', HTTP_APP, '--root', root],
  ]);
  undo.push(() => running.stop());
  await isReady(running, 'http: ');
  return { running, url: `http://127.0.0.1:${port}/` };
}

/** Resolves when a program of ours has said that it is there. ARK_TIMEOUT, with what it said instead. */
export async function isReady(running: Running, text: string): Promise<void> {
  const end = performance.now() + READY_MS;
  while (!running.output.includes(text)) {
    if (!running.alive || performance.now() > end) {
      throw new ArrakisError('ARK_TIMEOUT', `${running.label} did not start:\n${running.output}`);
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

async function freePort(): Promise<number> {
  for (const port of PORTS) {
    const server = net.createServer().listen(port, '127.0.0.1');
    try {
      await once(server, 'listening');
      server.close();
      await once(server, 'close');
      return port;
    } catch {
      // Somebody has it.
    }
  }
  throw new ArrakisError('ARK_IN_USE', `ports ${PORTS.join(', ')} are all in use`);
}

/** Get the page again and again over one connection of the kernel's, and say what it took: a row of the table. */
export async function fetchRow(name: string, url: string): Promise<string[]> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  try {
    const times: number[] = [];
    let bytes = 0;
    for (let i = 0; i < FETCHES; i++) {
      const begin = performance.now();
      bytes = await fetchOnce(url, agent);
      times.push((performance.now() - begin) * 1000);
    }
    times.sort((a, b) => a - b);
    const p50 = times[times.length >> 1]!;
    return [name, url, `200 OK, ${formatNumber(bytes)} bytes`, formatNumber(p50)];
  } finally {
    agent.destroy();
  }
}

function fetchOnce(url: string, agent: http.Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { agent, timeout: FETCH_MS }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part) => {
        text += part;
      });
      response.on('end', () => {
        if (response.statusCode === 200 && text === PAGE) resolve(Buffer.byteLength(text));
        else reject(new ArrakisError('ARK_DEVICE', `${url} answers ${response.statusCode}`));
      });
    });
    request.on('timeout', () => request.destroy(new Error(`no answer from ${url}`)));
    request.on('error', reject);
  });
}
