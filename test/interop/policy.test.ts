/**
 * Policy as users meet it: the snippets of docs/policy.md, the example, and a real daemon with applications of two users.
 * Each gets exactly its own.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CLI } from '../../bench/echo/lab.ts';
import { machineEnvironment } from '../../src/control/policy/environment.ts';
import { parsePolicy } from '../../src/control/policy/parse.ts';
import { isError } from '../../src/control/policy/problem.ts';
import { KEPT } from '../../src/control/privileges.ts';
import { TestDaemon, temporaryDirectory } from '../crash/daemon.harness.ts';
import { rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';

const TIMEOUT_MS = 60_000;
const ONE = 54_321;
const OTHER = 54_322;
const GROUP = 54_330;
const APP = new URL('./policy.app.js', import.meta.url).pathname;

/** The checkout: the nearest directory above the compiled tree with a package.json. */
function checkout(): string {
  let dir = import.meta.dirname;
  while (!fs.existsSync(path.join(dir, 'package.json'))) dir = path.dirname(dir);
  return dir;
}

function arrakis(args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = {}) {
  return spawnSync(process.execPath, [CLI.pathname, ...args], {
    cwd,
    encoding: 'utf8',
    timeout: TIMEOUT_MS,
    env: { ...process.env, ...env },
  });
}

describe('docs/policy.md and examples/policy.yaml', () => {
  const text = fs.readFileSync(path.join(checkout(), 'docs', 'policy.md'), 'utf8');
  const blocks = [...text.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(([, info, body]) => ({
    info: info!,
    body: body!,
  }));
  let dir: string;
  before(() => {
    dir = temporaryDirectory();
    const named = (info: string) => blocks.find((block) => block.info === info)!.body;
    fs.writeFileSync(path.join(dir, 'policy.yaml'), named('yaml'));
    fs.writeFileSync(path.join(dir, 'wrong.yaml'), named('yaml wrong'));
  });
  after(() => fs.rmSync(dir, { recursive: true }));

  test('every policy in it can be used', () => {
    const environment = machineEnvironment({ soft0: [] });
    const example = fs.readFileSync(path.join(checkout(), 'examples', 'policy.yaml'), 'utf8');
    const policies = blocks.filter(({ info }) => info === 'yaml').map(({ body }) => body);
    assert.ok(policies.length >= 2);
    for (const policy of [example, ...policies]) {
      assert.deepEqual(parsePolicy(policy, environment).problems.filter(isError), []);
    }
  });

  test('every command prints what stands there', () => {
    const sessions = blocks.filter(({ info }) => info === 'console');
    assert.ok(sessions.length >= 2);
    for (const { body } of sessions) {
      let output = '';
      for (const line of body.split('\n').filter((each) => each.startsWith('$ '))) {
        const [program, ...args] = line.slice(2).split(' ');
        assert.equal(program, 'arrakis');
        const { status, stdout, stderr } = arrakis(args, dir);
        output += `${line}\n${stdout}${stderr}${status === 0 ? '' : `[exit code ${status}]\n`}`;
      }
      assert.equal(output, body);
    }
  });

  test('the table of Linux capabilities is the list in the code', () => {
    const rows = [...text.matchAll(/^\| `CAP_(\w+)` \| (.+) \|$/gm)].map(([, name, why]) => [
      name,
      why,
    ]);
    assert.deepEqual(Object.fromEntries(rows), KEPT);
  });
});

test('policy check: exit code, places as JSON, files that are none', () => {
  const dir = temporaryDirectory();
  try {
    fs.writeFileSync(path.join(dir, 'p.yaml'), 'users:\n  nobody: {vnics: 0}\n');
    const { status, stdout } = arrakis(['policy', 'check', 'p.yaml', '--json'], dir);
    assert.equal(status, 1);
    const { ok, problems } = JSON.parse(stdout);
    assert.equal(ok, false);
    const [{ line, column, severity, message, hint }] = problems;
    assert.deepEqual([line, column, severity], [2, 19, 'error']);
    assert.ok(message.length > 0 && hint.length > 0);
    const missing = arrakis(['policy', 'check', 'none.yaml'], dir);
    assert.equal(missing.status, 1);
    assert.match(missing.stderr, /ARK_NOT_FOUND/);
    const unknown = arrakis(['policy', 'show', '--file', 'none.yaml', '--user', 'nobody'], dir);
    assert.equal(unknown.status, 1);
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
});

test('a daemon with a wrong or missing policy does not start, and says what is wrong', async () => {
  const dir = temporaryDirectory();
  const file = path.join(dir, 'policy.yaml');
  fs.writeFileSync(file, 'users: {nobody: {rate: 7}}');
  const args = (policy: string) => [
    'up',
    '--no-tap',
    '--dir',
    path.join(dir, 'run'),
    '--policy',
    policy,
  ];
  try {
    const wrong = arrakis(args(file), dir);
    assert.equal(wrong.status, 1);
    assert.match(wrong.stderr, /policy\.yaml:1:24: .*\[ARK_POLICY\]\n {2}→ arrakis policy check/);
    const missing = arrakis(args('/none/policy.yaml'), dir);
    assert.match(missing.stderr, /ARK_NOT_FOUND/);
    assert.deepEqual(fs.readdirSync(path.join(dir, 'run')), ['arrakisd.log'], 'nothing is left');
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
});

test('a daemon of another user with the HOME of root has no policy, and starts', {
  skip: rootMissing(),
}, async () => {
  const home = temporaryDirectory();
  const before = process.env.HOME;
  fs.chmodSync(home, 0o700);
  process.env.HOME = home;
  try {
    const daemon = await TestDaemon.start({ uid: ONE });
    assert.equal(daemon.ended, false, daemon.log);
    assert.match(daemon.log, /"warn","message":"no policy".*not for us to read/);
    await daemon.close();
  } finally {
    process.env.HOME = before;
    fs.rmSync(home, { recursive: true });
  }
});

/** An application of user `uid`, which does what it is told and says how it went. */
class App {
  readonly child: ChildProcess;
  output = '';

  constructor(socket: string, uid: number, groups: readonly number[] = []) {
    const identity = [`--reuid=${uid}`, `--regid=${uid}`];
    const others = groups.length === 0 ? '--clear-groups' : `--groups=${groups.join(',')}`;
    this.child = spawn('setpriv', [...identity, others, process.execPath, APP], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { PATH: process.env.PATH, ARRAKIS_SOCKET: socket },
    });
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
    });
  }

  /** What it prints for `command`, one line. */
  async ask(command: string): Promise<string> {
    const at = this.output.length;
    this.child.stdin!.write(`${command}\n`);
    const answer = () => /^= (.*)\n/m.exec(this.output.slice(at));
    await until(() => answer() !== null, 20_000, `the application answers "${command}"`);
    return answer()![1]!;
  }

  says(text: string): Promise<void> {
    return until(() => this.output.includes(text), 20_000, `the application says "${text}"`);
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null) return;
    const ended = once(this.child, 'exit');
    this.child.stdin!.end();
    await ended;
  }
}

describe('two users', { skip: rootMissing() }, () => {
  let dir: string;
  let file: string;
  let daemon: TestDaemon;
  const apps: App[] = [];
  const app = (uid: number, groups: readonly number[] = []): App => {
    const one = new App(daemon.socket, uid, groups);
    apps.push(one);
    return one;
  };
  const rule = (block: string) => `{devices: [soft0], addresses: [${block}], rate: any}`;
  const write = (text: string) => fs.writeFileSync(file, text);

  before(async () => {
    dir = temporaryDirectory();
    file = path.join(dir, 'policy.yaml');
    write(`users: {${ONE}: ${rule('10.77.0.16/28')}, ${OTHER}: ${rule('10.77.0.32/28')}}
groups: {${GROUP}: ${rule('10.77.0.64')}}
programs: {${fs.realpathSync(process.execPath)}: {names: {/app: read}}}
`);
    daemon = await TestDaemon.start({ args: ['--no-tap', '--policy', file] });
  });
  after(async () => {
    for (const one of apps) await one.end();
    await daemon.close();
    fs.rmSync(dir, { recursive: true });
  });

  test('each opens a VNIC within its range, and is refused outside', async () => {
    const [one, other] = [app(ONE), app(OTHER)];
    const own = 'device:soft0 addresses:* rate:* directory:/app';
    assert.equal(await one.ask('caps'), own);
    assert.equal(await other.ask('caps'), own);
    assert.equal(await one.ask('open soft0,ip=10.77.0.17'), 'open 10.77.0.17');
    assert.equal(await other.ask('open soft0,ip=10.77.0.33'), 'open 10.77.0.33');
    assert.equal(await one.ask('open soft0,ip=10.77.0.34'), 'ARK_NOT_PERMITTED');
    assert.equal(await other.ask('open soft0,ip=10.77.0.18'), 'ARK_NOT_PERMITTED');
    assert.equal(await one.ask('open eth0,port=udp:7'), 'ARK_NOT_PERMITTED');
    // Without an address the daemon chooses one of its own.
    assert.match(await one.ask('open soft0'), /^open 10\.77\.0\.(1[6-9]|2\d|3[01])$/);
  });

  test('a supplementary group gives what its rule says; without it there is nothing', async () => {
    const [member, stranger] = [app(60_001, [7, GROUP]), app(60_002)];
    assert.equal(await member.ask('open soft0,ip=10.77.0.64'), 'open 10.77.0.64');
    assert.equal(await stranger.ask('caps'), 'directory:/app');
    assert.equal(await stranger.ask('open soft0,ip=10.77.0.65'), 'ARK_NOT_PERMITTED');
  });

  test('SIGHUP: a broken file changes nothing; a new one takes away and gives', async () => {
    const one = app(ONE);
    assert.equal(await one.ask('open soft0,ip=10.77.0.20'), 'open 10.77.0.20');
    write('users: [');
    process.kill(daemon.pid, 'SIGHUP');
    await until(() => daemon.log.includes('the policy before stays'), 10_000);
    assert.match(daemon.log, /policy\.yaml:1:\d+: not YAML/);
    assert.equal(await one.ask('open soft0,ip=10.77.0.21'), 'open 10.77.0.21');
    write(`users: {${ONE}: ${rule('10.77.0.96/28')}}`);
    process.kill(daemon.pid, 'SIGHUP');
    await one.says('gone');
    await until(() => daemon.log.includes('"message":"policy loaded"'), 10_000);
    assert.equal(await one.ask('caps'), 'device:soft0 rate:* addresses:*');
    assert.equal(await one.ask('open soft0,ip=10.77.0.20'), 'ARK_NOT_PERMITTED');
    assert.equal(await one.ask('open soft0,ip=10.77.0.97'), 'open 10.77.0.97');
    assert.equal(await app(OTHER).ask('caps'), '');
  });

  test('the daemon that follows a killed one brings its domains to the policy that is there then', async () => {
    const one = app(ONE);
    assert.equal(await one.ask('open soft0,ip=10.77.0.98'), 'open 10.77.0.98');
    await daemon.signal('SIGKILL');
    write(`users: {${ONE}: ${rule('10.77.0.112/28')}}`);
    daemon = await TestDaemon.start({ dir: daemon.dir, args: ['--no-tap', '--policy', file] });
    await one.says('gone');
    assert.equal(await one.ask('caps'), 'device:soft0 rate:* addresses:*');
    assert.equal(await one.ask('open soft0,ip=10.77.0.98'), 'ARK_NOT_PERMITTED');
    assert.equal(await one.ask('open soft0,ip=10.77.0.113'), 'open 10.77.0.113');
  });

  test('arrakis policy reload says what it did', () => {
    write('{}');
    const { status, stdout, stderr } = arrakis(['policy', 'reload'], dir, {
      ARRAKIS_SOCKET: daemon.socket,
    });
    assert.equal(status, 0, stderr);
    assert.match(stdout, /: 0 capabilities granted, \d+ revoked\n$/);
  });
});
