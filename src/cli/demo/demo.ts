/**
 * The demo. As root:
 *
 *   this machine ── TAP ── software NIC ── VNIC ── echo application, web server, each user nobody
 *   namespace of its own ══ veth ══ arkdemo0 ── VNIC, direct or switched ── echo application, user nobody
 *
 * Without root: applications on the software NIC, kernel sockets on loopback to compare with, and a published port by which
 * programs of this machine reach the web server.
 */
import { fileURLToPath } from 'node:url';
import { CLI, ECHO_APP, LabDaemon, VethLab } from '../../../bench/echo/lab.ts';
import { benchEcho } from '../../../bench/echo/run.ts';
import { ECHO_PORT } from '../../../bench/echo/systems.ts';
import { benchHttp } from '../../../bench/http/run.ts';
import type { Running } from '../../../bench/processes.ts';
import { connect } from '../../arrakis/index.ts';
import { parseIpv4 } from '../../base/address.ts';
import { socketPath } from '../../control/paths.ts';
import { echoTable } from '../commands/bench.ts';
import { httpTable } from '../commands/bench-http.ts';
import { formatNumber, formatTable, printLine } from '../table.ts';
import { watchCounters } from './live.ts';
import { kernelTraffic } from './traffic.ts';
import { fetchRow, isReady, startWeb, type Web } from './web.ts';

const LAB = {
  serverHere: true,
  serverInterface: 'arkdemo0',
  serverAddress: '10.78.0.1',
  clientAddress: '10.78.0.2',
} as const;
const TAP = { name: 'arktap0', host: '10.79.0.1', prefix: 24 } as const;
const TAP_VNICS = { echo: '10.79.0.2', web: '10.79.0.3' } as const;
/** Without TAP the software NIC has its usual network. */
const USER_VNICS = { echo: '10.77.0.7', web: '10.77.0.8' } as const;
const VNICS = { direct: '10.78.0.10', switched: '10.78.0.11' } as const;
const UDP_PING = fileURLToPath(new URL('../../../examples/udp-ping.js', import.meta.url));
/** Short: the demo is to end within a minute. `arrakis bench echo` takes its time. */
const MEASURE = { repetitions: 1, roundTrips: 5_000, saturateMs: 500, window: 512 } as const;
const MEASURE_HTTP = {
  repetitions: 1,
  warmupMs: 200,
  durationMs: 500,
  connections: [1, 64],
} as const;
/** Some of what `arrakis bench http` compares. */
const HTTP_SYSTEMS = ['kernel/nginx', 'arrakis/N-direct', 'arrakis/N-virtio'] as const;

/** Undo in reverse order, each step whatever the others do. */
class Undo {
  readonly #steps: (() => void | Promise<void>)[] = [];

  push(step: () => void | Promise<void>): void {
    this.#steps.push(step);
  }

  async all(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step();
      } catch (error) {
        process.stderr.write(`demo: cleaning up: ${(error as Error).message}\n`);
      }
    }
  }
}

/** Run it; with `once` it ends after the table, otherwise at Ctrl-C. */
export async function demo(once: boolean): Promise<void> {
  const root = process.getuid!() === 0;
  const undo = new Undo();
  const interrupt = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => interrupt.abort());
  try {
    await (root ? asRoot : asUser)(undo, once, interrupt.signal);
  } catch (error) {
    // A child that got the same Ctrl-C fails in its own way before we look at ours.
    if (!interrupt.signal.aborted) throw error;
  } finally {
    await undo.all();
  }
}

async function asRoot(undo: Undo, once: boolean, signal: AbortSignal): Promise<void> {
  printLine('Arrakis: servers in TypeScript, on virtual network cards of their own.\n');
  const lab = VethLab.create(LAB);
  undo.push(() => lab.close());
  const daemon = await LabDaemon.start(undefined, [
    ...['--tap-name', TAP.name],
    ...['--tap-address', `${TAP.host}/${TAP.prefix}`],
  ]);
  undo.push(() => daemon.close());
  const soft = startEcho(daemon, undo, `soft0,ip=${TAP_VNICS.echo}/${TAP.prefix}`);
  const direct = startEcho(
    daemon,
    undo,
    `${LAB.serverInterface},mode=direct,ip=${VNICS.direct}/24`,
  );
  const switched = startEcho(
    daemon,
    undo,
    `${LAB.serverInterface},mode=switched,ip=${VNICS.switched}/24`,
  );
  // The published port takes the next free address: those that are asked for by name go before.
  await isReady(soft, 'echo: ');
  const web = await startWeb(daemon, undo, `soft0,ip=${TAP_VNICS.web}/${TAP.prefix}`);
  printLine('they run as user nobody; kernel clients (ping, UDP and TCP sockets) reach them:');
  const rows = [
    await trafficRow('software NIC, over TAP', soft, null, TAP_VNICS.echo, signal),
    await trafficRow('AF_XDP direct', direct, lab, VNICS.direct, signal),
    await trafficRow('AF_XDP switched', switched, lab, VNICS.switched, signal),
  ];
  printLine(
    indent(formatTable(['VNIC', 'address', 'pings', 'µs', 'UDP echoes', 'µs (p50)'], rows)),
  );
  await showPage(web, `http://${TAP_VNICS.web}/`);
  await measure(lab, [soft, direct, switched, web.running], daemon, signal);
  if (once) return;
  await stayUp(undo, signal, ['--tap-name', TAP.name, '--tap-address', `${TAP.host}/24`], {
    vnics: TAP_VNICS,
    invitation: (_dir, url) =>
      `open ${url} or http://${TAP_VNICS.web}/ in a browser\n` +
      `try: ping ${TAP_VNICS.echo}   echo hello | nc -u -w1 ${TAP_VNICS.echo} ${ECHO_PORT}`,
  });
}

async function asUser(undo: Undo, once: boolean, signal: AbortSignal): Promise<void> {
  printLine('Arrakis: servers in TypeScript, on virtual network cards of their own.');
  printLine('Not root: the software NIC between applications. Root would add:');
  printLine('  - a TAP interface, so that ping, nc and every kernel program reach the VNIC');
  printLine('  - VNICs on real interfaces by AF_XDP, direct and switched');
  printLine('  - the application under another user than the daemon (sudo npm start)');
  const daemon = await LabDaemon.start(undefined, ['--no-tap']);
  undo.push(() => daemon.close());
  const web = await startWeb(daemon, undo, `soft0,ip=${USER_VNICS.web}/24`);
  await showPage(web, null);
  await measure(null, [web.running], daemon, signal);
  if (once) return;
  await stayUp(undo, signal, ['--no-tap'], {
    vnics: USER_VNICS,
    invitation: (dir, url) =>
      `open ${url} in a browser\n` +
      `another application may join: ARRAKIS_DIR=${dir} node ${fileURLToPath(CLI)} run --vnic soft0 -- ` +
      `${UDP_PING} ${USER_VNICS.echo}`,
  });
}

/** The echo application under `arrakis run`. */
function startEcho(daemon: LabDaemon, undo: Undo, spec: string): Running {
  const user = process.getuid!() === 0 ? ['--user', 'nobody'] : [];
  const running = daemon.run(['--vnic', spec, ...user, '--', ECHO_APP]);
  undo.push(() => running.stop());
  return running;
}

async function trafficRow(
  name: string,
  server: Running,
  lab: VethLab | null,
  address: string,
  signal: AbortSignal,
): Promise<(string | number)[]> {
  const network = lab?.client.network ?? null;
  try {
    const t = await kernelTraffic(network, parseIpv4(address), ECHO_PORT, signal);
    return [
      name,
      address,
      `${t.pingsAnswered}/10`,
      formatNumber(t.pingUs),
      `${t.echoesAnswered}/1000`,
      formatNumber(t.echoUs),
    ];
  } catch (error) {
    if (!signal.aborted) process.stderr.write(`${server.output}\n`);
    throw error;
  }
}

/** A page, over TAP if there is one, and over the published port. */
async function showPage(web: Web, overTap: string | null): Promise<void> {
  printLine('\na web page, by kernel clients on this machine:');
  const rows = overTap === null ? [] : [await fetchRow('over TAP', overTap)];
  rows.push(await fetchRow('over the published port', web.url));
  printLine(indent(formatTable(['way', 'address', 'answer', 'µs (p50)'], rows)));
}

/** The table. The demo's own applications make way: two processors are few. */
async function measure(
  lab: VethLab | null,
  running: readonly Running[],
  daemon: LabDaemon | null,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  await Promise.all(running.map((r) => r.stop()));
  await daemon?.close();
  printLine('\nmeasuring, 64-byte packets, one client for all (a few seconds each) ...');
  const { rows, missing } = await benchEcho({
    ...MEASURE,
    only: [],
    signal,
    progress: (line) => process.stderr.write(`  ${line}\n`),
    ...(lab === null ? {} : { lab }),
  });
  printLine();
  printLine(echoTable(rows));
  if (missing.length > 0) printLine();
  for (const { system, reason } of missing) printLine(`left out: ${system}: ${reason}`);
  await measureHttp(signal);
  printLine('\nlonger runs and JSON: npm run --silent arrakis -- bench echo --json out.json');
  printLine('                      npm run --silent arrakis -- bench http --json out.json');
}

/** The same page from nginx and from us. */
async function measureHttp(signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  printLine('\na page of 1,024 bytes, one client for all ...');
  const { rows, missing } = await benchHttp({
    ...MEASURE_HTTP,
    shortConnections: false,
    only: process.getuid!() === 0 ? HTTP_SYSTEMS : [],
    signal,
    progress: (line) => process.stderr.write(`  ${line}\n`),
  });
  printLine();
  printLine(httpTable(rows));
  if (missing.length > 0) printLine();
  for (const { system, reason } of missing) printLine(`left out: ${system}: ${reason}`);
}

/** A daemon and the echo application until Ctrl-C, with its counters. */
async function stayUp(
  undo: Undo,
  signal: AbortSignal,
  daemonArgs: readonly string[],
  what: {
    vnics: { readonly echo: string; readonly web: string };
    invitation: (dir: string, url: string) => string;
  },
): Promise<void> {
  signal.throwIfAborted();
  const daemon = await LabDaemon.start(undefined, daemonArgs);
  undo.push(() => daemon.close());
  await isReady(startEcho(daemon, undo, `soft0,ip=${what.vnics.echo}/24`), 'echo: ');
  const web = await startWeb(daemon, undo, `soft0,ip=${what.vnics.web}/24`);
  printLine('\nthe servers stay up; Ctrl-C ends them');
  printLine(what.invitation(daemon.dir, web.url));
  printLine(`to look: ARRAKIS_DIR=${daemon.dir} node ${fileURLToPath(CLI)} ls\n`);
  const domain = await connect({ socket: socketPath(daemon.dir), name: 'demo' });
  undo.push(() => domain.close());
  await watchCounters(domain, signal);
}

const indent = (text: string): string => text.replace(/^/gm, '  ');
