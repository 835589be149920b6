/** The Linux capabilities that root's daemon keeps: those of the list, in every thread, and enough for what they are for. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Domain } from '../../src/arrakis/index.ts';
import { NIC_USER } from '../../src/control/limits.ts';
import { pidPath, portsPath } from '../../src/control/paths.ts';
import { KEPT } from '../../src/control/privileges.ts';
import { readPid } from '../../src/control/run-directory.ts';
import { capabilitiesOf } from '../../src/ffi/capabilities.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';
import { softnicPid, TestDaemon } from './daemon.harness.ts';

const NONE: string[] = [];

describe('Linux capabilities of the daemon', { skip: rootMissing() }, () => {
  let daemon: TestDaemon;
  let domain: Domain;
  before(async () => {
    daemon = await TestDaemon.start();
    domain = await daemon.connect();
  });
  after(async () => {
    await domain.close();
    await daemon.close();
  });

  test('every thread has exactly the list, and can get nothing else', () => {
    const ours = capabilitiesOf('self')[0]!.bounding;
    const expected = ours.filter((name) => Object.hasOwn(KEPT, name));
    assert.ok(ours.length > expected.length, 'this process has more to give up');
    const threads = capabilitiesOf(daemon.pid);
    assert.ok(threads.length > 4);
    for (const sets of threads) {
      assert.deepEqual(sets.permitted, expected);
      assert.deepEqual(sets.effective, expected);
      assert.deepEqual(sets.bounding, expected);
      assert.deepEqual(sets.inheritable, NONE);
      assert.deepEqual(sets.ambient, NONE);
    }
  });

  test('it is the process that was started, and its log goes on where it went', () => {
    assert.equal(readPid(pidPath(daemon.dir)), daemon.pid);
    assert.match(daemon.log, new RegExp(`"serving","pid":${daemon.pid},`));
    assert.doesNotMatch(daemon.log, /"level":"warn"/);
  });

  test('the software NIC has none', async () => {
    const pid = await softnicPid(domain);
    const uid = () => /^Uid:\s*(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))![1];
    await until(() => uid() === String(NIC_USER.uid), 5000, 'it has become its user');
    for (const { permitted, effective, inheritable, ambient } of capabilitiesOf(pid)) {
      assert.deepEqual([permitted, effective, inheritable, ambient], [NONE, NONE, NONE, NONE]);
    }
  });

  test('a software NIC that hangs is ended although it is another user, and comes again', async () => {
    const pid = await softnicPid(domain);
    process.kill(pid, 'SIGSTOP');
    try {
      await assert.rejects(domain.openVnic('soft0'));
      await softnicPid(domain, pid);
    } finally {
      if (fs.existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGCONT');
    }
  });

  test('it removes sockets from the directory of another user, the software NIC', async () => {
    const other = await TestDaemon.start();
    const ports = portsPath(other.dir);
    assert.equal(fs.statSync(ports).uid, NIC_USER.uid);
    fs.writeFileSync(path.join(ports, 'left.sock'), '');
    await other.signal('SIGTERM');
    assert.equal(fs.existsSync(ports), false);
    await other.close();
  });
});
