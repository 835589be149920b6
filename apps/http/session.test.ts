import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { TCP_END, type TcpConnection } from '../../src/arrakis/index.ts';
import { FileTree, SMALL_BYTES_MAX } from './files.ts';
import { HttpDate } from './response.ts';
import { newHttpCounters, Session, type SessionHost } from './session.ts';

/** The connection as a session uses it: a send buffer of `room` bytes, which `drain` empties. */
class FakeConnection {
  out = '';
  room = Number.POSITIVE_INFINITY;
  isPaused = false;
  isEnded = false;
  isAborted = false;
  noDelay = false;
  session: Session | null = null;

  write(bytes: Uint8Array, from: number, to: number): number {
    assert.ok(!this.isEnded && !this.isAborted, 'nothing is written after the end');
    const count = Math.min(to - from, this.room);
    this.room -= count;
    this.out += Buffer.from(bytes.subarray(from, from + count)).toString('latin1');
    return count;
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
  }
  end(): void {
    this.isEnded = true;
  }
  abort(): void {
    this.isAborted = true;
    this.session?.onClose(this as unknown as TcpConnection, TCP_END.aborted);
  }
}

let root: string;
const LARGE = Buffer.alloc(SMALL_BYTES_MAX * 10, 'large file ');
const DATE_MS = Date.UTC(2020, 0, 2, 3, 4, 5);

before(() => {
  root = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-http-'));
  fs.writeFileSync(path.join(root, 'index.html'), '<p>index</p>');
  fs.writeFileSync(path.join(root, 'a b.txt'), 'spaced');
  fs.writeFileSync(path.join(root, 'large.bin'), LARGE);
  fs.writeFileSync(path.join(root, 'empty'), '');
  fs.mkdirSync(path.join(root, 'dir'));
  fs.mkdirSync(path.join(root, 'bare'));
  fs.writeFileSync(path.join(root, 'dir', 'index.html'), 'in dir');
  fs.symlinkSync('/etc/passwd', path.join(root, 'escape'));
  fs.symlinkSync('a b.txt', path.join(root, 'inside'));
  fs.symlinkSync('loop', path.join(root, 'loop'));
});
after(() => fs.rmSync(root, { recursive: true }));

interface Client {
  host: SessionHost;
  connection: FakeConnection;
  session: Session;
  send(text: string): void;
}

function open(): Client {
  const u8 = new Uint8Array(65536);
  const nowMs = (): number => DATE_MS;
  const connection = new FakeConnection();
  const host: SessionHost = {
    u8,
    files: new FileTree(root, nowMs),
    date: new HttpDate(nowMs),
    counters: newHttpCounters(),
    tick: 0,
    largeFiles: 0,
    wake() {},
    ended() {},
  };
  const session = new Session(host, connection as unknown as TcpConnection);
  connection.session = session;
  const send = (text: string): void => {
    assert.ok(!connection.isPaused, 'a paused connection delivers nothing');
    const bytes = Buffer.from(text, 'latin1');
    u8.set(bytes, 1000);
    session.onData(connection as unknown as TcpConnection, 0, 1000, bytes.length);
    // The frame is not ours any more.
    u8.fill(0);
  };
  return { host, connection, session, send };
}

const request = (target: string, fields = '', method = 'GET'): string =>
  `${method} ${target} HTTP/1.1\r\nHost: test\r\n${fields}\r\n`;

function answer(text: string): { status: number; head: string; body: string; client: Client } {
  const client = open();
  client.send(text);
  const { out } = client.connection;
  const end = out.indexOf('\r\n\r\n') + 4;
  assert.ok(end > 4, out);
  return {
    status: Number(out.slice(9, 12)),
    head: out.slice(0, end),
    body: out.slice(end),
    client,
  };
}

async function drainAll(client: Client, room: number): Promise<void> {
  for (let i = 0; i < 10_000 && !client.connection.isEnded; i++) {
    client.connection.room = room;
    client.session.onDrain();
    if (client.connection.room === room) {
      if (!client.connection.isPaused) return;
      await delay(1);
    }
  }
}

describe('web server session', () => {
  test('a file, its head and what HEAD leaves out', () => {
    const got = answer(request('/'));
    assert.equal(got.status, 200);
    assert.equal(got.body, '<p>index</p>');
    assert.match(got.head, /\r\nContent-Length: 12\r\n/);
    assert.match(got.head, /\r\nContent-Type: text\/html; charset=utf-8\r\n/);
    assert.match(got.head, /\r\nDate: Thu, 02 Jan 2020 03:04:05 GMT\r\n/);
    assert.match(got.head, /\r\nConnection: keep-alive\r\n/);
    assert.ok(!got.client.connection.isEnded);
    const head = answer(request('/', '', 'HEAD'));
    assert.equal(head.head, got.head);
    assert.equal(head.body, '');
  });

  test('names', () => {
    assert.equal(answer(request('/a%20b.txt?x=1')).body, 'spaced');
    assert.equal(answer(request('/inside')).body, 'spaced');
    assert.equal(answer(request('/dir/')).body, 'in dir');
    assert.equal(answer(request('http://host/dir/')).body, 'in dir');
    assert.equal(answer(request('/empty')).body, '');
    assert.match(
      answer(request('/dir?q')).head,
      /^HTTP\/1.1 301 [\s\S]*\r\nLocation: \/dir\/\?q\r\n/,
    );
    assert.match(answer(request('//dir')).head, /\r\nLocation: \/dir\/\r\n/);
  });

  test('what is not served', () => {
    const status = (target: string): number => answer(request(target)).status;
    assert.equal(status('/none'), 404);
    assert.equal(status('/bare/'), 404, 'no listing');
    assert.equal(status('/index.html/'), 404);
    assert.equal(status('/escape'), 403);
    assert.equal(status('/loop'), 404);
    assert.equal(status('/../etc/passwd'), 400);
    assert.equal(status('/%2e%2e/etc/passwd'), 400);
    assert.equal(status('/dir/..%2f..%2fetc/passwd'), 400);
    assert.equal(status('/a%00b'), 400);
    assert.equal(status('/%ff'), 400);
    assert.equal(status('/%'), 400);
    assert.equal(status(`/${'a'.repeat(3000)}`), 404);
    assert.equal(answer(request('/', '', 'POST')).status, 405);
    assert.match(answer(request('/', '', 'DELETE')).head, /\r\nAllow: GET, HEAD\r\n/);
    assert.equal(answer(request('/', '', 'BREW')).status, 501);
  });

  test('conditions and ranges', () => {
    const { head } = answer(request('/'));
    const etag = /ETag: (.*)\r/.exec(head)![1]!;
    const date = /Last-Modified: (.*)\r/.exec(head)![1]!;
    const fresh = answer(request('/', `If-None-Match: ${etag}\r\n`));
    assert.equal(fresh.status, 304);
    assert.equal(fresh.body, '');
    assert.equal(answer(request('/', `If-Modified-Since: ${date}\r\n`)).status, 304);
    assert.equal(answer(request('/', 'If-None-Match: "x"\r\n')).status, 200);
    const part = answer(request('/', 'Range: bytes=3-7\r\n'));
    assert.equal(part.status, 206);
    assert.equal(part.body, 'index');
    assert.match(part.head, /\r\nContent-Range: bytes 3-7\/12\r\n/);
    assert.match(
      answer(request('/', 'Range: bytes=12-\r\n')).head,
      /^HTTP\/1.1 416 [\s\S]*bytes \*\/12\r\n/,
    );
    assert.equal(answer(request('/', 'Range: bytes=3-7\r\n', 'HEAD')).status, 200);
  });

  test('requests behind one another, cut anywhere', () => {
    const all = request('/') + request('/none') + request('/a%20b.txt', 'Connection: close\r\n');
    const whole = answer(all).client.connection;
    assert.ok(whole.isEnded);
    assert.deepEqual(whole.out.match(/HTTP\/1.1 \d+/g), [
      'HTTP/1.1 200',
      'HTTP/1.1 404',
      'HTTP/1.1 200',
    ]);
    for (let cut = 1; cut < all.length; cut++) {
      const client = open();
      client.send(all.slice(0, cut));
      client.send(all.slice(cut));
      assert.equal(client.connection.out, whole.out, `cut at ${cut}`);
    }
    const slow = open();
    for (const c of all) slow.send(c);
    assert.equal(slow.connection.out, whole.out);
    slow.send(request('/'));
    assert.equal(slow.connection.out, whole.out, 'nothing is answered after close');
  });

  test('a client that does not read stops us, and gets everything in the end', async () => {
    const client = open();
    client.connection.room = 100;
    client.send(request('/').repeat(50) + request('/').slice(0, 7));
    assert.equal(client.connection.out.length, 100);
    assert.ok(client.connection.isPaused);
    await drainAll(client, 100);
    assert.equal(client.connection.out.match(/<p>index<\/p>/g)?.length, 50);
    assert.ok(!client.connection.isPaused);
    client.send(request('/').slice(7));
    await drainAll(client, 1000);
    assert.equal(client.connection.out.match(/<p>index<\/p>/g)?.length, 51);
  });

  for (const room of [1000, 1_000_000]) {
    test(`a large file, ${room} bytes at a time, and the next request after it`, async () => {
      const client = open();
      client.connection.room = room;
      client.send(request('/large.bin') + request('/'));
      await drainAll(client, room);
      const { out } = client.connection;
      const at = out.indexOf('\r\n\r\n') + 4;
      assert.ok(Buffer.from(out.slice(at, at + LARGE.length), 'latin1').equals(LARGE));
      assert.match(out.slice(at + LARGE.length), /^HTTP\/1.1 200 [\s\S]*<p>index<\/p>$/);
    });
  }

  test('a range of a large file', async () => {
    const client = open();
    client.send(request('/large.bin', 'Range: bytes=300000-600000\r\nConnection: close\r\n'));
    await drainAll(client, 50_000);
    assert.ok(client.connection.isEnded);
    const { out } = client.connection;
    const body = Buffer.from(out.slice(out.indexOf('\r\n\r\n') + 4), 'latin1');
    assert.ok(body.equals(LARGE.subarray(300_000, 600_001)));
  });

  test('a connection that goes while a file is read leaves no descriptor', async () => {
    const before = fs.readdirSync('/proc/self/fd').length;
    for (let i = 0; i < 20; i++) {
      const client = open();
      client.send(request('/large.bin'));
      if (i % 2 === 0) await delay(1);
      client.session.onClose(client.connection as unknown as TcpConnection, TCP_END.reset);
    }
    for (let i = 0; i < 100 && fs.readdirSync('/proc/self/fd').length > before; i++)
      await delay(10);
    assert.ok(fs.readdirSync('/proc/self/fd').length <= before);
  });

  test('a file that shrinks while it is sent ends in RST', async () => {
    const file = path.join(root, 'shrinks');
    fs.writeFileSync(file, LARGE);
    const client = open();
    client.connection.room = 1000;
    client.send(request('/shrinks'));
    await delay(20);
    fs.truncateSync(file, 1000);
    await drainAll(client, 100_000);
    for (let i = 0; i < 100 && !client.connection.isAborted; i++) {
      await delay(10);
      client.connection.room = 100_000;
      client.session.onDrain();
    }
    assert.ok(client.connection.isAborted);
    assert.equal(client.host.counters.fileErrors, 1);
  });

  test('silence: 408 within a request, FIN between two, RST for who takes nothing', () => {
    const within = open();
    within.send('GET / HT');
    within.session.timeOut();
    assert.match(within.connection.out, /^HTTP\/1.1 408 /);
    assert.ok(within.connection.isEnded);
    const between = open();
    between.send(request('/'));
    const { length } = between.connection.out;
    between.session.timeOut();
    assert.equal(between.connection.out.length, length);
    assert.ok(between.connection.isEnded);
    const stuck = open();
    stuck.connection.room = 10;
    stuck.send(request('/'));
    stuck.session.timeOut();
    assert.ok(stuck.connection.isAborted);
  });

  test('half-closed: everything asked for is answered, then FIN', async () => {
    const client = open();
    client.connection.room = 10;
    client.send(request('/').repeat(2));
    client.session.onEnd();
    await drainAll(client, 100);
    assert.equal(client.connection.out.match(/<p>index<\/p>/g)?.length, 2);
    assert.ok(client.connection.isEnded);
  });

  test('a file that changes is seen after a second', () => {
    const file = path.join(root, 'changes');
    fs.writeFileSync(file, 'one');
    let nowMs = DATE_MS;
    const files = new FileTree(root, () => nowMs);
    const target = Buffer.from('/changes');
    const text = (): string => {
      const found = files.findBytes(target, 0, target.length);
      assert.ok('file' in found && found.keep !== null);
      return found.keep.bytes.toString('latin1', found.keep.headBytes);
    };
    assert.equal(text(), 'one');
    fs.writeFileSync(file, 'other');
    assert.equal(text(), 'one');
    nowMs += 1001;
    assert.equal(text(), 'other');
    fs.rmSync(file);
    nowMs += 1001;
    assert.deepEqual(files.findBytes(target, 0, target.length), { status: 404 });
  });
});
