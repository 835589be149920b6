/** HTTP, TLS and HTTP/2 of Node over sockets of the kernel's and of ours: what stands on `net` must not see a difference. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net, { type AddressInfo, type Server } from 'node:net';
import { after, describe, test } from 'node:test';
import tls from 'node:tls';
import { CERTIFICATE, KEY } from '../support/certificate.ts';
import type { NetPlace } from './net.suite.ts';

const BIG = Buffer.alloc(1024 * 1024, 'z');
/** Far more than an answer takes, and less than twenty times the longest that TCP holds a part of a segment back. */
const TWENTY_ANSWERS_MS = 3000;

class Stage {
  readonly place: NetPlace;
  readonly #servers: Server[] = [];

  constructor(place: NetPlace) {
    this.place = place;
  }

  async listen(server: Server): Promise<number> {
    this.#servers.push(server);
    server.listen(0, this.place.address);
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  }

  /** Where to connect to, for `net`, `tls` and the agents of HTTP. */
  to(port: number): { host: string; port: number; localAddress?: string } {
    const { address, from } = this.place;
    return { host: address, port, ...(from === undefined ? {} : { localAddress: from }) };
  }

  close(): void {
    for (const server of this.#servers) {
      server.close();
      if ('closeAllConnections' in server) (server as http.Server).closeAllConnections();
    }
  }
}

async function bodyOf(response: http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

function request(options: http.RequestOptions, body?: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const client = options.protocol === 'https:' ? https : http;
    const outgoing = client.request({ ...options, method: body === undefined ? 'GET' : 'POST' });
    outgoing.on('response', (response) => bodyOf(response).then(resolve, reject));
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

export function httpSuite(name: string, place: NetPlace): void {
  describe(name, { timeout: 60_000 }, () => {
    const stage = new Stage(place);
    after(() => stage.close());
    httpCases(stage);
    goingCases(stage);
    tlsCases(stage);
    http2Cases(stage);
  });
}

function httpCases(stage: Stage): void {
  test('keep-alive: many requests on one connection, each answered at once', async () => {
    let connections = 0;
    const server = http.createServer((incoming, response) => {
      response.writeHead(200, { 'x-path': incoming.url! });
      response.end(`answer to ${incoming.url}`);
    });
    server.on('connection', () => connections++);
    const port = await stage.listen(server);
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const beginMs = performance.now();
    for (let i = 0; i < 20; i++) {
      assert.equal(await request({ ...stage.to(port), agent, path: `/${i}` }), `answer to /${i}`);
    }
    assert.ok(performance.now() - beginMs < TWENTY_ANSWERS_MS, 'answers wait for a timer');
    assert.equal(connections, 1);
    agent.destroy();
  });

  test('pipelining: answers in the order of the requests', async () => {
    const server = http.createServer((incoming, response) => {
      setTimeout(() => response.end(`[${incoming.url}]`), incoming.url === '/0' ? 30 : 0);
    });
    const port = await stage.listen(server);
    const socket = net.connect(stage.to(port));
    const get = (i: number, last: boolean) =>
      `GET /${i} HTTP/1.1\r\nHost: x\r\nConnection: ${last ? 'close' : 'keep-alive'}\r\n\r\n`;
    socket.write([0, 1, 2, 3].map((i) => get(i, i === 3)).join(''));
    let text = '';
    for await (const chunk of socket) text += chunk;
    assert.deepEqual(text.match(/\[[^\]]+\]/g), ['[/0]', '[/1]', '[/2]', '[/3]']);
  });

  test('bodies both ways, chunked, larger than any buffer', async () => {
    const server = http.createServer((incoming, response) => void incoming.pipe(response));
    const port = await stage.listen(server);
    const answer = await request({ ...stage.to(port), agent: false }, BIG);
    assert.equal(answer.length, BIG.length);
  });
}

function goingCases(stage: Stage): void {
  test('a client that goes away is noticed', async () => {
    const server = http.createServer();
    const port = await stage.listen(server);
    const asked = once(server, 'request');
    const client = http.get({ ...stage.to(port), agent: false });
    client.on('error', () => {});
    const [incoming, response] = await asked;
    client.destroy();
    await once(response, 'close');
    assert.equal(incoming.destroyed, true);
  });

  test('an upgraded connection is a plain one', async () => {
    const server = http.createServer();
    server.on('upgrade', (_incoming, socket) => {
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n',
      );
      socket.pipe(socket);
    });
    const port = await stage.listen(server);
    const headers = { Connection: 'upgrade', Upgrade: 'echo' };
    const client = http.get({ ...stage.to(port), agent: false, headers });
    const [, socket] = (await once(client, 'upgrade')) as [unknown, net.Socket];
    socket.write('through');
    assert.equal(String((await once(socket, 'data'))[0]), 'through');
    socket.destroy();
  });

  test('fetch', {
    skip: stage.place.from !== undefined && 'it cannot choose its address',
  }, async () => {
    const port = await stage.listen(http.createServer((_, response) => response.end('fetched')));
    const response = await fetch(`http://${stage.place.address}:${port}/`);
    assert.equal(await response.text(), 'fetched');
  });
}

const SERVER = { key: KEY, cert: CERTIFICATE };
const CLIENT = { ca: CERTIFICATE, servername: 'arrakis.test' };

function tlsCases(stage: Stage): void {
  test('TLS: verified, both ways, closed in order', async () => {
    const server = tls.createServer(SERVER, (socket) => socket.pipe(socket));
    const port = await stage.listen(server);
    const socket = tls.connect({ ...stage.to(port), ...CLIENT });
    await once(socket, 'secureConnect');
    assert.equal(socket.authorized, true);
    assert.equal(socket.remoteAddress, stage.place.address);
    assert.equal(socket.remotePort, port);
    const { raw } = socket.getPeerX509Certificate() as X509Certificate;
    assert.deepEqual(raw, new X509Certificate(CERTIFICATE).raw);
    socket.end(BIG);
    let bytes = 0;
    for await (const chunk of socket) bytes += (chunk as Buffer).length;
    assert.equal(bytes, BIG.length);
  });

  test('TLS: a name that is not in the certificate', async () => {
    const port = await stage.listen(tls.createServer(SERVER).on('tlsClientError', () => {}));
    const socket = tls.connect({ ...stage.to(port), ...CLIENT, servername: 'other.test' });
    const [error] = await once(socket, 'error');
    assert.equal(error.code, 'ERR_TLS_CERT_ALTNAME_INVALID');
  });

  test('TLS over a socket that is connected already', async () => {
    const server = tls.createServer(SERVER, (socket) => socket.end('inner'));
    const port = await stage.listen(server);
    const outer = net.connect(stage.to(port));
    await once(outer, 'connect');
    const socket = tls.connect({ socket: outer, ...CLIENT });
    let text = '';
    for await (const chunk of socket) text += chunk;
    assert.equal(text, 'inner');
  });

  test('TLS to where nobody listens, and a reset within', async () => {
    const closed = net.createServer();
    const closedPort = await stage.listen(closed);
    closed.close();
    await once(closed, 'close');
    const refused = tls.connect({ ...stage.to(closedPort), ...CLIENT });
    assert.equal((await once(refused, 'error'))[0].code, 'ECONNREFUSED');

    const server = net.createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.resetAndDestroy());
    });
    const port = await stage.listen(server);
    const socket = tls.connect({ ...stage.to(port), ...CLIENT });
    assert.equal((await once(socket, 'error'))[0].code, 'ECONNRESET');
  });

  test('https, with sessions resumed', async () => {
    const server = https.createServer(SERVER, (incoming, response) => {
      const { isSessionReused } = incoming.socket as unknown as tls.TLSSocket;
      response.end(`reused ${isSessionReused.call(incoming.socket)}`);
    });
    const port = await stage.listen(server);
    const agent = new https.Agent({ ...CLIENT, keepAlive: false });
    const options = { ...stage.to(port), protocol: 'https:', agent, ...CLIENT };
    assert.equal(await request(options), 'reused false');
    assert.equal(await request(options), 'reused true');
  });
}

function http2Cases(stage: Stage): void {
  const answer = (server: http2.Http2Server | http2.Http2SecureServer) =>
    server.on('stream', (stream, headers) => {
      stream.respond({ ':status': 200 });
      if (headers[':path'] === '/big') stream.end(BIG);
      else stream.end(`${headers[':path']}`);
    });
  const ask = async (session: http2.ClientHttp2Session, path: string): Promise<string> => {
    const stream = session.request({ ':path': path });
    const chunks: Buffer[] = [];
    for await (const chunk of stream) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks).toString();
  };
  const connect = (port: number, secure: boolean): http2.ClientHttp2Session => {
    const url = `${secure ? 'https' : 'http'}://${stage.place.address}:${port}`;
    const to = stage.to(port);
    return http2.connect(url, {
      createConnection: () =>
        secure ? tls.connect({ ...to, ...CLIENT, ALPNProtocols: ['h2'] }) : net.connect(to),
    });
  };
  for (const secure of [true, false]) {
    test(`HTTP/2 ${secure ? 'over TLS' : 'in clear text'}: streams side by side`, async () => {
      const server = secure ? http2.createSecureServer(SERVER) : http2.createServer();
      const port = await stage.listen(answer(server) as unknown as Server);
      const session = connect(port, secure);
      const paths = Array.from({ length: 20 }, (_, i) => `/${i}`);
      const texts = await Promise.all([...paths, '/big'].map((path) => ask(session, path)));
      assert.deepEqual(texts.slice(0, -1), paths);
      assert.equal(texts.at(-1)!.length, BIG.length);
      session.close();
      await once(session, 'close');
    });
  }
}
