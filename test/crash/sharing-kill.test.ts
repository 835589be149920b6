/** What domains share goes on when the daemon is killed: channels and memory without it, names and listeners with the next. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import type { Domain } from '../../src/arrakis/index.ts';
import { rootMissing } from '../support/privilege.ts';
import { TestDaemon } from './daemon.harness.ts';

const resumed = (domain: Domain): Promise<unknown> =>
  new Promise((resolve) => domain.once('resumed', () => resolve(null)));

test('channels, listeners, regions, names and watches outlive the daemon', {
  skip: rootMissing(),
}, async () => {
  let daemon = await TestDaemon.start();
  const { dir } = daemon;
  const server = await daemon.connect({ name: 'server' });
  const client = await daemon.connect({ name: 'client' });
  try {
    const listener = await server.listen('/app/kv');
    const accept = async (): Promise<void> => {
      const { value } = await listener.next();
      value.serve((message: unknown) => message);
    };
    const region = await server.createRegion(4096);
    new Uint8Array(region.buffer)[0] = 7;
    await region.bind('/app/data', 'read');
    const watch = await client.names.watch('/app');
    const first = client.connect('/app/kv');
    await accept();
    const channel = await first;
    assert.equal(await channel.request('before'), 'before');

    await daemon.signal('SIGKILL');
    // Nobody is there: the two do not notice.
    for (let n = 0; n < 100; n++) assert.equal(await channel.request(n), n);
    const both = Promise.all([resumed(server), resumed(client)]);
    daemon = await TestDaemon.start({ dir });
    await both;
    assert.equal(await channel.request('after'), 'after');
    assert.deepEqual((await watch.next()).value, { changes: [], more: true });
    const { capability } = await client.names.lookup('/app/data');
    const view = await client.openRegion(capability!.cap);
    assert.equal(new Uint8Array(view.buffer)[0], 7);
    const second = client.connect('/app/kv');
    await accept();
    assert.equal(await (await second).request('new'), 'new');
    await server.names.make('/app/later');
    assert.deepEqual((await watch.next()).value.changes, [{ name: 'later', change: 'made' }]);
    const closed = new Promise((resolve) => channel.once('close', resolve));
    await server.close();
    assert.equal(await closed, 'the peer closed it');
    // Its names went with it, in the daemon that has never seen it make them.
    for (;;) {
      const { value } = await watch.next();
      const names = (await client.names.list('/app')).map((entry) => entry.name);
      if (names.length === 0) break;
      assert.ok(value !== undefined, 'the watch goes on');
    }
    view.close();
    region.close();
  } finally {
    await client.close();
    await server.close();
    await daemon.close();
    fs.rmSync(dir, { recursive: true, force: true });
  }
});
