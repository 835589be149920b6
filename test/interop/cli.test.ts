/** The command line as a user meets it: real daemon, real processes, exit codes, and what the screen says. */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CLI } from '../../bench/echo/lab.ts';
import { startNode } from '../../bench/processes.ts';
import type { BenchRow } from '../../bench/stats.ts';
import { parentOf } from '../../src/cli/processes.ts';
import { LeakCheck } from '../support/leaks.ts';
import { isolateNetwork } from '../support/network.ts';
import { packageMissing, rootMissing } from '../support/privilege.ts';
import { sleep, until } from '../support/until.ts';

const isRoot = process.getuid!() === 0;
if (isRoot) isolateNetwork();
const TIMEOUT_MS = 120_000;
let dir = '';

function arrakis(
  args: readonly string[],
  options: { uid?: number } = {},
): SpawnSyncReturns<string> {
  const identity = options.uid === undefined ? {} : { uid: options.uid, gid: options.uid };
  return spawnSync(process.execPath, [CLI.pathname, ...args], {
    encoding: 'utf8',
    timeout: TIMEOUT_MS,
    env: { ...process.env, ARRAKIS_DIR: dir, XDG_RUNTIME_DIR: '' },
    ...identity,
  });
}

/** Standard output of a command that must succeed. */
function succeed(...args: string[]): string {
  const { status, stdout, stderr } = arrakis(args);
  assert.equal(status, 0, `arrakis ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

function fail(status: number, pattern: RegExp, ...args: string[]): void {
  const result = arrakis(args);
  assert.equal(result.status, status, result.stdout + result.stderr);
  assert.match(result.stderr, pattern);
}

before(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-cli-'));
});
after(() => {
  fs.rmSync(dir, { recursive: true, force: true });
});

const COMMANDS = [
  'up',
  'down',
  'run',
  'ls',
  'show',
  'top',
  'metrics',
  'doctor',
  'capture',
  'policy',
  'cap',
  'filter',
  'rate',
  'name',
  'move',
  'bench',
  'demo',
];

test('every command explains itself', () => {
  const help = succeed('--help');
  for (const command of COMMANDS) {
    assert.match(help, new RegExp(`^  ${command}\\b`, 'm'));
    assert.match(succeed(command, '--help'), /Usage: arrakis/);
  }
  assert.match(succeed('--version'), /^\d+\.\d+\.\d+\n$/);
});

test('a wrong command line ends with 2 and says where help is', () => {
  fail(2, /unknown command/, 'nonsense');
  fail(2, /unknown option/, 'ls', '--nonsense');
  fail(2, /missing required argument/, 'run');
  fail(2, /not a positive whole number/, 'bench', 'echo', '--seconds', '-1');
  fail(2, /there is no system "x"/, 'bench', 'echo', '--only', 'x');
  fail(2, /processor 999/, 'run', '--cpu', '999', '--', CLI.pathname);
  fail(2, /there is no file/, 'run', '--', 'nowhere.js');
  fail(2, /there is no program \/nowhere\/program/, 'run', '--', '/nowhere/program');
  fail(2, /it is not in PATH; here it would be \.\/nowhere/, 'run', '--', 'nowhere');
  fail(2, /not executable[\s\S]*chmod \+x \/etc\/passwd/, 'run', '--', '/etc/passwd');
  for (const bench of ['echo', 'ipc', 'doorbell', 'protection']) {
    fail(2, /cannot write \/nowhere\/out/, 'bench', bench, '--json', '/nowhere/out');
  }
  fail(2, /there is no user/, 'run', '--user', 'n0body', '--', CLI.pathname);
});

test('without a daemon every command that needs one says how to start it', () => {
  for (const args of [['ls'], ['down'], ['capture', 'x', '-w', '-'], ['run', '--', CLI.pathname]]) {
    fail(1, /ARK_NO_DAEMON[\s\S]*arrakis up/, ...args);
  }
});

test('doctor says which daemon the commands speak to, also where it is not our own', () => {
  const socket = path.join(dir, 'elsewhere.sock');
  fs.writeFileSync(socket, '');
  try {
    const { stdout } = spawnSync(process.execPath, [CLI.pathname, 'doctor'], {
      encoding: 'utf8',
      env: { ...process.env, ARRAKIS_DIR: dir, ARRAKIS_SOCKET: socket },
    });
    assert.ok(stdout.includes(`none of your own in ${dir}; commands go to ${socket}`), stdout);
  } finally {
    fs.rmSync(socket);
  }
  assert.ok(succeed('doctor').includes(`not running in ${dir}`));
});

test('up, a second up, ls, run, down', () => {
  assert.match(succeed('up', '--no-tap'), /arrakisd runs, pid \d+/);
  try {
    fail(1, /ARK_ALREADY_RUNNING/, 'up', '--no-tap');
    assert.match(succeed('doctor'), /ok {4}arrakisd/);
    assert.match(succeed('ls'), /soft0 +softnic +running/);
    const listing = JSON.parse(succeed('ls', '--json'));
    assert.equal(listing.devices[0].name, 'soft0');
    fail(1, /there is no VNIC "x"/, 'capture', 'x', '-w', '/dev/null');
    fail(1, /ARK_BAD_ARGUMENT/, 'run', '--vnic', 'soft0,ip=1.2.3', '--', CLI.pathname);
    fail(1, /there is no domain "x"/, 'move', 'x', '0');
    assert.match(succeed('policy', 'reload'), /0 capabilities granted/);
    const code = isRoot ? /ARK_NOT_FOUND[\s\S]*soft0 is the software NIC/ : /ARK_NOT_PERMITTED/;
    fail(1, code, 'run', '--vnic', 'eth77,port=udp:7', '--', CLI.pathname);
    assert.equal(arrakis(['run', '--', 'sh', '-c', 'exit 7']).status, 7);
    const list = ['-c', 'ls /proc/self/fd'];
    const plain = spawnSync('sh', list, { encoding: 'utf8' }).stdout.trim().split('\n');
    const inherited = succeed('run', '--', 'sh', ...list)
      .trim()
      .split('\n');
    assert.equal(inherited.length, plain.length + 1, 'one descriptor more than any child has');
  } finally {
    assert.match(succeed('down'), /has ended/);
  }
  assert.deepEqual(
    fs.readdirSync(dir).filter((name) => name !== 'arrakisd.log'),
    [],
  );
});

test('doctor finds what a killed daemon left, and --fix removes it', () => {
  succeed('up', '--no-tap');
  const pid = Number(fs.readFileSync(path.join(dir, 'arrakisd.pid'), 'utf8'));
  // Its supervisor first, which would start another.
  process.kill(parentOf(pid), 'SIGKILL');
  assert.match(succeed('doctor'), /ok {4}arrakisd .*not supervised/);
  process.kill(pid, 'SIGKILL');
  const end = Date.now() + 5000;
  while (fs.existsSync(`/proc/${pid}/exe`) && Date.now() < end) spawnSync('sleep', ['0.02']);
  assert.match(succeed('doctor'), /WARN {2}arrakisd +was killed .* its keeper, pid \d+/);
  const fixed = JSON.parse(succeed('doctor', '--fix', '--json'));
  assert.ok(fixed.removed.length > 0);
  assert.ok(!fixed.findings.some((f: { detail: string }) => /was killed/.test(f.detail)));
  succeed('up', '--no-tap');
  succeed('down');
});

describe('demo and bench, as root', { skip: rootMissing() || packageMissing('gcc') }, () => {
  test('demo --once shows the table and leaves nothing behind', async () => {
    const leaks = new LeakCheck();
    const begin = Date.now();
    const screen = succeed('demo', '--once');
    assert.ok(Date.now() - begin < 60_000, 'under a minute');
    for (const shape of ['software NIC, over TAP', 'AF_XDP direct', 'AF_XDP switched']) {
      assert.match(screen, new RegExp(`${shape} +[\\d.]+ +10/10 +[\\d,]+ +1000/1000`));
    }
    for (const system of ['kernel/c', 'kernel/node-dgram', 'arrakis/af-xdp-direct']) {
      assert.match(screen, new RegExp(`^${system} +veth +[\\d,]+`, 'm'));
    }
    await leaks.assertNone();
  });

  test('Ctrl-C in any phase ends the demo and leaves nothing behind', async () => {
    const leaks = new LeakCheck();
    const scratch = fs.mkdtempSync(path.join(dir, 'tmp-'));
    for (const afterMs of [600, 2500, 5000]) {
      const demo = startNode(CLI, ['demo'], { env: { TMPDIR: scratch } });
      await sleep(afterMs);
      demo.child.kill('SIGINT');
      await until(() => !demo.alive, 15_000, `the demo to end, interrupted after ${afterMs} ms`);
      assert.equal(demo.child.exitCode, 0, demo.output);
      assert.deepEqual(fs.readdirSync(scratch), [], 'temporary folders');
    }
    await leaks.assertNone();
  });

  test('an ordinary user gets the software NIC and is told what root would add', () => {
    const { status, stdout, stderr } = arrakis(['demo', '--once'], { uid: 65534 });
    assert.equal(status, 0, stdout + stderr);
    assert.match(stdout, /Root would add/);
    assert.match(stdout, /^arrakis\/virtio +softnic +[\d,]+/m);
  });

  test('bench echo writes a row for every system and metric', () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-bench-'));
    try {
      const file = path.join(folder, 'out.json');
      const fast = ['--repetitions', '1', '--seconds', '1', '--round-trips', '500'];
      succeed('bench', 'echo', '--json', file, ...fast);
      const rows = JSON.parse(fs.readFileSync(file, 'utf8')) as BenchRow[];
      const wanted = ['kernel/c', 'kernel/node-dgram', 'arrakis/af-xdp-direct'];
      for (const system of [...wanted, 'arrakis/af-xdp-switched', 'arrakis/virtio']) {
        const rate = rows.find((r) => r.system === system && r.metric === 'throughput');
        const trip = rows.find((r) => r.system === system && r.metric === 'rtt');
        assert.ok(rate !== undefined && rate.value > 0, `${system} throughput`);
        assert.equal(rate.unit, 'packets/s');
        assert.ok(trip !== undefined && trip.p50! > 0 && trip.p999! >= trip.p50!, `${system} rtt`);
      }
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  });
});
