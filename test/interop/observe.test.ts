/** show, top and metrics on a real daemon with an application, as a user sees them. */
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

before(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'arrakis-observe-'));
  succeed('up', '--no-tap');
  app = startNode(CLI, ['run', '--vnic', 'soft0,name=seen', '--', ECHO_APP], {
    env: environment(),
  });
  await until(() => app.output.includes('echo: udp'), WAIT_MS, 'the application');
});
after(async () => {
  await app?.stop();
  arrakis('down');
  fs.rmSync(dir, { recursive: true, force: true });
});

test('show tells owner, enforcement and counters, by name and by number', () => {
  const { object, counters, belonging } = JSON.parse(succeed('show', 'seen', '--json'));
  assert.equal(object.kind, 'vnic');
  assert.equal(object.detail.sendFilter, 'software NIC');
  assert.match(object.detail.dataPath, /virtio/);
  assert.equal(counters.rxPackets, 0);
  assert.ok(belonging.some((o: { kind: string }) => o.kind === 'region'));
  assert.equal(succeed('show', String(object.id)), succeed('show', 'seen'));
  assert.match(succeed('show', String(object.owner)), /^domain [\s\S]*has[\s\S]*vnic +\d+ +seen/);
  assert.match(succeed('show', 'soft0'), /^device soft0\n[\s\S]*pid +\d+/);
  const { status, stderr } = arrakis('show', 'nothing');
  assert.equal(status, 1);
  assert.match(stderr, /ARK_NOT_FOUND[\s\S]*there are: .*seen/);
});

test('top shows each VNIC in 80 columns, and as JSON', () => {
  const screen = succeed('top', '--count', '1');
  assert.match(screen, /^arrakis top/);
  assert.match(screen, /^seen +\S+ \d+ +soft0/m);
  assert.ok(
    screen.split('\n').every((line) => line.length <= 80),
    screen,
  );
  const view = JSON.parse(succeed('top', '--count', '1', '--json'));
  assert.equal(view.vnics[0].name, 'seen');
  assert.ok(view.devices[0].cpu >= 0);
});

test('metrics are served to a scraper, and nothing else is', async () => {
  assert.match(succeed('metrics'), /^arrakis_device_up\{device="soft0"\} 1$/m);
  const server = startNode(CLI, ['metrics', '--listen', '127.0.0.1:0'], { env: environment() });
  try {
    await until(() => server.output.includes('/metrics'), WAIT_MS, 'the server');
    const url = /http:\S+\/metrics/.exec(server.output)![0].replace(';', '');
    const scrapes = await Promise.all([1, 2, 3].map(() => fetch(url)));
    for (const response of scrapes) {
      assert.equal(response.status, 200);
      assert.match(response.headers.get('content-type')!, /version=0\.0\.4/);
      assert.match(await response.text(), /^arrakis_vnic_receive_packets_total\{.*name="seen"/m);
    }
    const other = await fetch(url.replace('/metrics', '/'));
    assert.equal(other.status, 404);
    await other.text();
  } finally {
    await server.stop();
  }
  assert.match(arrakis('metrics', '--listen', '9464').stderr, /ARK_USAGE/);
});
