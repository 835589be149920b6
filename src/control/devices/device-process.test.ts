import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { mock, test } from 'node:test';
import { ArrakisError } from '../../base/errors.ts';
import { LIMITS } from '../limits.ts';
import { DeviceProcess } from './device-process.ts';

const TURNS_MAX = 5000;

test('a process that always dies is tried again for ever, with longer pauses', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'device-'));
  const script = path.join(dir, 'dies.mjs');
  fs.writeFileSync(script, 'process.exit(1);\n');
  mock.timers.enable({ apis: ['setTimeout'] });
  let changes = 0;
  const died = async (count: number): Promise<void> => {
    for (let n = 0; n < TURNS_MAX && changes < 2 * count; n++) await realPause();
    assert.equal(changes, 2 * count);
  };
  const device = new DeviceProcess({
    name: 'dead0',
    owner: dir,
    script,
    args: [],
    logFd: 2,
    log: () => {},
    incarnation: 1,
    onStart: () => {},
    // With every start and every end.
    onChange: () => {
      changes++;
    },
    onEvent: () => {},
  });
  try {
    const states: string[] = [];
    // More often than the pause takes to reach its end.
    for (let count = 1; count <= 12; count++) {
      await died(count);
      states.push(device.state);
      if (count < 12) mock.timers.tick(LIMITS.deviceRestartMsMax);
    }
    assert.equal(states[0], 'restarting');
    assert.equal(states.at(-1), 'backing off');
    assert.equal(device.restarts, 11);
    // What waits longer than a request may is refused at once.
    await assert.rejects(
      device.request('stats', {}),
      (error) => error instanceof ArrakisError && error.code === 'ARK_DEVICE',
    );
  } finally {
    await device.close();
    mock.timers.reset();
    fs.rmSync(dir, { recursive: true });
  }
});

/** Timers are mocked; a worker's clock is not. */
function realPause(): Promise<void> {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  return new Promise((resolve) => setImmediate(resolve));
}
