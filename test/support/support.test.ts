/** The helpers themselves: a test that cannot fail proves nothing. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { closeFd, eventfd } from '../../src/ffi/fd.ts';
import { createVethPair, deleteLink, linkByName } from '../../src/ffi/netlink/index.ts';
import { LeakCheck } from './leaks.ts';
import { connect, isolateNetwork, Namespace } from './network.ts';
import { packageMissing, requirePackage, requireRoot, rootMissing } from './privilege.ts';
import { until } from './until.ts';

if (rootMissing() === false) isolateNetwork();

/** Call `body` as if CI were `value`. */
function withCi<T>(value: string | undefined, body: () => T): T {
  const before = process.env.CI;
  set(value);
  try {
    return body();
  } finally {
    set(before);
  }
  function set(to: string | undefined): void {
    if (to === undefined) delete process.env.CI;
    else process.env.CI = to;
  }
}

describe('privilege', () => {
  test('a missing package skips with its reason, and fails in CI', () => {
    const reasons: (string | undefined)[] = [];
    const t = { skip: (reason?: string) => void reasons.push(reason) };
    withCi(undefined, () => assert.equal(requirePackage(t, 'no-such-program', 'some-pkg'), false));
    assert.deepEqual(reasons, ['needs no-such-program: apt-get install some-pkg']);
    withCi('true', () => assert.throws(() => requirePackage(t, 'no-such-program'), /CI=true/));
    assert.equal(packageMissing('sh'), false);
  });

  test('root is asked for in the same way', { skip: rootMissing() }, () => {
    const t = { skip: () => assert.fail('skipped as root') };
    assert.equal(requireRoot(t), true);
  });
});

describe('until', () => {
  test('it resolves when the predicate holds, and says what it waited for when not', async () => {
    let calls = 0;
    await until(() => ++calls === 3);
    await assert.rejects(
      until(() => false, 20, 'the impossible'),
      /20 ms: the impossible/,
    );
  });
});

describe('namespaces', { skip: rootMissing() }, () => {
  test('a connected namespace answers, commands and all', (t) => {
    if (!requirePackage(t, 'ping', 'iputils-ping')) return;
    const namespace = new Namespace();
    try {
      const link = connect(namespace, {
        local: { name: 'nlA', ip: '10.9.0.1', mac: '02:00:00:00:00:0a' },
        remote: { name: 'nlB', ip: '10.9.0.2', prefix: 24, mac: '02:00:00:00:00:0b' },
        pinNeighbours: true,
      });
      const ping = spawnSync('ping', ['-c', '1', '-W', '2', '10.9.0.2'], { encoding: 'utf8' });
      assert.equal(ping.status, 0, ping.stdout + ping.stderr);
      assert.match(namespace.exec('ping', ['-c', '1', '-W', '2', '10.9.0.1']), /1 received/);
      const addresses = namespace.exec('ip', ['-o', 'addr', 'show', 'dev', 'nlB']);
      assert.match(addresses, /inet 10\.9\.0\.2\/24/);
      assert.doesNotMatch(addresses, /inet6/);
      assert.match(namespace.exec('ip', ['neigh', 'show']), /02:00:00:00:00:0a PERMANENT/);
      assert.throws(() => namespace.exec('ip', ['link', 'show', 'nlA']), /exit 1\n.*nlA/);
      link.remove();
      link.remove();
      assert.equal(linkByName('nlA'), null);
    } finally {
      namespace.close();
    }
  });

  test('closing ends what was spawned inside', async () => {
    const namespace = new Namespace();
    const child = namespace.spawn('sleep', ['60']);
    namespace.close();
    namespace.close();
    await until(() => child.signalCode === 'SIGKILL');
  });

  test('the path lets another process in', () => {
    const namespace = new Namespace();
    try {
      connect(namespace, { local: { name: 'nlA' }, remote: { name: 'nlB' } }).remove();
      const enter = new URL('../../src/ffi/process.js', import.meta.url).href;
      const program = `import fs from 'node:fs';
        import { enterNetwork } from '${enter}';
        enterNetwork('${namespace.path}');
        console.log(fs.readlinkSync('/proc/thread-self/ns/net'));`;
      const args = ['--input-type=module', '-e', program];
      const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
      assert.equal(stdout, namespace.exec('readlink', ['/proc/self/ns/net']), stderr);
    } finally {
      namespace.close();
    }
  });
});

describe('leaks', { skip: rootMissing() }, () => {
  test('a descriptor and an interface that stay are named', async () => {
    const check = new LeakCheck();
    const fd = eventfd();
    createVethPair({ name: 'nlA' }, { name: 'nlB' });
    const lines = check.leaks();
    assert.equal(lines.length, 3, lines.join('\n'));
    assert.ok(lines.includes(`descriptor ${fd}: anon_inode:[eventfd]`));
    assert.ok(lines.some((line) => /^interface \d+: nlA$/.test(line)));
    await assert.rejects(check.assertNone(50), /left behind/);
    closeFd(fd);
    deleteLink('nlA');
    await check.assertNone();
  });
});
