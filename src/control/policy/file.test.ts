/** Policy files that are none. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { ArrakisError } from '../../base/errors.ts';
import { LIMITS } from '../limits.ts';
import { machineEnvironment } from './environment.ts';
import { defaultPolicyPath, loadPolicy, readPolicyFile } from './file.ts';

let dir: string;
let count = 0;
before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'policy-'));
});
after(() => fs.rmSync(dir, { recursive: true }));

function write(content: string | Uint8Array, mode = 0o600): string {
  const file = path.join(dir, `${count++}.yaml`);
  fs.writeFileSync(file, content);
  fs.chmodSync(file, mode);
  return file;
}

const refused =
  (pattern: RegExp, code = 'ARK_POLICY') =>
  (error: unknown) =>
    error instanceof ArrakisError &&
    error.code === code &&
    pattern.test(error.message) &&
    error.hint !== undefined;

test('what stands there is not waited for, and not read without end', { timeout: 20_000 }, () => {
  assert.throws(
    () => readPolicyFile(path.join(dir, 'none')),
    refused(/no policy/, 'ARK_NOT_FOUND'),
  );
  assert.throws(() => readPolicyFile(dir), refused(/no regular file/));
  assert.throws(() => readPolicyFile('/dev/zero'), refused(/no regular file/));
  const fifo = path.join(dir, 'fifo');
  assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
  assert.throws(() => readPolicyFile(fifo), refused(/no regular file/));
  assert.throws(() => readPolicyFile(write(Buffer.alloc(10 << 20, '#'))), refused(/256 KiB/));
  const most = write('#'.repeat(LIMITS.policyBytesMax));
  assert.equal(readPolicyFile(most).length, LIMITS.policyBytesMax);
  // It says that it is empty.
  assert.ok(readPolicyFile('/proc/self/status').length > 0);
});

test('only text', () => {
  assert.throws(() => readPolicyFile(write(Uint8Array.of(0xff, 0xfe, 0x41, 0))), refused(/UTF-8/));
  const environment = machineEnvironment({ soft0: [] });
  assert.throws(() => loadPolicy(write('a\0'), environment), refused(/:1:2: a NUL byte/));
  assert.equal(loadPolicy(write('# nothing\n'), environment).policy.rules.length, 0);
});

test('what others may write is theirs to give, and refused', () => {
  for (const mode of [0o622, 0o620, 0o602]) {
    assert.throws(() => readPolicyFile(write('users: {}', mode)), refused(/written by others/));
  }
  const file = write('users: {}', 0o644);
  assert.equal(readPolicyFile(file), 'users: {}');
  if (process.getuid!() !== 0) return;
  fs.chownSync(file, 65534, 65534);
  assert.throws(() => readPolicyFile(file), refused(/written by others/));
});

test('where it is by default', () => {
  assert.equal(defaultPolicyPath(0, { HOME: '/x' }), '/etc/arrakis/policy.yaml');
  assert.equal(defaultPolicyPath(7, { HOME: '/x' }), '/x/.config/arrakis/policy.yaml');
  const own = defaultPolicyPath(7, { HOME: '/x', XDG_CONFIG_HOME: '/y' });
  assert.equal(own, '/y/arrakis/policy.yaml');
});
