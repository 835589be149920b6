/** Sharing between real processes of different users: readers that try to write, peers that die or lie. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Domain } from '../../src/arrakis/index.ts';
import { openFds } from '../../src/ffi/fd.ts';
import { TestDaemon } from '../crash/daemon.harness.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';

const SCRIPT = fileURLToPath(new URL('./sharing.app.js', import.meta.url));
const WAIT_MS = 20_000;
/** Two users that nobody else is. */
const ALICE = 64_901;
const BOB = 64_902;

class App {
  readonly child: ChildProcess;
  readonly lines: Record<string, unknown>[] = [];
  #rest = '';

  constructor(role: string, path: string, uid: number) {
    const identity = process.getuid!() === 0 ? { uid, gid: uid } : {};
    this.child = spawn(process.execPath, [SCRIPT, role, daemon.socket, path], {
      ...identity,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      const lines = (this.#rest + text).split('\n');
      this.#rest = lines.pop()!;
      for (const line of lines) this.lines.push(JSON.parse(line));
    });
    apps.push(this);
  }

  get ended(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** The next line. */
  async says(): Promise<Record<string, unknown>> {
    await until(
      () => this.lines.length > 0 || this.ended,
      WAIT_MS,
      'the application says something',
    );
    assert.ok(this.lines.length > 0, 'it ended without a word');
    return this.lines.shift()!;
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await until(() => this.ended, WAIT_MS, 'the application ends');
  }
}

let daemon: TestDaemon;
let root: Domain;
const apps: App[] = [];

describe('sharing', { skip: rootMissing() }, () => {
  before(async () => {
    daemon = await TestDaemon.start();
    root = await daemon.connect({ name: 'root' });
  });

  afterEach(async () => {
    for (const app of apps.splice(0)) await app.kill();
  });

  after(async () => {
    await root.close();
    await daemon.close();
  });

  test('a reader of another user can neither map, nor write, nor reopen a region to write', async () => {
    const region = await root.createRegion(4096);
    Buffer.from(region.buffer).write('hello');
    await region.bind('/app/data', 'read');
    const app = new App('read', '/app/data', BOB);
    assert.deepEqual(await app.says(), {
      text: 'hello',
      writable: false,
      mapWritable: 'EACCES',
      mapReadable: 'done',
      write: 'EBADF',
      reopen: 'EACCES',
      chmod: 'EPERM',
      truncate: 'EINVAL',
    });
    await root.names.remove('/app/data');
    region.close();
  });

  test('what is mapped stays when it is revoked, the owner hears of it, and nothing new is handed out', async () => {
    const region = await root.createRegion(4096);
    const bytes = new Uint8Array(region.buffer);
    bytes[0] = 1;
    await region.bind('/app/data', 'read');
    const app = new App('hold', '/app/data', BOB);
    assert.deepEqual(await app.says(), { first: 1 });
    const held = new Promise((resolve) => root.once('region-held', (...args) => resolve(args)));
    bytes[0] = 2;
    await root.revoke(region.cap);
    assert.deepEqual(await app.says(), { revoked: true, again: 'ARK_NOT_FOUND', first: 2 });
    const [id, domains] = (await held) as [number, number[]];
    assert.equal(id, region.id);
    assert.equal(domains.length, 1);
    await root.revoke(region.cap, { whole: true });
    region.close();
  });

  test('requests and answers between two users, who are told of each other', async () => {
    const app = new App('echo', '/app/echo', ALICE);
    await app.says();
    const channel = await root.connect('/app/echo');
    assert.deepEqual(
      { uid: channel.peer.uid, pid: channel.peer.pid, name: channel.peer.name },
      { uid: ALICE, pid: app.child.pid, name: 'echo' },
    );
    const { connected } = (await app.says()) as { connected: { uid: number; pid: number } };
    assert.deepEqual([connected.uid, connected.pid], [0, process.pid]);
    for (let n = 0; n < 300; n++) assert.deepEqual(await channel.request({ n }), { n });
    // Longer than both sides spin: the bells work.
    for (let n = 0; n < 5; n++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(await channel.request(n), n);
    }
    channel.close();
    assert.deepEqual(await app.says(), { closed: 'the peer closed it' });
  });

  test('a listener that is killed is noticed at once, and its name goes', async () => {
    const app = new App('echo', '/app/echo', ALICE);
    await app.says();
    const channel = await root.connect('/app/echo');
    assert.equal(await channel.request('x'), 'x');
    const closed = new Promise((resolve) => channel.once('close', resolve));
    await app.kill();
    const started = performance.now();
    assert.equal(await closed, 'the peer ended');
    assert.ok(performance.now() - started < WAIT_MS);
    await assert.rejects(channel.request('y'), { code: 'ARK_GONE' });
    await until(
      async () => (await root.names.list('/app')).length === 0,
      WAIT_MS,
      'the name disappears',
    );
  });

  test('of a peer that is killed in the middle of a message everything before it arrives', async () => {
    const before = openFds().length;
    const listener = await root.listen('/app/here');
    const app = new App('half', '/app/here', BOB);
    const { value: channel } = await listener.next();
    assert.equal(channel.peer.uid, BOB);
    const got: unknown[] = [];
    channel.on('message', (message: unknown) => got.push(message));
    const closed = new Promise((resolve) => channel.once('close', resolve));
    await app.says();
    await app.kill();
    assert.equal(await closed, 'the peer ended');
    assert.deepEqual(got, ['whole']);
    await listener.close();
    await until(() => openFds().length <= before, WAIT_MS, 'every descriptor is closed');
  });

  test('a peer that writes garbage loses its channel, with a reason, and nobody else does', async () => {
    const listener = await root.listen('/app/here');
    const app = new App('garbage', '/app/here', BOB);
    for (const what of [/position/, /JSON/]) {
      const { value: channel } = await listener.next();
      const reason = await new Promise((resolve) => channel.once('close', resolve));
      assert.match(String(reason), /broke the protocol/);
      assert.match(String(reason), what);
      assert.equal((await app.says()).ended, 'the peer closed it');
    }
    await listener.close();
  });

  test('a served directory between users', async () => {
    const region = await root.createRegion(100);
    Buffer.from(region.buffer).write('shard');
    const asked: unknown[] = [];
    await root.names.serve('/app/shards', (path, peer) => {
      asked.push([path, peer.uid]);
      return path === '/7' ? { cap: region.cap, rights: ['read'] } : null;
    });
    const app = new App('read', '/app/shards/7', BOB);
    assert.equal((await app.says()).text, 'shard');
    const wrong = new App('read', '/app/shards/8', BOB);
    assert.deepEqual(await wrong.says(), { failed: 'ARK_NOT_FOUND' });
    assert.deepEqual(asked, [
      ['/7', BOB],
      ['/8', BOB],
    ]);
    region.close();
  });

  test('an application of another user may not write into the tree but where it is let', async () => {
    const app = new App('echo', '/net/mine', ALICE);
    assert.deepEqual(await app.says(), { failed: 'ARK_NOT_PERMITTED' });
    const watch = await root.names.watch('/app');
    const other = new App('echo', '/app/mine', ALICE);
    await other.says();
    const { value } = await watch.next();
    assert.deepEqual(value.changes, [{ name: 'mine', change: 'bound' }]);
    await other.kill();
    const { value: then } = await watch.next();
    assert.deepEqual(then.changes, [{ name: 'mine', change: 'removed' }]);
    await watch.close();
  });
});
