/** `arrakis filter` on a real daemon with an application, as a user sees it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { CLI, ECHO_APP } from '../../bench/echo/lab.ts';
import { type Running, startNode } from '../../bench/processes.ts';
import { until } from '../support/until.ts';

const WAIT_MS = 30_000;
let dir = '';
let app: Running;

const environment = (): Record<string, string> => ({ ARRAKIS_DIR: dir, XDG_RUNTIME_DIR: '' });

function arrakis(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [CLI.pathname, ...args], {
    encoding: 'utf8',
    timeout: WAIT_MS,
    env: { ...process.env, ...environment() },
  });
}

function succeed(...args: string[]): string {
  const { status, stdout, stderr } = arrakis(...args);
  assert.equal(status, 0, stdout + stderr);
  return stdout;
}

interface Row {
  direction: string;
  filter: number | null;
  text: string;
}
const rows = (): Row[] => JSON.parse(succeed('filter', 'ls', 'web', '--json'));

before(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-filter-'));
  succeed('up', '--no-tap');
  const spec = 'soft0,ip=10.77.0.9/24,name=web';
  app = startNode(CLI, ['run', '--vnic', spec, '--', ECHO_APP], { env: environment() });
  await until(() => app.output.includes('echo: udp'), WAIT_MS, 'the application');
});
after(async () => {
  await app?.stop();
  arrakis('down');
  fs.rmSync(dir, { recursive: true, force: true });
});

test('filters of a running application are changed, and listed as they took effect', () => {
  assert.deepEqual(
    rows().map(({ direction, text }) => [direction, text]),
    [
      ['receive', 'dst host 10.77.0.9'],
      ['transmit', '(the mirror of receive)'],
    ],
  );
  const own = 'dst host 10.77.0.9';
  const set = succeed('filter', 'set', 'web', 'udp dst port 7', 'icmp');
  assert.match(set, new RegExp(`^\\d+: udp and ${own} and dst port 7\n\\d+: icmp and ${own}\n$`));
  const added = JSON.parse(succeed('filter', 'add', 'web', '--json', 'tcp', 'dst', 'port', '80'));
  assert.equal(added.text, `tcp and ${own} and dst port 80`);
  succeed('filter', 'replace', 'web', String(added.filter), 'tcp dst portrange 80-81');
  succeed('filter', 'add', 'web', '--transmit', 'udp src port 7');
  assert.deepEqual(
    rows().map(({ text }) => text),
    [
      `udp and ${own} and dst port 7`,
      `icmp and ${own}`,
      `tcp and ${own} and dst portrange 80-81`,
      'udp and src host 10.77.0.9 and src port 7',
    ],
  );
  assert.match(succeed('ls'), /web: udp and dst host .*; icmp .*\n {2}sends: udp and src host/);
  succeed('filter', 'rm', 'web', String(added.filter));
  succeed('filter', 'set', 'web', '--mirror');
  assert.equal(rows().length, 3);
  assert.match(
    succeed('filter', 'ls'),
    /^FILTER +VNIC +DIRECTION[\s\S]*web +transmit +- +\(the mirror/,
  );
});

test('what is wrong is shown with its place, its owner, its number', () => {
  const fails = (pattern: RegExp, ...args: string[]): void => {
    const { status, stderr } = arrakis('filter', ...args);
    assert.match(stderr, pattern);
    assert.notEqual(status, 0);
  };
  fails(/udp dst prt\n {10}\^ \[ARK_BAD_ARGUMENT\]/, 'check', 'udp dst prt');
  fails(/ {6}\^ \[ARK_BAD_ARGUMENT\]/, 'add', 'web', 'udp &');
  fails(/no filter 9999 \[ARK_NOT_FOUND\]/, 'rm', 'web', '9999');
  fails(/no VNIC "nobody"/, 'ls', 'nobody');
  fails(/\[ARK_USAGE\]/, 'set', 'web', '--mirror', 'udp');
});

test('check shows canonical text and boxes without a daemon', () => {
  const { text, boxes } = JSON.parse(succeed('filter', 'check', '--json', 'udp dst port 7 or 8'));
  assert.equal(text, 'udp and dst portrange 7-8');
  assert.deepEqual(boxes, [
    {
      protocol: [17, 17],
      source: ['0.0.0.0', '255.255.255.255'],
      sourcePort: [0, 65535],
      destination: ['0.0.0.0', '255.255.255.255'],
      destinationPort: [7, 8],
      withoutPorts: false,
    },
  ]);
  assert.match(succeed('filter', 'check', 'icmp'), /^icmp\n\nPROTOCOL[\s\S]* 1 +any/);
});
