/** `arrakis metrics`: counters in the text format of Prometheus, once or as an HTTP server. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Command } from 'commander';
import { connect, type Domain } from '../../arrakis/index.ts';
import { ArrakisError } from '../../base/errors.ts';
import { collectMetrics } from '../metrics.ts';
import { takeSnapshot } from '../snapshot.ts';

const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
/** A scrape that comes while this many wait is refused: somebody asks faster than we answer. */
const SCRAPES_MAX = 8;

export function registerMetrics(program: Command): void {
  program
    .command('metrics')
    .description('counters for Prometheus: printed once, or served at /metrics')
    .option('--listen <host:port>', 'serve HTTP here, such as 127.0.0.1:9464 or [::1]:9464')
    .action(async ({ listen }: { listen?: string }) => {
      const at = listen === undefined ? null : parseListen(listen);
      const domain = await connect({ name: 'arrakis-metrics' });
      try {
        if (at === null) process.stdout.write(await collectMetrics(await takeSnapshot(domain)));
        else await serve(domain, at);
      } finally {
        await domain.close();
      }
    });
}

function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new ArrakisError('ARK_USAGE', `--listen is not ${text}`, {
      hint: 'write it as 127.0.0.1:9464',
    });
  }
  return { host: (match[1] ?? match[2])!, port };
}

/** Until Ctrl-C, or until the daemon is gone: whoever supervises us starts us again. */
async function serve(domain: Domain, at: { host: string; port: number }): Promise<void> {
  let waiting = 0;
  const server = http.createServer((request, response) => {
    if (request.method !== 'GET' || request.url !== '/metrics') {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('GET /metrics\n');
      return;
    }
    if (waiting >= SCRAPES_MAX) {
      response.writeHead(503, { 'content-type': 'text/plain' }).end('too many scrapes at once\n');
      return;
    }
    waiting++;
    takeSnapshot(domain)
      .then(collectMetrics)
      .then((text) => response.writeHead(200, { 'content-type': CONTENT_TYPE }).end(text))
      .catch((error: Error) => {
        response.writeHead(503, { 'content-type': 'text/plain' }).end(`${error.message}\n`);
      })
      .finally(() => {
        waiting--;
      });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(at.port, at.host, resolve);
  }).catch((error: NodeJS.ErrnoException) => {
    throw new ArrakisError('ARK_IN_USE', `cannot listen at ${at.host}:${at.port}: ${error.code}`, {
      hint: 'choose another address or port',
    });
  });
  const { port } = server.address() as AddressInfo;
  process.stderr.write(`http://${at.host}:${port}/metrics; Ctrl-C ends it\n`);
  await new Promise<void>((resolve) => {
    process.once('SIGINT', resolve);
    process.once('SIGTERM', resolve);
    domain.once('control-lost', () => resolve());
  });
  server.close();
  server.closeAllConnections();
}
