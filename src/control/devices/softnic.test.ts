/** The software NIC as the daemon sees it, with a process that says what the test wants. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { until } from '../../../test/support/until.ts';
import { SoftNic } from './softnic.ts';

const CHANNEL = new URL('../channel.js', import.meta.url);

/** Does whatever it is asked for, and after `stats` says that ports 5 and 12 are broken. */
const LIAR = `
import { MessageChannel } from '${CHANNEL}';
const channel = new MessageChannel(3, {
  onMessage(text) {
    const { id, op } = JSON.parse(text);
    channel.send({ id, ok: true });
    if (op !== 'stats') return;
    for (const port of [5, 12]) channel.send({ event: 'portState', port, state: 'broken', reason: 'so' });
  },
  onOversized() {},
  onClose: () => process.exit(0),
});
`;

test('a process speaks for its own ports only, whatever else has such a number', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'softnic-'));
  const script = path.join(dir, 'liar.mjs');
  fs.writeFileSync(script, LIAR);
  const gone: number[] = [];
  const nic = new SoftNic({
    name: 'soft0',
    owner: dir,
    network: { address: 0x0a4d0001, prefix: 24 },
    uplink: null,
    tapName: null,
    user: null,
    cpus: null,
    bitsPerSecond: null,
    logFd: 2,
    incarnation: 1,
    isMoved: false,
    script,
    events: {
      vnicGone: (vnic) => gone.push(vnic),
      vnicQueueBroken: () => {},
      vnicReattached: () => {},
      deviceChanged: () => {},
      networkChanged: () => {},
      deviceGone: () => {},
      log: () => {},
    },
  });
  try {
    const attachment = await nic.attach({
      vnic: 12,
      address: 0x0a4d0002,
      filters: [],
      transmit: null,
      mode: 'switched',
      queue: null,
      pairs: 1,
      frameCount: 256,
      frameSize: 2048,
      ringSize: 64,
      rates: [],
      doorbells: [],
    });
    await nic.statistics();
    await until(() => gone.length > 0);
    assert.deepEqual(gone, [12]);
    await attachment.detach();
  } finally {
    await nic.close();
    fs.rmSync(dir, { recursive: true });
  }
});
