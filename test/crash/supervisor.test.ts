/** `arrakis up` leaves a supervisor: whatever kills the daemon, another goes on within a second, until `arrakis down`. */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { CLI } from '../../bench/echo/lab.ts';
import { parentOf } from '../../src/cli/processes.ts';
import {
  findLeftovers,
  keeperOf,
  removeLeftovers,
  stopSupervisors,
  supervisorsOf,
} from '../../src/control/leftovers.ts';
import { logPath, pidPath, socketPath } from '../../src/control/paths.ts';
import { isClaimed, readPid } from '../../src/control/run-directory.ts';
import { sleep, until } from '../support/until.ts';
import { isAlive, TestApp, temporaryDirectory } from './daemon.harness.ts';

const KILLS = 2;
/** About a second on a quiet machine; the tests share theirs with others. */
const REPAIR_MS = 5000;

let dir: string;
let app: TestApp | null = null;
beforeEach(() => {
  dir = temporaryDirectory();
});
afterEach(async () => {
  await app?.kill();
  app = null;
  stopSupervisors(dir);
  await until(() => supervisorsOf(dir).length === 0, 10_000, 'the supervisor ends');
  const pid = readPid(pidPath(dir));
  if (isClaimed(dir) && pid !== null) process.kill(pid, 'SIGTERM');
  await until(() => !isClaimed(dir), 10_000, 'the daemon ends');
  removeLeftovers(dir);
  fs.rmSync(dir, { recursive: true, force: true });
});

function arrakis(...args: string[]): SpawnSyncReturns<string> {
  const env = { ...process.env, ARRAKIS_DIR: dir };
  return spawnSync(process.execPath, [CLI.pathname, ...args], { encoding: 'utf8', env });
}

const daemonPid = (): number => readPid(pidPath(dir)) ?? 0;
const doctor = (): string => arrakis('doctor').stdout;

/** SIGKILL; the next daemon's pid. */
async function killDaemon(signal: NodeJS.Signals = 'SIGKILL'): Promise<number> {
  const killed = daemonPid();
  process.kill(killed, signal);
  await until(() => !isAlive(killed));
  // A daemon that starts empties the file first.
  const another = () => isClaimed(dir) && daemonPid() !== 0 && daemonPid() !== killed;
  await until(another, REPAIR_MS, 'another daemon');
  return daemonPid();
}

test('a daemon that is killed is replaced, applications hear it, and down ends everything', async () => {
  assert.equal(arrakis('up', '--no-tap').status, 0);
  const [supervisor] = supervisorsOf(dir);
  assert.equal(parentOf(daemonPid()), supervisor);
  assert.ok(doctor().includes(`supervisor pid ${supervisor}`));
  app = new TestApp({ ARRAKIS_SOCKET: socketPath(dir), APP_VNIC: 'soft0' });
  await app.says('open');
  for (let n = 0; n < KILLS; n++) {
    app.output = '';
    const startedMs = performance.now();
    // A crash as well as a kill.
    const pid = await killDaemon(n === 1 ? 'SIGABRT' : 'SIGKILL');
    await app.says('resumed 1');
    const ms = performance.now() - startedMs;
    assert.ok(ms < REPAIR_MS, `repaired after ${Math.round(ms)} ms`);
    assert.equal(parentOf(pid), supervisor);
  }
  assert.ok(!app.output.includes('gone') && !app.ended);
  const again = arrakis('up', '--no-tap');
  assert.match(again.stderr, /ARK_ALREADY_RUNNING/);
  assert.deepEqual(supervisorsOf(dir), [supervisor], 'a second up leaves no second one');
  const keeper = keeperOf(dir);
  assert.equal(arrakis('down').status, 0);
  await app.says('control-lost');
  await until(() => !isAlive(keeper) && !isAlive(supervisor!), 5000, 'all of it ends');
  await sleep(300);
  assert.ok(!isClaimed(dir), 'and nobody starts anything again');
  assert.deepEqual(findLeftovers(dir), []);
});

test('SIGTERM to the supervisor ends both in order', async () => {
  assert.equal(arrakis('up', '--no-tap').status, 0);
  const [supervisor] = supervisorsOf(dir);
  const daemon = daemonPid();
  process.kill(supervisor!, 'SIGTERM');
  await until(() => !isAlive(daemon) && !isAlive(supervisor!), 10_000, 'both end');
  assert.deepEqual(findLeftovers(dir), []);
});

test('a daemon that cannot start again is tried again, and doctor and down know of it', async () => {
  const policy = path.join(dir, 'policy.yaml');
  fs.writeFileSync(policy, '{}\n', { mode: 0o600 });
  assert.equal(arrakis('up', '--no-tap', '--policy', policy).status, 0);
  const [supervisor] = supervisorsOf(dir);
  fs.writeFileSync(policy, 'nonsense\n');
  process.kill(daemonPid(), 'SIGKILL');
  const tries = () => fs.readFileSync(logPath(dir), 'utf8').split('is started again').length - 1;
  await until(() => tries() >= 2, 15_000, 'it is tried again');
  const warning = new RegExp(`WARN.* its supervisor, pid ${supervisor}`);
  await until(() => warning.test(doctor()), 20_000, 'doctor says so');
  const served = () => fs.readFileSync(logPath(dir), 'utf8').split('"serving"').length - 1;
  fs.writeFileSync(policy, '{}\n');
  await until(() => served() === 2, 15_000, 'it comes back');
  fs.writeFileSync(policy, 'nonsense\n');
  process.kill(daemonPid(), 'SIGKILL');
  await until(() => !isClaimed(dir));
  assert.equal(arrakis('down').status, 0);
  assert.deepEqual(supervisorsOf(dir), []);
  assert.deepEqual(findLeftovers(dir), []);
});

test('a daemon that never served is not supervised: up says why', () => {
  const { status, stderr } = arrakis('up', '--no-tap', '--policy', path.join(dir, 'absent.yaml'));
  assert.equal(status, 1);
  assert.match(stderr, /absent\.yaml/);
  assert.deepEqual(supervisorsOf(dir), []);
});

test('without its supervisor a daemon goes on, and doctor says that nobody watches it', async () => {
  assert.equal(arrakis('up', '--no-tap').status, 0);
  const [supervisor] = supervisorsOf(dir);
  process.kill(supervisor!, 'SIGKILL');
  await until(() => !isAlive(supervisor!));
  assert.equal(arrakis('ls').status, 0);
  assert.match(doctor(), /not supervised/);
  assert.equal(arrakis('down').status, 0);
  assert.deepEqual(findLeftovers(dir), []);
});
