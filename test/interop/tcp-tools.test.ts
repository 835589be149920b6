/**
 * Tools that send what no honest peer does, against TCP on the software NIC's TAP: nmap's scans, hping3's floods, and
 * scapy's random packets. The echo application must outlive them, and answer honest peers meanwhile and afterwards.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { ECHO_APP, LabDaemon } from '../../bench/echo/lab.ts';
import type { Running } from '../../bench/processes.ts';
import { isolateNetwork } from '../support/network.ts';
import { packageMissing, rootMissing } from '../support/privilege.ts';
import { until } from '../support/until.ts';

const skip =
  rootMissing() ||
  packageMissing('nmap') ||
  packageMissing('hping3') ||
  packageMissing('scapy', 'python3-scapy');
if (skip === false) isolateNetwork();

/** What waits for seconds by itself. */
const skipLong = process.env.ARRAKIS_TOOLS !== 'all' && 'takes long: ARRAKIS_TOOLS=all';

const VNIC = '10.77.0.2';
const PORT = 7;
/** What is not answered is asked for once more, and no longer. */
const QUICK = ['-T5', '--max-retries', '1'];
const READY_MS = 15_000;
const TOOL_MS = 60_000;
/** An honest peer may wait for a while behind a flood. */
const ECHO_MS = 8000;
const FLOOD_MS = 600;

interface Outcome {
  readonly output: string;
  readonly status: number | null;
}

/** Run a tool to its end, or for `forMs`. */
function runTool(command: string, args: readonly string[], forMs = TOOL_MS): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), forMs);
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    child.stderr.on('data', (chunk) => {
      output += chunk;
    });
    child.on('error', reject);
    child.on('close', (status) => {
      clearTimeout(timer);
      resolve({ output, status });
    });
  });
}

/** What an honest peer says comes back, and the connection ends in order. */
function echo(text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host: VNIC, port: PORT });
    socket.setTimeout(ECHO_MS, () => socket.destroy(new Error('the echo does not come')));
    let heard = '';
    socket.on('connect', () => socket.end(text));
    socket.on('data', (chunk) => {
      heard += chunk;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(heard));
  });
}

/** The interface on which the kernel has the other end's address. */
function tapName(): string {
  const lines = execFileSync('ip', ['-o', '-4', 'addr', 'show'], { encoding: 'utf8' }).split('\n');
  const line = lines.find((text) => text.includes(' 10.77.0.1/'));
  assert.ok(line !== undefined, lines.join());
  return line.split(/\s+/)[1]!;
}

/** Random TCP over IPv4: fields, options, lengths, fragments. */
const SCAPY_PACKETS = skipLong === false ? 20_000 : 300;
const SCAPY = `
import random, sys
from scapy.all import *
conf.verb = 0
random.seed(7)
socket = conf.L2socket(iface=sys.argv[1])
ether = Ether(src=get_if_hwaddr(sys.argv[1]), dst=getmacbyip('${VNIC}'))
base = IP(src='10.77.0.1', dst='${VNIC}')
for i in range(${SCAPY_PACKETS}):
    tcp = fuzz(TCP(dport=${PORT}, sport=random.randint(1024, 65535)))
    kind = i % 4
    if kind == 0: packet = base / TCP(bytes(tcp))
    elif kind == 1: packet = base / tcp / Raw(os.urandom(random.randint(0, 1200)))
    elif kind == 2: packet = base / TCP(dport=${PORT}, flags=random.randint(0, 511), options=[(random.randint(2, 30), os.urandom(random.randint(0, 12)))])
    else: packet = IP(src='10.77.0.1', dst='${VNIC}', flags=random.randint(0, 7), frag=random.choice([0, 0, 1, 3, 185])) / TCP(dport=${PORT}, flags='S') / Raw(b'x' * random.randint(0, 64))
    socket.send(ether / packet)
`;

describe('TCP and tools that mean no good', { skip }, () => {
  let daemon: LabDaemon;
  let app: Running;

  before(async () => {
    daemon = await LabDaemon.start(undefined, []);
    const spec = `soft0,ip=${VNIC}/24,name=echo`;
    app = daemon.run(['--vnic', spec, '--user', 'nobody', '--', ECHO_APP, '--stats']);
    await until(() => app.output.includes('echo: udp') || !app.alive, READY_MS, 'the application');
  });

  after(async () => {
    await daemon?.close();
  });

  async function isWell(): Promise<void> {
    assert.ok(app.alive, app.output);
    assert.equal(await echo('still here'), 'still here');
  }

  test('nmap finds the open port, and the others closed', async () => {
    for (const scan of ['-sS', '-sT']) {
      const { output } = await runTool('nmap', ['-n', '-Pn', scan, '-T4', '-p1-200', VNIC]);
      assert.match(output, /^7\/tcp +open/m);
      assert.match(output, /199 closed/, output);
      await isWell();
    }
  });

  test('nmap: scans with strange flags tell open from closed as RFC 9293 says', async () => {
    for (const scan of ['-sN', '-sX']) {
      const { output } = await runTool('nmap', ['-n', '-Pn', scan, ...QUICK, '-p7,9', VNIC]);
      assert.match(output, /^7\/tcp +open\|filtered/m, output);
      assert.match(output, /^9\/tcp +closed/m, output);
    }
    const { output } = await runTool('nmap', ['-n', '-Pn', '-sA', ...QUICK, '-p7,9', VNIC]);
    assert.match(output, /unfiltered/, output);
    await isWell();
  });

  test('nmap recognizes the service', { skip: skipLong }, async () => {
    const { output } = await runTool('nmap', [
      '-n',
      '-Pn',
      '-sV',
      '--version-light',
      ...QUICK,
      '-p7',
      VNIC,
    ]);
    assert.match(output, /^7\/tcp +open +echo/m, output);
    await isWell();
  });

  test('nmap cannot foretell sequence numbers', async () => {
    const args = ['-n', '-Pn', '-O', '-v', ...QUICK, '--max-os-tries', '1', '-p7,9', VNIC];
    const { output } = await runTool('nmap', args);
    const difficulty = /TCP Sequence Prediction: Difficulty=(\d+)/.exec(output)?.[1];
    assert.ok(Number(difficulty) > 200, output);
    await isWell();
  });

  test('hping3: floods of SYN, of RST, of ACK and of everything at once', async () => {
    for (const flags of [['-S'], ['-R'], ['-A'], ['-F', '-P', '-U', '-S']]) {
      const flood = runTool('hping3', ['--flood', '-q', ...flags, '-p', '7', VNIC], FLOOD_MS);
      const during = echo('in the flood').catch((error: Error) => error.message);
      await flood;
      await during;
      await isWell();
    }
  });

  test('scapy: random headers, options and fragments', async () => {
    const { output, status } = await runTool('/usr/bin/python3', ['-c', SCAPY, tapName()]);
    assert.equal(status, 0, output);
    await isWell();
  });
});
