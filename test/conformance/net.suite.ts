/**
 * What a program may expect of `node:net`: the same cases on the kernel's sockets and on ours. A case that passes on one
 * and not on the other is a difference, and belongs in docs/node.md.
 */
import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import net, { type NetConnectOpts, type Server, type ServerOpts, type Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { after, describe, test } from 'node:test';

export interface NetPlace {
  /** Where servers listen and clients connect to. */
  readonly address: string;
  /** Where clients connect from. */
  readonly from?: string;
  /** Connections are made and refused within this process. */
  readonly isLocal?: boolean;
}

const MEBI = 1024 * 1024;

type Options = Partial<NetConnectOpts> & { allowHalfOpen?: boolean; onread?: net.OnReadOpts };

class Stage {
  readonly #place: NetPlace;
  readonly #open: { destroy?(): void; close?(): void }[] = [];

  constructor(place: NetPlace) {
    this.#place = place;
  }

  get address(): string {
    return this.#place.address;
  }

  async server(options: ServerOpts = {}, onSocket?: (socket: Socket) => void): Promise<Server> {
    const server = net.createServer(options, (socket) => {
      this.#open.push(socket);
      socket.on('error', () => {});
      onSocket?.(socket);
    });
    this.#open.push(server);
    server.listen(0, this.#place.address);
    await once(server, 'listening');
    return server;
  }

  options(port: number, options: Options = {}): NetConnectOpts {
    const { address, from } = this.#place;
    const local = from === undefined ? {} : { localAddress: from };
    return { host: address, port, ...local, ...options } as NetConnectOpts;
  }

  /** A client, with the errors left to the test. */
  client(port: number, options: Options = {}): Socket {
    const socket = net.connect(this.options(port, options));
    this.#open.push(socket);
    return socket;
  }

  /** Both ends of a connection. */
  async pair(
    options: ServerOpts = {},
    clientOptions: Options = {},
  ): Promise<{ client: Socket; peer: Socket; server: Server }> {
    const server = await this.server(options);
    const incoming = once(server, 'connection');
    const client = this.client(portOf(server), clientOptions);
    client.on('error', () => {});
    await once(client, 'connect');
    const [peer] = (await incoming) as [Socket];
    return { client, peer, server };
  }

  /** A port that nobody listens on. */
  async closedPort(): Promise<number> {
    const server = await this.server();
    const port = portOf(server);
    server.close();
    await once(server, 'close');
    return port;
  }

  close(): void {
    for (const each of this.#open.splice(0)) {
      if (each.destroy !== undefined) each.destroy();
      else each.close?.();
    }
  }
}

const portOf = (server: Server): number => (server.address() as net.AddressInfo).port;

async function textOf(socket: Socket): Promise<string> {
  let text = '';
  for await (const chunk of socket) text += (chunk as Buffer).toString();
  return text;
}

async function errorOf(socket: Socket): Promise<NodeJS.ErrnoException & { port?: number }> {
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
  return error;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export function netSuite(name: string, place: NetPlace): void {
  describe(name, { timeout: 20_000 }, () => {
    const stage = new Stage(place);
    after(() => stage.close());
    connectCases(stage, place);
    streamCases(stage);
    readCases(stage);
    callbackCases(stage);
    endCases(stage);
    destroyCases(stage);
    serverCases(stage);
    bulkCases(stage);
    settingCases(stage);
  });
}

function connectCases(stage: Stage, place: NetPlace): void {
  test('a connection has addresses and ports at both ends', async () => {
    const { client, peer, server } = await stage.pair();
    assert.equal(client.remoteAddress, stage.address);
    assert.equal(client.remotePort, portOf(server));
    assert.equal(client.remoteFamily, 'IPv4');
    assert.equal(peer.localPort, portOf(server));
    assert.equal(peer.localAddress, stage.address);
    assert.equal(peer.remotePort, client.localPort);
    assert.equal(peer.remoteAddress, client.localAddress);
    if (place.from !== undefined) assert.equal(client.localAddress, place.from);
    assert.deepEqual(client.address(), {
      address: client.localAddress,
      family: 'IPv4',
      port: client.localPort,
    });
    assert.equal(client.readyState, 'open');
    assert.equal(client.connecting, false);
  });

  test('nobody listens: ECONNREFUSED', async () => {
    const port = await stage.closedPort();
    const client = stage.client(port);
    const error = await errorOf(client);
    assert.equal(error.code, 'ECONNREFUSED');
    assert.equal(error.syscall, 'connect');
    assert.equal(error.port, port);
    assert.equal(client.destroyed, true);
  });

  test('a client may choose its port', async () => {
    const localPort = await stage.closedPort();
    const { client, peer } = await stage.pair({}, { localPort } as Options);
    assert.equal(client.localPort, localPort);
    assert.equal(peer.remotePort, localPort);
  });

  test('what is written before the connection is there comes after it', async () => {
    const server = await stage.server({}, (socket) => socket.pipe(socket));
    const client = stage.client(portOf(server));
    client.end('early');
    assert.equal(client.connecting, true);
    assert.equal(await textOf(client), 'early');
  });

  test('destroyed while it connects: closed without an error', async () => {
    const server = await stage.server();
    const client = stage.client(portOf(server));
    client.on('connect', () => assert.fail('connected'));
    client.destroy();
    const [hadError] = await once(client, 'close');
    assert.equal(hadError, false);
  });

  test('many at once', async () => {
    const server = await stage.server({}, (socket) => socket.pipe(socket));
    const texts = await Promise.all(
      Array.from({ length: 50 }, async (_, i) => {
        const client = stage.client(portOf(server));
        client.end(`client ${i}`);
        return textOf(client);
      }),
    );
    assert.deepEqual(
      texts,
      Array.from({ length: 50 }, (_, i) => `client ${i}`),
    );
  });
}

function streamCases(stage: Stage): void {
  test('bytes of every kind of write arrive in order', async () => {
    const { client, peer } = await stage.pair();
    const text = textOf(peer);
    client.write('text ');
    client.write(Buffer.from('bytes '));
    client.write('latin1 \xe9 ', 'latin1');
    client.write('hex'.length.toString(16).padStart(2, '0'), 'hex');
    client.cork();
    client.write('corked ');
    client.write(new Uint8Array([0x61, 0x62, 0x20]));
    client.write('ucs2', 'utf16le');
    client.uncork();
    client.end('é');
    assert.equal(await text, 'text bytes latin1 \ufffd \x03corked ab u\0c\0s\x002\0é');
    assert.equal(client.bytesWritten, peer.bytesRead);
  });

  test('short writes to one who does not read keep their bytes and their order', async () => {
    const { client, peer } = await stage.pair();
    const other = await stage.pair();
    peer.pause();
    let sent = '';
    for (let i = 0; sent.length < 12 * MEBI; i++) {
      const head = `${i}: `;
      const body = String.fromCharCode(97 + (i % 26)).repeat(i % 9000);
      sent += `${head}${body}\n`;
      client.cork();
      client.write(head);
      client.write(Buffer.from(body));
      client.write('\n', 'latin1');
      client.uncork();
      client.write('');
    }
    assert.ok(client.writableLength > 0, 'it had to wait');
    other.client.cork();
    other.client.write(Buffer.alloc(8000, '#'));
    other.client.write(Buffer.alloc(8000, '#'));
    other.client.uncork();
    client.end();
    assert.ok((await textOf(peer)) === sent);
  });

  test("a write's callback comes once it is on its way, and close after all of them", async () => {
    const { client, peer } = await stage.pair();
    peer.resume();
    const order: string[] = [];
    client.write('a', () => order.push('a'));
    client.write('b', () => order.push('b'));
    client.end('c', () => order.push('finish'));
    client.on('close', () => order.push('close'));
    await once(client, 'close');
    assert.deepEqual(order, ['a', 'b', 'finish', 'close']);
  });
}

function readCases(stage: Stage): void {
  test('a paused reader is given nothing, and all of it when it resumes', async () => {
    const { client, peer } = await stage.pair();
    let bytes = 0;
    peer.on('data', (chunk) => {
      bytes += chunk.length;
    });
    peer.pause();
    client.write(Buffer.alloc(10_000));
    await pause(30);
    assert.equal(bytes, 0);
    peer.resume();
    while (bytes < 10_000) await pause(1);
    assert.equal(bytes, 10_000);
  });

  test('bufferless reading: onread', async () => {
    const server = await stage.server({}, (socket) => socket.end(Buffer.alloc(100_000, 'x')));
    const buffer = Buffer.alloc(1000);
    let bytes = 0;
    let most = 0;
    const client = stage.client(portOf(server), {
      onread: {
        buffer,
        callback: (count, into) => {
          assert.equal(into[0], 'x'.charCodeAt(0));
          bytes += count;
          most = Math.max(most, count);
          return true;
        },
      },
    });
    await once(client, 'end');
    assert.equal(bytes, 100_000);
    assert.ok(most <= 1000);
  });

  test('an iterator that stops destroys the socket', async () => {
    const { client, peer } = await stage.pair();
    client.write('first');
    for await (const chunk of peer) {
      assert.equal(String(chunk), 'first');
      break;
    }
    assert.equal(peer.destroyed, true);
  });

  test('kept chunks keep their bytes', async () => {
    const { client, peer } = await stage.pair();
    const chunks: Buffer[] = [];
    peer.on('data', (chunk) => chunks.push(chunk));
    for (let i = 0; i < 200; i++) {
      client.write(Buffer.alloc(700, i));
      if (i % 20 === 0) await pause(1);
    }
    client.end();
    await once(peer, 'end');
    const all = Buffer.concat(chunks);
    assert.equal(all.length, 140_000);
    for (let i = 0; i < all.length; i++) assert.equal(all[i], Math.floor(i / 700));
  });
}

function callbackCases(stage: Stage): void {
  test('the async context of a connection is the one it was made in', async () => {
    const storage = new AsyncLocalStorage<string>();
    const server = await stage.server({}, (socket) => socket.pipe(socket));
    const seen: (string | undefined)[] = [];
    const talk = (as: string) =>
      storage.run(as, async () => {
        const client = stage.client(portOf(server));
        client.write('x');
        client.on('data', () => {
          seen.push(`${as}=${storage.getStore()}`);
          client.end();
        });
        await once(client, 'close');
      });
    await Promise.all([talk('a'), talk('b')]);
    assert.deepEqual(seen.sort(), ['a=a', 'b=b']);
  });

  test('ticks and promises run between two callbacks', async () => {
    const server = await stage.server({}, (socket) => socket.end('x'));
    const order: string[] = [];
    const clients = [1, 2].map((i) => {
      const client = stage.client(portOf(server));
      client.on('data', () => {
        order.push(`data ${i}`);
        process.nextTick(() => order.push(`tick ${i}`));
        Promise.resolve().then(() => order.push(`promise ${i}`));
      });
      return once(client, 'close');
    });
    await Promise.all(clients);
    for (const i of [1, 2]) {
      const at = order.indexOf(`data ${i}`);
      assert.deepEqual(order.slice(at, at + 3), [`data ${i}`, `tick ${i}`, `promise ${i}`]);
    }
  });
}

function endCases(stage: Stage): void {
  test('end at one side ends the other, unless it may be half open', async () => {
    const { client, peer } = await stage.pair();
    peer.resume();
    client.resume();
    client.end();
    await Promise.all([once(client, 'close'), once(peer, 'close')]);
    assert.equal(peer.destroyed, true);
  });

  test('half open: the other direction goes on', async () => {
    const { client, peer } = await stage.pair({ allowHalfOpen: true });
    peer.resume();
    client.end('question');
    await once(peer, 'end');
    assert.equal(peer.readyState, 'writeOnly');
    await pause(20);
    peer.end('answer');
    assert.equal(await textOf(client), 'answer');
  });

  test('a reset: ECONNRESET to the reader', async () => {
    const { client, peer } = await stage.pair();
    client.resume();
    const failed = errorOf(client);
    peer.resetAndDestroy();
    const error = await failed;
    assert.equal(error.code, 'ECONNRESET');
    assert.equal(error.syscall, 'read');
  });

  test('a reset while one writes: the write fails', async () => {
    const { client, peer } = await stage.pair();
    const failed = errorOf(client);
    peer.resetAndDestroy();
    client.write(Buffer.alloc(8 * MEBI));
    const { code } = await failed;
    assert.ok(code === 'EPIPE' || code === 'ECONNRESET', code);
  });
}

function destroyCases(stage: Stage): void {
  test('a write after end is an error of its own', async () => {
    const { client } = await stage.pair();
    client.end();
    const failed = errorOf(client);
    client.write('x');
    assert.equal((await failed).code, 'ERR_STREAM_WRITE_AFTER_END');
  });

  test('destroy(error) tells it, and the peer sees an end', async () => {
    const { client, peer } = await stage.pair();
    peer.resume();
    const ended = once(peer, 'end');
    const failed = errorOf(client);
    client.destroy(new Error('enough'));
    assert.equal((await failed).message, 'enough');
    await ended;
  });

  test('what was not read when it is destroyed is a reset for the peer', async () => {
    const { client, peer } = await stage.pair({ pauseOnConnect: true });
    client.resume();
    client.write('not read');
    await pause(30);
    const failed = errorOf(client);
    peer.destroy();
    assert.equal((await failed).code, 'ECONNRESET');
  });

  test('a large write before end arrives whole', async () => {
    const { client, peer } = await stage.pair();
    let bytes = 0;
    peer.on('data', (chunk) => {
      bytes += chunk.length;
    });
    client.end(Buffer.alloc(3 * MEBI));
    await once(peer, 'end');
    assert.equal(bytes, 3 * MEBI);
  });
}

function serverCases(stage: Stage): void {
  test('a port is listened on once', async () => {
    const server = await stage.server();
    const second = net.createServer();
    second.listen(portOf(server), stage.address);
    const [error] = (await once(second, 'error')) as [NodeJS.ErrnoException];
    assert.equal(error.code, 'EADDRINUSE');
    assert.equal(error.syscall, 'listen');
  });

  test('a port is free again after close', async () => {
    const port = await stage.closedPort();
    const server = net.createServer();
    server.listen(port, stage.address);
    await once(server, 'listening');
    assert.equal(portOf(server), port);
    server.close();
  });

  test('getConnections, and close that waits for them', async () => {
    const { client, server } = await stage.pair();
    const count = await new Promise((resolve) => server.getConnections((_, n) => resolve(n)));
    assert.equal(count, 1);
    let isClosed = false;
    server.close(() => {
      isClosed = true;
    });
    await pause(20);
    assert.equal(isClosed, false);
    assert.equal(server.listening, false);
    client.destroy();
    await once(server, 'close');
    assert.equal(isClosed, true);
  });

  test('after close nobody is let in', async () => {
    const server = await stage.server();
    const port = portOf(server);
    server.close();
    assert.equal((await errorOf(stage.client(port))).code, 'ECONNREFUSED');
  });

  test('maxConnections drops what is too many', async () => {
    const server = await stage.server();
    server.maxConnections = 1;
    const first = stage.client(portOf(server));
    await once(first, 'connect');
    const dropped = once(server, 'drop');
    const second = stage.client(portOf(server));
    second.on('error', () => {});
    second.resume();
    const [data] = await dropped;
    assert.equal(data.localPort, portOf(server));
    await once(second, 'close');
    assert.equal(first.destroyed, false);
  });

  test('pauseOnConnect keeps what comes', async () => {
    let peer: Socket | undefined;
    const server = await stage.server({ pauseOnConnect: true }, (socket) => {
      peer = socket;
    });
    const client = stage.client(portOf(server));
    client.end('kept');
    await pause(40);
    assert.equal(peer!.bytesRead, 0);
    assert.equal(await textOf(peer!), 'kept');
  });
}

function bulkCases(stage: Stage): void {
  test('100 MB by pipeline, with memory that stays bounded', async () => {
    const total = 100 * MEBI;
    const chunk = Buffer.alloc(64 * 1024, 7);
    let received = 0;
    let sum = 0;
    const server = await stage.server({}, (socket) => {
      socket.on('data', (bytes) => {
        received += bytes.length;
        sum += bytes[0]!;
      });
    });
    const client = stage.client(portOf(server));
    let before = process.memoryUsage().arrayBuffers;
    let peak = 0;
    async function* source(): AsyncGenerator<Buffer> {
      for (let sent = 0; sent < total; sent += chunk.length) {
        if (sent === 16 * MEBI) before = process.memoryUsage().arrayBuffers;
        if (sent % (4 * MEBI) === 0) peak = Math.max(peak, process.memoryUsage().arrayBuffers);
        yield chunk;
      }
    }
    await pipeline(source, client);
    while (received < total) await pause(1);
    assert.equal(received, total);
    assert.ok(sum > 0);
    assert.ok(peak - before < 64 * MEBI, `${(peak - before) / MEBI} MB more`);
  });

  test('a reader that stops stops the writer', async () => {
    const { client, peer } = await stage.pair();
    peer.pause();
    const chunk = Buffer.alloc(64 * 1024);
    let isFull = false;
    for (let i = 0; i < 1000 && !isFull; i++) {
      isFull = !client.write(chunk);
      if (isFull) {
        // The other side takes some first; then it stays full.
        await Promise.race([once(client, 'drain'), pause(200)]);
        isFull = client.writableNeedDrain;
      }
    }
    assert.equal(isFull, true);
    assert.ok(client.writableLength > 0);
    const drained = once(client, 'drain');
    peer.resume();
    await drained;
  });
}

function settingCases(stage: Stage): void {
  test('setTimeout tells of silence, and not of traffic', async () => {
    const { client, peer } = await stage.pair();
    peer.pipe(peer);
    client.resume();
    let isTimedOut = false;
    client.setTimeout(150, () => {
      isTimedOut = true;
    });
    for (let i = 0; i < 6; i++) {
      client.write('x');
      await pause(50);
      assert.equal(isTimedOut, false);
    }
    await once(client, 'timeout');
    assert.equal(client.destroyed, false);
  });

  test('setNoDelay, setKeepAlive, ref and unref return the socket', async () => {
    const { client } = await stage.pair();
    assert.equal(client.setNoDelay(), client);
    assert.equal(client.setKeepAlive(true, 1000), client);
    assert.equal(client.unref(), client);
    assert.equal(client.ref(), client);
  });

  test('an AbortSignal ends a socket', async () => {
    const server = await stage.server();
    const controller = new AbortController();
    const client = net.connect({ ...stage.options(portOf(server)), signal: controller.signal });
    await once(client, 'connect');
    const failed = errorOf(client);
    controller.abort();
    assert.equal((await failed).name, 'AbortError');
  });

  test('an exception in a callback is an uncaught exception, and everything goes on', async () => {
    const server = await stage.server({}, (socket) => socket.pipe(socket));
    const client = stage.client(portOf(server));
    await once(client, 'connect');
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    const thrown = once(process, 'uncaughtException');
    client.once('data', () => {
      throw new Error('of the program');
    });
    client.write('x');
    const [error] = await thrown;
    for (const listener of listeners) process.on('uncaughtException', listener);
    assert.equal(error.message, 'of the program');
    const again = once(client, 'data');
    client.write('again');
    assert.equal(String((await again)[0]), 'again');
  });
}
