/** `arrakis name`, the examples that talk over an endpoint, and `arrakis bench ipc`, as a user runs them. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CLI } from '../../bench/echo/lab.ts';
import type { BenchRow } from '../../bench/stats.ts';
import type { Domain } from '../../src/arrakis/index.ts';
import { TestDaemon } from '../crash/daemon.harness.ts';
import { until } from '../support/until.ts';

const WAIT_MS = 30_000;
const cli = fileURLToPath(CLI);
const example = (name: string) =>
  fileURLToPath(new URL(`../../examples/${name}.js`, import.meta.url));

let daemon: TestDaemon;
let domain: Domain;

before(async () => {
  daemon = await TestDaemon.start();
  domain = await daemon.connect({ name: 'test' });
});

after(async () => {
  await domain.close();
  await daemon.close();
});

const environment = () => ({ ...process.env, ARRAKIS_DIR: daemon.dir });

function run(args: readonly string[], expected = 0): { stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    env: environment(),
    encoding: 'utf8',
    timeout: 4 * WAIT_MS,
  });
  assert.equal(status, expected, `${args.join(' ')}: ${stderr}`);
  return { stdout, stderr };
}

const name = (...args: string[]) => run([cli, 'name', ...args]).stdout;

/** A child whose output is collected; killed at the end of `use`. */
async function running(
  args: readonly string[],
  use: (child: ChildProcess, said: (what: string) => Promise<void>) => Promise<void>,
): Promise<void> {
  const child = spawn(process.execPath, args, {
    env: environment(),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream!.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const said = (what: string) =>
    until(() => output.includes(what), WAIT_MS, `"${what}" is said; so far: ${output}`);
  try {
    await use(child, said);
  } finally {
    const ended = () => child.exitCode !== null || child.signalCode !== null;
    if (!ended()) child.kill('SIGKILL');
    await until(ended, WAIT_MS, 'the child ends');
  }
}

test('name ls and tree show what there is, and rm takes it away', async () => {
  await domain.names.make('/app/shop', { mode: 0o750 });
  const listener = await domain.listen('/app/shop/till');
  const region = await domain.createRegion(10);
  await region.bind('/app/prices', 'read');
  assert.match(name('ls'), /rwxrwxrwx .* app\//);
  assert.match(name('ls', '/app'), /rwxr-x--- .* shop\//);
  assert.match(name('ls', '/app'), new RegExp(`prices +region:${region.id} \\(read\\)`));
  assert.match(name('tree'), /├─ app\/\n│ {2}├─ prices {2}region:\d+ \(read\)\n│ {2}└─ shop\/\n/);
  assert.match(name('tree', '/app/shop'), /└─ till {2}endpoint:\d+/);
  const entries = JSON.parse(name('ls', '/app', '--json')) as { name: string; mode: number }[];
  assert.deepEqual(
    entries.map((entry) => [entry.name, entry.mode]),
    [
      ['prices', null],
      ['shop', 0o750],
    ],
  );
  const full = run([cli, 'name', 'rm', '/app/shop'], 1);
  assert.match(full.stderr, /not empty.*ARK_IN_USE/);
  assert.deepEqual(JSON.parse(name('rm', '/app/shop/till', '--json')), {
    removed: '/app/shop/till',
  });
  assert.equal((await listener.next()).done, true);
  assert.equal(listener.endReason, 'its name was removed');
  for (const bad of ['app', '/app/..', '/app//x']) run([cli, 'name', 'ls', bad], 1);
  run([cli, 'name', 'rm', '/app/nothing'], 1);
  name('rm', '/app/shop');
  name('rm', '/app/prices');
  region.close();
});

test('name watch prints what comes and goes', async () => {
  for (const [options, made, removed] of [
    [[], 'made    pond', 'removed pond'],
    [['--json'], '{"changes":[{"name":"pond","change":"made"}]', '"change":"removed"'],
  ] as const) {
    await running([cli, 'name', 'watch', '/app', ...options], async (child, said) => {
      await said('watching /app');
      await domain.names.make('/app/pond');
      await said(made);
      await domain.names.remove('/app/pond');
      await said(removed);
      child.kill('SIGINT');
      await until(() => child.exitCode === 0, WAIT_MS, 'it ends in order');
    });
  }
});

test('the two examples talk', async () => {
  await running([example('kv-server'), '/app/kv'], async (_child, said) => {
    await said('listening at /app/kv');
    const { stdout } = run([example('kv-client'), '/app/kv']);
    assert.match(stdout, /connected to kv-server of uid \d+\nmelange\nspice\nworms\n$/);
    await said('kv-client: the peer closed it');
  });
});

test('bench ipc writes a row for every system and metric', () => {
  const fast = ['--repetitions', '1', '--round-trips', '200', '--messages', '2000'];
  const only = ['--only', 'node/unix', 'arrakis/link', 'arrakis/channel'];
  const { stdout } = run([cli, 'bench', 'ipc', '--json', ...fast, ...only]);
  const rows = JSON.parse(stdout) as BenchRow[];
  assert.deepEqual(
    rows.map(({ system, metric }) => `${system} ${metric}`),
    ['node/unix', 'arrakis/link', 'arrakis/channel'].flatMap((system) => [
      `${system} rtt`,
      `${system} throughput`,
    ]),
  );
  for (const { value } of rows) assert.ok(value > 0);
  run([cli, 'bench', 'ipc', '--only', 'nobody'], 2);
});
